//! Where do lines or sentences follow one another that differ only in a number or a word?
//!
//! "Step 37: Repeat step 36." is no exact repeat. Its words are: a unit is likened to the few before it by the words they share, numbers
//! left out. Ordinary lists have one frame a line too ("If your data are ..., choose ..."); what tells them from a loop is that each of
//! their lines says something new, so the words that were never said before are counted.

use std::collections::{HashMap, HashSet};

use super::units::units;

/// How many units back one looks for the same frame: a dialogue or a cycle of list items returns after a few.
const BACK: usize = 8;
/// Shared words, as a share of both units' words, from which two units have one frame.
const ALIKE: f64 = 0.6;
/// Units of fewer words have no frame: they neither make a run nor end one.
const FEWEST: usize = 3;

/// Units in a row, each in the frame of one shortly before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub start: usize,
    pub end: usize,
    /// Units that have a frame, the first `BACK` of them too.
    pub units: usize,
    /// Words of those units, but for the first `BACK`, in which the frame and its fillings are said for the first time.
    pub words: usize,
    /// Those of the words that the text had not said before.
    pub new: usize,
}

pub fn runs(text: &[char]) -> Vec<Run> {
    let mut said = HashMap::new();
    let mut ever = HashSet::new();
    let mut before: Vec<Vec<u32>> = Vec::new();
    let mut found: Vec<Run> = Vec::new();
    let mut open: Option<Run> = None;
    for unit in units(text) {
        let words = words(&text[unit.start..unit.end], &mut said);
        if words.len() < FEWEST {
            continue;
        }
        let new = words.iter().filter(|word| ever.insert(**word)).count();
        let sorted = sort(words);
        let recent = before.iter().rev().take(BACK);
        if recent.into_iter().any(|other| alike(other, &sorted)) {
            let run = open.get_or_insert(Run { start: unit.start, end: unit.end, units: 0, words: 0, new: 0 });
            run.end = unit.end;
            run.units += 1;
            if run.units > BACK {
                run.words += sorted.len();
                run.new += new;
            }
        } else {
            found.extend(open.take());
        }
        before.push(sorted);
    }
    found.extend(open);
    found
}

/// The unit's words by number, in lower case; of a script without spaces each letter is a word.
fn words(unit: &[char], said: &mut HashMap<String, u32>) -> Vec<u32> {
    let mut found = Vec::new();
    let mut word = String::new();
    for &c in unit.iter().chain([&' ']) {
        let whole = ('\u{2E80}'..'\u{A000}').contains(&c) || ('\u{AC00}'..'\u{D7B0}').contains(&c);
        if c.is_alphabetic() && !whole {
            word.extend(c.to_lowercase());
            continue;
        }
        for word in [std::mem::take(&mut word), if whole { c.to_string() } else { String::new() }] {
            if !word.is_empty() {
                let next = said.len() as u32;
                found.push(*said.entry(word).or_insert(next));
            }
        }
    }
    found
}

fn sort(mut words: Vec<u32>) -> Vec<u32> {
    words.sort_unstable();
    words
}

/// Do the two sorted lists share enough?
fn alike(a: &[u32], b: &[u32]) -> bool {
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, shared) = (i + 1, j + 1, shared + 1),
        }
    }
    2.0 * shared as f64 >= ALIKE * (a.len() + b.len()) as f64
}
