//! A base and its fine-tunes, and the recipes that a method of the registry can be asked to follow with them.

use std::path::Path;

use mergecore::dtype::Dtype;
use mergecore::methods::{Base, Spec};
use mergecore::params::{self, Kind, Param};
use serde_json::{json, Map, Value as Json};

use super::Model;
use crate::rows::{Dice, Flavour};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// bf16 with some f16 and f32, as real models are.
    Plain,
    /// Each member has another type in each tensor, f64 among them in some.
    Mixed,
    /// Few distinct values: equal magnitudes, votes that cancel, deltas of zero.
    Tied,
    /// Some NaN, infinities, denormals and negative zeros.
    Wild,
}

pub const MAKES: [Make; 4] = [Make::Plain, Make::Mixed, Make::Tied, Make::Wild];

/// The families that a method merges from end to end, whatever it is asked: a matrix that is not finite has no singular values.
pub fn makes(spec: &Spec) -> &'static [Make] {
    if spec.params.iter().any(|param| param.name == "matrices") {
        &[Make::Plain, Make::Mixed, Make::Tied]
    } else {
        &MAKES
    }
}

/// The float tensors with their types, and the scale of their values: their own, so that a threshold over the model is none over a tensor.
/// More blocks than threads (and more elements than a threshold is found in without a sample), less than one, a prime, one number, none.
const TENSORS: [(&str, &[u64], Dtype, f64); 8] = [
    ("model.embed_tokens.weight", &[61, 31], Dtype::BF16, 1.0),
    ("model.empty", &[0, 4], Dtype::BF16, 1.0),
    ("model.layers.0.mlp.up_proj.weight", &[260, 253], Dtype::BF16, 0.5),
    ("model.layers.1.mlp.up_proj.weight", &[3_001], Dtype::F32, 4.0),
    ("model.norm.weight", &[127], Dtype::F16, 8.0),
    ("model.scale", &[], Dtype::F32, 1.0),
    ("model.small", &[41], Dtype::F32, 1e-5),
    ("model.layers.1.mlp.fc.weight", &[7, 19], Dtype::BF16, 1.0),
];

/// The base and the fine-tunes a, b and c.
pub fn family(make: Make) -> Vec<(String, Model)> {
    ["base", "a", "b", "c"].iter().enumerate().map(|(i, name)| (name.to_string(), make_member(make, i))).collect()
}

pub fn member<'m>(family: &'m [(String, Model)], name: &str) -> &'m Model {
    &family.iter().find(|(other, _)| other == name).expect("a member of the family").1
}

fn make_member(make: Make, member: usize) -> Model {
    let mut model = Model::default();
    for (t, (name, shape, dtype, scale)) in TENSORS.iter().enumerate() {
        let count = shape.iter().product::<u64>() as usize;
        let (mut base, mut own) = (Dice(t as u64), Dice((t + 100 * member) as u64));
        let value = |_| {
            let x = value(&mut base, make, *scale);
            let delta = if member == 0 || own.below(5) == 0 { 0.0 } else { value(&mut own, make, scale * 0.05) };
            match own.below(40) {
                0 if make == Make::Wild && member > 0 => {
                    crate::rows::element_of::<f32>(own.next(), Flavour::Wild).clamp(-1e30, 1e30) as f64
                }
                1 if make == Make::Wild => [f64::NAN, f64::INFINITY, -0.0, 1e-42][own.below(4) as usize],
                _ => x + delta,
            }
        };
        let values: Vec<f64> = (0..count).map(value).collect();
        let dtype = match make {
            // f64 in every other tensor, by one member.
            Make::Mixed if t % 2 == 0 => Dtype::FLOATS[(t + member) % 4],
            Make::Mixed => Dtype::FLOATS[1 + (t + member) % 3],
            _ => *dtype,
        };
        model = model.floats(name, dtype, shape, &values);
    }
    let own = (member as i64 * 7).to_le_bytes();
    model
        .raw("model.layers.0.attn.rotary_emb.inv_freq", Dtype::I64, &[1], &own)
        .raw("model.steps", Dtype::I64, &[3], &[1, 0, 0, 0, 0, 0, 0, 0].repeat(3))
        .raw("model.flags", Dtype::Bool, &[5], &[1, 0, 0, 1, 1])
}

fn value(dice: &mut Dice, make: Make, scale: f64) -> f64 {
    match make {
        // More often below zero than above, so that a majority is no matter of chance.
        Make::Tied => [-0.5, -0.25, -0.25, -0.25, 0.0, 0.25, 0.5][dice.below(7) as usize],
        _ => dice.unit() * scale,
    }
}

pub fn save(family: &[(String, Model)], dir: &Path) {
    family.iter().for_each(|(name, model)| model.save(&dir.join(name)));
}

/// Values for a method's parameters; a list is one a model.
pub type Setting = Map<String, Json>;

/// How many models the laws give a method.
pub fn count(spec: &Spec) -> usize {
    spec.models.1.min(3)
}

/// A recipe for the family: base, a, b, c as far as the method takes them.
pub fn recipe(spec: &Spec, setting: &Setting) -> Json {
    let mut models: Vec<Json> = ["a", "b", "c"][..count(spec)].iter().map(|name| json!({"model": name, "parameters": {}})).collect();
    let mut shared = Map::new();
    for (key, value) in setting {
        match value {
            Json::Array(each) => models.iter_mut().zip(each).for_each(|(model, value)| model["parameters"][key] = value.clone()),
            one => drop(shared.insert(key.clone(), one.clone())),
        }
    }
    let mut recipe = json!({"merge_method": spec.name, "models": models, "parameters": shared, "seed": 3});
    if spec.base == Base::Required {
        recipe["base_model"] = json!("base");
    }
    recipe
}

/// The recipe, and for a method that takes a base or none, the one with a base as well.
pub fn recipes(spec: &Spec, setting: &Setting) -> Vec<Json> {
    let mut all = vec![recipe(spec, setting)];
    if spec.base == Base::Optional {
        all.push(all[0].clone());
        all[1]["base_model"] = json!("base");
    }
    all
}

/// A setting in which no parameter is neutral: weights that differ and do not sum to 1, some density, some λ.
///
/// All are sums of few powers of two, so that votes which cancel do so in any order: an election that hangs on a rounding is not what the
/// laws are about.
pub fn setting(spec: &Spec) -> Setting {
    spec.params.iter().map(|param| (param.name.to_string(), spread(param, [0.625, 0.875, 0.25], count(spec)))).collect()
}

/// The range of a parameter, as far as the others' values leave it: DELLA's density ± epsilon are probabilities.
fn range(param: &Param) -> (f64, f64) {
    match param.kind {
        Kind::Number { min, max } if min.is_finite() => (min, if param.per_model && param.name == "epsilon" { 0.09375 } else { max }),
        _ => (f64::NEG_INFINITY, f64::INFINITY),
    }
}

fn spread(param: &Param, shares: [f64; 3], models: usize) -> Json {
    let (min, max) = range(param);
    let number = |share: f64| match param.kind {
        Kind::Whole { .. } => json!((min + share * (max - min)).round()),
        Kind::Number { .. } if min.is_finite() => json!(min + share * (max - min)),
        Kind::Number { .. } => json!(share),
        _ => param.default.json(),
    };
    match param.per_model {
        true => shares[..models].iter().map(|share| number(*share)).collect(),
        false => number(shares[0]),
    }
}

/// The other values that a parameter can take: every flag and word, another number, the least of a count.
pub fn others(param: &Param, models: usize) -> Vec<Json> {
    match (param.kind, param.default) {
        // A tolerance shows where it is small.
        (Kind::Number { min, .. }, params::Default::Number(default)) if min.is_finite() && !param.per_model => {
            vec![spread(param, [0.375, 0.75, 0.5], models), json!(default)]
        }
        (Kind::Whole { min, .. }, _) => vec![json!(min)],
        (Kind::NumberOr { words, .. }, _) => words.iter().map(|word| json!(word)).chain([json!(0.0625)]).collect(),
        (Kind::Number { .. }, _) => vec![spread(param, [0.375, 0.75, 0.5], models)],
        (Kind::Flag, params::Default::Flag(default)) => vec![json!(!default)],
        (Kind::Word { words, .. }, params::Default::Word(default)) => words.iter().filter(|w| **w != default).map(|w| json!(w)).collect(),
        _ => panic!("{} and its default are of two kinds", param.name),
    }
}

/// The ends of a parameter's range: where formulas divide by nothing.
pub fn ends(param: &Param, models: usize) -> Vec<Json> {
    let (min, max) = range(param);
    let numbers = match param.kind {
        Kind::Number { .. } if min.is_finite() => vec![min, max],
        Kind::Whole { min, max } => vec![min, max],
        Kind::Number { .. } => vec![0.0, -1.0, 2.0],
        _ => Vec::new(),
    };
    numbers.into_iter().map(|x| if param.per_model { json!(vec![x; models]) } else { json!(x) }).collect()
}

/// The setting, and each setting that differs from it in one parameter.
pub fn settings(spec: &Spec, values: impl Fn(&Param, usize) -> Vec<Json>) -> Vec<Setting> {
    let first = setting(spec);
    let mut all = vec![first.clone()];
    for param in spec.params {
        for value in values(param, count(spec)) {
            let mut other = first.clone();
            other.insert(param.name.into(), value);
            all.push(other);
        }
    }
    all
}
