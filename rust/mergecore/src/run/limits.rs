//! How many threads, how large a piece, how much memory?

use std::collections::BTreeSet;

use super::bundle::parties;
use super::{desk, whole};
use crate::error::{Error, Kind, Result};
use crate::kernels::select::LEAST;
use crate::methods::{Need, Scope};
use crate::names;
use crate::plan::matrices::Whole;
use crate::plan::{Bound, Job, Plan};

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
        Limits::choose_for(&[plan], threads, max_memory, tile)
    }

    /// The same for recipes that are run at the same time.
    pub fn choose_for(plans: &[&Plan], threads: Option<usize>, max_memory: Option<u64>, tile: Option<u64>) -> Result<Limits> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = threads.unwrap_or(cores);
        if threads == 0 {
            return Err(Error::recipe("0 threads cannot work: give 1 or more"));
        }
        // A thread has a tile of every recipe at hand.
        let tile = tile.unwrap_or((TILE / plans.len().max(1) as u64).next_multiple_of(LEAST_TILE));
        let gather = |plan: &&Plan| match plan.scope() {
            Scope::Tensor => GATHER,
            Scope::Model => GATHER_OF_ALL.max(GATHER_A_MODEL * plan.widest() as u64),
        };
        let gather = plans.iter().map(gather).max().unwrap_or(GATHER);
        let mut limits = Limits { threads, tile, gather, lanes: (threads / THREADS_OF_A_LANE).max(1) };
        let Some(cap) = max_memory else { return Ok(limits) };
        let rows = rows(plans);
        // What costs least speed goes first.
        while limits.bytes_for(plans, rows) > cap {
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
        let needed = limits.bytes_for(plans, rows);
        if needed > cap {
            let mb = |bytes: u64| (bytes as f64 / 1e6).ceil();
            let mut message = format!("--max-memory: {} MB is too little: this merge needs {} MB even on one thread", mb(cap), mb(needed));
            // Where it is matrices that don't fit.
            let largest = plans.iter().filter_map(|plan| limits.whole(plan)).max_by_key(|(_, bytes)| *bytes);
            if let Some((job, bytes)) = largest.filter(|(_, bytes)| needed - bytes <= cap.max(needed / 2)) {
                message +=
                    &format!(", {} of them for {}, which is merged as a matrix, in memory whole", mb(bytes), names::called(&job.name));
            }
            return Err(Error::new(Kind::Space, message));
        }
        Ok(limits)
    }

    /// What the run holds in memory, at most: rows and tiles a thread, thresholds an open tensor, one line a tensor, the process itself.
    pub fn bytes(&self, plan: &Plan) -> u64 {
        self.bytes_for(&[plan], rows(&[plan]))
    }

    /// The same for recipes that are run at the same time, in which a thread has so many rows at hand.
    fn bytes_for(&self, plans: &[&Plan], rows: u64) -> u64 {
        const PROCESS: u64 = 32 << 20;
        let wide = plans.iter().any(|plan| plan.jobs.iter().any(|job| job.wide));
        let block = plans.iter().flat_map(|plan| &plan.jobs).map(|job| job.block().min(job.elements())).max().unwrap_or(0);
        // Recipes of either arithmetic leave each its rows behind.
        let desks = self.threads as u64 * desk::bytes(rows, !wide || plans.len() > 1, wide, block);
        PROCESS + desks + plans.iter().map(|plan| self.bytes_of(plan)).sum::<u64>()
    }

    /// What every recipe takes for itself.
    fn bytes_of(&self, plan: &Plan) -> u64 {
        let element = plan.jobs.iter().map(|job| job.dtype.size()).max().unwrap_or(4);
        let tile = plan.jobs.iter().map(|job| self.tile_of(job).min(job.elements())).max().unwrap_or(0);
        let trays = self.threads as u64 * desk::tray_bytes(plan.widest(), tile, element);
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
        trays + thresholds + held + matrices + whole * needs.iter().map(each).max().unwrap_or(0) + plan.jobs.len() as u64 * 1024
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
    pub(super) fn tile_of(&self, job: &Job) -> u64 {
        self.tile.next_multiple_of(job.block()).max(job.block())
    }

    /// How many tensors are open at a time.
    fn open(&self) -> u64 {
        self.threads as u64 + 1
    }

    /// An open tensor's share of `gather`.
    pub(super) fn gather(&self) -> u64 {
        self.gather / self.open()
    }
}

/// Rows that a thread has at hand: raw, base, onto, out and the inputs; and, where several recipes share what is read, all that was.
fn rows(plans: &[&Plan]) -> u64 {
    let desk = plans.iter().map(|plan| plan.widest() as u64).max().unwrap_or(0) + 5;
    if plans.len() < 2 {
        return desk;
    }
    let jobs = plans.iter().enumerate().flat_map(|(recipe, plan)| (0..plan.jobs.len()).map(move |number| (recipe, number)));
    let sources = |party: &Vec<(usize, usize)>| {
        let jobs = party.iter().map(|(recipe, number)| &plans[*recipe].jobs[*number]);
        jobs.flat_map(|job| job.sources()).map(|tensor| tensor.place()).collect::<BTreeSet<_>>().len() as u64
    };
    desk + parties(plans, jobs).iter().map(sources).max().unwrap_or(0)
}
