//! What are the singular values of a matrix, and its singular vectors along the short axis?
//!
//! From the eigenvectors of AAᵀ, in f64. That squares the condition number: a singular value of 1e-6 of the largest would be known to a
//! few digits only. So where small ones matter, their vectors X are taken for themselves: (XᵀA)(XᵀA)ᵀ is small throughout, no large number
//! hides it, and its eigenvectors turn X (a Rayleigh–Ritz step). One step serves down to 1e-6, the next to 1e-9. QR with an SVD, and QDWH,
//! which were to do this, need the whole matrix in f64 and cost several times as much.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{self, ComputeEigenvectors};
use faer::{MatMut, MatRef, Par};

use super::matrix::{Matrix, PANEL};
use super::product::Dense;
use super::workers::Workers;
use crate::dtype::Real;
use crate::error::{Error, Result};
use crate::kernels::angle;

/// Below this share of the largest singular value in hand, the next are taken for themselves.
const SPLIT: f64 = 1e-3;
/// A singular value that is smaller, beside the largest in hand, may come out of its square's rounding as zero.
const UNKNOWN: f64 = 1e-7;
/// How much of the long axis is held in f64 while they are.
const CHUNK: usize = 2048;
/// Random vectors with which results are checked.
const PROBES: usize = 8;
/// What a decomposition may differ from its matrix by, relatively; 1e-13 is usual.
const BOUND: f64 = 1e-9;

/// What is below the floor is taken for zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// A share of the largest singular value.
    Relative(f64),
    /// What rounding the checkpoints to their types has made.
    Storage,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// From the largest on.
    pub sigma: Vec<f64>,
    /// The singular vectors along the short axis, one a column.
    pub vectors: Dense,
}

impl Tolerance {
    /// For what is not stored, and holds no rounding but that of arithmetic.
    pub fn of_arithmetic(self) -> Tolerance {
        match self {
            Tolerance::Relative(_) => self,
            Tolerance::Storage => Tolerance::Relative(1e-6),
        }
    }

    /// The floor, where rounding alone makes singular values up to `noise`.
    pub fn floor(self, largest: f64, noise: f64) -> f64 {
        // What f64 itself can't tell from zero.
        let least = largest * 1e-12;
        match self {
            Tolerance::Relative(share) => (share * largest).max(least),
            Tolerance::Storage => noise.max(least),
        }
    }
}

impl Spectrum {
    /// Of a finite matrix. All is well known of the singular values of which `matters(σ)` says how many; the others serve for sums.
    pub fn of<R: Real>(a: &Matrix<R>, matters: &dyn Fn(&[f64]) -> usize, workers: &Workers) -> Result<Spectrum> {
        let largest = a.largest();
        if largest == 0.0 {
            let vectors = Dense { rows: a.short, columns: a.short, values: identity(a.short) };
            return Ok(Spectrum { sigma: vec![0.0; a.short], vectors });
        }
        // A power of two, so that nothing is rounded: squares of very large or small numbers would not fit.
        let scale = largest.log2().floor().clamp(-1000.0, 1000.0).exp2().recip();
        let mut spectrum = Spectrum::guarded(a, scale, workers)?;
        let mut start = 0;
        loop {
            let first = spectrum.sigma[start];
            let split = spectrum.sigma.partition_point(|x| *x >= SPLIT * first);
            // What AAᵀ does not tell from zero may be as large as this.
            let known: Vec<f64> = spectrum.sigma.iter().map(|x| x.max(UNKNOWN * first) / scale).collect();
            if split >= matters(&known) || split == a.short {
                break;
            }
            spectrum.refine(split, a, scale, workers)?;
            start = split;
        }
        spectrum.sigma.iter_mut().for_each(|x| *x /= scale);
        Ok(spectrum)
    }

    /// The first guess, checked by products that have nothing to do with it; made again on one thread should it be wrong.
    fn guarded<R: Real>(a: &Matrix<R>, scale: f64, workers: &Workers) -> Result<Spectrum> {
        let mut error = f64::NAN;
        for parallel in [true, false] {
            let gram = a.gram(scale, workers)?;
            let (squares, vectors) = eigen(gram, parallel, workers)?;
            let sigma = squares.iter().map(|x| x.max(0.0).sqrt()).collect();
            let spectrum = Spectrum { sigma, vectors };
            let errors = spectrum.errors(a, scale, workers)?;
            if errors.iter().all(|error| *error <= BOUND) {
                return Ok(spectrum);
            }
            error = errors.into_iter().fold(error, f64::max);
        }
        Err(Error::run(format!("a matrix of {} x {} could not be decomposed: the result is off by {error:.1e}", a.short, a.long)))
    }

    /// How far AAᵀ is from XΣ²Xᵀ, and X from orthonormal, by random vectors: both relative to what they should be.
    fn errors<R: Real>(&self, a: &Matrix<R>, scale: f64, workers: &Workers) -> Result<[f64; 2]> {
        let y = probes(a.short);
        let coordinates = Dense::product(self.vectors.view().transposed(), y.view(), workers)?;
        let back = Dense::product(self.vectors.view(), coordinates.view(), workers)?;
        let squares: Vec<f64> = self.sigma.iter().map(|x| x * x).collect();
        let want = Dense::product(self.vectors.view(), rows_scaled(&coordinates, &squares).view(), workers)?;
        let got = a.times(&a.transposed_times(&y, workers)?, workers)?.scaled(&[scale * scale; PROBES]);
        Ok([distance(&got, &want), distance(&back, &y)])
    }

    /// Takes the singular vectors from `split` on for themselves.
    fn refine<R: Real>(&mut self, split: usize, a: &Matrix<R>, scale: f64, workers: &Workers) -> Result<()> {
        let count = a.short - split;
        let mut gram = Dense::zeros(count, count);
        let own = self.vectors.columns(split, count);
        for start in (0..a.long).step_by(CHUNK) {
            let part = a.rows_from(own.transposed(), start..(start + CHUNK).min(a.long), workers)?;
            let dots = part.gram(scale, workers)?;
            gram.values.iter_mut().zip(dots.values).for_each(|(sum, x)| *sum += x);
        }
        let (squares, turn) = eigen(gram, true, workers)?;
        let turned = Dense::product(own, turn.view(), workers)?;
        self.vectors.values[split * a.short..].copy_from_slice(&turned.values);
        self.sigma.truncate(split);
        self.sigma.extend(squares.iter().map(|x| x.max(0.0).sqrt()));
        Ok(())
    }

    /// How many are not below the floor, and not zero.
    pub fn rank(&self, floor: f64) -> usize {
        rank(&self.sigma, floor)
    }

    /// Σσ
    pub fn nuclear(&self) -> f64 {
        self.sigma.iter().sum()
    }

    /// W = rest·I + Σ (gainᵢ − rest) xᵢxᵢᵀ: a matrix times W has its first singular values times their gains, and the others times `rest`.
    pub fn filter(&self, gains: &[f64], rest: f64, workers: &Workers) -> Result<Dense> {
        let kept = Dense {
            rows: self.vectors.rows,
            columns: gains.len(),
            values: self.vectors.values[..gains.len() * self.vectors.rows].to_vec(),
        };
        let scaled = kept.scaled(&gains.iter().map(|gain| gain - rest).collect::<Vec<_>>());
        let mut w = Dense::product(scaled.view(), self.vectors.columns(0, gains.len()).transposed(), workers)?;
        (0..w.rows).for_each(|i| w.column_mut(i)[i] += rest);
        Ok(w)
    }

    /// How far BBᵀ is from X diag(f²) Xᵀ, relatively, by random vectors: whether B has the singular values f.
    pub fn orthogonality<R: Real>(&self, b: &Matrix<R>, f: &[f64], workers: &Workers) -> Result<f64> {
        let y = probes(b.short);
        let coordinates = Dense::product(self.vectors.view().transposed(), y.view(), workers)?;
        let squares: Vec<f64> = f.iter().map(|x| x * x).collect();
        let want = Dense::product(self.vectors.view(), rows_scaled(&coordinates, &squares).view(), workers)?;
        Ok(distance(&b.times(&b.transposed_times(&y, workers)?, workers)?, &want))
    }
}

pub fn rank(sigma: &[f64], floor: f64) -> usize {
    sigma.partition_point(|x| *x >= floor && *x > 0.0)
}

/// The largest singular value, nearly: by the power method on a few vectors, from below.
pub fn largest<R: Real>(a: &Matrix<R>, workers: &Workers) -> Result<f64> {
    const STEPS: usize = 12;
    let mut x = probes(a.short);
    let mut most = 0.0;
    for _ in 0..STEPS {
        // Each to length 1: squares of lengths would soon be no numbers.
        let lengths: Vec<f64> = (0..x.columns).map(|j| angle::dot(x.column(j), x.column(j)).sqrt()).collect();
        if lengths.contains(&0.0) {
            return Ok(most);
        }
        let back = a.transposed_times(&x.scaled(&lengths.iter().map(|length| 1.0 / length).collect::<Vec<_>>()), workers)?;
        most = (0..back.columns).map(|j| angle::dot(back.column(j), back.column(j)).sqrt()).fold(0.0, f64::max);
        x = a.times(&back, workers)?;
    }
    Ok(most)
}

/// Eigenvalues from the largest on, and their vectors, of a Gram matrix.
///
/// Rows that are zero are their own eigenvectors, and left out of what faer decomposes: of a stack of few directions among many rows of zeros
/// (tsv, of changes of low rank) it finds none, and says `NoConvergence` (faer 0.24; 15 of 75 random stacks).
fn eigen(gram: Dense, parallel: bool, workers: &Workers) -> Result<(Vec<f64>, Dense)> {
    let n = gram.rows;
    let own: Vec<usize> = (0..n).filter(|i| gram.values[i * n + i] != 0.0).collect();
    if own.len() == n {
        return decomposed(gram, parallel, workers);
    }
    let mut inner = Dense::zeros(own.len(), own.len());
    for (j, column) in own.iter().enumerate() {
        own.iter().zip(inner.column_mut(j)).for_each(|(row, x)| *x = gram.values[column * n + row]);
    }
    drop(gram);
    let (mut values, found) = decomposed(inner, parallel, workers)?;
    let mut vectors = Dense::zeros(n, n);
    for j in 0..own.len() {
        own.iter().zip(found.column(j)).for_each(|(row, x)| vectors.column_mut(j)[*row] = *x);
    }
    let zeros = (0..n).filter(|i| own.binary_search(i).is_err());
    zeros.zip(own.len()..).for_each(|(row, j)| vectors.column_mut(j)[row] = 1.0);
    values.resize(n, 0.0);
    Ok((values, vectors))
}

fn decomposed(gram: Dense, parallel: bool, workers: &Workers) -> Result<(Vec<f64>, Dense)> {
    let n = gram.rows;
    if n == 0 {
        return Ok((Vec::new(), Dense::zeros(0, 0)));
    }
    let solved = workers.long(move |par| {
        let par = if parallel { par } else { Par::Seq };
        let (mut values, mut vectors) = (vec![0.0; n], Dense::zeros(n, n));
        let mut memory = MemBuffer::new(evd::self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, par, Default::default()));
        let a = MatRef::from_column_major_slice(&gram.values, n, n);
        let u = MatMut::from_column_major_slice_mut(&mut vectors.values, n, n);
        let s = faer::diag::DiagMut::from_slice_mut(&mut values);
        evd::self_adjoint_evd(a, s, Some(u), par, MemStack::new(&mut memory), Default::default()).map(|()| (values, vectors))
    })?;
    let (mut values, mut vectors) =
        solved.map_err(|e| Error::run(format!("the eigenvalues of a matrix of {n} x {n} did not converge ({e:?})")))?;
    values.reverse();
    for j in 0..n / 2 {
        let (left, right) = vectors.values.split_at_mut((n - 1 - j) * n);
        left[j * n..(j + 1) * n].swap_with_slice(&mut right[..n]);
    }
    Ok((values, vectors))
}

/// Bytes that `Spectrum::of` holds beside the matrix, of so long a short axis: eigenvectors, AAᵀ and what faer works with; and the same for
/// the small singular values.
pub fn bytes(short: u64, threads: u64) -> u64 {
    let square = 8 * short * short;
    // What a thread multiplies and makes at a time, and what `gemm` packs of it.
    let pieces = threads * (8 * 2 * short * PANEL as u64 + (8 << 20));
    6 * square + 2 * 8 * short * CHUNK as u64 + pieces
}

/// Random numbers between -1 and 1, always the same: of `PROBES` vectors. (Signs alone were tried: a matrix of few rows may well be at right
/// angles to all eight, and then nothing is seen of it.)
pub fn probes(rows: usize) -> Dense {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let number = |_| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) as i64 as f64 / 2f64.powi(63)
    };
    Dense { rows, columns: PROBES, values: (0..rows * PROBES).map(number).collect() }
}

pub fn rows_scaled(x: &Dense, factors: &[f64]) -> Dense {
    let mut out = x.clone();
    out.values.chunks_exact_mut(x.rows.max(1)).for_each(|column| column.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor));
    out
}

/// ‖x − y‖ / ‖y‖; 0 where both are zero.
pub fn distance(x: &Dense, y: &Dense) -> f64 {
    let largest = x.values.iter().chain(&y.values).fold(0.0, |most: f64, x| most.max(x.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    // Divided by the largest, so that squares neither overflow nor vanish.
    let difference: Vec<f64> = x.values.iter().zip(&y.values).map(|(x, y)| x / largest - y / largest).collect();
    let size: Vec<f64> = y.values.iter().map(|y| y / largest).collect();
    match (angle::dot(&difference, &difference), angle::dot(&size, &size)) {
        (0.0, 0.0) => 0.0,
        (off, size) => (off / size).sqrt(),
    }
}

fn identity(n: usize) -> Vec<f64> {
    let mut values = vec![0.0; n * n];
    (0..n).for_each(|i| values[i * n + i] = 1.0);
    values
}
