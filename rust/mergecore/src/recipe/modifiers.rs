//! What is done to the merged task vector?
//!
//! `modifiers:` is a list, in the order in which they act: `[{boost: {beta: 0.2}}, {match_norm: {to: task_arithmetic}}]`.

use serde_json::{json, Map, Value as Json};

use crate::error::{Error, Result};
use crate::methods::{self, Base};
use crate::modifiers::{self, Spec};
use crate::params::{self, Default, Param, Params};

/// A modifier with all its parameters.
#[derive(Clone)]
pub struct Modifier {
    pub spec: &'static Spec,
    pub params: Params,
}

impl Modifier {
    /// The method whose norm is matched, and its parameters as they were given.
    pub fn other(&self) -> Option<(&'static methods::Spec, Map<String, Json>)> {
        if !self.params.has("to") {
            return None;
        }
        let spec = methods::find(self.params.text("to")).expect("it was checked");
        Some((spec, self.params.mapping("parameters")))
    }

    /// The parameters of the other method for so many models.
    pub fn params_of_other(&self, models: &[&str]) -> Result<Option<(&'static methods::Spec, Params)>> {
        let Some((spec, said)) = self.other() else { return Ok(None) };
        let of_model = |name: &str, model: Option<usize>| match (said.get(name)?, model) {
            (Json::Array(list), Some(model)) => list.get(model).cloned(),
            (one, _) => Some(one.clone()),
        };
        Params::complete(spec.params, models, &of_model, false).map(|params| Some((spec, params)))
    }

    /// As a recipe has it, with every default; the slices have so many models.
    pub(super) fn json(&self, models: &[usize]) -> Json {
        let mut said = self.params.json();
        if let Some((spec, mut parameters)) = self.other() {
            // A share of models is not one value where the slices have different numbers of them.
            let tells = |param: &&Param| models.iter().all(|count| *count == models[0]) || !matches!(param.default, Default::Share);
            for param in spec.params.iter().filter(tells) {
                parameters.entry(param.name).or_insert_with(|| param.default_for(false, models[0]));
            }
            said["parameters"] = Json::Object(parameters);
        }
        json!({self.spec.name: said})
    }

    /// What the other method has against these models.
    pub(super) fn check(&self, models: &[&str]) -> Result<()> {
        let Some((spec, said)) = self.other() else { return Ok(()) };
        if !matches!(spec.base, Base::Required | Base::Optional) {
            let name = spec.name;
            return Err(Error::recipe(format!("match_norm: {name} merges weights, so that it has no task vector: name a method that has")));
        }
        if models.len() < spec.models.0 || models.len() > spec.models.1 {
            let (name, count, (least, most)) = (spec.name, models.len(), spec.models);
            let range = if least == most {
                format!("{least}")
            } else if most == usize::MAX {
                format!("{least} or more")
            } else {
                format!("{least} to {most}")
            };
            return Err(Error::recipe(format!(
                "match_norm: {name} merges {range} models beside the base, not {count}: name another method"
            )));
        }
        let within = |e: Error| Error::new(e.kind, format!("match_norm: {}", e.message));
        let known = |(name, value): (&String, &Json)| match value {
            Json::Array(list) if spec.params.iter().any(|param| param.name == name && param.per_model) => match list.len() {
                count if count == models.len() => params::check(spec.name, spec.params, name, None, &list.iter().collect::<Vec<_>>()),
                count => {
                    Err(Error::recipe(format!("{name} has {count} values for {} models: give one each, or one for all", models.len())))
                }
            },
            value => params::check(spec.name, spec.params, name, None, &[value]),
        };
        said.iter().try_for_each(known).map_err(within)?;
        match self.params_of_other(models)? {
            Some((spec, params)) => (spec.bind)(&params).map(drop).map_err(within),
            None => Ok(()),
        }
    }
}

/// Reads the key: a list of names and of mappings with one key each, or one of them.
pub(super) fn read(json: Option<&Json>) -> Result<Vec<Modifier>> {
    let wrong =
        |json: &Json| Error::recipe(format!("modifiers is a list like [{{boost: {{beta: 0.2}}}}], and {json} is none of its entries"));
    let mut found: Vec<Modifier> = Vec::new();
    let entries = match json {
        None => Vec::new(),
        Some(Json::Array(list)) => list.iter().collect(),
        Some(one) => vec![one],
    };
    for entry in entries {
        let (name, mut said) = match entry {
            Json::String(name) => (name, Map::new()),
            Json::Object(entry) if entry.len() == 1 => match entry.iter().next().expect("there is one") {
                (name, Json::Null) => (name, Map::new()),
                (name, Json::Object(said)) => (name, said.clone().into_iter().filter(|(_, value)| !value.is_null()).collect()),
                _ => return Err(wrong(&json!(entry))),
            },
            _ => return Err(wrong(entry)),
        };
        let spec = modifiers::find(name)?;
        if found.iter().any(|other| std::ptr::eq(other.spec, spec)) {
            return Err(Error::recipe(format!("the modifier {} is given twice: once is enough", spec.name)));
        }
        let within = |e: Error| Error::new(e.kind, format!("{}: {}", spec.name, e.message));
        let known = |(name, value): (&String, &Json)| match spec.params.iter().any(|param| param.name == name) {
            true => params::check(spec.name, spec.params, name, None, &[value]).map_err(within),
            false => params::check(spec.name, spec.params, name, None, &[value]),
        };
        said.iter().try_for_each(known)?;
        if let Some(to) = said.get("to").and_then(Json::as_str) {
            // Spelled as the registry does.
            let to = methods::find(to).map_err(within)?.name;
            said.insert("to".into(), json!(to));
        }
        let params = Params::complete(spec.params, &[], &|name, _| said.get(name).cloned(), false).map_err(within)?;
        found.push(Modifier { spec, params });
    }
    Ok(found)
}
