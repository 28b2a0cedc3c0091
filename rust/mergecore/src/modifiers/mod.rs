//! What acts on any method's merged task vector, before λ: one file each, and the only list of them.
//!
//! **To add a modifier**: write `modifiers/<name>.rs` with a `SPEC`, and add its line to `MODIFIERS`. A modifier gives a matrix's singular
//! values other sizes, or scales the whole by what another method would have made.

use serde_json::{json, Value as Json};

use crate::error::{did_you_mean, Error, Result};
use crate::kernels::spectral::reshape::Sizes;
use crate::kernels::spectral::spectrum::Tolerance;
use crate::matrices::Which;
use crate::methods::{Base, Scope, METHODS};
use crate::params::{Kind, Param, Params};

mod boost;
mod match_norm;

/// The registry.
pub static MODIFIERS: &[&Spec] = &[&boost::SPEC, &match_norm::SPEC];

/// A modifier as the world sees it.
pub struct Spec {
    pub name: &'static str,
    pub summary: &'static str,
    pub formula: &'static str,
    pub paper: &'static str,
    pub cost: &'static str,
    pub params: &'static [Param],
    pub bind: fn(&Params) -> Modifier,
}

/// A bound modifier.
pub enum Modifier {
    Reshape(Box<dyn Reshape>),
    /// Δ ← Δ ‖Δ'‖ / ‖Δ‖, where Δ' is what the method of the recipe's `to` makes; over a tensor or the whole model.
    MatchNorm(Scope),
}

/// Gives singular values other sizes.
pub trait Reshape: Send + Sync {
    fn which(&self) -> Which;
    fn tolerance(&self) -> Tolerance;
    /// Of all singular values, of which the first `rank` are not below the floor.
    fn sizes(&self, sigma: &[f64], rank: usize) -> Sizes;
}

/// The modifier of that name; hyphens and capitals are forgiven.
pub fn find(name: &str) -> Result<&'static Spec> {
    let wanted = name.to_lowercase().replace('-', "_");
    MODIFIERS.iter().copied().find(|spec| spec.name == wanted).ok_or_else(|| {
        let names = MODIFIERS.iter().map(|spec| spec.name);
        let near = did_you_mean(&wanted, names.clone());
        Error::recipe(format!("unknown modifier \"{name}\"{near} (known: {})", names.collect::<Vec<_>>().join(", ")))
    })
}

impl Spec {
    pub fn json(&self) -> Json {
        let param = |param: &Param| {
            let mut json = param.json();
            if let Kind::Method = param.kind {
                let vectors = METHODS.iter().filter(|spec| matches!(spec.base, Base::Required | Base::Optional));
                json["choices"] = vectors.map(|spec| spec.name).collect();
            }
            json
        };
        json!({
            "name": self.name, "summary": self.summary, "formula": self.formula, "paper": self.paper, "cost": self.cost,
            "params": self.params.iter().map(param).collect::<Vec<_>>(),
        })
    }
}
