//! What is a parameter's value here? One value, a gradient over the depth of the model, or values chosen by the tensor's name.
//!
//! mergekit's rules: a list of values is a gradient; an entry `{value, filter}` holds for tensors whose names contain the filter, the first
//! that matches wins, and where none does the next scope is asked (source, slice, whole recipe, the method's default).

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{json, Map, Value as Json};

use crate::error::{did_you_mean, Error, Result};
use crate::names::glob;
use crate::params::number;

/// A parameter as the recipe has it.
#[derive(Debug, Clone)]
pub struct Setting {
    /// As it was written.
    pub raw: Json,
    kind: Kind,
}

/// The parameters of one scope, by name.
pub type Settings = BTreeMap<String, Setting>;

#[derive(Debug, Clone)]
enum Kind {
    One,
    Gradient(Vec<Json>),
    Filtered(Vec<(Filter, Setting)>),
}

#[derive(Debug, Clone)]
enum Filter {
    All,
    Substring(String),
    Glob(String),
    Pattern(Regex),
}

/// Reads the parameters of a scope; null says nothing.
pub fn settings(map: &Map<String, Json>) -> Result<Settings> {
    let said = map.iter().filter(|(_, json)| !json.is_null());
    said.map(|(name, json)| Ok((name.clone(), Setting::parse(name, json)?))).collect()
}

impl Setting {
    pub fn parse(name: &str, json: &Json) -> Result<Setting> {
        let kind = match json {
            Json::Object(entry) => Kind::Filtered(vec![filtered(name, entry)?]),
            Json::Array(list) if list.is_empty() => {
                return Err(Error::recipe(format!("{name} is an empty list: give a value, or leave it out")));
            }
            Json::Array(list) if list.iter().any(Json::is_object) => {
                let entry = |json: &Json| match json {
                    Json::Object(entry) => filtered(name, entry),
                    value => Err(Error::recipe(format!("{name} has {value} among entries with filters: write {{value: {value}}}"))),
                };
                Kind::Filtered(list.iter().map(entry).collect::<Result<_>>()?)
            }
            Json::Array(list) => match list.iter().find(|item| item.is_array() || item.is_null()) {
                Some(item) => return Err(Error::recipe(format!("{name} has {item} in its gradient: a gradient is a list of values"))),
                None => Kind::Gradient(list.clone()),
            },
            _ => Kind::One,
        };
        Ok(Setting { raw: json.clone(), kind })
    }

    /// The value at a depth from 0 (first layer) to 1 (last), for the tensor of that name; none if every filter passes it over.
    pub fn at(&self, depth: f64, tensor: &str) -> Option<Json> {
        match &self.kind {
            Kind::One => Some(self.raw.clone()),
            Kind::Gradient(values) => Some(gradient(values, depth)),
            Kind::Filtered(entries) => entries.iter().find(|(filter, _)| filter.matches(tensor))?.1.at(depth, tensor),
        }
    }

    /// Every value that may come out, to be checked beforehand.
    pub fn values(&self) -> Vec<&Json> {
        match &self.kind {
            Kind::One => vec![&self.raw],
            Kind::Gradient(values) => values.iter().collect(),
            Kind::Filtered(entries) => entries.iter().flat_map(|(_, setting)| setting.values()).collect(),
        }
    }

    /// The filters that pass over all of these tensors, as they were written.
    pub fn idle_filters(&self, tensors: &[&str]) -> Vec<String> {
        let Kind::Filtered(entries) = &self.kind else { return Vec::new() };
        let idle = entries.iter().filter(|(filter, _)| !tensors.iter().any(|tensor| filter.matches(tensor)));
        idle.map(|(filter, _)| filter.to_string()).collect()
    }

    /// Whether it is one value for every tensor.
    pub fn is_one(&self) -> bool {
        matches!(self.kind, Kind::One)
    }

    /// As it was written, with a last word for the tensors that it passes over.
    pub fn or_else(&self, default: Json) -> Json {
        match &self.kind {
            Kind::Filtered(entries) if !entries.iter().any(|(filter, _)| matches!(filter, Filter::All)) => {
                let mut list = self.raw.as_array().cloned().unwrap_or_else(|| vec![self.raw.clone()]);
                list.push(json!({"value": default}));
                Json::Array(list)
            }
            _ => self.raw.clone(),
        }
    }
}

fn filtered(name: &str, entry: &Map<String, Json>) -> Result<(Filter, Setting)> {
    const KEYS: [&str; 2] = ["value", "filter"];
    if let Some(key) = entry.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let near = did_you_mean(key, KEYS);
        return Err(Error::recipe(format!("{name} has an entry with the unknown key \"{key}\"{near} (known: value, filter)")));
    }
    let value = entry.get("value").filter(|value| !value.is_null() && !value.is_object());
    let value = value.ok_or_else(|| Error::recipe(format!("{name} has an entry without a value: {}", Json::Object(entry.clone()))))?;
    let filter = match entry.get("filter") {
        None | Some(Json::Null) => Filter::All,
        Some(Json::String(text)) => Filter::parse(name, text)?,
        Some(other) => return Err(Error::recipe(format!("{name} has the filter {other}: a filter is a text"))),
    };
    Ok((filter, Setting::parse(name, value)?))
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Filter::All => write!(f, "*"),
            Filter::Substring(text) | Filter::Glob(text) => write!(f, "{text}"),
            Filter::Pattern(pattern) => write!(f, "re:{pattern}"),
        }
    }
}

impl Filter {
    fn parse(name: &str, text: &str) -> Result<Filter> {
        if let Some(pattern) = text.strip_prefix("re:") {
            let pattern = Regex::new(pattern)
                .map_err(|e| Error::recipe(format!("{name} has a filter that is no regular expression: \"{pattern}\" ({e})")))?;
            return Ok(Filter::Pattern(pattern));
        }
        // No tensor's name holds these two, so that they are free to mean more than themselves.
        Ok(match text {
            "" | "*" => Filter::All,
            _ if text.contains(['*', '?']) => Filter::Glob(text.into()),
            _ => Filter::Substring(text.into()),
        })
    }

    fn matches(&self, tensor: &str) -> bool {
        match self {
            Filter::All => true,
            Filter::Substring(text) => tensor.contains(text.as_str()),
            Filter::Glob(text) => glob(text, tensor),
            Filter::Pattern(pattern) => pattern.is_match(tensor),
        }
    }
}

/// Linear between neighbours for numbers; anything else holds until the next.
fn gradient(values: &[Json], depth: f64) -> Json {
    let scaled = depth.clamp(0.0, 1.0) * (values.len() - 1) as f64;
    let at = scaled.floor() as usize;
    let next = (at + 1).min(values.len() - 1);
    match (number(&values[at]), number(&values[next])) {
        (Some(a), Some(b)) => json!(a + (b - a) * (scaled - at as f64)),
        _ => values[at].clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(json: Json, depth: f64, tensor: &str) -> Option<Json> {
        Setting::parse("t", &json).unwrap().at(depth, tensor)
    }

    #[test]
    fn a_list_is_a_gradient_over_the_depth() {
        let values = [0.0, 0.25, 0.5, 0.75, 1.0].map(|depth| at(json!([0, 1, "0.5"]), depth, "x").unwrap());
        assert_eq!(values.to_vec(), [0.0, 0.5, 1.0, 0.75, 0.5].map(|x| json!(x)).to_vec());
        assert_eq!(at(json!([0.3]), 0.7, "x"), Some(json!(0.3)));
        assert_eq!(
            [0.0, 0.4, 0.6, 1.0].map(|d| at(json!([true, false, true]), d, "x").unwrap()),
            [true, true, false, true].map(|b| json!(b))
        );
    }

    #[test]
    fn the_first_entry_whose_filter_matches_wins_and_none_leaves_it_to_the_next_scope() {
        let json = json!([{"filter": "mlp", "value": [0, 1]}, {"filter": "*.0.*proj", "value": 2}, {"filter": "re:norm$", "value": 3}]);
        let of = |tensor: &str| at(json.clone(), 0.5, tensor);
        assert_eq!(of("layers.0.mlp.up_proj"), Some(json!(0.5)));
        assert_eq!(of("layers.0.q_proj"), Some(json!(2)));
        assert_eq!(of("layers.1.norm"), Some(json!(3)));
        assert_eq!(of("layers.1.q_proj"), None);
    }

    #[test]
    fn what_is_neither_is_refused_by_name() {
        for (json, words) in [
            (json!([]), "empty"),
            (json!([[1]]), "gradient"),
            (json!([{"filter": "x", "value": 1}, 4]), "{value: 4}"),
            (json!({"filter": "x"}), "value"),
            (json!({"vlaue": 1}), "\"value\""),
            (json!({"value": 1, "filter": 3}), "filter"),
            (json!({"value": 1, "filter": "re:("}), "regular expression"),
        ] {
            let message = Setting::parse("density", &json).unwrap_err().message;
            assert!(message.contains("density") && message.contains(words), "{message}");
        }
    }
}
