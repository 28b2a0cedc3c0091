//! Which parts of a model are merged each in its own way?
//!
//! `modules:` names parts of models that have several (a text decoder, a vision tower), each with models or slices of its own. What a name
//! stands for is read off the tensors' names, by the plan.

use serde_json::{json, Map, Value as Json};

use super::setting::{settings, Settings};
use super::slices::{self, known, raw, Slice};
use super::{mapping, text_of};
use crate::error::{Error, Result};

/// A part of the model, and the parameters that hold in it.
#[derive(Debug, Clone)]
pub struct Module {
    pub name: String,
    pub(super) settings: Settings,
}

/// Reads `models`, `slices` or `modules`: the modules, if there are any, and all slices, module by module.
pub fn read(keys: &Map<String, Json>) -> Result<(Vec<Module>, Vec<Slice>)> {
    let (mut modules, mut slices) = (Vec::new(), Vec::new());
    match keys.get("modules") {
        None => slices = slices::read(keys, "the recipe")?,
        Some(_) if keys.contains_key("models") || keys.contains_key("slices") => {
            let other = if keys.contains_key("models") { "models" } else { "slices" };
            return Err(Error::recipe(format!("the recipe has modules and {other}: give one of them")));
        }
        Some(Json::Object(named)) if !named.is_empty() => {
            for (name, json) in named {
                let whose = format!("the module {name}");
                let Json::Object(entry) = json else {
                    return Err(Error::recipe(format!("{whose} must be a mapping like {{models: [a, b]}}, not {json}")));
                };
                known(entry, &whose, &["models", "slices", "parameters"])?;
                let said: Map<String, Json> = entry.clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
                let mut own = slices::read(&said, &whose)?;
                own.iter_mut().for_each(|slice| slice.module = Some(modules.len()));
                slices.extend(own);
                modules.push(Module { name: name.clone(), settings: settings(&mapping(&said, "parameters")?)? });
            }
        }
        Some(_) => return Err(Error::recipe("modules is a mapping of parts of the model, like {text_decoder: {models: [a, b]}}")),
    }
    slices::check_bases(&slices, text_of(keys, "base_model")?)?;
    Ok((modules, slices))
}

impl Module {
    /// As a recipe has it. `slices` are its own, spelled out.
    pub(super) fn spelled_out(&self, slices: Json, sliced: bool) -> Json {
        let (key, list) = under_key(slices, sliced);
        json!({key: list, "parameters": raw(&self.settings)})
    }
}

/// Slices, spelled out, and the key that they are given with.
pub(super) fn under_key(mut slices: Json, sliced: bool) -> (&'static str, Json) {
    match sliced {
        true => ("slices", slices),
        false => ("models", slices[0]["sources"].take()),
    }
}
