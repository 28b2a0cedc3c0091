//! What does one safetensors file hold? Its header, read with suspicion.
//!
//! The file is 8 bytes of header length, the header (JSON: name → dtype, shape, offsets), and the tensors' bytes without a gap. Nothing
//! in it is believed before it is checked: a header may be longer than the file, name a tensor twice, overlap or overflow.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// As the reference implementation has it: no real header comes near.
const LONGEST: u64 = 100_000_000;

/// One tensor of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Where its bytes begin in the file, and how many there are.
    pub offset: u64,
    pub bytes: u64,
    /// Steps from one index to the next, in elements, where they do not lie in order (a torch file may hold a transposed tensor).
    pub strides: Option<Vec<u64>>,
}

/// A checked header: its raw bytes (for fingerprints), its tensors in the order of their bytes, and the entries that are no tensors.
pub struct Header {
    pub raw: Vec<u8>,
    pub entries: Vec<Entry>,
    pub passed_over: Vec<String>,
}

/// Reads and checks the header of an open file.
pub fn read(path: &Path, file: &File) -> Result<Header> {
    let bad = |what: String| Error::model(format!("{}: {what}", path.display()));
    let length = file.metadata().map_err(|e| Error::opening(path, &e))?.len();
    let mut prefix = [0u8; 8];
    if length < 8 {
        return Err(bad(format!("is not a safetensors file: it has {length} bytes; download it again")));
    }
    file.read_exact_at(&mut prefix, 0).map_err(|e| Error::opening(path, &e))?;
    let size = u64::from_le_bytes(prefix);
    if size > LONGEST || size > length - 8 {
        return Err(bad(format!(
            "is truncated or not a safetensors file: its header claims {size} bytes, the file has {}; download it again",
            length - 8
        )));
    }
    let mut raw = vec![0u8; size as usize];
    file.read_exact_at(&mut raw, 8).map_err(|e| Error::opening(path, &e))?;
    let text = std::str::from_utf8(&raw).map_err(|_| bad("its header is not UTF-8; download it again".into()))?;
    let Pairs(pairs) = serde_json::from_str(text).map_err(|e| bad(format!("its header is not valid JSON ({e}); download it again")))?;

    let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
    for (name, json) in pairs {
        if name != "__metadata__" {
            entries.push(entry(name, &json, 8 + size).map_err(bad)?);
        }
    }
    check_names(&entries).map_err(bad)?;
    check_places(&mut entries, 8 + size, length).map_err(bad)?;
    Ok(Header { raw, entries, passed_over: Vec::new() })
}

/// A type by its code, or why it cannot be merged.
pub fn dtype(code: &str) -> std::result::Result<Dtype, String> {
    Dtype::from_code(code).ok_or_else(|| match code {
        c if c.starts_with("F8") || c.starts_with("F4") || c.starts_with("F6") => {
            format!("is quantised ({code}), and its codes are not weights without their scales: merge the unquantised checkpoint")
        }
        _ => format!("has the dtype {code}, which cannot be merged (float64, float32, bfloat16 and float16 can)"),
    })
}

fn entry(name: String, json: &Json, data: u64) -> std::result::Result<Entry, String> {
    let code = json["dtype"].as_str().ok_or_else(|| format!("tensor {name} has no dtype; download it again"))?;
    let dtype = dtype(code).map_err(|e| format!("tensor {name} {e}"))?;
    let numbers = |key: &str| -> Option<Vec<u64>> { json[key].as_array()?.iter().map(Json::as_u64).collect() };
    let shape = numbers("shape").ok_or_else(|| format!("tensor {name} has no valid shape; download it again"))?;
    let offsets = numbers("data_offsets")
        .filter(|o| o.len() == 2)
        .ok_or_else(|| format!("tensor {name} has no valid data_offsets; download it again"))?;
    let bytes = shape.iter().try_fold(dtype.size() as u64, |product, n| product.checked_mul(*n));
    match (bytes, offsets[1].checked_sub(offsets[0])) {
        (Some(bytes), Some(span)) if bytes == span => {
            let offset = offsets[0].checked_add(data).ok_or_else(|| format!("tensor {name}: its offsets overflow; download it again"))?;
            Ok(Entry { name, dtype, shape, offset, bytes, strides: None })
        }
        _ => Err(format!(
            "tensor {name}: its data_offsets {offsets:?} do not fit its shape {shape:?} of {}; download it again",
            dtype.name()
        )),
    }
}

pub fn check_names(entries: &[Entry]) -> std::result::Result<(), String> {
    let mut names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("its header names the tensor {} twice; download it again", pair[0])),
        None => Ok(()),
    }
}

fn check_places(entries: &mut [Entry], data: u64, length: u64) -> std::result::Result<(), String> {
    entries.sort_by_key(|e| (e.offset, e.bytes));
    let (mut end, mut before) = (data, "the header");
    for entry in entries.iter() {
        if entry.offset < end {
            return Err(format!("tensor {} overlaps {before}; download it again", entry.name));
        }
        if entry.offset > end {
            let gap = entry.offset - end;
            return Err(format!("{gap} bytes between {before} and tensor {} belong to no tensor; download it again", entry.name));
        }
        end = entry
            .offset
            .checked_add(entry.bytes)
            .ok_or_else(|| format!("tensor {}: its offsets overflow; download it again", entry.name))?;
        if end > length {
            return Err(format!(
                "is truncated in tensor {}: it should have {end} bytes there and has {length}; download it again",
                entry.name
            ));
        }
        before = &entry.name;
    }
    if end != length {
        return Err(format!("{} bytes after {before} belong to no tensor; download it again", length - end));
    }
    Ok(())
}

/// A JSON object as a list of pairs, so that a name given twice can be seen.
pub struct Pairs(pub Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Pairs, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
