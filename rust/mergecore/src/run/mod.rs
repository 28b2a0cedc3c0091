//! In what order, on how many threads, within how much memory?

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use serde_json::{json, Value as Json};

use crate::error::{Error, Result};
use crate::kernels::spectral::reshape::Account;
use crate::kernels::spectral::workers::Workers;
use crate::matrices::{Solve, Spectral};
use crate::methods::{Facts, Formula, Method, Scope};
use crate::plan::matrices::Whole;
use crate::plan::{Bound, Job, Plan, Work};
use crate::write::journal::Record;

mod bundle;
mod desk;
pub mod device;
pub mod disk;
mod facts;
pub mod geometry;
mod groups;
mod limits;
pub mod memory;
mod norms;
mod reader;
pub mod schedule;
mod shelf;
pub mod stream;
mod tensor;
mod whole;
mod writer;

use bundle::{parties, Bundle};
use desk::{Desks, Seat};
use device::Device;
use facts::Survey;
pub use groups::{groups, Group};
pub use limits::Limits;
use norms::Scales;
use reader::Reader;
use schedule::{drive, Task};
use tensor::{CopyTask, Merge, Then};
use whole::{End, WholeTask};
use writer::Writer;

/// What the caller may look at and turn while the engine runs.
#[derive(Debug, Default)]
pub struct Watch {
    pub cancelled: Arc<AtomicBool>,
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
    /// A tensor is made anew, from its beginning: what was written of it is as good as not written.
    fn restart(&self, job: usize);
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

impl Outcome {
    /// What the report and the manifest say of the tensor.
    fn record(self, name: String, digest: String) -> Record {
        let spectra = spectra(&self.spectra);
        Record { name, digest, delta: self.delta, unfinite: self.unfinite, sources: self.sources, spectra }
    }
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

/// What is known of a matrix of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// Who looked at it: the method or a modifier.
    pub of: &'static str,
    /// Which part of the tensor it is; "" where it is all of it.
    pub part: String,
    pub account: Account,
}

/// What all tasks of one recipe share.
pub struct Context<'a> {
    pub plan: &'a Plan<'a>,
    pub limits: Limits,
    pub sink: &'a dyn Sink,
    pub watch: &'a Watch,
    /// Who works formulas out instead of this processor, where somebody does.
    pub device: Option<&'a dyn Device>,
    /// Bytes read and written so far for this recipe; what one reading brings several of them counts for each.
    pub done: AtomicU64,
}

impl<'a> Context<'a> {
    pub fn new(plan: &'a Plan<'a>, limits: Limits, sink: &'a dyn Sink, watch: &'a Watch) -> Self {
        Context { plan, limits, sink, watch, device: None, done: AtomicU64::new(0) }
    }

    pub fn on(self, device: Option<&'a dyn Device>) -> Self {
        Context { device, ..self }
    }

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
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.watch.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much of the progress was for nothing.
    fn take_back(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
        self.watch.done.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Merges every job of every recipe that `skip` does not name (by the recipe's number), into their sinks. One reading of a piece serves all
/// recipes that want it. They have the same limits.
pub fn run(contexts: &[Context], skip: &dyn Fn(usize, &Job) -> bool) -> Result<()> {
    let Some(Context { limits, watch, .. }) = contexts.first() else { return Ok(()) };
    let jobs = |recipe: usize| contexts[recipe].plan.jobs.iter().enumerate().map(move |(number, job)| (recipe, number, job));
    let todo: Vec<_> = (0..contexts.len()).flat_map(jobs).filter(|(recipe, _, job)| !skip(*recipe, job)).collect();
    let moved: u64 = todo.iter().map(|(.., job)| job.bytes_to_read() + job.bytes()).sum();
    watch.total.fetch_add(moved, Ordering::Relaxed);
    let todo = without_those_of_devices(contexts, todo)?;
    let (dense, todo): (Vec<_>, Vec<_>) = todo.into_iter().partition(|(.., job)| job.whole.is_some());
    let any_dense = contexts.iter().any(|c| c.plan.jobs.iter().any(|job| job.whole.is_some() || job.whole_of_other.is_some()));
    if any_dense {
        give_back_what_is_freed();
    }
    let workers = any_dense.then(|| Workers::new(limits.threads, &watch.cancelled)).transpose()?;
    let busy = |recipe: usize| dense.iter().chain(&todo).any(|(other, ..)| *other == recipe);
    let facts =
        (0..contexts.len()).map(|recipe| if busy(recipe) { Known::of(&contexts[recipe], workers.as_ref()) } else { Ok(Known::default()) });
    let facts = facts.collect::<Result<Vec<_>>>()?;
    let runs: Vec<Run> = contexts.iter().zip(&facts).map(|(context, known)| Run { context, known, workers: workers.as_ref() }).collect();
    let plans: Vec<&Plan> = contexts.iter().map(|context| context.plan).collect();
    let parties = parties(&plans, todo.iter().map(|(recipe, number, _)| (*recipe, *number)));
    drive(parties.len(), &|i| open(&runs, &parties[i]), limits.threads, &Desks::default, &watch.cancelled)?;
    // One after the other (or a few at a time): each wants all threads, and memory.
    let dense: Vec<_> = dense.iter().map(|(recipe, number, _)| [(*recipe, *number)]).collect();
    drive(dense.len(), &|i| open(&runs, &dense[i]), limits.lanes, &Desks::default, &watch.cancelled)
}

type Todo<'a> = Vec<(usize, usize, &'a Job<'a>)>;

/// Has merged what devices merge; gives the rest.
fn without_those_of_devices<'a>(contexts: &'a [Context<'a>], todo: Todo<'a>) -> Result<Todo<'a>> {
    let mut left = BTreeMap::new();
    for (recipe, context) in contexts.iter().enumerate() {
        if let Some(device) = context.device {
            let own = todo.iter().filter(|(other, ..)| *other == recipe).map(|(_, number, _)| *number);
            left.insert(recipe, device::merge(context, device, own.collect())?);
        }
    }
    let stays = |(recipe, number, _): &(usize, usize, &Job)| left.get(recipe).is_none_or(|left| left.contains(number));
    Ok(todo.into_iter().filter(stays).collect())
}

/// What has to be known of a whole model before its first tensor is merged.
#[derive(Default)]
struct Known {
    own: Option<ModelFacts>,
    scales: Option<Scales>,
}

impl Known {
    fn of(context: &Context, workers: Option<&Workers>) -> Result<Known> {
        let (own, other) = (survey(context, false)?, survey(context, true)?);
        let scales = norms::measure(context, workers, own.as_ref(), other.as_ref())?;
        Ok(Known { own, scales })
    }
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

/// What every task of a recipe is made of.
struct Run<'a> {
    context: &'a Context<'a>,
    known: &'a Known,
    workers: Option<&'a Workers<'a>>,
}

/// The task of jobs that are worked on together.
fn open<'a>(runs: &[Run<'a>], party: &[(usize, usize)]) -> Result<Arc<dyn Task<Desks> + 'a>> {
    let (recipe, number) = party[0];
    let context = runs[recipe].context;
    let job = &context.plan.jobs[number];
    match &job.work {
        Work::Copy(tensor) => Ok(Arc::new(CopyTask::new(context, number, job, tensor))),
        Work::Merge { .. } if job.wide => together::<f64>(runs, party),
        Work::Merge { .. } => together::<f32>(runs, party),
    }
}

fn together<'a, R: Seat>(runs: &[Run<'a>], party: &[(usize, usize)]) -> Result<Arc<dyn Task<Desks> + 'a>>
where
    dyn Method: Formula<R>,
    dyn Spectral: Solve<R>,
{
    let (recipe, number) = party[0];
    match (&runs[recipe].context.plan.jobs[number].whole, runs[recipe].workers) {
        (Some(whole), Some(workers)) => Ok(runs[recipe].whole::<R>(number, whole, workers)),
        _ => {
            let merges = party.iter().map(|(recipe, number)| runs[*recipe].merge::<R>(*number));
            Ok(Arc::new(Bundle::new(merges.collect::<Result<_>>()?)))
        }
    }
}

impl<'a> Run<'a> {
    fn reader(&self, number: usize) -> Reader<'a> {
        Reader::new(&self.context.plan.jobs[number]).expect("a merge has a reader")
    }

    fn merge<R: Seat>(&self, number: usize) -> Result<Merge<'a, R>>
    where
        dyn Method: Formula<R>,
    {
        let Run { context, known, .. } = *self;
        let reader = self.reader(number);
        let writer = Arc::new(Writer::<R>::new(context, number, &reader));
        let unmeasured = || unreachable!("a tensor that is merged block by block was measured before");
        let scale = known.scales.as_ref().map_or(Ok(1.0), |scales| scales.factor(number, unmeasured))?;
        Merge::new(context, writer, reader, known.own.as_ref().and_then(|facts| facts.of(number)), Then::Write(scale))
    }

    fn whole<R: Seat>(&self, number: usize, whole: &'a Whole, workers: &'a Workers<'a>) -> Arc<dyn Task<Desks> + 'a>
    where
        dyn Method: Formula<R>,
        dyn Spectral: Solve<R>,
    {
        let Run { context, known, .. } = *self;
        let reader = self.reader(number);
        let writer = Arc::new(Writer::<R>::new(context, number, &reader));
        let (own, end) = (known.own.as_ref().and_then(|facts| facts.of(number)), End::Write(known.scales.as_ref()));
        Arc::new(WholeTask { context, workers, reader, whole, known: own, writer, end, index: number })
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
