//! Which layers of which models become which layers of the output?
//!
//! `models:` is one slice of whole models. `slices:` stacks ranges of layers; the sources of a slice have equal numbers of layers.

use std::ops::Range;

use serde_json::{json, Map, Value as Json};

use super::setting::{settings, Settings};
use super::{mapping, text_of};
use crate::error::{did_you_mean, Error, Result};

/// A piece of the output's layers, and what it is merged from.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Of which of the recipe's modules it is a piece.
    pub module: Option<usize>,
    pub sources: Vec<Source>,
    /// The base's layers, where the base is not one of the sources; none for all of them.
    pub base_layers: Option<Range<usize>>,
    pub(super) settings: Settings,
    /// `base_model` of this slice, which must be the recipe's.
    base: Option<String>,
    /// For messages.
    called: String,
}

/// One model of a slice.
#[derive(Debug, Clone)]
pub struct Source {
    pub model: String,
    /// None for all layers.
    pub layers: Option<Range<usize>>,
    pub(super) settings: Settings,
}

/// Reads `models` or `slices` of the recipe, or of a module.
pub fn read(keys: &Map<String, Json>, whose: &str) -> Result<Vec<Slice>> {
    match (keys.get("models"), keys.get("slices")) {
        (Some(_), Some(_)) => Err(Error::recipe(format!("{whose} has models and slices: give one of them"))),
        (Some(Json::Array(list)), None) => {
            let sources = list.iter().map(|entry| source(entry, "models", &["model", "parameters"])).collect::<Result<Vec<_>>>()?;
            Ok(vec![Slice { module: None, sources, base_layers: None, settings: Settings::new(), base: None, called: whose.into() }])
        }
        (None, Some(Json::Array(list))) if !list.is_empty() => {
            let called = |number: usize| format!("slice {} of {whose}", number + 1);
            list.iter().enumerate().map(|(number, json)| Ok(Slice { called: called(number), ..slice(json)? })).collect()
        }
        (None, Some(_)) => Err(Error::recipe("slices is a list of entries like {sources: [{model: path, layer_range: [0, 8]}]}")),
        _ => Err(Error::recipe(format!("{whose} needs models: a list of entries like {{model: path, parameters: {{weight: 0.5}}}}"))),
    }
}

pub(super) fn check_bases(slices: &[Slice], base: Option<String>) -> Result<()> {
    match slices.iter().filter_map(|slice| slice.base.as_ref()).find(|other| base.as_ref() != Some(other)) {
        Some(other) => {
            let base = base.unwrap_or("none".into());
            Err(Error::recipe(format!("a slice has the base_model {other}, and the recipe {base}: one merge has one base")))
        }
        None => Ok(()),
    }
}

fn slice(json: &Json) -> Result<Slice> {
    let Json::Object(entry) = json else {
        return Err(Error::recipe(format!("an entry of slices must be a mapping, not {json}")));
    };
    known(entry, "an entry of slices", &["sources", "parameters", "base_model"])?;
    let Some(Json::Array(list)) = entry.get("sources").filter(|list| list.as_array().is_some_and(|list| !list.is_empty())) else {
        return Err(Error::recipe("an entry of slices has no sources: a list of {model: path, layer_range: [0, 8]}"));
    };
    let sources = list.iter().map(|json| {
        let source = source(json, "sources", &["model", "layer_range", "parameters", "residual_weight"])?;
        match source.layers {
            Some(_) => Ok(source),
            None => Err(Error::recipe(format!("the source {} of a slice has no layer_range: [first, end), like [0, 8]", source.model))),
        }
    });
    let slice = Slice {
        module: None,
        sources: sources.collect::<Result<Vec<_>>>()?,
        base_layers: None,
        settings: settings(&mapping(entry, "parameters")?)?,
        base: text_of(entry, "base_model")?,
        called: String::new(),
    };
    let length = |source: &Source| source.layers.clone().map_or(0, |layers| layers.len());
    match slice.sources.iter().find(|source| length(source) != length(&slice.sources[0])) {
        Some(other) => Err(Error::recipe(format!(
            "the sources of a slice must have equally many layers: {} gives {}, {} gives {}",
            slice.sources[0].model,
            length(&slice.sources[0]),
            other.model,
            length(other)
        ))),
        None => Ok(slice),
    }
}

fn source(json: &Json, list: &str, keys: &[&str]) -> Result<Source> {
    match json {
        Json::String(model) if !model.is_empty() => Ok(Source { model: model.clone(), layers: None, settings: Settings::new() }),
        Json::Object(entry) => {
            known(entry, &format!("an entry of {list}"), keys)?;
            let model = text_of(entry, "model")?.ok_or_else(|| Error::recipe(format!("an entry of {list} names no model: {json}")))?;
            let layers = match entry.get("layer_range") {
                None | Some(Json::Null) => None,
                Some(range) => Some(layer_range(range).ok_or_else(|| {
                    Error::recipe(format!("{model} has the layer_range {range}: it must be [first, end), like [0, 8], and not empty"))
                })?),
            };
            Ok(Source { model, layers, settings: settings(&mapping(entry, "parameters")?)? })
        }
        other => Err(Error::recipe(format!("an entry of {list} must be a name or a mapping, not {other}"))),
    }
}

pub(super) fn known(entry: &Map<String, Json>, place: &str, keys: &[&str]) -> Result<()> {
    match entry.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => {
            let near = did_you_mean(key, keys.iter().copied());
            Err(Error::recipe(format!("unknown key \"{key}\" in {place}{near} (known: {})", keys.join(", "))))
        }
        None => Ok(()),
    }
}

pub(super) fn raw(settings: &Settings) -> Json {
    Json::Object(settings.iter().map(|(name, setting)| (name.clone(), setting.raw.clone())).collect())
}

fn layer_range(json: &Json) -> Option<Range<usize>> {
    let [first, end] = json.as_array()?.as_slice() else { return None };
    let range = first.as_u64()? as usize..end.as_u64()? as usize;
    (!range.is_empty()).then_some(range)
}

impl Slice {
    /// Whether it is a range of layers, not whole models.
    pub fn is_range(&self) -> bool {
        self.sources.iter().any(|source| source.layers.is_some())
    }

    /// The layers that a base has which the slice does not name: those of its sources, if they are the same.
    pub(super) fn common_layers(&self, base: &str) -> Result<Option<Range<usize>>> {
        let first = self.sources.first().and_then(|source| source.layers.clone());
        match self.sources.iter().all(|source| source.layers == first) {
            true => Ok(first),
            false => Err(Error::recipe(format!(
                "{} takes different layers of its sources and none of the base: name {base} among its sources, with a layer_range",
                self.called
            ))),
        }
    }

    /// As a recipe has it, with these parameters of the sources rather than their own.
    pub(super) fn spelled_out(&self, each: Option<Vec<Json>>) -> Json {
        let source = |(i, source): (usize, &Source)| {
            let parameters = each.as_ref().map_or_else(|| raw(&source.settings), |each| each[i].clone());
            let mut json = json!({"model": source.model, "parameters": parameters});
            if let Some(layers) = &source.layers {
                json["layer_range"] = json!([layers.start, layers.end]);
            }
            json
        };
        json!({"sources": self.sources.iter().enumerate().map(source).collect::<Vec<_>>(), "parameters": raw(&self.settings)})
    }
}
