//! TSV-Merge: each task vector's leading singular vectors, brought to right angles with those of the others.
//!
//! Gargiulo et al. (CVPR 2025). Of N tasks each keeps the largest min(m, n) // N singular values; their singular vectors, side by side, are
//! replaced by the nearest orthonormal ones, U⊥ = polar([U₁ … U_N]). Where models are alike these have no full rank: the authors' SVD then
//! fills up with any directions at all, which get the singular values' weight. Here polar is a partial isometry, and duplicates give one
//! model's. A matrix with fewer singular values than there are models, of which the authors keep nothing, gets the mean.

use super::{Base, Block, Facts, Formula, Method, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::blend;
use crate::kernels::spectral::matrix::Matrix;
use crate::kernels::spectral::reshape::Account;
use crate::kernels::spectral::spectrum::Tolerance;
use crate::kernels::spectral::stack::{self, Floor, Stack};
use crate::kernels::spectral::workers::Workers;
use crate::matrices::{self, Shape, Solve, Spectral, TaskVectors, Which, MATRICES, RANK_TOL};
use crate::params::{Params, LAMBDA, SUMMED};

pub const SPEC: Spec = Spec {
    name: "tsv",
    summary: "each task vector's leading singular vectors, decorrelated, with their singular values",
    formula: "Δ = λ U⊥ diag(σ) V⊥ᵀ,  U⊥ = polar([U₁ … U_N]), V⊥ alike;  Uᵢ diag(σᵢ) Vᵢᵀ = the first min(m, n) // N singular triplets of \
              wᵢδᵢ;  tensors that are no matrices: λ Σ wᵢδᵢ / N",
    paper: "Gargiulo et al., Task Singular Vectors: Reducing Task Interference in Model Merging, CVPR 2025, arXiv:2412.00081",
    cost: "an m × n matrix, m ≤ n, in memory once and once in f64, and eleven of m × m in f64; about (N + 3)(m²n + 9m³) operations in f64 for each",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[SUMMED, LAMBDA, MATRICES, RANK_TOL],
    idle: &[],
    order_free: true,
    bind,
};

struct Tsv {
    weight: Vec<f64>,
    tolerance: Tolerance,
    which: Which,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Tsv { weight: params.each("weight"), tolerance: matrices::tolerance(params), which: matrices::which(params) }))
}

impl Method for Tsv {
    fn spectral(&self) -> Option<&(dyn Spectral + 'static)> {
        Some(self)
    }
}

impl<R: Real> Formula<R> for Tsv {
    fn merge(&self, block: &mut Block<R>, _: &Facts) {
        blend::mean(block.out, block.inputs, &self.weight);
    }
}

impl<R: Real> Solve<R> for Tsv {
    fn solve(&self, vectors: &mut dyn TaskVectors<R>, workers: &Workers) -> Result<(Matrix<R>, Account)> {
        let mut stack: Option<Stack> = None;
        let mut last = None;
        for model in 0..self.weight.len() {
            // One matrix at a time, and the stack.
            drop(last.take());
            let alone = matrices::alone(&self.weight, model);
            let delta = vectors.sum(&alone)?;
            let stack = stack.get_or_insert_with(|| Stack::like(&delta));
            let floor = Floor { tolerance: self.tolerance, noise: vectors.noise(&alone), left_of: None };
            stack.push(&delta, delta.short / self.weight.len(), floor, workers)?;
            last = Some(delta);
        }
        let (stack, mut out) = stack.zip(last).expect("there is a model");
        let account = stack.merge(&mut out, None, self.tolerance, workers)?;
        Ok((out, account))
    }
}

impl Spectral for Tsv {
    fn which(&self) -> Which {
        self.which
    }

    fn takes(&self, short: u64) -> bool {
        short >= self.weight.len() as u64
    }

    fn bytes(&self, shape: Shape, threads: u64) -> u64 {
        shape.bytes() + stack::bytes(shape.short(), shape.long(), threads)
    }
}
