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
    /// x ← x / divisor (a true division: multiplying by the reciprocal rounds differently)
    pub fn divide<R>(x: &mut [R], divisor: R) {
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

/// out ← Σ wᵢxᵢ, over Σ wᵢ if `normalize` (over 1 where that vanishes: mergekit's guard against weights that cancel).
pub fn weighted_sum<R: Real>(out: &mut [R], rows: &[Vec<R>], weights: &[f64], normalize: bool) {
    out.fill(R::ZERO);
    for (x, w) in rows.iter().zip(weights) {
        add_weighted(out, x, R::of(*w));
    }
    if normalize {
        let sum = weights.iter().fold(R::ZERO, |sum, w| sum + R::of(*w));
        if sum.abs() >= R::of(1e-8) {
            divide(out, sum);
        }
    }
}
