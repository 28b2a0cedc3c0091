//! The Karcher mean of the models' directions, at the mean of their lengths, tensor by tensor.
//!
//! The point of the sphere from which the directions are nearest (Karcher, Commun. Pure Appl. Math. 1977), found by mergekit's iteration:
//! from their normalised mean, step along the mean of the arcs to them. All of it stays in their span, so it is computed on their Gram
//! matrix, in f64, however many steps it takes.
//!
//! As in mergekit, a model whose tensor is not longer than `tol` has no direction there (none at all: zeros), but counts for the length.
//! A direction opposite to the mean is passed over: no arc to it is the shortest.

use super::{Base, Block, Facts, Formula, Method, Need, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::gram::{self, Gram};
use crate::params::{Default, Kind, Param, Params, T};

pub const SPEC: Spec = Spec {
    name: "karcher",
    summary: "the mean of the models on the sphere of their directions, at the mean of their lengths",
    formula: "θ = (Σ ‖θᵢ‖ / N) · argmin_μ Σ arccos²⟨μ, θᵢ/‖θᵢ‖⟩,  ‖μ‖ = 1",
    paper: "Karcher, Riemannian center of mass and mollifier smoothing, Commun. Pure Appl. Math. 30, 1977",
    cost: "one more pass over a tensor for its N(N+1)/2 dot products",
    base: Base::Joins,
    models: (1, usize::MAX),
    params: &[
        Param {
            name: "max_iter",
            kind: Kind::Whole { min: 0.0, max: 1000.0 },
            default: Default::Number(10.0),
            doc: "how many steps are taken at most",
            ..T
        },
        Param {
            name: "tol",
            kind: Kind::Number { min: 0.0, max: 0.1 },
            default: Default::Number(1e-5),
            doc: "a step (and a tensor's length) below this is nothing",
            ..T
        },
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct Karcher {
    models: usize,
    steps: usize,
    tol: f64,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Karcher { models: params.models, steps: params.number("max_iter") as usize, tol: params.number("tol") }))
}

impl Karcher {
    /// What each model is multiplied with.
    fn factors(&self, gram: &Gram) -> Vec<f64> {
        // A tensor that holds NaN or infinities gets the plain mean, which keeps them where they are.
        if self.models == 1 || !gram.is_finite() {
            return vec![1.0 / self.models as f64; self.models];
        }
        let norms = gram.norms();
        let long = norms.iter().map(|norm| *norm > self.tol && *norm > 0.0);
        let share = 1.0 / long.clone().filter(|long| *long).count().max(1) as f64;
        let shares: Vec<f64> = long.map(|long| if long { share } else { 0.0 }).collect();
        let Some(first) = shares.iter().position(|share| *share > 0.0) else { return vec![0.0; self.models] };

        let directions = gram.of_directions();
        let mut mean = shares.clone();
        if !self.normalize(&directions, &mut mean) {
            mean = (0..self.models).map(|i| f64::from(i == first)).collect();
        }
        for _ in 0..self.steps {
            let step = self.step(&directions, &shares, &mean);
            let length = directions.length(&step);
            if length == 0.0 || length < self.tol {
                break;
            }
            for (m, s) in mean.iter_mut().zip(&step) {
                *m = length.cos() * *m + length.sin() / length * s;
            }
            self.normalize(&directions, &mut mean);
        }
        let size = norms.iter().sum::<f64>() / self.models as f64;
        let factor = |(m, norm): (&f64, &f64)| if *m == 0.0 { 0.0 } else { size * m / norm };
        mean.iter().zip(&norms).map(factor).collect()
    }

    /// Brings it to length 1; false if it is too short for that.
    fn normalize(&self, directions: &Gram, mean: &mut [f64]) -> bool {
        let length = directions.length(mean);
        let enough = length > 0.0 && length >= self.tol;
        if enough {
            mean.iter_mut().for_each(|m| *m /= length);
        }
        enough
    }

    /// The mean of the arcs from `mean` to the directions.
    fn step(&self, directions: &Gram, shares: &[f64], mean: &[f64]) -> Vec<f64> {
        let mut step = vec![0.0; self.models];
        let mut back = 0.0;
        for i in 0..self.models {
            let cos = directions.along(i, mean).clamp(-1.0, 1.0);
            let (angle, sin) = (cos.acos(), (1.0 - cos * cos).sqrt());
            // Where the sine is that small, little more than rounding is left of the direction.
            if shares[i] == 0.0 || angle < self.tol || sin < 1e-6 {
                continue;
            }
            step[i] = shares[i] * angle / sin;
            back += step[i] * cos;
        }
        step.iter_mut().zip(mean).for_each(|(s, m)| *s -= back * m);
        step
    }
}

impl Method for Karcher {
    fn keeps(&self) -> bool {
        true
    }

    fn need(&self, facts: &Facts, _: u64) -> Need {
        Need::sums(gram::pairs(self.models), facts)
    }
}

impl<R: Real> Formula<R> for Karcher {
    fn sums(&self, block: &mut Block<R>, _: &Facts, sums: &mut [f64]) {
        gram::dots(block.inputs, 0..block.out.len(), sums);
    }

    fn merge(&self, block: &mut Block<R>, facts: &Facts) {
        gram::combine(block.out, block.inputs, 0, &self.factors(&Gram::new(self.models, &facts.sums)));
    }
}
