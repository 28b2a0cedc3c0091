//! TIES: trim each task vector to its largest elements, elect a sign for each element, merge what agrees with it.
//!
//! Yadav et al. (NeurIPS 2023), with mergekit's rules where the paper leaves a choice: weights multiply before the election, and the
//! mean is over the weights that agree. `scope: tensor` trims each tensor by itself (mergekit's way) and a sum of zero elects +;
//! `scope: model` is the authors' own: one threshold over the whole model, and a sum of zero elects the sign that most elements elect.

use super::{Base, Block, Facts, Formula, Method, Need, Scope, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::thin::Rescale;
use crate::kernels::{angle, elect};
use crate::params::{Default, Param, Params, DENSITY, LAMBDA, NORMALIZE, RESCALE, SCOPE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "ties",
    summary: "trim, elect signs, and merge the task vectors' elements that agree",
    formula: "θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ / Σ_{i agrees} wᵢ,  δ̂ᵢ = the density·n largest of δᵢ;  agrees: sign(δ̂ᵢ) = sign(Σ wⱼδ̂ⱼ)",
    paper: "Yadav et al., TIES-Merging, NeurIPS 2023, arXiv:2306.01708",
    cost: "one more pass over a tensor for its thresholds, and one for rescale: l1; scope: model reads everything about three times",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[
        WEIGHT,
        Param { default: Default::Number(0.2), ..DENSITY },
        LAMBDA,
        Param { default: Default::Flag(true), doc: "divide by the weights that agree (a mean rather than a sum)", ..NORMALIZE },
        Param { default: Default::Word("none"), ..RESCALE },
        Param { doc: "what a threshold is taken over: each tensor, or the whole model (the paper's)", ..SCOPE },
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct Ties {
    weight: Vec<f64>,
    density: Vec<f64>,
    normalize: bool,
    rescale: Rescale,
    scope: Scope,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    let scope = if params.word("scope") == "model" { Scope::Model } else { Scope::Tensor };
    let (weight, density, rescale) = (params.each("weight"), params.each("density"), Rescale::named(params.word("rescale")));
    Ok(Box::new(Ties { weight, density, normalize: params.flag("normalize"), rescale, scope }))
}

/// How many of `elements` a density keeps: rounded down, but at least one where it is not zero.
fn kept(density: f64, elements: u64) -> u64 {
    if density <= 0.0 {
        0
    } else {
        ((density * elements as f64) as u64).clamp(1.min(elements), elements)
    }
}

impl Ties {
    /// How many sums the rescaling wants.
    fn measured(&self) -> usize {
        self.rescale.sums(self.weight.len())
    }

    fn trim<R: Real>(&self, block: &mut Block<R>, facts: &Facts) {
        for (model, (delta, cutoff)) in block.inputs.iter_mut().zip(&facts.cutoffs).enumerate() {
            cutoff.trim(block.number, delta);
            self.rescale.factor(self.density[model], facts.sums.get(2 * model..).unwrap_or_default()).apply(delta);
        }
    }
}

impl Method for Ties {
    fn scope(&self) -> Scope {
        self.scope
    }

    fn need(&self, facts: &Facts, elements: u64) -> Need {
        if facts.cutoffs.is_empty() {
            return Need::Largest(self.density.iter().map(|d| kept(*d, elements)).collect());
        }
        match Need::sums(self.measured(), facts) {
            Need::Nothing if self.scope == Scope::Model && facts.sums.len() == self.measured() => Need::Sums(1),
            need => need,
        }
    }
}

impl<R: Real> Formula<R> for Ties {
    fn magnitudes<'b>(&self, block: &'b mut Block<R>, _: &Facts, which: usize) -> &'b [R] {
        &block.inputs[which]
    }

    fn sums(&self, block: &mut Block<R>, facts: &Facts, sums: &mut [f64]) {
        if facts.sums.len() < self.measured() {
            for (model, (delta, cutoff)) in block.inputs.iter_mut().zip(&facts.cutoffs).enumerate() {
                sums[2 * model] = angle::l1(delta);
                cutoff.trim(block.number, delta);
                sums[2 * model + 1] = angle::l1(delta);
            }
        } else {
            self.trim(block, facts);
            sums[0] = elect::majority(block.inputs, &self.weight, block.out.len());
        }
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        self.trim(block, facts);
        let zero = facts.sums.get(self.measured()).copied().unwrap_or(1.0);
        elect::disjoint(block.out, block.inputs, &self.weight, self.normalize, zero);
    }
}
