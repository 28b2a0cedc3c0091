//! Merging arrays in memory: the same jobs, the same blocks, the same bytes as from disk.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{Context, Limits, Outcome, Sink, Watch};
use crate::error::{Error, Result};
use crate::plan::Plan;

/// What a merge in memory has to tell.
pub struct Summary {
    /// ‖θ − θ₀‖ before and after rounding; none without a base.
    pub delta_norm: Option<[f64; 2]>,
    pub unfinite: [u64; 2],
}

struct Arrays<'a> {
    /// One an output tensor, in the order of the jobs.
    out: Vec<Mutex<&'a mut [u8]>>,
    /// By job, so that sums are taken in one order.
    outcomes: Mutex<BTreeMap<usize, Outcome>>,
}

impl Sink for Arrays<'_> {
    fn write(&self, job: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut out = self.out[job].lock().expect("no holder panics");
        out[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finished(&self, job: usize, outcome: Outcome) -> Result<()> {
        self.outcomes.lock().expect("no holder panics").insert(job, outcome);
        Ok(())
    }

    fn restart(&self, _: usize) {}
}

/// Merges into `out`, which has one array for each job, of exactly its size.
pub fn merge(plan: &Plan, limits: Limits, mut out: BTreeMap<String, &mut [u8]>, watch: &Watch) -> Result<Summary> {
    let mut arrays = Vec::new();
    for job in &plan.jobs {
        let array = out.remove(&job.name).ok_or_else(|| Error::model(format!("no output array for tensor {}", job.name)))?;
        if array.len() as u64 != job.bytes() {
            return Err(Error::model(format!(
                "the output array for tensor {} has {} bytes and needs {}",
                job.name,
                array.len(),
                job.bytes()
            )));
        }
        arrays.push(Mutex::new(array));
    }
    let sink = Arrays { out: arrays, outcomes: Mutex::default() };
    super::run(&[Context::new(plan, limits, &sink, watch)], &|_, _| false)?;
    let outcomes = sink.outcomes.into_inner().expect("no holder panics");
    let sum = |i: usize| outcomes.values().filter_map(|o| o.delta).map(|d| d[i]).sum::<f64>().sqrt();
    let count = |i: usize| outcomes.values().map(|o| o.unfinite[i]).sum();
    Ok(Summary { delta_norm: outcomes.values().any(|o| o.delta.is_some()).then(|| [sum(0), sum(1)]), unfinite: [count(0), count(1)] })
}
