//! What does a method see that merges a matrix as a whole?
//!
//! Most methods go through a tensor block by block. Those that look at singular values get each matrix of it at once, as the sum of its
//! task vectors or one after the other, and say beforehand how much memory that takes.

use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::spectral::matrix::Matrix;
use crate::kernels::spectral::reshape::Account;
use crate::kernels::spectral::spectrum::Tolerance;
use crate::kernels::spectral::workers::Workers;
use crate::params::{Default, Kind, Param, Params, PLAIN};

/// Which tensors are taken as matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Two axes, neither of them the vocabulary.
    Linear,
    /// Two axes.
    All,
    /// q, k, v, o, gate, up and down of a Llama's layer.
    Projections,
    None,
}

pub const MATRICES: Param = Param {
    name: "matrices",
    kind: Kind::Word { words: &["linear", "all", "projections", "none"], flags: None },
    default: Default::Word("linear"),
    doc: "which tensors are matrices: linear (two axes, neither the vocabulary), all (two axes), projections (q, k, v, o, gate, up, down), none",
    ..PLAIN
};

pub const RANK_TOL: Param = Param {
    name: "rank_tol",
    kind: Kind::NumberOr { min: 1e-9, max: 1.0, words: &["storage"] },
    default: Default::Number(1e-6),
    doc: "singular values below this share of the largest are no direction; storage: below what rounding the checkpoints to their types makes",
    ..PLAIN
};

pub fn which(params: &Params) -> Which {
    match params.word("matrices") {
        "linear" => Which::Linear,
        "all" => Which::All,
        "projections" => Which::Projections,
        _ => Which::None,
    }
}

pub fn tolerance(params: &Params) -> Tolerance {
    params.number_or_word("rank_tol").map_or(Tolerance::Storage, Tolerance::Relative)
}

/// One model's weight, and 0 for the others.
pub fn alone(weights: &[f64], model: usize) -> Vec<f64> {
    weights.iter().enumerate().map(|(i, weight)| if i == model { *weight } else { 0.0 }).collect()
}

/// The shape of a matrix, as memory is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub rows: u64,
    pub columns: u64,
    /// Bytes of a number of the arithmetic: 4 or 8.
    pub element: u64,
}

impl Shape {
    pub fn short(self) -> u64 {
        self.rows.min(self.columns)
    }

    pub fn long(self) -> u64 {
        self.rows.max(self.columns)
    }

    /// Bytes of the matrix.
    pub fn bytes(self) -> u64 {
        self.rows * self.columns * self.element
    }
}

/// The task vectors of one matrix, read as they are asked for.
pub trait TaskVectors<R> {
    /// Σ wᵢδᵢ; models with the weight 0 are not read.
    fn sum(&mut self, weights: &[f64]) -> Result<Matrix<R>>;

    /// The largest singular value that rounding the models to their types is expected to have made in Σ wᵢδᵢ, once that was read.
    fn noise(&self, weights: &[f64]) -> f64;
}

/// The arithmetic on a matrix, written once for f32 and f64.
pub trait Solve<R: Real>: Send + Sync {
    /// The merged task vector.
    fn solve(&self, vectors: &mut dyn TaskVectors<R>, workers: &Workers) -> Result<(Matrix<R>, Account)>;
}

/// How a method merges matrices; other tensors are merged by its `Formula`.
pub trait Spectral: Solve<f32> + Solve<f64> {
    fn which(&self) -> Which;

    /// Whether a matrix with so many singular values can be merged so.
    fn takes(&self, _short: u64) -> bool {
        true
    }

    /// Bytes that `solve` holds at most, the matrices that it was given among them.
    fn bytes(&self, shape: Shape, threads: u64) -> u64;
}
