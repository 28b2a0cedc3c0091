//! Breadcrumbs' first half: of each task vector keep neither the largest elements nor the smallest.

use super::angle;
use super::cutoff::Cutoff;
use super::thin::Rescale;
use crate::dtype::Real;

/// Which elements of each task vector are kept.
#[derive(Debug, Clone)]
pub struct Crumbs {
    /// Fraction kept, one a model.
    pub density: Vec<f64>,
    /// Fraction dropped as outliers, one a model.
    pub gamma: Vec<f64>,
    pub rescale: Rescale,
}

impl Crumbs {
    /// How many of the largest are counted off: for each model those that are kept together with the outliers, and the outliers.
    pub fn counts(&self, elements: u64) -> Vec<u64> {
        let part = |share: f64| ((share * elements as f64) as u64).min(elements);
        let both = |(density, gamma): (&f64, &f64)| {
            let (kept, outliers) = (part(*density), part(*gamma).min(elements - part(*density)));
            [kept + outliers, outliers]
        };
        self.density.iter().zip(&self.gamma).flat_map(both).collect()
    }

    /// How many sums `apply` needs to have been measured over the tensor.
    pub fn sums(&self) -> usize {
        self.rescale.sums(self.density.len())
    }

    /// Σ|δ| and Σ|δ̂| of each model's row, which is left trimmed.
    pub fn measure<R: Real>(&self, block: usize, deltas: &mut [Vec<R>], cutoffs: &[Cutoff], sums: &mut [f64]) {
        for ((delta, cutoffs), sums) in deltas.iter_mut().zip(cutoffs.chunks_exact(2)).zip(sums.chunks_exact_mut(2)) {
            sums[0] = angle::l1(delta);
            trim(block, delta, cutoffs);
            sums[1] = angle::l1(delta);
        }
    }

    /// δ ← δ̂, rescaled, in each model's row; `sums` are the tensor's, if `rescale` asks for them.
    pub fn apply<R: Real>(&self, block: usize, deltas: &mut [Vec<R>], cutoffs: &[Cutoff], sums: &[f64]) {
        for (model, (delta, cutoffs)) in deltas.iter_mut().zip(cutoffs.chunks_exact(2)).enumerate() {
            trim(block, delta, cutoffs);
            self.rescale.factor(self.density[model], sums.get(2 * model..).unwrap_or_default()).apply(delta);
        }
    }
}

/// The smallest first: what they leave behind is zero, and no outlier is smaller than they.
fn trim<R: Real>(block: usize, delta: &mut [R], cutoffs: &[Cutoff]) {
    cutoffs[0].trim(block, delta);
    cutoffs[1].drop(block, delta);
}
