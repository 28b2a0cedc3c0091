//! DARE's first half: drop elements of a task vector at random, and make up for them.

use super::{angle, blend, mask};
use crate::dtype::Real;
use crate::error::{Error, Result};

/// What makes up for the dropped elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescale {
    /// Divide by the density: E[δ̂] = δ (Yu et al. 2024, eq. 3).
    Inverse,
    /// Restore the tensor's Σ|δ| (what mergekit calls rescale since 0.1.0).
    L1,
    None,
}

impl Rescale {
    pub fn named(word: &str) -> Rescale {
        match word {
            "inverse" => Rescale::Inverse,
            "l1" => Rescale::L1,
            _ => Rescale::None,
        }
    }

    /// How many sums `apply` needs to have been measured over the tensor: Σ|δ| and Σ|δ̂| of each model.
    pub fn sums(self, models: usize) -> usize {
        if self == Rescale::L1 {
            2 * models
        } else {
            0
        }
    }

    /// What makes up for the dropped elements of one model's row; `sums` are that model's two.
    pub fn factor<R: Real>(self, density: f64, sums: &[f64]) -> Factor<R> {
        match self {
            Rescale::Inverse if density > 0.0 => Factor::Divide(R::of(density)),
            // Sums this small would scale rounding noise (mergekit's guard, kept).
            Rescale::L1 if sums[0] >= 1e-7 && sums[1] >= 1e-7 => Factor::Scale(R::of(sums[0] / sums[1])),
            _ => Factor::One,
        }
    }
}

/// A division is not a multiplication by the reciprocal: it rounds differently.
#[derive(Debug, Clone, Copy)]
pub enum Factor<R> {
    One,
    Scale(R),
    Divide(R),
}

impl<R: Real> Factor<R> {
    pub fn apply(self, x: &mut [R]) {
        match self {
            Factor::One => {}
            Factor::Scale(by) => blend::scale(x, by),
            Factor::Divide(by) => blend::divide(x, by),
        }
    }
}

/// How each task vector is thinned out.
#[derive(Debug, Clone)]
pub struct Thin {
    /// Fraction kept, one a model.
    pub density: Vec<f64>,
    pub rescale: Rescale,
}

impl Thin {
    /// # Errors
    /// A density that is not 0 and yet below what the generator's 24 bits tell apart: rescaling by its inverse would overflow.
    pub fn new(density: Vec<f64>, rescale: Rescale) -> Result<Thin> {
        const LEAST: f64 = 1.0 / (1 << 24) as f64;
        match density.iter().find(|d| **d > 0.0 && **d < LEAST) {
            Some(d) => Err(Error::recipe(format!("density is {d:e}: a random mask knows nothing between 0 and {LEAST:e}"))),
            None => Ok(Thin { density, rescale }),
        }
    }

    /// How many sums `apply` needs to have been measured over the tensor.
    pub fn sums(&self) -> usize {
        self.rescale.sums(self.density.len())
    }

    /// Σ|δ| and Σ|δ∘m| of each model's row. `key` gives a model's random stream, `first` is the index of the rows' first element.
    /// The rows are masked on return.
    pub fn measure<R: Real>(&self, deltas: &mut [Vec<R>], key: impl Fn(usize) -> mask::Key, first: u64, sums: &mut [f64]) {
        for (model, (delta, density)) in deltas.iter_mut().zip(&self.density).enumerate() {
            sums[2 * model] = angle::l1(delta);
            mask::apply(key(model), first, *density, delta);
            sums[2 * model + 1] = angle::l1(delta);
        }
    }

    /// δ ← m∘δ, rescaled, in each model's row; `sums` are the tensor's, if `rescale` asks for them. Density 1 leaves δ as it is.
    pub fn apply<R: Real>(&self, deltas: &mut [Vec<R>], key: impl Fn(usize) -> mask::Key, first: u64, sums: &[f64]) {
        for (model, (delta, density)) in deltas.iter_mut().zip(&self.density).enumerate() {
            if *density >= 1.0 {
                continue;
            }
            let key = key(model);
            match self.rescale.factor(*density, sums.get(2 * model..).unwrap_or_default()) {
                Factor::Divide(by) => mask::apply_and_divide(key, first, *density, by, delta),
                Factor::Scale(by) => mask::apply_and_scale(key, first, *density, by, delta),
                Factor::One => mask::apply(key, first, *density, delta),
            }
        }
    }
}
