//! Which files of a folder are the model?

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;

use super::header::Pairs;
use super::{missing, Tensor};
use crate::error::{Error, Result};

/// One file or an index of shards, in the order of preference: where a model has both formats they hold the same.
const SINGLE: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
const INDEX: [&str; 2] = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];
const ADAPTER: &str = "adapter_model.safetensors";
const ADAPTER_INDEX: &str = "adapter_model.safetensors.index.json";
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// What a training run leaves beside the weights, in torch's format too.
const NO_WEIGHTS: [&str; 7] = ["training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states", "adapter_"];

/// The shards of a model, and which tensor the index puts where (if there is an index).
pub struct Found {
    pub files: Vec<PathBuf>,
    index: Option<Index>,
}

/// The part of an index that is read; as pairs, so that a name given twice can be seen.
#[derive(Deserialize)]
struct IndexFile {
    weight_map: Option<Pairs>,
}

struct Index {
    path: PathBuf,
    /// tensor → file
    map: BTreeMap<String, PathBuf>,
}

/// Finds the files without opening a shard.
pub fn find(path: &Path) -> Result<Found> {
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => missing(path, "no such file or folder"),
        _ => Error::opening(path, &e),
    })?;
    if meta.is_file() {
        if is_safetensors(path) || is_torch(&path.to_string_lossy()) {
            return Ok(Found { files: vec![path.into()], index: None });
        }
        return Err(Error::model(format!("{}: is no .safetensors, .bin, .pt or .pth file; give the model's folder", path.display())));
    }
    let names = listing(path)?;
    let named = |name: &str| !NO_WEIGHTS.iter().any(|start| name.starts_with(start));
    let safe = |name: &str| name.ends_with(".safetensors");
    for (i, of_format) in [safe, is_torch].into_iter().enumerate() {
        let single = names.iter().any(|n| n == SINGLE[i]);
        if names.iter().any(|n| n == INDEX[i]) {
            let found = read_index(path, INDEX[i])?;
            // transformers would take the single file, vLLM the shards.
            if single && !found.files.contains(&path.join(SINGLE[i])) {
                return Err(Error::model(format!(
                    "{}: holds {} and an index of other shards, and loaders differ in which they take; delete the one that is out of date",
                    path.display(),
                    SINGLE[i]
                )));
            }
            return Ok(found);
        }
        if single {
            return Ok(Found { files: vec![path.join(SINGLE[i])], index: None });
        }
        let shards: Vec<&String> = names.iter().filter(|n| of_format(n) && named(n)).collect();
        match shards[..] {
            [one] => return Ok(Found { files: vec![path.join(one)], index: None }),
            [] => {}
            [one, ..] => {
                let (count, end) = (shards.len(), one.rsplit('.').next().unwrap_or_default());
                return Err(Error::model(format!(
                    "{}: holds {count} .{end} files and no {} that says which belong together; download it, or give one file",
                    path.display(),
                    INDEX[i]
                )));
            }
        }
    }
    if names.iter().any(|n| n == ADAPTER_CONFIG) {
        return Err(bare_adapter(path));
    }
    Err(Error::model(format!("{}: {}", path.display(), why_none(&names))))
}

/// Whether a file is read as safetensors; by its name, as every loader does.
pub fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "safetensors")
}

fn is_torch(name: &str) -> bool {
    [".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end))
}

/// Finds an adapter's weights.
pub fn find_adapter(path: &Path) -> Result<Found> {
    let bad = |what: &str| Error::model(format!("{}: {what}", path.display()));
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(bad("is a file; give the adapter's folder, in which adapter_config.json says how it is scaled")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing(path, "no such folder")),
        Err(e) => return Err(Error::opening(path, &e)),
    }
    let names = listing(path)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    if !has(ADAPTER_CONFIG) {
        return Err(bad("is no adapter: it has no adapter_config.json"));
    }
    if has(ADAPTER_INDEX) {
        return read_index(path, ADAPTER_INDEX);
    }
    if has(ADAPTER) {
        return Ok(Found { files: vec![path.join(ADAPTER)], index: None });
    }
    Err(bad(match has("adapter_model.bin") {
        true => "holds only pickled weights (adapter_model.bin), which are not read: save the adapter as safetensors",
        false => "has no adapter_model.safetensors; is the download finished?",
    }))
}

fn listing(path: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect())
        .map_err(|e| Error::opening(path, &e))?;
    names.sort();
    Ok(names)
}

/// An adapter where a model should be: its config knows what it belongs on.
fn bare_adapter(path: &Path) -> Error {
    let config = std::fs::read_to_string(path.join(ADAPTER_CONFIG)).ok();
    let config = config.and_then(|text| serde_json::from_str::<Json>(&text).ok()).unwrap_or_default();
    let model = config["base_model_name_or_path"].as_str().filter(|name| !name.is_empty()).unwrap_or("MODEL");
    Error::model(format!("{}: is an adapter, not a model: give {model}+{0}", path.display()))
}

fn why_none(names: &[String]) -> &'static str {
    let any = |end: &str| names.iter().any(|n| n.ends_with(end));
    if names.is_empty() {
        "the folder is empty; is the download finished?"
    } else if any(".gguf") {
        "holds only GGUF weights, which are quantised: merge the unquantised checkpoint"
    } else {
        "holds no .safetensors file and no pytorch_model.bin"
    }
}

fn read_index(folder: &Path, name: &str) -> Result<Found> {
    let path = folder.join(name);
    let bad = |what: String| Error::model(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|e| Error::opening(&path, &e))?;
    let index: IndexFile =
        serde_json::from_str(&text).map_err(|e| bad(format!("is not valid JSON with a weight_map ({e}); download it again")))?;
    let Some(Pairs(entries)) = index.weight_map else { return Err(bad("has no weight_map; download it again".into())) };
    let (mut map, mut files) = (BTreeMap::new(), Vec::new());
    for (tensor, file) in &entries {
        let name = file.as_str().ok_or_else(|| bad(format!("gives no file for tensor {tensor}; download it again")))?;
        let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || name.is_empty() {
            return Err(bad(format!("points to \"{name}\" for tensor {tensor}, which is outside the model's folder")));
        }
        let file = folder.join(name);
        if !files.contains(&file) {
            if !file.is_file() {
                return Err(missing(&path, &format!("names the shard {name}, which is not there; is the download finished?")));
            }
            files.push(file.clone());
        }
        if map.insert(tensor.clone(), file).is_some() {
            return Err(bad(format!("names the tensor {tensor} twice; download it again")));
        }
    }
    files.sort();
    Ok(Found { files, index: Some(Index { path, map }) })
}

impl Found {
    /// This file is where the index puts the tensor. A tensor that it does not know, or elsewhere, is an error: loaders read whole shards,
    /// whatever the index says.
    pub fn check_place(&self, tensor: &str, file: &Path) -> Result<()> {
        let Some(index) = &self.index else { return Ok(()) };
        let (path, file_name) = (index.path.display(), file.display());
        match index.map.get(tensor) {
            Some(place) if place == file => Ok(()),
            Some(place) => Err(Error::model(format!(
                "{path}: puts tensor {tensor} into {}, and {file_name} holds one, too; is it another version's index?",
                place.display()
            ))),
            None => Err(Error::model(format!("{path}: does not list tensor {tensor} of {file_name}; is it another version's index?"))),
        }
    }

    /// Every tensor of the index must have been found.
    pub fn check_complete(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let Some(index) = &self.index else { return Ok(()) };
        match index.map.iter().find(|(name, _)| !tensors.contains_key(*name)) {
            Some((name, file)) => Err(Error::model(format!(
                "{}: puts tensor {name} into {}, which does not hold it; download both again",
                index.path.display(),
                file.display()
            ))),
            None => Ok(()),
        }
    }
}

/// config.json beside the weights, if there is one.
pub fn config(path: &Path) -> Result<Option<Json>> {
    let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    let path = folder.join("config.json");
    match std::fs::read_to_string(&path) {
        // Python writes Infinity and NaN, which JSON does not have; nothing that is read here is a number.
        Ok(text) => serde_json::from_str(&text)
            .or_else(|e| {
                serde_json::from_str(&text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")).map_err(|_| e)
            })
            .map(Some)
            .map_err(|e| Error::model(format!("{}: is not valid JSON ({e}); download it again", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::opening(&path, &e)),
    }
}
