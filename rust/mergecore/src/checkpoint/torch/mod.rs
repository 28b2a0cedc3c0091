//! What does one torch file hold? (pytorch_model.bin: a zip archive of a pickle and the tensors' bytes) Read with suspicion.
//!
//! Tensors stay where they are in the file; the pickle that names them is read by a machine that can build nothing but their
//! descriptions. torch's first format (before 1.6: one pickle after another) and TorchScript are refused.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use super::header::{self, Entry, Header};
use crate::error::{Error, Result};
use pickle::{Heap, Value, View};
use zip::{Archive, Source};

mod gather;
mod globals;
mod pickle;
mod zip;

pub use gather::Gathered;

/// The way out of whatever is not read here.
const AGAIN: &str = "load it in torch where it can be trusted, and save it once as safetensors (save_pretrained)";
/// A hundred thousand tensors take half of it.
const LONGEST_PICKLE: u64 = 32 << 20;

/// Reads the directory and the pickle of an open file, and checks every tensor against its storage.
pub fn read(path: &Path, file: &File) -> Result<Header> {
    let length = file.metadata().map_err(|e| Error::opening(path, &e))?.len();
    let source = Source { path, file, length };
    check_format(&source)?;
    let archive = zip::open(&source)?;
    let root = root(&source, &archive)?;
    let member = |name: &str| format!("{root}/{name}");
    let mut raw = read_small(&source, &archive, &member("data.pkl"))?;
    let (value, heap) = pickle::run(&raw).map_err(|e| source.bad(e))?;
    let bearing = heap.bearing();
    let bears = |value: &Value| match value {
        Value::Tensor(_) | Value::Storage(_) => true,
        Value::Row(row) => bearing.0[*row],
        Value::Dict(dict) => bearing.1[*dict],
        _ => false,
    };
    let dict = state_dict(value, &heap, &bears).map_err(|e| source.bad(e))?;

    let mut places: HashMap<&str, (u64, u64)> = HashMap::new();
    let (mut entries, mut passed_over) = (Vec::new(), Vec::new());
    for (key, value) in dict {
        match (key, value) {
            (Value::Text(name), Value::Tensor(tensor)) => {
                let view = &heap.tensors[*tensor];
                let storage = &heap.storages[view.storage];
                let place = match places.get(storage.key) {
                    Some(place) => *place,
                    None => archive.place(&source, &member(&format!("data/{}", storage.key)))?,
                };
                places.insert(storage.key, place);
                let code = view.code.or(storage.code);
                entries.push(entry(name, code, view, place).map_err(|e| source.bad(format!("tensor {name} {e}")))?);
            }
            (key, other) => {
                let name = if let Value::Text(name) = key { name } else { "(no text)" };
                if bears(other) {
                    return Err(source.bad(format!("holds tensors inside its entry {name}, beside the model's own: {AGAIN}")));
                }
                passed_over.push(name.to_string());
            }
        }
    }
    header::check_names(&entries).map_err(|e| source.bad(e))?;
    raw.extend(&archive.raw);
    Ok(Header { raw, entries, passed_over })
}

fn check_format(source: &Source) -> Result<()> {
    let first = source.read(0, source.length.min(16))?;
    Err(source.bad(if first.starts_with(b"PK\x03\x04") {
        return Ok(());
    } else if first.starts_with(b"\x80") {
        format!("is in torch's old format (before torch 1.6), which is not read: {AGAIN}")
    } else if first.starts_with(b"version https://") {
        "is git-lfs's note of a file, not the file: run `git lfs pull`".into()
    } else {
        format!("is not a torch file: it has {} bytes and no zip archive; download it again", source.length)
    }))
}

/// The folder inside the archive that everything is in.
fn root<'a>(source: &Source, archive: &'a Archive) -> Result<&'a str> {
    let mut roots = archive.names().filter_map(|name| name.strip_suffix("/data.pkl"));
    let (Some(root), None) = (roots.next(), roots.next()) else {
        return Err(source.bad(format!("is a zip archive, but not one that torch.save wrote: it has no data.pkl; {AGAIN}")));
    };
    let inside: Vec<&str> = archive.names().filter_map(|name| name.strip_prefix(root)?.strip_prefix('/')).collect();
    if inside.iter().any(|name| *name == "constants.pkl" || name.starts_with("code/")) {
        return Err(source.bad(format!("is a TorchScript program, not a state dict: {AGAIN}")));
    }
    if inside.contains(&"byteorder") {
        let order = read_small(source, archive, &format!("{root}/byteorder"))?;
        if order != b"little" {
            let order = String::from_utf8_lossy(&order[..order.len().min(20)]).into_owned();
            return Err(source.bad(format!("holds numbers in the byte order \"{order}\"; only little is read: {AGAIN}")));
        }
    }
    Ok(root)
}

fn read_small(source: &Source, archive: &Archive, name: &str) -> Result<Vec<u8>> {
    let (offset, bytes) = archive.place(source, name)?;
    if bytes > LONGEST_PICKLE {
        return Err(source.bad(format!("has a {name} of {bytes} bytes, more than any model needs: {AGAIN}")));
    }
    source.read(offset, bytes)
}

type Items<'h, 'a> = &'h [(Value<'a>, Value<'a>)];

/// The dict that holds the tensors: the file's own, or its `state_dict` if no tensor is elsewhere.
fn state_dict<'h, 'a>(value: Value<'a>, heap: &'h Heap<'a>, bears: &dyn Fn(&Value) -> bool) -> std::result::Result<Items<'h, 'a>, String> {
    let Value::Dict(outer) = value else {
        return Err(format!("holds no state dict (a dict of tensors by name): {AGAIN}"));
    };
    let items = &heap.dicts[outer][..];
    let bearing: Vec<_> = items.iter().filter(|(_, value)| bears(value)).collect();
    match bearing[..] {
        [(Value::Text("state_dict"), Value::Dict(inner))] => Ok(&heap.dicts[*inner]),
        // Which of them would be the model? The user knows.
        _ if !bearing.is_empty() && bearing.iter().all(|(_, value)| !matches!(value, Value::Tensor(_))) => {
            let names: Vec<&str> =
                bearing.iter().filter_map(|(key, _)| if let Value::Text(name) = key { Some(*name) } else { None }).collect();
            let names: String = names.join(", ").chars().take(200).collect();
            Err(format!("holds its tensors inside the entries {names}, and only a state_dict that is alone is looked into: {AGAIN}"))
        }
        _ => Ok(items),
    }
}

/// A tensor in the file, checked against the member that holds its storage.
fn entry(name: &str, code: Option<&str>, view: &View, place: (u64, u64)) -> std::result::Result<Entry, String> {
    let dtype = header::dtype(code.unwrap_or("of plain bytes"))?;
    let size = dtype.size() as u64;
    let damaged = || format!("of shape {:?} and strides {:?} does not fit its storage; download the file again", view.shape, view.strides);
    let bytes = view.shape.iter().try_fold(size, |product, n| product.checked_mul(*n)).filter(|n| *n <= i64::MAX as u64);
    let bytes = bytes.ok_or_else(damaged)?;
    let shape = view.shape.clone();
    if bytes == 0 {
        return Ok(Entry { name: name.into(), dtype, shape, offset: place.0, bytes, strides: None });
    }
    let last = shape.iter().zip(&view.strides).try_fold(view.offset, |at, (n, stride)| at.checked_add((n - 1).checked_mul(*stride)?));
    let end = last.and_then(|last| last.checked_add(1)?.checked_mul(size)).ok_or_else(damaged)?;
    if end > place.1 {
        return Err(damaged());
    }
    let strides = (!gather::contiguous(&shape, &view.strides)).then(|| view.strides.clone());
    Ok(Entry { name: name.into(), dtype, shape, offset: place.0 + view.offset * size, bytes, strides })
}
