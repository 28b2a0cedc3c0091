//! DELLA: drop elements of each task vector at random, small ones rather than large ones, rescale the rest, elect signs, merge what agrees.
//!
//! Deep, Bhardwaj & Poria (2024): `MAGPRUNE` (`kernels/magprune.rs`), then TIES' election. mergekit's parameters; its `rescale: true` is
//! `l1` here, and the default is the paper's: each element over its own probability of being kept. Masks are `kernels/mask.rs`'s.

use super::della_linear::DellaLinear;
use super::{Base, Method, Spec};
use crate::error::Result;
use crate::params::{Default, Param, Params, DENSITY, EPSILON, LAMBDA, NORMALIZE, RESCALE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "della",
    summary: "drop at random, small elements first, rescale, elect signs, and merge the elements that agree",
    formula: "θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ / Σ_{i agrees} wᵢ,  δ̂ᵢ = mᵢ∘δᵢ / pᵢ,  mᵢ ~ Bernoulli(pᵢ),  pᵢ = density − ε + 2ε·(rank of |δᵢ| in its row, 0 to 1);  agrees: sign(δ̂ᵢ) = sign(Σ wⱼδ̂ⱼ)",
    paper: "Deep et al., DELLA-Merging, 2024, arXiv:2406.11617",
    cost: "one pass that sorts every row; one more over a tensor for rescale: l1",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[
        WEIGHT,
        Param { default: Default::Number(0.5), ..DENSITY },
        EPSILON,
        LAMBDA,
        Param { default: Default::Flag(true), doc: "divide by the weights that agree (a mean rather than a sum)", ..NORMALIZE },
        Param { doc: "what makes up for the dropped elements: inverse divides each by its own probability (the paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or false) does nothing", ..RESCALE },
    ],
    idle: &[],
    order_free: false,
    bind,
};

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    DellaLinear::bound(params, true)
}
