//! The merge methods: one file each, and the only list of them.
//!
//! **To add a method**: write `methods/<name>.rs` with a `SPEC` and an `impl Formula`, add its line to `METHODS` below, and its NumPy
//! rendering to `tests/naive.py`. Recipes, the command line, `mergecore methods`, the Python function, the laws and the benches read
//! the registry.
//!
//! A method is bound once, before any file is opened. For each tensor it may first ask for facts (`need`): sums over all elements, or the
//! cutoff of the k largest magnitudes; the engine makes the pass and asks again until nothing is needed. Then it merges, block by block.
//! It never sees files, threads or other tensors, so a 500M-element embedding is spread over the cores exactly like a bias.

use serde_json::{json, Value as Json};

use crate::dtype::Real;
use crate::error::{did_you_mean, Error, Result};
use crate::kernels::cutoff::Cutoff;
use crate::matrices::Spectral;
use crate::params::{Param, Params};

mod arcee_fusion;
mod breadcrumbs;
mod breadcrumbs_ties;
mod dare_linear;
mod dare_ties;
mod della;
mod della_linear;
mod iso_c;
mod iso_cts;
mod karcher;
mod linear;
mod model_stock;
mod multislerp;
mod nearswap;
mod nuslerp;
mod passthrough;
mod ram;
mod ramplus_tl;
mod sce;
mod slerp;
mod task_arithmetic;
mod ties;
mod tsv;

/// The registry. Everything that lists methods lists these.
pub static METHODS: &[&Spec] = &[
    &linear::SPEC,
    &slerp::SPEC,
    &nuslerp::SPEC,
    &multislerp::SPEC,
    &karcher::SPEC,
    &task_arithmetic::SPEC,
    &ties::SPEC,
    &dare_linear::SPEC,
    &dare_ties::SPEC,
    &della::SPEC,
    &della_linear::SPEC,
    &breadcrumbs::SPEC,
    &breadcrumbs_ties::SPEC,
    &sce::SPEC,
    &model_stock::SPEC,
    &tsv::SPEC,
    &iso_c::SPEC,
    &iso_cts::SPEC,
    &ram::SPEC,
    &ramplus_tl::SPEC,
    &nearswap::SPEC,
    &arcee_fusion::SPEC,
    &passthrough::SPEC,
];

/// A method as the world sees it.
pub struct Spec {
    pub name: &'static str,
    /// One sentence for lists.
    pub summary: &'static str,
    pub formula: &'static str,
    pub paper: &'static str,
    /// What it takes beyond reading every input once and writing the output once.
    pub cost: &'static str,
    pub base: Base,
    /// How many models it merges, the base not counted: at least, at most.
    pub models: (usize, usize),
    pub params: &'static [Param],
    /// mergekit keys that have no effect there either: accepted with a warning.
    pub idle: &'static [&'static str],
    /// The order of the models does not matter, but for rounding.
    pub order_free: bool,
    pub bind: fn(&Params) -> Result<Box<dyn Method>>,
}

/// What a method does with a base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// It merges task vectors, model − base, and adds the result to the base (or to `onto`).
    Required,
    /// It merges task vectors if a base is given, else weights.
    Optional,
    /// It merges weights; a base that is given is one more input.
    Joins,
    /// It merges the weights of two ends; a base that is given is the first.
    First,
}

/// A bound method.
pub trait Method: Formula<f32> + Formula<f64> {
    /// Whether facts are taken of each tensor by itself or of the whole model.
    fn scope(&self) -> Scope {
        Scope::Tensor
    }

    /// What must lie in one block.
    fn grain(&self) -> Grain {
        Grain::Element
    }

    /// Whether all cutoffs are of one and the same values: those of `which` 0, which are then computed once.
    fn ranks_one(&self) -> bool {
        false
    }

    /// Whether it leaves the models' rows of a block as they are, so that the next merge of the same models finds them there.
    fn keeps(&self) -> bool {
        false
    }

    /// How matrices are merged, where that is another formula than that of other tensors.
    fn spectral(&self) -> Option<&(dyn Spectral + 'static)> {
        None
    }

    /// What must be known before merging, beyond `facts`, of a tensor (or model) with so many elements.
    fn need(&self, _facts: &Facts, _elements: u64) -> Need {
        Need::Nothing
    }
}

/// Blocks are cut so that a method sees what it needs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Anywhere.
    Element,
    /// Between vectors along the last axis.
    Row,
    /// Nowhere: a tensor is one block, in memory whole.
    Tensor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Tensor,
    Model,
}

/// A pass over the inputs that a method asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// So many sums over all elements, by `Formula::sums`; they are appended to `Facts::sums`.
    Sums(usize),
    /// For each entry the cutoff of so many largest magnitudes, by `Formula::magnitudes`; they are appended to `Facts::cutoffs`.
    Largest(Vec<u64>),
}

impl Need {
    /// `count` sums, unless they are known already.
    pub fn sums(count: usize, facts: &Facts) -> Need {
        if facts.sums.len() < count {
            Need::Sums(count)
        } else {
            Need::Nothing
        }
    }
}

/// What is known of a tensor (or model) before it is merged, in the order in which it was asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub sums: Vec<f64>,
    pub cutoffs: Vec<Cutoff>,
}

/// The arithmetic, written once for f32 and f64.
pub trait Formula<R: Real>: Send + Sync {
    /// This block's share of the sums asked for. The block is the method's to overwrite.
    fn sums(&self, _block: &mut Block<R>, _facts: &Facts, _sums: &mut [f64]) {
        unreachable!("a method that needs sums says how")
    }

    /// The block's values whose largest magnitudes were asked for, number `which` of them.
    fn magnitudes<'b>(&self, _block: &'b mut Block<R>, _facts: &Facts, _which: usize) -> &'b [R] {
        unreachable!("a method that needs a cutoff says of what")
    }

    /// Merges the block into `block.out`.
    fn merge(&self, block: &mut Block<R>, facts: &Facts);
}

/// A piece of one tensor, the same piece of every model.
pub struct Block<'a, R> {
    /// The output tensor's name ("" in memory unless one is given).
    pub name: &'a str,
    pub seed: u64,
    /// Its number in the tensor (in the model, for `Scope::Model`), which `Cutoff::trim` wants.
    pub number: usize,
    /// The index of its first element in the tensor.
    pub first: u64,
    /// The tensor's axes.
    pub shape: &'a [u64],
    /// The length of the tensor's last axis; 1 for a tensor without axes.
    pub row: usize,
    /// The base's values, where there is one.
    pub base: Option<&'a [R]>,
    /// Task vectors where there is a base, else weights; one row a model, all of equal length. Free to overwrite.
    pub inputs: &'a mut [Vec<R>],
    pub out: &'a mut [R],
}

/// The method of that name; hyphens and capitals are forgiven.
pub fn find(name: &str) -> Result<&'static Spec> {
    let wanted = name.to_lowercase().replace('-', "_");
    METHODS.iter().copied().find(|spec| spec.name == wanted).ok_or_else(|| {
        let near = did_you_mean(&wanted, METHODS.iter().map(|spec| spec.name));
        Error::recipe(format!("unknown method \"{name}\"{near} (`mergecore methods` lists them)"))
    })
}

impl Spec {
    pub fn json(&self) -> Json {
        let base = match self.base {
            Base::Required => "required",
            Base::Optional => "optional",
            Base::Joins => "joins",
            Base::First => "first",
        };
        let (least, most) = self.models;
        json!({
            "name": self.name, "summary": self.summary, "formula": self.formula, "paper": self.paper, "cost": self.cost, "base": base,
            "min_models": least, "max_models": if most == usize::MAX { Json::Null } else { json!(most) },
            "params": self.params.iter().map(Param::json).collect::<Vec<_>>(),
            "laws": {"order_free": self.order_free},
        })
    }
}
