//! Which magnitudes are the k largest? Exactly, without sorting and without holding the tensor.
//!
//! A magnitude's bits, read as an integer, order like the magnitude. So the k-th largest is found digit by digit from the top, as in a
//! radix sort: one pass counts how many elements fall into each of 2¹⁵ bins of the upper bits, which tells the bin that holds the k-th; the
//! next pass looks into that bin only. Once the bin's elements are few, a pass gathers them instead and the answer is read off the list;
//! for the usual tensor that makes two passes. Counts are integers and lists are ordered by block, so threads and tiles leave no trace.
//!
//! Elements tied at the threshold are kept from the lowest index up. 16-bit checkpoints make that the normal case: a quarter of a million
//! deltas of two bf16 models were seen to have 815 distinct magnitudes.
//!
//! Tried and dropped: sorting (125 ns an element against 1), and a list of (index, bits) pairs instead of one list a block, which held three
//! times the memory to say the same.

use std::sync::Mutex;

use crate::dtype::Real;

/// Candidates that are gathered rather than counted, over all selectors of a tensor (4 bytes each).
pub const GATHER: u64 = 2 << 20;
/// A gathered candidate has at most this many undecided bits.
const GATHER_BITS: u32 = 32;

/// Keeps magnitudes above `threshold`, and of those equal to it: all before block `tie_block`, the first `tie_count` in it, none after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoff {
    pub threshold: u64,
    pub tie_block: usize,
    pub tie_count: u64,
}

impl Cutoff {
    pub const ALL: Cutoff = Cutoff { threshold: 0, tie_block: usize::MAX, tie_count: 0 };
    pub const NONE: Cutoff = Cutoff { threshold: u64::MAX, tie_block: 0, tie_count: 0 };

    /// x ← x where kept, 0 elsewhere, for the block numbered `block`.
    pub fn trim<R: Real>(&self, block: usize, x: &mut [R]) {
        if *self == Cutoff::NONE {
            x.fill(R::ZERO);
        } else if block < self.tie_block {
            keep_from(x, R::bits(self.threshold));
        } else if block > self.tie_block {
            keep_above(x, R::bits(self.threshold));
        } else {
            let (threshold, mut ties) = (R::bits(self.threshold), self.tie_count);
            for x in x {
                let magnitude = x.magnitude();
                let tied = magnitude == threshold && ties > 0;
                ties -= u64::from(tied);
                if magnitude <= threshold && !tied {
                    *x = R::ZERO;
                }
            }
        }
    }
}

wide! {
    fn keep_from<R>(x: &mut [R], threshold: R::Bits) {
        for x in x.iter_mut() {
            *x = if x.magnitude() >= threshold { *x } else { R::ZERO };
        }
    }
}

wide! {
    fn keep_above<R>(x: &mut [R], threshold: R::Bits) {
        for x in x.iter_mut() {
            *x = if x.magnitude() > threshold { *x } else { R::ZERO };
        }
    }
}

/// Finds one cutoff in a few passes over the magnitudes: `observe` every block, `absorb` what each thread saw, `advance`; until it is done.
pub struct Selector {
    /// Elements whose upper bits are `prefix` are undecided in their `low` lower bits.
    prefix: u64,
    low: u32,
    /// How many elements are undecided, and how many of them are to be kept.
    among: u64,
    rank: u64,
    gather: u64,
    pass: Pass,
    found: Mutex<Found>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Count the next `digit` bits of the undecided.
    Count {
        digit: u32,
    },
    /// List the lower bits of the undecided, block by block.
    Gather,
    /// The threshold is known and fewer of its ties are kept than there are: count them block by block.
    Ties,
    Done(Cutoff),
}

/// What one thread saw since it last reported.
#[derive(Default)]
pub struct Seen {
    counts: Vec<u32>,
    lists: Vec<(usize, Vec<u32>)>,
    ties: Vec<(usize, u64)>,
}

/// What all threads reported in the current pass.
#[derive(Default)]
struct Found {
    counts: Vec<u64>,
    lists: Vec<(usize, Vec<u32>)>,
    ties: Vec<(usize, u64)>,
}

impl Selector {
    /// Seeks the `keep` largest of `total` magnitudes; `gather` candidates may be held in a list.
    pub fn new<R: Real>(keep: u64, total: u64, gather: u64) -> Selector {
        let low = R::MAGNITUDE_BITS;
        let pass = match keep {
            0 => Pass::Done(Cutoff::NONE),
            _ if keep >= total => Pass::Done(Cutoff::ALL),
            _ => Pass::Ties, // replaced at once by `choose`
        };
        let mut selector = Selector { prefix: 0, low, among: total, rank: keep, gather, pass, found: Mutex::default() };
        if !matches!(pass, Pass::Done(_)) {
            selector.choose();
        }
        selector
    }

    /// The answer, once no pass is left.
    pub fn cutoff(&self) -> Option<Cutoff> {
        match self.pass {
            Pass::Done(cutoff) => Some(cutoff),
            _ => None,
        }
    }

    fn choose(&mut self) {
        self.pass = if self.low == 0 {
            if self.rank == self.among {
                Pass::Done(Cutoff { threshold: self.prefix, tie_block: usize::MAX, tie_count: 0 })
            } else {
                Pass::Ties
            }
        } else if self.among <= self.gather && self.low <= GATHER_BITS {
            Pass::Gather
        } else {
            // 31 = 15 + 16 bits and 63 = 15 + 3·16: the first digit takes what is left over.
            Pass::Count { digit: if self.low.is_multiple_of(16) { 16 } else { self.low % 16 } }
        };
    }

    /// Looks at one block's magnitudes (signs are ignored). `seen` is the calling thread's own.
    pub fn observe<R: Real>(&self, block: usize, x: &[R], seen: &mut Seen) {
        match self.pass {
            Pass::Count { digit } => {
                seen.counts.resize(1 << digit, 0);
                let shift = self.low - digit;
                if self.low == R::MAGNITUDE_BITS {
                    count_all(x, shift, &mut seen.counts);
                } else {
                    count_within(x, self.prefix, self.low, shift, &mut seen.counts);
                }
            }
            Pass::Gather => {
                let mut list = Vec::new();
                gather(x, self.prefix, self.low, &mut list);
                if !list.is_empty() {
                    seen.lists.push((block, list));
                }
            }
            Pass::Ties => {
                let ties = x.iter().filter(|x| x.magnitude() == R::bits(self.prefix)).count() as u64;
                if ties > 0 {
                    seen.ties.push((block, ties));
                }
            }
            Pass::Done(_) => {}
        }
    }

    /// Adds what a thread saw and leaves it empty. Any order gives the same result.
    pub fn absorb(&self, seen: &mut Seen) {
        let mut all = self.found.lock().expect("no holder panics");
        if all.counts.len() < seen.counts.len() {
            all.counts.resize(seen.counts.len(), 0);
        }
        for (sum, count) in all.counts.iter_mut().zip(&seen.counts) {
            *sum += u64::from(*count);
        }
        seen.counts.fill(0);
        all.lists.append(&mut seen.lists);
        all.ties.append(&mut seen.ties);
    }

    /// Draws the conclusion of a pass over all blocks.
    pub fn advance(&mut self) {
        let mut seen = std::mem::take(self.found.get_mut().expect("no holder panics"));
        match self.pass {
            Pass::Count { digit } => {
                for (bin, count) in seen.counts.iter().copied().enumerate().rev() {
                    if self.rank <= count {
                        self.prefix = self.prefix << digit | bin as u64;
                        self.low -= digit;
                        self.among = count;
                        break;
                    }
                    self.rank -= count;
                }
                self.choose();
            }
            Pass::Gather => {
                seen.lists.sort_unstable_by_key(|(block, _)| *block);
                let mut all: Vec<u32> = seen.lists.iter().flat_map(|(_, list)| list).copied().collect();
                let place = all.len() - self.rank as usize;
                let (_, threshold, above) = all.select_nth_unstable(place);
                let threshold = *threshold;
                // `above` may hold further ties; those strictly larger are kept anyway.
                let larger = above.iter().filter(|x| **x > threshold).count() as u64;
                let ties = seen.lists.iter().map(|(block, list)| (*block, list.iter().filter(|x| **x == threshold).count() as u64));
                self.prefix = self.prefix << self.low | u64::from(threshold);
                self.pass = Pass::Done(cut(self.prefix, self.rank - larger, ties));
            }
            Pass::Ties => {
                seen.ties.sort_unstable();
                self.pass = Pass::Done(cut(self.prefix, self.rank, seen.ties.into_iter()));
            }
            Pass::Done(_) => {}
        }
    }
}

/// Spends `quota` on the ties, block by block.
fn cut(threshold: u64, mut quota: u64, ties: impl Iterator<Item = (usize, u64)>) -> Cutoff {
    for (block, count) in ties {
        if count >= quota {
            return Cutoff { threshold, tie_block: block, tie_count: quota };
        }
        quota -= count;
    }
    Cutoff { threshold, tie_block: usize::MAX, tie_count: 0 }
}

wide! {
    fn count_all<R>(x: &[R], shift: u32, counts: &mut [u32]) {
        // The mask costs nothing and lets the compiler drop the bounds check's branch.
        let last = counts.len() - 1;
        for x in x {
            let bin: u64 = x.magnitude().into();
            counts[(bin >> shift) as usize & last] += 1;
        }
    }
}

wide! {
    fn count_within<R>(x: &[R], prefix: u64, low: u32, shift: u32, counts: &mut [u32]) {
        let last = counts.len() - 1;
        for x in x {
            let bits: u64 = x.magnitude().into();
            if bits >> low == prefix {
                counts[(bits >> shift) as usize & last] += 1;
            }
        }
    }
}

wide! {
    fn gather<R>(x: &[R], prefix: u64, low: u32, list: &mut Vec<u32>) {
        // Candidates are rare (a fraction of a percent): ask a whole strip at once, look closer only where one is.
        let (first, last) = (R::bits(prefix << low), R::bits((prefix << low) | ((1u64 << low) - 1)));
        for strip in x.chunks(64) {
            let mut hits = 0u32;
            for x in strip {
                let bits = x.magnitude();
                hits += u32::from(bits >= first && bits <= last);
            }
            if hits > 0 {
                for x in strip {
                    let bits = x.magnitude();
                    if bits >= first && bits <= last {
                        let bits: u64 = bits.into();
                        list.push((bits & ((1u64 << low) - 1)) as u32);
                    }
                }
            }
        }
    }
}
