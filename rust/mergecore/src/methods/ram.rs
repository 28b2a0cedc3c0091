//! RAM: the mean of the task vectors over those that change an element at all, so that what only one learnt is not diluted.
//!
//! "Behavior Knowledge Merge in Reinforced Agentic Models" (2026): fine-tuning by reinforcement changes few elements, and others
//! in each model. A change of at most `epsilon` counts as none.

use super::{Base, Block, Facts, Formula, Method, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::active;
use crate::params::{Default, Param, Params, LAMBDA, PLAIN};

/// Above which an element counts as changed.
pub const EPSILON: Param =
    Param { name: "epsilon", default: Default::Number(1e-5), doc: "a change of at most this counts as none", ..PLAIN };

pub const SPEC: Spec = Spec {
    name: "ram",
    summary: "mean of the task vectors that change an element",
    formula: "θ = θ₀ + λ Σ_{i∈A} δᵢ / |A|,  A = {i : |δᵢ| > ε}, element by element",
    paper: "Behavior Knowledge Merge in Reinforced Agentic Models (RAM), 2026, arXiv:2601.13572",
    cost: "one pass",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[EPSILON, LAMBDA],
    idle: &[],
    order_free: true,
    bind,
};

struct Ram {
    epsilon: f64,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Ram { epsilon: params.number("epsilon") }))
}

impl Method for Ram {}

impl<R: Real> Formula<R> for Ram {
    fn merge(&self, block: &mut Block<R>, _: &Facts) {
        let alike = vec![R::ONE; block.inputs.len()];
        active::mean(block.out, block.inputs, R::of(self.epsilon), &alike);
    }
}
