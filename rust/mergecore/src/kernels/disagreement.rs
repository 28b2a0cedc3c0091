//! Where do two task vectors pull in different directions, and how far?
//!
//! The sums behind the conflict metrics of Cao et al. (arXiv:2603.09463). Two signs differ where one number is above zero and the other
//! below: a zero agrees with everything, since a weight that a fine-tune did not move takes no side. (Of bf16 checkpoints a third of the
//! weights may not have moved.)

use super::angle;
use crate::dtype::Real;

/// Numbers that are added side by side, and how many times before the sums go on in f64: f32 loses 1e-7 of a sum so short.
const LANES: usize = 16;
const STRIP: usize = 64 * LANES;

/// Of two vectors, over all elements.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Disagreement {
    /// Σ |aᵢ − bᵢ|
    pub apart: f64,
    /// How many signs differ.
    pub conflicts: f64,
    /// Σ |aᵢ − bᵢ| of those.
    pub conflicting: f64,
}

impl Disagreement {
    pub fn of<R: Real>(a: &[R], b: &[R]) -> Disagreement {
        let mut all = Disagreement::default();
        for (a, b) in a.chunks(STRIP).zip(b.chunks(STRIP)) {
            let [apart, conflicts, conflicting] = of_strip(a, b);
            all =
                Disagreement { apart: all.apart + apart, conflicts: all.conflicts + conflicts, conflicting: all.conflicting + conflicting };
        }
        all
    }
}

wide! {
    fn of_strip<R>(a: &[R], b: &[R]) -> [f64; 3] {
        let (mut apart, mut conflicts, mut conflicting) = ([R::ZERO; LANES], [R::ZERO; LANES], [R::ZERO; LANES]);
        let mut pads = [[R::ZERO; LANES]; 2];
        let whole = a.len() / LANES * LANES;
        let (rest, rest_b) = (&a[whole..], &b[whole..]);
        pads[0][..rest.len()].copy_from_slice(rest);
        pads[1][..rest.len()].copy_from_slice(rest_b);
        // What the last lanes have beyond the end are zeros, which differ in nothing.
        let lanes = a.chunks_exact(LANES).zip(b.chunks_exact(LANES)).chain([(&pads[0][..], &pads[1][..])]);
        for (a, b) in lanes {
            for lane in 0..LANES {
                let (x, y) = (a[lane], b[lane]);
                let gap = (x - y).abs();
                let against = ((x > R::ZERO) & (y < R::ZERO)) | ((x < R::ZERO) & (y > R::ZERO));
                apart[lane] = apart[lane] + gap;
                conflicts[lane] = conflicts[lane] + if against { R::ONE } else { R::ZERO };
                conflicting[lane] = conflicting[lane] + if against { gap } else { R::ZERO };
            }
        }
        [apart, conflicts, conflicting].map(|lanes| angle::tree(&lanes.map(R::f64)))
    }
}

wide! {
    /// How many are zero.
    pub fn zeros<R>(values: &[R]) -> f64 {
        let mut count = 0u32;
        for x in values {
            count += u32::from(*x == R::ZERO);
        }
        f64::from(count)
    }
}
