//! Where does a text say again, letter for letter, what it has said before?
//!
//! A repeat is x[i] == x[i - period] over a stretch. The last place of every run of `GRAM` characters is remembered; where one comes
//! again, the repeat is followed to both sides. One pass, any period: comparing x[i] with x[i + p] for each p, which was tried first, costs
//! the longest period times the text and so cannot see a whole answer that is given twice.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Characters that must be equal before a repeat is looked at.
pub const GRAM: usize = 8;

/// `text[start + period..end]` equals `text[start..end - period]`, and neither side can be longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    pub start: usize,
    pub end: usize,
    pub period: usize,
}

impl Repeat {
    /// How many times the period is there, the first and a last piece counted.
    pub fn copies(&self) -> f64 {
        (self.end - self.start) as f64 / self.period as f64
    }

    /// Does the second copy begin where the first ends?
    pub fn is_loop(&self) -> bool {
        self.end - self.start >= 2 * self.period
    }
}

/// The repeats in which at least `shortest` characters come again, in the order of where they come again.
pub fn repeats(text: &[char], shortest: usize) -> Vec<Repeat> {
    let shortest = shortest.max(GRAM);
    let mut last: HashMap<u64, u32, BuildHasherDefault<Mixed>> = HashMap::default();
    let mut found: Vec<Repeat> = Vec::new();
    // How far each period was followed: a stretch is followed once, or a text that is said twice would cost its square.
    let mut followed: HashMap<usize, usize> = HashMap::new();
    let mut skip = 0;
    for (at, gram) in text.windows(GRAM).enumerate() {
        let Some(before) = last.insert(hash(gram), at as u32) else { continue };
        let before = before as usize;
        let period = at - before;
        if at < skip || followed.get(&period).is_some_and(|end| at < *end) || text[before..before + GRAM] != *gram {
            continue;
        }
        let repeat = follow(text, at, period);
        followed.insert(period, repeat.end);
        if repeat.end - repeat.start - period >= shortest {
            skip = if repeat.is_loop() { repeat.end.saturating_sub(GRAM) } else { skip };
            found.push(repeat);
        }
    }
    found
}

/// The whole repeat of which `text[at]` is a part of the later copy.
fn follow(text: &[char], at: usize, period: usize) -> Repeat {
    let end = (at..text.len()).find(|&i| text[i] != text[i - period]).unwrap_or(text.len());
    let first = (period..at).rev().take_while(|&i| text[i] == text[i - period]).last().unwrap_or(at);
    Repeat { start: first - period, end, period }
}

fn hash(gram: &[char]) -> u64 {
    gram.iter().fold(0, |hash: u64, &c| (hash.rotate_left(21) ^ c as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The keys are hashes already.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key ^ (key >> 29);
    }
}
