//! How do task vectors lie to each other? Their dot products, their sizes, and where two of them pull in different directions.
//!
//! The conflicts are those of the metrics of Cao et al. (arXiv:2603.09463). Two signs differ where one number is above zero and the other
//! below: a zero agrees with everything, since a weight that a fine-tune did not move takes no side. (Of bf16 checkpoints a third of the
//! weights may not have moved.)
//!
//! All sums are taken strip by strip, while the strips of all rows are in the core's nearest cache. (Row by row and pair by pair, on blocks
//! as merges have them, they take four times as long.)
//!
//! Tried and dropped: dots and conflicts in one loop, which would balance the core's ports, have more sums than there are registers (0.96 s of
//! CPU for four models of 1.1 B elements, and 0.86 s apart).

use super::gram;
use crate::dtype::Real;

/// Elements that are taken at a time. A strip that is all the base's has not been trained, and holds no rounding noise of a model's own.
pub const STRIP: usize = 1024;
/// Numbers that are added side by side. (16 wait for each other's sums and take twice as long; loops over 64 are unrolled before they are
/// vectorised and take five times as long.) A strip is 32 of them: f32 loses 1e-7 of a sum so short, and sums go on in f64.
const LANES: usize = 32;
/// The same for pairs of rows, of which several are taken at once: a strip is 64 of them.
const PAIR_LANES: usize = 16;
/// The same for dot products, which are f64.
const DOT_LANES: usize = 8;
/// Rows whose dot products are taken at once, so that each number is widened once for four products.
const TILE: usize = 4;

type Sums = [f64; LANES];
type PairSums = [f64; PAIR_LANES];
type Dots = [f64; DOT_LANES];
/// Of one row of a strip: the sums of its magnitudes, and how many are not zero.
pub type Sizes<R> = [[R; LANES]; 2];

/// Some elements of a tensor, made up with zeros at its end: they add nothing to any sum.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub struct Strip<R>(pub [R; STRIP]);

impl<R: Real> Strip<R> {
    pub const ZERO: Strip<R> = Strip([R::ZERO; STRIP]);
}

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

/// The sums of some vectors, and of the base that they start from, as far as their strips were added.
#[derive(Debug, Clone)]
pub struct Geometry {
    base: Dots,
    dots: Vec<Dots>,
    l1: Vec<Sums>,
    moved: Vec<Sums>,
    touched: Vec<f64>,
    pairs: Vec<[PairSums; 3]>,
    count: f64,
}

impl Geometry {
    pub fn of(rows: usize) -> Geometry {
        let pairs = gram::pairs(rows);
        Geometry {
            base: [0.0; DOT_LANES],
            dots: vec![[0.0; DOT_LANES]; pairs],
            l1: vec![[0.0; LANES]; rows],
            moved: vec![[0.0; LANES]; rows],
            touched: vec![0.0; rows],
            pairs: vec![[[0.0; PAIR_LANES]; 3]; pairs - rows],
            count: 0.0,
        }
    }

    /// Adds a strip of `count` elements; or nothing, and says so, if some element of a row is not finite, or sums might not be. `sizes` is room
    /// for one a row.
    pub fn add<R: Real>(&mut self, base: &Strip<R>, rows: &[Strip<R>], sizes: &mut [Sizes<R>], count: usize) -> bool {
        rows.iter().zip(sizes.iter_mut()).for_each(|(row, sizes)| size(sizes, row));
        // Nor is anything added that sums of this arithmetic might not hold: of f64, what is below 1e150 always is.
        let most = R::of(if R::MAGNITUDE_BITS == f32::MAGNITUDE_BITS { 4e37 } else { 1e300 });
        if !sizes.iter().all(|[l1, _]| all_below(l1, most)) {
            return false;
        }
        self.count += count as f64;
        let mut square = [0.0; DOT_LANES];
        add_squares(&mut square, base);
        add(&mut self.base, &square);
        for (row, [l1, moved]) in sizes.iter().enumerate() {
            add_widened(&mut self.l1[row], l1);
            add_widened(&mut self.moved[row], moved);
            if l1.iter().any(|x| *x > R::ZERO) {
                self.touched[row] += sum(&square);
            }
        }
        for first in (0..rows.len()).step_by(TILE) {
            add_dots_among(&mut self.dots, rows, first);
            (first + TILE..rows.len()).step_by(TILE).for_each(|second| add_dots_between(&mut self.dots, rows, first, second));
        }
        for first in (0..rows.len()).step_by(TILE) {
            add_disagreements_among(&mut self.pairs, rows, first);
            for second in (first + TILE..rows.len()).step_by(2) {
                for earlier in [first, first + 2] {
                    add_disagreements_between(&mut self.pairs, rows, earlier, second);
                }
            }
        }
        true
    }

    /// Σ θ₀ᵢ²
    pub fn base_square(&self) -> f64 {
        sum(&self.base)
    }

    /// The dot products of each vector with itself and those after it.
    pub fn dots(&self) -> impl Iterator<Item = f64> + '_ {
        self.dots.iter().map(sum)
    }

    /// Σ |aᵢ| of each.
    pub fn l1(&self) -> impl Iterator<Item = f64> + '_ {
        self.l1.iter().map(sum)
    }

    /// How many elements of each are zero.
    pub fn zeros(&self) -> impl Iterator<Item = f64> + '_ {
        self.moved.iter().map(|moved| self.count - sum(moved))
    }

    /// Σ θ₀ᵢ² of each, over the strips of which some element is not zero.
    pub fn touched_square(&self) -> impl Iterator<Item = f64> + '_ {
        self.touched.iter().copied()
    }

    /// Of each vector and those after it.
    pub fn pairs(&self) -> impl Iterator<Item = Disagreement> + '_ {
        self.pairs.iter().map(|[apart, conflicts, conflicting]| Disagreement {
            apart: sum(apart),
            conflicts: sum(conflicts),
            conflicting: sum(conflicting),
        })
    }
}

/// Halves onto halves.
fn sum<const N: usize>(lanes: &[f64; N]) -> f64 {
    let (mut lanes, mut width) = (*lanes, N / 2);
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

wide! {
    fn add_squares<R>(sums: &mut Dots, row: &Strip<R>) {
        let mut squares = [[0.0; DOT_LANES]; 2];
        for at in (0..STRIP).step_by(2 * DOT_LANES) {
            for (half, squares) in squares.iter_mut().enumerate() {
                let wide = &widened(&[row], at + half * DOT_LANES)[0];
                add_products(squares, wide, wide);
            }
        }
        squares.iter().for_each(|half| add(sums, half));
    }
}

wide! {
    fn size<R>(sums: &mut Sizes<R>, row: &Strip<R>) {
        let (mut l1, mut moved) = ([R::ZERO; LANES], [R::ZERO; LANES]);
        for x in row.0.chunks_exact(LANES) {
            for lane in 0..LANES {
                l1[lane] = l1[lane] + x[lane].abs();
                // So written, it is one masked addition.
                moved[lane] = if x[lane] != R::ZERO { moved[lane] + R::ONE } else { moved[lane] };
            }
        }
        *sums = [l1, moved];
    }
}

wide! {
    /// Whether all are; a NaN is not.
    fn all_below<R>(x: &[R; LANES], most: R) -> bool {
        x.iter().fold(true, |held, x| held & (*x < most))
    }
}

wide! {
    fn add_widened<R>(sums: &mut Sums, terms: &[R; LANES]) {
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term.f64());
    }
}

wide! {
    /// Adds where each of the tile of rows that begins at `first` lies apart from each later one of it.
    fn add_disagreements_among<R>(sums: &mut [[PairSums; 3]], rows: &[Strip<R>], first: usize) {
        match rows.len() - first {
            1 => {}
            2 => disagreements::<R, 2, 0, 1>(sums, rows, [first, first + 1]),
            3 => disagreements::<R, 3, 0, 3>(sums, rows, [first, first + 1, first + 2]),
            _ => disagreements::<R, 4, 0, 6>(sums, rows, [first, first + 1, first + 2, first + 3]),
        }
    }
}

wide! {
    /// Adds where two rows from `first` on lie apart from two, or the last, from `second` on.
    fn add_disagreements_between<R>(sums: &mut [[PairSums; 3]], rows: &[Strip<R>], first: usize, second: usize) {
        match rows.len() - second {
            1 => disagreements::<R, 3, 2, 2>(sums, rows, [first, first + 1, second]),
            _ => disagreements::<R, 4, 2, 4>(sums, rows, [first, first + 1, second, second + 1]),
        }
    }
}

/// Of the rows `at`, each with those after it, or the first `APART` of them with the others: no more pairs than have their sums in registers.
#[inline(always)]
#[allow(clippy::double_comparisons)] // `!=` would be true of a NaN
fn disagreements<R: Real, const N: usize, const APART: usize, const PAIRS: usize>(
    sums: &mut [[PairSums; 3]],
    rows: &[Strip<R>],
    at: [usize; N],
) {
    const L: usize = PAIR_LANES;
    let tile: [&Strip<R>; N] = std::array::from_fn(|i| &rows[at[i]]);
    let infinity = R::of(f64::INFINITY);
    let last = if APART == 0 { N } else { APART };
    let (mut lengths, mut conflicts) = ([[[R::ZERO; L]; 2]; PAIRS], [[0i32; L]; PAIRS]);
    // Both bounds are constants: with a start that varies (the halves of a strip), or with the pairs in a list, what the compiler makes of
    // it takes 1.7 and 2 times as long, all sums of four models together.
    for start in (0..STRIP).step_by(L) {
        let mut x = [[R::ZERO; L]; N];
        for i in 0..N {
            x[i].copy_from_slice(&tile[i].0[start..start + L]);
        }
        // Infinite, or NaN of a zero: such signs differ, and are in order, where two numbers conflict. That is one comparison. (A product
        // of two small numbers would be zero.)
        let mut sign = [[R::ZERO; L]; N];
        for i in 0..N {
            for lane in 0..L {
                sign[i][lane] = x[i][lane] * infinity;
            }
        }
        let mut pair = 0;
        for i in 0..last {
            for j in (if APART == 0 { i + 1 } else { APART })..N {
                for lane in 0..L {
                    let gap = (x[i][lane] - x[j][lane]).abs();
                    let against = sign[i][lane] < sign[j][lane] || sign[i][lane] > sign[j][lane];
                    lengths[pair][0][lane] = lengths[pair][0][lane] + gap;
                    // Written as a masked addition, it goes through memory.
                    conflicts[pair][lane] += i32::from(against);
                    lengths[pair][1][lane] = if against { lengths[pair][1][lane] + gap } else { lengths[pair][1][lane] };
                }
                pair += 1;
            }
        }
    }
    let mut pair = 0;
    for i in 0..last {
        for j in (if APART == 0 { i + 1 } else { APART })..N {
            let sums = &mut sums[place(rows.len(), at[i], at[j]) - at[i] - 1];
            for lane in 0..L {
                sums[0][lane] += lengths[pair][0][lane].f64();
                sums[1][lane] += f64::from(conflicts[pair][lane]);
                sums[2][lane] += lengths[pair][1][lane].f64();
            }
            pair += 1;
        }
    }
}

/// Where the dot product of row `i` with row `j`, not before it, is among those of `count` rows.
fn place(count: usize, i: usize, j: usize) -> usize {
    gram::pairs(count) - gram::pairs(count - i) + j - i
}

wide! {
    /// Adds the dot products of the tile of rows that begins at `first`, with each other.
    fn add_dots_among<R>(dots: &mut [Dots], rows: &[Strip<R>], first: usize) {
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
    fn add_dots_between<R>(dots: &mut [Dots], rows: &[Strip<R>], first: usize, second: usize) {
        match rows.len() - second {
            1 => between::<R, 1>(dots, rows, first, second),
            2 => between::<R, 2>(dots, rows, first, second),
            3 => between::<R, 3>(dots, rows, first, second),
            _ => between::<R, TILE>(dots, rows, first, second),
        }
    }
}

#[inline(always)]
fn among<R: Real, const N: usize>(dots: &mut [Dots], rows: &[Strip<R>], first: usize) {
    let tile: [&Strip<R>; N] = std::array::from_fn(|i| &rows[first + i]);
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
fn between<R: Real, const N: usize>(dots: &mut [Dots], rows: &[Strip<R>], first: usize, second: usize) {
    let one: [&Strip<R>; TILE] = std::array::from_fn(|i| &rows[first + i]);
    let other: [&Strip<R>; N] = std::array::from_fn(|j| &rows[second + j]);
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
        wide.iter_mut().zip(&row.0[at..at + DOT_LANES]).for_each(|(wide, x)| *wide = x.f64());
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
