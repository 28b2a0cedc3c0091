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
    for (lane, (a, b)) in rest.iter().zip(rest_b).enumerate() {
        sums[lane] += term(a.f64(), b.f64());
    }
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

wide! {
    /// Σ (aᵢ − bᵢ)²
    pub fn distance_squared<R>(a: &[R], b: &[R]) -> f64 {
        lanes(a, b, |a, b| (a - b) * (a - b))
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
