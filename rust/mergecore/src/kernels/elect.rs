//! TIES' election: which sign does an element take, and who agrees with it?

wide! {
    /// total ← Σᵢ votesᵢ, model by model
    pub fn tally<R>(total: &mut [R], votes: &[Vec<R>]) {
        total.fill(R::ZERO);
        for vote in votes {
            for (t, v) in total.iter_mut().zip(vote.iter()) {
                *t = *t + *v;
            }
        }
    }
}

wide! {
    /// Σ sign(totalⱼ): how many elements of a block elect + more than −.
    pub fn majority<R>(total: &[R]) -> f64 {
        let mut balance = 0i64;
        for t in total {
            balance += i64::from(*t > R::ZERO) - i64::from(*t < R::ZERO);
        }
        balance as f64
    }
}

wide! {
    /// The disjoint merge. `votes` are the weighted (and trimmed) task vectors; `total` holds their sum and receives the merged vector:
    /// the sum of the votes whose sign is that of the total, over the sum of their weights if `normalize`.
    ///
    /// A total of zero elects `zero` (+1 or −1). A vote of zero agrees with nobody. Where the divisor is zero it is 1.
    pub fn disjoint<R>(total: &mut [R], votes: &[Vec<R>], weights: &[f64], normalize: bool, zero: f64, divisor: &mut [R]) {
        let zero_is_plus = zero >= 0.0;
        // The elected sign becomes a factor ±1, so that "agrees" is one comparison: vote·sign > 0.
        let (sign, sum) = (total, divisor);
        for s in sign.iter_mut() {
            let plus = *s > R::ZERO || (*s == R::ZERO && zero_is_plus);
            *s = if plus { R::ONE } else { R::ZERO - R::ONE };
        }
        sum.fill(R::ZERO);
        for vote in votes {
            for ((sum, v), s) in sum.iter_mut().zip(vote.iter()).zip(sign.iter()) {
                *sum = *sum + if *v * *s > R::ZERO { *v } else { R::ZERO };
            }
        }
        if normalize {
            const STRIP: usize = 512;
            let mut weight = [R::ZERO; STRIP];
            for start in (0..sum.len()).step_by(STRIP) {
                let end = (start + STRIP).min(sum.len());
                let weight = &mut weight[..end - start];
                weight.fill(R::ZERO);
                for (vote, w) in votes.iter().zip(weights) {
                    let w = R::of(*w);
                    for ((d, v), s) in weight.iter_mut().zip(&vote[start..end]).zip(&sign[start..end]) {
                        *d = *d + if *v * *s > R::ZERO { w } else { R::ZERO };
                    }
                }
                for (sum, d) in sum[start..end].iter_mut().zip(weight.iter()) {
                    *sum = *sum / if *d == R::ZERO { R::ONE } else { *d };
                }
            }
        }
        sign.copy_from_slice(sum);
    }
}
