//! Where will every output byte go? Shards, headers and offsets, before any arithmetic.

use std::collections::BTreeMap;

use serde_json::{json, Map, Value as Json};

use crate::error::{Error, Result};
use crate::plan::Plan;

/// Names in the output that no side file may have.
pub const MANIFEST: &str = "mergecore.json";
pub const INDEX: &str = "model.safetensors.index.json";

pub const DEFAULT_SHARD: u64 = 5_000_000_000;

/// The files of the output and each job's place in them.
pub struct Layout {
    pub files: Vec<FileLayout>,
    /// Per job: which file, and at which byte of it the tensor begins.
    pub places: Vec<(usize, u64)>,
    /// The jobs by name.
    names: BTreeMap<String, usize>,
    /// model.safetensors.index.json, where there is more than one shard.
    pub index: Option<Json>,
}

impl Layout {
    /// Which file holds the tensor of that name.
    pub fn file_of(&self, name: &str) -> Option<usize> {
        self.names.get(name).map(|job| self.places[*job].0)
    }
}

pub struct FileLayout {
    pub name: String,
    /// The 8 bytes of length and the JSON header, padded to a multiple of 8.
    pub header: Vec<u8>,
    pub bytes: u64,
}

/// Fills shards of at most `shard_size` bytes in the order of the jobs; a tensor larger than that has a shard to itself.
pub fn layout(plan: &Plan, shard_size: u64) -> Result<Layout> {
    if shard_size == 0 {
        return Err(Error::recipe("the shard size is 0: it must hold at least one byte"));
    }
    let mut shards: Vec<(u64, Vec<usize>)> = vec![(0, Vec::new())];
    for (job, task) in plan.jobs.iter().enumerate() {
        let (filled, members) = shards.last().expect("there is always one");
        if !members.is_empty() && filled + task.bytes() > shard_size {
            shards.push((0, Vec::new()));
        }
        let (filled, members) = shards.last_mut().expect("there is always one");
        *filled += task.bytes();
        members.push(job);
    }
    let count = shards.len();
    let names = plan.jobs.iter().enumerate().map(|(job, task)| (task.name.clone(), job)).collect();
    let mut layout = Layout { files: Vec::new(), places: vec![(0, 0); plan.jobs.len()], names, index: None };
    let mut map = Map::new();
    for (number, (data, mut members)) in shards.into_iter().enumerate() {
        // Larger elements first, so that every tensor is aligned to its own element; else in reading order.
        members.sort_by_key(|job| std::cmp::Reverse(plan.jobs[*job].dtype.size()));
        let name = if count == 1 { "model.safetensors".to_string() } else { format!("model-{:05}-of-{count:05}.safetensors", number + 1) };
        let mut header = json!({"__metadata__": {"format": "pt"}});
        let mut offset = 0;
        for job in &members {
            let task = &plan.jobs[*job];
            let end = offset + task.bytes();
            header[&task.name] = json!({"dtype": task.dtype.code(), "shape": task.shape, "data_offsets": [offset, end]});
            map.insert(task.name.clone(), json!(name));
            layout.places[*job] = (number, offset);
            offset = end;
        }
        let mut text = header.to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        for job in &members {
            layout.places[*job].1 += bytes.len() as u64;
        }
        layout.files.push(FileLayout { name, bytes: bytes.len() as u64 + data, header: bytes });
    }
    if count > 1 {
        map.sort_keys();
        layout.index = Some(json!({"metadata": {"total_size": plan.bytes_to_write()}, "weight_map": map}));
    }
    Ok(layout)
}
