//! DARE: drop elements of each task vector at random, rescale the rest, and sum.
//!
//! Yu et al. (ICML 2024): δ̂ = m∘δ / (1−p), drop rate p = 1 − density. The mask acts on δ in f32 and is never stored in a model's dtype
//! in between, as the authors' code does. Masks are `kernels/mask.rs`'s.

use super::{Base, Block, Facts, Formula, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::blend;
use crate::kernels::mask::Key;
use crate::kernels::thin::{Rescale, Thin};
use crate::params::{Default, Param, Params, DENSITY, LAMBDA, NORMALIZE, RESCALE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "dare_linear",
    summary: "drop at random, rescale, and sum the task vectors",
    formula: "θ = θ₀ + λ Σ wᵢδ̂ᵢ,  δ̂ᵢ = mᵢ∘δᵢ / density,  mᵢ ~ Bernoulli(density)   (over Σ wᵢ if normalize)",
    paper: "Yu et al., Language models are Super Mario (DARE), ICML 2024, arXiv:2311.03099",
    cost: "one pass; one more over a tensor for rescale: l1",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[WEIGHT, Param { default: Default::Number(0.5), ..DENSITY }, LAMBDA, NORMALIZE, RESCALE],
    idle: &[],
    order_free: false,
    bind,
};

struct DareLinear {
    weight: Vec<f64>,
    thin: Thin,
    normalize: bool,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    let thin = Thin::new(params.each("density"), Rescale::named(params.word("rescale")))?;
    Ok(Box::new(DareLinear { weight: params.each("weight"), thin, normalize: params.flag("normalize") }))
}

impl Method for DareLinear {
    fn need(&self, facts: &Facts, _: u64) -> Need {
        Need::sums(self.thin.sums(), facts)
    }
}

impl<R: Real> Formula<R> for DareLinear {
    fn sums(&self, block: &mut Block<R>, _: &Facts, sums: &mut [f64]) {
        let (name, seed, first) = (block.name, block.seed, block.first);
        self.thin.measure(block.inputs, |model| Key::new(seed, name, model), first, sums);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        let (name, seed, first) = (block.name, block.seed, block.first);
        self.thin.apply(block.inputs, |model| Key::new(seed, name, model), first, &facts.sums);
        blend::weighted_sum(block.out, block.inputs, &self.weight, self.normalize);
    }
}
