//! Do the models fit together? Whatever does not is refused by name, before the first byte is written.

use std::collections::BTreeSet;

use super::heads::Heads;
use super::outline::{Find, Row};
use super::Origin;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::names::{self, Layer};
use crate::recipe::Recipe;

/// A tensor, whose it is, and what it is called there.
pub struct Input<'f, 'a> {
    pub model: &'f Checkpoint<'a>,
    pub name: String,
    pub tensor: &'f Tensor<'a>,
}

impl Input<'_, '_> {
    pub fn origin(&self) -> Origin {
        Origin { model: self.model.reference.clone(), tensor: self.name.clone() }
    }
}

/// What an output tensor is made of.
pub struct Inputs<'f, 'a> {
    pub base: Option<Input<'f, 'a>>,
    pub models: Vec<Input<'f, 'a>>,
    pub onto: Option<Input<'f, 'a>>,
}

impl<'f, 'a> Inputs<'f, 'a> {
    pub fn of(row: &Row, recipe: &Recipe, find: &Find<'f, 'a>, onto: Option<&'f Checkpoint<'a>>, heads: &Heads) -> Result<Self> {
        let input = |model: &'f Checkpoint<'a>, name: &str| {
            let name = heads.source(model, name);
            Ok(Input { model, name: name.to_string(), tensor: model.tensor(name)? })
        };
        let sources = recipe.slices[row.slice].sources.iter().zip(&row.inputs);
        Ok(Inputs {
            base: recipe.base.as_deref().map(|base| input(find(base)?, &row.base)).transpose()?,
            models: sources.map(|(source, name)| input(find(&source.model)?, name)).collect::<Result<_>>()?,
            onto: onto.map(|onto| input(onto, &row.name)).transpose()?,
        })
    }

    pub fn each(&self) -> impl Iterator<Item = &Input<'f, 'a>> {
        self.base.iter().chain(&self.models).chain(&self.onto)
    }

    /// Whose dtype and place in the files count: the base's (also one that is among the models), else the first model's.
    pub fn reference(&self, joined: Option<&str>) -> &Input<'f, 'a> {
        let joined = self.models.iter().find(|input| Some(input.model.reference.as_str()) == joined);
        self.base.as_ref().or(joined).unwrap_or(&self.models[0])
    }
}

pub fn check_shapes(name: &str, first: &Input, other: &Input) -> Result<()> {
    if other.tensor.shape != first.tensor.shape {
        return Err(misfit(name, &first.tensor.shape, first.model, &other.tensor.shape, other.model));
    }
    if other.tensor.dtype != first.tensor.dtype && !(other.tensor.dtype.is_float() && first.tensor.dtype.is_float()) {
        let (a, b) = (first.tensor.dtype.name(), other.tensor.dtype.name());
        return Err(Error::model(format!(
            "{} is {a} in {} and {b} in {}: only floating-point types can be mixed",
            names::called(name),
            first.model.reference,
            other.model.reference
        )));
    }
    Ok(())
}

pub fn check_equal(name: &str, first: &Input, other: &Input) -> Result<()> {
    if other.tensor.same_as(first.tensor)? {
        return Ok(());
    }
    let dtype = first.tensor.dtype.name();
    Err(Error::model(format!(
        "tensor {name} ({dtype}) differs between {} and {}, and only equal {dtype} tensors can be copied: --ignore {name} leaves it out",
        first.model.reference, other.model.reference
    )))
}

/// Every pattern matches something, and no layer is left out in the middle: loaders would make one up.
pub fn check_ignored(recipe: &Recipe, all: &[&Checkpoint], rows: &[Row]) -> Result<()> {
    for glob in &recipe.ignore {
        if !all.iter().any(|model| model.tensors.keys().any(|name| names::glob(glob, name))) {
            return Err(Error::recipe(format!("ignore: \"{glob}\" matches no tensor (`mergecore show MODEL --tensors` lists them)")));
        }
    }
    let layers = |names: &mut dyn Iterator<Item = &String>| -> BTreeSet<(String, usize)> {
        names.filter_map(|name| Layer::of(name)).map(|layer| (layer.stack.to_string(), layer.number)).collect()
    };
    let (there, left) = (layers(&mut all[0].tensors.keys()), layers(&mut rows.iter().map(|row| &row.name)));
    let gap = there.difference(&left).find(|(stack, number)| left.iter().any(|(other, later)| other == stack && later > number));
    match gap.filter(|_| !recipe.ignore.is_empty() && !recipe.is_sliced()) {
        Some((stack, number)) => Err(Error::recipe(format!(
            "ignore leaves a gap at {stack}.{number}, which loaders would fill with random weights: a recipe with slices takes layers out"
        ))),
        None => Ok(()),
    }
}

/// A donor that is no input gives its config to weights that it has not seen: they must be of its architecture and size.
/// Where slices decide how many layers there are, one stands for all.
pub fn check_donor(donor: &Checkpoint, recipe: &Recipe, find: &Find, rows: &[Row], asked: &dyn Fn(&str) -> bool) -> Result<()> {
    let refuse = |what: String, reference: &str| {
        let donor = &donor.reference;
        Err(Error::model(format!("the donor {donor} does not fit: {what} in {reference}; choose another --donor, or leave it out")))
    };
    // Further names of an embedding may be left out, or come from those who have them.
    let same_in_all = |name: &str| !names::is_head(name) && names::shared_embedding(name).is_none();
    let compared = |name: &str| same_in_all(name) && (!recipe.is_sliced() || Layer::of(name).is_none_or(|layer| layer.number == 0));
    let mut merged = BTreeSet::new();
    for row in rows.iter().filter(|row| compared(&row.name)) {
        // That all its sources have one shape is known by now.
        let (reference, there) = match &recipe.base {
            Some(base) => (base, &row.base),
            None => (&recipe.slices[row.slice].sources[0].model, &row.inputs[0]),
        };
        let (name, shape) = (&row.name, &find(reference)?.tensor(there)?.shape);
        match donor.tensors.get(name) {
            None => return refuse(format!("it has no tensor {name}, which is"), reference),
            Some(tensor) if tensor.shape != *shape => {
                return refuse(format!("tensor {name} has shape {:?} there and {shape:?}", tensor.shape), reference);
            }
            Some(_) => merged.insert(name),
        };
    }
    let known = |name: &String| merged.contains(name) || asked(name) || !compared(name);
    match donor.tensors.iter().find(|(name, tensor)| !known(name) && !names::derived(name, &tensor.shape)) {
        Some((name, _)) => refuse(format!("it has a tensor {name}, which is not"), recipe.reference()),
        None => Ok(()),
    }
}

fn misfit(name: &str, a: &[u64], first: &Checkpoint, b: &[u64], second: &Checkpoint) -> Error {
    let way_out = if names::over_vocabulary(name) && a.len() == b.len() && a[1..] == b[1..] {
        "; their vocabularies differ: align them with --tokenizer-source union (recipe key tokenizer_source)"
    } else {
        "; only models of one architecture and size can be merged"
    };
    let tensor = names::called(name);
    Error::model(format!("{tensor} has shape {a:?} in {} and {b:?} in {}{way_out}", first.reference, second.reference))
}
