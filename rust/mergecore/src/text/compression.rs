//! How much shorter can each window of a text be written?
//!
//! The ratio of the whole text hides a loop behind a good first half; that of a window does not.

use flate2::{Compress, Compression, FlushCompress};

use super::Span;

/// Each window of `size` characters, one every `step`, with its bytes per compressed byte. A shorter text is one window.
pub fn windows(text: &[char], size: usize, step: usize) -> Vec<(Span, f64)> {
    assert!(size > 0 && step > 0, "windows have a size and a step");
    let mut deflate = Compress::new(Compression::new(6), false);
    let last = text.len().saturating_sub(size);
    let starts = (0..last).step_by(step).chain([last]);
    starts
        .map(|start| {
            let end = (start + size).min(text.len());
            (Span { start, end }, ratio(&mut deflate, &text[start..end]))
        })
        .collect()
}

fn ratio(deflate: &mut Compress, window: &[char]) -> f64 {
    let bytes = window.iter().collect::<String>();
    if bytes.is_empty() {
        return 1.0;
    }
    let mut out = Vec::with_capacity(bytes.len() + 64);
    deflate.reset();
    deflate.compress_vec(bytes.as_bytes(), &mut out, FlushCompress::Finish).expect("the state was just reset");
    bytes.len() as f64 / out.len() as f64
}
