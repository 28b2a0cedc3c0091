//! Does every room use only those before it? Read off the source, so that an arrow that points back fails a test and not a reader.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, in order. A room is a file of src or a folder; a file of a folder may be listed as a room of its own.
const ORDER: [&str; 21] = [
    "error",
    "wide",
    "dtype",
    "kernels",
    "names",
    "params",
    "matrices",
    "methods",
    "modifiers",
    "recipe",
    "checkpoint",
    "plan",
    "layout",
    "write",
    "report",
    "run",
    "run/disk",
    "run/memory",
    "run/stream",
    "verify",
    "text",
];

/// Lines of a file without its tests.
const LONGEST: usize = 500;
const MEDIAN: usize = 150;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files under `folder`, by their paths in it without `.rs`.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, text)| (format!("{name}/{inner}"), text)));
        } else {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The file's own code: no comments, and none of its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap().to_string() + "\n").collect()
}

fn room(file: &str) -> Option<usize> {
    let folder = file.split('/').next().unwrap();
    ORDER.iter().position(|room| *room == file).or_else(|| ORDER.iter().position(|room| *room == folder))
}

/// What follows each `crate::` (not a macro's `$crate::`): `use` lines and paths in the code alike, as `room` or `room/file`.
fn used(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with('$')) {
        let path = &code[at + "crate::".len()..];
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        assert!(!path.starts_with('{'), "one `use crate::room` a line, so that this test can read them");
        let first = word(path);
        let second = path[first.len()..].strip_prefix("::").map(word).unwrap_or_default();
        let inner = format!("{first}/{second}");
        found.insert(if ORDER.contains(&inner.as_str()) { inner } else { first });
    }
    found
}

#[test]
fn no_room_uses_one_behind_it() {
    let mut arrows = 0;
    for (file, text) in files(&source()).into_iter().filter(|(file, _)| file != "lib") {
        let own = room(&file).unwrap_or_else(|| panic!("src/{file}.rs has no place in tests/layers.rs: where does it stand?"));
        for other in used(&code(&text)) {
            let place = room(&other).unwrap_or_else(|| panic!("src/{file}.rs uses crate::{other}, which is no room"));
            assert!(place <= own, "src/{file}.rs uses crate::{other}, which stands behind it: {}", ORDER.join(" < "));
            arrows += usize::from(place < own);
        }
    }
    assert!(arrows > 50, "only {arrows} arrows are seen: does this test still read the source?");
}

#[test]
fn the_reader_of_arrows_sees_what_it_should() {
    let text = [
        "use crate::error::Result; // crate::plan",
        "fn x(y: &crate::layout::Layout) {}",
        "$crate::wide::f();",
        "use crate::run::disk;",
        "#[cfg(test)]",
        "use crate::verify;",
    ];
    let want: BTreeSet<String> = ["error", "layout", "run/disk"].map(String::from).into();
    assert_eq!(used(&code(&text.join("\n"))), want);
    assert!(room("run/disk") > room("run/mod") && room("kernels/blend") == room("kernels") && room("nowhere").is_none());
}

#[test]
fn every_room_of_the_order_is_there() {
    let files = files(&source());
    for room in ORDER {
        let there = files.iter().any(|(file, _)| file == room || file.starts_with(&format!("{room}/")));
        assert!(there, "src has no {room}");
    }
}

#[test]
fn files_are_short() {
    let sizes: Vec<(usize, String)> = files(&source()).into_iter().map(|(file, text)| (code(&text).lines().count(), file)).collect();
    for (lines, file) in &sizes {
        assert!(*lines <= LONGEST, "src/{file}.rs has {lines} lines without its tests, {LONGEST} are enough");
    }
    let mut lines: Vec<usize> = sizes.into_iter().map(|(lines, _)| lines).collect();
    lines.sort_unstable();
    assert!(lines[lines.len() / 2] <= MEDIAN, "half of the files have more than {MEDIAN} lines");
}

#[test]
fn names_say_what_is_inside() {
    for (file, _) in files(&source()) {
        for word in file.split(['/', '_']) {
            assert!(!["util", "utils", "common", "helper", "helpers", "base", "manager", "misc"].contains(&word), "src/{file}.rs");
        }
    }
}
