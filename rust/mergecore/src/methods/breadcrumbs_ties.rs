//! Breadcrumbs, then TIES' election of signs: what agrees is summed.
//!
//! mergekit's combination: `breadcrumbs` says what of each task vector is kept, `ties` how signs are elected and merged.

use super::breadcrumbs::Breadcrumbs;
use super::{Base, Method, Spec};
use crate::error::Result;
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

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Breadcrumbs::bound(params, true)
}
