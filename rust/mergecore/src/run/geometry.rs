//! How do models lie to their base and to each other? One pass over all of them, in the memory of a few rows.
//!
//! Each tensor's sums are taken block by block and added over fixed pieces, so that they are the same for any number of threads. An element
//! at which some model is NaN or infinite is left out of every sum, and counted: one such number would be all that the others say.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::{json, Value as Json};

use super::desk::{Desk, Desks, Seat};
use super::reader::Reader;
use super::schedule::{drive, Task};
use super::{Limits, Watch};
use crate::error::Result;
use crate::kernels::geometry::Geometry;
use crate::kernels::{angle, gram};
use crate::names::Layer;
use crate::plan::{Job, Plan, Work};

/// Elements that one thread takes at once, and of which it makes one line of sums.
const PIECE: u64 = 1 << 19;

/// What is summed of one tensor.
#[derive(Debug, Clone, PartialEq)]
struct Sums {
    models: usize,
    values: Vec<f64>,
}

/// Where each kind of sum begins.
impl Sums {
    fn none(models: usize) -> Sums {
        Sums { models, values: vec![0.0; Sums::pairs(models) + Sums::COUNT_OF_EACH * models + 2 + 3 * models * (models - 1) / 2] }
    }

    const LEFT_OUT: usize = 0;
    const BASE: usize = 1;
    const DOTS: usize = 2;
    const COUNT_OF_EACH: usize = 5;

    fn pairs(models: usize) -> usize {
        gram::pairs(models)
    }

    /// Σ|δ|, zeros, Σθ₀² where something changed, NaN and infinities, of every model in turn.
    fn of_each(&self, which: usize) -> std::ops::Range<usize> {
        let start = Sums::DOTS + Sums::pairs(self.models) + which * self.models;
        start..start + self.models
    }

    fn of_pairs(&self) -> usize {
        self.of_each(Sums::COUNT_OF_EACH).start
    }

    /// Adds those of a block, of which elements were left out.
    fn add(&mut self, block: &Geometry, left_out: usize) {
        let zeros = block.zeros.iter().map(|zeros| zeros - left_out as f64);
        let disagreements = block.pairs.iter().flat_map(|pair| [pair.apart, pair.conflicts, pair.conflicting]);
        let heads = [left_out as f64, block.base_square];
        let each = block.l1.iter().copied().chain(zeros).chain(block.touched_square.iter().copied());
        let sums = heads.into_iter().chain(block.dots.iter().copied()).chain(each);
        self.values.iter_mut().zip(sums).for_each(|(sum, term)| *sum += term);
        let place = self.of_pairs();
        self.values[place..].iter_mut().zip(disagreements).for_each(|(sum, term)| *sum += term);
    }

    fn json(&self, job: &Job) -> Json {
        let each = |which: usize| &self.values[self.of_each(which)];
        let triples = |which: usize| self.values[self.of_pairs()..].iter().skip(which).step_by(3).copied().collect::<Vec<f64>>();
        let layer = Layer::of(&job.name).map(|layer| json!({"stack": layer.stack, "number": layer.number, "kind": layer.rest}));
        let rounding: Vec<f64> = inputs(job).iter().map(|tensor| tensor.read_as().rounding()).collect();
        let dots = &self.values[Sums::DOTS..Sums::DOTS + Sums::pairs(self.models)];
        json!({
            "name": job.name, "shape": job.shape, "layer": layer,
            "left_out": self.values[Sums::LEFT_OUT], "base_square": self.values[Sums::BASE], "dots": dots,
            "l1": each(0), "zeros": each(1), "touched_square": each(2), "nan": each(3), "inf": each(4), "rounding": rounding,
            "apart": triples(0), "conflicts": triples(1), "conflicting": triples(2),
        })
    }
}

/// What is known of every tensor that was merged by this plan, were it run: a list of objects, in the order of the files.
///
/// `dots` are the dot products of the task vectors, (0, 0), (0, 1) ... (1, 1) ...; `apart`, `conflicts` and `conflicting` are of the pairs
/// (0, 1), (0, 2) ... (1, 2) ...; the other lists have one number a model.
pub fn measure(plan: &Plan, limits: Limits, watch: &Watch) -> Result<Json> {
    let jobs: Vec<&Job> = plan.jobs.iter().filter(|job| matches!(job.work, Work::Merge { .. })).collect();
    watch.total.store(jobs.iter().map(|job| job.bytes_to_read()).sum(), Ordering::Relaxed);
    let found: Vec<Mutex<Json>> = jobs.iter().map(|_| Mutex::new(Json::Null)).collect();
    let open = |i: usize| -> Result<Arc<dyn Task<Desks> + '_>> {
        let reader = Reader::new(jobs[i]).expect("it is merged");
        Ok(if jobs[i].wide {
            Arc::new(Measuring::<f64>::new(reader, watch, &found[i]))
        } else {
            Arc::new(Measuring::<f32>::new(reader, watch, &found[i]))
        })
    };
    drive(jobs.len(), &open, limits.threads, &Desks::default, &watch.cancelled)?;
    Ok(found.into_iter().map(|found| found.into_inner().expect("no holder panics")).collect())
}

fn inputs<'j>(job: &'j Job) -> &'j [crate::checkpoint::Tensor<'j>] {
    match &job.work {
        Work::Merge { inputs, .. } => inputs,
        Work::Copy(_) => &[],
    }
}

/// One tensor.
struct Measuring<'a, R> {
    reader: Reader<'a>,
    watch: &'a Watch,
    /// One line a piece.
    pieces: Mutex<Vec<Option<Sums>>>,
    found: &'a Mutex<Json>,
    arithmetic: std::marker::PhantomData<R>,
}

impl<'a, R: Seat> Measuring<'a, R> {
    fn new(reader: Reader<'a>, watch: &'a Watch, found: &'a Mutex<Json>) -> Self {
        let pieces = Mutex::new(vec![None; reader.job.elements().div_ceil(PIECE) as usize]);
        Measuring { reader, watch, pieces, found, arithmetic: std::marker::PhantomData }
    }
}

impl<R: Seat> Task<Desks> for Measuring<'_, R> {
    fn tiles(&self) -> usize {
        self.reader.job.elements().div_ceil(PIECE).max(1) as usize
    }

    fn work(&self, piece: usize, desks: &mut Desks) -> Result<()> {
        let (desk, job, reader) = (R::desk(desks), self.reader.job, &self.reader);
        let models = reader.inputs.len();
        let last = job.elements().min((piece as u64 + 1) * PIECE);
        let mut start = piece as u64 * PIECE;
        reader.will_need(start..last);
        let mut sums = Sums::none(models);
        let mut unfinite = vec![[0; 2]; models + 1];
        while start < last {
            self.watch.check_cancelled()?;
            let span = start..(start + job.block()).min(last);
            start = span.end;
            let before = unfinite.clone();
            reader.load(&span, desk, &mut unfinite)?;
            let block = Geometry::of(&desk.base, &desk.inputs);
            // A difference of finite numbers may be infinite: its square tells.
            if before == unfinite && block.base_square.is_finite() && block.dots.iter().all(|dot| dot.is_finite()) {
                sums.add(&block, 0);
            } else {
                let left_out = leave_out(desk);
                sums.add(&Geometry::of(&desk.base, &desk.inputs), left_out);
            }
        }
        for (model, [nan, infinite]) in unfinite[1..].iter().enumerate() {
            let places = [sums.of_each(3).start + model, sums.of_each(4).start + model];
            sums.values[places[0]] += *nan as f64;
            sums.values[places[1]] += *infinite as f64;
        }
        self.watch.done.fetch_add((last - piece as u64 * PIECE) * job.element_bytes(), Ordering::Relaxed);
        if let Some(place) = self.pieces.lock().expect("no holder panics").get_mut(piece) {
            *place = Some(sums);
        }
        Ok(())
    }

    fn conclude(&self) -> Result<bool> {
        self.reader.rest();
        let pieces: Vec<Sums> = self.pieces.lock().expect("no holder panics").drain(..).flatten().collect();
        let mut all = Sums::none(self.reader.inputs.len());
        for place in 0..all.values.len() {
            all.values[place] = angle::tree(&pieces.iter().map(|piece| piece.values[place]).collect::<Vec<_>>());
        }
        *self.found.lock().expect("no holder panics") = all.json(self.reader.job);
        Ok(false)
    }
}

/// Sets to zero what is not finite in the base or in some model, in all of them; says how many elements.
fn leave_out<R: Seat>(desk: &mut Desk<R>) -> usize {
    let mut count = 0;
    for i in 0..desk.base.len() {
        if !desk.base[i].is_finite() || desk.inputs.iter().any(|row| !row[i].is_finite()) {
            count += 1;
            desk.base[i] = R::ZERO;
            desk.inputs.iter_mut().for_each(|row| row[i] = R::ZERO);
        }
    }
    count
}
