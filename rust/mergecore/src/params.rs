//! What may a method be told?
//!
//! A method declares its parameters as data; recipes, the command line, the Python functions and the documentation are read off that.
//! Values are checked and completed here, before any file is opened; a method's `bind` sees only complete, valid values.

use std::collections::BTreeMap;

use serde_json::{json, Map, Value as Json};

use crate::error::{did_you_mean, Error, Result};

/// One parameter of a method.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    pub name: &'static str,
    /// One value for each model, rather than one for the merge.
    pub per_model: bool,
    pub kind: Kind,
    pub default: Default,
    /// The default where a recipe file says nothing, if mergekit's differs from ours.
    pub file_default: Option<Default>,
    pub doc: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A finite number between two bounds.
    Number {
        min: f64,
        max: f64,
    },
    /// A finite number between two bounds, or one of some words.
    NumberOr {
        min: f64,
        max: f64,
        words: &'static [&'static str],
    },
    /// A whole number between two bounds.
    Whole {
        min: f64,
        max: f64,
    },
    Flag,
    /// One of some words. `flags` says what true and false stand for, where they are allowed.
    Word {
        words: &'static [&'static str],
        flags: Option<(&'static str, &'static str)>,
    },
    /// The name of a method.
    Method,
    /// Names and values.
    Mapping,
}

#[derive(Debug, Clone, Copy)]
pub enum Default {
    Number(f64),
    /// 1/N for N models.
    Share,
    Flag(bool),
    Word(&'static str),
    /// No names and values.
    Empty,
    /// It must be given.
    Required,
}

pub const ANY: Kind = Kind::Number { min: f64::NEG_INFINITY, max: f64::INFINITY };
const FRACTION: Kind = Kind::Number { min: 0.0, max: 1.0 };

/// What a parameter is unless it says otherwise.
pub const PLAIN: Param = Param { name: "", per_model: false, kind: ANY, default: Default::Number(1.0), file_default: None, doc: "" };

// The parameters that several methods share. `..` in a method's list changes a default, never a meaning.
pub const WEIGHT: Param = Param {
    name: "weight",
    per_model: true,
    default: Default::Share,
    doc: "how much of each model goes in; 1/N each if left out, which makes the merge a mean",
    ..PLAIN
};
/// The weights of methods that sum over models.
pub const SUMMED: Param = Param {
    default: Default::Number(1.0),
    doc: "how much of each model goes in: its task vector is scaled by it before all else",
    ..WEIGHT
};
pub const LAMBDA: Param = Param { name: "lambda", doc: "scales the merged task vector before it is added", ..PLAIN };
pub const NORMALIZE: Param =
    Param { name: "normalize", kind: Kind::Flag, default: Default::Flag(false), doc: "divide by the sum of the weights", ..PLAIN };
pub const DENSITY: Param = Param {
    name: "density",
    per_model: true,
    kind: FRACTION,
    file_default: Some(Default::Number(1.0)),
    doc: "fraction of each task vector that is kept",
    ..PLAIN
};
pub const GAMMA: Param = Param {
    name: "gamma",
    per_model: true,
    kind: FRACTION,
    default: Default::Number(0.01),
    doc: "fraction of each task vector that is dropped as outliers, the largest",
    ..PLAIN
};
pub const EPSILON: Param = Param {
    name: "epsilon",
    per_model: true,
    kind: Kind::Number { min: 0.0, max: 0.5 },
    default: Default::Number(0.15),
    doc: "how far the smallest and the largest element of a row are from density in their probability of being kept",
    ..PLAIN
};
pub const RESCALE: Param = Param {
    name: "rescale",
    kind: Kind::Word { words: &["inverse", "l1", "none"], flags: Some(("l1", "none")) },
    default: Default::Word("inverse"),
    doc: "what makes up for the dropped elements: inverse divides by the density (the paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or false) does nothing",
    ..PLAIN
};
pub const SCOPE: Param =
    Param { name: "scope", kind: Kind::Word { words: &["tensor", "model"], flags: None }, default: Default::Word("tensor"), ..PLAIN };
pub const T: Param = Param { name: "t", default: Default::Number(0.5), doc: "how far from the first model (0) to the second (1)", ..PLAIN };

/// The complete values for one merge of `models` models.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    pub models: usize,
    values: BTreeMap<&'static str, Value>,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Each(Vec<f64>),
    Number(f64),
    Flag(bool),
    Word(&'static str),
    Text(String),
    Mapping(Map<String, Json>),
}

impl Params {
    /// Completes and checks what the recipe says: `look` finds a parameter's value, of one model or of the whole merge.
    pub fn complete(
        params: &'static [Param],
        models: &[&str],
        look: &dyn Fn(&str, Option<usize>) -> Option<Json>,
        from_file: bool,
    ) -> Result<Params> {
        let value = |param: &Param| {
            let default = || match param.file_default.filter(|_| from_file).unwrap_or(param.default) {
                Default::Required => Err(Error::recipe(format!("{} is missing: give {}", param.name, param.doc))),
                default => Ok(default.value(models.len())),
            };
            if !param.per_model {
                return look(param.name, None).map_or_else(default, |json| param.read(&json, None));
            }
            let one = |(i, model): (usize, &&str)| {
                let value = look(param.name, Some(i)).map_or_else(default, |json| param.read(&json, Some(model)))?;
                match value {
                    Value::Number(x) => Ok(x),
                    _ => unreachable!("a parameter for each model is a number"),
                }
            };
            models.iter().enumerate().map(one).collect::<Result<_>>().map(Value::Each)
        };
        let values = params.iter().map(|param| Ok((param.name, value(param)?))).collect::<Result<_>>()?;
        Ok(Params { models: models.len(), values })
    }

    fn get(&self, name: &str) -> &Value {
        self.values.get(name).unwrap_or_else(|| panic!("a method reads \"{name}\", which it does not declare"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// One number a model.
    pub fn each(&self, name: &str) -> Vec<f64> {
        match self.get(name) {
            Value::Each(x) => x.clone(),
            other => panic!("\"{name}\" is {other:?}, not one a model"),
        }
    }

    pub fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            Value::Number(x) => *x,
            other => panic!("\"{name}\" is {other:?}, not a number"),
        }
    }

    /// The number, where it is not a word.
    pub fn number_or_word(&self, name: &str) -> std::result::Result<f64, &'static str> {
        match self.get(name) {
            Value::Number(x) => Ok(*x),
            Value::Word(x) => Err(x),
            other => panic!("\"{name}\" is {other:?}, neither a number nor a word"),
        }
    }

    pub fn flag(&self, name: &str) -> bool {
        match self.get(name) {
            Value::Flag(x) => *x,
            other => panic!("\"{name}\" is {other:?}, not a flag"),
        }
    }

    pub fn word(&self, name: &str) -> &'static str {
        match self.get(name) {
            Value::Word(x) => x,
            other => panic!("\"{name}\" is {other:?}, not a word"),
        }
    }

    pub fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Value::Text(x) => x,
            other => panic!("\"{name}\" is {other:?}, not a text"),
        }
    }

    pub fn mapping(&self, name: &str) -> Map<String, Json> {
        match self.get(name) {
            Value::Mapping(x) => x.clone(),
            other => panic!("\"{name}\" is {other:?}, not a mapping"),
        }
    }

    /// As a recipe has them: those of the whole merge, and those of each model.
    pub fn spelled_out(&self) -> (Json, Vec<Json>) {
        let Json::Object(all) = self.json() else { unreachable!("json() makes an object") };
        let (each, shared): (Map<_, _>, Map<_, _>) = all.into_iter().partition(|(_, value)| value.is_array());
        let own = |model: usize| Json::Object(each.iter().map(|(name, values)| (name.clone(), values[model].clone())).collect());
        (Json::Object(shared), (0..self.models).map(own).collect())
    }

    /// For summaries and manifests: `{"weight": [0.5, 0.5], "normalize": false}`.
    pub fn json(&self) -> Json {
        let one = |value: &Value| match value {
            Value::Each(x) => json!(x),
            Value::Number(x) => json!(x),
            Value::Flag(x) => json!(x),
            Value::Word(x) => json!(x),
            Value::Text(x) => json!(x),
            Value::Mapping(x) => json!(x),
        };
        Json::Object(self.values.iter().map(|(name, value)| (name.to_string(), one(value))).collect())
    }
}

/// Refuses a parameter that a method does not have, or not there (`model`: as one model's own), or a value out of its range.
pub fn check(method: &str, params: &[Param], name: &str, model: Option<&str>, values: &[&Json]) -> Result<()> {
    let known = || params.iter().map(|p| p.name);
    let Some(param) = params.iter().find(|p| p.name == name) else {
        let names = if params.is_empty() { "none".to_string() } else { known().collect::<Vec<_>>().join(", ") };
        let near = did_you_mean(name, known());
        return Err(Error::recipe(format!("{method} has no parameter \"{name}\"{near} (it has: {names})")));
    };
    if let (Some(model), false) = (model, param.per_model) {
        return Err(Error::recipe(format!(
            "{name} is one value for the whole merge: move it from model {model} to the recipe's parameters"
        )));
    }
    values.iter().try_for_each(|value| param.read(value, model).map(drop))
}

impl Default {
    fn value(self, models: usize) -> Value {
        match self {
            Default::Number(x) => Value::Number(x),
            Default::Share => Value::Number(1.0 / models.max(1) as f64),
            Default::Flag(x) => Value::Flag(x),
            Default::Word(x) => Value::Word(x),
            Default::Empty => Value::Mapping(Map::new()),
            Default::Required => unreachable!("what must be given is asked for before"),
        }
    }

    pub fn json(self) -> Json {
        match self {
            Default::Number(x) => json!(x),
            Default::Share => json!("1/N"),
            Default::Flag(x) => json!(x),
            Default::Word(x) => json!(x),
            Default::Empty => json!({}),
            Default::Required => Json::Null,
        }
    }
}

impl Param {
    /// The default as a recipe says it.
    pub fn default_for(&self, from_file: bool, models: usize) -> Json {
        match self.file_default.filter(|_| from_file).unwrap_or(self.default).value(models) {
            Value::Number(x) => json!(x),
            Value::Flag(x) => json!(x),
            Value::Word(x) => json!(x),
            Value::Text(x) => json!(x),
            Value::Mapping(x) => json!(x),
            Value::Each(_) => unreachable!("a default is one value"),
        }
    }

    fn read(&self, json: &Json, model: Option<&str>) -> Result<Value> {
        let place = model.map_or(String::new(), |model| format!(" of {model}"));
        let name = self.name;
        match self.kind {
            Kind::Number { min, max } => {
                match number(json) {
                    // 1e39 is infinite in the arithmetic's f32.
                    Some(x) if (x as f32).is_finite() && x >= min && x <= max => Ok(Value::Number(x)),
                    Some(x) if min.is_finite() => Err(Error::recipe(format!("{name}{place} is {x}: it must be between {min} and {max}"))),
                    Some(x) => Err(Error::recipe(format!("{name}{place} is {x}: it must be a finite number (of float32)"))),
                    None => Err(Error::recipe(format!("{name}{place} is {json}: it must be a number"))),
                }
            }
            Kind::NumberOr { min, max, words } => match (number(json), json.as_str()) {
                (Some(x), _) if x >= min && x <= max => Ok(Value::Number(x)),
                (None, Some(text)) if words.contains(&text) => {
                    Ok(Value::Word(words.iter().find(|word| **word == text).expect("is one of them")))
                }
                _ => {
                    let near = json.as_str().map_or(String::new(), |text| did_you_mean(text, words.iter().copied()));
                    let words = words.join(" or ");
                    Err(Error::recipe(format!("{name}{place} is {json}: it must be a number between {min:?} and {max}, or {words}{near}")))
                }
            },
            Kind::Whole { min, max } => match number(json) {
                Some(x) if x.fract() == 0.0 && x >= min && x <= max => Ok(Value::Number(x)),
                _ => Err(Error::recipe(format!("{name}{place} is {json}: it must be a whole number from {min} to {max}"))),
            },
            // Methods come after parameters in the engine: who asks for one finds it.
            Kind::Method => match json {
                Json::String(text) => Ok(Value::Text(text.clone())),
                _ => Err(Error::recipe(format!("{name}{place} is {json}: it must be the name of a method"))),
            },
            Kind::Mapping => match json {
                Json::Object(map) => Ok(Value::Mapping(map.clone())),
                _ => Err(Error::recipe(format!("{name}{place} is {json}: it must be a mapping of names and values"))),
            },
            Kind::Flag => match json {
                Json::Bool(x) => Ok(Value::Flag(*x)),
                _ => Err(Error::recipe(format!("{name}{place} is {json}: it must be true or false"))),
            },
            Kind::Word { words, flags } => {
                let word = match (json, flags) {
                    (Json::Bool(true), Some((yes, _))) => Some(yes),
                    (Json::Bool(false), Some((_, no))) => Some(no),
                    (Json::String(text), _) => words.iter().find(|word| *word == text).copied(),
                    _ => None,
                };
                word.map(Value::Word).ok_or_else(|| {
                    let near = json.as_str().map_or(String::new(), |text| did_you_mean(text, words.iter().copied()));
                    Error::recipe(format!("{name}{place} is {json}: it must be {}{near}", words.join(" or ")))
                })
            }
        }
    }

    /// The row of the registry that recipes, commands and functions are made from.
    pub fn json(&self) -> Json {
        let flags = matches!(self.kind, Kind::Word { flags: Some(_), .. });
        let (kind, choices, min, max) = match self.kind {
            Kind::Number { min, max } => ("number", Json::Null, min, max),
            Kind::NumberOr { min, max, words } => ("number", json!(words), min, max),
            Kind::Method => ("method", Json::Null, f64::NEG_INFINITY, f64::INFINITY),
            Kind::Mapping => ("mapping", Json::Null, f64::NEG_INFINITY, f64::INFINITY),
            Kind::Whole { min, max } => ("integer", Json::Null, min, max),
            Kind::Flag => ("bool", Json::Null, f64::NEG_INFINITY, f64::INFINITY),
            Kind::Word { words, .. } => ("choice", json!(words), f64::NEG_INFINITY, f64::INFINITY),
        };
        let bound = |x: f64| if x.is_finite() { json!(x) } else { Json::Null };
        let default = match (self.kind, self.default) {
            // 10, not 10.0.
            (Kind::Whole { .. }, Default::Number(x)) => json!(x as u64),
            (_, default) => default.json(),
        };
        json!({
            "name": self.name, "per_model": self.per_model, "kind": kind, "choices": choices, "flags": flags, "min": bound(min), "max": bound(max),
            "default": default, "file_default": self.file_default.map(Default::json), "doc": self.doc,
        })
    }
}

/// YAML reads 1e-5 as a string, as its own standard demands; people mean the number.
pub fn number(json: &Json) -> Option<f64> {
    json.as_f64().or_else(|| json.as_str().and_then(|text| text.trim().parse().ok()))
}
