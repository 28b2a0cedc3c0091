//! Breadcrumbs, then TIES' election of signs: what agrees is summed.
//!
//! mergekit's combination: `breadcrumbs` says what of each task vector is kept, `ties` how signs are elected and merged.

use super::{Base, Block, Facts, Formula, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::crumbs::Crumbs;
use crate::kernels::elect;
use crate::kernels::thin::Rescale;
use crate::params::{Default, Param, Params, DENSITY, GAMMA, LAMBDA, NORMALIZE, RESCALE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "breadcrumbs_ties",
    summary: "drop the largest and the smallest elements, elect signs, and sum the elements that agree",
    formula: "θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ,  δ̂ᵢ = the density·n largest of δᵢ after its γ·n largest;  agrees: sign(δ̂ᵢ) = sign(Σ wⱼδ̂ⱼ)   (over Σ_{i agrees} wᵢ if normalize)",
    paper: "Davari & Belilovsky, Model Breadcrumbs, ECCV 2024, arXiv:2312.06795, with Yadav et al., arXiv:2306.01708",
    cost: "one more pass over a tensor for its thresholds, and one for rescale: l1",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[
        WEIGHT,
        Param { default: Default::Number(0.1), ..DENSITY },
        GAMMA,
        LAMBDA,
        Param { doc: "divide by the weights that agree (a mean rather than a sum)", ..NORMALIZE },
        Param { default: Default::Word("none"), ..RESCALE },
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct BreadcrumbsTies {
    weight: Vec<f64>,
    crumbs: Crumbs,
    normalize: bool,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    let crumbs = Crumbs { density: params.each("density"), gamma: params.each("gamma"), rescale: Rescale::named(params.word("rescale")) };
    let (weight, normalize) = (params.each("weight"), params.flag("normalize"));
    Ok(Box::new(BreadcrumbsTies { weight, crumbs, normalize }))
}

impl Method for BreadcrumbsTies {
    fn need(&self, facts: &Facts, elements: u64) -> Need {
        if facts.cutoffs.is_empty() {
            return Need::Largest(self.crumbs.counts(elements));
        }
        Need::sums(self.crumbs.sums(), facts)
    }
}

impl<R: Real> Formula<R> for BreadcrumbsTies {
    fn magnitudes<'b>(&self, block: &'b mut Block<R>, _: &Facts, which: usize) -> &'b [R] {
        &block.inputs[which / 2]
    }

    fn sums(&self, block: &mut Block<R>, facts: &Facts, sums: &mut [f64]) {
        self.crumbs.measure(block.number, block.inputs, &facts.cutoffs, sums);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        self.crumbs.apply(block.number, block.inputs, &facts.cutoffs, &facts.sums);
        elect::disjoint(block.out, block.inputs, &self.weight, self.normalize, 1.0);
    }
}
