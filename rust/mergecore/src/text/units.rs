//! What is one line or sentence?

use super::Span;

/// Marks that end a sentence when whitespace follows them, and those that do so whatever follows (scripts without spaces).
const STOPS: [char; 5] = ['.', '!', '?', '…', ';'];
const WIDE_STOPS: [char; 4] = ['。', '！', '？', '；'];
const CLOSING: [char; 6] = ['"', '”', '\'', '’', ')', '*'];

/// Lines, and the sentences in them, without the whitespace around them; none is empty. A number and its full stop belong to what they number.
pub fn units(text: &[char]) -> Vec<Span> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut letters = false;
    for at in 0..text.len() {
        letters |= text[at].is_alphabetic();
        if ends(text, at, letters) {
            found.extend(trimmed(text, start, at + 1));
            start = at + 1;
            letters = false;
        }
    }
    found.extend(trimmed(text, start, text.len()));
    found
}

fn ends(text: &[char], at: usize, letters: bool) -> bool {
    if text[at] == '\n' || WIDE_STOPS.contains(&text[at]) {
        return true;
    }
    let space = text.get(at + 1).is_none_or(|next| next.is_whitespace());
    let stop = || match text[at] {
        mark if STOPS.contains(&mark) => true,
        mark if CLOSING.contains(&mark) => at > 0 && STOPS.contains(&text[at - 1]),
        _ => false,
    };
    space && letters && stop()
}

fn trimmed(text: &[char], mut start: usize, mut end: usize) -> Option<Span> {
    while start < end && text[start].is_whitespace() {
        start += 1;
    }
    while end > start && text[end - 1].is_whitespace() {
        end -= 1;
    }
    (start < end).then_some(Span { start, end })
}
