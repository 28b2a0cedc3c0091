//! Merging on a device: files are read and written here, as for any merge, and the formula is worked out there.
//!
//! Who works it out is the caller's. A tensor's bytes are handed over piece by piece, as they are stored, and its merged task vector comes
//! back in the arithmetic's type: what is added to it, rounding, norms and digests are the engine's. Where the device's memory is too small
//! the pieces are halved, and at last the tensor is given back to the CPU: nothing that a device does ends a merge that the CPU can make.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{json, Value as Json};

use super::desk::{Desk, Seat};
use super::reader::Reader;
use super::schedule::guarded;
use super::writer::Writer;
use super::{Context, Spectrum};
use crate::checkpoint::Tensor;
use crate::error::{Error, Result};
use crate::plan::matrices::{Steps, Unit, Whole};
use crate::plan::{Job, Work};

/// Who works formulas out.
pub trait Device: Sync {
    /// Tensors that are worked on at a time.
    fn lanes(&self) -> usize;

    /// A tensor's merge, by one of the lanes; none if it is not made there. What takes long looks at `cancelled` now and then.
    fn begin(&self, lane: usize, tensor: &Json, cancelled: &Arc<AtomicBool>) -> Result<Option<Box<dyn Bench>>>;
}

/// A tensor's merge on a device. Where memory was too small the answer is `None`, and it is as if nothing had been asked since the first
/// source of the piece was given.
pub trait Bench {
    /// Elements that are handed over at a time.
    fn chunk(&self) -> u64;

    /// The elements that have to be seen before the tensor can be merged; none when it can be.
    fn wanted(&mut self) -> Result<Option<Range<u64>>>;

    /// Room for the bytes of the next source of a piece, all of which are written before it is given.
    fn buffer(&mut self, bytes: usize) -> Result<Option<&mut [u8]>>;

    /// Takes the buffer as the source of that number: the base first, if there is one, then the models.
    fn give(&mut self, source: usize) -> Result<Option<()>>;

    /// Looks at the piece that begins there.
    fn observe(&mut self, first: u64) -> Result<Option<()>>;

    /// All that was wanted was seen.
    fn conclude(&mut self) -> Result<()>;

    /// The piece that begins there, merged.
    fn merge(&mut self, first: u64) -> Result<Option<Merged<'_>>>;

    /// The unit of that number, whose sources are the piece, merged matrix by matrix.
    fn solve(&mut self, unit: usize) -> Result<Option<Merged<'_>>>;

    /// What is known of the matrices, once all units were merged.
    fn spectra(&mut self) -> Result<Vec<Spectrum>>;
}

/// A piece of the merged task vector.
pub struct Merged<'a> {
    /// In the arithmetic's type.
    pub values: &'a [u8],
    /// NaN and infinities in what was given, source by source.
    pub unfinite: Vec<[u64; 2]>,
}

/// Merges those of the jobs that the device takes; gives back the numbers of the others.
pub fn merge(context: &Context, device: &dyn Device, mut numbers: Vec<usize>) -> Result<Vec<usize>> {
    let jobs = &context.plan.jobs;
    // The largest first: so none is begun when all others are done.
    numbers.sort_by_key(|number| (Reverse(jobs[*number].elements()), *number));
    let (next, left, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(None));
    let work = |lane: usize| -> Result<()> {
        while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
            context.watch.check_cancelled()?;
            if failed.lock().expect("no holder panics").is_some() {
                return Ok(());
            }
            let job = &jobs[number];
            let done = match (&job.work, device.begin(lane, &about(context, job), &context.watch.cancelled)?) {
                (Work::Merge { .. }, Some(bench)) if job.wide => At::<f64>::new(context, number, bench).tensor()?,
                (Work::Merge { .. }, Some(bench)) => At::<f32>::new(context, number, bench).tensor()?,
                _ => false,
            };
            if !done {
                left.lock().expect("no holder panics").push(number);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for lane in 0..device.lanes().max(1) {
            let (work, failed) = (&work, &failed);
            scope.spawn(move || {
                if let Err(error) = guarded(|| work(lane)) {
                    failed.lock().expect("no holder panics").get_or_insert(error);
                }
            });
        }
    });
    let mut left = left.into_inner().expect("no holder panics");
    left.sort_unstable();
    failed.into_inner().expect("no holder panics").map_or(Ok(left), Err)
}

/// What a device is told of a tensor.
fn about(context: &Context, job: &Job) -> Json {
    let recipe = &context.plan.recipe;
    let Some((bound, reader)) = job.bound.as_ref().zip(Reader::new(job)) else { return json!({"name": job.name, "method": null}) };
    json!({
        "name": job.name,
        "shape": job.shape,
        "method": recipe.spec.name,
        "parameters": bound.params.json(),
        "modifiers": recipe.modifiers.iter().map(|m| json!({"name": m.spec.name, "parameters": m.params.json()})).collect::<Vec<_>>(),
        "seed": recipe.seed,
        "wide": job.wide,
        "base": reader.base.is_some(),
        "stored": sources(&reader).map(|tensor| tensor.read_as().name()).collect::<Vec<_>>(),
        "sources": job.origins.iter().map(|origin| origin.model.as_str()).take(sources(&reader).count()).collect::<Vec<_>>(),
        "whole": job.whole.as_ref().map(whole),
    })
}

fn whole(whole: &Whole) -> Json {
    let steps = |s: &Steps| json!({"start": s.start, "groups": s.groups, "count": s.count, "stride": s.stride});
    let unit = |unit: &Unit| {
        let parts = unit
            .parts
            .iter()
            .map(|part| json!({"label": part.label, "width": part.width, "rows": steps(&part.rows), "columns": steps(&part.columns)}));
        json!({"elements": [unit.elements.start, unit.elements.end], "parts": parts.collect::<Vec<_>>()})
    };
    json!({"solved": whole.solved, "reshaped": whole.reshaped, "units": whole.units.iter().map(unit).collect::<Vec<_>>()})
}

/// What is handed over: the base first.
fn sources<'r>(reader: &'r Reader) -> impl Iterator<Item = &'r Tensor<'r>> {
    reader.base.into_iter().chain(reader.inputs)
}

/// A tensor while it is merged on a device.
struct At<'a, R> {
    context: &'a Context<'a>,
    number: usize,
    reader: Reader<'a>,
    writer: Writer<'a, R>,
    bench: Box<dyn Bench>,
    desk: Desk<R>,
    encoded: Vec<u8>,
    /// Bytes read and written so far.
    moved: u64,
}

impl<'a, R: Seat> At<'a, R> {
    fn new(context: &'a Context<'a>, number: usize, bench: Box<dyn Bench>) -> Self {
        let reader = Reader::new(&context.plan.jobs[number]).expect("it is a merge");
        let writer = Writer::new(context, number, &reader);
        At { context, number, reader, writer, bench, desk: Desk::default(), encoded: Vec::new(), moved: 0 }
    }

    /// Merges all of it; false where the device's memory does not hold the least piece of it.
    fn tensor(mut self) -> Result<bool> {
        let done = match &self.reader.job.whole {
            Some(whole) => self.units(&whole.units)?,
            None => self.elements()?,
        };
        match done {
            true => {
                self.reader.rest();
                let spectra = self.bench.spectra()?;
                self.writer.finished(spectra)?;
            }
            false => {
                self.context.sink.restart(self.number);
                self.context.take_back(self.moved);
            }
        }
        Ok(done)
    }

    fn units(&mut self, units: &[Unit]) -> Result<bool> {
        for (number, unit) in units.iter().enumerate() {
            if self.hand_over(&unit.elements)?.is_none() {
                return Ok(false);
            }
            let Some(merged) = self.bench.solve(number)? else { return Ok(false) };
            let moved = write(&self.reader, &self.writer, &unit.elements, &merged, &mut self.desk, &mut self.encoded)?;
            self.progress(moved);
        }
        Ok(true)
    }

    fn elements(&mut self) -> Result<bool> {
        let block = self.reader.job.block();
        let mut chunk = (self.bench.chunk() / block * block).max(block);
        while let Some(wanted) = self.bench.wanted()? {
            if !self.pieces(wanted, &mut chunk, |at, piece| at.bench.observe(piece.start))? {
                return Ok(false);
            }
            self.bench.conclude()?;
        }
        let all = 0..self.reader.job.elements();
        self.pieces(all, &mut chunk, |at, piece| {
            let Some(merged) = at.bench.merge(piece.start)? else { return Ok(None) };
            let moved = write(&at.reader, &at.writer, piece, &merged, &mut at.desk, &mut at.encoded)?;
            at.progress(moved);
            Ok(Some(()))
        })
    }

    /// Hands the elements over piece by piece, each to `act`; one for which memory is too small again as two.
    fn pieces(
        &mut self,
        elements: Range<u64>,
        chunk: &mut u64,
        mut act: impl FnMut(&mut Self, &Range<u64>) -> Result<Option<()>>,
    ) -> Result<bool> {
        let block = self.reader.job.block();
        let mut first = elements.start;
        while first < elements.end {
            self.context.watch.check_cancelled()?;
            let piece = first..(first + *chunk).min(elements.end);
            let done = match self.hand_over(&piece)? {
                Some(()) => act(self, &piece)?,
                None => None,
            };
            match done {
                Some(()) => first = piece.end,
                None if *chunk <= block => return Ok(false),
                None => *chunk = (*chunk / 2 / block * block).max(block),
            }
        }
        Ok(true)
    }

    fn progress(&mut self, moved: u64) {
        self.moved += moved;
        self.context.progress(moved);
    }

    /// Reads a piece of every source into the device's hands.
    fn hand_over(&mut self, piece: &Range<u64>) -> Result<Option<()>> {
        self.reader.will_need(piece.clone());
        for (number, tensor) in sources(&self.reader).enumerate() {
            self.context.watch.check_cancelled()?;
            let bytes = (piece.end - piece.start) as usize * tensor.read_as().size();
            let Some(buffer) = self.bench.buffer(bytes)? else { return Ok(None) };
            if buffer.len() != bytes {
                return Err(Error::run(format!("a device gave room for {} bytes instead of {bytes}", buffer.len())));
            }
            tensor.read(piece.start, buffer)?;
            if self.bench.give(number)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }
}

/// Writes a piece of a task vector, which begins with a block; how many bytes were read and written for it.
fn write<R: Seat>(
    reader: &Reader,
    writer: &Writer<R>,
    piece: &Range<u64>,
    merged: &Merged,
    desk: &mut Desk<R>,
    encoded: &mut Vec<u8>,
) -> Result<u64> {
    let job = reader.job;
    let (size, block, number) = (job.dtype.size(), job.block() as usize, (piece.end - piece.start) as usize);
    if merged.values.len() != number * R::DTYPE.size() {
        return Err(Error::run(format!("a device merged {number} elements into {} bytes", merged.values.len())));
    }
    let mut counts = writer.none();
    for (sum, found) in counts[1..].iter_mut().zip(&merged.unfinite) {
        *sum = *found;
    }
    encoded.resize(number * size, 0);
    let values = merged.values.chunks(block * R::DTYPE.size());
    for (i, (bytes, values)) in encoded.chunks_mut(block * size).zip(values).enumerate() {
        let block = (piece.start / job.block()) as usize + i;
        reader.load_base(block, desk)?;
        R::decode(R::DTYPE, values, &mut desk.out);
        writer.encode(reader, block, 1.0, desk, bytes, &mut counts)?;
    }
    writer.write(piece.start, size, encoded, counts)?;
    Ok(number as u64 * job.element_bytes() + encoded.len() as u64)
}
