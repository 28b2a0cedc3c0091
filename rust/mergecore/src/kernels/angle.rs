//! Sums, norms and dot products that are the same for any number of threads.
//!
//! A block is summed in f64 over sixteen fixed lanes, which vectorises; blocks are summed over a fixed binary tree. Nothing depends on
//! who computed which block, or when.

use crate::dtype::Real;

const LANES: usize = 16;

/// Adds term(aᵢ, bᵢ) in f64, lane by lane.
#[inline(always)]
fn add<R: Real>(sums: &mut [f64; LANES], a: &[R], b: &[R], term: impl Fn(f64, f64) -> f64) {
    let (wide, wide_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (rest, rest_b) = (wide.remainder(), wide_b.remainder());
    for (a, b) in wide.zip(wide_b) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane].f64(), b[lane].f64());
        }
    }
    if !rest.is_empty() {
        add_rest(sums, rest, rest_b, term);
    }
}

/// Not inlined: a sight of single lanes keeps the compiler from whole vectors, and then the sums take half as long again.
#[cold]
#[inline(never)]
fn add_rest<R: Real>(sums: &mut [f64; LANES], a: &[R], b: &[R], term: impl Fn(f64, f64) -> f64) {
    for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
        *sum += term(a.f64(), b.f64());
    }
}

/// Σ term(aᵢ, bᵢ) in f64.
#[inline(always)]
fn lanes<R: Real>(a: &[R], b: &[R], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [0f64; LANES];
    add(&mut sums, a, b, term);
    tree(&sums)
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

/// Σ (aᵢ − bᵢ)² of two rows that are shown strip by strip, each but the last of whole lanes: the same as of the rows at once.
#[derive(Default)]
pub struct Distance([f64; LANES]);

impl Distance {
    pub fn add<R: Real>(&mut self, a: &[R], b: &[R]) {
        add_squares(&mut self.0, a, b);
    }

    pub fn squared(&self) -> f64 {
        tree(&self.0)
    }
}

wide! {
    fn add_squares<R>(sums: &mut [f64; LANES], a: &[R], b: &[R]) {
        add(sums, a, b, |a, b| (a - b) * (a - b));
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
