//! Does a merge go where nothing is lost, and does `verify` see what was done to it afterwards?

mod damage;
mod model;
mod naive;
mod rows;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use damage::{assert_names, config, edited, edits, good, listing, means, resize};
use mergecore::error::Kind;
use mergecore::run::disk::{self, Order};
use mergecore::run::Watch;
use mergecore::verify::verify;
use mergecore::write::SideFile;
use model::{framed, laid_out, plan, to_disk, Run, RUN};
use proptest::prelude::*;
use serde_json::Value as Json;

#[test]
fn a_side_file_that_vanishes_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    good().save(&dir.path().join("a"));
    let (plan, out) = (plan(dir.path(), &means(&["a"])).unwrap(), dir.path().join("out"));
    let (layout, limits) = laid_out(&plan, RUN).unwrap();
    let merge = || {
        let side = vec![("tokenizer.json".to_string(), SideFile::CopyOf(dir.path().join("a/tokenizer.json")))];
        disk::merge(
            Order { title: String::new(), plan: &plan, layout: &layout, out: out.clone(), side_files: side },
            limits,
            false,
            None,
            &Watch::default(),
        )
        .map(drop)
    };
    let error = merge().unwrap_err();
    assert_names("a side file", &error, &["a/tokenizer.json"]);
    assert!(!out.exists());
    fs::write(dir.path().join("a/tokenizer.json"), "{}").unwrap();
    merge().unwrap();
    assert_eq!(fs::read(out.join("tokenizer.json")).unwrap(), b"{}");
}

#[test]
fn an_output_that_would_hide_or_destroy_something_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    good().save(&path.join("a"));
    good().save(&path.join("nest/b"));
    fs::create_dir(path.join("letters")).unwrap();
    fs::write(path.join("letters/mother.txt"), "dear").unwrap();
    fs::write(path.join("file"), "x").unwrap();
    fs::create_dir(path.join("mine.partial")).unwrap();
    fs::write(path.join("mine.partial/thesis.txt"), "x").unwrap();
    std::os::unix::fs::symlink(path.join("a"), path.join("link")).unwrap();
    let before = listing(path);
    let recipe = means(&["a", "nest/b"]);
    for (out, overwrite, words) in [
        ("a", false, ["a", "input"]),
        ("a", true, ["a", "input"]),
        ("a/", true, ["a", "input"]),
        ("letters/../a", true, ["a", "input"]),
        ("link", true, ["link", "input"]),
        ("nest", true, ["nest", "input"]),
        ("letters", false, ["letters", "--overwrite"]),
        ("letters", true, ["letters", "delete it yourself"]),
        ("file", false, ["file", "--overwrite"]),
        ("file", true, ["file", "not a folder"]),
        ("file/out", false, ["file", ""]),
        ("mine", false, ["mine.partial", "journal"]),
        ("mine", true, ["mine.partial", "journal"]),
    ] {
        let error = to_disk(path, &recipe, &path.join(out), Run { overwrite, ..RUN }).expect_err(out);
        assert!(matches!(error.kind, Kind::Exists | Kind::Recipe), "{out}: {:?} {error}", error.kind);
        assert_names(out, &error, &words);
        assert_eq!(listing(path), before, "{out} (overwrite: {overwrite})");
    }
    for out in ["", "/", ".."] {
        let error = to_disk(path, &recipe, Path::new(out), RUN).expect_err(out);
        assert!(matches!(error.kind, Kind::Recipe | Kind::Exists), "{out:?}: {error}");
        assert_eq!(listing(path), before, "{out:?}");
    }
    // A single file's folder is the input, too.
    let error = to_disk(path, &means(&["a/model.safetensors"]), &path.join("a"), Run { overwrite: true, ..RUN }).unwrap_err();
    assert_names("the folder of a file", &error, &["a", "input"]);
    // An empty folder is nobody's work; new parents are made.
    fs::create_dir(path.join("empty")).unwrap();
    to_disk(path, &recipe, &path.join("empty"), Run { overwrite: true, ..RUN }).unwrap();
    to_disk(path, &recipe, &path.join("new/deep/out"), RUN).unwrap();
}

#[test]
fn a_disk_that_is_too_small_is_told_before_the_start() {
    // A model of 8 TiB that takes no room itself: its file is a hole.
    const BYTES: u64 = 8 << 40;
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let header = serde_json::json!({"w": {"dtype": "F32", "shape": [BYTES / 4], "data_offsets": [0, BYTES]}}).to_string();
    let path = dir.path().join("a/model.safetensors");
    fs::write(&path, framed(header.as_bytes(), &[])).unwrap();
    resize(&path, 8 + header.len() as u64 + BYTES);
    let before = listing(dir.path());
    let error = to_disk(dir.path(), &means(&["a"]), &dir.path().join("new/out"), RUN).unwrap_err();
    assert_eq!(error.kind, Kind::Space, "{error}");
    assert_names("a full disk", &error, &["new", "not enough space", "8796.10 GB", "are free"]);
    assert_eq!(listing(dir.path()), before);
}

#[test]
fn verify_stops_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    good().save(&dir.path().join("a"));
    to_disk(dir.path(), &means(&["a"]), &dir.path().join("out"), RUN).unwrap();
    let watch = Watch::default();
    watch.cancelled.store(true, Ordering::SeqCst);
    assert_eq!(verify(&dir.path().join("out"), 2, &watch).err().expect("is cancelled").kind, Kind::Interrupted);
}

#[test]
fn verify_names_what_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    good().save(&dir.path().join("a"));
    let make = |name: &str| {
        let out = dir.path().join(name);
        let plan = plan(dir.path(), &means(&["a"])).unwrap();
        let (layout, limits) = laid_out(&plan, Run { shard: 1, ..RUN }).unwrap();
        let side = vec![("tokenizer.json".to_string(), SideFile::Content(b"{}".to_vec()))];
        disk::merge(
            Order { title: String::new(), plan: &plan, layout: &layout, out: out.clone(), side_files: side },
            limits,
            false,
            None,
            &Watch::default(),
        )
        .unwrap();
        out
    };
    let shard = |tensor: &str, out: &Path| {
        let index: Json = serde_json::from_slice(&fs::read(out.join("model.safetensors.index.json")).unwrap()).unwrap();
        index["weight_map"][tensor].as_str().unwrap().to_string()
    };
    let flip = |path: &Path, at: &dyn Fn(usize) -> usize| {
        let mut bytes = fs::read(path).unwrap();
        let at = at(bytes.len());
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let name = shard("w", &make("sound"));
    assert_eq!(verify(&dir.path().join("sound"), 2, &Watch::default()).unwrap().problems, Vec::<String>::new());
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Damage, Vec<&str>); 7] = [
        ("a-bit", &|out| flip(&out.join(&name), &|length| length - 1), vec!["tensor w"]),
        ("a-header", &|out| flip(&out.join(&name), &|_| 20), vec![&name, "header"]),
        ("a-length", &|out| flip(&out.join(&name), &|_| 7), vec![&name, "header"]),
        ("a-tail", &|out| resize(&out.join(&name), 100), vec![&name, "100 bytes"]),
        ("a-shard", &|out| fs::remove_file(out.join(&name)).unwrap(), vec![&name, "missing"]),
        ("a-side-file", &|out| flip(&out.join("tokenizer.json"), &|_| 0), vec!["tokenizer.json", "changed"]),
        ("no-side-file", &|out| fs::remove_file(out.join("tokenizer.json")).unwrap(), vec!["tokenizer.json", "missing"]),
    ];
    for (what, damage, words) in cases {
        let out = make(what);
        damage(&out);
        let problems = verify(&out, 2, &Watch::default()).unwrap().problems;
        assert_eq!(problems.len(), 1, "{what}: {problems:?}");
        words.iter().for_each(|word| assert!(problems[0].contains(word), "{what}: {problems:?} does not say {word}"));
    }
    for (what, text) in [("no-json", "{"), ("no-lists", "{}"), ("no-object", "[]")] {
        let out = make(what);
        fs::write(out.join("mergecore.json"), text).unwrap();
        let error = verify(&out, 1, &Watch::default()).err().expect(what);
        assert_names(what, &error, &["mergecore.json"]);
    }
    let none = verify(&dir.path().join("a"), 1, &Watch::default()).err().expect("no manifest");
    assert_eq!(none.kind, Kind::NotFound);
}

#[test]
fn no_damage_to_an_output_is_a_crash() {
    // Made once: it is the syncing to the disk that takes time.
    let dir = tempfile::tempdir().unwrap();
    good().save(&dir.path().join("a"));
    let out = dir.path().join("out");
    to_disk(dir.path(), &means(&["a"]), &out, Run { shard: 60, ..RUN }).unwrap();
    let names = ["mergecore.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"];
    proptest!(config(), |(edits in edits(), which in 0..3usize)| {
        let path = out.join(names[which]);
        let before = fs::read(&path).unwrap();
        let after = edited(before.clone(), &edits);
        fs::write(&path, &after).unwrap();
        let verdict = verify(&out, 2, &Watch::default());
        fs::write(&path, &before).unwrap();
        match verdict {
            Ok(verdict) => prop_assert!(which == 0 || before == after || !verdict.problems.is_empty(), "the damage is not seen"),
            Err(e) => prop_assert!(!e.message.contains('\n'), "{}", e),
        }
    });
}
