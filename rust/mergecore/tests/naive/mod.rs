//! The obviously-written twin of every kernel: what it computes, with no thought of how fast.
//!
//! `methods` does the same for the merge methods, over whole tensors; `numbers` for the encodings.

#![allow(dead_code)] // each test file uses its part

use crate::rows::Sample;
use mergecore::kernels::thin::Rescale;

pub mod methods;
pub mod numbers;
pub mod spectral;

// blend

pub fn subtract<R: Sample>(x: &[R], base: &[R]) -> Vec<R> {
    (0..x.len()).map(|i| x[i] - base[i]).collect()
}

pub fn add_fused<R: Sample>(sum: &[R], x: &[R], weight: R) -> Vec<R> {
    (0..x.len()).map(|i| x[i].mul_add(weight, sum[i])).collect()
}

pub fn scale<R: Sample>(x: &[R], factor: R) -> Vec<R> {
    x.iter().map(|x| *x * factor).collect()
}

pub fn divide<R: Sample>(x: &[R], divisor: R) -> Vec<R> {
    x.iter().map(|x| *x / divisor).collect()
}

pub fn attach<R: Sample>(delta: &[R], onto: &[R], lambda: R) -> Vec<R> {
    (0..delta.len()).map(|i| onto[i] + delta[i] * lambda).collect()
}

pub fn combine<R: Sample>(a: &[R], s: R, b: &[R], t: R) -> Vec<R> {
    (0..a.len()).map(|i| a[i] * s + b[i] * t).collect()
}

pub fn weighted_sum<R: Sample>(count: usize, rows: &[Vec<R>], weights: &[f64], normalize: bool) -> Vec<R> {
    let divisor = weights.iter().fold(R::ZERO, |sum, w| sum + R::of(*w));
    let one = |i: usize| {
        let mut sum = R::ZERO;
        for (row, weight) in rows.iter().zip(weights) {
            sum = sum + row[i] * R::of(*weight);
        }
        if normalize && divisor.abs() >= R::of(1e-8) {
            sum / divisor
        } else {
            sum
        }
    };
    (0..count).map(one).collect()
}

// low_rank

pub fn product<R: Sample>(left: &[R], right: &[R], stride: usize, column: usize, count: usize) -> Vec<R> {
    let one = |j: usize| (0..left.len()).fold(R::ZERO, |sum, k| right[k * stride + column + j].mul_add(left[k], sum));
    (0..count).map(one).collect()
}

// angle

/// A plain sum, and the sum of the magnitudes: what an error is measured against.
pub fn sum(terms: &[f64]) -> (f64, f64) {
    terms.iter().fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()))
}

pub fn products<R: Sample>(a: &[R], b: &[R]) -> Vec<f64> {
    (0..a.len()).map(|i| a[i].f64() * b[i].f64()).collect()
}

pub fn magnitudes<R: Sample>(a: &[R]) -> Vec<f64> {
    a.iter().map(|a| a.f64().abs()).collect()
}

pub fn squares<R: Sample>(a: &[R], b: &[R]) -> Vec<f64> {
    (0..a.len()).map(|i| (a[i].f64() - b[i].f64()).powi(2)).collect()
}

/// The order that `kernels::angle` promises: term i goes to lane i mod 16, and the lanes are added in pairs.
pub fn in_lanes(terms: &[f64]) -> f64 {
    let mut lanes = [0.0; 16];
    for (i, term) in terms.iter().enumerate() {
        lanes[i % 16] += term;
    }
    in_pairs(&lanes)
}

/// Adds neighbours, then neighbours of those, until one is left.
pub fn in_pairs(x: &[f64]) -> f64 {
    let mut level = x.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| if pair.len() == 2 { pair[0] + pair[1] } else { pair[0] }).collect();
    }
    level.first().copied().unwrap_or(0.0)
}

// gram

/// The dot products of each row with itself and those after it.
pub fn dots<R: Sample>(rows: &[Vec<R>]) -> Vec<f64> {
    (0..rows.len()).flat_map(|i| (i..rows.len()).map(move |j| in_lanes(&products(&rows[i], &rows[j])))).collect()
}

/// Those of the columns of two matrices, from the top.
pub fn dots_of_columns<R: Sample>(a: &[R], b: &[R], columns: usize) -> Vec<f64> {
    let column = |x: &[R], j: usize| x.iter().skip(j).step_by(columns).copied().collect::<Vec<R>>();
    (0..columns).map(|j| products(&column(a, j), &column(b, j)).iter().fold(0.0, |sum, x| sum + x)).collect()
}

pub fn combine_columns<R: Sample>(a: &[R], s: &[R], b: &[R], t: &[R]) -> Vec<R> {
    (0..a.len()).map(|i| a[i] * s[i % s.len()] + b[i] * t[i % t.len()]).collect()
}

// select

/// Which elements are the `keep` largest by magnitude; of those tied, the lowest indices.
pub fn largest<R: Sample>(x: &[R], keep: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|a, b| x[*b].by_magnitude(x[*a]).then(a.cmp(b)));
    let mut kept = vec![false; x.len()];
    order.iter().take(keep).for_each(|i| kept[*i] = true);
    kept
}

/// x where kept, 0 elsewhere.
pub fn only<R: Sample>(x: &[R], kept: &[bool]) -> Vec<R> {
    (0..x.len()).map(|i| if kept[i] { x[i] } else { R::ZERO }).collect()
}

// elect

pub fn tally<R: Sample>(count: usize, votes: &[Vec<R>]) -> Vec<R> {
    (0..count).map(|i| votes.iter().fold(R::ZERO, |sum, vote| sum + vote[i])).collect()
}

pub fn majority<R: Sample>(total: &[R]) -> f64 {
    let plus = total.iter().filter(|t| **t > R::ZERO).count() as f64;
    let minus = total.iter().filter(|t| **t < R::ZERO).count() as f64;
    plus - minus
}

pub fn disjoint<R: Sample>(total: &[R], votes: &[Vec<R>], weights: &[f64], normalize: bool, zero: f64) -> Vec<R> {
    let one = |i: usize| {
        let plus = if total[i] == R::ZERO { zero >= 0.0 } else { total[i] > R::ZERO };
        let agrees = |vote: R| if plus { vote > R::ZERO } else { vote < R::ZERO };
        let (mut sum, mut divisor) = (R::ZERO, R::ZERO);
        for (vote, weight) in votes.iter().zip(weights) {
            if agrees(vote[i]) {
                sum = sum + vote[i];
                divisor = divisor + R::of(*weight);
            }
        }
        if normalize && divisor != R::ZERO {
            sum / divisor
        } else {
            sum
        }
    };
    (0..total.len()).map(one).collect()
}

// mask

/// Philox4x32-10, one counter at a time, as Salmon et al. (SC 2011) print it.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let wide = |a: u32, b: u32| u64::from(a) * u64::from(b);
    for _ in 0..10 {
        let (a, b) = (wide(0xD251_1F53, counter[0]), wide(0xCD9E_8D57, counter[2]));
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// The stream of one model's random numbers for one tensor.
pub fn stream(seed: u64, name: &str, model: usize) -> [u32; 2] {
    let text = [b"mergecore mask 1".as_slice(), &seed.to_le_bytes(), &(model as u64).to_le_bytes(), name.as_bytes()].concat();
    let hash = blake3::hash(&text);
    [0, 4].map(|at| u32::from_le_bytes(hash.as_bytes()[at..at + 4].try_into().unwrap()))
}

/// Whether element `index` of a task vector is kept.
pub fn keeps(stream: [u32; 2], index: u64, density: f64) -> bool {
    let counter = index / 4;
    let words = philox([counter as u32, (counter >> 32) as u32, 0, 0], stream);
    f64::from(words[(index % 4) as usize] >> 8) < density * 16_777_216.0
}

pub fn mask(seed: u64, name: &str, model: usize, first: u64, count: usize, density: f64) -> Vec<bool> {
    let stream = stream(seed, name, model);
    (first..first + count as u64).map(|index| keeps(stream, index, density)).collect()
}

// thin

/// DARE's drop and rescale of one task vector; `sums` are Σ|δ| and Σ|δ∘m|, where it wants them.
pub fn thin<R: Sample>(delta: &[R], kept: &[bool], density: f64, rescale: Rescale, sums: (f64, f64)) -> Vec<R> {
    if density >= 1.0 {
        return delta.to_vec();
    }
    let dropped = only(delta, kept);
    match rescale {
        Rescale::Inverse if density > 0.0 => divide(&dropped, R::of(density)),
        Rescale::L1 if sums.0 >= 1e-7 && sums.1 >= 1e-7 => scale(&dropped, R::of(sums.0 / sums.1)),
        _ => dropped,
    }
}
