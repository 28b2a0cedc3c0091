//! Is a merged model still what its manifest says?

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Mutex;

use serde_json::{json, Value as Json};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Kind, Result};
use crate::layout::{INDEX, MANIFEST};
use crate::run::Watch;

/// What was compared, and what did not fit; every problem names its file or tensor.
pub struct Verdict {
    pub files: usize,
    pub tensors: usize,
    pub bytes: u64,
    pub problems: Vec<String>,
}

impl Verdict {
    pub fn json(&self, folder: &Path) -> Json {
        json!({
            "out": folder, "ok": self.problems.is_empty(), "files": self.files, "tensors": self.tensors, "bytes": self.bytes,
            "problems": self.problems,
        })
    }
}

/// Reads the whole output once and compares every digest.
///
/// # Errors
/// Only where there is nothing to compare: no folder, no manifest, or one that cannot be read. A damaged model is a verdict.
pub fn verify(folder: &Path, threads: usize, watch: &Watch) -> Result<Verdict> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(Kind::NotFound, format!("{}: no such file; only a folder that mergecore wrote can be verified", path.display()))
        }
        _ => Error::opening(&path, &e),
    })?;
    let manifest: Json = serde_json::from_slice(&text).map_err(|e| Error::model(format!("{}: is not valid JSON ({e})", path.display())))?;
    let list =
        |key: &str| manifest[key].as_array().cloned().ok_or_else(|| Error::model(format!("{}: has no list of {key}", path.display())));
    let (files, side_files, tensors) = (list("files")?, list("side_files")?, list("tensors")?);
    let mut problems = Vec::new();
    for file in &side_files {
        let name = file["name"].as_str().unwrap_or_default();
        match std::fs::read(folder.join(name)) {
            Err(_) => problems.push(format!("{name} is missing")),
            Ok(bytes) if blake3::hash(&bytes).to_hex().as_str() != file["blake3"] => problems.push(format!("{name} has changed")),
            Ok(_) => {}
        }
    }
    problems.extend(files.iter().filter_map(|file| check_file(folder, file)));
    problems.extend(strange_weights(folder, &files, &side_files));
    let bytes = files.iter().filter_map(|f| f["bytes"].as_u64()).sum();
    // Where a shard is missing or cut, its tensors cannot be opened: the files' problems say all there is.
    if problems.is_empty() {
        let checkpoint = Checkpoint::open(&folder.to_string_lossy(), folder)?;
        watch.total.store(checkpoint.tensors.values().map(Tensor::bytes).sum(), Ordering::Relaxed);
        problems.extend(check_tensors(&checkpoint, &tensors, threads, watch)?);
    }
    Ok(Verdict { files: files.len() + side_files.len(), tensors: tensors.len(), bytes, problems })
}

/// Weights that the manifest does not know: a loader might take them instead.
fn strange_weights(folder: &Path, files: &[Json], side_files: &[Json]) -> Vec<String> {
    let known: Vec<&str> = files.iter().chain(side_files).filter_map(|file| file["name"].as_str()).collect();
    let weights = |name: &String| [".safetensors", ".bin", ".pt", ".gguf", ".index.json"].iter().any(|end| name.ends_with(end));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut strange: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    strange.retain(|name| weights(name) && !known.contains(&name.as_str()));
    strange.sort();
    strange.into_iter().map(|name| format!("{name} is not in the manifest, and a loader might take it")).collect()
}

fn check_file(folder: &Path, file: &Json) -> Option<String> {
    let name = file["name"].as_str().unwrap_or_default();
    let (found, expected) = match std::fs::metadata(folder.join(name)) {
        Err(_) => return Some(format!("{name} is missing")),
        Ok(meta) => (meta.len(), file["bytes"].as_u64().unwrap_or_default()),
    };
    if found != expected {
        return Some(format!("{name} has {found} bytes instead of {expected}"));
    }
    let header = (|| {
        use std::io::Read;
        let mut file = std::fs::File::open(folder.join(name))?;
        let mut bytes = [0u8; 8].to_vec();
        file.read_exact(&mut bytes)?;
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")).min(found - 8);
        file.take(length).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(blake3::hash(&bytes).to_hex().to_string())
    })();
    match header {
        Ok(header) if header == file["header_blake3"] => None,
        _ => Some(format!("{name}: its header has changed")),
    }
}

fn check_tensors(checkpoint: &Checkpoint, tensors: &[Json], threads: usize, watch: &Watch) -> Result<Vec<String>> {
    let expected: BTreeMap<&str, &Json> = tensors.iter().filter_map(|t| Some((t["name"].as_str()?, &t["blake3"]))).collect();
    let mut problems: Vec<String> = Vec::new();
    problems
        .extend(expected.keys().filter(|name| !checkpoint.tensors.contains_key(**name)).map(|name| format!("tensor {name} is missing")));
    problems.extend(
        checkpoint
            .tensors
            .keys()
            .filter(|name| !expected.contains_key(name.as_str()))
            .map(|name| format!("tensor {name} is not in the manifest ({INDEX} of another model?)")),
    );
    let mut order: Vec<(&String, &Tensor)> = checkpoint.tensors.iter().filter(|(name, _)| expected.contains_key(name.as_str())).collect();
    order.sort_by_key(|(_, tensor)| (tensor.file, tensor.offset));
    let next = Mutex::new(order.into_iter());
    let found = Mutex::new(BTreeMap::new());
    let work = || -> Result<()> {
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            let Some((name, tensor)) = next.lock().expect("no holder panics").next() else { return Ok(()) };
            let mut hasher = blake3::Hasher::new();
            let bytes = tensor.bytes();
            for start in (0..bytes).step_by(buffer.len()) {
                if watch.cancelled.load(Ordering::Relaxed) {
                    return Err(Error::interrupted());
                }
                let count = (bytes - start).min(buffer.len() as u64) as usize;
                tensor.source.read(tensor.offset + start, &mut buffer[..count])?;
                hasher.update(&buffer[..count]);
                watch.done.fetch_add(count as u64, Ordering::Relaxed);
            }
            if hasher.finalize().to_hex().as_str() != *expected[name.as_str()] {
                found.lock().expect("no holder panics").insert(name.clone(), format!("tensor {name}: its bytes have changed"));
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mine = work();
        others.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Error::run("a thread died")))).fold(mine, Result::and)
    })?;
    problems.extend(found.into_inner().expect("no holder panics").into_values());
    Ok(problems)
}
