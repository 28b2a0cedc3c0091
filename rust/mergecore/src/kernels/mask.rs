//! Random masks that depend on nothing but what they are for.
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a counter-based generator: word `i` of a
//! stream is a pure function of the stream's key and of `i`. There is no state and no order, so a mask is the same for any number of
//! threads, any tile size, and on any device.
//!
//! key = the first 8 bytes of BLAKE3("mergecore mask 1" ‖ seed ‖ model ‖ name), seed and model as little-endian u64, name in UTF-8;
//! counter = element index / 4, lane = element index mod 4; an element is kept where the word's upper 24 bits < density·2²⁴.

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

/// Kept where a word's upper 24 bits are below this. (density·2²⁴ is exact in f64; comparing with its ceiling is the same.)
fn limit(density: f64) -> u32 {
    (density * (1u32 << 24) as f64).ceil().clamp(0.0, (1u32 << 24) as f64) as u32
}

/// Counters that are computed side by side, one a vector lane.
const SIDE_BY_SIDE: usize = 16;
/// Words (elements) that one step yields.
const STEP: usize = 4 * SIDE_BY_SIDE;

/// The words for the elements first..first+64, where `first` is a multiple of 4.
#[inline(always)]
fn words(key: Key, first: u64) -> [u32; STEP] {
    let counter = first / 4;
    let mut c0 = [0u32; SIDE_BY_SIDE];
    let mut c1 = [0u32; SIDE_BY_SIDE];
    let mut c2 = [0u32; SIDE_BY_SIDE];
    let mut c3 = [0u32; SIDE_BY_SIDE];
    for lane in 0..SIDE_BY_SIDE {
        let n = counter + lane as u64;
        c0[lane] = n as u32;
        c1[lane] = (n >> 32) as u32;
    }
    let (mut k0, mut k1) = (key.0, key.1);
    for _ in 0..10 {
        for lane in 0..SIDE_BY_SIDE {
            let p0 = 0xD251_1F53u64 * c0[lane] as u64;
            let p1 = 0xCD9E_8D57u64 * c2[lane] as u64;
            c0[lane] = (p1 >> 32) as u32 ^ c1[lane] ^ k0;
            c1[lane] = p1 as u32;
            c2[lane] = (p0 >> 32) as u32 ^ c3[lane] ^ k1;
            c3[lane] = p0 as u32;
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    let mut words = [0u32; STEP];
    for lane in 0..SIDE_BY_SIDE {
        words[4 * lane] = c0[lane];
        words[4 * lane + 1] = c1[lane];
        words[4 * lane + 2] = c2[lane];
        words[4 * lane + 3] = c3[lane];
    }
    words
}

/// Calls `act(offset into the block, kept?)` in order; `first` is the index of the block's first element in its tensor.
#[inline(always)]
fn visit(key: Key, first: u64, count: usize, density: f64, mut act: impl FnMut(usize, bool)) {
    let limit = limit(density);
    let skip = (first % 4) as usize;
    let mut done = 0;
    while done < count {
        let words = words(key, first - skip as u64 + (done + if done > 0 { skip } else { 0 }) as u64);
        let from = if done == 0 { skip } else { 0 };
        let take = (STEP - from).min(count - done);
        for (i, word) in words[from..from + take].iter().enumerate() {
            act(done + i, word >> 8 < limit);
        }
        done += take;
    }
}

wide! {
    /// x ← x where kept, 0 elsewhere.
    pub fn apply<R>(key: Key, first: u64, density: f64, x: &mut [R]) {
        let count = x.len();
        visit(key, first, count, density, |i, kept| {
            let value = x[i];
            x[i] = if kept { value } else { R::ZERO };
        });
    }
}

wide! {
    /// The mask itself.
    pub fn fill(key: Key, first: u64, density: f64, kept: &mut [bool]) {
        let count = kept.len();
        visit(key, first, count, density, |i, keep| kept[i] = keep);
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
