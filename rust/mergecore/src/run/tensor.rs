//! How is one tensor merged? Facts first, then tile by tile: bytes → rows → method → rows → bytes.

use std::sync::{Arc, Mutex, RwLock};

use super::desk::{Desk, Desks, Seat};
use super::facts::Survey;
use super::reader::Reader;
use super::schedule::Task;
use super::writer::Writer;
use super::{Context, Outcome};
use crate::checkpoint::Tensor;
use crate::error::Result;
use crate::kernels::angle;
use crate::methods::{Block, Facts, Formula, Method};
use crate::plan::Job;

/// A tensor on its way through facts and merge.
pub struct MergeTask<'a, R> {
    context: &'a Context<'a>,
    reader: Reader<'a>,
    /// Blocks before this tensor's in the numbering of the facts.
    offset: usize,
    stage: RwLock<Stage>,
    then: Then<'a, R>,
    writer: Arc<Writer<'a, R>>,
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
    pub fn new(
        context: &'a Context<'a>,
        writer: Arc<Writer<'a, R>>,
        reader: Reader<'a>,
        known: Option<(Facts, usize)>,
        then: Then<'a, R>,
    ) -> Result<Self> {
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
        Ok(MergeTask { context, offset, stage: RwLock::new(Stage { facts, survey }), then, writer, reader })
    }

    /// One block: what the method makes of it is in `desk.out`.
    fn merge(&self, block: usize, facts: &Facts, desk: &mut Desk<R>, sources: &mut [[u64; 2]]) -> Result<()> {
        let reader = &self.reader;
        let span = reader.span(block);
        reader.load(&span, desk, sources)?;
        let Desk { base, inputs, out, .. } = desk;
        let (job, seed) = (reader.job, self.context.plan.recipe.seed);
        let base = reader.base.map(|_| &base[..]);
        let (name, shape, row) = (job.name.as_str(), &job.shape[..], job.row());
        let mut place = Block { name, shape, row, seed, number: self.offset + block, first: span.start, inputs, base, out };
        reader.bound.method.merge(&mut place, facts);
        Ok(())
    }
}

/// What becomes of a block that is merged.
pub enum Then<'a, R> {
    /// It is written, its task vector scaled by this.
    Write(f64),
    /// It is kept, as the tensor's task vector.
    Keep(&'a Mutex<Vec<R>>),
    /// Its square is kept: Σ Δ², block by block, and at last of the tensor.
    Measure(Mutex<Vec<f64>>, &'a Mutex<f64>),
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
        let (job, mut counts) = (self.reader.job, self.writer.none());
        let size = job.dtype.size();
        let mut encoded = std::mem::take(&mut desk.bytes);
        encoded.resize(if matches!(self.then, Then::Write(_)) { (elements.end - elements.start) as usize * size } else { 0 }, 0);
        for (number, block) in blocks.enumerate() {
            self.context.watch.check_cancelled()?;
            self.merge(block, &stage.facts, desk, &mut counts[1..])?;
            match self.then {
                Then::Write(scale) => {
                    let start = number * job.block() as usize * size;
                    let bytes = &mut encoded[start..start + desk.out.len() * size];
                    self.writer.encode(&self.reader, block, scale, desk, bytes, &mut counts)?;
                }
                Then::Keep(delta) => {
                    let span = self.reader.span(block);
                    delta.lock().expect("no holder panics")[span.start as usize..span.end as usize].copy_from_slice(&desk.out);
                }
                Then::Measure(ref squares, _) => squares.lock().expect("no holder panics")[block] = angle::dot(&desk.out, &desk.out),
            }
        }
        let read = (elements.end - elements.start) * job.element_bytes();
        if let Then::Write(_) = self.then {
            self.writer.write(elements.start, size, &encoded, counts)?;
            self.context.progress(read + encoded.len() as u64);
        } else {
            self.writer.count(counts);
            self.context.progress(read);
        }
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
        match &self.then {
            Then::Write(_) => self.writer.finished(Vec::new())?,
            Then::Keep(_) => {}
            Then::Measure(squares, sum) => {
                *sum.lock().expect("no holder panics") = angle::tree(&squares.lock().expect("no holder panics"));
            }
        }
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
        self.context.sink.finished(self.index, Outcome { delta: None, unfinite: [0; 2], sources: vec![[0; 2]], spectra: Vec::new() })?;
        Ok(false)
    }
}
