//! Isotropic merging in common and task-specific subspaces: the leading directions of the sum, and of each task vector beyond them.
//!
//! Marczak et al. (ICML 2025). The sum's first c singular vectors are common to all; each task adds the first (r − c) / N of what its task
//! vector has outside their span (of the rows' side, whichever axis is longer). Brought to right angles, they all get the mean of their
//! singular values. (r − c) / N is rounded half to even, as Python's `round` does.

use super::{Base, Block, Facts, Formula, Method, Spec};
use crate::dtype::Real;
use crate::error::Result;
use crate::kernels::blend;
use crate::kernels::spectral::matrix::Matrix;
use crate::kernels::spectral::reshape::Account;
use crate::kernels::spectral::spectrum::{self, Tolerance};
use crate::kernels::spectral::stack::{self, Floor, Stack};
use crate::kernels::spectral::workers::Workers;
use crate::matrices::{self, Shape, Solve, Spectral, TaskVectors, Which, MATRICES, RANK_TOL};
use crate::params::{Default, Kind, Param, Params, LAMBDA, PLAIN, SUMMED};

pub const SPEC: Spec = Spec {
    name: "iso_cts",
    summary: "the sum's leading directions and each task vector's own beyond them, decorrelated, with all singular values alike",
    formula: "Δ = λ σ̄ U⊥ V⊥ᵀ,  U⊥ = polar([U_c U₁ … U_N]), V⊥ alike, σ̄ = the mean of their singular values;  U_c, V_c: the first c of \
              A = Σ wᵢδᵢ;  Uᵢ, Vᵢ: the first k of (I − U_c U_cᵀ) wᵢδᵢ;  k = round((r − int(f r)) / N), c = r − N k, r = min(m, n);  \
              tensors that are no matrices: λ A / N",
    paper: "Marczak et al., No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces, ICML 2025, arXiv:2502.04959",
    cost: "an m × n matrix, m ≤ n, in memory once and twice in f64, and twelve of m × m in f64; about (N + 4)(3m²n + 9m³) operations in f64 for each",
    base: Base::Required,
    models: (1, usize::MAX),
    params: &[
        SUMMED,
        LAMBDA,
        Param {
            name: "common_space_fraction",
            kind: Kind::Number { min: 0.0, max: 1.0 },
            default: Default::Number(0.8),
            doc: "how much of the singular vectors are those of the sum, f",
            ..PLAIN
        },
        MATRICES,
        RANK_TOL,
    ],
    idle: &[],
    order_free: true,
    bind,
};

struct IsoCts {
    weight: Vec<f64>,
    fraction: f64,
    tolerance: Tolerance,
    which: Which,
}

fn bind(params: &Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(IsoCts {
        weight: params.each("weight"),
        fraction: params.number("common_space_fraction"),
        tolerance: matrices::tolerance(params),
        which: matrices::which(params),
    }))
}

impl IsoCts {
    /// How many of `r` singular vectors each task has.
    fn own(&self, r: usize) -> usize {
        let models = self.weight.len();
        let rest = r - (self.fraction * r as f64) as usize;
        let own = (rest as f64 / models as f64).round_ties_even() as usize;
        // Rounded up, they may be more than there are: few singular values, many models, little in common.
        own.min(r / models)
    }
}

impl Method for IsoCts {
    fn spectral(&self) -> Option<&(dyn Spectral + 'static)> {
        Some(self)
    }
}

impl<R: Real> Formula<R> for IsoCts {
    fn merge(&self, block: &mut Block<R>, _: &Facts) {
        blend::mean(block.out, block.inputs, &self.weight);
    }
}

impl<R: Real> Solve<R> for IsoCts {
    fn solve(&self, vectors: &mut dyn TaskVectors<R>, workers: &Workers) -> Result<(Matrix<R>, Account)> {
        let models = self.weight.len();
        let sum = vectors.sum(&self.weight)?;
        let own = self.own(sum.short);
        let common = sum.short - models * own;
        let (mut stack, [rows, columns]) = (Stack::like(&sum), sum.shape());
        // Rounding has moved the common directions, too: what it makes of the sum is in what is left of each task vector.
        let floor = Floor { tolerance: self.tolerance, noise: vectors.noise(&self.weight), left_of: None };
        stack.push(&sum, common, floor, workers)?;
        drop(sum);
        for model in (0..models).filter(|_| own > 0) {
            let mut rest = vectors.sum(&matrices::alone(&self.weight, model))?.wide();
            // What is left of a task vector that lies in the common space is rounding, however large beside itself.
            let largest = spectrum::largest(&rest, workers)?;
            stack.leave_out(&mut rest, common, workers)?;
            stack.push(&rest, own, Floor { left_of: Some(largest), ..floor }, workers)?;
        }
        let mut out = Matrix::new(rows, columns, vec![R::ZERO; rows * columns]);
        let mean = stack.sigma.iter().sum::<f64>() / out.short.max(1) as f64;
        let account = stack.merge(&mut out, Some(mean), self.tolerance, workers)?;
        Ok((out, account))
    }
}

impl Spectral for IsoCts {
    fn which(&self) -> Which {
        self.which
    }

    fn bytes(&self, shape: Shape, threads: u64) -> u64 {
        // A task vector as it was read and in f64, and the projector.
        let (m, n) = (shape.short(), shape.long());
        shape.bytes() + 8 * m * n + 8 * m * m + stack::bytes(m, n, threads)
    }
}
