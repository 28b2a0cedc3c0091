//! Which tensors does a model have, and where are their bytes?
//!
//! A checkpoint is opened by its headers only. What would be silently wrong to merge is refused here by name: quantised weights,
//! files that do not agree with their index, paths that leave the folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::dtype::Dtype;
use crate::error::{Error, Kind, Result};

pub mod bytes;
mod fingerprint;
mod folder;
mod header;
mod lora;
pub mod opened;
mod quantised;
mod torch;
pub mod vocabulary;

pub use bytes::{Bytes, InputFile, Lent};

/// A model's tensors, by name.
#[derive(Clone)]
pub struct Checkpoint<'a> {
    /// As the user named it.
    pub reference: String,
    /// The folder (or single file) it was found in; empty for arrays in memory.
    pub path: PathBuf,
    /// The folder of the adapter that is on it.
    pub adapter: Option<PathBuf>,
    pub files: Vec<Arc<InputFile>>,
    pub tensors: BTreeMap<String, Tensor<'a>>,
    /// The model's config.json, if it has one.
    pub config: Option<Json>,
    /// Entries of the files that are no tensors: a step counter, a name.
    pub passed_over: Vec<String>,
    /// The raw headers, for fingerprints.
    headers: Vec<Vec<u8>>,
}

/// One tensor of one model.
#[derive(Clone)]
pub struct Tensor<'a> {
    /// What it is stored as, or would be: a tensor that is computed while it is read counts as the model's own.
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Which of the checkpoint's files holds it.
    pub file: usize,
    pub offset: u64,
    pub source: Arc<dyn Bytes + 'a>,
}

impl Tensor<'_> {
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.size() as u64
    }

    /// The type of the numbers that are read.
    pub fn read_as(&self) -> Dtype {
        self.source.yields(self.dtype)
    }

    /// Reads from element `first` on; `out` is a whole number of elements.
    pub fn read(&self, first: u64, out: &mut [u8]) -> Result<()> {
        self.source.read(self.offset + first * self.read_as().size() as u64, out)
    }

    pub fn will_need(&self, first: u64, elements: u64) {
        let size = self.read_as().size() as u64;
        self.source.will_need(self.offset + first * size, elements * size);
    }

    /// Whether both are read from the same bytes of the same source, in the same way.
    pub fn is_at(&self, other: &Tensor) -> bool {
        self.place() == other.place()
    }

    /// Tells the numbers of one tensor from those of any other that is open: the source's address, where in it they begin, and their type.
    pub fn place(&self) -> (usize, u64, Dtype) {
        (Arc::as_ptr(&self.source) as *const () as usize, self.offset, self.read_as())
    }

    /// Whether two tensors hold the same bytes under the same type and shape.
    pub fn same_as(&self, other: &Tensor) -> Result<bool> {
        if (self.dtype, self.read_as(), &self.shape) != (other.dtype, other.read_as(), &other.shape) {
            return Ok(false);
        }
        const STRIP: usize = 1 << 16;
        let (mut a, mut b) = (vec![0u8; STRIP], vec![0u8; STRIP]);
        let bytes = self.elements() * self.read_as().size() as u64;
        for start in (0..bytes).step_by(STRIP) {
            let count = (bytes - start).min(STRIP as u64) as usize;
            self.source.read(self.offset + start, &mut a[..count])?;
            other.source.read(other.offset + start, &mut b[..count])?;
            if a[..count] != b[..count] {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Checkpoint<'static> {
    /// Opens a folder (single file, or shards with an index) or one file, in safetensors or, where that is missing, as torch saves it.
    pub fn open(reference: &str, path: &Path) -> Result<Checkpoint<'static>> {
        let Contents { files, headers, tensors, passed_over } = Contents::of(path, &folder::find(path)?)?;
        let config = folder::config(path)?;
        quantised::check_config(path, config.as_ref(), tensors.keys())?;
        Ok(Checkpoint { reference: reference.into(), path: path.into(), adapter: None, files, tensors, config, passed_over, headers })
    }
}

impl<'a> Checkpoint<'a> {
    /// A model in memory.
    pub fn lent(reference: &str, tensors: BTreeMap<String, Tensor<'a>>) -> Checkpoint<'a> {
        let (path, adapter, files, passed_over, headers) = Default::default();
        Checkpoint { reference: reference.into(), path, adapter, files, tensors, config: None, passed_over, headers }
    }

    /// `safetensors`, or `torch` for pickled weights.
    pub fn format(&self) -> &'static str {
        let safe = self.files.iter().all(|file| folder::is_safetensors(&file.path));
        if safe {
            "safetensors"
        } else {
            "torch"
        }
    }

    pub fn tensor(&self, name: &str) -> Result<&Tensor<'a>> {
        self.tensors.get(name).ok_or_else(|| Error::model(format!("{} has no tensor {name}", self.reference)))
    }

    /// Whether the config says that the output head is the embedding; None where it says nothing.
    pub fn tied(&self) -> Option<bool> {
        let config = self.config.as_ref()?;
        // Vision-language configs keep the language model's under text_config.
        config["tie_word_embeddings"].as_bool().or_else(|| config["text_config"]["tie_word_embeddings"].as_bool())
    }

    /// What identifies these bytes without reading all of them: per file its name, size, time, header hash, and a hash of some blocks.
    pub fn fingerprint(&self) -> Result<Json> {
        fingerprint::of(&self.files, &self.headers)
    }

    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| file.check_unchanged())
    }
}

/// What the files of a model (or of an adapter) hold.
struct Contents {
    files: Vec<Arc<InputFile>>,
    /// The raw headers.
    headers: Vec<Vec<u8>>,
    tensors: BTreeMap<String, Tensor<'static>>,
    /// What is no tensor, by name.
    passed_over: Vec<String>,
}

impl Contents {
    fn of(path: &Path, found: &folder::Found) -> Result<Contents> {
        let (mut files, mut headers, mut tensors, mut passed_over) = (Vec::new(), Vec::new(), BTreeMap::new(), Vec::new());
        for path in &found.files {
            let file = Arc::new(InputFile::open(path)?);
            let safe = folder::is_safetensors(path);
            let header = if safe { header::read(path, file.file())? } else { torch::read(path, file.file())? };
            passed_over.extend(header.passed_over);
            for entry in header.entries {
                quantised::check(path, &entry)?;
                found.check_place(&entry.name, path)?;
                let source: Arc<dyn Bytes> = match &entry.strides {
                    None => file.clone(),
                    Some(strides) => {
                        let size = entry.dtype.size() as u64;
                        Arc::new(torch::Gathered::new(file.clone(), entry.offset, size, &entry.shape, strides))
                    }
                };
                let tensor = Tensor { dtype: entry.dtype, shape: entry.shape, file: files.len(), offset: entry.offset, source };
                if tensors.insert(entry.name.clone(), tensor).is_some() {
                    return Err(Error::model(format!(
                        "{}: tensor {} is in another shard, too; is a file of another version among them?",
                        path.display(),
                        entry.name
                    )));
                }
            }
            files.push(file);
            headers.push(header.raw);
        }
        found.check_complete(&tensors)?;
        if tensors.is_empty() {
            return Err(Error::model(format!("{}: holds no tensors", path.display())));
        }
        Ok(Contents { files, headers, tensors, passed_over })
    }
}

/// A path that is not there.
fn missing(path: &Path, what: &str) -> Error {
    Error::new(Kind::NotFound, format!("{}: {what}", path.display()))
}
