//! Singular vectors of several matrices side by side, and the nearest orthonormal ones.

use super::matrix::Matrix;
use super::product::{Dense, View};
use super::reshape::Account;
use super::spectrum::{self, distance, probes, rank, Spectrum, Tolerance};
use super::workers::Workers;
use crate::dtype::Real;
use crate::error::Result;

/// Singular triplets of matrices of one shape, those of each from its largest on. All vectors are kept in f64: of models that are nearly
/// alike the difference counts, and what is left when a space is projected out.
pub struct Stack {
    /// One a triplet; 0 where the matrix has no such direction.
    pub sigma: Vec<f64>,
    /// Singular vectors along the short axis, one a column; zeros where there is none.
    near: Dense,
    /// Singular vectors along the long axis, as many as the short axis has elements: zeros where there is none.
    far: Matrix<f64>,
    account: Account,
}

/// What is no direction of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    pub tolerance: Tolerance,
    /// The largest singular value that rounding makes.
    pub noise: f64,
    /// The largest singular value of the matrix that this one is what is left of, if it is.
    pub left_of: Option<f64>,
}

impl Stack {
    /// An empty stack for matrices like this.
    pub fn like<R: Real>(a: &Matrix<R>) -> Self {
        Stack { sigma: Vec::new(), near: Dense::zeros(a.short, a.short), far: a.zeros_like(), account: Account::NONE }
    }

    /// Adds a matrix's first `count` triplets; those below the floor as zeros.
    pub fn push<R: Real>(&mut self, a: &Matrix<R>, count: usize, floor: Floor, workers: &Workers) -> Result<()> {
        let least =
            |sigma: &[f64]| floor.tolerance.floor(sigma.first().copied().unwrap_or(0.0).max(floor.left_of.unwrap_or(0.0)), floor.noise);
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
        // What is left of a matrix beside others is small by construction, and a model that has not changed has no figures.
        let told = if floor.left_of.is_none() && account.rank > 0 { account } else { Account::NONE };
        let orthogonality = self.far_from_right_angles(first, kept, workers)?;
        self.account = self.account.and(Account { orthogonality, ..told });
        Ok(())
    }

    /// How far the vectors along the long axis from `first` on are from orthonormal, by random combinations of them: they are, if those along
    /// the short axis and the singular values are right.
    fn far_from_right_angles(&self, first: usize, count: usize, workers: &Workers) -> Result<f64> {
        let mut y = probes(self.far.short);
        y.values.chunks_exact_mut(self.far.short).for_each(|column| {
            column[..first].fill(0.0);
            column[first + count..].fill(0.0);
        });
        let mut back = self.far.times(&self.far.transposed_times(&y, workers)?, workers)?;
        back.values.chunks_exact_mut(self.far.short).for_each(|column| {
            column[..first].fill(0.0);
            column[first + count..].fill(0.0);
        });
        Ok(distance(&back, &y))
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
        let count = self.sigma.len();
        let mut account = self.account.seen();
        // Vectors have length 1, whatever the checkpoints' types.
        let tolerance = tolerance.of_arithmetic();
        let near =
            Matrix { short: count, long: self.near.rows, flipped: false, values: self.near.values[..count * self.near.rows].to_vec() };
        let far = self.far.first(count);
        let (near_to_right_angles, near_rank) = right_angles(&near, tolerance, workers, &mut account)?;
        let (far_to_right_angles, far_rank) = right_angles(&far, tolerance, workers, &mut account)?;
        account.rank = near_rank.min(far_rank);
        let sizes: Vec<f64> = self.sigma.iter().map(|sigma| alike.unwrap_or(*sigma)).collect();
        let middle = Dense::product(near_to_right_angles.scaled(&sizes).view(), far_to_right_angles.view(), workers)?;
        let near = View::new(&near.values, (near.long, count), (1, near.long));
        let whole = Dense::product(near, middle.view(), workers)?;
        out.compose(0, whole.view(), &far, workers)?;
        let z = probes(out.long);
        let want = Dense::product(whole.view(), far.times(&z, workers)?.view(), workers)?;
        account.and(Account { residual: distance(&out.times(&z, workers)?, &want), ..account }).certified(out)
    }
}

/// W, by which the vectors of A along its long axis become the nearest orthonormal ones, WA = polar(A); and how many they are.
fn right_angles<R: Real>(a: &Matrix<R>, tolerance: Tolerance, workers: &Workers, account: &mut Account) -> Result<(Dense, usize)> {
    let floor = |sigma: &[f64]| tolerance.floor(sigma.first().copied().unwrap_or(0.0), 0.0);
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
    Ok((w, kept))
}

/// Bytes beside the matrix, of so long axes: the vectors, what finds them, and two matrices that turn them.
pub fn bytes(short: u64, long: u64, threads: u64) -> u64 {
    8 * short * long + spectrum::bytes(short, threads) + 5 * 8 * short * short
}
