//! What does adapter_config.json say of how the factors are scaled?
//!
//! Every key that could change the result is either used or must be off. A key that is not known here is let pass only where it says
//! nothing (null, false, empty), as newer versions of peft write for what an adapter does not use.

use std::path::Path;

use regex::Regex;
use serde_json::Value as Json;

use crate::error::{Error, Result};

pub struct Config {
    rank: u64,
    alpha: f64,
    ranks: Vec<(Regex, u64)>,
    alphas: Vec<(Regex, f64)>,
    /// Scaled by √r instead of r.
    root: bool,
    /// Weights are split into magnitude and direction.
    pub dora: bool,
    /// Weights are stored as (in, out).
    pub transposed: bool,
}

/// Keys that say how the adapter was trained or what it was trained on: the tensors themselves tell what there is of it.
const IDLE: [&str; 22] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "velora_config",
    "library_name",
    "tags",
];

const USED: [&str; 10] = [
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "init_lora_weights",
    "lora_alpha",
    "peft_type",
    "r",
    "rank_pattern",
    "use_dora",
    "use_rslora",
];

/// Keys that must be off, and why.
const OFF: [(&str, &str); 10] = [
    ("alora_invocation_tokens", "acts on some tokens only, which no weight can"),
    ("arrow_config", "chooses among adapters while it runs, which no weight can"),
    ("ensure_weight_tying", "ties factors to one another, which is not supported"),
    ("layer_replication", "repeats layers of the model: stack them first with a recipe of slices"),
    ("lora_bias", "trains biases, which is not supported"),
    ("megatron_config", "is for Megatron's layers, which are not supported"),
    ("target_parameters", "adapts parameters that are no module's weight, which is not supported"),
    ("trainable_token_indices", "trains single tokens' rows, which is not supported"),
    ("use_bdlora", "makes the factors block-diagonal, which is not supported"),
    ("use_qalora", "pools the inputs, which is not supported"),
];

/// Reads the text of the file at `path`, which messages name.
pub fn parse(path: &Path, text: &[u8]) -> Result<Config> {
    let bad = |what: String| Error::model(format!("{}: {what}", path.display()));
    let json: Json = serde_json::from_slice(text).map_err(|e| bad(format!("is not valid JSON ({e}); download it again")))?;
    let keys = json.as_object().ok_or_else(|| bad("is no JSON object; download it again".into()))?;
    match &json["peft_type"] {
        Json::String(kind) if kind == "LORA" => {}
        Json::Null => return Err(bad("has no peft_type: is it PEFT's? Only LoRA adapters are merged".into())),
        other => return Err(bad(format!("peft_type is {other}, and only LORA adapters are merged"))),
    }
    for (key, value) in keys.iter().filter(|(_, value)| !is_off(value)) {
        if let Some((_, why)) = OFF.iter().find(|(off, _)| off == key) {
            return Err(bad(format!("{key} is {value}: it {why}; merge the adapter with peft (merge_and_unload) and give the folder")));
        }
        if !IDLE.contains(&key.as_str()) && !USED.contains(&key.as_str()) {
            return Err(bad(format!("the key {key} ({value}) is not known, and might change the result; merge the adapter with peft")));
        }
    }
    match &json["bias"] {
        Json::Null => {}
        Json::String(bias) if bias == "none" => {}
        other => return Err(bad(format!("bias is {other}: adapters that train biases are not supported; merge it with peft"))),
    }
    match &json["init_lora_weights"] {
        Json::Null | Json::Bool(_) => {}
        Json::String(how) if ["gaussian", "eva", "orthogonal"].contains(&how.as_str()) => {}
        other => {
            return Err(bad(format!(
                "init_lora_weights is {other}: it takes a part out of the model's own weights; save the adapter as a plain LoRA \
                 (peft: save_pretrained(..., path_initial_model_for_weight_conversion=...))"
            )))
        }
    }
    let flag = |key: &str| match &json[key] {
        Json::Null => Ok(false),
        value => value.as_bool().ok_or_else(|| bad(format!("{key} is {value}, and must be true or false"))),
    };
    let rank = |key: &str, value: &Json| {
        value.as_u64().filter(|r| *r > 0).ok_or_else(|| bad(format!("{key} is {value}, and must be a whole number above 0")))
    };
    let alpha = |key: &str, value: &Json| {
        value.as_f64().filter(|a| a.is_finite()).ok_or_else(|| bad(format!("{key} is {value}, and must be a number")))
    };
    let pattern = |key: &str, pattern: &str| {
        // peft's rule: the end of a module's name, from a dot on. The first that fits counts.
        let whole = format!(r"^(.*\.)?({pattern})$");
        Regex::new(&whole).map_err(|_| bad(format!("{key}: \"{pattern}\" is no regular expression that can be read here")))
    };
    Ok(Config {
        rank: rank("r", &json["r"])?,
        alpha: alpha("lora_alpha", &json["lora_alpha"])?,
        ranks: patterns(&json["rank_pattern"], |p, r| Ok((pattern("rank_pattern", p)?, rank("rank_pattern", r)?)))?,
        alphas: patterns(&json["alpha_pattern"], |p, a| Ok((pattern("alpha_pattern", p)?, alpha("alpha_pattern", a)?)))?,
        root: flag("use_rslora")?,
        dora: flag("use_dora")?,
        transposed: flag("fan_in_fan_out")?,
    })
}

fn is_off(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::Array(list) => list.is_empty(),
        Json::Object(keys) => keys.is_empty(),
        _ => false,
    }
}

/// A table's rows, in the order in which they are written.
fn patterns<T>(table: &Json, row: impl Fn(&str, &Json) -> Result<T>) -> Result<Vec<T>> {
    table.as_object().into_iter().flatten().map(|(pattern, value)| row(pattern, value)).collect()
}

impl Config {
    pub fn rank(&self, module: &str) -> u64 {
        first(&self.ranks, module).unwrap_or(self.rank)
    }

    pub fn scale(&self, module: &str) -> f64 {
        let (alpha, rank) = (first(&self.alphas, module).unwrap_or(self.alpha), self.rank(module) as f64);
        alpha / if self.root { rank.sqrt() } else { rank }
    }
}

fn first<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &str) -> Result<Config> {
        let text = format!("{{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8 {keys}}}");
        parse(Path::new("adapter_config.json"), text.as_bytes())
    }

    #[test]
    fn a_pattern_is_the_end_of_a_name_and_the_first_one_counts() {
        let keys = r#", "rank_pattern": {"q_proj": 2, "layers.0.*": 16}, "alpha_pattern": {"^model.layers.1.up_proj": 3, "proj": 5}"#;
        let config = read(keys).unwrap();
        assert_eq!(config.rank("model.layers.0.q_proj"), 2);
        assert_eq!(config.rank("model.layers.0.up_proj"), 16);
        assert_eq!(config.rank("model.layers.1.up_proj"), 4);
        assert_eq!(config.rank("model.layers.1.my_q_proj"), 4);
        assert_eq!(config.scale("model.layers.1.up_proj"), 3.0 / 4.0);
        assert_eq!(config.scale("x.proj"), 5.0 / 4.0);
        assert_eq!(read(r#", "use_rslora": true"#).unwrap().scale("x"), 4.0);
    }

    #[test]
    fn what_is_not_known_may_only_be_off() {
        assert!(read(r#", "future": null, "other": [], "third": false"#).is_ok());
        for (keys, word) in [
            (r#", "future": 1"#, "future"),
            (r#", "layer_replication": [[0, 2]]"#, "layer_replication"),
            (r#", "bias": "all""#, "bias"),
            (r#", "init_lora_weights": "pissa_niter_4""#, "pissa"),
            (r#", "r": 0"#, "r is 0"),
            (r#", "use_dora": "yes""#, "use_dora"),
            (r#", "rank_pattern": {"(": 1}"#, "rank_pattern"),
            (r#", "peft_type": "IA3""#, "IA3"),
        ] {
            let error = read(keys).err().unwrap_or_else(|| panic!("{keys} is read"));
            assert!(error.message.contains(word), "{error}");
        }
    }
}
