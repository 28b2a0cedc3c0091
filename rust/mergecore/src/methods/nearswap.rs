//! Nearswap: the base moves towards another model, by up to `t` in each element; where the two are nearer than that, it becomes the other.
//!
//! alchemonaut's (2024), by mergekit's formula, ω = clamp(t / max(|θ₁ − θ₀|, 1e-6), 0, 1). In task vectors: δ·ω, which is δ cut to ±t.

use super::{Base, Block, Facts, Formula, Method, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::params::{Default, Param, Params, LAMBDA, T};

pub const SPEC: Spec = Spec {
    name: "nearswap",
    summary: "the base, with another model's weights where the two are near",
    formula: "θ = θ₀ + λ ω∘δ,  ω = clamp(t / max(|δ|, 1e-6), 0, 1),  δ = θ₁ − θ₀",
    paper: "alchemonaut, QuartetAnemoi-70B-t0.0001 (model card), 2024; mergekit's nearswap",
    cost: "one pass",
    base: Base::Required,
    models: (1, 1),
    params: &[
        Param {
            default: Default::Number(0.0001),
            doc: "how far an element may move: elements nearer than this are swapped, others move by this much",
            ..T
        },
        LAMBDA,
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct Nearswap {
    t: f64,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Nearswap { t: params.number("t") }))
}

impl Method for Nearswap {}

wide! {
    fn swap<R>(out: &mut [R], delta: &[R], t: R) {
        let floor = R::of(1e-6);
        for (out, delta) in out.iter_mut().zip(delta) {
            let size = if delta.abs() < floor { floor } else { delta.abs() };
            let share = t / size;
            let share = if share > R::ONE { R::ONE } else { share };
            // NaN is in δ, too, and stays.
            *out = *delta * if share > R::ZERO { share } else { R::ZERO };
        }
    }
}

impl<R: Real> Formula<R> for Nearswap {
    fn merge(&self, block: &mut Block<R>, _: &Facts) {
        swap(block.out, &block.inputs[0], R::of(self.t));
    }
}
