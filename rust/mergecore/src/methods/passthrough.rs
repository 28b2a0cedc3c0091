//! Passthrough: one model's tensors as they are, for models that are stacked from slices of layers ("frankenmerges").
//!
//! mergekit's (Goddard et al., EMNLP 2024). Scale 1 keeps every bit, but for the payload of a NaN; a filter scales only some tensors (by 0,
//! `o_proj` and `down_proj` make a repeated layer pass on what it gets).

use super::{Base, Block, Facts, Formula, Method, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::blend;
use crate::params::{Default, Param, Params, PLAIN};

pub const SPEC: Spec = Spec {
    name: "passthrough",
    summary: "one model's tensors as they are, for stacking layers",
    formula: "θ = s·θ₁",
    paper: "Goddard et al., Arcee's MergeKit, EMNLP 2024, arXiv:2403.13257",
    cost: "one pass",
    base: Base::Joins,
    models: (1, 1),
    params: &[Param {
        name: "scale",
        per_model: true,
        default: Default::Number(1.0),
        doc: "what the weights are multiplied by; 1 copies them",
        ..PLAIN
    }],
    idle: &[],
    order_free: true,
    bind,
};

struct Passthrough {
    scale: f64,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Passthrough { scale: params.each("scale")[0] }))
}

impl Method for Passthrough {
    fn keeps(&self) -> bool {
        true
    }
}

impl<R: Real> Formula<R> for Passthrough {
    fn merge(&self, block: &mut Block<R>, _: &Facts) {
        block.out.copy_from_slice(&block.inputs[0]);
        if self.scale != 1.0 {
            blend::scale(block.out, R::of(self.scale));
        }
    }
}
