//! Subspace Boosting: the small singular values of a merged task vector are raised to that one up to which a share β of their sum lies.
//!
//! Skorobogat et al. (2025), with the systematic study's β = 0.2 and its seven projections. Small β is strong: β = 0 makes all alike, β = 1
//! changes nothing. What lies below `rank_tol` is no direction and stays as it is.

use super::{Modifier, Reshape, Spec};
use crate::kernels::spectral::reshape::Sizes;
use crate::kernels::spectral::spectrum::Tolerance;
use crate::matrices::{self, Which, MATRICES, RANK_TOL};
use crate::params::{Default, Kind, Param, Params, PLAIN};

pub const SPEC: Spec = Spec {
    name: "boost",
    summary: "raises the small singular values of a merged task vector (Subspace Boosting)",
    formula: "σⱼ ← max(σⱼ, σⱼ*),  j* = the first j with (σ₀ + … + σⱼ) / Σσ ≥ β",
    paper:
        "Skorobogat et al., Subspace-Boosted Model Merging, 2025, arXiv:2506.16506; β and matrices: Hitit et al., 2025, arXiv:2511.21437",
    cost: "an m × n matrix, m ≤ n, in memory whole, and six of m × m in f64; about 4m²n + 9m³ operations in f64 for each",
    params: &[
        Param {
            name: "beta",
            kind: Kind::Number { min: 0.0, max: 1.0 },
            default: Default::Number(0.2),
            doc: "the share of the sum of singular values up to which they stay; 0 makes all alike, 1 changes nothing",
            ..PLAIN
        },
        Param { default: Default::Word("projections"), ..MATRICES },
        RANK_TOL,
    ],
    bind,
};

struct Boost {
    beta: f64,
    tolerance: Tolerance,
    which: Which,
}

fn bind(params: &Params) -> Modifier {
    let (tolerance, which) = (matrices::tolerance(params), matrices::which(params));
    Modifier::Reshape(Box::new(Boost { beta: params.number("beta"), tolerance, which }))
}

impl Reshape for Boost {
    fn which(&self) -> Which {
        self.which
    }

    fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    fn sizes(&self, sigma: &[f64], rank: usize) -> Sizes {
        let total: f64 = sigma.iter().sum();
        let mut sum = 0.0;
        let share = |x: &f64| {
            sum += x;
            sum / total >= self.beta
        };
        let least = sigma.iter().position(share).map_or(0.0, |j| sigma[j]);
        Sizes { kept: sigma[..rank].iter().map(|x| x.max(least)).collect(), rest: true }
    }
}
