//! Merging for whoever takes the tensors away as they are finished: the same jobs and bytes as on the disk, and nothing on it.
//!
//! The engine runs on a thread of its own and is ahead of the taker by so many bytes; then it waits. Only what is finished is counted, as
//! tensors that are begun must be able to end: there are at most as many of them as threads, and one.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::device::Device;
use super::{schedule, Context, Limits, Outcome, Sink, Watch};
use crate::error::Result;
use crate::layout::Layout;
use crate::plan::{Job, Plan};
use crate::report::Report;
use crate::write::digest::Digest;
use crate::write::journal::Record;

/// How often whoever waits looks whether the run was cancelled.
const BEAT: Duration = Duration::from_millis(100);

/// A finished tensor.
pub struct Merged {
    /// Its number among the plan's jobs.
    pub job: usize,
    pub bytes: Vec<u8>,
}

/// What is merged, held by the stream for as long as it runs.
pub trait Source: Send + Sync + 'static {
    fn plan(&self) -> &Plan<'static>;
    fn layout(&self) -> &Layout;
    fn limits(&self) -> Limits;
    fn device(&self) -> Option<&dyn Device>;
}

/// A merge on its way. Dropped before its end it is cancelled.
pub struct Stream {
    shared: Arc<Shared>,
    engine: Option<JoinHandle<()>>,
}

struct Shared {
    watch: Watch,
    /// Finished bytes that may wait to be taken.
    ahead: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    begun: BTreeMap<usize, Arc<Begun>>,
    finished: VecDeque<Merged>,
    waiting: u64,
    records: BTreeMap<String, Record>,
    ended: Option<Result<Report>>,
}

/// A tensor that threads are writing to.
struct Begun {
    bytes: Mutex<Vec<u8>>,
    digest: Digest,
}

impl Stream {
    /// Begins the merge; `ahead` bytes of finished tensors may wait to be taken.
    pub fn begin(source: impl Source, ahead: u64) -> Stream {
        let shared = Arc::new(Shared { watch: Watch::default(), ahead, state: Mutex::default(), changed: Condvar::new() });
        let own = shared.clone();
        let engine = std::thread::spawn(move || {
            let ended = schedule::guarded(|| own.run(&source));
            drop(source);
            own.state().ended = Some(ended);
            own.changed.notify_all();
        });
        Stream { shared, engine: Some(engine) }
    }

    pub fn watch(&self) -> &Watch {
        &self.shared.watch
    }

    /// The next tensor, in the order in which they are finished; none after the last.
    ///
    /// # Errors
    /// What an input did, once all that was finished before it is taken.
    pub fn next(&self) -> Result<Option<Merged>> {
        let mut state = self.shared.state();
        loop {
            if let Some(merged) = state.finished.pop_front() {
                state.waiting -= merged.bytes.len() as u64;
                self.shared.changed.notify_all();
                return Ok(Some(merged));
            }
            match &state.ended {
                Some(Ok(_)) => return Ok(None),
                Some(Err(error)) => return Err(error.clone()),
                None => state = self.shared.wait(state),
            }
        }
    }

    /// Stops the merge, and waits until it has.
    pub fn close(&self) {
        self.shared.watch.cancelled.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        let mut state = self.shared.state();
        while state.ended.is_none() {
            state = self.shared.wait(state);
        }
    }

    /// What the merge has to tell, once it has ended well.
    pub fn report(&self) -> Option<String> {
        match &self.shared.state().ended {
            Some(Ok(report)) => Some(report.0.to_string()),
            _ => None,
        }
    }

    /// One digest of all tensors, names and types and shapes included, once the merge has ended well.
    pub fn digest(&self, plan: &Plan) -> Option<String> {
        let state = self.shared.state();
        let Some(Ok(_)) = state.ended else { return None };
        let mut jobs: Vec<&Job> = plan.jobs.iter().collect();
        jobs.sort_by_key(|job| &job.name);
        let mut hasher = blake3::Hasher::new();
        for job in jobs {
            let line = format!("{} {} {:?} {}\n", job.name, job.dtype.name(), job.shape, state.records[&job.name].digest);
            hasher.update(line.as_bytes());
        }
        Some(hasher.finalize().to_hex().to_string())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close();
        if let Some(engine) = self.engine.take() {
            engine.join().expect("it is guarded");
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn wait<'a>(&self, state: std::sync::MutexGuard<'a, State>) -> std::sync::MutexGuard<'a, State> {
        self.changed.wait_timeout(state, BEAT).expect("no holder panics").0
    }

    fn run(&self, source: &impl Source) -> Result<Report> {
        let start = Instant::now();
        let plan = source.plan();
        let sink = Door { shared: self, plan };
        let context = Context::new(plan, source.limits(), &sink, &self.watch).on(source.device());
        super::run(std::slice::from_ref(&context), &|_, _| false)?;
        plan.checkpoints.iter().try_for_each(|checkpoint| checkpoint.check_unchanged())?;
        let read = context.done.load(Ordering::Relaxed) - plan.bytes_to_write();
        let records = &self.state().records;
        let mut report = Report::new(plan, source.layout(), Path::new(""), records, 0, read, start.elapsed());
        report.nothing_was_written();
        Ok(report)
    }
}

/// Where the engine's bytes go.
struct Door<'a> {
    shared: &'a Shared,
    plan: &'a Plan<'a>,
}

impl Door<'_> {
    /// The tensor that is written to; a new one is begun when what is finished has been taken for the most part.
    fn begun(&self, job: usize) -> Result<Arc<Begun>> {
        let mut state = self.shared.state();
        while !state.begun.contains_key(&job) && state.waiting > self.shared.ahead {
            self.shared.watch.check_cancelled()?;
            state = self.shared.wait(state);
        }
        let size = self.plan.jobs[job].bytes();
        let begin = || Arc::new(Begun { bytes: Mutex::new(vec![0; size as usize]), digest: Digest::new(size) });
        Ok(state.begun.entry(job).or_insert_with(begin).clone())
    }
}

impl Sink for Door<'_> {
    fn write(&self, job: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let begun = self.begun(job)?;
        begun.digest.add(offset, bytes);
        begun.bytes.lock().expect("no holder panics")[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finished(&self, job: usize, outcome: Outcome) -> Result<()> {
        let begun = self.begun(job)?;
        let bytes = std::mem::take(&mut *begun.bytes.lock().expect("no holder panics"));
        let name = self.plan.jobs[job].name.clone();
        let record = outcome.record(name.clone(), begun.digest.finish());
        let mut state = self.shared.state();
        state.begun.remove(&job);
        state.waiting += bytes.len() as u64;
        state.finished.push_back(Merged { job, bytes });
        state.records.insert(name, record);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn restart(&self, job: usize) {
        self.shared.state().begun.remove(&job);
    }
}
