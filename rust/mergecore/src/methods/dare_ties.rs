//! DARE-TIES: DARE's drop and rescale, then TIES' election instead of its trim.
//!
//! Yu et al. (ICML 2024) run TIES on DARE's thinned task vectors; mergekit elects and merges them without trimming again, and so does
//! this. `scope: model` takes what spans elements over the whole model instead of each tensor: the sums of `rescale: l1`, and the sign
//! that a sum of zero elects (as in `ties`).

use super::{Base, Block, Facts, Formula, Method, Need, Scope, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::elect;
use crate::kernels::mask::Key;
use crate::kernels::thin::{Rescale, Thin};
use crate::params::{Default, Param, Params, DENSITY, LAMBDA, NORMALIZE, RESCALE, SCOPE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "dare_ties",
    summary: "drop at random, rescale, elect signs, and sum the elements that agree",
    formula: "θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ,  δ̂ᵢ = mᵢ∘δᵢ / density,  mᵢ ~ Bernoulli(density);  agrees: sign(δ̂ᵢ) = sign(Σ wⱼδ̂ⱼ)   (over Σ_{i agrees} wᵢ if normalize)",
    paper: "Yu et al., Language models are Super Mario (DARE), ICML 2024, arXiv:2311.03099, with Yadav et al., arXiv:2306.01708",
    cost: "one pass; one more over a tensor for rescale: l1; scope: model reads everything twice or three times",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[
        WEIGHT,
        Param { default: Default::Number(0.5), ..DENSITY },
        LAMBDA,
        NORMALIZE,
        RESCALE,
        Param { doc: "what the sums of rescale: l1 and the sign of a zero sum are taken over: each tensor, or the whole model", ..SCOPE },
    ],
    idle: &[],
    order_free: false,
    bind,
};

struct DareTies {
    weight: Vec<f64>,
    thin: Thin,
    normalize: bool,
    scope: Scope,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    let thin = Thin::new(params.each("density"), Rescale::named(params.word("rescale")))?;
    let scope = if params.word("scope") == "model" { Scope::Model } else { Scope::Tensor };
    Ok(Box::new(DareTies { weight: params.each("weight"), thin, normalize: params.flag("normalize"), scope }))
}

impl DareTies {
    fn thin<R: Real>(&self, block: &mut Block<R>, facts: &Facts) {
        let (name, seed, first) = (block.name, block.seed, block.first);
        self.thin.apply(block.inputs, |model| Key::new(seed, name, model), first, &facts.sums);
    }
}

impl Method for DareTies {
    fn scope(&self) -> Scope {
        self.scope
    }

    fn need(&self, facts: &Facts, _: u64) -> Need {
        let l1 = Need::sums(self.thin.sums(), facts);
        if l1 == Need::Nothing && self.scope == Scope::Model && facts.sums.len() == self.thin.sums() {
            return Need::Sums(1);
        }
        l1
    }
}

impl<R: Real> Formula<R> for DareTies {
    fn sums(&self, block: &mut Block<R>, facts: &Facts, sums: &mut [f64]) {
        if facts.sums.len() < self.thin.sums() {
            let (name, seed, first) = (block.name, block.seed, block.first);
            self.thin.measure(block.inputs, |model| Key::new(seed, name, model), first, sums);
        } else {
            self.thin(block, facts);
            sums[0] = elect::majority(block.inputs, &self.weight, block.out.len());
        }
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        self.thin(block, facts);
        let zero = facts.sums.get(self.thin.sums()).copied().unwrap_or(1.0);
        elect::disjoint(block.out, block.inputs, &self.weight, self.normalize, zero);
    }
}
