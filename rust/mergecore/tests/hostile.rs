//! Bad input: every one is an error of one line that names the file and the tensor, before the first byte is written; never a crash.

mod damage;
mod model;
mod naive;
mod rows;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use damage::{assert_names, config, edited, edits, good, listing, means, resize};
use mergecore::checkpoint::{Bytes, Checkpoint};
use mergecore::dtype::Dtype;
use mergecore::error::{Error, Kind, Result};
use mergecore::plan::{Plan, Work};
use mergecore::run::Watch;
use model::{finish, framed, image, into_memory, plan, save_index, to_disk, Model, Run, RUN};
use proptest::prelude::*;
use serde_json::{json, Value as Json};

/// The error of merging the good model with what `damage` makes of a copy; nothing may have been written.
fn refusal(what: &str, damage: &dyn Fn(&Path)) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    good().save(&path.join("good"));
    good().save(&path.join("bad"));
    damage(&path.join("bad"));
    let before = listing(path);
    let error = to_disk(path, &means(&["good", "bad"]), &path.join("out"), RUN).err().unwrap_or_else(|| panic!("{what} is merged"));
    assert_eq!(listing(path), before, "{what}: something was written");
    assert!(!error.message.contains('\n'), "{what}: {error}");
    assert!(matches!(error.kind, Kind::Model | Kind::NotFound), "{what}: {:?}", error.kind);
    error
}

/// Each case: what it is, the model file's bytes, and what the message must say beside the file's name.
fn check_files(cases: Vec<(&str, Vec<u8>, &[&str])>) {
    for (what, bytes, words) in cases {
        let error = refusal(what, &|bad| fs::write(bad.join("model.safetensors"), &bytes).unwrap());
        assert_names(what, &error, &["bad/model.safetensors"]);
        assert_names(what, &error, words);
    }
}

#[test]
fn a_file_that_is_no_safetensors_file_is_refused() {
    let whole = image(&good().parts);
    let claim = |size: u64| [&size.to_le_bytes(), &whole[8..]].concat();
    check_files(vec![
        ("an empty file", vec![], &["0 bytes"]),
        ("seven bytes", whole[..7].to_vec(), &["7 bytes"]),
        ("a length and nothing else", whole[..8].to_vec(), &["truncated"]),
        ("half a header", whole[..100].to_vec(), &["truncated"]),
        ("a header longer than the file", claim(whole.len() as u64), &["truncated"]),
        ("a header longer than anything", claim(u64::MAX), &["truncated"]),
        ("a header of half of all bytes there are", claim(1 << 63), &["truncated"]),
        ("a text", b"hello, this is not a model at all".to_vec(), &["safetensors"]),
        ("a header that is not JSON", framed(b"{\"w\": nonsense}", &[]), &["not valid JSON"]),
        ("a header cut in the middle", framed(b"{\"w\": {\"dtype\": \"F32\"", &[]), &["not valid JSON"]),
        ("a header of another shape", framed(b"[1, 2]", &[]), &["not valid JSON"]),
        ("two headers", framed(b"{} {}", &[]), &["not valid JSON"]),
        ("a header that is not UTF-8", framed(b"{\"\xff\xfe\": 1}", &[]), &["not UTF-8"]),
        ("a header that nests forever", framed("[".repeat(100_000).as_bytes(), &[]), &["not valid JSON"]),
        ("an entry that nests forever", framed(format!("{{\"w\": {}", "[".repeat(100_000)).as_bytes(), &[]), &["not valid JSON"]),
        ("no header at all", framed(b"", &[]), &["not valid JSON"]),
    ]);
    let error = refusal("no tensors", &|bad| fs::write(bad.join("model.safetensors"), framed(b"{}", &[])).unwrap());
    assert_names("no tensors", &error, &["bad", "no tensors"]);
}

#[test]
fn bytes_that_do_not_fit_the_header_are_refused() {
    let whole = image(&good().parts);
    let cut = |by: usize| whole[..whole.len() - by].to_vec();
    let header = |text: &str, bytes: usize| framed(text.as_bytes(), &vec![0; bytes]);
    let one = |name: &str, dtype: &str, shape: &str, from: u64, to: u64| {
        format!("\"{name}\": {{\"dtype\": \"{dtype}\", \"shape\": {shape}, \"data_offsets\": [{from}, {to}]}}")
    };
    let two = |a: (u64, u64), b: (u64, u64), bytes: usize| {
        header(&format!("{{{}, {}}}", one("a", "F32", "[2]", a.0, a.1), one("b", "F32", "[2]", b.0, b.1)), bytes)
    };
    let alone = |entry: &str, bytes: usize| header(&format!("{{\"w\": {entry}}}"), bytes);
    let huge = u64::MAX;
    check_files(vec![
        ("one byte too few", cut(1), &["truncated", "steps"]),
        ("a tensor too few", cut(8 + 3), &["truncated", "tensor w"]),
        ("all tensors too few", cut(whole.len() - 8 - u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize), &["embed_tokens"]),
        ("trailing bytes", [whole.clone(), vec![0; 5]].concat(), &["5 bytes", "steps"]),
        ("tensors that overlap", two((0, 8), (4, 12), 12), &["tensor b", "overlaps a"]),
        ("one tensor in another", two((0, 8), (0, 8), 8), &["overlaps"]),
        ("a gap", two((0, 8), (12, 20), 20), &["4 bytes", "a", "tensor b"]),
        ("a gap at the start", two((4, 12), (12, 20), 20), &["4 bytes", "tensor a"]),
        ("offsets that overflow", two((0, 8), (huge - 7, huge), 16), &["tensor b"]),
        ("offsets that wrap around", two((0, 8), (huge - 7, 0), 16), &["tensor b"]),
        ("a shape that overflows", header(&format!("{{{}}}", one("w", "F32", "[4294967296, 4294967296, 4]", 0, 64)), 64), &["tensor w"]),
        (
            "a shape that overflows to nothing",
            header(&format!("{{{}}}", one("w", "F32", "[9223372036854775808, 2]", 0, 0)), 0),
            &["tensor w"],
        ),
        ("a size that overflows to nothing", header(&format!("{{{}}}", one("w", "F64", "[2305843009213693952]", 0, 0)), 0), &["tensor w"]),
        (
            "a size that overflows before it is nothing",
            header(&format!("{{{}}}", one("w", "U8", "[4294967296, 4294967296, 0]", 0, 0)), 0),
            &["tensor w"],
        ),
        ("a shape larger than the data", header(&format!("{{{}}}", one("w", "F32", "[3]", 0, 8)), 8), &["tensor w", "[3]"]),
        ("offsets in the wrong order", header(&format!("{{{}}}", one("w", "F32", "[2]", 8, 0)), 8), &["tensor w"]),
        (
            "a name given twice",
            header(&format!("{{{}, {}}}", one("w", "F32", "[2]", 0, 8), one("w", "F32", "[2]", 8, 16)), 16),
            &["tensor w", "twice"],
        ),
        ("no dtype", alone(r#"{"shape": [2], "data_offsets": [0, 8]}"#, 8), &["tensor w", "dtype"]),
        ("a dtype that is a number", alone(r#"{"dtype": 32, "shape": [2], "data_offsets": [0, 8]}"#, 8), &["tensor w", "dtype"]),
        ("an unknown dtype", alone(r#"{"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}"#, 8), &["tensor w", "C64"]),
        ("no shape", alone(r#"{"dtype": "F32", "data_offsets": [0, 8]}"#, 8), &["tensor w", "shape"]),
        ("a negative shape", alone(r#"{"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}"#, 8), &["tensor w", "shape"]),
        ("a broken shape", alone(r#"{"dtype": "F32", "shape": [2.5], "data_offsets": [0, 8]}"#, 8), &["tensor w", "shape"]),
        ("no offsets", alone(r#"{"dtype": "F32", "shape": [2]}"#, 8), &["tensor w", "data_offsets"]),
        ("one offset", alone(r#"{"dtype": "F32", "shape": [2], "data_offsets": [8]}"#, 8), &["tensor w", "data_offsets"]),
        ("an entry that is no mapping", alone("7", 8), &["tensor w"]),
    ]);
}

#[test]
fn quantised_weights_are_refused_with_the_tensors_name() {
    let add = |name: &'static str, dtype: &'static str, size: usize| {
        move |bad: &Path| {
            let mut header: Json = json!({name: {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 4 * size]}});
            header["w"] = json!({"dtype": "F32", "shape": [1], "data_offsets": [4 * size, 4 * size + 4]});
            fs::write(bad.join("model.safetensors"), framed(header.to_string().as_bytes(), &vec![1; 4 * size + 4])).unwrap();
        }
    };
    for (name, dtype, size) in [
        ("l.weight", "F8_E4M3", 1),
        ("l.weight", "F8_E5M2", 1),
        ("l.weight", "I8", 1),
        ("l.qweight", "I32", 4),
        ("l.qzeros", "I32", 4),
        ("l.g_idx", "I32", 4),
        ("l.weight_packed", "I32", 4),
        ("l.weight_scale", "F32", 4),
        ("l.weight_scale_inv", "BF16", 2),
        ("l.weight.absmax", "F32", 4),
        ("l.weight.quant_map", "F32", 4),
        ("l.weight.quant_state.bitsandbytes__nf4", "U8", 1),
        ("l.SCB", "F32", 4),
        ("l.gate_up_proj_blocks", "U8", 1),
        ("l.gate_up_proj_scales", "U8", 1),
    ] {
        let error = refusal(name, &add(name, dtype, size));
        assert_names(name, &error, &["bad/model.safetensors", name, "quantised", "unquantised checkpoint"]);
    }
    let declared = |bad: &Path| fs::write(bad.join("config.json"), r#"{"quantization_config": {"quant_method": "gptq"}}"#).unwrap();
    assert_names("a config that declares it", &refusal("a config that declares it", &declared), &["bad", "tensor", "gptq"]);
    // What is not said to be quantised is not refused for it.
    let innocent = Model::default().floats("my_scales", Dtype::F32, &[2, 2], &[1.0; 4]).raw("ids.weight", Dtype::I8, &[2], &[1, 2]);
    let dir = tempfile::tempdir().unwrap();
    innocent.config(json!({"quantization_config": null})).save(&dir.path().join("a"));
    to_disk(dir.path(), &means(&["a", "a"]), &dir.path().join("out"), RUN).unwrap();
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_refused() {
    const INDEX: &str = "model.safetensors.index.json";
    let with_index = |index: Json| {
        move |bad: &Path| {
            fs::remove_file(bad.join("model.safetensors")).unwrap();
            good().save_shards(bad, 2);
            save_index(bad, &index);
        }
    };
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let right = json!({"model.embed_tokens.weight": one, "w": two, "steps": one});
    let map = |change: &dyn Fn(&mut Json)| {
        let mut map = right.clone();
        change(&mut map);
        json!({"weight_map": map})
    };
    let cases: Vec<(&str, Json, Vec<&str>)> = vec![
        ("no map", json!({"metadata": {}}), vec!["weight_map"]),
        ("a map that is a list", json!({"weight_map": [one]}), vec!["weight_map"]),
        ("a file that is a number", map(&|m| m["w"] = json!(2)), vec!["tensor w"]),
        ("a missing file", map(&|m| m["w"] = json!("gone.safetensors")), vec!["gone.safetensors"]),
        (
            "a file above the folder",
            map(&|m| m["w"] = json!("../good/model.safetensors")),
            vec!["../good/model.safetensors", "tensor w", "outside"],
        ),
        ("a file further above", map(&|m| m["w"] = json!("x/../../good/model.safetensors")), vec!["tensor w", "outside"]),
        ("an absolute path", map(&|m| m["w"] = json!("/etc/passwd")), vec!["/etc/passwd", "tensor w", "outside"]),
        ("a file without a name", map(&|m| m["w"] = json!("")), vec!["tensor w", "outside"]),
        ("a folder", map(&|m| m["w"] = json!(".")), vec!["tensor w"]),
        ("a tensor that is elsewhere", map(&|m| m["w"] = json!(one)), vec!["tensor w", one]),
        ("a tensor that is nowhere", map(&|m| m["more"] = json!(one)), vec!["tensor more", one]),
        ("a tensor that the index leaves out", map(&|m| drop(m.as_object_mut().unwrap().remove("steps"))), vec!["tensor steps", one]),
        ("an empty map", json!({"weight_map": {}}), vec![]),
    ];
    for (what, index, words) in cases {
        let error = refusal(what, &with_index(index));
        assert_names(what, &error, &["bad"]);
        assert_names(what, &error, &words);
        assert!(words.is_empty() || error.message.contains(INDEX), "{what}: {error}");
    }
    for (what, text) in [("not JSON", b"{\"weight_map\": ".as_slice()), ("not UTF-8", b"{\"weight_map\": {\"\xff\": 1}}")] {
        let error = refusal(what, &|bad| fs::write(bad.join(INDEX), text).unwrap());
        assert_names(what, &error, &["bad", INDEX]);
    }
    // A shard is cut, another is no file at all.
    let damage = |bad: &Path, act: &dyn Fn(&Path)| {
        with_index(json!({"weight_map": right}))(bad);
        act(&bad.join(two));
    };
    let cut = |path: &Path| fs::write(path, &fs::read(path).unwrap()[..20]).unwrap();
    assert_names("a cut shard", &refusal("a cut shard", &|bad| damage(bad, &cut)), &[two, "truncated"]);
    let lost = |path: &Path| fs::remove_file(path).unwrap();
    assert_names("a lost shard", &refusal("a lost shard", &|bad| damage(bad, &lost)), &[INDEX, two, "not there"]);
}

#[test]
fn a_folder_without_a_model_is_refused() {
    type Files = &'static [(&'static str, &'static str)];
    let only = |files: Files| {
        move |bad: &Path| {
            fs::remove_file(bad.join("model.safetensors")).unwrap();
            files.iter().for_each(|(name, text)| fs::write(bad.join(name), text).unwrap());
        }
    };
    let cases: [(&str, Files, &[&str]); 8] = [
        ("an empty folder", &[], &["empty"]),
        ("no weights", &[("config.json", "{}"), ("README.md", "")], &["no .safetensors file"]),
        ("a pickle of nothing", &[("pytorch_model.bin", "x"), ("config.json", "{}")], &["pytorch_model.bin", "not a torch file"]),
        ("what training leaves", &[("training_args.bin", "x"), ("optimizer.pt", "x")], &["no .safetensors file"]),
        ("GGUF", &[("model.gguf", "x")], &["GGUF"]),
        ("an adapter", &[("adapter_config.json", "{}"), ("adapter_model.safetensors", "x")], &["adapter"]),
        ("shards without an index", &[("a.safetensors", "x"), ("b.safetensors", "x")], &["2 .safetensors files", "index"]),
        ("a shard of nothing", &[("a.safetensors", "x")], &["a.safetensors", "1 bytes"]),
    ];
    for (what, files, words) in cases {
        let error = refusal(what, &only(files));
        assert_names(what, &error, &["bad"]);
        assert_names(what, &error, words);
    }
    let gone = refusal("no folder", &|bad| fs::remove_dir_all(bad).unwrap());
    assert_names("no folder", &gone, &["bad", "no such file or folder"]);
    assert_eq!(gone.kind, Kind::NotFound);
    let file = refusal("a file of another kind", &|bad| {
        fs::remove_dir_all(bad).unwrap();
        fs::write(bad, "x").unwrap();
    });
    assert_names("a file of another kind", &file, &["bad", ".safetensors"]);
    let folder = refusal("a folder called like a file", &|bad| {
        fs::remove_file(bad.join("model.safetensors")).unwrap();
        fs::create_dir(bad.join("model.safetensors")).unwrap();
    });
    assert_names("a folder called like a file", &folder, &["bad/model.safetensors"]);
}

#[test]
fn a_config_that_cannot_be_read_is_refused() {
    let config = |bad: &Path| bad.join("config.json");
    for (what, text) in [("not JSON", b"{\"a\": ".as_slice()), ("not UTF-8", b"{\"\xff\": 1}"), ("nothing", b"")] {
        let error = refusal(what, &|bad| fs::write(config(bad), text).unwrap());
        assert_names(what, &error, &["bad/config.json"]);
    }
    let folder = refusal("a folder", &|bad| fs::create_dir(config(bad)).unwrap());
    assert_names("a folder", &folder, &["bad/config.json"]);
    // A list or a number is JSON, and says nothing.
    // Python writes Infinity and NaN, which JSON does not have.
    let python = r#"{"rope_theta": Infinity, "eps": -Infinity, "dropout": NaN, "tie_word_embeddings": true}"#;
    for text in ["[]", "7", "null", r#"{"tie_word_embeddings": "yes", "text_config": 3}"#, python] {
        let dir = tempfile::tempdir().unwrap();
        good().save(&dir.path().join("a"));
        fs::write(dir.path().join("a/config.json"), text).unwrap();
        to_disk(dir.path(), &means(&["a", "a"]), &dir.path().join("out"), RUN).unwrap();
    }
}

#[test]
fn models_that_do_not_fit_together_are_refused() {
    let floats = |name: &str, dtype: Dtype, shape: &[u64]| {
        good().without(name).floats(name, dtype, shape, &vec![1.0; shape.iter().product::<u64>() as usize])
    };
    let embedding = |shape: &[u64]| floats("model.embed_tokens.weight", Dtype::F32, shape);
    let steps = |dtype: Dtype, bytes: &[u8]| good().without("steps").raw("steps", dtype, &[1], bytes);
    let cases: [(&str, Model, &[&str]); 9] = [
        ("a tensor missing", good().without("w"), &["tensor w", "good", "bad", "--ignore"]),
        ("a tensor more", floats("more", Dtype::F32, &[1]), &["tensor more", "good", "bad", "--ignore"]),
        ("another shape", floats("w", Dtype::F32, &[2, 3]), &["tensor w", "[2, 2]", "[2, 3]", "good", "bad"]),
        ("the shape flattened", floats("w", Dtype::F32, &[4]), &["tensor w", "[2, 2]", "[4]"]),
        ("another vocabulary", embedding(&[5, 3]), &["embed_tokens", "[4, 3]", "[5, 3]", "vocabular", "--tokenizer-source union"]),
        ("another width", embedding(&[4, 5]), &["embed_tokens", "one architecture"]),
        ("a number for an integer", floats("steps", Dtype::F32, &[1]), &["tensor steps", "int64", "float32", "good", "bad"]),
        ("other integers", steps(Dtype::I64, &[8, 0, 0, 0, 0, 0, 0, 0]), &["tensor steps", "int64", "good", "bad", "--ignore"]),
        ("integers of another size", steps(Dtype::I32, &[7, 0, 0, 0]), &["tensor steps", "int32", "int64"]),
    ];
    for (what, model, words) in cases {
        assert_names(what, &refusal(what, &|bad| model.save(bad)), words);
    }
    let broken = refusal("a line break in a name", &|bad| good().floats("two\nlines", Dtype::F32, &[1], &[1.0]).save(bad));
    assert_names("a line break in a name", &broken, &["two lines"]);
}

#[test]
fn nothing_left_to_merge_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    good().save(&dir.path().join("a"));
    let recipe = json!({"merge_method": "linear", "models": ["a"], "ignore": ["*"]});
    let error = to_disk(dir.path(), &recipe, &dir.path().join("out"), RUN).unwrap_err();
    assert!(error.kind == Kind::Recipe && error.message.contains("ignored"), "{error}");
    let error = to_disk(dir.path(), &means(&["a"]), &dir.path().join("out"), Run { shard: 0, ..RUN }).unwrap_err();
    assert!(error.kind == Kind::Recipe && error.message.contains("shard"), "{error}");
}

// While it runs

/// A planned merge of two models, one of which is then tampered with.
fn tampered(tamper: impl Fn(&Path)) -> Error {
    let dir = tempfile::tempdir().unwrap();
    good().save(&dir.path().join("a"));
    good().save(&dir.path().join("b"));
    let plan = plan(dir.path(), &means(&["a", "b"])).unwrap();
    tamper(&dir.path().join("b/model.safetensors"));
    let out = dir.path().join("out");
    let error = finish(&plan, &out, RUN, &Watch::default()).unwrap_err();
    assert!(!out.exists(), "it looks finished");
    assert!(!error.message.contains('\n'), "{error}");
    error
}

#[test]
fn a_file_that_shrinks_after_planning_is_an_error_that_names_it() {
    let length = image(&good().parts).len() as u64;
    for bytes in [0, 1, 100, length - 9, length - 1] {
        let error = tampered(|path| resize(path, bytes));
        assert_names("a shrunken file", &error, &["b/model.safetensors", "shorter"]);
        assert_eq!(error.kind, Kind::Run);
    }
}

#[test]
fn a_file_that_changes_after_planning_is_an_error_that_names_it() {
    let written = tampered(|path| fs::write(path, image(&good().parts)).unwrap());
    assert_names("a file written again", &written, &["b/model.safetensors", "changed"]);
    let longer = tampered(|path| resize(path, 5000));
    assert_names("a file that grew", &longer, &["b/model.safetensors", "changed"]);
}

/// Does something at the first read of the weights.
struct Trap<'a>(Arc<dyn Bytes + 'a>, Arc<dyn Fn() + Send + Sync + 'a>);

impl Bytes for Trap<'_> {
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        (self.1)();
        self.0.read(offset, out)
    }
}

#[test]
fn a_file_that_shrinks_under_the_reader_is_an_error_that_names_it() {
    for threads in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        good().save(&dir.path().join("a"));
        good().save(&dir.path().join("b"));
        let mut plan: Plan = plan(dir.path(), &means(&["a", "b"])).unwrap();
        let path = dir.path().join("b/model.safetensors");
        let cut: Arc<dyn Fn() + Send + Sync> = Arc::new(move || resize(&path, 60));
        for job in &mut plan.jobs {
            if let Work::Merge { inputs, .. } = &mut job.work {
                inputs.iter_mut().for_each(|tensor| tensor.source = Arc::new(Trap(tensor.source.clone(), cut.clone())));
            }
        }
        let error = finish(&plan, &dir.path().join("out"), Run { threads, ..RUN }, &Watch::default()).unwrap_err();
        assert_names("a shrinking file", &error, &["b/model.safetensors", "shorter"]);
        assert!(!dir.path().join("out").exists());
    }
}

#[test]
fn a_file_that_is_deleted_meanwhile_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    good().save(&dir.path().join("a"));
    let plan = plan(dir.path(), &means(&["a"])).unwrap();
    fs::remove_dir_all(dir.path().join("a")).unwrap();
    finish(&plan, &dir.path().join("out"), RUN, &Watch::default()).unwrap();
    assert_eq!(model::read_back(&dir.path().join("out")).part("w"), good().part("w"));
}

// Anything at all

/// Opens, plans and merges a folder: whatever is in it, the answer is a merge or an error of one line.
fn survive(dir: &Path) -> std::result::Result<(), TestCaseError> {
    let merged = plan(dir, &means(&["a", "good"])).and_then(|plan| into_memory(&plan, RUN));
    if let Err(e) = &merged {
        prop_assert!(!e.message.contains('\n'), "{}", e);
    }
    if let Ok(checkpoint) = Checkpoint::open("a", &dir.join("a")) {
        mergecore::report::contents(&checkpoint);
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_damage_to_a_file_is_a_crash(edits in edits(), length_too: bool) {
        let dir = tempfile::tempdir().unwrap();
        good().save(&dir.path().join("good"));
        good().save(&dir.path().join("a"));
        let whole = image(&good().parts);
        let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        // Mostly the header is what is damaged; its length goes with it, or not.
        let damaged = if length_too {
            framed(&edited(whole[8..8 + header].to_vec(), &edits), &whole[8 + header..])
        } else {
            edited(whole, &edits)
        };
        fs::write(dir.path().join("a/model.safetensors"), &damaged).unwrap();
        survive(dir.path())?;
        // Whatever this reader takes, the reference reader takes; it asks for a brace as the first byte, too.
        let opened = Checkpoint::open("a", &dir.path().join("a"));
        if let (Ok(checkpoint), Some(b'{')) = (opened, damaged.get(8)) {
            let file = safetensors::SafeTensors::deserialize(&damaged);
            let names = file.map(|file| file.len());
            prop_assert_eq!(names.ok(), Some(checkpoint.tensors.len()), "{}", String::from_utf8_lossy(&damaged));
        }
    }

    #[test]
    fn no_damage_to_an_index_or_a_config_is_a_crash(index in edits(), config in edits()) {
        let dir = tempfile::tempdir().unwrap();
        good().save(&dir.path().join("good"));
        let said = json!({"tie_word_embeddings": true, "text_config": {"tie_word_embeddings": false}});
        good().config(said).save_shards(&dir.path().join("a"), 2);
        for (name, edits) in [("model.safetensors.index.json", index), ("config.json", config)] {
            let path = dir.path().join("a").join(name);
            fs::write(&path, edited(fs::read(&path).unwrap(), &edits)).unwrap();
        }
        survive(dir.path())?;
    }

    #[test]
    fn no_recipe_is_a_crash(edits in edits()) {
        let recipe = json!({
            "merge_method": "dare_ties", "base_model": "o", "models": [{"model": "a", "parameters": {"weight": 0.3}}, "b"], "onto": "a",
            "parameters": {"density": 0.7, "rescale": true, "lambda": "1e-5"}, "seed": 7, "dtype": "float32", "ignore": ["x*"],
        });
        let text = edited(recipe.to_string().into_bytes(), &edits);
        if let Err(e) = mergecore::recipe::Recipe::parse(&String::from_utf8_lossy(&text), false) {
            prop_assert!(e.kind == Kind::Recipe && !e.message.contains('\n'), "{:?} {}", e.kind, e);
        }
    }
}
