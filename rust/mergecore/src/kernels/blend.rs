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
    /// out ← x − base, where the model itself is still wanted.
    pub fn difference<R>(out: &mut [R], x: &[R], base: &[R]) {
        for ((o, x), b) in out.iter_mut().zip(x).zip(base) {
            *o = *x - *b;
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
    /// x ← x where the gate is not 0, and over it if `divide`; 0 elsewhere.
    pub fn gate<R>(x: &mut [R], gate: &[R], divide: bool) {
        for (x, gate) in x.iter_mut().zip(gate) {
            let by = if divide { *gate } else { R::ONE };
            *x = if *gate == R::ZERO { R::ZERO } else { *x / by };
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

wide! {
    /// out ← Σ wᵢxᵢ, over Σ wᵢ if `normalize` (over 1 where that vanishes: mergekit's guard against weights that cancel).
    pub fn weighted_sum<R>(out: &mut [R], rows: &[Vec<R>], weights: &[f64], normalize: bool) {
        // A strip of the sum stays in the core's nearest cache until all models are in it.
        const STRIP: usize = 1024;
        for (number, out) in out.chunks_mut(STRIP).enumerate() {
            out.fill(R::ZERO);
            for (row, w) in rows.iter().zip(weights) {
                let w = R::of(*w);
                for (sum, x) in out.iter_mut().zip(&row[number * STRIP..]) {
                    *sum = *sum + *x * w;
                }
            }
        }
        let divisor = weights.iter().fold(R::ZERO, |sum, w| sum + R::of(*w));
        if normalize && divisor.abs() >= R::of(1e-8) {
            divide(out, divisor);
        }
    }
}

/// out ← Σ wᵢxᵢ / N
pub fn mean<R: Real>(out: &mut [R], rows: &[Vec<R>], weights: &[f64]) {
    weighted_sum(out, rows, weights, false);
    divide(out, R::of(weights.len() as f64));
}
