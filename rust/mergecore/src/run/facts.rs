//! How does a method learn what it needs to know? Passes over a tensor, or over the whole model.

use std::sync::Mutex;

use super::desk::Desk;
use crate::dtype::Real;
use crate::error::{Error, Result};
use crate::kernels::angle;
use crate::kernels::select::{Seen, Selector, LEAST};
use crate::methods::{Block, Facts, Formula, Method, Need};
use crate::plan::{Job, Work};

/// A pass (or several) in progress: what it has collected.
pub enum Survey {
    /// Block by block, so that they are added in a fixed order.
    Sums {
        count: usize,
        blocks: Mutex<Vec<f64>>,
    },
    Largest(Vec<Selector>),
}

impl Survey {
    /// The next pass that the method asks for, over `blocks` blocks and `elements` elements; None when it can merge. Thresholds may hold
    /// `gather` numbers of 8 bytes, all together, and each the least that it needs.
    pub fn next<R: Real>(method: &dyn Method, facts: &Facts, elements: u64, blocks: usize, gather: u64) -> Option<Survey> {
        match method.need(facts, elements) {
            Need::Nothing => None,
            Need::Sums(count) => Some(Survey::Sums { count, blocks: Mutex::new(vec![0.0; blocks * count]) }),
            Need::Largest(keep) => {
                let room = (gather / keep.len().max(1) as u64).max(LEAST);
                Some(Survey::Largest(keep.iter().map(|keep| Selector::new::<R>(*keep, elements, blocks, room)).collect()))
            }
        }
    }

    /// Whether there is nothing to look at: every threshold was clear from the start.
    pub fn is_clear(&self) -> bool {
        match self {
            Survey::Sums { .. } => false,
            Survey::Largest(selectors) => selectors.iter().all(|s| s.cutoff().is_some()),
        }
    }

    /// Whether this pass looks at that block at all: a sample does not, nor does the search for ties whose whereabouts are known.
    pub fn wants(&self, block: usize) -> bool {
        match self {
            Survey::Sums { .. } => true,
            Survey::Largest(selectors) => selectors.iter().any(|s| s.wants(block)),
        }
    }

    /// Looks at one block, which lies on the desk; `seen` is this thread's own.
    pub fn observe<R: Real>(
        &self,
        method: &(dyn Method + 'static),
        facts: &Facts,
        desk: &mut Desk<R>,
        seen: &mut Vec<Seen>,
        place: (&Job, u64, usize, u64),
    ) where
        dyn Method: Formula<R>,
    {
        let (job, seed, number, first) = place;
        let (name, shape, row) = (job.name.as_str(), &job.shape[..], job.row());
        let has_base = matches!(job.work, Work::Merge { base: Some(_), .. });
        let base = has_base.then_some(&desk.base[..]);
        match self {
            Survey::Sums { count, blocks } => {
                let mut sums = vec![0.0; *count];
                let mut block = Block { name, shape, row, seed, number, first, base, inputs: &mut desk.inputs, out: &mut desk.out };
                method.sums(&mut block, facts, &mut sums);
                blocks.lock().expect("no holder panics")[number * count..(number + 1) * count].copy_from_slice(&sums);
            }
            Survey::Largest(selectors) => {
                seen.resize_with(selectors.len(), Seen::default);
                let mut block = Block { name, shape, row, seed, number, first, base, inputs: &mut desk.inputs, out: &mut desk.out };
                if method.ranks_one() {
                    let values = method.magnitudes(&mut block, facts, 0);
                    selectors.iter().zip(seen).for_each(|(selector, seen)| selector.observe(number, values, seen));
                } else {
                    for (which, selector) in selectors.iter().enumerate().filter(|(_, s)| s.wants(number)) {
                        let values = method.magnitudes(&mut block, facts, which);
                        selector.observe(number, values, &mut seen[which]);
                    }
                }
            }
        }
    }

    /// A thread has looked at a whole tile: hands over what it counted.
    pub fn absorb(&self, seen: &mut [Seen]) {
        if let Survey::Largest(selectors) = self {
            for (selector, seen) in selectors.iter().zip(seen) {
                selector.absorb(seen);
            }
        }
    }

    /// All blocks were seen: the facts, or None if another look is needed.
    pub fn conclude(&mut self, facts: &mut Facts) -> Result<bool> {
        match self {
            Survey::Sums { count, blocks } => {
                let blocks = blocks.get_mut().map_err(|_| Error::run("a thread died"))?;
                for i in 0..*count {
                    let column: Vec<f64> = blocks.iter().skip(i).step_by(*count).copied().collect();
                    facts.sums.push(angle::tree(&column));
                }
                Ok(true)
            }
            Survey::Largest(selectors) => {
                selectors.iter_mut().for_each(Selector::advance);
                let cutoffs: Option<Vec<_>> = selectors.iter().map(Selector::cutoff).collect();
                let done = cutoffs.is_some();
                facts.cutoffs.extend(cutoffs.into_iter().flatten());
                Ok(done)
            }
        }
    }
}
