//! How does a merged task vector become a piece of the output, and what is counted on the way?

use std::sync::Mutex;

use super::desk::{Desk, Seat};
use super::reader::{tally, Reader, STRIP};
use super::{Context, Outcome, Spectrum};
use crate::error::Result;
use crate::kernels::angle::{self, Distances};
use crate::kernels::blend;
use crate::plan::Work;

/// How a merged task vector becomes a piece of the output.
pub struct Writer<'a, R> {
    context: &'a Context<'a>,
    index: usize,
    /// Σ(θ−θ₀)² of each block, before and after rounding.
    deltas: Mutex<Vec<[f64; 2]>>,
    /// NaN and infinities of the output, then of each source.
    unfinite: Mutex<Vec<[u64; 2]>>,
    arithmetic: std::marker::PhantomData<R>,
}

impl<'a, R: Seat> Writer<'a, R> {
    pub fn new(context: &'a Context<'a>, index: usize, reader: &Reader) -> Self {
        let blocks = if reader.base.is_some() { reader.job.blocks() } else { 0 };
        let unfinite = Mutex::new(vec![[0; 2]; 1 + reader.job.sources().len()]);
        Writer { context, index, deltas: Mutex::new(vec![[0.0; 2]; blocks]), unfinite, arithmetic: std::marker::PhantomData }
    }

    /// No NaN and no infinity: the output's count, then the sources'.
    pub fn none(&self) -> Vec<[u64; 2]> {
        vec![[0; 2]; self.unfinite.lock().expect("no holder panics").len()]
    }

    /// A block's task vector, in `desk.out` beside its base, to bytes.
    pub fn encode(
        &self,
        reader: &Reader,
        block: usize,
        scale: f64,
        desk: &mut Desk<R>,
        bytes: &mut [u8],
        counts: &mut [[u64; 2]],
    ) -> Result<()> {
        let (written, sources) = counts.split_first_mut().expect("the output's, then the sources'");
        if let Some(slot) = sources.last_mut().filter(|_| reader.onto.is_some()) {
            reader.load_onto(reader.span(block).start, desk, slot)?;
        }
        let Desk { base, onto, out, .. } = desk;
        let onto = if reader.onto.is_some() { onto } else { &*base };
        let size = reader.job.dtype.size();
        if scale != 1.0 {
            blend::scale(out, R::of(scale));
        }
        let mut deltas = Distances::default();
        for (strip, (out, bytes)) in out.chunks_mut(STRIP).zip(bytes.chunks_mut(STRIP * size)).enumerate() {
            if reader.base.is_some() {
                blend::attach(out, &onto[strip * STRIP..], R::of(reader.bound.lambda));
            }
            R::encode(reader.job.dtype, out, bytes);
            // What was written, not what was computed, is what the world gets: rounding may overflow (f16) or lose the whole delta (bf16).
            let rounded = &mut [R::ZERO; STRIP][..out.len()];
            R::decode(reader.job.dtype, bytes, rounded);
            tally(rounded, written);
            if reader.base.is_some() {
                deltas.add(out, rounded, &base[strip * STRIP..][..out.len()]);
            }
        }
        if reader.base.is_some() {
            self.deltas.lock().expect("no holder panics")[block] = deltas.squared();
        }
        Ok(())
    }

    pub fn write(&self, first: u64, size: usize, bytes: &[u8], counts: Vec<[u64; 2]>) -> Result<()> {
        self.context.sink.write(self.index, first * size as u64, bytes)?;
        self.count(counts);
        Ok(())
    }

    /// Adds to what is known of NaN and infinities.
    pub fn count(&self, counts: Vec<[u64; 2]>) {
        for (sum, tile) in self.unfinite.lock().expect("no holder panics").iter_mut().zip(counts) {
            *sum = [sum[0] + tile[0], sum[1] + tile[1]];
        }
    }

    /// The first of the sources that holds NaN or infinities, by what is counted so far.
    pub fn first_unfinite(&self) -> Option<usize> {
        let counts = self.unfinite.lock().expect("no holder panics");
        counts[1..].iter().position(|[nan, infinite]| nan + infinite > 0)
    }

    /// The whole tensor is written.
    pub fn finished(&self, spectra: Vec<Spectrum>) -> Result<()> {
        let deltas = self.deltas.lock().expect("no holder panics");
        let column = |i: usize| angle::tree(&deltas.iter().map(|d| d[i]).collect::<Vec<_>>());
        let unfinite = self.unfinite.lock().expect("no holder panics");
        let has_base = matches!(self.context.plan.jobs[self.index].work, Work::Merge { base: Some(_), .. });
        let outcome =
            Outcome { delta: has_base.then(|| [column(0), column(1)]), unfinite: unfinite[0], sources: unfinite[1..].to_vec(), spectra };
        self.context.sink.finished(self.index, outcome)
    }
}
