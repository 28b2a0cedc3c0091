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
    let sum: f64 = linear.weight.iter().sum();
    if linear.normalize && sum == 0.0 {
        return Err(Error::recipe("the weights sum to 0: give others, or normalize: false"));
    }
    Ok(Box::new(linear))
}

impl Method for Linear {}

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
