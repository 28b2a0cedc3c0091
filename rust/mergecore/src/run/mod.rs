//! In what order, on how many threads, within how much memory?

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::kernels::select::LEAST;
use crate::kernels::spectral::reshape::Account;
use crate::kernels::spectral::workers::Workers;
use crate::matrices::{Solve, Spectral};
use crate::methods::{Facts, Formula, Method, Need, Scope};
use crate::names;
use crate::plan::matrices::Whole;
use crate::plan::{Bound, Job, Plan, Work};

mod desk;
pub mod disk;
mod facts;
pub mod geometry;
pub mod memory;
mod norms;
mod reader;
pub mod schedule;
mod tensor;
mod whole;
mod writer;

use desk::{Desks, Seat};
use facts::Survey;
use norms::Scales;
use reader::Reader;
use schedule::{drive, Task};
use tensor::{CopyTask, MergeTask, Then};
use whole::{End, WholeTask};
use writer::Writer;

/// Run-time choices. None of them changes a byte of the output.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub threads: usize,
    /// Elements a tile: the unit that a thread takes and writes at once.
    pub tile: u64,
    /// Numbers of 8 bytes that may be held in search of thresholds, of all models and all open tensors together.
    pub gather: u64,
    /// Tensors that are merged whole at a time, each by all threads.
    pub lanes: usize,
}

/// One bf16 tile is 1 MB.
const TILE: u64 = 512 * 1024;
const LEAST_TILE: u64 = 16 * 1024;
/// 8 MB of listed or counted magnitudes, however many models there are: more was not seen to be faster (1.1 B parameters, ties: 64 MB, 4.0 to
/// 4.3 s of user time in three runs; 8 MB, 4.0 to 4.3 s in four).
const GATHER: u64 = 1 << 20;
/// A whole model's are counted apart in pieces, the more the better: 64 MB, and 16 MB a model at least.
const GATHER_OF_ALL: u64 = 8 << 20;
const GATHER_A_MODEL: u64 = 2 << 20;
const LEAST_GATHER: u64 = 1 << 16;
/// More threads than these find too little to do in one eigendecomposition, so that another is begun beside it.
const THREADS_OF_A_LANE: usize = 8;

impl Limits {
    /// Fits threads and tiles into `max_memory` bytes, or says how much is needed at least.
    pub fn choose(plan: &Plan, threads: Option<usize>, max_memory: Option<u64>, tile: Option<u64>) -> Result<Limits> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = threads.unwrap_or(cores);
        if threads == 0 {
            return Err(Error::recipe("0 threads cannot work: give 1 or more"));
        }
        let tile = tile.unwrap_or(TILE);
        let gather = match plan.scope() {
            Scope::Tensor => GATHER,
            Scope::Model => GATHER_OF_ALL.max(GATHER_A_MODEL * plan.widest() as u64),
        };
        let mut limits = Limits { threads, tile, gather, lanes: (threads / THREADS_OF_A_LANE).max(1) };
        let Some(cap) = max_memory else { return Ok(limits) };
        // What costs least speed goes first.
        while limits.bytes(plan) > cap {
            if limits.lanes > 1 {
                limits.lanes -= 1;
            } else if limits.gather > LEAST_GATHER {
                limits.gather /= 2;
            } else if limits.tile > LEAST_TILE {
                limits.tile /= 2;
            } else if limits.threads > 1 {
                limits.threads -= 1;
            } else {
                break;
            }
        }
        let needed = limits.bytes(plan);
        if needed > cap {
            let mb = |bytes: u64| (bytes as f64 / 1e6).ceil();
            let mut message = format!("--max-memory: {} MB is too little: this merge needs {} MB even on one thread", mb(cap), mb(needed));
            // Where it is matrices that don't fit.
            if let Some((job, bytes)) = limits.whole(plan).filter(|(_, bytes)| needed - bytes <= cap.max(needed / 2)) {
                message +=
                    &format!(", {} of them for {}, which is merged as a matrix, in memory whole", mb(bytes), names::called(&job.name));
            }
            return Err(Error::new(Kind::Space, message));
        }
        Ok(limits)
    }

    /// What the run holds in memory, at most: rows and tiles a thread, thresholds an open tensor, one line a tensor, the process itself.
    pub fn bytes(&self, plan: &Plan) -> u64 {
        const PROCESS: u64 = 32 << 20;
        let models = plan.widest();
        let wide = plan.jobs.iter().any(|job| job.wide);
        let element = plan.jobs.iter().map(|job| job.dtype.size()).max().unwrap_or(4);
        let block = plan.jobs.iter().map(|job| job.block().min(job.elements())).max().unwrap_or(0);
        let tile = plan.jobs.iter().map(|job| self.tile_of(job).min(job.elements())).max().unwrap_or(0);
        let desks = self.threads as u64 * desk::bytes(models, wide, block, tile, element);
        let (needs, scope) = (plan.needs(), plan.scope());
        let open = if scope == Scope::Model { 1 } else { self.open() };
        let sought = needs.iter().map(|need| if let Need::Largest(keep) = need { keep.len() as u64 } else { 0 }).max().unwrap_or(0);
        let thresholds = if sought > 0 { 8 * self.gather.max(sought * LEAST * open) } else { 0 };
        // For every block its sums, and those of one kind once more while they are added; or how many ties it has, and its share of a sample.
        let each = |need: &Need| match need {
            Need::Nothing => 0,
            Need::Sums(count) => 8 * (*count as u64 + 1),
            Need::Largest(keep) => 4 * keep.len() as u64 + 1,
        };
        let whole = match scope {
            Scope::Tensor => 0,
            Scope::Model => plan.jobs.iter().map(|job| job.blocks() as u64).sum(),
        };
        let held = plan.jobs.iter().map(Job::held).max().unwrap_or(0) * self.open();
        let matrices = self.whole(plan).map_or(0, |(_, bytes)| bytes) * self.lanes as u64;
        PROCESS + desks + thresholds + held + matrices + whole * needs.iter().map(each).max().unwrap_or(0) + plan.jobs.len() as u64 * 1024
    }

    /// The tensor that takes most when it is merged whole, and how many bytes.
    fn whole<'p, 'a>(&self, plan: &'p Plan<'a>) -> Option<(&'p Job<'a>, u64)> {
        let bytes = |job: &Job| {
            let bound = job.bound.as_deref()?;
            let of =
                |bound: &Bound, whole: &Option<Whole>| whole.as_ref().map(|whole| whole::bytes(job, bound, whole, self.threads as u64));
            let other = bound.other.as_deref().and_then(|other| of(other, &job.whole_of_other));
            of(bound, &job.whole).max(other)
        };
        plan.jobs.iter().filter_map(|job| Some((job, bytes(job)?))).max_by_key(|(_, bytes)| *bytes)
    }

    /// Whole blocks.
    fn tile_of(&self, job: &Job) -> u64 {
        self.tile.next_multiple_of(job.block()).max(job.block())
    }

    /// How many tensors are open at a time.
    fn open(&self) -> u64 {
        self.threads as u64 + 1
    }

    /// An open tensor's share of `gather`.
    fn gather(&self) -> u64 {
        self.gather / self.open()
    }
}

/// What the caller may look at and turn while the engine runs.
#[derive(Debug, Default)]
pub struct Watch {
    pub cancelled: AtomicBool,
    /// Bytes read and written so far, and in all.
    pub done: AtomicU64,
    pub total: AtomicU64,
}

impl Watch {
    pub fn check_cancelled(&self) -> Result<()> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(Error::interrupted()),
            false => Ok(()),
        }
    }
}

/// Where merged bytes go.
pub trait Sink: Sync {
    fn write(&self, job: usize, offset: u64, bytes: &[u8]) -> Result<()>;
    fn finished(&self, job: usize, outcome: Outcome) -> Result<()>;
}

/// What is known of a tensor once it is merged.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Σ (θ − θ₀)², before and after rounding; none without a base.
    pub delta: Option<[f64; 2]>,
    /// NaN and infinite values: in the output, and in each source.
    pub unfinite: [u64; 2],
    pub sources: Vec<[u64; 2]>,
    /// Of its matrices, where they were merged or modified whole.
    pub spectra: Vec<Spectrum>,
}

/// What is known of a matrix of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// Who looked at it: the method or a modifier.
    pub of: &'static str,
    /// Which part of the tensor it is; "" where it is all of it.
    pub part: String,
    pub account: Account,
}

/// What all tasks of a run share.
pub struct Context<'a> {
    pub plan: &'a Plan<'a>,
    pub limits: Limits,
    pub sink: &'a dyn Sink,
    pub watch: &'a Watch,
}

impl Context<'_> {
    fn tiles(&self, job: &Job) -> usize {
        (job.elements().div_ceil(self.limits.tile_of(job)) as usize).max(1)
    }

    /// The blocks and elements of a tile.
    fn tile(&self, job: &Job, tile: usize) -> (Range<usize>, Range<u64>) {
        let start = tile as u64 * self.limits.tile_of(job);
        let end = (start + self.limits.tile_of(job)).min(job.elements());
        ((start / job.block()) as usize..end.div_ceil(job.block()) as usize, start..end)
    }

    fn progress(&self, bytes: u64) {
        self.watch.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Merges every job that `skip` does not name, into the sink.
pub fn run(context: &Context, skip: &dyn Fn(&Job) -> bool) -> Result<()> {
    let todo: Vec<usize> = (0..context.plan.jobs.len()).filter(|i| !skip(&context.plan.jobs[*i])).collect();
    let read: u64 = todo.iter().map(|i| context.plan.jobs[*i].bytes_to_read() + context.plan.jobs[*i].bytes()).sum();
    context.watch.total.store(read, Ordering::Relaxed);
    let dense: Vec<usize> = todo.iter().copied().filter(|i| context.plan.jobs[*i].whole.is_some()).collect();
    let todo: Vec<usize> = todo.into_iter().filter(|i| context.plan.jobs[*i].whole.is_none()).collect();
    if dense.is_empty() && todo.is_empty() {
        return Ok(());
    }
    let cancelled = &context.watch.cancelled;
    let any_dense = context.plan.jobs.iter().any(|job| job.whole.is_some() || job.whole_of_other.is_some());
    if any_dense {
        give_back_what_is_freed();
    }
    let workers = any_dense.then(|| Workers::new(context.limits.threads, cancelled)).transpose()?;
    let (own, other) = (survey(context, false)?, survey(context, true)?);
    let scales = norms::measure(context, workers.as_ref(), own.as_ref(), other.as_ref())?;
    let run = Run { context, own: own.as_ref(), scales: scales.as_ref(), workers: workers.as_ref() };
    drive(todo.len(), &|i| run.open(todo[i]), context.limits.threads, &Desks::default, cancelled)?;
    // One after the other (or a few at a time): each wants all threads, and memory.
    drive(dense.len(), &|i| run.open(dense[i]), context.limits.lanes, &Desks::default, cancelled)
}

/// Makes large pieces of memory go back to the system when they are freed. By itself glibc keeps more and more of them for each thread: up to
/// a third more than was planned was seen, where all work is on matrices of some MB. (With 128 KB instead of 16 MB half of the
/// time went into clearing pages that come and go.)
fn give_back_what_is_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: each sets a number of the allocator's, under the allocator's lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 16 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 20);
    }
}

/// What every tensor's task is made of.
struct Run<'a> {
    context: &'a Context<'a>,
    own: Option<&'a ModelFacts>,
    scales: Option<&'a Scales>,
    workers: Option<&'a Workers<'a>>,
}

impl<'a> Run<'a> {
    fn open(&self, index: usize) -> Result<Arc<dyn Task<Desks> + 'a>> {
        let job = &self.context.plan.jobs[index];
        match (&job.work, Reader::new(job)) {
            (Work::Copy(tensor), _) => Ok(Arc::new(CopyTask::new(self.context, index, job, tensor))),
            (_, Some(reader)) if job.wide => self.merge::<f64>(index, reader),
            (_, Some(reader)) => self.merge::<f32>(index, reader),
            (Work::Merge { .. }, None) => unreachable!("a merge has a reader"),
        }
    }

    fn merge<R: Seat>(&self, index: usize, reader: Reader<'a>) -> Result<Arc<dyn Task<Desks> + 'a>>
    where
        dyn Method: Formula<R>,
        dyn Spectral: Solve<R>,
    {
        let Run { context, own, scales, workers } = *self;
        let known = own.and_then(|facts| facts.of(index));
        let writer = Arc::new(Writer::<R>::new(context, index, &reader));
        Ok(match (&context.plan.jobs[index].whole, workers) {
            (Some(whole), Some(workers)) => {
                Arc::new(WholeTask { context, workers, reader, whole, known, writer, end: End::Write(scales), index })
            }
            _ => {
                let unmeasured = || unreachable!("a tensor that is merged block by block was measured before");
                let scale = scales.map_or(Ok(1.0), |scales| scales.factor(index, unmeasured))?;
                Arc::new(MergeTask::new(context, writer, reader, known, Then::Write(scale))?)
            }
        })
    }
}

/// Facts of the whole model, and where each merged job's blocks begin in their numbering.
struct ModelFacts {
    facts: Facts,
    offsets: BTreeMap<usize, usize>,
}

impl ModelFacts {
    /// For one tensor; none for one that is copied, which has no place in the numbering.
    fn of(&self, index: usize) -> Option<(Facts, usize)> {
        Some((self.facts.clone(), *self.offsets.get(&index)?))
    }
}

/// What a method wants to know of the whole model: the recipe's, or the one whose norm is matched.
fn survey(context: &Context, of_other: bool) -> Result<Option<ModelFacts>> {
    let bound = context.plan.jobs.iter().find_map(|job| job.bound.as_deref());
    let Some(bound) = bound.and_then(|bound| if of_other { bound.other.as_deref() } else { Some(bound) }) else { return Ok(None) };
    match (bound.method.scope(), context.plan.jobs.iter().any(|job| job.wide)) {
        (Scope::Tensor, _) => Ok(None),
        (Scope::Model, false) => survey_model::<f32>(context, bound).map(Some),
        (Scope::Model, true) => survey_model::<f64>(context, bound).map(Some),
    }
}

/// Makes the passes that a method with `Scope::Model` asks for. Blocks are numbered by the tensors' names, so that neither the order of the
/// files nor that of the work can be seen in the result.
fn survey_model<R: Seat>(context: &Context, bound: &Bound) -> Result<ModelFacts>
where
    dyn Method: Formula<R>,
{
    let jobs = &context.plan.jobs;
    let merged: Vec<usize> = (0..jobs.len()).filter(|i| matches!(jobs[*i].work, Work::Merge { .. })).collect();
    let mut by_name = merged.clone();
    by_name.sort_by_key(|i| &jobs[*i].name);
    let (mut offsets, mut blocks, mut elements) = (BTreeMap::new(), 0, 0);
    for i in by_name {
        offsets.insert(i, blocks);
        // In a model's numbering no two tensors share a block, so that ties are kept tensor by tensor.
        blocks += jobs[i].blocks();
        elements += jobs[i].elements();
    }
    let mut facts = Facts::default();
    // The plan saw to it that all tensors have the same.
    let method = &*bound.method;
    while let Some(mut survey) = Survey::next::<R>(method, &facts, elements, blocks, context.limits.gather) {
        loop {
            if !survey.is_clear() {
                let reader = |i: usize| Reader::of(&jobs[i], bound).expect("only merges are surveyed");
                let read: u64 = merged.iter().map(|i| reader(*i).wanted(&survey, offsets[i]) * jobs[*i].element_bytes()).sum();
                context.watch.total.fetch_add(read, Ordering::Relaxed);
                let open = |i: usize| -> Result<Arc<dyn Task<Desks> + '_>> {
                    let (reader, offset) = (reader(merged[i]), offsets[&merged[i]]);
                    Ok(Arc::new(SurveyTask::<R> {
                        context,
                        reader,
                        survey: &survey,
                        facts: &facts,
                        offset,
                        arithmetic: std::marker::PhantomData,
                    }))
                };
                drive(merged.len(), &open, context.limits.threads, &Desks::default, &context.watch.cancelled)?;
            }
            if survey.conclude(&mut facts)? {
                break;
            }
        }
    }
    Ok(ModelFacts { facts, offsets })
}

/// One tensor's share of a pass over the whole model.
struct SurveyTask<'a, R> {
    context: &'a Context<'a>,
    reader: Reader<'a>,
    survey: &'a Survey,
    facts: &'a Facts,
    offset: usize,
    arithmetic: std::marker::PhantomData<R>,
}

impl<R: Seat> Task<Desks> for SurveyTask<'_, R>
where
    dyn Method: Formula<R>,
{
    fn tiles(&self) -> usize {
        self.context.tiles(self.reader.job)
    }

    fn work(&self, tile: usize, desks: &mut Desks) -> Result<()> {
        self.context.watch.check_cancelled()?;
        let (blocks, _) = self.context.tile(self.reader.job, tile);
        let read = self.reader.observe(self.context, self.survey, self.facts, blocks, self.offset, R::desk(desks))?;
        self.context.progress(read * self.reader.job.element_bytes());
        Ok(())
    }

    fn conclude(&self) -> Result<bool> {
        self.reader.rest();
        Ok(false)
    }
}
