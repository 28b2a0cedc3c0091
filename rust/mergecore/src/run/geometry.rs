//! How do models lie to their base and to each other? One pass over all of them, in the memory of a few rows.
//!
//! Each tensor's sums are taken block by block and added over fixed pieces, so that they are the same for any number of threads. An element
//! at which some model is NaN or infinite (or 1e150 and more, whose square is) is left out of every sum, and counted: one such number would be
//! all that the others say.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::{json, Value as Json};

use super::reader::{tally, Reader};
use super::schedule::{drive, Task};
use super::{Limits, Watch};
use crate::checkpoint::Tensor;
use crate::dtype::{Dtype, Real};
use crate::error::Result;
use crate::kernels::geometry::{Geometry, Sizes, Strip, STRIP};
use crate::kernels::{angle, gram};
use crate::names::Layer;
use crate::plan::{Job, Plan, Work};

/// Elements that one thread takes at once, and of which it makes one line of sums.
const PIECE: u64 = 1 << 19;
/// Bytes that are read at once, of all models: they fit a core's cache, so that the kernel's copy costs no second way to memory. (Reads of 128 KB take
/// three quarters of the time of those of 64 KB.)
const BLOCK: u64 = 640 << 10;

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

    fn from(sums: &Geometry, models: usize, left_out: u64, unfinite: &[[u64; 2]]) -> Sums {
        // What was left out is zero in every model.
        let zeros = sums.zeros().map(|zeros| zeros - left_out as f64);
        let mut values = vec![left_out as f64, sums.base_square()];
        values.extend(sums.dots().chain(sums.l1()).chain(zeros).chain(sums.touched_square()));
        values.extend((0..2).flat_map(|which| unfinite[1..].iter().map(move |counts| counts[which] as f64)));
        values.extend(sums.pairs().flat_map(|pair| [pair.apart, pair.conflicts, pair.conflicting]));
        Sums { models, values }
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
    let open = |i: usize| -> Result<Arc<dyn Task<Raws> + '_>> {
        let reader = Reader::new(jobs[i]).expect("it is merged");
        Ok(if jobs[i].wide {
            Arc::new(Measuring::<f64>::new(reader, watch, &found[i]))
        } else {
            Arc::new(Measuring::<f32>::new(reader, watch, &found[i]))
        })
    };
    drive(jobs.len(), &open, limits.threads, &Raws::default, &watch.cancelled)?;
    Ok(found.into_iter().map(|found| found.into_inner().expect("no holder panics")).collect())
}

fn inputs<'j>(job: &'j Job) -> &'j [Tensor<'j>] {
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

impl<'a, R: Real> Measuring<'a, R> {
    fn new(reader: Reader<'a>, watch: &'a Watch, found: &'a Mutex<Json>) -> Self {
        let pieces = Mutex::new(vec![None; reader.job.elements().div_ceil(PIECE) as usize]);
        Measuring { reader, watch, pieces, found, arithmetic: std::marker::PhantomData }
    }
}

impl<R: Real> Task<Raws> for Measuring<'_, R> {
    fn tiles(&self) -> usize {
        self.reader.job.elements().div_ceil(PIECE).max(1) as usize
    }

    fn work(&self, piece: usize, raws: &mut Raws) -> Result<()> {
        let (job, reader) = (self.reader.job, &self.reader);
        let models = reader.inputs.len();
        let last = job.elements().min((piece as u64 + 1) * PIECE);
        let mut start = piece as u64 * PIECE;
        reader.will_need(start..last);
        let mut sums = Geometry::of(models);
        let (mut left_out, mut unfinite) = (0, vec![[0; 2]; models + 1]);
        let mut strips = Strips::<R>::of(models);
        let block = (BLOCK / job.element_bytes() / STRIP as u64).max(1) * STRIP as u64;
        while start < last {
            self.watch.check_cancelled()?;
            let span = start..(start + block).min(last);
            start = span.end;
            let read = raws.read(reader, &span)?;
            for at in (0..(span.end - span.start) as usize).step_by(STRIP) {
                let count = STRIP.min((span.end - span.start) as usize - at);
                strips.decode(&read, at, count);
                if !strips.add_to(&mut sums, count) {
                    strips.tally(&read, at, count, &mut unfinite);
                    left_out += strips.leave_out(count);
                    if !strips.add_to(&mut sums, count) {
                        // Numbers of f32 near its end; none of f64 is left that is too large.
                        strips.widened().add_to(&mut sums, count);
                    }
                }
            }
        }
        let sums = Sums::from(&sums, models, left_out, &unfinite);
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

/// The bytes of a block, of the base and every model.
#[derive(Default)]
struct Raws(Vec<Vec<u8>>);

impl Raws {
    fn read<'r>(&'r mut self, reader: &'r Reader, span: &Range<u64>) -> Result<Vec<(Dtype, &'r [u8])>> {
        let sources: Vec<&Tensor> = reader.base.into_iter().chain(reader.inputs).collect();
        self.0.resize_with(sources.len(), Vec::new);
        for (tensor, raw) in sources.iter().zip(&mut self.0) {
            raw.resize((span.end - span.start) as usize * tensor.read_as().size(), 0);
            tensor.read(span.start, raw)?;
        }
        Ok(sources.iter().zip(&self.0).map(|(tensor, raw)| (tensor.read_as(), raw.as_slice())).collect())
    }
}

/// The base and the task vectors of a few elements.
struct Strips<R> {
    base: Strip<R>,
    rows: Vec<Strip<R>>,
    sizes: Vec<Sizes<R>>,
}

impl<R: Real> Strips<R> {
    fn of(models: usize) -> Strips<R> {
        Strips { base: Strip::ZERO, rows: vec![Strip::ZERO; models], sizes: vec![Default::default(); models] }
    }

    /// From `count` elements of the bytes, from the one at `at` on.
    fn decode(&mut self, raws: &[(Dtype, &[u8])], at: usize, count: usize) {
        let (base, rows) = raws.split_first().expect("a base");
        self.base.0[count..].fill(R::ZERO);
        decode(base, at, &mut self.base.0[..count]);
        for (row, (dtype, bytes)) in self.rows.iter_mut().zip(rows) {
            row.0[count..].fill(R::ZERO);
            let size = dtype.size();
            R::decode_from(*dtype, &bytes[at * size..(at + count) * size], &self.base.0[..count], &mut row.0[..count]);
        }
    }

    fn add_to(&mut self, sums: &mut Geometry, count: usize) -> bool {
        sums.add(&self.base, &self.rows, &mut self.sizes, count)
    }

    fn widened(&self) -> Strips<f64> {
        let wide = |strip: &Strip<R>| Strip(strip.0.map(|x| x.f64()));
        let rows: Vec<Strip<f64>> = self.rows.iter().map(wide).collect();
        Strips { base: wide(&self.base), sizes: vec![Default::default(); rows.len()], rows }
    }

    /// Counts the NaN and infinities of the base and each model.
    fn tally(&self, raws: &[(Dtype, &[u8])], at: usize, count: usize, unfinite: &mut [[u64; 2]]) {
        let mut values = Strip::<R>::ZERO;
        for (raw, counts) in raws.iter().zip(unfinite) {
            decode(raw, at, &mut values.0[..count]);
            tally(&values.0[..count], counts);
        }
    }

    /// Sets to zero what is not finite, or 1e150 and more, in the base or in some difference from it, in all of them; says how many elements.
    fn leave_out(&mut self, count: usize) -> u64 {
        let mut left_out = 0;
        for i in 0..count {
            // The squares of such numbers are infinite in f64.
            let fits = |x: R| x.abs().f64() < 1e150;
            if !fits(self.base.0[i]) || !self.rows.iter().all(|row| fits(row.0[i])) {
                left_out += 1;
                self.base.0[i] = R::ZERO;
                self.rows.iter_mut().for_each(|row| row.0[i] = R::ZERO);
            }
        }
        left_out
    }
}

fn decode<R: Real>((dtype, bytes): &(Dtype, &[u8]), at: usize, out: &mut [R]) {
    let size = dtype.size();
    R::decode(*dtype, &bytes[at * size..(at + out.len()) * size], out);
}
