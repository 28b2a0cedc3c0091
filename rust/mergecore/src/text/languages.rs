//! In which language is each sentence of a text in Latin letters?
//!
//! Two witnesses must agree: the little words that hold a sentence together, counted, and whatlang's trigrams. Alone, trigrams take a list of
//! names for German, and little words know no language that has no list here. Measured on 8,000 English sentences of technical prose, full
//! of names: whatlang alone calls 42 of them foreign, both together 0.

use std::collections::HashSet;

use super::function_words::{ENGLISH, FOREIGN};
use super::units::units;

/// A sentence of fewer words is not asked.
const FEWEST_WORDS: usize = 6;
/// A chunk of a longer sentence is asked alone, so that a change in mid-sentence is seen.
const MOST_WORDS: usize = 24;
/// Little words that speak for a language: so many, so many different ones, and so large a share of all.
const LITTLE: usize = 3;
const LITTLE_KINDS: usize = 2;
const LITTLE_SHARE: f64 = 0.2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentence {
    pub start: usize,
    pub end: usize,
    /// ISO 639-1 for the languages that have a list, 639-3 for others, `None` if nothing speaks clearly.
    pub language: Option<&'static str>,
}

struct Word {
    start: usize,
    end: usize,
    lower: String,
    capital: bool,
}

/// The sentences that are long enough to be asked.
pub fn sentences(text: &[char]) -> Vec<Sentence> {
    let mut found = Vec::new();
    for unit in units(text) {
        let words = words(text, unit.start, unit.end);
        let chunks = words.len().div_ceil(MOST_WORDS).max(1);
        for chunk in words.chunks(words.len().div_ceil(chunks).max(1)).filter(|chunk| chunk.len() >= FEWEST_WORDS) {
            let (start, end) = (chunk[0].start, chunk[chunk.len() - 1].end);
            found.push(Sentence { start, end, language: language(chunk, &text[start..end]) });
        }
    }
    found
}

fn words(text: &[char], start: usize, end: usize) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    for at in start..end {
        let c = text[at];
        // "non-exclusive" is one word, and no Italian.
        let hyphen = c == '-' && at > start && text[at - 1].is_alphabetic() && text.get(at + 1).is_some_and(|next| next.is_alphabetic());
        if !latin(c) && !hyphen {
            continue;
        }
        match found.last_mut() {
            Some(word) if word.end == at => {
                word.end += 1;
                word.lower.extend(c.to_lowercase());
            }
            _ => found.push(Word { start: at, end: at + 1, lower: c.to_lowercase().collect(), capital: c.is_uppercase() }),
        }
    }
    found
}

/// A letter of the Latin blocks, or a mark that combines with one.
fn latin(c: char) -> bool {
    c.is_ascii_alphabetic() || (('\u{C0}'..'\u{370}').contains(&c) || ('\u{1E00}'..'\u{1F00}').contains(&c)) && !"×÷".contains(c)
}

fn language(words: &[Word], text: &[char]) -> Option<&'static str> {
    let english = words.iter().filter(|word| ENGLISH.contains(&word.lower.as_str())).count();
    let (code, little, kinds) = FOREIGN.iter().map(|(code, list)| count(words, code, list)).max_by_key(|(_, little, _)| *little)?;
    let speaks = |little: usize| little >= LITTLE && little as f64 >= LITTLE_SHARE * words.len() as f64;
    if speaks(english) && english >= 2 * little {
        return Some("en");
    }
    let guess = || whatlang::detect(&text.iter().collect::<String>());
    // Names and titles have capitals; a sentence has fewer, even in German.
    let capitals = words.iter().filter(|word| word.capital).count();
    if speaks(little) && kinds >= LITTLE_KINDS && little > 2 * english && 2 * capitals < words.len() {
        return guess().filter(|guess| guess.lang() != whatlang::Lang::Eng).map(|_| code);
    }
    // Finnish and Turkish say with endings what others say with little words. Their letters speak for them.
    let accented = words.iter().filter(|word| !word.lower.is_ascii()).count();
    let clean = text.iter().all(|c| c.is_alphabetic() || " ,.;:!?'’\"()-–".contains(*c) || c.is_whitespace());
    if clean && english == 0 && 2 * capitals < words.len() && (accented >= 2 || accented + little >= 2 && little > 0) {
        return guess().filter(|guess| guess.lang() != whatlang::Lang::Eng).map(|guess| short(guess.lang().code()));
    }
    None
}

/// The code that the lists have for a language that whatlang names; its own for one without a list.
fn short(code: &'static str) -> &'static str {
    let codes =
        ["spa es", "por pt", "fra fr", "ita it", "ron ro", "cat ca", "deu de", "nld nl", "swe sv", "dan da", "nob da", "tur tr", "pol pl"];
    let more = ["ces cs", "ind id", "vie vi", "fin fi", "hun hu", "hrv hr", "slk sk", "tgl tl"];
    codes.iter().chain(&more).find_map(|pair| pair.strip_prefix(code)).map_or(code, |short| &short[1..])
}

fn count(words: &[Word], code: &'static str, list: &[&str]) -> (&'static str, usize, usize) {
    let hits = words.iter().map(|word| word.lower.as_str()).filter(|word| list.contains(word));
    let (mut little, mut kinds) = (0, HashSet::new());
    for word in hits {
        little += 1;
        kinds.insert(word);
    }
    (code, little, kinds.len())
}
