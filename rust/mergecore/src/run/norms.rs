//! How long are the task vectors of two methods? What `match_norm` must know before anything is scaled.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::bundle::Bundle;
use super::desk::{Desks, Seat};
use super::reader::Reader;
use super::schedule::{drive, Task};
use super::tensor::{Merge, Then};
use super::whole::{End, WholeTask};
use super::writer::Writer;
use super::{Context, ModelFacts};
use crate::error::{Error, Result};
use crate::kernels::angle;
use crate::kernels::spectral::workers::Workers;
use crate::matrices::{Solve, Spectral};
use crate::methods::{Facts, Formula, Method, Scope};
use crate::names;
use crate::plan::Work;

/// Σ Δ² of every merged tensor, by the recipe's method and by the other.
pub struct Scales {
    scope: Scope,
    own: BTreeMap<usize, f64>,
    other: BTreeMap<usize, f64>,
    names: Vec<String>,
}

impl Scales {
    /// What a tensor's task vector is scaled by; `own` measures it where that was left to now.
    pub fn factor(&self, job: usize, own: impl FnOnce() -> Result<f64>) -> Result<f64> {
        let sum = |squares: &BTreeMap<usize, f64>| angle::tree(&squares.values().copied().collect::<Vec<_>>());
        let (own, other, place) = match self.scope {
            Scope::Model => {
                let unfinite = |squares: &BTreeMap<usize, f64>| squares.iter().find(|(_, square)| !square.is_finite()).map(|(i, _)| *i);
                (sum(&self.own), sum(&self.other), unfinite(&self.other).or_else(|| unfinite(&self.own)).unwrap_or(job))
            }
            Scope::Tensor => {
                let known = self.own.get(&job).copied();
                (known.map_or_else(own, Ok)?, self.other.get(&job).copied().unwrap_or(0.0), job)
            }
        };
        match (other / own).sqrt() {
            _ if own == 0.0 => Ok(1.0),
            factor if factor.is_finite() => Ok(factor),
            _ => Err(Error::run(format!(
                "{}: its merged task vector holds NaN or infinite values, so that match_norm finds no norm: mend the models, or leave \
                 match_norm out",
                names::called(&self.names[place])
            ))),
        }
    }
}

/// One task vector to be measured.
struct Measuring<'a> {
    context: &'a Context<'a>,
    workers: Option<&'a Workers<'a>>,
    index: usize,
    /// By the method whose norm is matched.
    of_other: bool,
    known: Option<(Facts, usize)>,
    /// Where Σ Δ² goes.
    sum: &'a Mutex<f64>,
}

impl<'a> Measuring<'a> {
    fn open<R: Seat>(self) -> Result<Arc<dyn Task<Desks> + 'a>>
    where
        dyn Method: Formula<R>,
        dyn Spectral: Solve<R>,
    {
        let Measuring { context, workers, index, of_other, known, sum } = self;
        let job = &context.plan.jobs[index];
        let own = job.bound.as_deref().expect("a merged tensor has a method");
        let bound = if of_other { own.other.as_deref().expect("there is another method") } else { own };
        let reader = Reader::of(job, bound).expect("it is merged");
        let writer = Arc::new(Writer::<R>::new(context, index, &reader));
        let whole = if of_other { job.whole_of_other.as_ref() } else { job.whole.as_ref() };
        Ok(match (whole, workers) {
            (Some(whole), Some(workers)) => {
                let modifiers = if of_other { 0 } else { own.matched().map_or(0, |(i, _)| i) };
                Arc::new(WholeTask { context, workers, reader, whole, known, writer, end: End::Measure(sum, modifiers), index })
            }
            _ => {
                let then = Then::Measure(Mutex::new(vec![0.0; job.blocks()]), sum);
                Arc::new(Bundle::new(vec![Merge::new(context, writer, reader, known, then)?]))
            }
        })
    }
}

/// Measures what there is to measure, by two methods, tensor by tensor; None where no norm is matched.
pub fn measure(
    context: &Context,
    workers: Option<&Workers>,
    own: Option<&ModelFacts>,
    other: Option<&ModelFacts>,
) -> Result<Option<Scales>> {
    let Some(scope) = context.plan.matched() else { return Ok(None) };
    let jobs = &context.plan.jobs;
    // Side by side, so that the second finds in memory what the first has read.
    let mut asked: Vec<(usize, bool)> = Vec::new();
    for i in (0..jobs.len()).filter(|i| matches!(jobs[*i].work, Work::Merge { .. })) {
        asked.push((i, true));
        // A tensor that is made in memory is measured when it is.
        if scope == Scope::Model || jobs[i].whole.is_none() {
            asked.push((i, false));
        }
    }
    let found: Vec<Mutex<f64>> = asked.iter().map(|_| Mutex::new(0.0)).collect();
    let more: u64 = asked.iter().map(|(i, _)| jobs[*i].bytes_to_read()).sum();
    context.watch.total.fetch_add(more, Ordering::Relaxed);
    for dense in [false, true] {
        let is_dense = |(i, of_other): (usize, bool)| if of_other { jobs[i].whole_of_other.is_some() } else { jobs[i].whole.is_some() };
        let some: Vec<usize> = (0..asked.len()).filter(|n| is_dense(asked[*n]) == dense).collect();
        let open = |n: usize| -> Result<Arc<dyn Task<Desks> + '_>> {
            let (index, of_other) = asked[some[n]];
            let known = if of_other { other } else { own }.and_then(|facts| facts.of(index));
            let task = Measuring { context, workers, index, of_other, known, sum: &found[some[n]] };
            if jobs[index].wide {
                task.open::<f64>()
            } else {
                task.open::<f32>()
            }
        };
        let threads = if dense { context.limits.lanes } else { context.limits.threads };
        drive(some.len(), &open, threads, &Desks::default, &context.watch.cancelled)?;
    }
    let lambda = |i: usize| jobs[i].bound.as_ref().and_then(|bound| bound.other.as_ref()).map_or(1.0, |other| other.lambda);
    let squares = |of_other: bool| {
        let known = asked.iter().zip(&found).filter(|((_, other), _)| *other == of_other);
        let one = |((i, _), sum): (&(usize, bool), &Mutex<f64>)| {
            let square = *sum.lock().expect("no holder panics");
            (*i, if of_other { square * lambda(*i).powi(2) } else { square })
        };
        known.map(one).collect()
    };
    let (own, other) = (squares(false), squares(true));
    Ok(Some(Scales { scope, own, other, names: jobs.iter().map(|job| job.name.clone()).collect() }))
}
