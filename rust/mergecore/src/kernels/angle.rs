//! Sums, norms and dot products that are the same for any number of threads.
//!
//! A block is summed in f64 over sixteen fixed lanes, which vectorises; blocks are summed over a fixed binary tree. Nothing depends on
//! who computed which block, or when.

use crate::dtype::Real;

const LANES: usize = 16;

/// Σ term(aᵢ, bᵢ) in f64, lane by lane.
#[inline(always)]
fn lanes<R: Real>(a: &[R], b: &[R], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [0f64; LANES];
    let (wide, wide_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (rest, rest_b) = (wide.remainder(), wide_b.remainder());
    for (a, b) in wide.zip(wide_b) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane].f64(), b[lane].f64());
        }
    }
    add_rest(&mut sums, rest, rest_b, term);
    tree(&sums)
}

/// Adds what is left of a row when its whole lanes are taken. Not inlined: a sight of single lanes keeps the compiler from whole vectors,
/// and the sums take half as long again.
#[cold]
#[inline(never)]
fn add_rest<R: Real>(sums: &mut [f64; LANES], a: &[R], b: &[R], term: impl Fn(f64, f64) -> f64) {
    for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
        *sum += term(a.f64(), b.f64());
    }
}

wide! {
    /// Σ aᵢbᵢ
    pub fn dot<R>(a: &[R], b: &[R]) -> f64 {
        lanes(a, b, |a, b| a * b)
    }
}

wide! {
    /// Σ |aᵢ|
    pub fn l1<R>(a: &[R]) -> f64 {
        lanes(a, a, |a, _| a.abs())
    }
}

/// Σ (aᵢ − cᵢ)² and Σ (bᵢ − cᵢ)² of rows that are shown strip by strip, each but the last of whole lanes: the same as of the rows at
/// once.
#[derive(Default)]
pub struct Distances([[f64; LANES]; 2]);

impl Distances {
    pub fn add<R: Real>(&mut self, a: &[R], b: &[R], c: &[R]) {
        add_squares(&mut self.0, a, b, c);
    }

    pub fn squared(&self) -> [f64; 2] {
        self.0.each_ref().map(|sums| tree(sums))
    }
}

wide! {
    fn add_squares<R>(sums: &mut [[f64; LANES]; 2], a: &[R], b: &[R], c: &[R]) {
        let square = |x: f64, y: f64| (x - y) * (x - y);
        let [to_a, to_b] = sums;
        let (wide_a, wide_b, wide_c) = (a.chunks_exact(LANES), b.chunks_exact(LANES), c.chunks_exact(LANES));
        let (rest_a, rest_b, rest_c) = (wide_a.remainder(), wide_b.remainder(), wide_c.remainder());
        // Both at once, since most of the work is to make f64 of f32.
        for ((a, b), c) in wide_a.zip(wide_b).zip(wide_c) {
            for lane in 0..LANES {
                to_a[lane] += square(a[lane].f64(), c[lane].f64());
                to_b[lane] += square(b[lane].f64(), c[lane].f64());
            }
        }
        add_rest(to_a, rest_a, rest_c, square);
        add_rest(to_b, rest_b, rest_c, square);
    }
}

/// Sums over a fixed binary tree: halves, and halves of halves.
pub fn tree(x: &[f64]) -> f64 {
    match x {
        [] => 0.0,
        [x] => *x,
        _ => {
            let (left, right) = x.split_at(x.len().next_power_of_two() / 2);
            tree(left) + tree(right)
        }
    }
}
