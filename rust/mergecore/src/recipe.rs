//! What did the user ask for?
//!
//! A recipe is JSON (Python turns YAML into it) with mergekit's keys and a few of ours. Everything that can be said about it without
//! opening a file is said here: unknown keys, methods and parameters, values out of range, a wrong number of models. The method comes out
//! bound.

use std::sync::Arc;

use serde_json::{json, Map, Value as Json};

use crate::dtype::Dtype;
use crate::error::{did_you_mean, Error, Result};
use crate::methods::{self, Base, Method, Spec};
use crate::params::Params;

pub const DEFAULT_SEED: u64 = 42;

const KEYS: [&str; 10] = ["merge_method", "base_model", "models", "parameters", "dtype", "out_dtype", "onto", "donor", "ignore", "seed"];
/// mergekit's parameter that changes nothing in any method, there or here.
const IDLE: &str = "int8_mask";
/// mergekit's keys that this version does not know how to honour. Refused, since ignoring one would give another merge.
const LATER: [&str; 6] = ["slices", "modules", "tokenizer_source", "tokenizer", "chat_template", "modifiers"];

/// A checked request. Models are references as the user wrote them: paths or hub ids.
pub struct Recipe {
    pub spec: &'static Spec,
    pub params: Params,
    pub method: Arc<dyn Method>,
    /// What task vectors are taken from; none for methods that merge weights.
    pub base: Option<String>,
    /// A base that is one of the models, since the method merges it: names, order and dtypes are its.
    pub joined: Option<String>,
    /// The inputs, in the order of the parameters (with the base first or last where the method merges it).
    pub models: Vec<String>,
    /// What the merged task vector is added to, if not the base.
    pub onto: Option<String>,
    pub donor: Option<String>,
    pub ignore: Vec<String>,
    pub seed: u64,
    pub dtype: Option<Dtype>,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

impl Recipe {
    /// `from_file`: defaults are mergekit's where the registry says so.
    pub fn parse(text: &str, from_file: bool) -> Result<Recipe> {
        let json: Json = serde_json::from_str(text).map_err(|e| Error::recipe(format!("the recipe is not valid JSON: {e}")))?;
        let Json::Object(mut keys) = json else {
            return Err(Error::recipe("the recipe must be a mapping of keys such as merge_method and models"));
        };
        keys.retain(|_, value| !value.is_null());
        for key in keys.keys().map(String::as_str) {
            if LATER.contains(&key) {
                return Err(Error::recipe(format!(
                    "the recipe key \"{key}\" is not supported yet: remove it, or merge whole models with the same vocabulary"
                )));
            }
            if !KEYS.contains(&key) {
                return Err(Error::recipe(format!("unknown recipe key \"{key}\"{} (known: {})", did_you_mean(key, KEYS), KEYS.join(", "))));
            }
        }
        let name = text_of(&keys, "merge_method")?
            .ok_or_else(|| Error::recipe("the recipe names no merge_method (`mergecore methods` lists them)"))?;
        let spec = methods::find(&name)?;
        let mut recipe = Draft { spec, base: text_of(&keys, "base_model")?, ..Draft::read(&keys, spec)? };
        recipe.place_base()?;
        recipe.check_count()?;
        recipe.drop_idle();

        let params = Params::complete(spec.name, spec.params, &recipe.shared, &recipe.models, from_file)?;
        let onto = text_of(&keys, "onto")?;
        if onto.is_some() && spec.base != Base::Required {
            return Err(Error::recipe(format!("onto needs a method that merges task vectors; {} merges weights", spec.name)));
        }
        if params.has("density") && from_file && params.each("density").iter().all(|d| *d == 1.0) {
            recipe.notes.push("density 1: nothing is dropped".into());
        }
        Ok(Recipe {
            spec,
            method: (spec.bind)(&params)?.into(),
            params,
            base: recipe.base,
            joined: recipe.joined,
            models: recipe.models.into_iter().map(|(model, _)| model).collect(),
            onto,
            donor: text_of(&keys, "donor")?,
            ignore: list_of_text(&keys, "ignore")?,
            seed: seed(&keys)?,
            dtype: dtype(&keys, "out_dtype")?.or(dtype(&keys, "dtype")?),
            notes: recipe.notes,
            warnings: recipe.warnings,
        })
    }

    /// λ, which scales the merged task vector before it is added; 1 for a method without one.
    pub fn lambda(&self) -> f64 {
        if self.params.has("lambda") {
            self.params.number("lambda")
        } else {
            1.0
        }
    }

    /// Whose names, order and dtypes the output has: the base's, else the first model's.
    pub fn reference(&self) -> &String {
        self.base.as_ref().or(self.joined.as_ref()).unwrap_or(&self.models[0])
    }

    /// Every reference, once each: base, models, onto, donor.
    pub fn references(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for reference in self.base.iter().chain(&self.models).chain(&self.onto).chain(&self.donor) {
            if !all.contains(reference) {
                all.push(reference.clone());
            }
        }
        all
    }

    /// The recipe with every default filled in: what the manifest records, and what leftovers are recognised by.
    ///
    /// It is a recipe again: parsed, it asks for the same merge.
    pub fn resolved(&self) -> Json {
        let (shared, each) = self.params.spelled_out();
        let model = |(model, parameters): (&String, Json)| json!({"model": model, "parameters": parameters});
        json!({
            "merge_method": self.spec.name,
            "base_model": self.base.as_ref().or(self.joined.as_ref()),
            "models": self.models.iter().zip(each).map(model).collect::<Vec<_>>(),
            "parameters": shared,
            "onto": self.onto,
            "donor": self.donor,
            "ignore": self.ignore,
            "dtype": self.dtype.map(Dtype::name),
            "seed": self.seed,
        })
    }
}

/// A recipe on its way: models with their own parameters, and the parameters of all.
struct Draft {
    spec: &'static Spec,
    base: Option<String>,
    joined: Option<String>,
    models: Vec<(String, Map<String, Json>)>,
    shared: Map<String, Json>,
    notes: Vec<String>,
    warnings: Vec<String>,
}

impl Draft {
    fn read(keys: &Map<String, Json>, spec: &'static Spec) -> Result<Draft> {
        let Some(Json::Array(list)) = keys.get("models") else {
            return Err(Error::recipe("the recipe needs models: a list of entries like {model: path, parameters: {weight: 0.5}}"));
        };
        let mut models = Vec::new();
        for entry in list {
            let (model, parameters) = match entry {
                Json::String(model) => (model.clone(), Map::new()),
                Json::Object(entry) => {
                    if let Some(key) = entry.keys().find(|key| !["model", "parameters"].contains(&key.as_str())) {
                        let near = did_you_mean(key, ["model", "parameters"]);
                        return Err(Error::recipe(format!("unknown key \"{key}\" in an entry of models{near} (known: model, parameters)")));
                    }
                    let model = text_of(entry, "model")?
                        .ok_or_else(|| Error::recipe(format!("an entry of models names no model: {}", Json::Object(entry.clone()))))?;
                    let parameters = mapping(entry, "parameters")?;
                    (model, parameters)
                }
                other => return Err(Error::recipe(format!("an entry of models must be a name or a mapping, not {other}"))),
            };
            models.push((model, parameters));
        }
        let shared = mapping(keys, "parameters")?;
        Ok(Draft { spec, base: None, joined: None, models, shared, notes: Vec::new(), warnings: Vec::new() })
    }

    /// Where the base goes, by the method: out of the list, or into it.
    fn place_base(&mut self) -> Result<()> {
        let Some(base) = self.base.clone() else {
            return match self.spec.base {
                Base::Required => Err(Error::recipe(format!(
                    "{} merges task vectors and needs a base: give --base MODEL (recipe key base_model)",
                    self.spec.name
                ))),
                _ => Ok(()),
            };
        };
        let at = self.models.iter().position(|(model, _)| *model == base);
        match (self.spec.base, at) {
            (Base::Required, Some(at)) => {
                self.models.remove(at);
            }
            (Base::Required, None) => {}
            (Base::Joins, at) => {
                if at.is_none() {
                    self.models.push((base.clone(), Map::new()));
                    self.notes.push(format!("{base} joins the average as one more model"));
                }
                self.joined = self.base.take();
            }
            (Base::First, Some(at)) => {
                let first = self.models.remove(at);
                self.models.insert(0, first);
                self.joined = self.base.take();
            }
            (Base::First, None) => {
                self.models.insert(0, (base, Map::new()));
                self.joined = self.base.take();
            }
        }
        Ok(())
    }

    fn check_count(&self) -> Result<()> {
        let (least, most) = self.spec.models;
        let count = self.models.len();
        if count < least || count > most {
            let wanted = if least == most { format!("exactly {least}") } else { format!("at least {least}") };
            let named = self.models.iter().map(|(model, _)| model.as_str()).collect::<Vec<_>>().join(", ");
            let named = if named.is_empty() { String::new() } else { format!(" ({named})") };
            let beside = if self.spec.base == Base::Required { " beside the base" } else { "" };
            return Err(Error::recipe(format!(
                "{} merges {wanted} model{}{beside}, and was given {count}{named}",
                self.spec.name,
                if least == 1 { "" } else { "s" }
            )));
        }
        Ok(())
    }

    /// Takes out the keys that have no effect in mergekit either, and says so.
    fn drop_idle(&mut self) {
        for key in self.spec.idle.iter().chain([&IDLE]) {
            let shared = self.shared.remove(*key).is_some();
            let own = self.models.iter_mut().map(|(_, parameters)| parameters.remove(*key).is_some()).fold(false, |a, b| a | b);
            if shared || own {
                self.warnings.push(format!("{key} has no effect on {}", self.spec.name));
            }
        }
    }
}

fn text_of(keys: &Map<String, Json>, key: &str) -> Result<Option<String>> {
    match keys.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(other) => Err(Error::recipe(format!("{key} must be a name, not {other}"))),
    }
}

fn mapping(keys: &Map<String, Json>, key: &str) -> Result<Map<String, Json>> {
    match keys.get(key) {
        None | Some(Json::Null) => Ok(Map::new()),
        Some(Json::Object(map)) => Ok(map.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect()),
        Some(other) => Err(Error::recipe(format!("{key} must be a mapping, not {other}"))),
    }
}

fn list_of_text(keys: &Map<String, Json>, key: &str) -> Result<Vec<String>> {
    match keys.get(key) {
        None => Ok(Vec::new()),
        Some(Json::String(one)) => Ok(vec![one.clone()]),
        Some(Json::Array(list)) if list.iter().all(Json::is_string) => {
            Ok(list.iter().filter_map(|x| x.as_str().map(String::from)).collect())
        }
        Some(other) => Err(Error::recipe(format!("{key} must be a list of patterns, not {other}"))),
    }
}

fn seed(keys: &Map<String, Json>) -> Result<u64> {
    match keys.get("seed") {
        None => Ok(DEFAULT_SEED),
        Some(json) => json.as_u64().ok_or_else(|| Error::recipe(format!("seed is {json}: it must be a whole number from 0 to 2^64-1"))),
    }
}

fn dtype(keys: &Map<String, Json>, key: &str) -> Result<Option<Dtype>> {
    let Some(name) = text_of(keys, key)? else { return Ok(None) };
    let names = Dtype::FLOATS.map(Dtype::name);
    match Dtype::from_name(&name) {
        Some(dtype) if dtype.is_float() => Ok(Some(dtype)),
        _ => Err(Error::recipe(format!("{key} is \"{name}\"{}: it must be {}", did_you_mean(&name, names), names.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Recipe::parse(text, false).err().expect("is refused").to_string()
    }

    #[test]
    fn a_typo_is_refused_with_the_nearest_name() {
        assert!(refusal(r#"{"merge_method": "linaer", "models": ["a"]}"#).contains("\"linear\""));
        assert!(refusal(r#"{"merge_method": "linear", "modles": ["a"]}"#).contains("\"models\""));
        assert!(refusal(r#"{"merge_method": "linear", "models": ["a"], "parameters": {"weigth": 1}}"#).contains("\"weight\""));
        assert!(refusal(r#"{"merge_method": "linear", "models": [{"model": "a", "params": {}}]}"#).contains("\"parameters\""));
    }

    #[test]
    fn a_density_outside_0_to_1_and_a_weight_that_is_not_a_number_are_refused_by_name() {
        let recipe =
            |parameters: &str| format!(r#"{{"merge_method": "ties", "base_model": "o", "models": ["a"], "parameters": {{{parameters}}}}}"#);
        assert!(refusal(&recipe(r#""density": 1.5"#)).contains("density"));
        assert!(refusal(&recipe(r#""weight": "nan""#)).contains("weight"));
        assert!(Recipe::parse(&recipe(r#""weight": "1e-5""#), false).is_ok());
    }

    #[test]
    fn the_base_goes_where_the_method_wants_it() {
        let models = |method: &str| {
            let text = format!(r#"{{"merge_method": "{method}", "base_model": "b", "models": ["a", "b"]}}"#);
            Recipe::parse(&text, false).map(|r| (r.base, r.models)).unwrap()
        };
        assert_eq!(models("ties"), (Some("b".into()), vec!["a".into()]));
        assert_eq!(models("slerp"), (None, vec!["b".into(), "a".into()]));
        assert_eq!(models("linear"), (None, vec!["a".into(), "b".into()]));
    }

    #[test]
    fn a_resolved_recipe_asks_for_the_same_merge() {
        let text = r#"{"merge_method": "dare_ties", "base_model": "o", "models": [{"model": "a", "parameters": {"weight": 0.3}}, "b"],
            "parameters": {"density": 0.7, "rescale": true}, "seed": 7, "dtype": "float32", "ignore": ["x*"]}"#;
        let once = Recipe::parse(text, true).unwrap();
        let again = Recipe::parse(&once.resolved().to_string(), true).unwrap();
        assert_eq!(once.resolved(), again.resolved());
        assert_eq!((again.params.each("weight"), again.params.word("rescale")), (vec![0.3, 0.5], "l1"));
    }

    #[test]
    fn a_recipe_file_keeps_mergekits_density() {
        let text = r#"{"merge_method": "ties", "base_model": "o", "models": ["a", "b"]}"#;
        assert_eq!(Recipe::parse(text, false).unwrap().params.each("density"), [0.2, 0.2]);
        let file = Recipe::parse(text, true).unwrap();
        assert_eq!(file.params.each("density"), [1.0, 1.0]);
        assert_eq!(file.notes, ["density 1: nothing is dropped"]);
        assert_eq!(file.params.each("weight"), [0.5, 0.5]);
    }
}
