//! Spherical interpolation of two task vectors (or, without a base, of two models), of whole tensors or of their rows or columns.
//!
//! mergekit's, from Shoemake (SIGGRAPH 1985). The straight line is taken only where cos Ω is ±1 in the arithmetic's type: for opposite
//! vectors no arc is the shortest, and near them the formula divides the arithmetic's rounding by sin Ω. Vectors are not taken to be
//! shorter than 1e-7, as there: the angle of two that are, or with one that is zero, is nearer to 90° than it is.

use super::{Base, Block, Facts, Formula, Grain, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::gram::{self, Gram};
use crate::params::{Default, Kind, Param, Params, NORMALIZE, WEIGHT};

pub const SPEC: Spec = Spec {
    name: "nuslerp",
    summary: "spherical interpolation between two task vectors, or two models, by their weights",
    formula: "Δ = [sin((1−t)Ω) δ₁ + sin(tΩ) δ₂] / sin Ω,  cos Ω = ⟨δ₁, δ₂⟩ / ‖δ₁‖‖δ₂‖,  t = w₂/(w₁+w₂);  (1−t) δ₁ + t δ₂ where cos Ω = ±1",
    paper: "mergekit 0.1.5; Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985",
    cost: "one more pass over a tensor for its angle; none for rows; a tensor whole in memory, on one core, for columns",
    base: Base::Optional,
    models: (2, 2),
    params: &[
        Param { doc: "how much of each model goes in, relative to the other", ..WEIGHT },
        Param {
            name: "nuslerp_flatten",
            kind: Kind::Flag,
            default: Default::Flag(true),
            doc: "take a tensor as one vector, rather than each vector along an axis by itself",
            ..NORMALIZE
        },
        Param {
            name: "nuslerp_row_wise",
            kind: Kind::Flag,
            default: Default::Flag(false),
            doc: "without nuslerp_flatten: vectors along the first axis, rather than the last",
            ..NORMALIZE
        },
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct Nuslerp {
    t: f64,
    vectors: Vectors,
}

#[derive(PartialEq)]
enum Vectors {
    Whole,
    AlongLast,
    AlongFirst,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    let weight = params.each("weight");
    let total = weight[0] + weight[1];
    // mergekit's guard.
    let t = if total.abs() < 1e-6 { 0.5 } else { weight[1] / total };
    let vectors = match (params.flag("nuslerp_flatten"), params.flag("nuslerp_row_wise")) {
        (true, _) => Vectors::Whole,
        (false, false) => Vectors::AlongLast,
        (false, true) => Vectors::AlongFirst,
    };
    Ok(Box::new(Nuslerp { t, vectors }))
}

/// The factors of a and b, from ⟨a,a⟩, ⟨a,b⟩ and ⟨b,b⟩.
fn factors<R: Real>(t: f64, aa: f64, ab: f64, bb: f64) -> [f64; 2] {
    const SHORTEST: f64 = 1e-7 * 1e-7;
    // One root of a product: the cosine of equal or opposite vectors is ±1 to the last bit.
    let cos = (ab / (aa.max(SHORTEST) * bb.max(SHORTEST)).sqrt()).clamp(-1.0, 1.0);
    let rounded = R::of(cos).f64();
    // mergekit's 1e-16, and room for the rounding of an f64. NaN (in a tensor that holds one) takes the straight line, too.
    if cos.is_nan() || 1.0 - rounded * rounded <= 4e-16 {
        return [1.0 - t, t];
    }
    let omega = cos.acos();
    [((1.0 - t) * omega).sin() / omega.sin(), (t * omega).sin() / omega.sin()]
}

impl Nuslerp {
    fn of_gram<R: Real>(&self, gram: &Gram) -> [f64; 2] {
        factors::<R>(self.t, gram.dot(0, 0), gram.dot(0, 1), gram.dot(1, 1))
    }

    fn of_columns<R: Real>(&self, block: &mut Block<R>) {
        let columns = block.shape.iter().skip(1).product::<u64>() as usize;
        let dots = |a: &[R], b: &[R]| {
            let mut dots = vec![0.0; columns];
            gram::dots_of_columns(a, b, &mut dots);
            dots
        };
        let (a, b) = (&block.inputs[0], &block.inputs[1]);
        let (aa, ab, bb) = (dots(a, a), dots(a, b), dots(b, b));
        let each = |i: usize| factors::<R>(self.t, aa[i], ab[i], bb[i]).map(R::of);
        let (s, t): (Vec<R>, Vec<R>) = (0..columns).map(each).map(|[s, t]| (s, t)).unzip();
        gram::combine_columns(block.out, a, &s, b, &t);
    }
}

impl Method for Nuslerp {
    fn grain(&self) -> Grain {
        match self.vectors {
            Vectors::Whole => Grain::Element,
            Vectors::AlongLast => Grain::Row,
            Vectors::AlongFirst => Grain::Tensor,
        }
    }

    fn need(&self, facts: &Facts, _: u64) -> Need {
        match self.vectors {
            Vectors::Whole => Need::sums(gram::pairs(2), facts),
            _ => Need::Nothing,
        }
    }
}

impl<R: Real> Formula<R> for Nuslerp {
    fn sums(&self, block: &mut Block<R>, _: &Facts, sums: &mut [f64]) {
        gram::dots(block.inputs, 0..block.out.len(), sums);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        match self.vectors {
            Vectors::Whole => {
                gram::combine(block.out, block.inputs, 0, &self.of_gram::<R>(&Gram::new(2, &facts.sums)));
            }
            Vectors::AlongLast => {
                for (number, out) in block.out.chunks_mut(block.row).enumerate() {
                    let first = number * block.row;
                    let gram = Gram::of(block.inputs, first..first + out.len());
                    gram::combine(out, block.inputs, first, &self.of_gram::<R>(&gram));
                }
            }
            Vectors::AlongFirst => self.of_columns(block),
        }
    }
}
