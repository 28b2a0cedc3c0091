//! Files as `torch.save` writes them: a zip archive, stored, of a pickle in protocol 2 and a member for each storage.

#![allow(dead_code)] // each test file uses its part

use std::fs;
use std::path::Path;

use mergecore::dtype::Dtype;
use serde_json::{json, Value as Json};

use crate::model::{Model, Part};

/// One operation after another.
#[derive(Clone, Default)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    /// With the mark of the protocol.
    pub fn start() -> Pickle {
        Pickle(vec![0x80, 2])
    }

    pub fn op(mut self, bytes: &[u8]) -> Pickle {
        self.0.extend(bytes);
        self
    }

    pub fn text(self, text: &str) -> Pickle {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    /// As Python writes it: in the fewest bytes.
    pub fn int(self, value: i64) -> Pickle {
        match value {
            0..=0xff => self.op(&[b'K', value as u8]),
            0x100..=0xffff => self.op(b"M").op(&(value as u16).to_le_bytes()),
            _ if i32::try_from(value).is_ok() => self.op(b"J").op(&(value as i32).to_le_bytes()),
            _ => self.op(&[0x8a, 8]).op(&value.to_le_bytes()),
        }
    }

    pub fn global(self, module: &str, name: &str) -> Pickle {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn ints(self, values: &[i64]) -> Pickle {
        values.iter().fold(self.op(b"("), |pickle, value| pickle.int(*value)).op(b"t")
    }

    pub fn storage(self, class: &str, key: &str) -> Pickle {
        self.op(b"(").text("storage").global("torch", class).text(key).text("cpu").int(0).op(b"tQ")
    }

    /// A view of a storage, as torch describes it.
    pub fn view(self, class: &str, key: &str, offset: i64, shape: &[i64], strides: &[i64]) -> Pickle {
        let pickle = self.global("torch._utils", "_rebuild_tensor_v2").op(b"(").storage(class, key).int(offset).ints(shape).ints(strides);
        pickle.op(&[0x89]).global("collections", "OrderedDict").op(b")RtR")
    }

    /// A dict of what `entries` write: keys and values in turn.
    pub fn dict(self, entries: impl FnOnce(Pickle) -> Pickle) -> Pickle {
        entries(self.global("collections", "OrderedDict").op(b")Rq\x01(")).op(b"u")
    }

    pub fn end(self) -> Vec<u8> {
        self.op(b".").0
    }
}

pub fn class(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "DoubleStorage",
        Dtype::F32 => "FloatStorage",
        Dtype::F16 => "HalfStorage",
        Dtype::BF16 => "BFloat16Storage",
        Dtype::I64 => "LongStorage",
        Dtype::I32 => "IntStorage",
        Dtype::U8 => "ByteStorage",
        Dtype::I8 => "CharStorage",
        Dtype::Bool => "BoolStorage",
        other => panic!("torch has no storage of {other:?}"),
    }
}

/// The strides of a tensor whose elements lie in order.
pub fn in_order(shape: &[u64]) -> Vec<i64> {
    let mut strides: Vec<i64> = shape.iter().rev().scan(1, |next, n| Some(std::mem::replace(next, *next * *n as i64))).collect();
    strides.reverse();
    strides
}

/// The entries of a state dict whose storages are "0", "1", …
pub fn state(pickle: Pickle, parts: &[Part]) -> Pickle {
    parts.iter().enumerate().fold(pickle, |pickle, (i, part)| {
        let shape: Vec<i64> = part.shape.iter().map(|n| *n as i64).collect();
        pickle.text(&part.name).view(class(part.dtype), &i.to_string(), 0, &shape, &in_order(&part.shape))
    })
}

pub fn storages(parts: &[Part]) -> Vec<Vec<u8>> {
    parts.iter().map(|part| part.bytes.clone()).collect()
}

/// The members of a torch file.
pub fn members(pickle: Vec<u8>, storages: Vec<Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    let mut members = vec![("archive/data.pkl".to_string(), pickle), ("archive/byteorder".into(), b"little".into())];
    members.extend(storages.into_iter().enumerate().map(|(i, bytes)| (format!("archive/data/{i}"), bytes)));
    members.push(("archive/version".into(), b"3\n".into()));
    members
}

/// A zip archive of stored members, their bytes aligned by padding as torch's are; with 64-bit records, if asked.
pub fn archive(members: &[(String, Vec<u8>)], wide: bool) -> Vec<u8> {
    let (mut out, mut directory): (Vec<u8>, Vec<u8>) = Default::default();
    for (name, bytes) in members {
        let at = out.len();
        let padding = (64 - (at + 30 + name.len() + 4) % 64) % 64;
        // flag 8: sizes follow the data, here they are 0
        out.extend(b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((padding as u16 + 4).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(b"FB");
        out.extend((padding as u16).to_le_bytes());
        out.extend(vec![b'Z'; padding]);
        out.extend(bytes);
        let extra = if wide {
            let sizes = [bytes.len(), bytes.len(), at].map(|n| (n as u64).to_le_bytes()).concat();
            [b"ab\x02\0xx\x01\0\x18\0".as_slice(), &sizes].concat()
        } else {
            Vec::new()
        };
        let short = |n: usize| if wide { u32::MAX } else { n as u32 };
        directory.extend(b"PK\x01\x02\0\0\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0");
        [short(bytes.len()), short(bytes.len())].iter().for_each(|n| directory.extend(n.to_le_bytes()));
        [name.len() as u16, extra.len() as u16, 0, 0, 0].iter().for_each(|n| directory.extend(n.to_le_bytes()));
        directory.extend(0u32.to_le_bytes());
        directory.extend(short(at).to_le_bytes());
        directory.extend(name.as_bytes());
        directory.extend(extra);
    }
    let (start, count) = (out.len(), members.len());
    let end = start + directory.len();
    out.extend(&directory);
    if wide {
        out.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x1e\x03\x2d\0\0\0\0\0\0\0\0\0");
        [count, count, directory.len(), start].iter().for_each(|n| out.extend((*n as u64).to_le_bytes()));
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend((end as u64).to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    let short = |n: usize| if wide { u32::MAX } else { n as u32 };
    out.extend(b"PK\x05\x06\0\0\0\0");
    [count as u16, count as u16].iter().for_each(|n| out.extend(n.to_le_bytes()));
    [short(directory.len()), short(start)].iter().for_each(|n| out.extend(n.to_le_bytes()));
    out.extend([0, 0]);
    out
}

/// A torch file of these tensors.
pub fn image(parts: &[Part]) -> Vec<u8> {
    archive(&members(Pickle::start().dict(|pickle| state(pickle, parts)).end(), storages(parts)), false)
}

/// A torch file of a pickle and storages.
pub fn file(pickle: Pickle, storages: &[&[u8]]) -> Vec<u8> {
    archive(&members(pickle.end(), storages.iter().map(|bytes| bytes.to_vec()).collect()), false)
}

/// Writes `folder`/pytorch_model.bin.
pub fn save(model: &Model, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("pytorch_model.bin"), image(&model.parts)).unwrap();
}

/// Writes the tensors dealt out to `shards` files, with the index that says so.
pub fn save_shards(model: &Model, folder: &Path, shards: usize) {
    fs::create_dir_all(folder).unwrap();
    let mut map = serde_json::Map::new();
    for shard in 0..shards {
        let name = format!("pytorch_model-{:05}-of-{shards:05}.bin", shard + 1);
        let parts: Vec<Part> = model.parts.iter().skip(shard).step_by(shards).cloned().collect();
        map.extend(parts.iter().map(|part| (part.name.clone(), Json::from(name.clone()))));
        fs::write(folder.join(name), image(&parts)).unwrap();
    }
    fs::write(folder.join("pytorch_model.bin.index.json"), json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
}
