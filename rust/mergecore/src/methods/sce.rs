//! SCE: select the elements in which the models differ most, calculate a weight for each model, erase what disagrees with the majority.
//!
//! Wan et al., FuseChat (2024), by mergekit's rules: all is of one tensor; of the elements whose variance over the models is not
//! zero the trunc(select_topk·count) largest are kept (of equal variances the lowest index), all if select_topk is 1; a model's weight is
//! its mean square there; a sum of zero elects +; an element's divisor is at least 1e-6.
//!
//! mergekit gives all models the same weight where the mean squares sum to less than 1e-6, and so does this. Fine-tunes are that near to
//! their base as a rule (deltas of 3e-4 are), so that "calculate" seldom does anything. A sum that is not finite (a NaN in the tensor) is
//! treated alike, lest one element spoil all.

use super::{Base, Block, Facts, Formula, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::{angle, elect, spread};
use crate::params::{Default, Param, Params, DENSITY, LAMBDA};

pub const SPEC: Spec = Spec {
    name: "sce",
    summary: "select what differs most, weigh the models by their changes, and merge the elements that agree",
    formula: "θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ / Σ_{i agrees} wᵢ,  δ̂ = δ where Var_i(δᵢ) is among the largest,  wᵢ = mean δ̂ᵢ² / Σⱼ mean δ̂ⱼ²;  agrees: sign(δ̂ᵢ) = sign(Σ δ̂ⱼ)",
    paper: "Wan et al., FuseChat, 2024, arXiv:2408.07990",
    cost: "one more pass over a tensor for the weights; two more for select_topk below 1",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[
        Param {
            name: "select_topk",
            per_model: false,
            default: Default::Number(1.0),
            file_default: None,
            doc: "fraction kept of the elements in which the models differ, those that differ most",
            ..DENSITY
        },
        LAMBDA,
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct Sce {
    topk: f64,
    models: usize,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Sce { topk: params.number("select_topk"), models: params.models }))
}

impl Sce {
    /// How many sums come before the models' mean squares: one where there is something to select.
    fn counted(&self) -> usize {
        usize::from(self.topk < 1.0)
    }

    /// Keeps what varies most. `out` is overwritten.
    fn select<R: Real>(&self, block: &mut Block<R>, facts: &Facts) {
        if let Some(cutoff) = facts.cutoffs.first() {
            spread::variance(block.out, block.inputs);
            cutoff.trim(block.number, block.out);
            block.inputs.iter_mut().for_each(|delta| spread::keep_where(delta, block.out));
        }
    }
}

impl Method for Sce {
    fn need(&self, facts: &Facts, _: u64) -> Need {
        let counted = self.counted();
        if facts.sums.len() < counted {
            Need::Sums(counted)
        } else if facts.cutoffs.len() < counted {
            // In f32, as mergekit multiplies; what does not vary is never kept.
            Need::Largest(vec![((facts.sums[0] as f32 * self.topk as f32) as u64).min(facts.sums[0] as u64)])
        } else if facts.sums.len() == counted {
            Need::Sums(self.models + 1)
        } else {
            Need::Nothing
        }
    }
}

impl<R: Real> Formula<R> for Sce {
    fn magnitudes<'b>(&self, block: &'b mut Block<R>, _: &Facts, _: usize) -> &'b [R] {
        spread::variance(block.out, block.inputs);
        block.out
    }

    fn sums(&self, block: &mut Block<R>, facts: &Facts, sums: &mut [f64]) {
        if facts.sums.len() < self.counted() {
            spread::variance(block.out, block.inputs);
            sums[0] = block.out.iter().filter(|x| **x != R::ZERO).count() as f64;
        } else {
            self.select(block, facts);
            sums[self.models] = block.out.len() as f64;
            block.inputs.iter().zip(sums).for_each(|(delta, sum)| *sum = angle::dot(delta, delta));
        }
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        self.select(block, facts);
        let (squares, elements) = facts.sums[self.counted()..].split_at(self.models);
        let means: Vec<f64> = squares.iter().map(|sum| sum / elements[0]).collect();
        let total: f64 = means.iter().sum();
        let uniform = !total.is_finite() || total < 1e-6;
        let weights: Vec<f64> = means.iter().map(|mean| if uniform { 1.0 / self.models as f64 } else { mean / total }).collect();
        elect::weighed_after(block.out, block.inputs, &weights, R::of(1e-6));
    }
}
