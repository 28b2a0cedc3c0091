//! How is one tensor merged by one recipe? Facts first, then block by block: rows → method → rows → bytes.

use std::ops::Range;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use super::desk::{Desk, Desks, Seat, Tray};
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
pub struct Merge<'a, R> {
    pub context: &'a Context<'a>,
    pub reader: Reader<'a>,
    /// Blocks before this tensor's in the numbering of the facts.
    offset: usize,
    stage: RwLock<Stage>,
    then: Then<'a, R>,
    writer: Arc<Writer<'a, R>>,
}

/// What is known so far, and the pass that is made to know more; None when the tensor can be merged.
pub struct Stage {
    pub facts: Facts,
    pub survey: Option<Survey>,
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

impl<'a, R: Seat> Merge<'a, R>
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
        Ok(Merge { context, offset, stage: RwLock::new(Stage { facts, survey }), then, writer, reader })
    }

    pub fn stage(&self) -> RwLockReadGuard<'_, Stage> {
        self.stage.read().expect("no holder panics")
    }

    /// Looks at a block, if this tensor has a pass to make that wants it.
    pub fn look(&self, stage: &Stage, block: usize, desk: &mut Desk<R>, tray: &mut Tray) -> Result<()> {
        match &stage.survey {
            Some(survey) if survey.wants(block) => {
                self.reader.observe_block(self.context, survey, &stage.facts, block, 0, desk, &mut tray.seen)
            }
            _ => Ok(()),
        }
    }

    /// Makes a tray ready for so many elements; gives the counts of what is not finite in them.
    pub fn begin(&self, elements: &Range<u64>, tray: &mut Tray) -> Vec<[u64; 2]> {
        let count = if matches!(self.then, Then::Write(_)) { (elements.end - elements.start) as usize } else { 0 };
        tray.bytes.resize(count * self.reader.job.dtype.size(), 0);
        self.writer.none()
    }

    /// Merges the tile's block number `number`, which is `block` of the tensor.
    pub fn merge(
        &self,
        stage: &Stage,
        (number, block): (usize, usize),
        desk: &mut Desk<R>,
        tray: &mut Tray,
        counts: &mut [[u64; 2]],
    ) -> Result<()> {
        let job = self.reader.job;
        self.formula(block, &stage.facts, desk, &mut counts[1..])?;
        match self.then {
            Then::Write(scale) => {
                let size = job.dtype.size();
                let start = number * job.block() as usize * size;
                let bytes = &mut tray.bytes[start..start + desk.out.len() * size];
                self.writer.encode(&self.reader, block, scale, desk, bytes, counts)?;
            }
            Then::Keep(delta) => {
                let span = self.reader.span(block);
                delta.lock().expect("no holder panics")[span.start as usize..span.end as usize].copy_from_slice(&desk.out);
            }
            Then::Measure(ref squares, _) => squares.lock().expect("no holder panics")[block] = angle::dot(&desk.out, &desk.out),
        }
        Ok(())
    }

    /// What the method makes of a block is in `desk.out`.
    fn formula(&self, block: usize, facts: &Facts, desk: &mut Desk<R>, sources: &mut [[u64; 2]]) -> Result<()> {
        let reader = &self.reader;
        let span = reader.span(block);
        reader.load(&span, desk, sources)?;
        let Desk { base, inputs, out, .. } = desk;
        let (job, seed) = (reader.job, self.context.plan.recipe.seed);
        let base = reader.base.map(|_| &base[..]);
        let (name, shape, row) = (job.name.as_str(), &job.shape[..], job.row());
        let mut place = Block { name, shape, row, seed, number: self.offset + block, first: span.start, inputs, base, out };
        reader.bound.method.merge(&mut place, facts);
        reader.worked_on(desk);
        Ok(())
    }

    /// A tile is merged: writes it.
    pub fn finish(&self, elements: &Range<u64>, tray: &Tray, counts: Vec<[u64; 2]>) -> Result<()> {
        let job = self.reader.job;
        let read = (elements.end - elements.start) * job.element_bytes();
        if let Then::Write(_) = self.then {
            self.writer.write(elements.start, job.dtype.size(), &tray.bytes, counts)?;
            self.context.progress(read + tray.bytes.len() as u64);
        } else {
            self.writer.count(counts);
            self.context.progress(read);
        }
        Ok(())
    }

    /// All blocks were looked at: concludes the pass. False if none was made.
    pub fn conclude(&self) -> Result<bool> {
        let mut stage = self.stage.write().expect("no holder panics");
        let Stage { facts, survey } = &mut *stage;
        let Some(pass) = survey else { return Ok(false) };
        if pass.conclude(facts)? {
            let (job, gather) = (self.reader.job, self.context.limits.gather());
            *survey = Survey::next::<R>(&*self.reader.bound.method, facts, job.elements(), job.blocks(), gather);
        }
        Ok(true)
    }

    /// All tiles are merged.
    pub fn close(&self) -> Result<()> {
        self.reader.rest();
        match &self.then {
            Then::Write(_) => self.writer.finished(Vec::new())?,
            Then::Keep(_) => {}
            Then::Measure(squares, sum) => {
                *sum.lock().expect("no holder panics") = angle::tree(&squares.lock().expect("no holder panics"));
            }
        }
        Ok(())
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
        let raw = &mut f32::desk(desks).raw;
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
