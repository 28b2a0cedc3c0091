//! DELLA's first half: drop elements of a task vector at random, the smaller the more likely, and make up for them.
//!
//! Ranks are those of the magnitudes within each vector along the last axis, r from 0 (smallest) to 1; of equal magnitudes the lowest index
//! counts as the largest. An element is kept with p = density − ε + 2ε·r.

use std::cmp::Reverse;

use super::thin::Rescale;
use super::{angle, blend, mask};
use crate::dtype::Real;
use crate::error::{Error, Result};

/// How each task vector is thinned out.
#[derive(Debug, Clone)]
pub struct MagPrune {
    /// Mean fraction kept, one a model.
    density: Vec<f64>,
    /// How far the smallest and the largest of a row are from it.
    epsilon: Vec<f64>,
    rescale: Rescale,
}

impl MagPrune {
    /// # Errors
    /// Probabilities that are none, where something is dropped and something kept.
    pub fn new(density: Vec<f64>, epsilon: Vec<f64>, rescale: Rescale) -> Result<MagPrune> {
        // A density below one step of the generator's 24 bits is not told from 0 by the mask, and would overflow when divided by.
        const LEAST: f64 = 1.0 / (1 << 24) as f64;
        for (density, epsilon) in density.iter().zip(&epsilon) {
            if *density > 0.0 && *density < 1.0 && (density - epsilon < LEAST || density + epsilon >= 1.0) {
                let message = format!(
                    "density {density} with epsilon {epsilon}: both density − epsilon and density + epsilon must be between 0 and 1"
                );
                return Err(Error::recipe(message));
            }
        }
        Ok(MagPrune { density, epsilon, rescale })
    }

    /// How many sums `apply` needs to have been measured over the tensor.
    pub fn sums(&self) -> usize {
        self.rescale.sums(self.density.len())
    }

    /// Σ|δ| and Σ|δ∘m| of each model's rows of `row` elements. `key` gives a model's random stream, `first` is the index of the first
    /// element. The rows are masked on return.
    pub fn measure<R: Real>(&self, deltas: &mut [Vec<R>], row: usize, key: impl Fn(usize) -> mask::Key, first: u64, sums: &mut [f64]) {
        for (model, delta) in deltas.iter_mut().enumerate() {
            sums[2 * model] = angle::l1(delta);
            self.prune(model, delta, row, key(model), first, false);
            sums[2 * model + 1] = angle::l1(delta);
        }
    }

    /// δ ← m∘δ, rescaled; `sums` are the tensor's, if `rescale` asks for them. Density 1 leaves δ as it is.
    pub fn apply<R: Real>(&self, deltas: &mut [Vec<R>], row: usize, key: impl Fn(usize) -> mask::Key, first: u64, sums: &[f64]) {
        for (model, delta) in deltas.iter_mut().enumerate() {
            self.prune(model, delta, row, key(model), first, self.rescale == Rescale::Inverse);
            if self.rescale == Rescale::L1 && self.density[model] < 1.0 {
                self.rescale.factor(self.density[model], &sums[2 * model..]).apply(delta);
            }
        }
    }

    fn prune<R: Real>(&self, model: usize, delta: &mut [R], row: usize, key: mask::Key, first: u64, divide: bool) {
        let (density, epsilon) = (self.density[model], self.epsilon[model]);
        if density >= 1.0 {
            return;
        }
        if density <= 0.0 {
            return delta.fill(R::ZERO);
        }
        let mut chance = vec![R::ZERO; delta.len()];
        let mut order = Vec::with_capacity(row);
        for (delta, chance) in delta.chunks(row).zip(chance.chunks_mut(row)) {
            chances(delta, density, epsilon, &mut order, chance);
        }
        mask::draw(key, first, &mut chance);
        blend::gate(delta, &chance, divide);
    }
}

/// The probability of each element of one row to be kept. `order` is scratch.
fn chances<R: Real>(delta: &[R], density: f64, epsilon: f64, order: &mut Vec<(R::Bits, Reverse<u32>)>, chance: &mut [R]) {
    // Of a single element there is no rank: 0/0 in mergekit, which stops there.
    let steps = delta.len() - 1;
    if steps == 0 {
        return chance.fill(R::of(density));
    }
    order.clear();
    order.extend(delta.iter().zip(0..).map(|(x, i)| (x.magnitude(), Reverse(i))));
    order.sort_unstable();
    let (least, width, steps) = (R::of(density - epsilon), R::of(2.0 * epsilon), R::of(steps as f64));
    for (rank, (_, Reverse(i))) in order.iter().enumerate() {
        chance[*i as usize] = least + R::of(rank as f64) / steps * width;
    }
}
