//! Task arithmetic: Δ = Σ wᵢδᵢ, where δᵢ = θᵢ − θ₀ is model i's task vector.
//!
//! Ilharco et al. (ICLR 2023). The authors sum; the default weights 1/N make it the mean (`--weight 1` sums). With `onto`, one model and
//! λ = α it is ExPO (Zheng et al. 2024): θ_RL + α(θ_RL − θ_SFT).

use super::{Base, Block, Facts, Formula, Method, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::blend;
use crate::params::{Params, LAMBDA, NORMALIZE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "task_arithmetic",
    summary: "weighted sum of the task vectors",
    formula: "θ = θ₀ + λ Σ wᵢδᵢ,  δᵢ = θᵢ − θ₀   (over Σ wᵢ if normalize)",
    paper: "Ilharco et al., Editing models with task arithmetic, ICLR 2023, arXiv:2212.04089",
    cost: "one pass",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[WEIGHT, LAMBDA, NORMALIZE],
    idle: &["density", "rescale"],
    order_free: true,
    bind,
};

struct TaskArithmetic {
    weight: Vec<f64>,
    normalize: bool,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(TaskArithmetic { weight: params.each("weight"), normalize: params.flag("normalize") }))
}

impl Method for TaskArithmetic {
    fn keeps(&self) -> bool {
        true
    }
}

impl<R: Real> Formula<R> for TaskArithmetic {
    fn merge(&self, block: &mut Block<R>, _: &Facts) {
        blend::weighted_sum(block.out, block.inputs, &self.weight, self.normalize);
    }
}
