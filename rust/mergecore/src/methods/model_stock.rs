//! Model Stock: the point of the fine-tunes' mean and the base that is nearest to where many more fine-tunes would average to.
//!
//! Jang et al. (ECCV 2024), per tensor or per row: fine-tunes lie on a sphere around their center, equally far from each other, so the
//! angle between their task vectors says how far their mean is from it. With mergekit's rules where the paper leaves a choice: cosines are
//! averaged over the pairs, and t is 0 where |1 + (N−1) c| < 1e-6.
//!
//! The paper's t is between 0 and 1. mergekit follows a negative cosine beyond the base, and with c = −0.6 for two models to t = −3; and it
//! does not take ‖δᵢ‖‖δⱼ‖ to be below 1e-6, so that tensors that have moved by less than 1e-3, as norms and biases do, fall back to the base
//! even where all models agree. `clamp: false` does the same.

use super::{Base, Block, Facts, Formula, Grain, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::gram::{self, Gram};
use crate::params::{Default, Kind, Param, Params, NORMALIZE};

pub const SPEC: Spec = Spec {
    name: "model_stock",
    summary: "as far from the base towards the models' mean as the angle between task vectors says",
    formula: "θ = θ₀ + t Σ δᵢ / N,  t = Nc / (1 + (N−1) c),  c = the mean of ⟨δᵢ, δⱼ⟩ / ‖δᵢ‖‖δⱼ‖ over i < j",
    paper: "Jang et al., Model Stock: All we need is just a few fine-tuned models, ECCV 2024, arXiv:2403.19522",
    cost: "one more pass over a tensor for its N(N+1)/2 dot products; none with filter_wise",
    base: Base::Required,
    models: (2, usize::MAX),
    params: &[
        Param {
            name: "filter_wise",
            kind: Kind::Flag,
            default: Default::Flag(false),
            doc: "a t for each row of a tensor, rather than for the whole of it",
            ..NORMALIZE
        },
        Param {
            name: "clamp",
            kind: Kind::Flag,
            default: Default::Flag(true),
            file_default: Some(Default::Flag(false)),
            doc: "keep t between 0 (the base) and 1 (the mean), and angles as they are; mergekit does not, and takes short task vectors for unlike",
            ..NORMALIZE
        },
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct ModelStock {
    models: usize,
    filter_wise: bool,
    clamp: bool,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(ModelStock { models: params.models, filter_wise: params.flag("filter_wise"), clamp: params.flag("clamp") }))
}

impl ModelStock {
    fn t(&self, gram: &Gram) -> f64 {
        let n = self.models as f64;
        let mut sum = 0.0;
        for i in 0..self.models {
            for j in i + 1..self.models {
                // One root of a product: the cosine of equal or opposite vectors is ±1 to the last bit.
                let lengths = (gram.dot(i, i) * gram.dot(j, j)).sqrt().max(if self.clamp { 0.0 } else { 1e-6 });
                sum += if lengths > 0.0 { (gram.dot(i, j) / lengths).clamp(-1.0, 1.0) } else { 0.0 };
            }
        }
        let cos = sum / (n * (n - 1.0) / 2.0);
        let divisor = 1.0 + (n - 1.0) * cos;
        match n * cos / divisor {
            _ if divisor.abs() < 1e-6 => 0.0,
            t if self.clamp => t.clamp(0.0, 1.0),
            t => t,
        }
    }

    fn factors(&self, gram: &Gram) -> Vec<f64> {
        // A tensor that holds NaN or infinities has no angle: it stays what the base is, but for those.
        let t = if gram.is_finite() { self.t(gram) } else { 0.0 };
        vec![t / self.models as f64; self.models]
    }
}

impl Method for ModelStock {
    fn grain(&self) -> Grain {
        if self.filter_wise {
            Grain::Row
        } else {
            Grain::Element
        }
    }

    fn need(&self, facts: &Facts, _: u64) -> Need {
        if self.filter_wise {
            Need::Nothing
        } else {
            Need::sums(gram::pairs(self.models), facts)
        }
    }
}

impl<R: Real> Formula<R> for ModelStock {
    fn sums(&self, block: &mut Block<R>, _: &Facts, sums: &mut [f64]) {
        gram::dots(block.inputs, 0..block.out.len(), sums);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        if !self.filter_wise {
            return gram::combine(block.out, block.inputs, 0, &self.factors(&Gram::new(self.models, &facts.sums)));
        }
        for (number, out) in block.out.chunks_mut(block.row).enumerate() {
            let first = number * block.row;
            let gram = Gram::of(block.inputs, first..first + out.len());
            gram::combine(out, block.inputs, first, &self.factors(&gram));
        }
    }
}
