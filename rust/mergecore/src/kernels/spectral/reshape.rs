//! What becomes of a matrix whose singular values are given other sizes?
//!
//! W·A, where W = X diag(f/σ) Xᵀ: polar(A), all singular values alike, boosted ones. And what can be said of the result without an SVD.

use super::matrix::Matrix;
use super::product::Dense;
use super::spectrum::{distance, probes, Spectrum, Tolerance};
use super::workers::Workers;
use crate::dtype::Real;
use crate::error::{Error, Result};

/// What a result may differ by from what it should be, relatively: f32 leaves 1e-7.
pub const BOUND: f64 = 1e-5;

/// What is known of a matrix that was merged by its singular values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Account {
    /// How many directions are kept.
    pub rank: usize,
    /// ‖A‖²_F / σ₁² of what it was made of; of several matrices the least.
    pub stable_rank: f64,
    /// The share of Σσ of what it was made of that lies below what rounding the checkpoints makes; of several matrices the largest.
    pub noise_share: f64,
    /// How far the result's singular values and vectors are from those that it should have, and its products from others of the same
    /// matrices: relatively, by random vectors.
    pub orthogonality: f64,
    pub residual: f64,
}

impl Account {
    /// Of what is zero, and stays it.
    pub const ZERO: Account = Account { rank: 0, stable_rank: 0.0, noise_share: 0.0, orthogonality: 0.0, residual: 0.0 };

    /// Of no matrix yet: whatever comes has a smaller stable rank.
    pub const NONE: Account = Account { stable_rank: f64::INFINITY, ..Account::ZERO };

    /// With no stable rank where nothing had one.
    pub fn seen(self) -> Account {
        Account { stable_rank: if self.stable_rank.is_finite() { self.stable_rank } else { 0.0 }, ..self }
    }

    pub fn of(spectrum: &Spectrum, noise: f64, floor: f64) -> Account {
        let sigma = &spectrum.sigma;
        let largest = sigma.first().copied().unwrap_or(0.0);
        if largest == 0.0 {
            return Account::ZERO;
        }
        // Not `sum`, whose nothing is -0.0.
        let below = sigma.iter().filter(|x| **x < noise).fold(0.0, |sum, x| sum + x);
        let stable_rank = sigma.iter().map(|x| (x / largest).powi(2)).sum();
        Account { rank: spectrum.rank(floor), stable_rank, noise_share: below / spectrum.nuclear(), orthogonality: 0.0, residual: 0.0 }
    }

    /// Of several matrices that one result is made of.
    pub fn and(self, other: Account) -> Account {
        Account {
            rank: self.rank.max(other.rank),
            stable_rank: self.stable_rank.min(other.stable_rank),
            noise_share: self.noise_share.max(other.noise_share),
            orthogonality: worse(self.orthogonality, other.orthogonality),
            residual: worse(self.residual, other.residual),
        }
    }

    /// Refuses a result that is not what it should be. One whose numbers R holds to a few digits only cannot be told from a wrong one.
    pub fn certified<R: Real>(self, result: &Matrix<R>) -> Result<Account> {
        let tiny = result.largest() < 1e8 * R::from_magnitude(R::bits(1)).f64();
        // Each by itself: the larger of a number and NaN is the number.
        match tiny || (self.orthogonality <= BOUND && self.residual <= BOUND) {
            true => Ok(self),
            false => Err(Error::run(format!(
                "its result is wrong: orthogonality {:.1e}, residual {:.1e}, {BOUND:.0e} are allowed; please report it",
                self.orthogonality, self.residual
            ))),
        }
    }
}

/// The larger; NaN if one is.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b {
        a
    } else {
        b
    }
}

/// The sizes that singular values are given.
pub struct Sizes {
    /// Of the first ones, those not below the floor.
    pub kept: Vec<f64>,
    /// Whether the others stay as they are; else they become zero.
    pub rest: bool,
}

/// A ← the matrix with A's singular vectors and the sizes that `target` makes of its singular values (all of them, and how many are kept).
pub fn reshape<R: Real>(
    a: &mut Matrix<R>,
    tolerance: Tolerance,
    noise: f64,
    target: &dyn Fn(&[f64], usize) -> Sizes,
    workers: &Workers,
) -> Result<Account> {
    let floor = |sigma: &[f64]| tolerance.floor(sigma.first().copied().unwrap_or(0.0), noise);
    let spectrum = Spectrum::of(a, &|sigma| super::spectrum::rank(sigma, floor(sigma)), workers)?;
    let mut account = Account::of(&spectrum, noise, floor(&spectrum.sigma));
    let Sizes { kept, rest } = target(&spectrum.sigma, account.rank);
    let gains: Vec<f64> = kept.iter().zip(&spectrum.sigma).map(|(size, sigma)| size / sigma).collect();
    let filter = spectrum.filter(&gains, f64::from(rest), workers)?;
    let z = probes(a.long);
    let before = a.times(&z, workers)?;
    // It is symmetric; seen by row it is multiplied a quarter faster.
    a.transform(filter.view().transposed(), workers)?;
    let others = spectrum.sigma[kept.len()..].iter().map(|sigma| if rest { *sigma } else { 0.0 });
    let sizes: Vec<f64> = kept.iter().copied().chain(others).collect();
    account.orthogonality = spectrum.orthogonality(a, &sizes, workers)?;
    account.residual = distance(&a.times(&z, workers)?, &Dense::product(filter.view(), before.view(), workers)?);
    account.certified(a)
}
