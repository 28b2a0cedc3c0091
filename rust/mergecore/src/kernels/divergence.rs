//! How far does a softmax move?
//!
//! Exponentials and logarithms are made of additions and multiplications here: a system's own differ in their last digits from one
//! processor to another, and they do not vectorise.

use super::angle;
use crate::dtype::Real;

/// Added to every probability, so that none is divided by nothing (mergekit's).
const FLOOR: f64 = 1e-8;

/// KL(p ‖ q) = Σ p ln(p/q) in f64, p = softmax(base + delta) + 1e-8, q = softmax(base) + 1e-8. Not below 0.
pub fn of_softmax<R: Real>(base: &[R], delta: &[R]) -> f64 {
    let mut p: Vec<f64> = base.iter().zip(delta).map(|(b, d)| b.f64() + d.f64()).collect();
    let mut q: Vec<f64> = base.iter().map(|b| b.f64()).collect();
    softmax(&mut p);
    softmax(&mut q);
    logarithms(&mut q, &p);
    let sum = angle::dot(&p, &q);
    // Roundings alone make it negative. NaN stays.
    if sum < 0.0 {
        0.0
    } else {
        sum
    }
}

fn softmax(x: &mut [f64]) {
    let largest = x.iter().fold(f64::NEG_INFINITY, |largest, x| largest.max(*x));
    exponentials(x, largest);
    let sum = angle::l1(x);
    x.iter_mut().for_each(|x| *x = *x / sum + FLOOR);
}

wide! {
    /// x ← e^(x − largest)
    fn exponentials(x: &mut [f64], largest: f64) {
        for x in x.iter_mut() {
            *x = exp(*x - largest);
        }
    }
}

wide! {
    /// q ← ln(p/q)
    fn logarithms(q: &mut [f64], p: &[f64]) {
        for (q, p) in q.iter_mut().zip(p) {
            *q = ln(*p / *q);
        }
    }
}

/// 1/k!
const SERIES: [f64; 14] = {
    let (mut series, mut k, mut factorial) = ([1.0; 14], 1, 1.0);
    while k < 14 {
        factorial *= k as f64;
        series[k] = 1.0 / factorial;
        k += 1;
    }
    series
};

/// e^x for x ≤ 0: 2^n·e^r, |r| ≤ ½ ln 2, by the series of e^r.
#[inline(always)]
fn exp(x: f64) -> f64 {
    // ln 2 in two parts, of which the first times n is exact.
    const LN2: [f64; 2] = [f64::from_bits(0x3FE6_2E42_FEE0_0000), f64::from_bits(0x3DEA_39EF_3579_3C76)];
    // Adding and taking away rounds to an integer.
    const ROUND: f64 = 6755399441055744.0;
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2[0]) - n * LN2[1];
    let mut sum = SERIES[13];
    for k in (0..13).rev() {
        sum = sum * r + SERIES[k];
    }
    // The integer is in the last bits of `shifted`.
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    let tiny = x < -700.0;
    if tiny {
        0.0
    } else {
        sum * power
    }
}

/// ln x for x > 0 that is neither denormal nor infinite: e·ln 2 + ln m, ½√2 < m ≤ √2, by the series of artanh.
#[inline(always)]
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    // Exponents are counted from √½, so that numbers just below 1 have the exponent 0.
    let above = bits.wrapping_sub(std::f64::consts::FRAC_1_SQRT_2.to_bits());
    let e = (above as i64) >> 52;
    let m = f64::from_bits(bits.wrapping_sub((e << 52) as u64));
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for k in (0..=10).rev() {
        sum = sum * square + 1.0 / f64::from(2 * k + 1);
    }
    if x.is_nan() {
        x
    } else {
        e as f64 * std::f64::consts::LN_2 + 2.0 * s * sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_and_logarithms_are_those_of_the_system() {
        for i in 0..100_000 {
            let x = -700.0 * (f64::from(i) / 1e5).powi(3);
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-15, "exp {x}");
            let z = (x / 30.0).exp();
            for z in [z, 1.0 / z] {
                assert!((ln(z) - z.ln()).abs() <= 4.0 * f64::EPSILON * z.ln().abs(), "ln {z}: {} and {}", ln(z), z.ln());
            }
        }
        assert_eq!((exp(0.0), exp(f64::NEG_INFINITY), ln(1.0)), (1.0, 0.0, 0.0));
        assert!(exp(f64::NAN).is_nan() && ln(f64::NAN).is_nan());
    }

    #[test]
    fn nothing_moves_where_nothing_changes() {
        let base: Vec<f32> = (0..77).map(|i| (i as f32).sin()).collect();
        assert_eq!(of_softmax(&base, &[0.0; 77]), 0.0);
        // A shift of all by the same moves no softmax.
        assert!(of_softmax(&base, &[0.5; 77]) < 1e-15);
    }
}
