//! Weighted sums, element by element. Each operation rounds once, in the order written here.

use crate::dtype::Real;

wide! {
    /// x ← x − base: a model becomes its task vector.
    pub fn subtract<R>(x: &mut [R], base: &[R]) {
        for (x, b) in x.iter_mut().zip(base) {
            *x = *x - *b;
        }
    }
}

wide! {
    /// sum ← sum + x·weight (the product is rounded before it is added).
    pub fn add_weighted<R>(sum: &mut [R], x: &[R], weight: R) {
        for (s, x) in sum.iter_mut().zip(x) {
            *s = *s + *x * weight;
        }
    }
}

wide! {
    /// sum ← sum + x·weight, rounded once (fused).
    pub fn add_fused<R>(sum: &mut [R], x: &[R], weight: R) {
        for (s, x) in sum.iter_mut().zip(x) {
            *s = x.mul_add(weight, *s);
        }
    }
}

wide! {
    /// x ← x·factor
    pub fn scale<R>(x: &mut [R], factor: R) {
        for x in x.iter_mut() {
            *x = *x * factor;
        }
    }
}

wide! {
    /// x ← x / divisor (a true division: multiplying by a reciprocal that was rounded rounds differently)
    pub fn divide<R>(x: &mut [R], divisor: R) {
        if divisor == R::ONE {
            return;
        }
        if let Some(factor) = reciprocal(divisor) {
            return scale(x, factor);
        }
        for x in x.iter_mut() {
            *x = *x / divisor;
        }
    }
}

wide! {
    /// delta ← onto + delta·lambda: a merged task vector becomes a model again.
    pub fn attach<R>(delta: &mut [R], onto: &[R], lambda: R) {
        for (d, o) in delta.iter_mut().zip(onto) {
            *d = *o + *d * lambda;
        }
    }
}

wide! {
    /// out ← a·s + b·t
    pub fn combine<R>(out: &mut [R], a: &[R], s: R, b: &[R], t: R) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = *a * s + *b * t;
        }
    }
}

/// 1/divisor where it is exact, for powers of two: multiplying by it then gives what dividing does, and division is slow.
pub fn reciprocal<R: Real>(divisor: R) -> Option<R> {
    const FRACTION: u64 = (1 << 52) - 1;
    let factor = R::ONE / divisor;
    (divisor.f64().to_bits() & FRACTION == 0 && factor.is_finite() && factor != R::ZERO).then_some(factor)
}

/// Elements that a kernel of several rows takes through all of its steps at a time, in arrays of that size: they hardly leave the
/// registers. (With 512 at a time an election takes half as long again; with 32 the loops are unrolled before they are vectorised,
/// and it takes four times as long.)
pub const STRIP: usize = 64;

/// A row's strip from element `at` on. At the end of the row it is made up with zeros, in `pad`.
#[inline(always)]
pub fn strip<'a, R: Real>(row: &'a [R], at: usize, pad: &'a mut [R; STRIP]) -> &'a [R; STRIP] {
    let row = &row[at..];
    row.first_chunk().unwrap_or_else(|| {
        pad[..row.len()].copy_from_slice(row);
        pad
    })
}

/// Writes a strip, as much of it as `out` has room for.
#[inline(always)]
pub fn put<R: Real>(out: &mut [R], strip: &[R; STRIP]) {
    match out.first_chunk_mut() {
        Some(out) => *out = *strip,
        None => out.copy_from_slice(&strip[..out.len()]),
    }
}

/// Σ wᵢ·rowᵢ in a strip from element `at` on, model by model.
#[inline(always)]
pub fn add_up<R: Real>(rows: &[Vec<R>], weights: &[f64], at: usize) -> [R; STRIP] {
    let (mut sum, mut pad) = ([R::ZERO; STRIP], [R::ZERO; STRIP]);
    for (row, w) in rows.iter().zip(weights) {
        let (x, w) = (strip(row, at, &mut pad), R::of(*w));
        for i in 0..STRIP {
            sum[i] = sum[i] + x[i] * w;
        }
    }
    sum
}

wide! {
    /// out ← Σ wᵢxᵢ, over Σ wᵢ if `normalize` (over 1 where that vanishes: mergekit's guard against weights that cancel).
    pub fn weighted_sum<R>(out: &mut [R], rows: &[Vec<R>], weights: &[f64], normalize: bool) {
        for (number, out) in out.chunks_mut(STRIP).enumerate() {
            put(out, &add_up(rows, weights, number * STRIP));
        }
        let divisor = weights.iter().fold(R::ZERO, |sum, w| sum + R::of(*w));
        if normalize && divisor.abs() >= R::of(1e-8) {
            divide(out, divisor);
        }
    }
}
