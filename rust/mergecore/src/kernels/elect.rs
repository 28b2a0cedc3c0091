//! TIES' election: which sign does an element take, and who agrees with it?
//!
//! A model's vote is its (trimmed or thinned) task vector times its weight. Votes are multiplied again wherever they are counted: that
//! is cheaper than writing them down.

use crate::dtype::Real;

/// Elements that are taken through all steps at a time, in arrays of that size, so that they hardly leave the registers. (Strips of 512
/// in the nearest cache take a quarter longer; loops of 32 are unrolled before they are vectorised, and take four times as long.)
const STRIP: usize = 128;

/// A row's strip from element `at` on. At the end of the row it is made up with zeros, in `pad`.
#[inline(always)]
fn strip<'a, R: Real>(row: &'a [R], at: usize, pad: &'a mut [R; STRIP]) -> &'a [R; STRIP] {
    let row = &row[at..];
    row.first_chunk().unwrap_or_else(|| {
        pad[..row.len()].copy_from_slice(row);
        pad
    })
}

/// Adds up all votes on the strip from element `at` on, model by model.
#[inline(always)]
fn tally<R: Real>(total: &mut [R; STRIP], rows: &[Vec<R>], weights: &[f64], at: usize) {
    let mut pad = [R::ZERO; STRIP];
    for (row, w) in rows.iter().zip(weights) {
        let (x, w) = (strip(row, at, &mut pad), R::of(*w));
        for i in 0..STRIP {
            total[i] = total[i] + x[i] * w;
        }
    }
}

wide! {
    /// Σⱼ sign(Σᵢ wᵢ·rowᵢⱼ): how many of `count` elements elect + more than −.
    pub fn majority<R>(rows: &[Vec<R>], weights: &[f64], count: usize) -> f64 {
        let mut balance = 0i64;
        for at in (0..count).step_by(STRIP) {
            let mut total = [R::ZERO; STRIP];
            tally(&mut total, rows, weights, at);
            // What a strip has beyond the row's end adds up to zero, and elects neither.
            for t in total {
                balance += i64::from(t > R::ZERO) - i64::from(t < R::ZERO);
            }
        }
        balance as f64
    }
}

wide! {
    /// The disjoint merge: out ← the sum of the votes whose sign is that of all votes' sum, over the sum of their weights if `normalize`.
    ///
    /// A sum of zero elects `zero` (+1 or −1). A vote of zero agrees with nobody. Where the divisor is zero it is 1.
    pub fn disjoint<R>(out: &mut [R], rows: &[Vec<R>], weights: &[f64], normalize: bool, zero: f64) {
        let zero_is_plus = zero >= 0.0;
        let mut pad = [R::ZERO; STRIP];
        for (number, out) in out.chunks_mut(STRIP).enumerate() {
            let at = number * STRIP;
            // The elected sign becomes a factor ±1, so that "agrees" is one comparison: vote·sign > 0.
            let mut sign = [R::ZERO; STRIP];
            tally(&mut sign, rows, weights, at);
            for s in &mut sign {
                let plus = *s > R::ZERO || (*s == R::ZERO && zero_is_plus);
                *s = if plus { R::ONE } else { R::ZERO - R::ONE };
            }
            let mut sum = [R::ZERO; STRIP];
            if normalize {
                let mut divisor = [R::ZERO; STRIP];
                for (row, w) in rows.iter().zip(weights) {
                    let (x, w) = (strip(row, at, &mut pad), R::of(*w));
                    for i in 0..STRIP {
                        let agrees = x[i] * w * sign[i] > R::ZERO;
                        sum[i] = sum[i] + if agrees { x[i] * w } else { R::ZERO };
                        divisor[i] = divisor[i] + if agrees { w } else { R::ZERO };
                    }
                }
                for i in 0..STRIP {
                    sum[i] = sum[i] / if divisor[i] == R::ZERO { R::ONE } else { divisor[i] };
                }
            } else {
                for (row, w) in rows.iter().zip(weights) {
                    let (x, w) = (strip(row, at, &mut pad), R::of(*w));
                    for i in 0..STRIP {
                        sum[i] = sum[i] + if x[i] * w * sign[i] > R::ZERO { x[i] * w } else { R::ZERO };
                    }
                }
            }
            match out.first_chunk_mut() {
                Some(out) => *out = sum,
                None => out.copy_from_slice(&sum[..out.len()]),
            }
        }
    }
}

wide! {
    /// The merge of SCE: signs are elected by the sum of the rows themselves (a sum of zero elects +), and out ← Σ wᵢxᵢ over those that
    /// agree, over their Σ wᵢ, which counts as `least` at least.
    pub fn weighed_after<R>(out: &mut [R], rows: &[Vec<R>], weights: &[f64], least: R) {
        let mut pad = [R::ZERO; STRIP];
        let equal = vec![1.0; rows.len()];
        for (number, out) in out.chunks_mut(STRIP).enumerate() {
            let at = number * STRIP;
            let mut sign = [R::ZERO; STRIP];
            tally(&mut sign, rows, &equal, at);
            for s in &mut sign {
                *s = if *s >= R::ZERO { R::ONE } else { R::ZERO - R::ONE };
            }
            let (mut sum, mut divisor) = ([R::ZERO; STRIP], [R::ZERO; STRIP]);
            for (row, w) in rows.iter().zip(weights) {
                let (x, w) = (strip(row, at, &mut pad), R::of(*w));
                for i in 0..STRIP {
                    let agrees = x[i] * sign[i] > R::ZERO;
                    sum[i] = sum[i] + if agrees { x[i] * w } else { R::ZERO };
                    divisor[i] = divisor[i] + if agrees { w } else { R::ZERO };
                }
            }
            for i in 0..STRIP {
                sum[i] = sum[i] / if divisor[i] > least { divisor[i] } else { least };
            }
            out.copy_from_slice(&sum[..out.len()]);
        }
    }
}
