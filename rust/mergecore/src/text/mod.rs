//! What does a text repeat, and in which scripts and languages is it written? Measured, not judged: no threshold of the judge stands here.
//!
//! Positions are counted in characters (Unicode scalar values), as Python counts them.

pub mod compression;
pub mod frames;
pub mod function_words;
pub mod languages;
pub mod loops;
pub mod scripts;
pub mod units;

/// `text[start..end]`, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }
}
