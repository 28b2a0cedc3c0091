//! BLAKE3 of a tensor whose bytes pass by in any order.
//!
//! BLAKE3 is a tree: pieces of 16 KiB are hashed as they come, from any thread, and joined at the end. The result is the plain BLAKE3 of the
//! tensor's bytes, which any tool can check, and nothing is read twice for it.

use std::collections::HashMap;
use std::sync::Mutex;

use blake3::hazmat::{left_subtree_len, merge_subtrees_non_root, merge_subtrees_root, ChainingValue, HasherExt, Mode};

const PIECE: usize = 16 << 10;

/// Collects the pieces of one tensor.
pub struct Digest {
    length: u64,
    state: Mutex<State>,
}

struct State {
    /// One a piece; a tensor of a single piece keeps its bytes instead, since the root is hashed differently.
    values: Vec<Option<ChainingValue>>,
    /// Pieces of which some bytes are still to come.
    partial: HashMap<usize, Partial>,
    small: Vec<u8>,
}

struct Partial {
    bytes: Vec<u8>,
    missing: usize,
}

impl Digest {
    pub fn new(length: u64) -> Digest {
        let pieces = (length as usize).div_ceil(PIECE);
        let small = if pieces <= 1 { vec![0; length as usize] } else { Vec::new() };
        Digest { length, state: Mutex::new(State { values: vec![None; pieces], partial: HashMap::new(), small }) }
    }

    /// Adds the bytes at `offset`; every byte of the tensor is added once.
    pub fn add(&self, offset: u64, bytes: &[u8]) {
        if self.length as usize <= PIECE {
            let mut state = self.state.lock().expect("no holder panics");
            state.small[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
            return;
        }
        let (mut done, mut whole) = (0, Vec::new());
        while done < bytes.len() {
            let at = offset as usize + done;
            let piece = at / PIECE;
            let start = piece * PIECE;
            let end = (start + PIECE).min(self.length as usize);
            let count = (end - at).min(bytes.len() - done);
            let part = &bytes[done..done + count];
            if count == end - start {
                whole.push((piece, value(start, part)));
            } else if let Some(piece_bytes) = self.complete(piece, at - start, end - start, part) {
                whole.push((piece, value(start, &piece_bytes)));
            }
            done += count;
        }
        let mut state = self.state.lock().expect("no holder panics");
        for (piece, value) in whole {
            state.values[piece] = Some(value);
        }
    }

    /// Adds part of a piece; the piece's bytes once none is missing.
    fn complete(&self, piece: usize, at: usize, size: usize, part: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state.lock().expect("no holder panics");
        let partial = state.partial.entry(piece).or_insert_with(|| Partial { bytes: vec![0; size], missing: size });
        partial.bytes[at..at + part.len()].copy_from_slice(part);
        partial.missing -= part.len();
        if partial.missing > 0 {
            return None;
        }
        state.partial.remove(&piece).map(|partial| partial.bytes)
    }

    /// The digest in hexadecimal. All bytes must have been added.
    pub fn finish(&self) -> String {
        let state = self.state.lock().expect("no holder panics");
        if self.length as usize <= PIECE {
            return blake3::hash(&state.small).to_hex().to_string();
        }
        let values: Vec<ChainingValue> = state.values.iter().map(|v| v.expect("every piece was added")).collect();
        let left = left_subtree_len(self.length) as usize / PIECE;
        let (left, right) = values.split_at(left);
        merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).to_hex().to_string()
    }
}

fn value(start: usize, bytes: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(start as u64);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Joins pieces by BLAKE3's rule: the left half is the largest power of two that leaves something to the right.
fn subtree(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [one] => *one,
        _ => {
            let left = values.len().next_power_of_two() / 2;
            let (left, right) = values.split_at(left);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_give_the_plain_hash() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5, 5 * PIECE, 8 * PIECE + 1, 100_003] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            for tile in [7_001, PIECE, 3 * PIECE, 1 << 20] {
                let digest = Digest::new(length as u64);
                let mut starts: Vec<usize> = (0..length).step_by(tile).collect();
                starts.reverse();
                starts.into_iter().for_each(|s| digest.add(s as u64, &bytes[s..(s + tile).min(length)]));
                assert_eq!(digest.finish(), blake3::hash(&bytes).to_hex().as_str(), "{length} {tile}");
            }
        }
    }
}
