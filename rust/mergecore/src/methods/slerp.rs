//! Spherical interpolation of two models' weights, tensor by tensor.
//!
//! Shoemake (SIGGRAPH 1985), on whole weights as mergekit has it: θ = [sin((1−t)Ω) a + sin(tΩ) b] / sin Ω, Ω the angle between a and b as
//! vectors. Where they are nearly parallel or opposite (|cos Ω| > 0.9995) it is linear interpolation: two fine-tunes of one base always are.

use super::{Base, Block, Facts, Formula, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::{angle, blend};
use crate::params::{Params, T};

pub const SPEC: Spec = Spec {
    name: "slerp",
    summary: "spherical interpolation between two models",
    formula: "θ = [sin((1−t)Ω) a + sin(tΩ) b] / sin Ω,  cos Ω = ⟨a, b⟩ / ‖a‖‖b‖;  (1−t) a + t b where |cos Ω| > 0.9995",
    paper: "Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985",
    cost: "one more pass over a tensor for its angle",
    base: Base::First,
    models: (2, 2),
    params: &[T],
    idle: &[],
    order_free: false,
    bind,
};

struct Slerp {
    t: f64,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Slerp { t: params.number("t") }))
}

/// The factors of a and b, from ⟨a,a⟩, ⟨b,b⟩ and ⟨a,b⟩.
fn factors(t: f64, aa: f64, bb: f64, ab: f64) -> (f64, f64) {
    let norm = |square: f64| if square.sqrt() <= 1e-8 { 1.0 } else { square.sqrt() };
    let cos = (ab / (norm(aa) * norm(bb))).clamp(-1.0, 1.0);
    // NaN (in a tensor that holds one) takes the straight line, too.
    if cos.is_nan() || cos.abs() > 0.9995 {
        return (1.0 - t, t);
    }
    let omega = cos.acos();
    (((1.0 - t) * omega).sin() / omega.sin(), (t * omega).sin() / omega.sin())
}

impl Method for Slerp {
    fn keeps(&self) -> bool {
        true
    }

    fn need(&self, facts: &Facts, _: u64) -> Need {
        Need::sums(3, facts)
    }
}

impl<R: Real> Formula<R> for Slerp {
    fn sums(&self, block: &mut Block<R>, _: &Facts, sums: &mut [f64]) {
        let (a, b) = (&block.inputs[0], &block.inputs[1]);
        sums.copy_from_slice(&[angle::dot(a, a), angle::dot(b, b), angle::dot(a, b)]);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        let (s, t) = factors(self.t, facts.sums[0], facts.sums[1], facts.sums[2]);
        blend::combine(block.out, &block.inputs[0], R::of(s), &block.inputs[1], R::of(t));
    }
}
