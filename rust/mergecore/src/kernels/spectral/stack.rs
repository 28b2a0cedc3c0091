//! Singular vectors of several matrices side by side, and the nearest orthonormal ones.

use super::matrix::Matrix;
use super::product::{Dense, View};
use super::reshape::Account;
use super::spectrum::{self, distance, probes, rank, Spectrum, Tolerance};
use super::workers::Workers;
use crate::dtype::Real;
use crate::error::Result;

/// Singular triplets of matrices of one shape, those of each from its largest on. F is what the vectors along the long axis are kept in: f64
/// where a space is projected out with them, since rounding them leaves of it as much as they are rounded.
pub struct Stack<F> {
    /// One a triplet; 0 where the matrix has no such direction.
    pub sigma: Vec<f64>,
    /// Singular vectors along the short axis, one a column; zeros where there is none.
    near: Dense,
    /// Singular vectors along the long axis, as many as the short axis has elements: zeros where there is none.
    far: Matrix<F>,
    account: Option<Account>,
}

/// What is no direction of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    pub tolerance: Tolerance,
    /// The largest singular value that rounding makes.
    pub noise: f64,
    /// The largest singular value of the matrix that this one is a part of; 0 where it is none.
    pub largest: f64,
}

impl<F: Real> Stack<F> {
    /// An empty stack for matrices like this.
    pub fn like<R: Real>(a: &Matrix<R>) -> Self {
        Stack { sigma: Vec::new(), near: Dense::zeros(a.short, a.short), far: a.zeros_like(), account: None }
    }

    /// Adds a matrix's first `count` triplets; those below the floor as zeros.
    pub fn push<R: Real>(&mut self, a: &Matrix<R>, count: usize, floor: Floor, workers: &Workers) -> Result<()> {
        let least = |sigma: &[f64]| floor.tolerance.floor(sigma.first().copied().unwrap_or(0.0).max(floor.largest), floor.noise);
        let spectrum = Spectrum::of(a, &|sigma| rank(sigma, least(sigma)).min(count), workers)?;
        let account = Account::of(&spectrum, floor.noise, least(&spectrum.sigma));
        let kept = account.rank.min(count);
        let first = self.sigma.len();
        for j in 0..kept {
            self.near.column_mut(first + j).copy_from_slice(spectrum.vectors.column(j));
        }
        let inverse: Vec<f64> = spectrum.sigma[..kept].iter().map(|sigma| 1.0 / sigma).collect();
        let scaled = Dense { rows: a.short, columns: kept, values: spectrum.vectors.values[..kept * a.short].to_vec() }.scaled(&inverse);
        self.far.compose(first, scaled.view().transposed(), a, workers)?;
        self.sigma.extend_from_slice(&spectrum.sigma[..kept]);
        self.sigma.resize(first + count, 0.0);
        self.account = Some(self.account.map_or(account, |others| others.and(account)));
        Ok(())
    }

    /// Leaves in a matrix what lies outside the span of the first `count` singular vectors of its rows' side.
    pub fn leave_out<R: Real>(&self, a: &mut Matrix<R>, count: usize, workers: &Workers) -> Result<()> {
        if a.flipped {
            // The rows' side is the long one: A ← A − (A F)Fᵀ, F the vectors along it.
            let part = a.dots(&self.far, count, workers)?;
            a.subtract(part.view(), &self.far, workers)
        } else {
            let span = self.near.columns(0, count);
            let mut outside = Dense::product(span, span.transposed(), workers)?.scaled(&vec![-1.0; a.short]);
            (0..a.short).for_each(|i| outside.column_mut(i)[i] += 1.0);
            a.transform(outside.view(), workers)
        }
    }

    /// out ← the matrix with the nearest orthonormal vectors, and the triplets' singular values (or all of them one number).
    pub fn merge<R: Real>(self, out: &mut Matrix<R>, alike: Option<f64>, tolerance: Tolerance, workers: &Workers) -> Result<Account> {
        // Vectors have length 1, whatever the checkpoints' types: what is no direction among them is a matter of arithmetic.
        let share = match tolerance {
            Tolerance::Relative(share) => share,
            Tolerance::Storage => 1e-6,
        };
        let count = self.sigma.len();
        let mut account = self.account.unwrap_or(Account::ZERO);
        let near =
            Matrix { short: count, long: self.near.rows, flipped: false, values: self.near.values[..count * self.near.rows].to_vec() };
        let far = self.far.first(count);
        let near_to_right_angles = right_angles(&near, share, workers, &mut account)?;
        let far_to_right_angles = right_angles(&far, share, workers, &mut account)?;
        let sizes: Vec<f64> = self.sigma.iter().map(|sigma| alike.unwrap_or(*sigma)).collect();
        let middle = Dense::product(near_to_right_angles.scaled(&sizes).view(), far_to_right_angles.view(), workers)?;
        let near = View::new(&near.values, (near.long, count), (1, near.long));
        let whole = Dense::product(near, middle.view(), workers)?;
        out.compose(0, whole.view(), &far, workers)?;
        let z = probes(out.long);
        let want = Dense::product(whole.view(), far.times(&z, workers)?.view(), workers)?;
        account.and(Account { residual: distance(&out.times(&z, workers)?, &want), ..account }).certified()
    }
}

/// W, by which the vectors of A along its long axis become the nearest orthonormal ones, WA = polar(A).
fn right_angles<R: Real>(a: &Matrix<R>, share: f64, workers: &Workers, account: &mut Account) -> Result<Dense> {
    let floor = |sigma: &[f64]| sigma.first().copied().unwrap_or(0.0) * share;
    let spectrum = Spectrum::of(a, &|sigma| rank(sigma, floor(sigma)), workers)?;
    let kept = spectrum.rank(floor(&spectrum.sigma));
    let inverse: Vec<f64> = spectrum.sigma[..kept].iter().map(|sigma| 1.0 / sigma).collect();
    let w = spectrum.filter(&inverse, 0.0, workers)?;
    // WAAᵀWᵀ is the projector onto what is kept.
    let y = probes(a.short);
    let back = a.transposed_times(&Dense::product(w.view(), y.view(), workers)?, workers)?;
    let got = Dense::product(w.view(), a.times(&back, workers)?.view(), workers)?;
    let span = spectrum.vectors.columns(0, kept);
    let want = Dense::product(span, Dense::product(span.transposed(), y.view(), workers)?.view(), workers)?;
    *account = account.and(Account { orthogonality: distance(&got, &want), ..*account });
    Ok(w)
}

/// Bytes beside the matrix and the far vectors: what finds singular vectors, and the near ones with two matrices that turn them.
pub fn bytes(short: u64, threads: u64) -> u64 {
    spectrum::bytes(short, threads) + 5 * 8 * short * short
}
