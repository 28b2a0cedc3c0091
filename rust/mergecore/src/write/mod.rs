//! How do bytes reach the disk whole?
//!
//! Everything happens in OUT.partial: files are reserved at their full size, tensors are written into place from any thread, a journal says
//! what is safe. When all is there and synced, the folder is renamed to OUT. So OUT is whole or not there, and nothing that stood before
//! is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::layout::{Layout, INDEX, MANIFEST};

pub mod digest;
pub mod documents;
pub mod journal;

use journal::{Journal, Record};

/// A file that is written beside the weights.
pub enum SideFile {
    Content(Vec<u8>),
    CopyOf(PathBuf),
}

/// How long finished tensors wait before they are synced and journalled. A kill costs at most this much work, more or less.
const INTERVAL: Duration = Duration::from_secs(2);

/// The output while it is being made.
pub struct Output {
    out: PathBuf,
    partial: PathBuf,
    files: Vec<File>,
    journal: Mutex<Journal>,
    /// Finished since the last entry in the journal.
    pending: Mutex<Vec<Record>>,
    stop: (Mutex<bool>, Condvar),
    failed: AtomicBool,
}

/// What tells an unfinished merge from any other.
pub struct Identity {
    /// Hash of the resolved recipe and of the output's layout.
    pub recipe: String,
    /// Hash of the inputs' fingerprints.
    pub prints: String,
    /// Where they are.
    pub inputs: Vec<PathBuf>,
}

/// Refuses outputs of which one would be another, or lie inside it or its OUT.partial.
pub fn check_apart(outs: &[PathBuf]) -> Result<()> {
    let places: Vec<PathBuf> = outs.iter().filter(|out| out.file_name().is_some()).map(|out| real(out)).collect();
    for (i, place) in places.iter().enumerate() {
        for other in &places[..i] {
            let inside = |a: &Path, b: &Path| a.starts_with(b) || a.starts_with(partial_of(b));
            let message = match (place == other, inside(place, other), inside(other, place)) {
                (true, ..) => format!("{}: is the output of two recipes; give each its own", place.display()),
                (_, true, _) => format!("{}: would lie inside another output, {}; choose another out", place.display(), other.display()),
                (.., true) => format!("{}: would lie inside another output, {}; choose another out", other.display(), place.display()),
                _ => continue,
            };
            return Err(Error::new(Kind::Exists, message));
        }
    }
    Ok(())
}

/// Refuses leftovers in OUT.partial that this merge may not go on with, before anything is written.
pub fn check_leftovers(out: &Path, identity: &Identity, overwrite: bool) -> Result<()> {
    let partial = partial_of(out);
    documents::check_leftovers(&partial, documents::are_read(&partial, &identity.inputs), overwrite)?;
    match partial.join(journal::NAME).exists() {
        true => Journal::check(&partial, &identity.recipe, &identity.prints, overwrite),
        false => Ok(()),
    }
}

/// Refuses an output that would hide or destroy something. Nothing is written; but what a kill right after the last rename has left in a
/// finished output goes.
pub fn check(out: &Path, inputs: &[PathBuf], overwrite: bool) -> Result<()> {
    let exists = |message: String| Err(Error::new(Kind::Exists, message));
    if out.file_name().is_none() {
        return Err(Error::recipe(format!("{}: is no name for an output folder", out.display())));
    }
    for input in inputs {
        let (a, b) = (real(input), real(out));
        let relation = match (a.starts_with(&b), b.starts_with(&a)) {
            (true, true) => "is also",
            (true, false) => "would replace",
            (false, true) => "would lie inside",
            (false, false) => continue,
        };
        return exists(format!("{}: the output {relation} the input {}; choose another --out", out.display(), input.display()));
    }
    let partial = partial_of(out);
    if fs::symlink_metadata(&partial).is_ok_and(|meta| !meta.is_dir()) {
        return exists(format!("{}: is in the way and is no folder; delete it, or choose another --out", partial.display()));
    }
    let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
    let home = device(&parent_of(out));
    if let Some(mount) = [out, &partial].into_iter().find(|path| device(path).is_some_and(|d| Some(d) != home)) {
        let message = "is the root of a file system, so that the finished output could not be renamed to it; choose a folder inside it";
        return exists(format!("{}: {message} as --out", mount.display()));
    }
    let Ok(meta) = fs::symlink_metadata(out) else { return Ok(()) };
    tidy(out);
    if !overwrite {
        return exists(format!("{}: exists already; give --overwrite to replace it, or choose another --out", out.display()));
    }
    // --overwrite deletes what stood there: only something that looks like a model may go that way.
    let model = |name: &str| name == "mergecore.json" || name.ends_with(".safetensors");
    let mut names = match fs::read_dir(out) {
        Ok(entries) if meta.is_dir() => entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())),
        _ => return exists(format!("{}: is not a folder; delete it yourself, or choose another --out", out.display())),
    };
    let first = names.next();
    if first.is_some() && !first.into_iter().chain(names).any(|name| model(&name)) {
        return exists(format!(
            "{}: does not look like a model, so --overwrite will not delete it; delete it yourself, or choose another --out",
            out.display()
        ));
    }
    Ok(())
}

/// The path without links, as far as it exists; beyond that, `..` leads back.
fn real(path: &Path) -> PathBuf {
    match (fs::canonicalize(path), path.file_name()) {
        (Err(_), Some(name)) => real(&parent_of(path)).join(name),
        (Err(_), None) if path.ends_with("..") => parent_of(&real(&parent_of(path))),
        (found, _) => found.unwrap_or_else(|_| path.to_path_buf()),
    }
}

/// Refuses a side file that would take the place of a file of mergecore's own, or lie outside the output. Nothing is written.
pub fn check_side_files(layout: &Layout, side_files: &[(String, SideFile)]) -> Result<()> {
    for (name, _) in side_files {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        let first = name.split('/').next().unwrap_or_default();
        let ours = [journal::NAME, documents::FOLDER, REPLACED, INDEX, MANIFEST].contains(&first)
            || layout.files.iter().any(|file| file.name == first);
        if name.is_empty() || !plain || ours {
            return Err(Error::model(format!("the donor's file \"{name}\" has a name that the output needs itself; move it away")));
        }
    }
    Ok(())
}

/// Where --overwrite keeps what stood at OUT while the new output takes its place: in OUT.partial, where nothing of anybody else's can be.
const REPLACED: &str = ".mergecore-replaced";

/// Puts back what a run that was killed at the very end had moved aside: then nothing is lost, and the merge can go on. Whoever calls this
/// has the journal's lock: else it might undo what a living run is just doing.
fn put_back(partial: &Path, out: &Path, overwrite: bool) -> Result<()> {
    let aside = partial.join(REPLACED);
    if fs::symlink_metadata(&aside).is_err() {
        return Ok(());
    }
    if fs::symlink_metadata(out).is_ok() {
        let message = format!("{}: holds what an interrupted --overwrite had replaced; move it away or delete it", aside.display());
        return Err(Error::new(Kind::Exists, message));
    }
    fs::rename(&aside, out).map_err(|e| Error::io(&aside, "putting back the replaced output", &e))?;
    match overwrite {
        true => Ok(()),
        false => Err(Error::new(Kind::Exists, format!("{}: exists already (an interrupted --overwrite had moved it aside, and it has been put back); give --overwrite to replace it, or choose another --out", out.display()))),
    }
}

impl Output {
    /// Makes OUT.partial ready: the journal, and every file at its full size. Returns what an earlier run finished.
    ///
    /// Of its inputs, those that lie in OUT.partial stay there until the output is whole.
    pub fn create(
        out: &Path,
        layout: &Layout,
        Identity { recipe, prints, inputs }: &Identity,
        overwrite: bool,
    ) -> Result<(Output, BTreeMap<String, Record>)> {
        let partial = partial_of(out);
        let parent = parent_of(out);
        check_space(&[(out, layout)])?;
        fs::create_dir_all(&parent).map_err(|e| creating(&parent, &e))?;
        fs::create_dir_all(&partial).map_err(|e| creating(&partial, &e))?;
        let own = documents::are_read(&partial, inputs);
        documents::check_leftovers(&partial, own, overwrite)?;
        if !own {
            documents::check_idle(&partial)?;
        }
        let (mut journal, mut records) = Journal::open(&partial, recipe, prints, overwrite)?;
        put_back(&partial, out, overwrite)?;
        if records.is_empty() {
            clear(&partial, own)?;
        }
        // The journal speaks of bytes in files: where a file has gone, its word is worth nothing. It must forget them before the file is
        // made again at its full size, or a second kill would leave zeros that it vouches for.
        let intact = |file: &crate::layout::FileLayout| fs::metadata(partial.join(&file.name)).is_ok_and(|meta| meta.len() == file.bytes);
        let intact: Vec<bool> = layout.files.iter().map(intact).collect();
        let before = records.len();
        records.retain(|name, _| layout.file_of(name).is_some_and(|file| intact[file]));
        if records.len() < before {
            journal.restart(recipe, prints, &records)?;
        }
        let reserve = |file: &crate::layout::FileLayout| reserve(&partial.join(&file.name), file.bytes, &file.header);
        let files = layout.files.iter().map(reserve).collect::<Result<Vec<File>>>()?;
        let output = Output {
            out: out.into(),
            partial,
            files,
            journal: Mutex::new(journal),
            pending: Mutex::default(),
            stop: (Mutex::new(false), Condvar::new()),
            failed: AtomicBool::new(false),
        };
        Ok((output, records))
    }

    pub fn write(&self, layout: &Layout, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.files[file].write_all_at(bytes, offset).map_err(|e| Error::io(&self.partial.join(&layout.files[file].name), "writing", &e))
    }

    /// A tensor's bytes are all written.
    pub fn finished(&self, record: Record) {
        self.pending.lock().expect("no holder panics").push(record);
    }

    /// Syncs and journals finished tensors every now and then, until `stop`. Runs on a thread of its own.
    pub fn keep_journal(&self) -> Result<()> {
        loop {
            let stopped = self.stop.0.lock().expect("no holder panics");
            let (stopped, _) = self.stop.1.wait_timeout_while(stopped, INTERVAL, |stopped| !*stopped).expect("no holder panics");
            if *stopped {
                return Ok(());
            }
            drop(stopped);
            if let Err(e) = self.journal_pending() {
                self.failed.store(true, Ordering::Relaxed);
                return Err(e);
            }
        }
    }

    pub fn journal_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        *self.stop.0.lock().expect("no holder panics") = true;
        self.stop.1.notify_all();
    }

    fn journal_pending(&self) -> Result<()> {
        let done = std::mem::take(&mut *self.pending.lock().expect("no holder panics"));
        if done.is_empty() {
            return Ok(());
        }
        self.sync()?;
        self.journal.lock().expect("no holder panics").add(done)
    }

    fn sync(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| file.sync_data()).map_err(|e| Error::io(&self.partial, "syncing", &e))
    }

    /// All tensors are written: adds the other files, syncs everything and renames OUT.partial to OUT. `check` is the last moment at which
    /// Ctrl-C counts: after the rename the merge is done.
    pub fn publish(&self, side_files: &[&(String, SideFile)], overwrite: bool, check: &dyn Fn() -> Result<()>) -> Result<()> {
        self.journal_pending()?;
        let mut folders = BTreeSet::from([self.partial.clone()]);
        for (name, content) in side_files {
            check()?;
            let path = self.partial.join(name);
            folders.extend(path.ancestors().skip(1).take_while(|folder| **folder != self.partial).map(PathBuf::from));
            put(&path, content)?;
        }
        for file in &self.files {
            check()?;
            file.sync_all().map_err(|e| Error::io(&self.partial, "syncing", &e))?;
        }
        folders.iter().rev().try_for_each(|folder| sync_folder(folder).map_err(|e| Error::io(folder, "syncing", &e)))?;
        check()?;
        let fail = |e: std::io::Error| {
            let whole = format!("renaming the finished output into place (it is whole in {})", self.partial.display());
            Error::io(&self.out, &whole, &e)
        };
        if !overwrite && fs::symlink_metadata(&self.out).is_ok() {
            let message = format!("{}: appeared while the merge ran; the result is in {}", self.out.display(), self.partial.display());
            return Err(Error::new(Kind::Run, message));
        }
        let aside = self.partial.join(REPLACED);
        let replaces = overwrite && fs::symlink_metadata(&self.out).is_ok();
        if replaces {
            fs::rename(&self.out, &aside).map_err(fail)?;
        }
        if let Err(e) = fs::rename(&self.partial, &self.out) {
            if replaces {
                // Should this fail, too, the same command does it: `put_back`.
                let _ = fs::rename(&aside, &self.out);
            }
            return Err(fail(e));
        }
        sync_folder(&parent_of(&self.out)).map_err(fail)?;
        // Only now: without its journal, a finished OUT.partial could not be told from somebody else's folder, and without its documents the
        // same command would begin again.
        clean(&self.out)
    }
}

/// Deletes from an output in its place what is none of it: documents, what it replaced, and last the journal, which says that it is ours.
fn clean(out: &Path) -> Result<()> {
    for (name, doing) in [(documents::FOLDER, "deleting the documents"), (REPLACED, "deleting the replaced output")] {
        let folder = out.join(name);
        if fs::symlink_metadata(&folder).is_ok() {
            fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, doing, &e))?;
        }
    }
    let journal = out.join(journal::NAME);
    fs::remove_file(&journal).map_err(|e| Error::io(&journal, "deleting the journal", &e))
}

/// Ends what a run was just about to do that was killed right after it had put `out` in its place. A run that is still at it is left to it,
/// and what cannot be deleted stays: it is in nobody's way.
pub fn tidy(out: &Path) {
    let journal = out.join(journal::NAME);
    let ours = fs::symlink_metadata(out).is_ok_and(|meta| meta.is_dir()) && out.join(MANIFEST).is_file() && journal.is_file();
    if let Some(Ok(_held)) = ours.then(|| journal::locked(out, &journal)) {
        let _ = clean(out);
    }
}

/// Writes one side file and syncs it. What an earlier run left in its place goes first: it may be read-only.
fn put(path: &Path, content: &SideFile) -> Result<()> {
    let fail = |e: std::io::Error| Error::io(path, "writing", &e);
    fs::create_dir_all(parent_of(path)).map_err(fail)?;
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path).map_err(fail)?;
    }
    match content {
        SideFile::Content(bytes) => fs::write(path, bytes).map_err(fail)?,
        SideFile::CopyOf(source) => drop(fs::copy(source, path).map_err(|e| match e.raw_os_error() {
            // Whose fault is it? A disk that takes no more is the output's.
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => fail(e),
            _ => Error::io(source, "copying", &e),
        })?),
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(fail)
}

pub fn partial_of(out: &Path) -> PathBuf {
    with_suffix(out, ".partial")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().expect("checked: an output has a name").to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn creating(path: &Path, e: &std::io::Error) -> Error {
    Error::recipe(format!("{}; choose another --out", Error::io(path, "creating the output", e).message))
}

/// Deletes everything but the journal: what a merge left that got nowhere, or that --overwrite gives up. Documents may be kept, too.
fn clear(partial: &Path, keep_documents: bool) -> Result<()> {
    let delete = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            _ if entry.file_name() == journal::NAME || keep_documents && entry.file_name() == documents::FOLDER => Ok(()),
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        }
    };
    fs::read_dir(partial).and_then(|mut entries| entries.try_for_each(delete)).map_err(|e| creating(partial, &e))
}

/// Room for every file of these outputs, what an earlier run reserved not counted twice.
pub fn check_space(outs: &[(&Path, &Layout)]) -> Result<()> {
    let mut disks: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
    for (out, layout) in outs {
        let (parent, partial) = (parent_of(out), partial_of(out));
        let reserved = |file: &crate::layout::FileLayout| fs::metadata(partial.join(&file.name)).map_or(0, |m| m.blocks() * 512);
        let needed: u64 = layout.files.iter().map(|file| file.bytes.saturating_sub(reserved(file))).sum();
        let existing = existing(&parent);
        let disk = fs::metadata(existing).map_err(|e| Error::io(&parent, "asking for free space", &e))?.dev();
        // Config, tokenizer and manifest: a few megabytes.
        disks.entry(disk).or_insert((parent, 0)).1 += needed + (8 << 20);
    }
    for (parent, needed) in disks.into_values() {
        let free = free_space(existing(&parent)).map_err(|e| Error::io(&parent, "asking for free space", &e))?;
        if free < needed {
            let size = |bytes: u64| {
                if bytes < 1 << 30 {
                    format!("{:.1} MB", bytes as f64 / 1e6)
                } else {
                    format!("{:.2} GB", bytes as f64 / 1e9)
                }
            };
            let message = format!(
                "{}: not enough space on the disk: the merge needs {} and {} are free; free some, or choose another --out",
                parent.display(),
                size(needed),
                size(free)
            );
            return Err(Error::new(Kind::Space, message));
        }
    }
    Ok(())
}

/// The folder itself, or the nearest above it that is there.
fn existing(folder: &Path) -> &Path {
    let above = folder.ancestors().find(|folder| !folder.as_os_str().is_empty() && folder.exists());
    above.unwrap_or(Path::new("."))
}

/// Bytes that an ordinary user may still write on the disk of `folder`.
pub fn free_space(folder: &Path) -> std::io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string and `stat` has room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: statvfs succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    #[allow(clippy::unnecessary_cast)] // u64 on Linux, narrower on macOS
    Ok(stat.f_bavail as u64 * stat.f_frsize as u64)
}

/// Opens a file at its full size, with the disk blocks reserved where the file system can, and its header in place.
fn reserve(path: &Path, bytes: u64, header: &[u8]) -> Result<File> {
    let fail = |e: &std::io::Error| Error::io(path, "reserving space", e);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(|e| fail(&e))?;
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open; the call only changes the file.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as i64) } {
        0 => {}
        _ => match std::io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            e => return Err(fail(&e)),
        },
    }
    file.set_len(bytes).map_err(|e| fail(&e))?;
    file.write_all_at(header, 0).map_err(|e| fail(&e))?;
    Ok(file)
}
