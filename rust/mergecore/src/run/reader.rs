//! How is a piece of a tensor read, of every model? Bytes → rows, task vectors where a method merges them.

use std::ops::Range;

use super::desk::{Desk, Seat};
use super::facts::Survey;
use super::Context;
use crate::checkpoint::Tensor;
use crate::dtype::{count_unfinite, Real};
use crate::error::Result;
use crate::kernels::blend;
use crate::kernels::select::Seen;
use crate::methods::{Facts, Formula, Method};
use crate::plan::{Bound, Job, Work};

/// The inputs of one tensor, and how its blocks are read.
pub struct Reader<'a> {
    pub job: &'a Job<'a>,
    pub base: Option<&'a Tensor<'a>>,
    pub inputs: &'a [Tensor<'a>],
    pub onto: Option<&'a Tensor<'a>>,
    pub bound: &'a Bound,
}

impl<'a> Reader<'a> {
    pub fn new(job: &'a Job<'a>) -> Option<Reader<'a>> {
        Reader::of(job, job.bound.as_deref()?)
    }

    /// For another method than the job's own.
    pub fn of(job: &'a Job<'a>, bound: &'a Bound) -> Option<Reader<'a>> {
        let Work::Merge { base, inputs, onto } = &job.work else { return None };
        Some(Reader { job, base: base.as_ref(), inputs, onto: onto.as_ref(), bound })
    }

    /// The elements of block `block`.
    pub fn span(&self, block: usize) -> Range<u64> {
        let first = block as u64 * self.job.block();
        first..(first + self.job.block()).min(self.job.elements())
    }

    /// Puts a block's models and base on the desk, models as task vectors where the method wants them. Adds to each source's count of
    /// what is not finite.
    pub fn load<R: Seat>(&self, span: &Range<u64>, desk: &mut Desk<R>, unfinite: &mut [[u64; 2]]) -> Result<()> {
        let (first, count) = (span.start, (span.end - span.start) as usize);
        desk.inputs.resize_with(self.inputs.len(), Vec::new);
        desk.out.resize(count, R::ZERO);
        let Desk { raw, base, inputs, shelf, .. } = desk;
        let mut unfinite = unfinite.iter_mut();
        let mut slot = || unfinite.next().expect("one for each source");
        if !shelf.shared {
            if let Some(tensor) = self.base {
                row(tensor, first, count, raw, base, None, slot())?;
            }
            for (tensor, values) in self.inputs.iter().zip(inputs) {
                row(tensor, first, count, raw, values, self.base.is_some().then_some(base), slot())?;
            }
            return Ok(());
        }
        if let Some(tensor) = self.base {
            add(slot(), shelf.lay_base(tensor, first, count, raw, base)?);
        }
        shelf.truncate_inputs(inputs.len());
        let base = self.base.is_some().then_some(&*base);
        for (input, values) in self.inputs.iter().enumerate().zip(inputs) {
            add(slot(), shelf.lay_input(input, (first, count), raw, base, values)?);
        }
        Ok(())
    }

    /// The method has seen the block on the desk.
    pub fn worked_on<R: Seat>(&self, desk: &mut Desk<R>) {
        if !self.bound.method.keeps() {
            desk.shelf.forget_inputs();
        }
    }

    /// Puts what a block's task vector is added to on the desk, where that is not the base.
    pub fn load_onto<R: Seat>(&self, first: u64, desk: &mut Desk<R>, unfinite: &mut [u64; 2]) -> Result<()> {
        let Some(tensor) = self.onto else { return Ok(()) };
        let Desk { raw, onto, out, shelf, .. } = desk;
        if !shelf.shared {
            return row(tensor, first, out.len(), raw, onto, None, unfinite);
        }
        let read = shelf.row(tensor, first, out.len(), raw)?;
        add(unfinite, read.unfinite);
        onto.clear();
        onto.extend_from_slice(&read.values);
        Ok(())
    }

    /// Puts a block's base on the desk, and room for what is merged.
    pub fn load_base<R: Seat>(&self, block: usize, desk: &mut Desk<R>) -> Result<()> {
        let span = self.span(block);
        desk.out.resize((span.end - span.start) as usize, R::ZERO);
        match self.base {
            // Its NaN and infinities were counted when it was merged.
            Some(tensor) => row(tensor, span.start, desk.out.len(), &mut desk.raw, &mut desk.base, None, &mut [0; 2]),
            None => Ok(()),
        }
    }

    /// How many elements a survey will look at, if its numbering of this tensor's blocks begins at `offset`.
    pub fn wanted(&self, survey: &Survey, offset: usize) -> u64 {
        let wanted = (0..self.job.blocks()).filter(|block| survey.wants(offset + block)).map(|block| self.span(block));
        wanted.map(|span| span.end - span.start).sum()
    }

    /// Looks at the blocks of a tile that a survey wants; says how many elements were read.
    pub fn observe<R: Seat>(
        &self,
        context: &Context,
        survey: &Survey,
        facts: &Facts,
        tile: Range<usize>,
        offset: usize,
        desk: &mut Desk<R>,
    ) -> Result<u64>
    where
        dyn Method: Formula<R>,
    {
        desk.shelf.shared = false;
        let mut trays = desk.take_trays(1);
        let wanted: Vec<usize> = tile.filter(|block| survey.wants(offset + block)).collect();
        for run in wanted.chunk_by(|a, b| a + 1 == *b) {
            self.will_need(self.span(run[0]).start..self.span(run[run.len() - 1]).end);
        }
        let mut read = 0;
        for block in wanted {
            let span = self.span(block);
            read += span.end - span.start;
            self.observe_block(context, survey, facts, block, offset, desk, &mut trays[0].seen)?;
        }
        survey.absorb(&mut trays[0].seen);
        desk.trays = trays;
        Ok(read)
    }

    /// Looks at one block.
    #[allow(clippy::too_many_arguments)] // the pass, its place, and where to work
    pub fn observe_block<R: Seat>(
        &self,
        context: &Context,
        survey: &Survey,
        facts: &Facts,
        block: usize,
        offset: usize,
        desk: &mut Desk<R>,
        seen: &mut Vec<Seen>,
    ) -> Result<()>
    where
        dyn Method: Formula<R>,
    {
        let span = self.span(block);
        // The merge counts them.
        self.load(&span, desk, &mut vec![[0; 2]; self.job.sources().len()])?;
        let place = (self.job, context.plan.recipe.seed, offset + block, span.start);
        survey.observe(&*self.bound.method, facts, desk, seen, place);
        self.worked_on(desk);
        Ok(())
    }

    /// The tensor was read to its end.
    pub fn rest(&self) {
        self.job.sources().iter().for_each(|tensor| tensor.source.rest());
    }

    pub fn will_need(&self, elements: Range<u64>) {
        self.job.sources().iter().for_each(|tensor| tensor.will_need(elements.start, elements.end - elements.start));
    }
}

/// Elements that are taken through several steps at a time, so that they stay in the core's nearest cache.
pub const STRIP: usize = 2048;

/// Reads and decodes `count` elements from `first` on, counts what is not finite, and subtracts the base.
pub fn row<R: Seat>(
    tensor: &Tensor,
    first: u64,
    count: usize,
    raw: &mut Vec<u8>,
    values: &mut Vec<R>,
    base: Option<&Vec<R>>,
    unfinite: &mut [u64; 2],
) -> Result<()> {
    let (dtype, size) = (tensor.read_as(), tensor.read_as().size());
    raw.resize(count * size, 0);
    values.resize(count, R::ZERO);
    tensor.read(first, raw)?;
    for (strip, (raw, values)) in raw.chunks(STRIP * size).zip(values.chunks_mut(STRIP)).enumerate() {
        R::decode(dtype, raw, values);
        tally(values, unfinite);
        if let Some(base) = base {
            blend::subtract(values, &base[strip * STRIP..]);
        }
    }
    Ok(())
}

fn add(count: &mut [u64; 2], [nan, infinite]: [u64; 2]) {
    count[0] += nan;
    count[1] += infinite;
}

/// Adds the NaN and the infinities among `values`.
pub fn tally<R: Real>(values: &[R], unfinite: &mut [u64; 2]) {
    let (nan, infinite) = count_unfinite(values);
    add(unfinite, [nan, infinite]);
}
