//! The same length as another method's: what is left of a comparison when none of its methods takes the longer step.
//!
//! Methods differ by up to twelve times in ‖Δ‖ on the same models (a sum or a mean, boosted or not), and a longer step alone moves a model
//! further from its base. Scaled to one norm, they differ in direction only; λ then scales all of them.

use super::{Modifier, Spec};
use crate::methods::Scope;
use crate::params::{Default, Kind, Param, Params, PLAIN, SCOPE};

pub const SPEC: Spec = Spec {
    name: "match_norm",
    summary: "scales a merged task vector to the norm that another method's has on the same models",
    formula: "Δ ← Δ ‖Δ'‖ / ‖Δ‖,  Δ' = what the method `to` makes of the same models, its λ included",
    paper: "mergecore; the comparison without it: Hitit et al., 2025, arXiv:2511.21437, figure 4",
    cost: "two more passes over the inputs, to measure the other method and this one, which is computed twice; one for matrices with scope: tensor",
    params: &[
        Param { name: "to", kind: Kind::Method, default: Default::Required, doc: "the method whose norm it is to have", ..PLAIN },
        Param { doc: "whether each tensor has its norm, or the whole model", ..SCOPE },
        Param { name: "parameters", kind: Kind::Mapping, default: Default::Empty, doc: "that method's parameters", ..PLAIN },
    ],
    bind,
};

fn bind(params: &Params) -> Modifier {
    Modifier::MatchNorm(if params.word("scope") == "model" { Scope::Model } else { Scope::Tensor })
}
