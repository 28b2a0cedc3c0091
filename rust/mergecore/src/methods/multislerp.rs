//! The mean direction of any number of task vectors (or, without a base, of models), at the mean of their lengths.
//!
//! mergekit's `multislerp` (Goddard, arcee.ai 2025): the mean of the directions, put back on the sphere, and a step along the sphere by
//! the mean of what lies beside it. That mean is zero, since it was taken from the same directions, so no step is left: this is exact.
//!
//! Directions that cancel have no mean direction: the weighted sum of the vectors is taken instead. mergekit does so for two models and
//! fails for more, after the first tensors are merged.

use super::{Base, Block, Facts, Formula, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::{Error, Result};
use crate::kernels::gram::{self, Gram};
use crate::params::{Default, Kind, Param, Params, NORMALIZE, T, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "multislerp",
    summary: "the mean direction of task vectors, or models, at the mean of their lengths",
    formula: "Δ = Σ wᵢ‖δᵢ‖ · m/‖m‖,  m = Σ wᵢδᵢ / (‖δᵢ‖ + eps);  Σ wᵢδᵢ where ‖m‖ < eps, or is lost in rounding",
    paper: "Goddard, mergekit (multislerp), arcee.ai 2025",
    cost: "one more pass over a tensor for its N(N+1)/2 dot products",
    base: Base::Optional,
    models: (1, usize::MAX),
    params: &[
        WEIGHT,
        Param { name: "normalize_weights", default: Default::Flag(true), doc: "divide the weights by their sum", ..NORMALIZE },
        Param {
            name: "eps",
            // Above this, mergekit's merge is visibly shortened, by cos(eps): an artefact that is left out here.
            kind: Kind::Number { min: 0.0, max: 1e-4 },
            default: Default::Number(1e-8),
            doc: "is added to each length before it divides; a mean direction shorter than this is none",
            ..T
        },
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct Multislerp {
    weight: Vec<f64>,
    eps: f64,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    let mut weight = params.each("weight");
    if params.flag("normalize_weights") {
        let sum: f64 = weight.iter().sum();
        if sum.abs() < 1e-8 {
            return Err(Error::recipe(format!("the weights sum to {sum}: give others, or normalize_weights: false")));
        }
        weight.iter_mut().for_each(|w| *w /= sum);
    }
    Ok(Box::new(Multislerp { weight, eps: params.number("eps") }))
}

impl Multislerp {
    fn factors(&self, gram: &Gram) -> Vec<f64> {
        if gram.count() == 1 {
            return vec![1.0];
        }
        let norms = gram.norms();
        let shares = norms.iter().zip(&self.weight).map(|(norm, w)| if norm + self.eps > 0.0 { w / (norm + self.eps) } else { 0.0 });
        let shares: Vec<f64> = shares.collect();
        let length = gram.length(&shares);
        // NaN and infinities take the plain sum, which keeps them where they are.
        if !gram.is_finite() || length < self.eps || length == 0.0 {
            return self.weight.clone();
        }
        let mean: f64 = norms.iter().zip(&self.weight).map(|(norm, w)| norm * w).sum();
        shares.iter().map(|share| share * mean / length).collect()
    }
}

impl Method for Multislerp {
    fn keeps(&self) -> bool {
        true
    }

    fn need(&self, facts: &Facts, _: u64) -> Need {
        Need::sums(gram::pairs(self.weight.len()), facts)
    }
}

impl<R: Real> Formula<R> for Multislerp {
    fn sums(&self, block: &mut Block<R>, _: &Facts, sums: &mut [f64]) {
        gram::dots(block.inputs, 0..block.out.len(), sums);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        gram::combine(block.out, block.inputs, 0, &self.factors(&Gram::new(self.weight.len(), &facts.sums)));
    }
}
