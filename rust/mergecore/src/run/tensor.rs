//! How is one tensor merged? Facts first, then tile by tile: bytes → rows → method → rows → bytes.

use std::ops::Range;
use std::sync::{Mutex, RwLock};

use super::desk::{Desk, Desks, Seat};
use super::facts::Survey;
use super::schedule::Task;
use super::{Context, Outcome};
use crate::checkpoint::Tensor;
use crate::dtype::{count_unfinite, Real};
use crate::error::Result;
use crate::kernels::angle::{self, Distances};
use crate::kernels::blend;
use crate::methods::{Block, Facts, Formula, Method};
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
        let Work::Merge { base, inputs, onto } = &job.work else { return None };
        Some(Reader { job, base: base.as_ref(), inputs, onto: onto.as_ref(), bound: job.bound.as_deref()? })
    }

    /// The elements of block `block`.
    fn span(&self, block: usize) -> Range<u64> {
        let first = block as u64 * self.job.block();
        first..(first + self.job.block()).min(self.job.elements())
    }

    /// Puts a block's models and base on the desk, models as task vectors where the method wants them. Adds to each source's count of
    /// what is not finite.
    fn load<R: Seat>(&self, span: &Range<u64>, desk: &mut Desk<R>, unfinite: &mut [[u64; 2]]) -> Result<()> {
        let count = (span.end - span.start) as usize;
        desk.inputs.resize_with(self.inputs.len(), Vec::new);
        desk.out.resize(count, R::ZERO);
        let Desk { raw, base, inputs, .. } = desk;
        let mut unfinite = unfinite.iter_mut();
        let mut slot = || unfinite.next().expect("one for each source");
        if let Some(tensor) = self.base {
            row(tensor, span.start, count, raw, base, None, slot())?;
        }
        for (tensor, values) in self.inputs.iter().zip(inputs) {
            row(tensor, span.start, count, raw, values, self.base.is_some().then_some(base), slot())?;
        }
        Ok(())
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
        // The merge counts them.
        let mut unfinite = vec![[0; 2]; self.job.sources().len()];
        let wanted: Vec<usize> = tile.filter(|block| survey.wants(offset + block)).collect();
        for run in wanted.chunk_by(|a, b| a + 1 == *b) {
            self.will_need(self.span(run[0]).start..self.span(run[run.len() - 1]).end);
        }
        let mut read = 0;
        for block in wanted {
            let span = self.span(block);
            read += span.end - span.start;
            let place = (self.job, context.plan.recipe.seed, offset + block, span.start);
            survey.observe(&*self.bound.method, facts, desk, place, &mut |desk| self.load(&span, desk, &mut unfinite))?;
        }
        survey.absorb(desk);
        Ok(read)
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
const STRIP: usize = 2048;

/// Reads and decodes `count` elements from `first` on, counts what is not finite, and subtracts the base.
fn row<R: Seat>(
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

/// Adds the NaN and the infinities among `values`.
fn tally<R: Real>(values: &[R], unfinite: &mut [u64; 2]) {
    let (nan, infinite) = count_unfinite(values);
    unfinite[0] += nan;
    unfinite[1] += infinite;
}

/// A tensor on its way through facts and merge.
pub struct MergeTask<'a, R> {
    context: &'a Context<'a>,
    index: usize,
    reader: Reader<'a>,
    /// Blocks before this tensor's in the numbering of the facts.
    offset: usize,
    stage: RwLock<Stage>,
    /// Per block: Σ(θ−θ₀)² before and after rounding.
    deltas: Mutex<Vec<[f64; 2]>>,
    /// NaN and infinities of the output, then of each source.
    unfinite: Mutex<Vec<[u64; 2]>>,
    arithmetic: std::marker::PhantomData<R>,
}

struct Stage {
    facts: Facts,
    survey: Option<Survey>,
}

impl<'a, R: Seat> MergeTask<'a, R>
where
    dyn Method: Formula<R>,
{
    /// `known` are the whole model's facts, with the offset of this tensor's blocks in them.
    pub fn new(context: &'a Context<'a>, index: usize, reader: Reader<'a>, known: Option<(Facts, usize)>) -> Result<Self> {
        let job = reader.job;
        let blocks = job.blocks();
        let (facts, offset, mut survey) = match known {
            Some((facts, offset)) => (facts, offset, None),
            None => {
                let facts = Facts::default();
                let survey = Survey::next::<R>(&*reader.bound.method, &facts, job.elements(), blocks, context.limits.gather());
                (facts, 0, survey)
            }
        };
        let mut facts = facts;
        while survey.as_ref().is_some_and(Survey::is_clear) {
            if let Some(clear) = &mut survey {
                clear.conclude(&mut facts)?;
            }
            survey = Survey::next::<R>(&*reader.bound.method, &facts, job.elements(), blocks, context.limits.gather());
        }
        let sources = job.sources().len();
        Ok(MergeTask {
            context,
            index,
            offset,
            stage: RwLock::new(Stage { facts, survey }),
            deltas: Mutex::new(vec![[0.0; 2]; if reader.base.is_some() { blocks } else { 0 }]),
            unfinite: Mutex::new(vec![[0; 2]; 1 + sources]),
            reader,
            arithmetic: std::marker::PhantomData,
        })
    }

    /// One block, from bytes to bytes: `encoded` receives the output.
    fn merge(&self, block: usize, facts: &Facts, desk: &mut Desk<R>, encoded: &mut [u8], unfinite: &mut [[u64; 2]]) -> Result<()> {
        let (reader, recipe) = (&self.reader, &self.context.plan.recipe);
        let span = reader.span(block);
        let (written, sources) = unfinite.split_first_mut().expect("the output's, then the sources'");
        reader.load(&span, desk, sources)?;
        if let (Some(onto), Some(slot)) = (reader.onto, sources.last_mut()) {
            row(onto, span.start, desk.out.len(), &mut desk.raw, &mut desk.onto, None, slot)?;
        }
        let Desk { base, onto, inputs, out, .. } = desk;
        let number = self.offset + block;
        let (job, seed, first) = (reader.job, recipe.seed, span.start);
        let base_row = reader.base.map(|_| &base[..]);
        let (name, shape, row) = (job.name.as_str(), &job.shape[..], job.row());
        let mut place = Block { name, shape, row, seed, number, first, inputs, base: base_row, out };
        reader.bound.method.merge(&mut place, facts);
        let onto = if reader.onto.is_some() { onto } else { &*base };
        let size = reader.job.dtype.size();
        let mut deltas = Distances::default();
        for (strip, (out, encoded)) in out.chunks_mut(STRIP).zip(encoded.chunks_mut(STRIP * size)).enumerate() {
            if reader.base.is_some() {
                blend::attach(out, &onto[strip * STRIP..], R::of(reader.bound.lambda));
            }
            R::encode(reader.job.dtype, out, encoded);
            // What was written, not what was computed, is what the world gets: rounding may overflow (f16) or lose the whole delta (bf16).
            let rounded = &mut [R::ZERO; STRIP][..out.len()];
            R::decode(reader.job.dtype, encoded, rounded);
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
}

impl<R: Seat> Task<Desks> for MergeTask<'_, R>
where
    dyn Method: Formula<R>,
{
    fn tiles(&self) -> usize {
        self.context.tiles(self.reader.job)
    }

    fn work(&self, tile: usize, desks: &mut Desks) -> Result<()> {
        let desk = R::desk(desks);
        let stage = self.stage.read().expect("no holder panics");
        let (blocks, elements) = self.context.tile(self.reader.job, tile);
        if let Some(survey) = &stage.survey {
            // Not told as progress: the merge finds in memory what is read here.
            return self.reader.observe(self.context, survey, &stage.facts, blocks, 0, desk).map(drop);
        }
        self.reader.will_need(elements.clone());
        let size = self.reader.job.dtype.size();
        let mut encoded = std::mem::take(&mut desk.bytes);
        encoded.resize((elements.end - elements.start) as usize * size, 0);
        let mut unfinite = vec![[0; 2]; self.unfinite.lock().expect("no holder panics").len()];
        for (block, bytes) in blocks.zip(encoded.chunks_mut(self.reader.job.block() as usize * size)) {
            self.context.watch.check_cancelled()?;
            self.merge(block, &stage.facts, desk, bytes, &mut unfinite)?;
        }
        self.context.sink.write(self.index, elements.start * size as u64, &encoded)?;
        for (sum, tile) in self.unfinite.lock().expect("no holder panics").iter_mut().zip(unfinite) {
            *sum = [sum[0] + tile[0], sum[1] + tile[1]];
        }
        self.context.progress((elements.end - elements.start) * (self.reader.job.element_bytes() + size as u64));
        desk.bytes = encoded;
        Ok(())
    }

    fn conclude(&self) -> Result<bool> {
        let mut stage = self.stage.write().expect("no holder panics");
        let Stage { facts, survey } = &mut *stage;
        if let Some(pass) = survey {
            if pass.conclude(facts)? {
                let (job, gather) = (self.reader.job, self.context.limits.gather());
                *survey = Survey::next::<R>(&*self.reader.bound.method, facts, job.elements(), job.blocks(), gather);
            }
            return Ok(true);
        }
        self.reader.rest();
        let deltas = self.deltas.lock().expect("no holder panics");
        let column = |i: usize| angle::tree(&deltas.iter().map(|d| d[i]).collect::<Vec<_>>());
        let unfinite = self.unfinite.lock().expect("no holder panics");
        let outcome =
            Outcome { delta: self.reader.base.map(|_| [column(0), column(1)]), unfinite: unfinite[0], sources: unfinite[1..].to_vec() };
        self.context.sink.finished(self.index, outcome)?;
        Ok(false)
    }
}

/// A tensor that is equal in all inputs.
pub struct CopyTask<'a> {
    context: &'a Context<'a>,
    index: usize,
    job: &'a Job<'a>,
    tensor: &'a Tensor<'a>,
}

impl<'a> CopyTask<'a> {
    pub fn new(context: &'a Context<'a>, index: usize, job: &'a Job<'a>, tensor: &'a Tensor<'a>) -> Self {
        CopyTask { context, index, job, tensor }
    }
}

impl Task<Desks> for CopyTask<'_> {
    fn tiles(&self) -> usize {
        self.context.tiles(self.job)
    }

    fn work(&self, tile: usize, desks: &mut Desks) -> Result<()> {
        let (_, elements) = self.context.tile(self.job, tile);
        let size = self.job.dtype.size() as u64;
        let raw = &mut f32::desk(desks).bytes;
        raw.resize(((elements.end - elements.start) * size) as usize, 0);
        self.tensor.read(elements.start, raw)?;
        self.context.sink.write(self.index, elements.start * size, raw)?;
        self.context.progress((elements.end - elements.start) * size * 2);
        Ok(())
    }

    fn conclude(&self) -> Result<bool> {
        self.context.sink.finished(self.index, Outcome { delta: None, unfinite: [0; 2], sources: vec![[0; 2]] })?;
        Ok(false)
    }
}
