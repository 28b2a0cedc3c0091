//! Breadcrumbs: drop the outliers and the smallest elements of each task vector, and sum.
//!
//! Davari & Belilovsky (ECCV 2024), with mergekit's parameters: of n elements the trunc(γn) largest are dropped, the next trunc(density·n)
//! kept, the rest dropped; where these are more than n, fewer outliers are. Of equal magnitudes the lowest index counts as the largest.

use super::{Base, Block, Facts, Formula, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::crumbs::Crumbs;
use crate::kernels::thin::Rescale;
use crate::kernels::{blend, elect};
use crate::params::{Default, Param, Params, DENSITY, GAMMA, LAMBDA, NORMALIZE, RESCALE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "breadcrumbs",
    summary: "drop the largest and the smallest elements, and sum the task vectors",
    formula: "θ = θ₀ + λ Σ wᵢδ̂ᵢ,  δ̂ᵢ = the density·n largest of δᵢ after its γ·n largest   (over Σ wᵢ if normalize)",
    paper: "Davari & Belilovsky, Model Breadcrumbs, ECCV 2024, arXiv:2312.06795",
    cost: "one more pass over a tensor for its thresholds, and one for rescale: l1",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[
        WEIGHT,
        Param { default: Default::Number(0.1), ..DENSITY },
        GAMMA,
        LAMBDA,
        NORMALIZE,
        Param { default: Default::Word("none"), ..RESCALE },
    ],
    idle: &[],
    order_free: true,
    bind,
};

/// With or without an election of signs between the pruned task vectors (`breadcrumbs_ties`).
pub struct Breadcrumbs {
    weight: Vec<f64>,
    crumbs: Crumbs,
    normalize: bool,
    elect: bool,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Breadcrumbs::bound(params, false)
}

impl Breadcrumbs {
    pub fn bound(params: &Params, elect: bool) -> Result<Box<dyn Method>> {
        let crumbs =
            Crumbs { density: params.each("density"), gamma: params.each("gamma"), rescale: Rescale::named(params.word("rescale")) };
        let (weight, normalize) = (params.each("weight"), params.flag("normalize"));
        Ok(Box::new(Breadcrumbs { weight, crumbs, normalize, elect }))
    }
}

impl Method for Breadcrumbs {
    fn need(&self, facts: &Facts, elements: u64) -> Need {
        if facts.cutoffs.is_empty() {
            return Need::Largest(self.crumbs.counts(elements));
        }
        Need::sums(self.crumbs.sums(), facts)
    }
}

impl<R: Real> Formula<R> for Breadcrumbs {
    fn magnitudes<'b>(&self, block: &'b mut Block<R>, _: &Facts, which: usize) -> &'b [R] {
        &block.inputs[which / 2]
    }

    fn sums(&self, block: &mut Block<R>, facts: &Facts, sums: &mut [f64]) {
        self.crumbs.measure(block.number, block.inputs, &facts.cutoffs, sums);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        self.crumbs.apply(block.number, block.inputs, &facts.cutoffs, &facts.sums);
        if self.elect {
            elect::disjoint(block.out, block.inputs, &self.weight, self.normalize, 1.0);
        } else {
            blend::weighted_sum(block.out, block.inputs, &self.weight, self.normalize);
        }
    }
}
