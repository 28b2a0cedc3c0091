//! TIES' election: which sign does an element take, and who agrees with it?
//!
//! A model's vote is its (trimmed or thinned) task vector times its weight. Votes are multiplied again wherever they are counted: that
//! is cheaper than writing them down.

use super::blend::{add_up, put, strip, STRIP};

wide! {
    /// Σⱼ sign(Σᵢ wᵢ·rowᵢⱼ): how many of `count` elements elect + more than −.
    pub fn majority<R>(rows: &[Vec<R>], weights: &[f64], count: usize) -> f64 {
        let mut balance = 0i64;
        for at in (0..count).step_by(STRIP) {
            // What a strip has beyond the row's end sums to zero, and elects neither.
            for total in add_up(rows, weights, at) {
                balance += i64::from(total > R::ZERO) - i64::from(total < R::ZERO);
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
            let mut sign = add_up(rows, weights, at);
            for s in &mut sign {
                let plus = *s > R::ZERO || (*s == R::ZERO && zero_is_plus);
                *s = if plus { R::ONE } else { R::ZERO - R::ONE };
            }
            let (mut sum, mut divisor) = ([R::ZERO; STRIP], [R::ZERO; STRIP]);
            for (row, w) in rows.iter().zip(weights) {
                let (x, w) = (strip(row, at, &mut pad), R::of(*w));
                for i in 0..STRIP {
                    let vote = x[i] * w;
                    sum[i] = sum[i] + if vote * sign[i] > R::ZERO { vote } else { R::ZERO };
                }
                if normalize {
                    for i in 0..STRIP {
                        divisor[i] = divisor[i] + if x[i] * w * sign[i] > R::ZERO { w } else { R::ZERO };
                    }
                }
            }
            if normalize {
                for i in 0..STRIP {
                    sum[i] = sum[i] / if divisor[i] == R::ZERO { R::ONE } else { divisor[i] };
                }
            }
            put(out, &sum);
        }
    }
}
