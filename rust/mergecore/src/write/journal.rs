//! What of an unfinished merge is safely on the disk?
//!
//! The journal lies in OUT.partial. Its first line says which merge this is; each further line lists tensors whose bytes were synced
//! before the line was. So whatever kills the run, at whatever moment, the same command trusts the listed tensors and makes the others again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Error, Kind, Result};

/// A dot-file: no side file of a model is called like this.
pub const NAME: &str = ".mergecore-journal.jsonl";

/// What is known of a finished tensor: what the manifest will say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    pub digest: String,
    /// Σ (θ − θ₀)², before and after rounding to the output dtype; none without a base. Journalled as bits, which hold NaN and infinity, too.
    #[serde(with = "bits")]
    pub delta: Option<[f64; 2]>,
    /// NaN and infinite values in the output, and in each source.
    pub unfinite: [u64; 2],
    pub sources: Vec<[u64; 2]>,
    /// What is known of the singular values of its matrices, as the manifest says it; null where they were not asked for.
    #[serde(default)]
    pub spectra: Json,
}

mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(pair: &Option<[f64; 2]>, serializer: S) -> Result<S::Ok, S::Error> {
        pair.map(|pair| pair.map(f64::to_bits)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[f64; 2]>, D::Error> {
        Ok(Option::<[u64; 2]>::deserialize(deserializer)?.map(|pair| pair.map(f64::from_bits)))
    }
}

#[derive(Serialize, Deserialize)]
struct First {
    mergecore: u32,
    /// Hash of the resolved recipe and of the output's layout.
    recipe: String,
    /// Hash of the inputs' fingerprints.
    inputs: String,
}

impl First {
    /// What the merge is that another journal's first line tells of; None if it is this one.
    fn differs(&self, line: &str) -> Option<&'static str> {
        let other: Option<First> = serde_json::from_str(line).ok();
        match &other {
            Some(other) if other.mergecore == self.mergecore && other.recipe == self.recipe && other.inputs == self.inputs => None,
            Some(other) if other.recipe == self.recipe => Some("whose inputs have changed since"),
            _ => Some("of another recipe"),
        }
    }
}

fn leftovers(partial: &Path, differs: &str) -> Error {
    let message = format!("{}: holds an unfinished merge {differs}; delete it, or give --overwrite or another --out", partial.display());
    Error::new(Kind::Exists, message)
}

#[derive(Serialize, Deserialize)]
struct Done {
    done: Vec<Record>,
}

/// Opens a file of `partial`, made if need be, that no other process has open in this way.
pub(super) fn locked(partial: &Path, path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path);
    let file = file.map_err(|e| Error::io(path, "opening the journal", &e))?;
    // SAFETY: the descriptor is open; a lock cannot touch memory. It goes with the process, however that ends.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let message = format!("{}: another mergecore is writing there; wait for it, or choose another --out", partial.display());
        return Err(Error::new(Kind::Exists, message));
    }
    Ok(file)
}

/// The open journal; while it is open, no other process may write to this output.
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens or begins the journal of `partial`, and returns what was finished before. Another merge's leftovers are refused; or given up,
    /// if `overwrite`.
    pub fn open(partial: &Path, recipe: &str, inputs: &str, overwrite: bool) -> Result<(Journal, BTreeMap<String, Record>)> {
        let path = partial.join(NAME);
        let fail = |e: &std::io::Error| Error::io(&path, "opening the journal", e);
        let mut file = locked(partial, &path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| fail(&e))?;
        // A line that a crash cut short was never synced: it does not count, and the next line must not be glued to it.
        bytes.truncate(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1));
        file.set_len(bytes.len() as u64).map_err(|e| fail(&e))?;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let mut journal = Journal { path, file };
        let mut records = BTreeMap::new();
        let mine = First { mergecore: 1, recipe: recipe.into(), inputs: inputs.into() };
        match lines.next() {
            None => journal.append(&mine)?,
            Some(line) => {
                if let Some(differs) = mine.differs(line) {
                    if !overwrite {
                        return Err(leftovers(partial, differs));
                    }
                    journal.file.set_len(0).map_err(|e| Error::io(&journal.path, "starting the journal again", &e))?;
                    journal.append(&mine)?;
                    return Ok((journal, records));
                }
                for line in lines {
                    let done: Done = serde_json::from_str(line).map_err(|e| {
                        Error::model(format!("{}: is damaged ({e}); delete the folder, or give --overwrite", journal.path.display()))
                    })?;
                    records.extend(done.done.into_iter().map(|record| (record.name.clone(), record)));
                }
            }
        }
        Ok((journal, records))
    }

    /// Whether `open` would refuse the journal that is there; nothing is changed.
    pub fn check(partial: &Path, recipe: &str, inputs: &str, overwrite: bool) -> Result<()> {
        let path = partial.join(NAME);
        let mut file = locked(partial, &path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| Error::io(&path, "opening the journal", &e))?;
        let mine = First { mergecore: 1, recipe: recipe.into(), inputs: inputs.into() };
        // A first line that a crash cut short does not count.
        let first = bytes.iter().position(|b| *b == b'\n').map(|end| String::from_utf8_lossy(&bytes[..end]).into_owned());
        match first.and_then(|line| mine.differs(&line)).filter(|_| !overwrite) {
            Some(differs) => Err(leftovers(partial, differs)),
            None => Ok(()),
        }
    }

    /// Starts again with these records only: the others' bytes have been lost.
    pub fn restart(&mut self, recipe: &str, inputs: &str, records: &BTreeMap<String, Record>) -> Result<()> {
        self.file.set_len(0).map_err(|e| Error::io(&self.path, "starting the journal again", &e))?;
        self.append(&First { mergecore: 1, recipe: recipe.into(), inputs: inputs.into() })?;
        self.add(records.values().cloned().collect())
    }

    /// Adds finished tensors. Their bytes must have been synced.
    pub fn add(&mut self, done: Vec<Record>) -> Result<()> {
        self.append(&Done { done })
    }

    fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(line).expect("a record is plain data");
        text.push('\n');
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|e| Error::io(&self.path, "writing the journal", &e))
    }
}
