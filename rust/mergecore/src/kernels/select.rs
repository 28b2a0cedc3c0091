//! Which magnitudes are the k largest? Exactly, without sorting and without holding the tensor.
//!
//! A magnitude's bits, read as an integer, order like the magnitude. A sample of the tensor tells nearly where the threshold lies: a
//! bracket of half a percent of the ranks, and one value in its middle. One pass over everything then counts what is above the bracket, counts
//! that one value block by block, and lists whatever else is in the bracket; the exact answer is read off. Where the sample misleads, the
//! answer is found digit by digit from the top instead, as in a radix sort. Either way the result is the same; counts are integers
//! and lists are ordered by block, so threads and tiles leave no trace.
//!
//! Elements tied at the threshold are kept from the lowest index up. 16-bit checkpoints make ties the normal case, which is why the value in
//! the middle is counted rather than listed: a quarter of a million deltas of two bf16 models were seen to have 815 distinct magnitudes.
//!
//! Tried and dropped: sorting (125 ns an element against 1); counting all elements into bins from the start, which costs five times the
//! comparisons of a bracket; listing the ties, too (a fifth of a bf16 tensor).

use std::sync::Mutex;

use super::cutoff::Cutoff;
use crate::dtype::Real;

/// A tensor of at most so many elements is listed whole.
const SMALL: u64 = 1 << 16;
/// One block in so many is sampled, and a large tensor's sample is thinned to about so many elements.
const SAMPLED: u64 = 16;
const SAMPLE: u64 = 1 << 18;

/// Finds one cutoff in a few passes over the magnitudes: `observe` every block, `absorb` what each thread saw, `advance`; until it is done.
pub struct Selector {
    keep: u64,
    total: u64,
    /// How many magnitudes may be listed.
    gather: u64,
    /// For counting digit by digit: elements whose upper bits are `prefix` are undecided in their `low` lower bits; of these `among`
    /// elements `rank` are to be kept.
    prefix: u64,
    low: u32,
    among: u64,
    rank: u64,
    pass: Pass,
    found: Mutex<Found>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// List every so many elements of some blocks.
    Sample {
        stride: usize,
    },
    /// Count what is above `last`, list what is in first..=last; but for `tie`, which is counted block by block.
    List {
        first: u64,
        last: u64,
        tie: u64,
    },
    /// Count the next `digit` bits of the undecided.
    Count {
        digit: u32,
    },
    /// The threshold is known and fewer of its ties are kept than there are: count them block by block.
    Ties,
    Done(Cutoff),
}

/// What one thread saw since it last reported.
#[derive(Default)]
pub struct Seen {
    above: u64,
    listed: Vec<(usize, Vec<u32>)>,
    ties: Vec<(usize, u64)>,
    counts: Vec<u32>,
}

/// What all threads reported in the current pass.
#[derive(Default)]
struct Found {
    above: u64,
    /// How many are listed, or would be if there were room.
    count: u64,
    listed: Vec<(usize, Vec<u32>)>,
    ties: Vec<(usize, u64)>,
    counts: Vec<u64>,
}

impl Selector {
    /// Seeks the `keep` largest of `total` magnitudes; `gather` candidates may be listed (4 bytes each).
    pub fn new<R: Real>(keep: u64, total: u64, gather: u64) -> Selector {
        let low = R::MAGNITUDE_BITS;
        let mut selector =
            Selector { keep, total, gather, prefix: 0, low, among: total, rank: keep, pass: Pass::Ties, found: Mutex::default() };
        if keep == 0 || keep >= total {
            selector.pass = Pass::Done(if keep == 0 { Cutoff::NONE } else { Cutoff::ALL });
        } else {
            // A list holds 32 bits an element: f64 is counted instead.
            let listable = low < 32 && gather > 0;
            if listable && total <= SMALL.min(gather) {
                selector.list(0, (1 << low) - 1, None);
            } else if listable && total > SMALL {
                selector.pass = Pass::Sample { stride: (total / SAMPLED / SAMPLE.min(gather)).max(1) as usize };
            } else {
                selector.choose();
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

    /// Whether this pass looks at that block at all. A sample's choice is scattered, so that no period of the tensor's aligns with it.
    pub fn wants(&self, block: usize) -> bool {
        match self.pass {
            Pass::Sample { .. } => block as u64 % SAMPLED == (block as u64 / SAMPLED).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60,
            Pass::Done(_) => false,
            _ => true,
        }
    }

    /// Looks at one block's magnitudes (signs are ignored). `seen` is the calling thread's own.
    pub fn observe<R: Real>(&self, block: usize, x: &[R], seen: &mut Seen) {
        match self.pass {
            Pass::Sample { stride } => {
                if self.wants(block) {
                    let sample = x.iter().step_by(stride).map(|x| x.magnitude().into() as u32).collect();
                    seen.listed.push((block, sample));
                }
            }
            Pass::List { first, last, tie } => {
                let mut list = Vec::with_capacity(x.len() / 64);
                let (above, ties) = gather(x, first, last, tie, &mut list);
                seen.above += above;
                if ties > 0 {
                    seen.ties.push((block, ties));
                }
                if !list.is_empty() {
                    seen.listed.push((block, list));
                }
            }
            Pass::Count { digit } => {
                seen.counts.resize(1 << digit, 0);
                count(x, self.prefix, self.low, self.low - digit, &mut seen.counts);
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
        let mut found = self.found.lock().expect("no holder panics");
        found.above += std::mem::take(&mut seen.above);
        found.count += seen.listed.iter().map(|(_, list)| list.len() as u64).sum::<u64>();
        // A bracket that holds too much is given up: `advance` will count instead.
        if found.count > self.gather && matches!(self.pass, Pass::List { .. }) {
            found.listed.clear();
            seen.listed.clear();
        }
        found.listed.append(&mut seen.listed);
        found.ties.append(&mut seen.ties);
        if found.counts.len() < seen.counts.len() {
            found.counts.resize(seen.counts.len(), 0);
        }
        for (sum, count) in found.counts.iter_mut().zip(&mut seen.counts) {
            *sum += u64::from(std::mem::take(count));
        }
    }

    /// Draws the conclusion of a pass over all blocks.
    pub fn advance(&mut self) {
        let mut found = std::mem::take(self.found.get_mut().expect("no holder panics"));
        found.ties.sort_unstable();
        match self.pass {
            Pass::Sample { .. } => {
                let mut sample: Vec<u32> = found.listed.into_iter().flat_map(|(_, list)| list).collect();
                match bracket(&mut sample, self.keep as f64 / self.total as f64) {
                    Some([first, tie, last]) => self.list(first, last, Some(tie)),
                    None => self.choose(),
                }
            }
            Pass::List { first, tie, .. } => match read_off(found, first, tie, self.keep, self.gather) {
                Some(cutoff) => self.pass = Pass::Done(cutoff),
                None => self.choose(),
            },
            Pass::Count { digit } => {
                for (bin, count) in found.counts.iter().copied().enumerate().rev() {
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
            Pass::Ties => self.pass = Pass::Done(Cutoff::at(self.prefix, self.rank, found.ties.into_iter())),
            Pass::Done(_) => {}
        }
    }

    fn list(&mut self, first: u64, last: u64, tie: Option<u64>) {
        // No magnitude has all bits set, so this tie is never met.
        self.pass = Pass::List { first, last, tie: tie.unwrap_or(u64::MAX) };
    }

    /// The next pass of counting digit by digit.
    fn choose(&mut self) {
        if self.low == 0 {
            let all = Cutoff { threshold: self.prefix, tie_block: usize::MAX, tie_count: 0 };
            self.pass = if self.rank == self.among { Pass::Done(all) } else { Pass::Ties };
        } else if self.among <= self.gather && self.low < 32 {
            self.list(self.prefix << self.low, (self.prefix << self.low) | ((1 << self.low) - 1), None);
        } else {
            // 31 = 15 + 16 bits and 63 = 15 + 3·16: the first digit takes what is left over.
            self.pass = Pass::Count { digit: if self.low.is_multiple_of(16) { 16 } else { self.low % 16 } };
        }
    }
}

/// The ends of a bracket around the largest `fraction` of all, and its middle, going by a sample.
fn bracket(sample: &mut [u32], fraction: f64) -> Option<[u64; 3]> {
    if sample.is_empty() {
        return None;
    }
    let total = sample.len() as f64;
    // Blocks differ more than independent elements would: a quarter of a percent of all ranks on either side, beside the sample's own error.
    let margin = 0.0025 * total + 3.0 * (total * fraction * (1.0 - fraction)).sqrt() + 8.0;
    let mut at = |rank: f64| {
        let place = (total - rank).clamp(0.0, total - 1.0) as usize;
        u64::from(*sample.select_nth_unstable(place).1)
    };
    let middle = fraction * total;
    let first = if middle + margin < total { at(middle + margin) } else { 0 };
    let last = if middle > margin { at(middle - margin) } else { u64::from(u32::MAX >> 1) };
    Some([first, at(middle), last])
}

/// The cutoff from what a bracket held; None if the `keep`-th largest is not in it, or if too much was.
fn read_off(mut found: Found, first: u64, tie: u64, keep: u64, gather: u64) -> Option<Cutoff> {
    let rank = keep.checked_sub(found.above).filter(|rank| *rank > 0)?;
    if found.count > gather {
        return None;
    }
    found.listed.sort_unstable_by_key(|(block, _)| *block);
    let mut all: Vec<u32> = found.listed.iter().flat_map(|(_, list)| list).copied().collect();
    let above_tie = all.iter().filter(|x| first + u64::from(**x) > tie).count() as u64;
    let ties: u64 = found.ties.iter().map(|(_, count)| count).sum();
    if rank > above_tie && rank <= above_tie + ties {
        return Some(Cutoff::at(tie, rank - above_tie, found.ties.into_iter()));
    }
    let rank = if rank > above_tie { rank - ties } else { rank };
    let place = (all.len() as u64).checked_sub(rank)?;
    let (_, threshold, above) = all.select_nth_unstable(place as usize);
    let threshold = *threshold;
    // `above` may hold further ties; those strictly larger are kept anyway.
    let larger = above.iter().filter(|x| **x > threshold).count() as u64;
    let ties = found.listed.iter().map(|(block, list)| (*block, list.iter().filter(|x| **x == threshold).count() as u64));
    Some(Cutoff::at(first + u64::from(threshold), rank - larger, ties))
}

wide! {
    /// Lists what lies in first..=last (less `first`) and is not `tie`; returns how many are above, and how many are the tie.
    fn gather<R>(x: &[R], first: u64, last: u64, tie: u64, list: &mut Vec<u32>) -> (u64, u64) {
        let (low, high, tied) = (R::bits(first), R::bits(last), R::bits(tie));
        let (mut above, mut ties) = (0u64, 0u64);
        // Ask a whole strip at once, look closer only where a candidate is; and then without branches, which a mispredicted
        // one in fifty would make three times slower.
        let mut found = [0u32; 64];
        for strip in x.chunks(64) {
            let (mut hits, mut larger, mut equal) = (0u32, 0u32, 0u32);
            for x in strip {
                let bits = x.magnitude();
                hits += u32::from(bits >= low && bits <= high);
                larger += u32::from(bits > high);
                equal += u32::from(bits == tied);
            }
            above += u64::from(larger);
            ties += u64::from(equal);
            if hits > equal {
                let mut count = 0;
                for x in strip {
                    let bits = x.magnitude();
                    let wide: u64 = bits.into();
                    found[count & 63] = wide.wrapping_sub(first) as u32;
                    count += usize::from(bits >= low && bits <= high && bits != tied);
                }
                list.extend_from_slice(&found[..count]);
            }
        }
        (above, ties)
    }
}

wide! {
    /// Counts the bits above `shift` of the elements whose bits above `low` are `prefix`.
    fn count<R>(x: &[R], prefix: u64, low: u32, shift: u32, counts: &mut [u32]) {
        // The mask costs nothing and lets the compiler drop the bounds check's branch.
        let last = counts.len() - 1;
        for x in x {
            let bits: u64 = x.magnitude().into();
            if bits >> low == prefix {
                counts[(bits >> shift) as usize & last] += 1;
            }
        }
    }
}
