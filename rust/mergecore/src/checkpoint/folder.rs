//! Which files of a folder are the model?

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value as Json;

use super::{missing, Tensor};
use crate::error::{Error, Result};

/// One file or an index of shards, in the order of preference: where a model has both formats they hold the same.
const SINGLE: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
const INDEX: [&str; 2] = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];

/// What a training run leaves beside the weights, in torch's format too.
const NO_WEIGHTS: [&str; 7] = ["training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states", "adapter_"];

/// The shards of a model, and which tensor the index puts where (if there is an index).
pub struct Found {
    pub files: Vec<PathBuf>,
    index: Option<Index>,
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
    let mut names: Vec<String> = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect())
        .map_err(|e| Error::opening(path, &e))?;
    names.sort();
    let named = |name: &str| !NO_WEIGHTS.iter().any(|start| name.starts_with(start));
    let safe = |name: &str| name.ends_with(".safetensors");
    for (i, of_format) in [safe, is_torch].into_iter().enumerate() {
        if names.iter().any(|n| n == INDEX[i]) {
            return read_index(path, INDEX[i]);
        }
        if names.iter().any(|n| n == SINGLE[i]) {
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
    Err(Error::model(format!("{}: {}", path.display(), why_none(&names))))
}

/// Whether a file is read as safetensors; by its name, as every loader does.
pub fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "safetensors")
}

fn is_torch(name: &str) -> bool {
    [".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end))
}

fn why_none(names: &[String]) -> &'static str {
    let any = |end: &str| names.iter().any(|n| n.ends_with(end));
    if names.is_empty() {
        "the folder is empty; is the download finished?"
    } else if names.iter().any(|n| n == "adapter_config.json") {
        "is an adapter, not a model: merge it into its base first"
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
    let json: Json = serde_json::from_str(&text).map_err(|e| bad(format!("is not valid JSON ({e}); download it again")))?;
    let entries = json["weight_map"].as_object().ok_or_else(|| bad("has no weight_map; download it again".into()))?;
    let (mut map, mut files) = (BTreeMap::new(), Vec::new());
    for (tensor, file) in entries {
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
        map.insert(tensor.clone(), file);
    }
    files.sort();
    Ok(Found { files, index: Some(Index { path, map }) })
}

impl Found {
    /// Whether this file is where the index puts the tensor. A tensor that the index does not know is an error: a stale index would lose it.
    pub fn belongs(&self, tensor: &str, file: &Path) -> Result<bool> {
        let Some(index) = &self.index else { return Ok(true) };
        match index.map.get(tensor) {
            Some(place) => Ok(place == file),
            None => Err(Error::model(format!(
                "{}: does not list tensor {tensor} of {}; is it another version's index?",
                index.path.display(),
                file.display()
            ))),
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
