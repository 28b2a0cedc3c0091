//! What did the user ask for?
//!
//! A recipe is JSON (Python turns YAML into it) with mergekit's keys and a few of ours. Everything that can be said about it without
//! opening a file is said here: unknown keys, methods and parameters, values out of range, a wrong number of models. What a parameter is
//! may depend on the tensor (`setting.rs`), so that a method is bound for each distinct set of values, by the plan.

use serde_json::{json, Map, Value as Json};

use crate::dtype::Dtype;
use crate::error::{did_you_mean, Error, Result};
use crate::methods::{self, Base, Spec};
use crate::params::{self, Default, Param, Params};

mod modifiers;
mod modules;
mod setting;
mod slices;
mod tokens;

pub use modifiers::Modifier;
pub use modules::Module;
use setting::{settings, Settings};
pub use slices::{Slice, Source};

pub const DEFAULT_SEED: u64 = 42;

const KEYS: [&str; 13] = [
    "merge_method",
    "base_model",
    "models",
    "slices",
    "modules",
    "parameters",
    "modifiers",
    "dtype",
    "out_dtype",
    "onto",
    "donor",
    "ignore",
    "seed",
];
/// mergekit's parameter that changes nothing in any method, there or here.
const IDLE: &str = "int8_mask";

/// A checked request. Models are references as the user wrote them: paths or hub ids.
pub struct Recipe {
    pub spec: &'static Spec,
    /// What task vectors are taken from; none for methods that merge weights.
    pub base: Option<String>,
    /// A base that is one of the models, since the method merges it: names, order and dtypes are its.
    pub joined: Option<String>,
    /// Parts of the model that are merged each from slices of its own; none where all is one.
    pub modules: Vec<Module>,
    /// The output's layers, piece by piece; one piece of all layers where the recipe has `models`.
    pub slices: Vec<Slice>,
    /// What the merged task vector is added to, if not the base.
    pub onto: Option<String>,
    pub donor: Option<String>,
    pub ignore: Vec<String>,
    pub seed: u64,
    /// What is done to the merged task vector, in this order.
    pub modifiers: Vec<Modifier>,
    /// The output's dtype, if not each tensor's own.
    pub dtype: Option<Dtype>,
    /// Arithmetic in f64, whatever the inputs are.
    pub wide: bool,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
    /// What is said of the tokenizer and the chat template, for whoever reads tokenizers.
    tokens: Map<String, Json>,
    shared: Settings,
    from_file: bool,
}

/// Where in the output a parameter is asked for.
pub struct Place<'a> {
    pub slice: usize,
    /// From 0 (the slice's first layer, and everything outside the layers) to 1 (its last).
    pub depth: f64,
    pub name: &'a str,
    /// The tensor's name in each model.
    pub inputs: &'a [String],
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
            let known = KEYS.iter().chain(&tokens::KEYS).copied();
            if !known.clone().any(|known| known == key) {
                let near = did_you_mean(key, known.clone());
                return Err(Error::recipe(format!("unknown recipe key \"{key}\"{near} (known: {})", known.collect::<Vec<_>>().join(", "))));
            }
        }
        let name = text_of(&keys, "merge_method")?
            .ok_or_else(|| Error::recipe("the recipe names no merge_method (`mergecore methods` lists them)"))?;
        let spec = methods::find(&name)?;
        let (dtype, out_dtype) = (dtype(&keys, "dtype")?, dtype(&keys, "out_dtype")?);
        let (modules, slices) = modules::read(&keys)?;
        let mut recipe = Recipe {
            spec,
            base: None,
            joined: None,
            modules,
            slices,
            onto: text_of(&keys, "onto")?,
            donor: text_of(&keys, "donor")?,
            ignore: list_of_text(&keys, "ignore")?,
            seed: seed(&keys)?,
            modifiers: modifiers::read(keys.get("modifiers"))?,
            dtype: out_dtype.or(dtype),
            wide: dtype == Some(Dtype::F64),
            notes: Vec::new(),
            warnings: Vec::new(),
            tokens: tokens::read(&keys)?,
            shared: settings(&mapping(&keys, "parameters")?)?,
            from_file,
        };
        recipe.place_base(text_of(&keys, "base_model")?)?;
        recipe.check_count()?;
        recipe.drop_idle();
        recipe.check_values()?;
        recipe.check_onto()?;
        recipe.check_modifiers()?;
        if from_file && recipe.plain()?.is_some_and(|params| params.has("density") && params.each("density").iter().all(|d| *d == 1.0)) {
            recipe.notes.push("density 1: nothing is dropped".into());
        }
        Ok(recipe)
    }

    /// Whether the output's layers are pieced together from ranges of layers.
    pub fn is_sliced(&self) -> bool {
        self.slices.iter().any(Slice::is_range)
    }

    /// The slices of each module; all of them where there are no modules.
    pub fn pieces(&self) -> Vec<&[Slice]> {
        self.slices.chunk_by(|one, next| one.module == next.module).collect()
    }

    /// The models, each once, in the order in which they appear: the order of the parameters where there is one slice.
    pub fn models(&self) -> Vec<&String> {
        let mut models: Vec<&String> = Vec::new();
        for source in self.slices.iter().flat_map(|slice| &slice.sources) {
            if self.slices.len() == 1 || !models.contains(&&source.model) {
                models.push(&source.model);
            }
        }
        models
    }

    /// Whether the models are to be brought to one vocabulary.
    pub fn aligns_tokens(&self) -> bool {
        self.tokens.contains_key("tokenizer_source") || self.tokens.contains_key("tokenizer")
    }

    /// Whose names, order and dtypes the output has: the base's, else the first model's.
    pub fn reference(&self) -> &String {
        self.base.as_ref().or(self.joined.as_ref()).unwrap_or(&self.slices[0].sources[0].model)
    }

    /// Every reference, once each: base, models, onto, donor.
    pub fn references(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for reference in self.base.iter().chain(self.models()).chain(&self.onto).chain(&self.donor) {
            if !all.contains(reference) {
                all.push(reference.clone());
            }
        }
        all
    }

    /// The parameters for one output tensor, complete. mergekit's precedence: the source's own, the slice's, the module's, the recipe's,
    /// the default.
    /// Filters look at the output's name, but for a model's own parameters at its name in that model.
    pub fn params(&self, place: &Place) -> Result<Params> {
        let slice = &self.slices[place.slice];
        let look = |name: &str, model: Option<usize>| {
            let (own, tensor) = match model {
                Some(model) => (slice.sources[model].settings.get(name), place.inputs.get(model).map_or(place.name, String::as_str)),
                None => (None, place.name),
            };
            let module = slice.module.and_then(|module| self.modules[module].settings.get(name));
            let scopes = [own, slice.settings.get(name), module, self.shared.get(name)];
            scopes.into_iter().flatten().find_map(|setting| setting.at(place.depth, tensor))
        };
        let models: Vec<&str> = slice.sources.iter().map(|source| source.model.as_str()).collect();
        Params::complete(self.spec.params, &models, &look, self.from_file)
    }

    /// The parameters, where they are the same for every tensor.
    pub fn plain(&self) -> Result<Option<Params>> {
        match self.modules.is_empty()
            && self.slices.len() == 1
            && self.scopes().all(|settings| settings.values().all(|setting| setting.is_one()))
        {
            true => self.params(&Place { slice: 0, depth: 0.0, name: "", inputs: &[] }).map(Some),
            false => Ok(None),
        }
    }

    /// For summaries: values where they are the same for every tensor, else as they were written.
    pub fn parameters(&self) -> Json {
        let complete = self.params(&Place { slice: 0, depth: 0.0, name: "", inputs: &[] }).map(|params| params.json());
        let mut said = complete.unwrap_or_default();
        let pieces = self.slices.len() > 1;
        for (name, setting) in self.scopes().flatten().filter(|(_, setting)| pieces || !setting.is_one()) {
            said[name] = match self.scopes().filter(|settings| settings.contains_key(name)).count() {
                1 if self.modules.is_empty() || self.shared.contains_key(name) => setting.raw.clone(),
                1 => json!(format!("{}, in one module", setting.raw)),
                scopes => json!(format!("varies, by {scopes} scopes of the recipe")),
            };
        }
        said
    }

    /// The recipe with every default filled in: what the manifest records, and what leftovers are recognised by.
    ///
    /// It is a recipe again: parsed, it asks for the same merge.
    pub fn resolved(&self) -> Json {
        let plain = self.plain().ok().flatten();
        let mut resolved = json!({
            "merge_method": self.spec.name,
            "base_model": self.base.as_ref().or(self.joined.as_ref()),
            "onto": self.onto,
            "donor": self.donor,
            "ignore": self.ignore,
            "dtype": self.dtype.map(Dtype::name),
            "seed": self.seed,
        });
        if self.wide && self.dtype != Some(Dtype::F64) {
            resolved["out_dtype"] = resolved["dtype"].take();
            resolved["dtype"] = json!(Dtype::F64.name());
        }
        let (shared, mut slices) = match plain {
            Some(params) => {
                let (shared, each) = params.spelled_out();
                (shared, json!([self.slices[0].spelled_out(Some(each))]))
            }
            None => (self.shared_and_defaults(), json!(self.slices.iter().map(|slice| slice.spelled_out(None)).collect::<Vec<_>>())),
        };
        resolved["parameters"] = shared;
        if !self.modifiers.is_empty() {
            let counts: Vec<usize> = self.slices.iter().map(|slice| slice.sources.len()).collect();
            resolved["modifiers"] = json!(self.modifiers.iter().map(|modifier| modifier.json(&counts)).collect::<Vec<_>>());
        }
        self.tokens.iter().for_each(|(key, value)| resolved[key] = value.clone());
        for (json, slice) in slices.as_array_mut().into_iter().flatten().zip(&self.slices) {
            if let (Some(base), Some(layers), Some(sources)) = (&self.base, &slice.base_layers, json["sources"].as_array_mut()) {
                sources.push(json!({"model": base, "layer_range": [layers.start, layers.end]}));
            }
        }
        if self.modules.is_empty() {
            let (key, list) = modules::under_key(slices, self.is_sliced());
            resolved[key] = list;
            return resolved;
        }
        let mut rest = slices.as_array_mut().into_iter().flatten().map(Json::take);
        let module = |(module, own): (&Module, &[Slice])| {
            let slices = rest.by_ref().take(own.len()).collect();
            (module.name.clone(), module.spelled_out(slices, own[0].is_range()))
        };
        resolved["modules"] = Json::Object(self.modules.iter().zip(self.pieces()).map(module).collect());
        resolved
    }

    /// The recipe's own parameters, with the defaults as a last word.
    fn shared_and_defaults(&self) -> Json {
        let count = self.slices[0].sources.len();
        let same = self.slices.iter().all(|slice| slice.sources.len() == count);
        // A share of models is not one value where the slices have different numbers of them.
        let tells = |param: &&Param| same || !matches!(param.default, Default::Share);
        let mut shared: Map<String, Json> = self.shared.iter().map(|(name, setting)| (name.clone(), setting.raw.clone())).collect();
        for param in self.spec.params.iter().filter(tells) {
            let default = param.default_for(self.from_file, count);
            let said = self.shared.get(param.name).map_or(default.clone(), |setting| setting.or_else(default));
            shared.insert(param.name.into(), said);
        }
        Json::Object(shared)
    }

    /// What to say of filters that match none of these tensors: most are slips.
    pub fn idle_filters(&self, tensors: &[&str]) -> Vec<String> {
        let idle = |(name, setting): (&String, &setting::Setting)| -> Vec<String> {
            let filters = setting.idle_filters(tensors);
            filters.into_iter().map(|filter| format!("the filter \"{filter}\" of {name} matches no tensor")).collect()
        };
        let mut said: Vec<String> = self.scopes().flatten().flat_map(idle).collect();
        said.sort();
        said.dedup();
        said
    }

    fn scopes(&self) -> impl Iterator<Item = &Settings> {
        let inner = self.slices.iter().flat_map(|slice| slice.sources.iter().map(|source| &source.settings).chain([&slice.settings]));
        inner.chain(self.modules.iter().map(|module| &module.settings)).chain([&self.shared])
    }

    /// Where the base goes, by the method: out of the list, or into it.
    fn place_base(&mut self, base: Option<String>) -> Result<()> {
        let Some(base) = base else {
            return match self.spec.base {
                Base::Required => Err(Error::recipe(format!(
                    "{} merges task vectors and needs a base: give --base MODEL (recipe key base_model)",
                    self.spec.name
                ))),
                _ => Ok(()),
            };
        };
        let mut joins = false;
        for slice in &mut self.slices {
            let at = slice.sources.iter().position(|source| source.model == base);
            match (self.spec.base, at) {
                (Base::Required | Base::Optional, Some(at)) => slice.base_layers = slice.sources.remove(at).layers,
                (Base::Required | Base::Optional, None) => slice.base_layers = slice.common_layers(&base)?,
                // mergekit appends it to `models`, and leaves `slices` as they are.
                (Base::Joins, None) if !slice.is_range() => {
                    slice.sources.push(Source { model: base.clone(), layers: None, settings: Settings::new() });
                    joins = true;
                }
                (Base::Joins, _) => {}
                (Base::First, Some(at)) => slice.sources[..=at].rotate_right(1),
                (Base::First, None) => {
                    let layers = slice.common_layers(&base)?;
                    slice.sources.insert(0, Source { model: base.clone(), layers, settings: Settings::new() });
                }
            }
        }
        if joins {
            self.notes.push(format!("{base} joins the average as one more model"));
        }
        match self.spec.base {
            Base::Required | Base::Optional => self.base = Some(base),
            _ if self.slices.iter().any(|slice| slice.sources.iter().any(|source| source.model == base)) => self.joined = Some(base),
            _ => self.donor = self.donor.take().or(Some(base)),
        }
        Ok(())
    }

    fn check_count(&self) -> Result<()> {
        let (least, most) = self.spec.models;
        for slice in &self.slices {
            let count = slice.sources.len();
            if count < least || count > most {
                let wanted = if least == most { format!("exactly {least}") } else { format!("at least {least}") };
                let named = slice.sources.iter().map(|source| source.model.as_str()).collect::<Vec<_>>().join(", ");
                let named = if named.is_empty() { String::new() } else { format!(" ({named})") };
                let beside = if self.base.is_some() { " beside the base" } else { "" };
                let place = slice.module.map_or(String::new(), |module| format!(" in the module {}", self.modules[module].name));
                return Err(Error::recipe(format!(
                    "{} merges {wanted} model{}{beside}, and was given {count}{named}{place}",
                    self.spec.name,
                    if least == 1 { "" } else { "s" }
                )));
            }
        }
        Ok(())
    }

    /// Takes out the keys that have no effect in mergekit either, and says so.
    fn drop_idle(&mut self) {
        for key in self.spec.idle.iter().chain([&IDLE]) {
            let inner =
                self.slices.iter_mut().flat_map(|slice| slice.sources.iter_mut().map(|s| &mut s.settings).chain([&mut slice.settings]));
            let inner = inner.chain(self.modules.iter_mut().map(|module| &mut module.settings));
            let dropped = inner.chain([&mut self.shared]).filter_map(|settings| settings.remove(*key)).count();
            if dropped > 0 {
                self.warnings.push(format!("{key} has no effect on {}", self.spec.name));
            }
        }
    }

    /// Every value that any tensor may get is checked now, before a file is opened.
    fn check_values(&self) -> Result<()> {
        let check = |settings: &Settings, model: Option<&str>| {
            settings.iter().try_for_each(|(name, setting)| params::check(self.spec.name, self.spec.params, name, model, &setting.values()))
        };
        for slice in &self.slices {
            slice.sources.iter().try_for_each(|source| check(&source.settings, Some(&source.model)))?;
            check(&slice.settings, None)?;
        }
        self.modules.iter().try_for_each(|module| check(&module.settings, None))?;
        check(&self.shared, None)?;
        // What a method has against its values together; where they vary, the plan finds out.
        self.plain()?.map_or(Ok(()), |params| (self.spec.bind)(&params).map(drop))
    }

    fn check_modifiers(&self) -> Result<()> {
        let Some(first) = self.modifiers.first() else { return Ok(()) };
        if self.base.is_none() {
            let (modifier, method) = (first.spec.name, self.spec.name);
            return Err(Error::recipe(match self.spec.base {
                Base::Optional => format!("{modifier} acts on a task vector: give {method} a base (--base MODEL, recipe key base_model)"),
                _ => format!("{modifier} acts on a task vector, and {method} merges weights: take a method that has a base"),
            }));
        }
        for slice in &self.slices {
            let models: Vec<&str> = slice.sources.iter().map(|source| source.model.as_str()).collect();
            self.modifiers.iter().try_for_each(|modifier| modifier.check(&models))?;
        }
        Ok(())
    }

    fn check_onto(&self) -> Result<()> {
        match &self.onto {
            Some(_) if self.base.is_none() => {
                Err(Error::recipe(format!("onto needs a method that merges task vectors; {} merges weights", self.spec.name)))
            }
            Some(_) if self.is_sliced() => Err(Error::recipe("onto adds to a whole model: it cannot be given with layer ranges (slices)")),
            _ => Ok(()),
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

    fn plain(recipe: &Recipe) -> Params {
        recipe.plain().unwrap().unwrap()
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
            Recipe::parse(&text, false).map(|r| (r.base.clone(), r.models().into_iter().cloned().collect::<Vec<_>>())).unwrap()
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
        assert_eq!((plain(&again).each("weight"), plain(&again).word("rescale")), (vec![0.3, 0.5], "l1"));
    }

    #[test]
    fn a_recipe_file_keeps_mergekits_density() {
        let text = r#"{"merge_method": "ties", "base_model": "o", "models": ["a", "b"]}"#;
        assert_eq!(plain(&Recipe::parse(text, false).unwrap()).each("density"), [0.2, 0.2]);
        let file = Recipe::parse(text, true).unwrap();
        assert_eq!(plain(&file).each("density"), [1.0, 1.0]);
        assert_eq!(file.notes, ["density 1: nothing is dropped"]);
        assert_eq!(plain(&file).each("weight"), [0.5, 0.5]);
    }
}
