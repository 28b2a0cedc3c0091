//! DELLA without the election: drop elements of each task vector at random, small ones rather than large ones, rescale, and sum.
//!
//! Deep, Bhardwaj & Poria (2024), `MAGPRUNE` (`kernels/magprune.rs`) by itself. mergekit's parameters; its `rescale: true` is
//! `l1` here, and the default is the paper's: each element over its own probability of being kept. Masks are `kernels/mask.rs`'s.

use super::{Base, Block, Facts, Formula, Grain, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::magprune::MagPrune;
use crate::kernels::mask::Key;
use crate::kernels::thin::Rescale;
use crate::kernels::{blend, elect};
use crate::params::{Default, Param, Params, DENSITY, EPSILON, LAMBDA, NORMALIZE, RESCALE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "della_linear",
    summary: "drop at random, small elements first, rescale, and sum the task vectors",
    formula: "θ = θ₀ + λ Σ wᵢδ̂ᵢ,  δ̂ᵢ = mᵢ∘δᵢ / pᵢ,  mᵢ ~ Bernoulli(pᵢ),  pᵢ = density − ε + 2ε·(rank of |δᵢ| in its row, 0 to 1)   (over Σ wᵢ if normalize)",
    paper: "Deep et al., DELLA-Merging, 2024, arXiv:2406.11617",
    cost: "one pass that sorts every row; one more over a tensor for rescale: l1",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[
        WEIGHT,
        Param { default: Default::Number(0.5), ..DENSITY },
        EPSILON,
        LAMBDA,
        NORMALIZE,
        Param { doc: "what makes up for the dropped elements: inverse divides each by its own probability (the paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or false) does nothing", ..RESCALE },
    ],
    idle: &[],
    order_free: false,
    bind,
};

/// With or without an election of signs between the pruned task vectors (`della`).
pub struct DellaLinear {
    weight: Vec<f64>,
    prune: MagPrune,
    normalize: bool,
    elect: bool,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    DellaLinear::bound(params, false)
}

impl DellaLinear {
    pub fn bound(params: &Params, elect: bool) -> Result<Box<dyn Method>> {
        let prune = MagPrune::new(params.each("density"), params.each("epsilon"), Rescale::named(params.word("rescale")))?;
        Ok(Box::new(DellaLinear { weight: params.each("weight"), prune, normalize: params.flag("normalize"), elect }))
    }
}

impl Method for DellaLinear {
    fn grain(&self) -> Grain {
        Grain::Row
    }

    fn need(&self, facts: &Facts, _: u64) -> Need {
        Need::sums(self.prune.sums(), facts)
    }
}

impl<R: Real> Formula<R> for DellaLinear {
    fn sums(&self, block: &mut Block<R>, _: &Facts, sums: &mut [f64]) {
        let (name, seed) = (block.name, block.seed);
        self.prune.measure(block.inputs, block.row, |model| Key::new(seed, name, model), block.first, sums);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        let (name, seed) = (block.name, block.seed);
        self.prune.apply(block.inputs, block.row, |model| Key::new(seed, name, model), block.first, &facts.sums);
        if self.elect {
            elect::disjoint(block.out, block.inputs, &self.weight, self.normalize, 1.0);
        } else {
            blend::weighted_sum(block.out, block.inputs, &self.weight, self.normalize);
        }
    }
}
