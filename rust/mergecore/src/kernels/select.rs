//! Which magnitudes are the k largest? Exactly, without sorting and without holding the tensor.
//!
//! A magnitude's bits, read as an integer, order like the magnitude. A sample of the tensor tells nearly where the threshold lies: a
//! bracket, and one value in its middle. One pass over everything then counts what is above the bracket, counts that one value block by
//! block, and lists whatever else is in the bracket; the exact answer is read off. Where the list would be too long (a whole model's), it
//! is poured into bins instead, one for each value of the bracket, which has a hundred thousand of them even if billions of elements are
//! in it. Where that is too many (of f64), or where the sample's values end in zeros (as differences of 16-bit numbers do), there is a bin
//! for every so-manieth value, and one for all those between it and the next. Where the sample misleads, the bins are made wide
//! enough for all that is left, and again narrower, as in a radix sort. Either way the result is the same; counts are integers and what is
//! listed is told by its block, so threads and tiles leave no trace.
//!
//! Elements tied at the threshold are kept from the lowest index up. 16-bit checkpoints make ties the normal case, which is why the value in
//! the middle is counted rather than listed: a quarter of a million deltas of two bf16 models were seen to have 815 distinct magnitudes.
//! Should another value be the threshold, bins tell nearly where its last tie is kept, since every so many blocks have bins of their own:
//! only those blocks are looked at again.
//!
//! Tried and dropped: sorting (125 ns an element against 1); counting all elements into bins from the start, which costs five times the
//! comparisons of a bracket; listing the ties, too (a fifth of a bf16 tensor); a sample large enough for a bracket that can be listed (of
//! 70 B elements, all would have to be sampled).

use std::sync::Mutex;

use super::bracket::{self, Bracket};
use super::cutoff::Cutoff;
use crate::dtype::Real;

/// A tensor of at most so many elements is listed whole.
const SMALL: u64 = 1 << 16;
/// Parts of a tensor in which a bracket is counted by itself, if that costs nothing.
const CHUNKS: u64 = 64;
/// Bins that there is always room for: so the digits of f32 take two passes, of f64 five.
pub const LEAST: u64 = 1 << 16;
/// What a thread lists at most before it hands over; with one more block it takes less than 2^17 numbers of 4 bytes.
const HANDFUL: u64 = 1 << 16;
/// The tie of a pass that counts none: no magnitude has all bits set.
const NO_TIE: u64 = u64::MAX;

/// Finds one cutoff in a few passes over the magnitudes: `observe` every block, `absorb` what each thread saw, `advance`; until it is done.
pub struct Selector {
    keep: u64,
    total: u64,
    blocks: usize,
    room: u64,
    sure: Span,
    /// The sample's guess at the threshold, and how many last bits are 0 in most values near it.
    guess: u64,
    zeros: u32,
    pass: Pass,
    found: Mutex<Found>,
}

/// What is certain: the threshold is in first..=last, where `among` elements are, and `above` are larger.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: u64,
    last: u64,
    above: u64,
    among: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Note every so many elements of some blocks.
    Sample {
        stride: usize,
    },
    /// Count what is above `last`, list what is in first..=last; but for `tie`, which is counted block by block.
    List {
        first: u64,
        last: u64,
        tie: u64,
    },
    /// The same, but bins (see `bin`) are counted instead of a list, for every `chunk` blocks by themselves.
    Count {
        first: u64,
        last: u64,
        tie: u64,
        shift: u32,
        chunk: usize,
    },
    /// The threshold is known, and that `quota` of its ties from block `from` on are kept, but not all before block `to`: count them.
    Ties {
        from: usize,
        to: usize,
        quota: u64,
    },
    Done(Cutoff),
}

/// What one thread saw since it last reported.
#[derive(Default)]
pub struct Seen {
    above: u64,
    sample: Vec<(u32, u64)>,
    /// Bins (or values, less the first), and to which blocks how many of them belong.
    listed: Vec<u32>,
    marks: Vec<(u32, u32)>,
    ties: Vec<(u32, u32)>,
}

/// What all threads reported in the current pass.
#[derive(Default)]
struct Found {
    above: u64,
    /// How many are listed or in bins, or would be if there were room.
    count: u64,
    sample: Vec<(u32, u64)>,
    /// The block in the upper half, the value (less the first) in the lower: a list of pairs is a list of numbers.
    listed: Vec<u64>,
    bins: Vec<u64>,
    /// By block.
    ties: Vec<u32>,
}

impl Selector {
    /// Seeks the `keep` largest of `total` magnitudes in so many blocks; a pass may hold `room` numbers of 8 bytes (and 4 bytes a block).
    pub fn new<R: Real>(keep: u64, total: u64, blocks: usize, room: u64) -> Selector {
        let sure = Span { first: 0, last: (1 << R::MAGNITUDE_BITS) - 1, above: 0, among: total };
        let pass = Pass::Done(if keep == 0 { Cutoff::NONE } else { Cutoff::ALL });
        let mut selector = Selector { keep, total, blocks, room, sure, guess: NO_TIE, zeros: 0, pass, found: Mutex::default() };
        if keep > 0 && keep < total {
            if total > SMALL && room > 0 {
                selector.pass = Pass::Sample { stride: bracket::stride(total, room) };
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

    /// Whether this pass looks at that block at all.
    pub fn wants(&self, block: usize) -> bool {
        match self.pass {
            Pass::Sample { .. } => bracket::sampled(block),
            Pass::Ties { from, to, .. } => (from..to).contains(&block),
            Pass::Done(_) => false,
            _ => true,
        }
    }

    /// Looks at one block's magnitudes (signs are ignored), if it is wanted. `seen` is the calling thread's own.
    pub fn observe<R: Real>(&self, block: usize, x: &[R], seen: &mut Seen) {
        if !self.wants(block) {
            return;
        }
        let number = block as u32;
        let ties = match self.pass {
            Pass::Sample { stride } => {
                seen.sample.extend(bracket::thinned(block, x, stride).map(|x| (number, x.magnitude().into())));
                0
            }
            Pass::List { first, last, tie } => self.gather(x, number, [first, last, tie], 0, seen),
            Pass::Count { first, last, tie, shift, .. } => self.gather(x, number, [first, last, tie], shift, seen),
            Pass::Ties { .. } => x.iter().filter(|x| x.magnitude() == R::bits(self.sure.first)).count() as u32,
            Pass::Done(_) => 0,
        };
        if ties > 0 {
            seen.ties.push((number, ties));
        }
        if (seen.listed.len() + 4 * seen.sample.len()) as u64 > HANDFUL.min(self.room / 2) {
            self.absorb(seen);
        }
    }

    fn gather<R: Real>(&self, x: &[R], block: u32, [first, last, tie]: [u64; 3], shift: u32, seen: &mut Seen) -> u32 {
        let before = seen.listed.len();
        let (above, ties) = gather(x, first, last, shift, tie, &mut seen.listed);
        seen.above += above;
        if seen.listed.len() > before {
            seen.marks.push((block, (seen.listed.len() - before) as u32));
        }
        ties
    }

    /// Adds what a thread saw and leaves it empty. Any order gives the same result.
    pub fn absorb(&self, seen: &mut Seen) {
        let mut found = self.found.lock().expect("no holder panics");
        let found = &mut *found;
        found.above += std::mem::take(&mut seen.above);
        found.count += seen.listed.len() as u64;
        found.sample.append(&mut std::mem::take(&mut seen.sample));
        if !seen.ties.is_empty() {
            found.ties.resize(self.blocks, 0);
            seen.ties.drain(..).for_each(|(block, count)| found.ties[block as usize] += count);
        }
        let mut rest = seen.listed.as_slice();
        let lists = seen.marks.iter().map(|(block, count)| {
            let (list, others) = rest.split_at(*count as usize);
            rest = others;
            (*block as usize, list)
        });
        match self.pass {
            Pass::Count { first, last, shift, chunk, .. } => {
                let width = bin(last - first, shift) as usize + 1;
                found.bins.resize(self.blocks.div_ceil(chunk) * width, 0);
                for (block, list) in lists {
                    let bins = &mut found.bins[block / chunk * width..][..width];
                    list.iter().for_each(|bin| bins[*bin as usize] += 1);
                }
            }
            Pass::List { .. } if found.count <= self.longest() => {
                // All at once: what is not used costs nothing, growing would hold it twice.
                found.listed.reserve_exact((self.longest().min(self.total) as usize).saturating_sub(found.listed.len()));
                lists.for_each(|(block, list)| found.listed.extend(list.iter().map(|x| (block as u64) << 32 | u64::from(*x))));
            }
            // A bracket that holds too much is given up: `advance` will count instead.
            _ => found.listed = Vec::new(),
        }
        seen.marks.clear();
        seen.listed.clear();
    }

    /// Draws the conclusion of a pass over all blocks.
    pub fn advance(&mut self) {
        let found = std::mem::take(self.found.get_mut().expect("no holder panics"));
        let ties = found.ties.iter().map(|count| u64::from(*count)).sum::<u64>();
        match self.pass {
            Pass::Sample { .. } => match bracket::around(&found.sample, self.keep as f64 / self.total as f64) {
                Some(Bracket { first, middle, last, share, zeros }) => {
                    (self.guess, self.zeros) = (middle, zeros);
                    self.look(first, last.min(self.sure.last), (share * self.total as f64) as u64);
                }
                None => self.choose(),
            },
            Pass::List { first, last, tie } => {
                if self.narrow(first, last, found.above, found.count + ties) && found.count <= self.longest() {
                    self.pass = Pass::Done(read_off(&found, first, tie, self.keep - found.above));
                } else {
                    self.choose();
                }
            }
            Pass::Count { first, last, tie, shift, chunk } => {
                if self.narrow(first, last, found.above, found.count + ties) {
                    self.read_bins(&found, [first, last, tie], shift, chunk);
                } else {
                    self.choose();
                }
            }
            Pass::Ties { quota, .. } => self.pass = Pass::Done(Cutoff::at(self.sure.first, quota, by_block(&found.ties))),
            Pass::Done(_) => {}
        }
    }

    /// How many may be listed: half of the room, since they are copied in part.
    fn longest(&self) -> u64 {
        self.room / 2
    }

    /// Learns that `larger` elements are above first..=last and `inside` are in it; says whether the threshold is.
    fn narrow(&mut self, first: u64, last: u64, larger: u64, inside: u64) -> bool {
        let Span { above, among, .. } = self.sure;
        if self.keep <= larger {
            (self.sure.first, self.sure.among) = (last + 1, larger - above);
            return false;
        }
        if self.keep > larger + inside {
            (self.sure.last, self.sure.above, self.sure.among) = (first - 1, larger + inside, above + among - larger - inside);
            return false;
        }
        self.sure = Span { first, last, above: larger, among: inside };
        true
    }

    /// The bin in which the threshold is; and, if that is a single value, where its ties are.
    fn read_bins(&mut self, found: &Found, [first, last, tie]: [u64; 3], shift: u32, chunk: usize) {
        let width = bin(last - first, shift) as usize + 1;
        let tied = if tie == NO_TIE { usize::MAX } else { bin(tie - first, shift) as usize };
        let ties = by_block(&found.ties).map(|(_, count)| count).sum::<u64>();
        let chunks = || found.bins.chunks(width);
        let mut above = found.above;
        for which in (0..width).rev() {
            let others = chunks().map(|bins| bins[which]).sum::<u64>();
            let among = others + if which == tied { ties } else { 0 };
            if self.keep > above + among {
                above += among;
                continue;
            }
            let [start, end] = values(which as u64, shift).map(|x| last.min(first + x));
            self.sure = Span { first: start, last: end, above, among };
            let mut quota = self.keep - above;
            if which == tied && others == 0 {
                self.pass = Pass::Done(Cutoff::at(tie, quota, by_block(&found.ties)));
            } else if quota < among && start == end {
                for (number, bins) in chunks().enumerate() {
                    if quota <= bins[which] && chunk == 1 {
                        self.pass = Pass::Done(Cutoff { threshold: start, tie_block: number, tie_count: quota });
                        break;
                    }
                    if quota <= bins[which] {
                        self.pass = Pass::Ties { from: number * chunk, to: (number + 1) * chunk, quota };
                        break;
                    }
                    quota -= bins[which];
                }
            } else {
                self.choose();
            }
            return;
        }
    }

    /// The next pass, going by what is certain.
    fn choose(&mut self) {
        let Span { first, last, above, among } = self.sure;
        let quota = self.keep - above;
        if first < last {
            // Also where all that is left is kept: which of it is the least may be asked for.
            self.look(first, last, among);
        } else if quota == among {
            self.pass = Pass::Done(Cutoff { threshold: first, tie_block: usize::MAX, tie_count: 0 });
        } else {
            self.pass = Pass::Ties { from: 0, to: self.blocks, quota };
        }
    }

    /// Looks for the threshold in first..=last, where about so many elements are expected.
    fn look(&mut self, first: u64, last: u64, expected: u64) {
        let tie = if (first..=last).contains(&self.guess) { self.guess } else { NO_TIE };
        if expected <= self.longest() && last - first <= u64::from(u32::MAX) {
            self.pass = Pass::List { first, last, tie };
            return;
        }
        // A small tensor is not worth many bins.
        let room = self.room.min(self.total).max(LEAST);
        // Bins of one value are those whose last bits are 0.
        let aligned = |shift: u32| first >> shift << shift;
        let fitting = |room: u64| (0..63).find(|shift| bin(last - aligned(*shift), *shift) < room).unwrap_or(63);
        // Where values end in zeros anyway, fewer bins leave room to tell where the ties are.
        let shift = if tie == NO_TIE { 0 } else { fitting(room / CHUNKS).min(self.zeros) }.max(fitting(room));
        let first = aligned(shift);
        let chunks = room / (bin(last - first, shift) + 1);
        self.pass = Pass::Count { first, last, tie, shift, chunk: self.blocks.div_ceil(chunks as usize).max(1) };
    }
}

/// The bin of a value (less the first). There is one for every value, or one for every 2^shift-th and one for those between it and the next.
#[inline(always)]
fn bin(x: u64, shift: u32) -> u64 {
    let between = x & ((1 << shift) - 1) != 0;
    (x >> shift << u32::from(shift > 0)) | u64::from(between)
}

/// The least and the largest value of a bin.
fn values(bin: u64, shift: u32) -> [u64; 2] {
    let start = bin >> u32::from(shift > 0) << shift;
    if shift == 0 || bin.is_multiple_of(2) {
        [start; 2]
    } else {
        [start + 1, start + ((1 << shift) - 1)]
    }
}

fn by_block(ties: &[u32]) -> impl Iterator<Item = (usize, u64)> + '_ {
    ties.iter().map(|count| u64::from(*count)).enumerate()
}

/// The cutoff from a list, in which the `rank`-th largest is (or which leaves out its ties).
fn read_off(found: &Found, first: u64, tie: u64, rank: u64) -> Cutoff {
    let mut all: Vec<u32> = found.listed.iter().map(|x| *x as u32).collect();
    let above_tie = all.iter().filter(|x| first + u64::from(**x) > tie).count() as u64;
    let ties = by_block(&found.ties).map(|(_, count)| count).sum::<u64>();
    if rank > above_tie && rank <= above_tie + ties {
        return Cutoff::at(tie, rank - above_tie, by_block(&found.ties));
    }
    let rank = if rank > above_tie { rank - ties } else { rank };
    let place = all.len() - rank as usize;
    let (_, threshold, above) = all.select_nth_unstable(place);
    let threshold = *threshold;
    // `above` may hold further ties; those strictly larger are kept anyway.
    let larger = above.iter().filter(|x| **x > threshold).count() as u64;
    let mut ties: Vec<u64> = found.listed.iter().filter(|x| **x as u32 == threshold).map(|x| x >> 32).collect();
    ties.sort_unstable();
    let ties = ties.chunk_by(|a, b| a == b).map(|same| (same[0] as usize, same.len() as u64));
    Cutoff::at(first + u64::from(threshold), rank - larger, ties)
}

wide! {
    /// Lists the bins of what lies in first..=last and is not `tie`; returns how many are above, and how many are the tie.
    fn gather<R>(x: &[R], first: u64, last: u64, shift: u32, tie: u64, list: &mut Vec<u32>) -> (u64, u32) {
        let (low, high, tied) = (R::bits(first), R::bits(last), R::bits(tie));
        let (mut above, mut ties) = (0u64, 0u32);
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
            ties += equal;
            if hits > equal {
                let mut count = 0;
                for x in strip {
                    let bits = x.magnitude();
                    let wide: u64 = bits.into();
                    found[count & 63] = bin(wide.wrapping_sub(first), shift) as u32;
                    count += usize::from(bits >= low && bits <= high && bits != tied);
                }
                list.extend_from_slice(&found[..count]);
            }
        }
        (above, ties)
    }
}
