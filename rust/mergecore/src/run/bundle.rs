//! How does one reading of a tensor serve several merges? Block by block, all of them are made before the next block is read.
//!
//! A merge for itself is a bundle of one. Passes are made together, too: a merge that needs no pass, or fewer than others, waits until all
//! know what they need, so that the last reading serves them all.

use std::collections::BTreeMap;

use super::desk::{Desk, Desks, Seat, Tray};
use super::schedule::Task;
use super::tensor::{Merge, Stage};
use crate::checkpoint::Tensor;
use crate::error::Result;
use crate::methods::{Formula, Method};
use crate::plan::{Plan, Work};

/// Merges of the same piece of (some of) the same models.
pub struct Bundle<'a, R> {
    merges: Vec<Merge<'a, R>>,
    /// What they read, each once.
    sources: Vec<&'a Tensor<'a>>,
}

impl<'a, R: Seat> Bundle<'a, R> {
    /// They have blocks of the same size, and as many.
    pub fn new(merges: Vec<Merge<'a, R>>) -> Self {
        let mut sources: Vec<&Tensor> = Vec::new();
        for tensor in merges.iter().flat_map(|merge| merge.reader.job.sources()) {
            if !sources.iter().any(|known| known.is_at(tensor)) {
                sources.push(tensor);
            }
        }
        Bundle { merges, sources }
    }

    fn will_need(&self, blocks: &[usize]) {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return };
        let reader = &self.merges[0].reader;
        let (start, end) = (reader.span(*first).start, reader.span(*last).end);
        self.sources.iter().for_each(|tensor| tensor.will_need(start, end - start));
    }
}

impl<R: Seat> Bundle<'_, R>
where
    dyn Method: Formula<R>,
{
    fn survey(&self, stages: &[impl std::ops::Deref<Target = Stage>], tile: usize, desk: &mut Desk<R>, trays: &mut [Tray]) -> Result<()> {
        let context = self.merges[0].context;
        let wants = |block: &usize| stages.iter().any(|stage| stage.survey.as_ref().is_some_and(|survey| survey.wants(*block)));
        let wanted: Vec<usize> = context.tile(self.merges[0].reader.job, tile).0.filter(wants).collect();
        // Not told as progress: the merge finds in memory what is read here.
        for run in wanted.chunk_by(|a, b| a + 1 == *b) {
            self.will_need(run);
        }
        for block in wanted {
            desk.shelf.clear();
            for ((merge, stage), tray) in self.merges.iter().zip(stages).zip(&mut *trays) {
                merge.look(stage, block, desk, tray)?;
            }
        }
        for (stage, tray) in stages.iter().zip(trays) {
            stage.survey.iter().for_each(|survey| survey.absorb(&mut tray.seen));
        }
        Ok(())
    }

    fn merge(&self, stages: &[impl std::ops::Deref<Target = Stage>], tile: usize, desk: &mut Desk<R>, trays: &mut [Tray]) -> Result<()> {
        let context = self.merges[0].context;
        let (blocks, elements) = context.tile(self.merges[0].reader.job, tile);
        self.will_need(&blocks.clone().collect::<Vec<_>>());
        let begin = |(merge, tray): (&Merge<R>, &mut Tray)| merge.begin(&elements, tray);
        let mut counts: Vec<_> = self.merges.iter().zip(&mut *trays).map(begin).collect();
        for place in blocks.enumerate() {
            desk.shelf.clear();
            for (((merge, stage), tray), counts) in self.merges.iter().zip(stages).zip(&mut *trays).zip(&mut counts) {
                context.watch.check_cancelled()?;
                merge.merge(stage, place, desk, tray, counts)?;
            }
        }
        for ((merge, tray), counts) in self.merges.iter().zip(trays).zip(counts) {
            merge.finish(&elements, tray, counts)?;
        }
        Ok(())
    }
}

impl<R: Seat> Task<Desks> for Bundle<'_, R>
where
    dyn Method: Formula<R>,
{
    fn tiles(&self) -> usize {
        self.merges[0].context.tiles(self.merges[0].reader.job)
    }

    fn work(&self, tile: usize, desks: &mut Desks) -> Result<()> {
        let desk = R::desk(desks);
        let stages: Vec<_> = self.merges.iter().map(Merge::stage).collect();
        let mut trays = desk.take_trays(self.merges.len());
        desk.shelf.shared = self.merges.len() > 1;
        let done = match stages.iter().any(|stage| stage.survey.is_some()) {
            true => self.survey(&stages, tile, desk, &mut trays),
            false => self.merge(&stages, tile, desk, &mut trays),
        };
        desk.trays = trays;
        done
    }

    fn conclude(&self) -> Result<bool> {
        let mut surveyed = false;
        for merge in &self.merges {
            surveyed |= merge.conclude()?;
        }
        if !surveyed {
            self.merges.iter().try_for_each(Merge::close)?;
        }
        Ok(surveyed)
    }
}

/// Sorts jobs, each told by its recipe and its number in that, into those that are worked on together: of each recipe at most one, all from
/// tensors of the same name, size and blocks, in the same arithmetic. They are in the order in which the first of each is read.
pub fn parties(plans: &[&Plan], jobs: impl Iterator<Item = (usize, usize)>) -> Vec<Vec<(usize, usize)>> {
    let mut parties: Vec<Vec<(usize, usize)>> = Vec::new();
    let mut known: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (recipe, number) in jobs {
        let job = &plans[recipe].jobs[number];
        let alone = matches!(job.work, Work::Copy(_)).then_some((recipe, number));
        let alike = known.entry((&job.origins[0].tensor, &job.shape, job.block(), job.wide, alone)).or_default();
        match alike.iter().find(|party| parties[**party].iter().all(|(other, _)| *other != recipe)) {
            Some(party) => parties[*party].push((recipe, number)),
            None => {
                alike.push(parties.len());
                parties.push(vec![(recipe, number)]);
            }
        }
    }
    parties
}
