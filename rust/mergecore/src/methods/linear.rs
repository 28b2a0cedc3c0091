//! Linear averaging: θ = Σ wᵢθᵢ / Σ wᵢ.
//!
//! Wortsman et al., "Model soups" (ICML 2022), the uniform soup for equal weights. Each product and sum is fused and rounded once, as
//! mergekit's CPU build does.

use super::{Base, Block, Facts, Formula, Method, Spec};
use crate::dtype::Real;
use crate::error::{Error, Result};
use crate::kernels::blend;
use crate::params::{Default, Param, Params, NORMALIZE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "linear",
    summary: "weighted average of the models",
    formula: "θ = Σ wᵢθᵢ / Σ wᵢ   (without the divisor if normalize is false)",
    paper: "Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482",
    cost: "one pass",
    base: Base::Joins,
    models: (1, usize::MAX),
    params: &[WEIGHT, Param { default: Default::Flag(true), ..NORMALIZE }],
    idle: &[],
    order_free: true,
    bind,
};

struct Linear {
    weight: Vec<f64>,
    normalize: bool,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    let linear = Linear { weight: params.each("weight"), normalize: params.flag("normalize") };
    // As the arithmetic has it: 1 and -0.9999999999 sum to 0 in f32.
    let sum = linear.weight.iter().fold(0f32, |sum, w| sum + *w as f32);
    if linear.normalize && !sum.is_normal() {
        return Err(Error::recipe(format!("the weights sum to {sum}: give others, or normalize: false")));
    }
    Ok(Box::new(linear))
}

impl Method for Linear {
    fn keeps(&self) -> bool {
        true
    }
}

impl<R: Real> Formula<R> for Linear {
    fn merge(&self, block: &mut Block<R>, _: &Facts) {
        block.out.fill(R::ZERO);
        for (x, w) in block.inputs.iter().zip(&self.weight) {
            blend::add_fused(block.out, x, R::of(*w));
        }
        if self.normalize {
            let sum = self.weight.iter().fold(R::ZERO, |sum, w| sum + R::of(*w));
            blend::divide(block.out, sum);
        }
    }
}
