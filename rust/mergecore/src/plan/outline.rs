//! Which output tensor comes from which input tensors? Names only: shapes and dtypes are the planner's.
//!
//! Whole models are matched by name. Slices stack ranges of layers: a layer's tensors are renumbered, and what lies outside the layers comes
//! from the first slice's sources (embeddings) or from the last's (final norm, head), as in mergekit. Modules are such pieces side by side.

use std::collections::{BTreeMap, BTreeSet};

use super::heads::Heads;
use super::parts::Modules;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::names::{self, Layer};
use crate::recipe::{Recipe, Slice};

/// One output tensor, and what it is called where it comes from.
pub struct Row {
    pub name: String,
    pub slice: usize,
    /// From 0 to 1 through the layers of its slice; 0 outside the layers (mergekit's rule, also for what comes after them).
    pub depth: f64,
    pub inputs: Vec<String>,
    pub base: String,
}

pub struct Outline {
    pub rows: Vec<Row>,
    /// Input tensors that are not in the output because of their names.
    pub ignored: Vec<String>,
}

/// Finds a model by its reference.
pub type Find<'f, 'a> = dyn Fn(&str) -> Result<&'f Checkpoint<'a>> + 'f;

/// What is wanted of a model's tensors.
pub struct Sieve<'s> {
    pub modules: &'s Modules<'s>,
    pub heads: &'s Heads,
    pub left: &'s dyn Fn(&Checkpoint, &str) -> bool,
    /// What was left, by name.
    pub ignored: BTreeSet<String>,
}

impl Sieve<'_> {
    /// Whether a tensor is the module's, and of the output.
    fn wants(&mut self, module: Option<usize>, model: &Checkpoint, name: &str) -> bool {
        if (self.left)(model, name) {
            self.ignored.insert(name.to_string());
            return false;
        }
        self.modules.takes(module, name) && !self.heads.drops(name)
    }
}

/// The recipe's pieces side by side.
pub fn of(recipe: &Recipe, find: &Find, onto: Option<&Checkpoint>, mut sieve: Sieve) -> Result<Outline> {
    let (mut rows, mut first) = (Vec::new(), 0);
    for slices in recipe.pieces() {
        let piece = match slices[0].is_range() {
            true => of_slices(recipe, slices, find, &mut sieve)?,
            false => of_models(recipe, &slices[0], find, onto, &mut sieve)?,
        };
        rows.extend(piece.into_iter().map(|row| Row { slice: first + row.slice, ..row }));
        first += slices.len();
    }
    Ok(Outline { rows, ignored: sieve.ignored.into_iter().collect() })
}

/// Whole models: every tensor of one is in all.
fn of_models(recipe: &Recipe, slice: &Slice, find: &Find, onto: Option<&Checkpoint>, sieve: &mut Sieve) -> Result<Vec<Row>> {
    let given = recipe.base.iter().chain(slice.sources.iter().map(|source| &source.model));
    let mut all = given.map(|model| find(model)).collect::<Result<Vec<_>>>()?;
    all.extend(onto);
    let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
    for model in &all {
        for name in model.tensors.keys().filter(|name| sieve.wants(slice.module, model, name)) {
            *holders.entry(name).or_default() += 1;
        }
    }
    for name in holders.iter().filter(|(_, count)| **count < all.len()).map(|(name, _)| *name) {
        let has = |model: &&&Checkpoint| model.tensors.contains_key(sieve.heads.source(model, name));
        let (Some(with), Some(without)) = (all.iter().find(has), all.iter().find(|model| !has(model))) else { continue };
        return Err(Error::model(format!(
            "tensor {name} is in {} and not in {}: are they fine-tunes of one model? (--ignore '{name}', in a recipe the key ignore, leaves it out)",
            with.reference, without.reference
        )));
    }
    let stacks = names::stacks(holders.keys().copied());
    let sources = slice.sources.len();
    let row = |name: &&str| Row {
        name: name.to_string(),
        slice: 0,
        depth: Layer::of(name).map_or(0.0, |layer| depth(layer.number, stacks[layer.stack])),
        inputs: vec![name.to_string(); sources],
        base: name.to_string(),
    };
    Ok(holders.keys().map(row).collect())
}

fn depth(layer: usize, layers: usize) -> f64 {
    if layers > 1 {
        layer as f64 / (layers - 1) as f64
    } else {
        1.0
    }
}

/// Stacked slices: each output layer is an input layer of every source.
fn of_slices(recipe: &Recipe, slices: &[Slice], find: &Find, sieve: &mut Sieve) -> Result<Vec<Row>> {
    let (mut rows, mut layers) = (Vec::new(), 0);
    let module = slices[0].module;
    let stack = stack_of(find(&slices[0].sources[0].model)?, |name| sieve.modules.takes(module, name))?;
    for (number, slice) in slices.iter().enumerate() {
        let ranges = ranges(recipe, slice, &stack, find)?;
        let (model, first, count) = ranges[0];
        for i in 0..count {
            for name in model.tensors.keys() {
                let Some(layer) = in_stack(model, name, &stack).filter(|layer| layer.number == first + i) else { continue };
                if sieve.wants(module, model, name) {
                    let in_each: Vec<String> = ranges.iter().map(|(_, first, _)| layer.renumbered(first + i)).collect();
                    rows.push(Row {
                        name: layer.renumbered(layers + i),
                        slice: number,
                        depth: depth(i, count),
                        base: in_each.last().expect("there is a source").clone(),
                        inputs: in_each[..slice.sources.len()].to_vec(),
                    });
                }
            }
            check_alike(&ranges, &stack, i)?;
        }
        layers += count;
    }
    for (number, before) in [(0, true), (slices.len() - 1, false)] {
        let slice = &slices[number];
        let model = find(&slice.sources[0].model)?;
        let outside = |name: &&String| in_stack(model, name, &stack).is_none() && names::before_layers(name) == before;
        for name in model.tensors.keys().filter(outside) {
            if sieve.wants(module, model, name) {
                let inputs = vec![name.clone(); slice.sources.len()];
                rows.push(Row { name: name.clone(), slice: number, depth: 0.0, inputs, base: name.clone() });
            }
        }
    }
    Ok(rows)
}

/// The layer that a tensor is of, but for what the first layer keeps for the whole stack: that stays where it is.
fn in_stack<'n>(model: &Checkpoint, name: &'n str, stack: &str) -> Option<Layer<'n>> {
    let kept = |layer: &Layer| names::kept_for_all(layer.rest) && !model.tensors.contains_key(&layer.renumbered(1));
    Layer::of(name).filter(|layer| layer.stack == stack && !kept(layer))
}

/// The one stack of numbered layers that slices are taken of.
fn stack_of(model: &Checkpoint, takes: impl Fn(&str) -> bool) -> Result<String> {
    let stacks = names::stacks(model.tensors.keys().map(String::as_str).filter(|name| takes(name)));
    match stacks.len() {
        1 => Ok(stacks.into_keys().next().unwrap_or_default().to_string()),
        0 => Err(Error::model(format!("{} has no numbered layers to take slices of; give models instead", model.reference))),
        _ => Err(Error::model(format!(
            "{} has several stacks of layers ({}), and a slice does not say of which: give modules, each with its slices or models",
            model.reference,
            stacks.into_keys().collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// For each source of a slice, and the base as the last if there is one: the model, its first layer, and how many.
fn ranges<'f, 'a>(recipe: &Recipe, slice: &Slice, stack: &str, find: &Find<'f, 'a>) -> Result<Vec<(&'f Checkpoint<'a>, usize, usize)>> {
    let sources = slice.sources.iter().map(|source| (&source.model, &source.layers));
    let sources = sources.chain(recipe.base.as_ref().map(|base| (base, &slice.base_layers)));
    let mut ranges = Vec::new();
    for (model, layers) in sources {
        let model = find(model)?;
        let has = names::stacks(model.tensors.keys().map(String::as_str)).get(stack).copied().unwrap_or(0);
        let layers = layers.clone().unwrap_or(0..has);
        if layers.end > has {
            return Err(Error::model(format!(
                "{} has {has} layers: the layer_range [{}, {}) goes beyond",
                model.reference, layers.start, layers.end
            )));
        }
        ranges.push((model, layers.start, layers.len()));
    }
    Ok(ranges)
}

/// The i-th layers of a slice's sources have the same tensors.
fn check_alike(ranges: &[(&Checkpoint, usize, usize)], stack: &str, i: usize) -> Result<()> {
    let tensors = |(model, first, _): &(&Checkpoint, usize, usize)| -> BTreeSet<String> {
        let layers = model.tensors.keys().filter_map(|name| in_stack(model, name, stack));
        layers.filter(|layer| layer.number == first + i).map(|layer| layer.rest.to_string()).collect()
    };
    let first = tensors(&ranges[0]);
    for range in &ranges[1..] {
        if let Some(rest) = first.symmetric_difference(&tensors(range)).next() {
            return Err(Error::model(format!(
                "tensor {rest} is in only one of layer {} of {} and layer {} of {}: a slice's sources must be of one architecture",
                ranges[0].1 + i,
                ranges[0].0.reference,
                range.1 + i,
                range.0.reference
            )));
        }
    }
    Ok(())
}
