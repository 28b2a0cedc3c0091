//! Which elements are the k largest, once the threshold is known.

use crate::dtype::Real;

/// Keeps magnitudes above `threshold`, and of those equal to it: all before block `tie_block`, the first `tie_count` in it, none after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoff {
    /// The bits of the least magnitude that is kept, unless all or none are.
    pub threshold: u64,
    pub tie_block: usize,
    pub tie_count: u64,
}

impl Cutoff {
    pub const ALL: Cutoff = Cutoff { threshold: 0, tie_block: usize::MAX, tie_count: 0 };
    pub const NONE: Cutoff = Cutoff { threshold: u64::MAX, tie_block: 0, tie_count: 0 };

    /// The cutoff that keeps `quota` of the ties, whose number in each block is given in the order of the blocks.
    pub fn at(threshold: u64, mut quota: u64, ties: impl Iterator<Item = (usize, u64)>) -> Cutoff {
        for (block, count) in ties {
            if count >= quota {
                return Cutoff { threshold, tie_block: block, tie_count: quota };
            }
            quota -= count;
        }
        Cutoff { threshold, tie_block: usize::MAX, tie_count: 0 }
    }

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

    /// x ← 0 where `trim` keeps it, x elsewhere.
    pub fn drop<R: Real>(&self, block: usize, x: &mut [R]) {
        if *self == Cutoff::NONE {
        } else if block < self.tie_block {
            drop_from(x, R::bits(self.threshold));
        } else if block > self.tie_block {
            drop_above(x, R::bits(self.threshold));
        } else {
            let (threshold, mut ties) = (R::bits(self.threshold), self.tie_count);
            for x in x {
                let magnitude = x.magnitude();
                let tied = magnitude == threshold && ties > 0;
                ties -= u64::from(tied);
                if magnitude > threshold || tied {
                    *x = R::ZERO;
                }
            }
        }
    }
}

wide! {
    fn drop_from<R>(x: &mut [R], threshold: R::Bits) {
        for x in x.iter_mut() {
            *x = if x.magnitude() >= threshold { R::ZERO } else { *x };
        }
    }
}

wide! {
    fn drop_above<R>(x: &mut [R], threshold: R::Bits) {
        for x in x.iter_mut() {
            *x = if x.magnitude() > threshold { R::ZERO } else { *x };
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
