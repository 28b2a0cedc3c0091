//! Isotropic merging in the common space: the sum of the task vectors, with all its singular values alike.
//!
//! The authors take an SVD; here it is σ̄·polar(Σδ), polar by the eigenvectors of the small Gram matrix. A direction below `rank_tol` is none:
//! the full SVD gives what rounding left there the strength of all others. σ̄ divides by all singular values, as theirs does.

use super::{Base, Block, Facts, Formula, Method, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::blend;
use crate::kernels::spectral::matrix::Matrix;
use crate::kernels::spectral::reshape::{reshape, Account, Sizes};
use crate::kernels::spectral::spectrum::{self, Tolerance};
use crate::kernels::spectral::workers::Workers;
use crate::matrices::{self, Shape, Solve, Spectral, TaskVectors, Which, MATRICES, RANK_TOL};
use crate::params::{Params, LAMBDA, SUMMED};

pub const SPEC: Spec = Spec {
    name: "iso_c",
    summary: "the sum of the task vectors with all singular values made alike",
    formula: "Δ = λ σ̄ U Vᵀ,  U diag(σ) Vᵀ = A = Σ wᵢδᵢ,  σ̄ = Σσ / min(m, n);  tensors that are no matrices: λ A / N",
    paper:
        "Marczak et al., No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces, ICML 2025, arXiv:2502.04959",
    cost: "an m × n matrix, m ≤ n, in memory whole, and six of m × m in f64; about 4m²n + 9m³ operations in f64 for each",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[SUMMED, LAMBDA, MATRICES, RANK_TOL],
    idle: &[],
    order_free: true,
    bind,
};

struct IsoC {
    weight: Vec<f64>,
    tolerance: Tolerance,
    which: Which,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(IsoC { weight: params.each("weight"), tolerance: matrices::tolerance(params), which: matrices::which(params) }))
}

impl Method for IsoC {
    fn spectral(&self) -> Option<&(dyn Spectral + 'static)> {
        Some(self)
    }
}

impl<R: Real> Formula<R> for IsoC {
    fn merge(&self, block: &mut Block<R>, _: &Facts) {
        blend::mean(block.out, block.inputs, &self.weight);
    }
}

impl<R: Real> Solve<R> for IsoC {
    fn solve(&self, vectors: &mut dyn TaskVectors<R>, workers: &Workers) -> Result<(Matrix<R>, Account)> {
        let mut sum = vectors.sum(&self.weight)?;
        let alike = |sigma: &[f64], rank: usize| {
            let mean = sigma[..rank].iter().sum::<f64>() / sigma.len().max(1) as f64;
            Sizes { kept: vec![mean; rank], rest: false }
        };
        let account = reshape(&mut sum, self.tolerance, vectors.noise(&self.weight), &alike, workers)?;
        Ok((sum, account))
    }
}

impl Spectral for IsoC {
    fn which(&self) -> Which {
        self.which
    }

    fn bytes(&self, shape: Shape, threads: u64) -> u64 {
        shape.bytes() + spectrum::bytes(shape.short(), threads)
    }
}
