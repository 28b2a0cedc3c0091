//! How do task vectors lie to each other? Their dot products, their sizes, and where two of them pull in different directions.
//!
//! The conflicts are those of the metrics of Cao et al. (arXiv:2603.09463). Two signs differ where one number is above zero and the other
//! below: a zero agrees with everything, since a weight that a fine-tune did not move takes no side. (Of bf16 checkpoints a third of the
//! weights may not have moved.)
//!
//! All sums are taken strip by strip, while the strips of all rows are in the core's nearest cache. (Row by row and pair by pair they take
//! four times as long.)

use super::angle;
use super::gram;
use crate::dtype::Real;

/// Elements that are taken at a time. A stretch of so many that are all the base's has not been trained, and holds no rounding noise of a
/// model's own.
pub const STRIP: usize = 512;
/// Numbers that are added side by side. (16 wait for each other's sums and take twice as long; loops over 64 are unrolled before they are
/// vectorised and take five times as long.) A strip is 16 of them: f32 loses 1e-7 of a sum so short, and sums go on in f64.
const LANES: usize = 32;
/// The same for dot products, which are f64.
const DOT_LANES: usize = 8;
/// Rows whose dot products are taken at once, so that each number is widened once for four products.
const TILE: usize = 4;

type Strip<R> = [R; STRIP];
type Sums = [f64; LANES];
type Dots = [f64; DOT_LANES];

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

/// Of some vectors, and the base that they start from.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Σ θ₀ᵢ²
    pub base_square: f64,
    /// Of each vector with itself and those after it.
    pub dots: Vec<f64>,
    /// Σ |aᵢ| of each.
    pub l1: Vec<f64>,
    /// How many elements of each are zero.
    pub zeros: Vec<f64>,
    /// Σ θ₀ᵢ² of each, over the strips of which some element is not zero.
    pub touched_square: Vec<f64>,
    /// Of each vector and those after it.
    pub pairs: Vec<Disagreement>,
}

impl Geometry {
    /// `rows` are as long as `base`.
    pub fn of<R: Real>(base: &[R], rows: &[Vec<R>]) -> Geometry {
        let count = rows.len();
        let mut found = Geometry {
            base_square: 0.0,
            dots: Vec::new(),
            l1: Vec::new(),
            zeros: vec![0.0; count],
            touched_square: vec![0.0; count],
            pairs: Vec::new(),
        };
        let mut lanes = Lanes::of(count);
        let mut pads: Vec<Strip<R>> = Vec::new();
        for at in (0..base.len()).step_by(STRIP) {
            let end = base.len().min(at + STRIP);
            let square = angle::dot(&base[at..end], &base[at..end]);
            found.base_square += square;
            for (model, row) in rows.iter().enumerate() {
                let zeros = zeros(&row[at..end]);
                found.zeros[model] += zeros;
                found.touched_square[model] += if zeros < (end - at) as f64 { square } else { 0.0 };
            }
            if end - at < STRIP {
                // Zeros add nothing to the sums below.
                pads = vec![[R::ZERO; STRIP]; count];
                pads.iter_mut().zip(rows).for_each(|(pad, row)| pad[..end - at].copy_from_slice(&row[at..end]));
            }
            let strip = |model: usize| -> &Strip<R> { rows[model][at..].first_chunk().unwrap_or_else(|| &pads[model]) };
            let strips: Vec<&Strip<R>> = (0..count).map(strip).collect();
            lanes.add(&strips);
        }
        found.dots = lanes.dots.iter().map(|dots| angle::tree(dots)).collect();
        found.l1 = lanes.l1.iter().map(|sums| angle::tree(sums)).collect();
        let sums = lanes.pairs.iter().map(|sums| sums.each_ref().map(|sums| angle::tree(sums)));
        found.pairs = sums.map(|[apart, conflicts, conflicting]| Disagreement { apart, conflicts, conflicting }).collect();
        found
    }
}

/// Sums side by side.
struct Lanes {
    dots: Vec<Dots>,
    l1: Vec<Sums>,
    pairs: Vec<[Sums; 3]>,
}

impl Lanes {
    fn of(rows: usize) -> Lanes {
        let pairs = gram::pairs(rows);
        Lanes { dots: vec![[0.0; DOT_LANES]; pairs], l1: vec![[0.0; LANES]; rows], pairs: vec![[[0.0; LANES]; 3]; pairs - rows] }
    }

    fn add<R: Real>(&mut self, rows: &[&Strip<R>]) {
        self.l1.iter_mut().zip(rows).for_each(|(sums, row)| add_l1(sums, row));
        let mut pairs = self.pairs.iter_mut();
        for (i, a) in rows.iter().enumerate() {
            rows[i + 1..].iter().zip(pairs.by_ref()).for_each(|(b, sums)| add_disagreement(sums, a, b));
        }
        for first in (0..rows.len()).step_by(TILE) {
            add_dots_among(&mut self.dots, rows, first);
            (first + TILE..rows.len()).step_by(TILE).for_each(|second| add_dots_between(&mut self.dots, rows, first, second));
        }
    }
}

wide! {
    /// How many are zero.
    fn zeros<R>(values: &[R]) -> f64 {
        let mut count = 0u32;
        for x in values {
            count += u32::from(*x == R::ZERO);
        }
        f64::from(count)
    }
}

wide! {
    fn add_l1<R>(sums: &mut Sums, row: &Strip<R>) {
        let mut sizes = [R::ZERO; LANES];
        for x in row.chunks_exact(LANES) {
            for lane in 0..LANES {
                sizes[lane] = sizes[lane] + x[lane].abs();
            }
        }
        for lane in 0..LANES {
            sums[lane] += sizes[lane].f64();
        }
    }
}

wide! {
    fn add_disagreement<R>(sums: &mut [Sums; 3], a: &Strip<R>, b: &Strip<R>) {
        let (mut apart, mut conflicts, mut conflicting) = ([R::ZERO; LANES], [R::ZERO; LANES], [R::ZERO; LANES]);
        for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
            for lane in 0..LANES {
                let (x, y) = (a[lane], b[lane]);
                let gap = (x - y).abs();
                let against = ((x > R::ZERO) & (y < R::ZERO)) | ((x < R::ZERO) & (y > R::ZERO));
                apart[lane] = apart[lane] + gap;
                conflicts[lane] = conflicts[lane] + if against { R::ONE } else { R::ZERO };
                conflicting[lane] = conflicting[lane] + if against { gap } else { R::ZERO };
            }
        }
        for lane in 0..LANES {
            sums[0][lane] += apart[lane].f64();
            sums[1][lane] += conflicts[lane].f64();
            sums[2][lane] += conflicting[lane].f64();
        }
    }
}

/// Where the dot product of row `i` with row `j`, not before it, is among those of `count` rows.
fn place(count: usize, i: usize, j: usize) -> usize {
    gram::pairs(count) - gram::pairs(count - i) + j - i
}

wide! {
    /// Adds the dot products of the tile of rows that begins at `first`, with each other.
    fn add_dots_among<R>(dots: &mut [Dots], rows: &[&Strip<R>], first: usize) {
        match rows.len() - first {
            1 => among::<R, 1>(dots, rows, first),
            2 => among::<R, 2>(dots, rows, first),
            3 => among::<R, 3>(dots, rows, first),
            _ => among::<R, TILE>(dots, rows, first),
        }
    }
}

wide! {
    /// Adds the dot products of a whole tile of rows with those of a later one.
    fn add_dots_between<R>(dots: &mut [Dots], rows: &[&Strip<R>], first: usize, second: usize) {
        match rows.len() - second {
            1 => between::<R, 1>(dots, rows, first, second),
            2 => between::<R, 2>(dots, rows, first, second),
            3 => between::<R, 3>(dots, rows, first, second),
            _ => between::<R, TILE>(dots, rows, first, second),
        }
    }
}

#[inline(always)]
fn among<R: Real, const N: usize>(dots: &mut [Dots], rows: &[&Strip<R>], first: usize) {
    let tile: [&Strip<R>; N] = std::array::from_fn(|i| rows[first + i]);
    let mut sums = [[[0.0; DOT_LANES]; N]; N];
    for at in (0..STRIP).step_by(DOT_LANES) {
        let wide = widened(&tile, at);
        for i in 0..N {
            for j in i..N {
                add_products(&mut sums[i][j], &wide[i], &wide[j]);
            }
        }
    }
    for i in 0..N {
        for j in i..N {
            add(&mut dots[place(rows.len(), first + i, first + j)], &sums[i][j]);
        }
    }
}

#[inline(always)]
fn between<R: Real, const N: usize>(dots: &mut [Dots], rows: &[&Strip<R>], first: usize, second: usize) {
    let one: [&Strip<R>; TILE] = std::array::from_fn(|i| rows[first + i]);
    let other: [&Strip<R>; N] = std::array::from_fn(|j| rows[second + j]);
    let mut sums = [[[0.0; DOT_LANES]; N]; TILE];
    for at in (0..STRIP).step_by(DOT_LANES) {
        let (a, b) = (widened(&one, at), widened(&other, at));
        for i in 0..TILE {
            for j in 0..N {
                add_products(&mut sums[i][j], &a[i], &b[j]);
            }
        }
    }
    for i in 0..TILE {
        for j in 0..N {
            add(&mut dots[place(rows.len(), first + i, second + j)], &sums[i][j]);
        }
    }
}

/// A few numbers of each row, in f64.
#[inline(always)]
fn widened<R: Real, const N: usize>(rows: &[&Strip<R>; N], at: usize) -> [Dots; N] {
    let mut wide = [[0.0; DOT_LANES]; N];
    for (wide, row) in wide.iter_mut().zip(rows) {
        for lane in 0..DOT_LANES {
            wide[lane] = row[at + lane].f64();
        }
    }
    wide
}

#[inline(always)]
fn add_products(sums: &mut Dots, a: &Dots, b: &Dots) {
    for lane in 0..DOT_LANES {
        sums[lane] = a[lane].mul_add(b[lane], sums[lane]);
    }
}

#[inline(always)]
fn add(sums: &mut Dots, terms: &Dots) {
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}
