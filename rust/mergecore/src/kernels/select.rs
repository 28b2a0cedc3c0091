//! Which magnitudes are the k largest? Exactly, without sorting and without holding the tensor.
//!
//! A magnitude's bits, read as an integer, order like the magnitude. For a large tensor, one block in sixteen is sampled first, which tells
//! nearly where the threshold lies; one pass over everything then counts what is above that bracket and lists what is in it (about 1 %),
//! and the exact answer is read off the list. Where the sample misleads, or ties crowd the bracket, the answer is found digit by digit from
//! the top instead, as in a radix sort: a pass counts how many elements fall into each of 2¹⁵ bins of the upper bits, the next looks into the
//! bin that holds the k-th. Either way the result is the same; counts are integers and lists are ordered by block, so threads and tiles
//! leave no trace.
//!
//! Elements tied at the threshold are kept from the lowest index up. 16-bit checkpoints make that the normal case: a quarter of a million
//! deltas of two bf16 models were seen to have 815 distinct magnitudes.
//!
//! Tried and dropped: sorting (125 ns an element against 1); counting all elements into bins at once, which costs five times the
//! comparisons of a bracket; and a list of (index, bits) pairs instead of one list a block, which held three times the memory to say the same.

use std::sync::Mutex;

use crate::dtype::Real;

/// A gathered candidate has at most this many undecided bits.
const GATHER_BITS: u32 = 32;
/// One block in so many is sampled.
const SAMPLED: u64 = 16;
/// Upper bits that a sample tells apart: bins of a tenth of a percent of the usual tensor.
const SAMPLE_DIGIT: u32 = 17;

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
    /// Count the upper bits of some blocks.
    Sample,
    /// Count what is above `last` and list what is in first..=last, block by block: nearly certain to hold the threshold.
    Bracket {
        first: u64,
        last: u64,
    },
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
    above: u64,
    lists: Vec<(usize, Vec<u32>)>,
    ties: Vec<(usize, u64)>,
}

/// What all threads reported in the current pass.
#[derive(Default)]
struct Found {
    counts: Vec<u64>,
    above: u64,
    listed: u64,
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
            // f64's bracket would not fit a list's 32 bits.
            if matches!(selector.pass, Pass::Count { .. }) && low <= GATHER_BITS {
                selector.pass = Pass::Sample;
            }
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

    /// Whether this pass looks at that block at all. The choice is scattered, so that no period of the tensor's can align with it.
    pub fn wants(&self, block: usize) -> bool {
        match self.pass {
            Pass::Sample => block as u64 % SAMPLED == (block as u64 / SAMPLED).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60,
            Pass::Done(_) => false,
            _ => true,
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
            Pass::Sample => {
                if self.wants(block) {
                    seen.counts.resize(1 << SAMPLE_DIGIT, 0);
                    count_all(x, self.low - SAMPLE_DIGIT, &mut seen.counts);
                }
            }
            Pass::Bracket { first, last } => {
                let mut list = Vec::with_capacity(x.len() / 64);
                seen.above += gather(x, first, last, &mut list);
                if !list.is_empty() {
                    seen.lists.push((block, list));
                }
            }
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
                gather(x, self.prefix << self.low, (self.prefix << self.low) | ((1u64 << self.low) - 1), &mut list);
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
        all.above += std::mem::take(&mut seen.above);
        all.listed += seen.lists.iter().map(|(_, list)| list.len() as u64).sum::<u64>();
        // A bracket full of ties would list the whole tensor: give it up, `advance` will count instead.
        if all.listed > self.gather && matches!(self.pass, Pass::Bracket { .. }) {
            all.lists.clear();
            seen.lists.clear();
        }
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
            Pass::Sample => match bracket(&seen.counts, self.rank as f64 / self.among as f64) {
                Some((top, bottom)) => {
                    let shift = self.low - SAMPLE_DIGIT;
                    self.pass = Pass::Bracket { first: (bottom as u64) << shift, last: ((top as u64 + 1) << shift) - 1 };
                }
                None => self.choose(),
            },
            Pass::Bracket { first, .. } => {
                match self.rank.checked_sub(seen.above).filter(|rank| *rank > 0 && *rank <= seen.listed && seen.listed <= self.gather) {
                    Some(rank) => self.pass = Pass::Done(read_off(seen.lists, first, rank)),
                    None => self.choose(),
                }
            }
            Pass::Gather => self.pass = Pass::Done(read_off(seen.lists, self.prefix << self.low, self.rank)),
            Pass::Ties => {
                seen.ties.sort_unstable();
                self.pass = Pass::Done(cut(self.prefix, self.rank, seen.ties.into_iter()));
            }
            Pass::Done(_) => {}
        }
    }
}

/// The bins that hold the largest `fraction` of all, going by a sample: the upper and the lower end of a bracket around it.
fn bracket(counts: &[u64], fraction: f64) -> Option<(usize, usize)> {
    let total = counts.iter().sum::<u64>() as f64;
    // Blocks differ more than independent elements would: a quarter of a percent of all ranks on either side, beside the sample's own error.
    let margin = 0.0025 * total + 3.0 * (total * fraction * (1.0 - fraction)).sqrt() + 16.0;
    let (upper, lower) = ((fraction * total - margin).max(0.0), (fraction * total + margin).min(total));
    let (mut sum, mut top) = (0.0, None);
    for (bin, count) in counts.iter().enumerate().rev() {
        sum += *count as f64;
        if sum > upper && top.is_none() {
            top = Some(bin);
        }
        if sum >= lower {
            return top.map(|top| (top, bin));
        }
    }
    None
}

/// The cutoff from lists of magnitudes (less `first`) that hold the `rank`-th largest.
fn read_off(mut lists: Vec<(usize, Vec<u32>)>, first: u64, rank: u64) -> Cutoff {
    lists.sort_unstable_by_key(|(block, _)| *block);
    let mut all: Vec<u32> = lists.iter().flat_map(|(_, list)| list).copied().collect();
    let place = all.len() - rank as usize;
    let (_, threshold, above) = all.select_nth_unstable(place);
    let threshold = *threshold;
    // `above` may hold further ties; those strictly larger are kept anyway.
    let larger = above.iter().filter(|x| **x > threshold).count() as u64;
    let ties = lists.iter().map(|(block, list)| (*block, list.iter().filter(|x| **x == threshold).count() as u64));
    cut(first + u64::from(threshold), rank - larger, ties)
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
    /// Lists what lies in first..=last (less `first`) and returns how many are above.
    fn gather<R>(x: &[R], first: u64, last: u64, list: &mut Vec<u32>) -> u64 {
        let (low, high) = (R::bits(first), R::bits(last));
        let mut above = 0;
        // Ask a whole strip at once, look closer only where a candidate is; and then without branches, which a mispredicted
        // one in fifty would make three times slower.
        let mut found = [0u32; 64];
        for strip in x.chunks(64) {
            let (mut hits, mut larger) = (0u32, 0u32);
            for x in strip {
                let bits = x.magnitude();
                hits += u32::from(bits >= low && bits <= high);
                larger += u32::from(bits > high);
            }
            above += u64::from(larger);
            if hits > 0 {
                let mut count = 0;
                for x in strip {
                    let bits = x.magnitude();
                    let wide: u64 = bits.into();
                    found[count & 63] = wide.wrapping_sub(first) as u32;
                    count += usize::from(bits >= low && bits <= high);
                }
                list.extend_from_slice(&found[..count]);
            }
        }
        above
    }
}
