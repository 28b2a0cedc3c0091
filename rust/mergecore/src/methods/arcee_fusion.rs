//! Arcee Fusion: of another model take the elements whose change matters most, and leave the base elsewhere.
//!
//! Arcee AI's (2025), by mergekit's formula. An element's importance is its change times how far the softmax of its row (the vector along
//! the last axis) moves; what reaches median + 1.5·(Q₃ − Q₁) of the tensor's importances is taken. Quartiles are exact, the element at
//! trunc(q·(n−1)) of the ascending order; mergekit samples them in tensors of more than a million elements, with another result each time.
//! Divergences are computed in f64: those of a fine-tune are of the size of f32's roundings.

use super::{Base, Block, Facts, Formula, Grain, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::divergence;
use crate::params::{Params, LAMBDA};

pub const SPEC: Spec = Spec {
    name: "arcee_fusion",
    summary: "the base, with another model's elements where they matter most",
    formula: "θ = θ₀ + λ m∘δ,  m = 1 where s ≥ median(s) + 1.5·(Q₃(s) − Q₁(s)),  s = |δ|·KL(softmax θ₁ ‖ softmax θ₀) by rows",
    paper: "Arcee AI, mergekit v0.1 (Arcee Fusion), 2025, github.com/arcee-ai/mergekit",
    cost: "two more passes over a tensor for its quartiles; exponentials of every row in each",
    base: Base::Required,
    models: (1, 1),
    params: &[LAMBDA],
    idle: &[],
    order_free: true,
    bind,
};

struct ArceeFusion;

fn bind(_: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(ArceeFusion))
}

/// So few elements are one block, whose first quartile is its least: no cutoff tells that, since it keeps all.
const FEW: u64 = 4;

/// The three quartiles' places in the ascending order of `elements`.
fn quartiles(elements: u64) -> [u64; 3] {
    [0.25, 0.5, 0.75].map(|q| (q * (elements - 1) as f64) as u64)
}

impl Method for ArceeFusion {
    fn grain(&self) -> Grain {
        Grain::Row
    }

    fn ranks_one(&self) -> bool {
        true
    }

    fn need(&self, facts: &Facts, elements: u64) -> Need {
        match facts.cutoffs.is_empty() && elements > FEW {
            true => Need::Largest(quartiles(elements).map(|place| elements - place).into()),
            false => Need::Nothing,
        }
    }
}

/// out ← the elements' importances.
fn weigh<R: Real>(block: &mut Block<R>) {
    let base = block.base.expect("the method requires one");
    let rows = base.chunks(block.row).zip(block.inputs[0].chunks(block.row));
    for (out, (base, delta)) in block.out.chunks_mut(block.row).zip(rows) {
        let moved = divergence::of_softmax(base, delta);
        out.iter_mut().zip(delta).for_each(|(out, delta)| *out = R::of(delta.f64().abs() * moved));
    }
}

impl<R: Real> Formula<R> for ArceeFusion {
    fn magnitudes<'b>(&self, block: &'b mut Block<R>, _: &Facts, _: usize) -> &'b [R] {
        weigh(block);
        block.out
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        weigh(block);
        let [first, median, third] = match facts.cutoffs[..] {
            [first, median, third] => [first, median, third].map(|cutoff| R::from_magnitude(R::bits(cutoff.threshold))),
            _ => {
                let mut sorted = block.out.to_vec();
                sorted.sort_by_key(|x| x.magnitude());
                quartiles(sorted.len() as u64).map(|place| sorted[place as usize])
            }
        };
        let least = median + R::of(1.5) * (third - first);
        for (out, delta) in block.out.iter_mut().zip(&block.inputs[0]) {
            *out = if *out >= least { *delta } else { R::ZERO };
        }
    }
}
