//! Small models for tests: written by hand as the safetensors format has it, merged by the engine, read back by another's reader.

#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mergecore::checkpoint::{Checkpoint, Lent, Tensor};
use mergecore::dtype::Dtype;
use mergecore::error::Result;
use mergecore::layout::{self, Layout, DEFAULT_SHARD};
use mergecore::plan::{self, Plan};
use mergecore::recipe::Recipe;
use mergecore::run::device::Device;
use mergecore::run::{disk, memory, Limits, Watch};
use serde_json::{json, Value as Json};

pub mod family;
pub mod formula;

use crate::naive::numbers;

/// A tensor's name, type, shape and bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

impl Part {
    pub fn values(&self) -> Vec<f64> {
        self.bytes.chunks(self.dtype.size()).map(|b| numbers::decode(self.dtype, b)).collect()
    }

    fn lend(&self) -> Tensor<'_> {
        Tensor { dtype: self.dtype, shape: self.shape.clone(), file: 0, offset: 0, source: Arc::new(Lent(&self.bytes)) }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    pub parts: Vec<Part>,
    pub config: Option<Json>,
}

impl Model {
    pub fn floats(mut self, name: &str, dtype: Dtype, shape: &[u64], values: &[f64]) -> Model {
        assert_eq!(shape.iter().product::<u64>(), values.len() as u64);
        let bytes = values.iter().flat_map(|x| numbers::encode(dtype, *x)).collect();
        self.parts.push(Part { name: name.into(), dtype, shape: shape.into(), bytes });
        self
    }

    pub fn raw(mut self, name: &str, dtype: Dtype, shape: &[u64], bytes: &[u8]) -> Model {
        self.parts.push(Part { name: name.into(), dtype, shape: shape.into(), bytes: bytes.into() });
        self
    }

    pub fn config(mut self, config: Json) -> Model {
        self.config = Some(config);
        self
    }

    pub fn without(mut self, name: &str) -> Model {
        self.parts.retain(|part| part.name != name);
        self
    }

    pub fn part(&self, name: &str) -> &Part {
        self.parts.iter().find(|part| part.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn float_parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.dtype.is_float())
    }

    /// Writes `folder`/model.safetensors, and config.json if there is a config.
    pub fn save(&self, folder: &Path) {
        self.save_config(folder);
        fs::write(folder.join("model.safetensors"), image(&self.parts)).unwrap();
    }

    /// Writes the tensors dealt out to `shards` files, with the index that says so.
    pub fn save_shards(&self, folder: &Path, shards: usize) {
        self.save_config(folder);
        let name = |shard: usize| format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        let mut map = serde_json::Map::new();
        for shard in 0..shards {
            let parts: Vec<Part> = self.parts.iter().skip(shard).step_by(shards).cloned().collect();
            map.extend(parts.iter().map(|part| (part.name.clone(), json!(name(shard)))));
            fs::write(folder.join(name(shard)), image(&parts)).unwrap();
        }
        save_index(folder, &json!({"metadata": {}, "weight_map": map}));
    }

    fn save_config(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        if let Some(config) = &self.config {
            fs::write(folder.join("config.json"), config.to_string()).unwrap();
        }
    }

    /// The model as the engine sees arrays in memory.
    pub fn lend(&self, reference: &str) -> Checkpoint<'_> {
        Checkpoint::lent(reference, self.parts.iter().map(|part| (part.name.clone(), part.lend())).collect())
    }
}

pub fn save_index(folder: &Path, index: &Json) {
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// A safetensors file: the header's length in 8 bytes, the header, the bytes of the tensors one after another.
pub fn image(parts: &[Part]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for part in parts {
        let span = [data.len(), data.len() + part.bytes.len()];
        header.insert(part.name.clone(), json!({"dtype": part.dtype.code(), "shape": part.shape, "data_offsets": span}));
        data.extend(&part.bytes);
    }
    framed(Json::Object(header).to_string().as_bytes(), &data)
}

/// Any header before any data.
pub fn framed(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// How to run: what no byte of the output may depend on, and how the output is cut into files.
#[derive(Clone, Copy)]
pub struct Run {
    pub threads: usize,
    pub tile: u64,
    pub shard: u64,
    pub overwrite: bool,
    pub cap: Option<u64>,
}

pub const RUN: Run = Run { threads: 2, tile: 1, shard: DEFAULT_SHARD, overwrite: false, cap: None };

/// Plans a recipe whose models are named by their folders in `dir`.
pub fn plan(dir: &Path, recipe: &Json) -> Result<Plan<'static>> {
    let recipe = Recipe::parse(&recipe.to_string(), false)?;
    let open = |name: String| Checkpoint::open(&name, &dir.join(&name));
    let checkpoints = recipe.references().into_iter().map(open).collect::<Result<_>>()?;
    plan::plan(recipe, checkpoints)
}

pub fn laid_out(plan: &Plan, run: Run) -> Result<(Layout, Limits)> {
    Ok((layout::layout(plan, run.shard)?, Limits::choose(plan, Some(run.threads), run.cap, Some(run.tile))?))
}

/// Merges into a folder; the report.
pub fn to_disk(dir: &Path, recipe: &Json, out: &Path, run: Run) -> Result<Json> {
    finish(&plan(dir, recipe)?, out, run, &Watch::default())
}

/// Merges what is planned into a folder; the report.
pub fn finish(plan: &Plan, out: &Path, run: Run, watch: &Watch) -> Result<Json> {
    finish_on(None, plan, out, run, watch)
}

/// The same on a device, if one is given.
pub fn finish_on(device: Option<&dyn Device>, plan: &Plan, out: &Path, run: Run, watch: &Watch) -> Result<Json> {
    let (layout, limits) = laid_out(plan, run)?;
    let order = disk::Order { title: String::new(), plan, layout: &layout, out: out.into(), side_files: Vec::new() };
    disk::merge(order, limits, run.overwrite, device, watch).map(|report| report.0)
}

/// Merges arrays; the merged tensors by name.
pub fn in_memory(models: &[(String, Model)], recipe: &Json, run: Run) -> Result<Model> {
    let recipe = Recipe::parse(&recipe.to_string(), false)?;
    let checkpoints = recipe.references().iter().map(|name| family::member(models, name).lend(name)).collect();
    into_memory(&plan::plan(recipe, checkpoints)?, run)
}

/// Merges what is planned into arrays.
pub fn into_memory(plan: &Plan, run: Run) -> Result<Model> {
    let limits = Limits::choose(plan, Some(run.threads), run.cap, Some(run.tile))?;
    // Not zeros, so that a byte that is never written shows.
    let mut out: BTreeMap<String, Vec<u8>> = plan.jobs.iter().map(|job| (job.name.clone(), vec![0xAA; job.bytes() as usize])).collect();
    memory::merge(plan, limits, out.iter_mut().map(|(name, bytes)| (name.clone(), &mut bytes[..])).collect(), &Watch::default())?;
    let part = |(name, bytes)| {
        let job = plan.jobs.iter().find(|job| job.name == name).expect("an output is a job's");
        Part { name, dtype: job.dtype, shape: job.shape.clone(), bytes }
    };
    Ok(Model { parts: out.into_iter().map(part).collect(), config: None })
}

/// The safetensors files of a folder, by name.
pub fn shards(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "safetensors"));
    files.sort();
    files
}

/// A model as the safetensors crate reads it, its tensors by name.
pub fn read_back(folder: &Path) -> Model {
    let mut parts = Vec::new();
    for path in shards(folder) {
        let bytes = fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for (name, view) in file.tensors() {
            let dtype = Dtype::from_code(&view.dtype().to_string()).expect("a type of the format");
            let shape = view.shape().iter().map(|n| *n as u64).collect();
            parts.push(Part { name, dtype, shape, bytes: view.data().into() });
        }
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    Model { parts, config: None }
}

/// Every file of a folder with its bytes, by name.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap())).collect()
}
