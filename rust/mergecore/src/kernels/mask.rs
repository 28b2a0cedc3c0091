//! Random masks that depend on nothing but what they are for.
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a counter-based generator: word `i` of a
//! stream is a pure function of the stream's key and of `i`. There is no state and no order, so a mask is the same for any number of
//! threads, any tile size, and on any device.
//!
//! key = the first 8 bytes of BLAKE3("mergecore mask 1" ‖ seed ‖ model ‖ name), seed and model as little-endian u64, name in UTF-8;
//! counter = element index / 4, lane = element index mod 4; an element is kept where the word's upper 24 bits < density·2²⁴.

use super::blend;

/// Recorded in every manifest: a mask can be made again only by the generator that made it.
pub const VERSION: &str = "philox4x32-10/blake3/1";

/// One model's stream for one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u32, u32);

impl Key {
    /// `name` is the output tensor's ("" for a bare array); `model` the position in the recipe's list of models, from 0.
    pub fn new(seed: u64, name: &str, model: usize) -> Key {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mergecore mask 1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&(model as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        let bytes = hasher.finalize();
        let word = |at: usize| u32::from_le_bytes(bytes.as_bytes()[at..at + 4].try_into().expect("four bytes"));
        Key(word(0), word(4))
    }
}

/// The largest word that is kept; None if none is. Kept where the upper 24 bits are below density·2²⁴, which is exact in f64: comparing
/// with its ceiling is the same, and so is comparing all 32 bits with the last word below it.
fn last(density: f64) -> Option<u32> {
    let limit = (density * (1u32 << 24) as f64).ceil().clamp(0.0, (1u32 << 24) as f64) as u64;
    (limit << 8).checked_sub(1).map(|last| last as u32)
}

/// Counters that are computed side by side: two vectors of 512 bits, four of 256. (Eight are unrolled before they are vectorised, and
/// take three times as long; thirty-two are a tenth slower with AVX-512, and a fifth faster without.)
const SIDE_BY_SIDE: usize = 16;
/// Words (elements) that one step yields.
const STEP: usize = 4 * SIDE_BY_SIDE;

/// The words for the elements first..first+64, where `first` is a multiple of 4.
///
/// A counter's four numbers of 32 bits lie in the lower halves of 64-bit lanes, because vectors multiply so: they read lower halves and
/// write whole lanes. What is left in the upper halves is never read. (As u32 they are widened and narrowed in every round, and
/// that takes two thirds of the time.)
#[inline(always)]
fn words(key: Key, first: u64) -> [u32; STEP] {
    let counter = first / 4;
    let low = |x: u64| x & 0xFFFF_FFFF;
    let mut c0 = [0u64; SIDE_BY_SIDE];
    let mut c1 = [0u64; SIDE_BY_SIDE];
    let mut c2 = [0u64; SIDE_BY_SIDE];
    let mut c3 = [0u64; SIDE_BY_SIDE];
    for lane in 0..SIDE_BY_SIDE {
        c0[lane] = counter + lane as u64;
        c1[lane] = c0[lane] >> 32;
    }
    let (mut k0, mut k1) = (key.0, key.1);
    for _ in 0..10 {
        for lane in 0..SIDE_BY_SIDE {
            let p0 = 0xD251_1F53 * low(c0[lane]);
            let p1 = 0xCD9E_8D57 * low(c2[lane]);
            c0[lane] = (p1 >> 32) ^ c1[lane] ^ k0 as u64;
            c1[lane] = p1;
            c2[lane] = (p0 >> 32) ^ c3[lane] ^ k1 as u64;
            c3[lane] = p0;
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    // In pairs first: interleaving whole lanes takes fewer shuffles than interleaving halves of them.
    let mut pairs = [0u64; STEP / 2];
    for lane in 0..SIDE_BY_SIDE {
        pairs[2 * lane] = low(c0[lane]) | c1[lane] << 32;
        pairs[2 * lane + 1] = low(c2[lane]) | c3[lane] << 32;
    }
    let mut words = [0u32; STEP];
    for (words, pair) in words.chunks_exact_mut(2).zip(pairs) {
        (words[0], words[1]) = (pair as u32, (pair >> 32) as u32);
    }
    words
}

/// The same, for the odd ends of a row: compiled once, not into every kernel.
#[cold]
fn odd_words(key: Key, first: u64) -> [u32; STEP] {
    words(key, first)
}

/// Calls `act(element, kept?)` for a whole row; `first` is the index of its first element in the tensor.
#[inline(always)]
fn visit<T>(key: Key, first: u64, density: f64, row: &mut [T], act: impl Fn(&mut T, bool)) {
    match last(density) {
        Some(last) => visit_words(key, first, row, |x, word| act(x, word <= last)),
        None => row.iter_mut().for_each(|x| act(x, false)),
    }
}

/// Calls `act(element, its word)` for a whole row.
#[inline(always)]
fn visit_words<T>(key: Key, first: u64, row: &mut [T], act: impl Fn(&mut T, u32)) {
    let ends = |first: u64, row: &mut [T]| {
        let skip = (first % 4) as usize;
        for (x, word) in row.iter_mut().zip(&odd_words(key, first - skip as u64)[skip..]) {
            act(x, *word);
        }
    };
    let mut first = first;
    let (head, row) = row.split_at_mut((first.next_multiple_of(4) - first).min(row.len() as u64) as usize);
    if !head.is_empty() {
        ends(first, head);
        first += head.len() as u64;
    }
    let mut steps = row.chunks_exact_mut(STEP);
    for step in &mut steps {
        let words = words(key, first);
        for i in 0..STEP {
            act(&mut step[i], words[i]);
        }
        first += STEP as u64;
    }
    let tail = steps.into_remainder();
    if !tail.is_empty() {
        ends(first, tail);
    }
}

wide! {
    /// x ← x where kept, 0 elsewhere.
    pub fn apply<R>(key: Key, first: u64, density: f64, x: &mut [R]) {
        visit(key, first, density, x, |x, kept| *x = if kept { *x } else { R::ZERO });
    }
}

wide! {
    /// x ← x·factor where kept, 0·factor elsewhere.
    pub fn apply_and_scale<R>(key: Key, first: u64, density: f64, factor: R, x: &mut [R]) {
        visit(key, first, density, x, |x, kept| *x = if kept { *x } else { R::ZERO } * factor);
    }
}

wide! {
    /// x ← x / divisor where kept, 0 / divisor elsewhere.
    pub fn apply_and_divide<R>(key: Key, first: u64, density: f64, divisor: R, x: &mut [R]) {
        match blend::reciprocal(divisor) {
            Some(factor) => visit(key, first, density, x, |x, kept| *x = if kept { *x } else { R::ZERO } * factor),
            None => visit(key, first, density, x, |x, kept| *x = if kept { *x } else { R::ZERO } / divisor),
        }
    }
}

wide! {
    /// p ← p where an element with the probability p is kept, 0 elsewhere.
    pub fn draw<R>(key: Key, first: u64, chance: &mut [R]) {
        // Exact, also in f32: 24 bits, and a power of two.
        let steps = R::of((1u32 << 24) as f64);
        visit_words(key, first, chance, |p, word| *p = if R::of((word >> 8) as f64) < *p * steps { *p } else { R::ZERO });
    }
}

wide! {
    /// The mask itself.
    pub fn fill(key: Key, first: u64, density: f64, kept: &mut [bool]) {
        visit(key, first, density, kept, |x, kept| *x = kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One counter at a time, as the paper prints it.
    fn philox(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
        for _ in 0..10 {
            let (p0, p1) = (0xD251_1F53u64 * c[0] as u64, 0xCD9E_8D57u64 * c[2] as u64);
            c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
            k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
        }
        c
    }

    #[test]
    fn the_generator_gives_the_published_test_vectors() {
        // Random123's known-answer file, philox4x32 with 10 rounds: all zeros, and all ones.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(words(Key(0, 0), 0)[..4], philox([0; 4], [0; 2]));
    }

    #[test]
    fn a_block_may_start_anywhere() {
        let key = Key::new(42, "model.norm.weight", 1);
        let mut whole = vec![false; 1000];
        fill(key, 0, 0.37, &mut whole);
        for first in [0, 1, 3, 4, 63, 64, 65, 500] {
            for count in [0, 1, 2, 5, 64, 130] {
                let mut part = vec![true; count];
                fill(key, first as u64, 0.37, &mut part);
                assert_eq!(part, whole[first..first + count]);
            }
        }
        let far = (1u64 << 34) + 6;
        let mut one = [false];
        fill(key, far, 0.5, &mut one);
        let c = far / 4;
        assert_eq!(one[0], philox([c as u32, (c >> 32) as u32, 0, 0], [key.0, key.1])[2] >> 8 < 1 << 23);
    }

    #[test]
    fn density_0_keeps_nothing_and_density_1_everything() {
        let key = Key::new(0, "", 0);
        let mut kept = vec![true; 300];
        fill(key, 0, 0.0, &mut kept);
        assert!(!kept.contains(&true));
        fill(key, 0, 1.0, &mut kept);
        assert!(!kept.contains(&false));
    }
}
