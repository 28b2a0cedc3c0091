//! A sound model, and what can be done to its bytes.

#![allow(dead_code)] // each test file uses its part

use std::fs;
use std::path::Path;

use mergecore::dtype::Dtype;
use mergecore::error::Error;
use proptest::prelude::*;
use serde_json::{json, Value as Json};

use crate::model::Model;

/// What the others are fine-tunes of: an embedding, a matrix, a buffer.
pub fn good() -> Model {
    let x: Vec<f64> = (0..12).map(f64::from).collect();
    let model = Model::default().floats("model.embed_tokens.weight", Dtype::F32, &[4, 3], &x).floats("w", Dtype::BF16, &[2, 2], &x[..4]);
    model.raw("steps", Dtype::I64, &[1], &[7, 0, 0, 0, 0, 0, 0, 0])
}

pub fn means(models: &[&str]) -> Json {
    json!({"merge_method": "linear", "models": models})
}

pub fn listing(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        all.push(entry.display().to_string());
        if entry.is_dir() {
            all.extend(listing(&entry));
        }
    }
    all.sort();
    all
}

#[track_caller]
pub fn assert_names(what: &str, error: &Error, words: &[&str]) {
    for word in words {
        assert!(error.message.contains(word), "{what}: \"{error}\" does not say \"{word}\"");
    }
}

pub fn resize(path: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// PROPTEST_CASES asks for more; a failure is printed with its inputs, not kept in a file.
pub fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

#[derive(Debug, Clone)]
pub enum Edit {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
}

pub fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<prop::sample::Index>;
    // Characters that mean something in a header, beside any.
    let byte = || prop_oneof![prop::sample::select(b"0123456789[]{},:\"-eE .".to_vec()), any::<u8>()];
    let one = prop_oneof![
        6 => (at(), byte()).prop_map(|(at, byte)| Edit::Flip(at, byte)),
        3 => (at(), byte()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        3 => at().prop_map(Edit::Remove),
        1 => at().prop_map(Edit::Cut),
        2 => (at(), at()).prop_map(|(a, b)| Edit::Swap(a, b)),
    ];
    prop::collection::vec(one, 1..6)
}

pub fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        if bytes.is_empty() {
            break;
        }
        let count = bytes.len();
        match edit {
            Edit::Flip(at, byte) => bytes[at.index(count)] = *byte,
            Edit::Insert(at, byte) => bytes.insert(at.index(count), *byte),
            Edit::Remove(at) => drop(bytes.remove(at.index(count))),
            Edit::Cut(at) => bytes.truncate(at.index(count)),
            Edit::Swap(a, b) => bytes.swap(a.index(count), b.index(count)),
        }
    }
    bytes
}
