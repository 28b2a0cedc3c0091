//! RAM+: as RAM, and what only one model changes is enlarged, the more the more of its changes it shares with others.
//!
//! The same paper as `ram`. A mean dilutes a model's shared changes; its own are scaled up to keep the balance, by up to 1 + r·α. Counts
//! are of each tensor by itself ("tl": tensor-level), as in mergekit.

use super::{ram, Base, Block, Facts, Formula, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::active;
use crate::params::{Default, Param, Params, LAMBDA, PLAIN};

pub const SPEC: Spec = Spec {
    name: "ramplus_tl",
    summary: "mean of the task vectors that change an element, what only one changes enlarged",
    formula:
        "θ = θ₀ + λ Σ_{i∈A} δᵢ / |A|, and θ₀ + λ sᵢδᵢ where A = {i},  sᵢ = 1 + r·clamp(sharedᵢ / max(ownᵢ, ε), 0, α);  A = {i : |δᵢ| > ε}",
    paper: "Behavior Knowledge Merge in Reinforced Agentic Models (RAM+), 2026, arXiv:2601.13572",
    cost: "one more pass over a tensor for its counts",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[
        Param { name: "r", default: Default::Number(0.1), doc: "how much of the ratio of shared to own changes is made up for", ..PLAIN },
        Param { name: "alpha", default: Default::Number(0.2), doc: "the largest ratio that counts", ..PLAIN },
        ram::EPSILON,
        LAMBDA,
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct RamPlus {
    r: f64,
    alpha: f64,
    epsilon: f64,
    models: usize,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    let (r, alpha, epsilon) = (params.number("r"), params.number("alpha"), params.number("epsilon"));
    Ok(Box::new(RamPlus { r, alpha, epsilon, models: params.models }))
}

impl Method for RamPlus {
    fn need(&self, facts: &Facts, _: u64) -> Need {
        Need::sums(2 * self.models, facts)
    }
}

impl<R: Real> Formula<R> for RamPlus {
    fn sums(&self, block: &mut Block<R>, _: &Facts, sums: &mut [f64]) {
        active::count(block.out, block.inputs, R::of(self.epsilon), sums);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        let scale = |counts: &[f64]| {
            let ratio = counts[0] / counts[1].max(self.epsilon);
            // Without an own change (0/0, if ε is 0) nothing is scaled. The lower end last: torch's order, should α be negative.
            R::of(1.0 + self.r * ratio.max(0.0).min(self.alpha))
        };
        let scales: Vec<R> = facts.sums.chunks(2).map(scale).collect();
        active::mean(block.out, block.inputs, R::of(self.epsilon), &scales);
    }
}
