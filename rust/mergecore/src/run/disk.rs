//! Merging onto the disk: journalled, resumed, and published whole. One recipe, or many that read the same models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value as Json;

use super::device::Device;
use super::{Context, Group, Limits, Outcome, Sink, Watch};
use crate::error::{Error, Result};
use crate::layout::{Layout, INDEX, MANIFEST};
use crate::plan::Plan;
use crate::report::{self, Report};
use crate::write::digest::Digest;
use crate::write::journal::Record;
use crate::write::{self, Identity, Output, SideFile};

/// A merge that is to become a folder.
pub struct Order<'a> {
    /// What its errors call it, where there are others; else empty.
    pub title: String,
    pub plan: &'a Plan<'a>,
    pub layout: &'a Layout,
    pub out: PathBuf,
    /// The files beside the weights.
    pub side_files: Vec<(String, SideFile)>,
}

/// Merges an order into its folder, by itself; on a device, if one is given.
///
/// # Errors
/// Before the first byte: `out` exists, is an input, or does not fit on the disk. After: what an input or the disk did. The work done stays
/// in OUT.partial, and the same call goes on with it.
pub fn merge(order: Order, limits: Limits, overwrite: bool, device: Option<&dyn Device>, watch: &Watch) -> Result<Report> {
    let order = Order { out: trimmed(&order.out), ..order };
    let checked = [Checked::of(order, &[], overwrite)?];
    let mut reports = run_together(&checked.each_ref(), limits, overwrite, device, watch)?;
    Ok(reports.remove(0))
}

/// Merges each order into its folder, with one reading for those that read the same tensors; their reports, in the same order. Whatever is
/// wrong with any of them is found before the first byte of any is written; `inputs` are what else is read meanwhile, and stays.
///
/// A folder that holds what its order would make is left as it is, unless `overwrite`: an earlier call, stopped later, has made it.
///
/// # Errors
/// As `merge`, the order's title before each; or two orders have one output.
pub fn merge_many(
    orders: Vec<Order>,
    (threads, max_memory): (Option<usize>, Option<u64>),
    inputs: &[PathBuf],
    overwrite: bool,
    watch: &Watch,
) -> Result<Vec<Report>> {
    let start = Instant::now();
    let outs: Vec<PathBuf> = orders.iter().map(|order| trimmed(&order.out)).collect();
    write::check_apart(&outs)?;
    let inputs: Vec<PathBuf> = orders.iter().flat_map(|order| places(order.plan)).chain(inputs.iter().cloned()).collect();
    let mut reports: BTreeMap<usize, Report> = BTreeMap::new();
    let (mut numbers, mut checked) = (Vec::new(), Vec::new());
    for (number, (order, out)) in orders.into_iter().zip(outs).enumerate() {
        let title = order.title.clone();
        let order = Order { out, ..order };
        write::tidy(&order.out);
        let made = || report::is_made(order.plan, order.layout, &order.side_files, &order.out);
        let made = !overwrite && order.out.exists() && made().map_err(|error| error.of(&title))?;
        if made {
            let report = Report::of_made(order.plan, order.layout, &order.out, start.elapsed());
            reports.insert(number, report.map_err(|error| error.of(&title))?);
        } else {
            checked.push(Checked::of(order, &inputs, overwrite).map_err(|error| error.of(&title))?);
            numbers.push(number);
        }
    }
    write::check_space(&checked.iter().map(|one| (one.order.out.as_path(), one.order.layout)).collect::<Vec<_>>())?;
    let plans: Vec<&Plan> = checked.iter().map(|one| one.order.plan).collect();
    for Group { recipes, limits } in super::groups(&plans, threads, max_memory)? {
        let group: Vec<&Checked> = recipes.iter().map(|recipe| &checked[*recipe]).collect();
        let made = run_together(&group, limits, overwrite, None, watch)?;
        reports.extend(recipes.iter().map(|recipe| numbers[*recipe]).zip(made));
    }
    Ok(reports.into_values().collect())
}

/// An order that may be written, and who recognises it.
struct Checked<'a> {
    order: Order<'a>,
    /// The inputs' fingerprints.
    prints: Json,
    identity: Identity,
}

impl<'a> Checked<'a> {
    /// Finds what is wrong without writing anything; `others` are what other orders read.
    fn of(order: Order<'a>, others: &[PathBuf], overwrite: bool) -> Result<Self> {
        let Order { plan, layout, out, side_files, .. } = &order;
        let inputs = places(plan);
        write::check(out, &inputs, overwrite)?;
        write::check(out, others, overwrite)?;
        write::check_side_files(layout, side_files)?;
        let prints = report::fingerprints(plan)?;
        let identity = Identity { recipe: report::recipe_hash(plan, layout), prints: report::hash_of(&prints), inputs };
        write::check_leftovers(out, &identity, overwrite)?;
        Ok(Checked { order, prints, identity })
    }
}

/// Where a plan's models and adapters are.
fn places(plan: &Plan) -> Vec<PathBuf> {
    plan.checkpoints.iter().flat_map(|c| [Some(c.path.clone()), c.adapter.clone()]).flatten().collect()
}

/// One order while it is worked on.
struct Disk<'a> {
    order: &'a Order<'a>,
    prints: &'a Json,
    output: Output,
    /// What an earlier run finished.
    known: BTreeMap<String, Record>,
    /// Of the tensors in work.
    digests: Mutex<BTreeMap<usize, Arc<Digest>>>,
    records: Mutex<BTreeMap<String, Record>>,
}

/// Merges all of these at the same time, and publishes one after the other.
fn run_together(group: &[&Checked], limits: Limits, overwrite: bool, device: Option<&dyn Device>, watch: &Watch) -> Result<Vec<Report>> {
    let start = Instant::now();
    let disks = group.iter().map(|checked| Disk::begin(checked, overwrite)).collect::<Result<Vec<_>>>()?;
    let contexts: Vec<Context> = disks.iter().map(|disk| Context::new(disk.order.plan, limits, disk, watch).on(device)).collect();
    std::thread::scope(|scope| {
        let journals: Vec<_> = disks.iter().map(|disk| scope.spawn(move || super::schedule::guarded(|| disk.keep_journal()))).collect();
        // Both guarded: a panic is an error that names itself, and the journals' threads wait to be stopped whatever happens here.
        let done = super::schedule::guarded(|| super::run(&contexts, &|which, job| disks[which].known.contains_key(&job.name)));
        disks.iter().for_each(|disk| disk.output.stop());
        // A journal's own error says more than the writers', who only saw that it stopped.
        let kept = journals.into_iter().map(|journal| journal.join().expect("it is guarded"));
        kept.fold(Ok(()), Result::and).and(done)
    })?;
    let moved: Vec<u64> = contexts.iter().map(|context| context.done.load(Ordering::Relaxed)).collect();
    drop(contexts);
    let publish = |(disk, moved): (Disk, u64)| {
        let title = &disk.order.title;
        disk.publish(moved, start, overwrite, watch).map_err(|error| error.of(title))
    };
    disks.into_iter().zip(moved).map(publish).collect()
}

impl<'a> Disk<'a> {
    fn begin(checked: &'a Checked<'a>, overwrite: bool) -> Result<Self> {
        let Checked { order, prints, identity } = checked;
        let (output, known) = Output::create(&order.out, order.layout, identity, overwrite).map_err(|error| error.of(&order.title))?;
        let records = Mutex::new(known.clone());
        Ok(Disk { order, prints, output, known, digests: Mutex::default(), records })
    }

    fn keep_journal(&self) -> Result<()> {
        self.output.keep_journal().map_err(|error| error.of(&self.order.title))
    }

    fn digest(&self, job: usize) -> Arc<Digest> {
        let mut digests = self.digests.lock().expect("no holder panics");
        digests.entry(job).or_insert_with(|| Arc::new(Digest::new(self.order.plan.jobs[job].bytes()))).clone()
    }

    /// All tensors are merged, for which so many bytes were read and written.
    fn publish(self, moved: u64, start: Instant, overwrite: bool, watch: &Watch) -> Result<Report> {
        let Order { plan, layout, out, .. } = self.order;
        plan.checkpoints.iter().try_for_each(|checkpoint| checkpoint.check_unchanged())?;
        let records = self.records.into_inner().expect("no holder panics");
        let index = layout.index.as_ref().map(|index| (INDEX.into(), SideFile::Content(report::pretty(index))));
        let mut side_files: Vec<&(String, SideFile)> = self.order.side_files.iter().chain(&index).collect();
        let manifest = report::manifest(plan, layout, self.prints, &records, &side_files)?;
        let manifest = (MANIFEST.into(), SideFile::Content(report::pretty(&manifest)));
        side_files.push(&manifest);
        self.output.publish(&side_files, overwrite, &|| watch.check_cancelled())?;
        let made: u64 = plan.jobs.iter().filter(|job| !self.known.contains_key(&job.name)).map(|job| job.bytes()).sum();
        Ok(Report::new(plan, layout, out, &records, self.known.len(), moved - made, start.elapsed()))
    }
}

impl Sink for Disk<'_> {
    fn write(&self, job: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.output.journal_failed() {
            return Err(Error::run("the journal could not be written"));
        }
        self.digest(job).add(offset, bytes);
        let (file, start) = self.order.layout.places[job];
        self.output.write(self.order.layout, file, start + offset, bytes)
    }

    fn finished(&self, job: usize, outcome: Outcome) -> Result<()> {
        let digest = self.digest(job).finish();
        self.digests.lock().expect("no holder panics").remove(&job);
        let name = self.order.plan.jobs[job].name.clone();
        let record = outcome.record(name.clone(), digest);
        self.output.finished(record.clone());
        self.records.lock().expect("no holder panics").insert(name, record);
        Ok(())
    }

    fn restart(&self, job: usize) {
        self.digests.lock().expect("no holder panics").remove(&job);
    }
}

/// `out/` and `out` are the same folder.
fn trimmed(out: &Path) -> PathBuf {
    out.components().collect()
}
