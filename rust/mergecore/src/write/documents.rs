//! Where do the merges live that a recipe of several documents names, until the last one is whole?
//!
//! In OUT.partial, in a folder beside the journal: each under its name, as an output of its own with a journal of its own. A mark in the
//! folder says whose they are, and is locked while somebody works on them. All of it goes when OUT.partial has become OUT.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::{check, clear, creating, journal, parent_of, partial_of, put_back, sync_folder};
use crate::error::{Error, Kind, Result};

/// A dot-folder: no side file of a model is called like this.
pub const FOLDER: &str = ".mergecore-documents";
const MARK: &str = "request";

/// Nobody else may work on these documents while this lives.
pub struct Claim(#[allow(dead_code)] File);

/// Makes OUT.partial ready for the documents of `request`, any text that tells one request from another; `inputs` are the models that
/// are no documents. What an earlier run of the same request made stays.
///
/// # Errors
/// Before the first byte: `out` may not be written, or OUT.partial holds another recipe's leftovers, which only `overwrite` gives up (but
/// finished documents: whoever asked can tell which of them are still of use).
pub fn claim(out: &Path, inputs: &[PathBuf], request: &str, overwrite: bool) -> Result<Claim> {
    check(out, inputs, overwrite)?;
    let partial = partial_of(out);
    let mark = partial.join(FOLDER).join(MARK);
    // An empty mark is one that a kill kept from being written, one of zeros a power failure.
    let unwritten = |said: &str| said.bytes().all(|byte| byte == 0);
    let ours = fs::read_to_string(&mark).is_ok_and(|said| unwritten(&said) || said == request) || holds_nothing(&partial);
    if !ours && !overwrite || is_somebody_elses(&partial) {
        return Err(leftovers(&partial));
    }
    let journal = partial.join(journal::NAME);
    // A living merge of another recipe holds this; a kill leaves it free.
    let held = journal.exists().then(|| journal::locked(&partial, &journal)).transpose()?;
    fs::create_dir_all(parent_of(out)).and_then(|()| fs::create_dir_all(partial.join(FOLDER))).map_err(|e| creating(&partial, &e))?;
    let mut file = journal::locked(&partial, &mark)?;
    if !ours {
        put_back(&partial, out, overwrite)?;
        clear(&partial, true)?;
        held.map_or(Ok(()), |_| fs::remove_file(&journal)).map_err(|e| creating(&journal, &e))?;
    }
    let mut said = String::new();
    let fail = |e: std::io::Error| Error::io(&mark, "writing", &e);
    file.read_to_string(&mut said).map_err(fail)?;
    if said != request {
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(request.as_bytes())).map_err(fail)?;
        file.sync_all().and_then(|()| sync_folder(&parent_of(&mark))).and_then(|()| sync_folder(&partial)).map_err(fail)?;
    }
    Ok(Claim(file))
}

/// Whether the model at `path` is a document of some output that is being made.
pub fn is_document(path: &Path) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|folder| folder == FOLDER)
}

/// Whether one of these inputs is a document of the output that OUT.partial is for: then the documents are this merge's own.
pub(super) fn are_read(partial: &Path, inputs: &[PathBuf]) -> bool {
    let folder = super::real(&partial.join(FOLDER));
    inputs.iter().any(|input| super::real(input).parent() == Some(&folder))
}

/// Refuses a folder without a journal that holds something else than what this merge may go on with.
pub(super) fn check_leftovers(partial: &Path, own: bool, overwrite: bool) -> Result<()> {
    let known = own || overwrite || holds_nothing(partial);
    if partial.join(journal::NAME).exists() || known && !is_somebody_elses(partial) {
        return Ok(());
    }
    Err(leftovers(partial))
}

/// Waits for nobody: documents that another process is working on are not to be deleted.
pub(super) fn check_idle(partial: &Path) -> Result<()> {
    let mark = partial.join(FOLDER).join(MARK);
    mark.exists().then(|| journal::locked(partial, &mark)).transpose().map(drop)
}

fn entries(folder: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(folder).map(|found| found.flatten().map(|entry| entry.file_name()).collect()).unwrap_or_default()
}

fn holds_nothing(partial: &Path) -> bool {
    entries(partial).iter().all(|name| name == FOLDER) && entries(&partial.join(FOLDER)).is_empty()
}

/// Neither a journal nor documents: this is no output of ours.
fn is_somebody_elses(partial: &Path) -> bool {
    let entries = entries(partial);
    !entries.is_empty() && !entries.iter().any(|name| name == journal::NAME || name == FOLDER)
}

fn leftovers(partial: &Path) -> Error {
    let problem = match is_somebody_elses(partial) {
        true => "is in the way and holds no mergecore journal; delete it, or choose another --out",
        false => "holds an unfinished merge of another recipe; delete it, or give --overwrite or another --out",
    };
    Error::new(Kind::Exists, format!("{}: {problem}", partial.display()))
}
