//! Merging onto the disk: journalled, resumed, and published whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{json, Value as Json};

use super::{Context, Limits, Outcome, Sink, Spectrum, Watch};
use crate::error::{Error, Result};
use crate::layout::{Layout, INDEX, MANIFEST};
use crate::plan::Plan;
use crate::report::{self, Report};
use crate::write::digest::Digest;
use crate::write::journal::Record;
use crate::write::{self, Output, SideFile};

struct Disk<'a> {
    plan: &'a Plan<'a>,
    layout: &'a Layout,
    output: &'a Output,
    /// Of the tensors in work.
    digests: Mutex<BTreeMap<usize, Arc<Digest>>>,
    records: Mutex<BTreeMap<String, Record>>,
}

impl Disk<'_> {
    fn digest(&self, job: usize) -> Arc<Digest> {
        let mut digests = self.digests.lock().expect("no holder panics");
        digests.entry(job).or_insert_with(|| Arc::new(Digest::new(self.plan.jobs[job].bytes()))).clone()
    }
}

impl Sink for Disk<'_> {
    fn write(&self, job: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.output.journal_failed() {
            return Err(Error::run("the journal could not be written"));
        }
        self.digest(job).add(offset, bytes);
        let (file, start) = self.layout.places[job];
        self.output.write(self.layout, file, start + offset, bytes)
    }

    fn finished(&self, job: usize, outcome: Outcome) -> Result<()> {
        let digest = self.digest(job).finish();
        self.digests.lock().expect("no holder panics").remove(&job);
        let name = self.plan.jobs[job].name.clone();
        let record = Record {
            name: name.clone(),
            digest,
            delta: outcome.delta,
            unfinite: outcome.unfinite,
            sources: outcome.sources,
            spectra: spectra(&outcome.spectra),
        };
        self.output.finished(record.clone());
        self.records.lock().expect("no holder panics").insert(name, record);
        Ok(())
    }
}

/// Merges into the folder `out`, with the given files beside the weights.
///
/// # Errors
/// Before the first byte: `out` exists, is an input, or does not fit on the disk. After: what an input or the disk did. The work done stays
/// in OUT.partial, and the same call goes on with it.
pub fn merge(
    plan: &Plan,
    layout: &Layout,
    limits: Limits,
    out: &Path,
    side_files: Vec<(String, SideFile)>,
    overwrite: bool,
    watch: &Watch,
) -> Result<Report> {
    let start = Instant::now();
    let out = trimmed(out);
    let inputs: Vec<PathBuf> = plan.checkpoints.iter().flat_map(|c| [Some(c.path.clone()), c.adapter.clone()]).flatten().collect();
    write::check(&out, &inputs, overwrite)?;
    write::check_side_files(layout, &side_files)?;
    let prints = report::fingerprints(plan)?;
    let (recipe, hash) = (report::recipe_hash(plan, layout), report::hash_of(&prints));
    let (output, known) = Output::create(&out, layout, &recipe, (&inputs, &hash), overwrite)?;
    let resumed = known.len();
    let disk = Disk { plan, layout, output: &output, digests: Mutex::default(), records: Mutex::new(known.clone()) };
    let context = Context { plan, limits, sink: &disk, watch };
    std::thread::scope(|scope| {
        let journal = scope.spawn(|| super::schedule::guarded(|| output.keep_journal()));
        // Both guarded: a panic is an error that names itself, and the journal's thread waits to be stopped whatever happens here.
        let done = super::schedule::guarded(|| super::run(&context, &|job| known.contains_key(&job.name)));
        output.stop();
        // The journal's own error says more than the writers', who only saw that it stopped.
        journal.join().expect("it is guarded").and(done)
    })?;
    plan.checkpoints.iter().try_for_each(|checkpoint| checkpoint.check_unchanged())?;

    let records = disk.records.into_inner().expect("no holder panics");
    let mut side_files = side_files;
    if let Some(index) = &layout.index {
        side_files.push((INDEX.into(), SideFile::Content(report::pretty(index))));
    }
    let manifest = report::manifest(plan, layout, &prints, &records, &side_files)?;
    side_files.push((MANIFEST.into(), SideFile::Content(report::pretty(&manifest))));
    output.publish(&side_files, overwrite, &|| watch.check_cancelled())?;
    let made: u64 = plan.jobs.iter().filter(|job| !known.contains_key(&job.name)).map(|job| job.bytes()).sum();
    let bytes_read = watch.done.load(Ordering::Relaxed) - made;
    Ok(Report::new(plan, layout, &out, &records, resumed, bytes_read, start.elapsed()))
}

/// As the manifest has it: null where there is none.
fn spectra(spectra: &[Spectrum]) -> Json {
    let one = |Spectrum { of, part, account }: &Spectrum| {
        json!({
            "of": of, "part": part, "rank": account.rank, "stable_rank": account.stable_rank, "noise_share": account.noise_share,
            "orthogonality": account.orthogonality, "residual": account.residual,
        })
    };
    match spectra.is_empty() {
        true => Json::Null,
        false => spectra.iter().map(one).collect(),
    }
}

/// `out/` and `out` are the same folder.
fn trimmed(out: &Path) -> PathBuf {
    out.components().collect()
}
