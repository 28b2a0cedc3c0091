//! Do all kinds of models go in, and come out as every reader expects? Shards, types, heads, buffers, strange names.

mod model;
mod naive;
mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use mergecore::dtype::Dtype;
use mergecore::methods::METHODS;
use mergecore::plan::Head;
use mergecore::run::Watch;
use mergecore::verify::verify;
use model::family::{family, makes, others, recipe, save, setting, settings, Make};
use model::{files, into_memory, laid_out, plan, read_back, shards, to_disk, Model, Part, Run, RUN};
use serde_json::{json, Value as Json};

fn mean(models: &[&str]) -> Json {
    json!({"merge_method": "linear", "models": models})
}

fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Saves models by their names and merges them with `recipe`: the merge, and the report.
fn merge(models: &[(&str, &Model)], recipe: &Json, run: Run) -> (Model, Json) {
    let dir = tempfile::tempdir().unwrap();
    models.iter().for_each(|(name, model)| model.save(&dir.path().join(name)));
    let report = to_disk(dir.path(), recipe, &dir.path().join("out"), run).unwrap();
    (read_back(&dir.path().join("out")), report)
}

#[test]
fn sharded_inputs_are_the_same_model() {
    for make in [Make::Mixed, Make::Tied] {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let family = family(make);
        save(&family, whole.path());
        // Each member is cut in its own way, so that no two models have a tensor in shards of the same number.
        family.iter().enumerate().for_each(|(i, (name, model))| model.save_shards(&cut.path().join(name), i + 2));
        for spec in METHODS {
            for setting in settings(spec, others) {
                let recipe = recipe(spec, &setting);
                let merge = |dir: &Path| into_memory(&plan(dir, &recipe).unwrap(), RUN).unwrap();
                assert!(merge(whole.path()) == merge(cut.path()), "{recipe}: the order of the tensors in the files is seen");
            }
        }
    }
}

#[test]
fn output_shards_are_small_enough_complete_and_indexed() {
    let dir = tempfile::tempdir().unwrap();
    save(&family(Make::Mixed), dir.path());
    let recipe = mean(&["a", "b", "c"]);
    to_disk(dir.path(), &recipe, &dir.path().join("whole"), RUN).unwrap();
    let whole = read_back(&dir.path().join("whole"));
    for size in [1, 1000, 30_000, 100_000] {
        let out = dir.path().join(size.to_string());
        to_disk(dir.path(), &recipe, &out, Run { shard: size, ..RUN }).unwrap();
        assert!(read_back(&out) == whole, "shards of {size}");
        let index = read_json(&out.join("model.safetensors.index.json"));
        let shards = shards(&out);
        let mut places = BTreeMap::new();
        for (number, path) in shards.iter().enumerate() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert_eq!(name, format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len()));
            let bytes = fs::read(path).unwrap();
            let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
            assert_eq!(header % 8, 0, "the header is not padded");
            let held: Vec<_> = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
            let data: usize = held.iter().map(|(_, info)| info.data_offsets.1 - info.data_offsets.0).sum();
            let filled = held.iter().filter(|(_, info)| info.data_offsets.0 < info.data_offsets.1).count();
            assert!(data as u64 <= size || filled == 1, "{name} holds {data} bytes of {} tensors, {size} are allowed", held.len());
            for (tensor, info) in held {
                let place = 8 + header + info.data_offsets.0;
                assert_eq!(place % (info.dtype.bitsize() / 8), 0, "{tensor} is not aligned");
                places.insert(tensor, json!(name));
            }
        }
        assert_eq!(index["weight_map"], json!(places));
        assert!(index["weight_map"].as_object().unwrap().keys().is_sorted());
        assert_eq!(index["metadata"]["total_size"], whole.parts.iter().map(|part| part.bytes.len()).sum::<usize>());
    }
    assert!(!dir.path().join("whole/model.safetensors.index.json").exists());
}

#[test]
fn a_tensor_in_two_shards_is_refused_whichever_the_index_names() {
    // An older copy of it: loaders read whole shards, and the last one wins.
    let (dir, place) = (tempfile::tempdir().unwrap(), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
    let one = |name: &str, x: f64| Model::default().floats(name, Dtype::F32, &[1], &[x]);
    one("w", 1.0).save(&dir.path().join("a"));
    fs::rename(dir.path().join("a/model.safetensors"), dir.path().join("a").join(place[0])).unwrap();
    fs::write(dir.path().join("a").join(place[1]), model::image(&one("w", 2.0).floats("v", Dtype::F32, &[1], &[3.0]).parts)).unwrap();
    for shard in [0, 1] {
        // The other shard stays in the index by a tensor of its own.
        model::save_index(&dir.path().join("a"), &json!({"weight_map": {"w": place[shard], "v": place[1], "u": place[0]}}));
        let error = plan(dir.path(), &mean(&["a"])).err().unwrap();
        assert!(error.message.contains("tensor w") && error.message.contains(place[1 - shard]), "{error}");
    }
}

#[test]
fn a_single_file_is_a_model_too() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::default().floats("w", Dtype::F32, &[2], &[1.0, 3.0]);
    model.save(&dir.path().join("a"));
    fs::write(dir.path().join("b.safetensors"), model::image(&model.parts)).unwrap();
    to_disk(dir.path(), &mean(&["a/model.safetensors", "b.safetensors"]), &dir.path().join("out"), RUN).unwrap();
    assert_eq!(read_back(&dir.path().join("out")).part("w").values(), [1.0, 3.0]);
}

#[test]
fn the_output_has_the_first_models_types_or_those_asked_for() {
    let one = |dtype| Model::default().floats("w", dtype, &[3], &[1.0, 2.0, 3.0]).floats("v", Dtype::F32, &[1], &[0.5]);
    let (a, b) = (one(Dtype::F16), one(Dtype::F64));
    let types = |recipe: Json| {
        let (merged, _) = merge(&[("a", &a), ("b", &b)], &recipe, RUN);
        assert_eq!(merged.part("w").values(), [1.0, 2.0, 3.0]);
        (merged.part("w").dtype, merged.part("v").dtype)
    };
    assert_eq!(types(mean(&["a", "b"])), (Dtype::F16, Dtype::F32));
    assert_eq!(types(mean(&["b", "a"])), (Dtype::F64, Dtype::F32));
    let vectors = |models: &[&str], base: &str| json!({"merge_method": "task_arithmetic", "models": models, "base_model": base});
    assert_eq!(types(vectors(&["a"], "b")), (Dtype::F64, Dtype::F32));
    // A base that joins an average is the last of it, and still the base.
    let joined = json!({"merge_method": "linear", "models": ["a"], "base_model": "b"});
    assert_eq!(types(joined), (Dtype::F64, Dtype::F32));
    for dtype in Dtype::FLOATS {
        let mut recipe = mean(&["a", "b"]);
        recipe["dtype"] = json!(dtype.name());
        assert_eq!(types(recipe.clone()), (dtype, dtype));
        recipe["out_dtype"] = json!("torch.bfloat16");
        assert_eq!(types(recipe), (Dtype::BF16, Dtype::BF16));
    }
}

#[test]
fn equal_tensors_that_are_no_floats_are_copied() {
    let mut model = Model::default().floats("w", Dtype::BF16, &[1], &[1.0]);
    let all = [Dtype::Bool, Dtype::U8, Dtype::I8, Dtype::U16, Dtype::I16, Dtype::U32, Dtype::I32, Dtype::U64, Dtype::I64];
    for dtype in all {
        // More than a tile, and an odd number.
        let bytes: Vec<u8> = (0..40_001 * dtype.size()).map(|i| if dtype == Dtype::Bool { i as u8 & 1 } else { i as u8 }).collect();
        model = model.raw(&format!("buffer.{}", dtype.name()), dtype, &[40_001], &bytes);
    }
    let (merged, report) = merge(&[("a", &model), ("b", &model)], &mean(&["a", "b"]), RUN);
    for dtype in all {
        let name = format!("buffer.{}", dtype.name());
        assert!(merged.part(&name) == model.part(&name), "{name}");
    }
    assert_eq!(report["tensors"], 10);
}

#[test]
fn what_is_left_out_is_listed() {
    let model = |x: f64| {
        let derived = [
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "rotary_emb.inv_freq",
            "model.embeddings.position_ids",
            "transformer.h.0.attn.masked_bias",
        ];
        let model = Model::default().floats("w", Dtype::F32, &[1], &[1.0]).floats("h.0.attn.bias", Dtype::F32, &[2], &[x, x]);
        let model = model.floats("h.1.attn.bias", Dtype::F32, &[1, 1, 1, 2], &[x, x]).floats("extra.head", Dtype::F32, &[1], &[x]);
        derived.iter().fold(model, |model, name| model.floats(name, Dtype::F32, &[1], &[x]))
    };
    let mut recipe = mean(&["a", "b"]);
    recipe["ignore"] = json!(["extra.*"]);
    // A tensor that is left out need not be in every model, nor have one shape.
    let b = model(2.0).without("rotary_emb.inv_freq").without("extra.head").floats("extra.tail", Dtype::F16, &[0], &[]);
    let (merged, report) = merge(&[("a", &model(1.0)), ("b", &b)], &recipe, RUN);
    let names: Vec<&str> = merged.parts.iter().map(|part| part.name.as_str()).collect();
    // GPT-2's causal mask is called like a bias; a bias of one axis is a weight.
    assert_eq!(names, ["h.0.attn.bias", "w"]);
    let ignored = [
        "extra.head",
        "extra.tail",
        "h.1.attn.bias",
        "model.embeddings.position_ids",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "rotary_emb.inv_freq",
        "transformer.h.0.attn.masked_bias",
    ];
    assert_eq!(report["ignored"], json!(ignored));
}

#[test]
fn nothing_but_scalars_and_empty_tensors_is_a_model() {
    let model = |x: f64| Model::default().floats("scalar", Dtype::F64, &[], &[x]).floats("empty", Dtype::BF16, &[3, 0], &[]);
    for spec in METHODS {
        let dir = tempfile::tempdir().unwrap();
        for (name, x) in [("base", 1.0), ("a", 2.0), ("b", 2.0), ("c", 2.0)] {
            model(x).save(&dir.path().join(name));
        }
        to_disk(dir.path(), &recipe(spec, &setting(spec)), &dir.path().join("out"), RUN).unwrap();
        let merged = read_back(&dir.path().join("out"));
        assert_eq!((merged.part("empty").shape.as_slice(), merged.part("scalar").shape.len()), ([3, 0].as_slice(), 0), "{}", spec.name);
    }
}

#[test]
fn names_may_hold_anything() {
    let names = ["ŵ", "with space", "quote\"d", "back\\slash", "line\nbreak", "日本.語", "__metadata", "a/../b"];
    let model = |x: f64| names.iter().fold(Model::default(), |model, name| model.floats(name, Dtype::F32, &[1], &[x]));
    let (merged, _) = merge(&[("a", &model(1.0)), ("b", &model(3.0))], &mean(&["a", "b"]), Run { shard: 1, ..RUN });
    assert_eq!(merged.parts.len(), names.len());
    names.iter().for_each(|name| assert_eq!(merged.part(name).values(), [2.0], "{name}"));
}

// Heads

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn tied(x: f64) -> Model {
    let values = [x, x + 1.0, x + 2.0, x + 3.0];
    Model::default().floats(EMBEDDING, Dtype::F32, &[2, 2], &values).config(json!({"tie_word_embeddings": true}))
}

/// With a head of its own, or (`x` the embedding's) with a copy.
fn with_head(model: Model, x: f64) -> Model {
    model.floats(HEAD, Dtype::F32, &[2, 2], &[x, x + 1.0, x + 2.0, x + 3.0])
}

fn head(models: &[(&str, &Model)]) -> (Option<Vec<f64>>, Head, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    models.iter().for_each(|(name, model)| model.save(&dir.path().join(name)));
    let names: Vec<&str> = models.iter().map(|(name, _)| *name).skip(1).collect();
    let recipe = json!({"merge_method": "task_arithmetic", "base_model": models[0].0, "models": names});
    let plan = plan(dir.path(), &recipe).unwrap();
    let out = dir.path().join("out");
    let report = model::finish(&plan, &out, RUN, &Watch::default()).unwrap();
    let merged = read_back(&out);
    let notes = report["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_string()).collect();
    assert!(merged.parts.iter().any(|part| part.name == EMBEDDING));
    (merged.parts.iter().find(|part| part.name == HEAD).map(Part::values), plan.head, notes)
}

#[test]
fn a_copy_of_a_tied_embedding_is_tied_again() {
    let (written, verdict, notes) = head(&[("base", &tied(0.0)), ("a", &with_head(tied(1.0), 1.0)), ("b", &tied(2.0))]);
    assert_eq!((written, verdict), (None, Head::Tied));
    assert!(notes.iter().any(|note| note.contains(HEAD) && note.contains("tied")), "{notes:?}");
    // All have a copy, and the configs say that it is one.
    let all = [with_head(tied(0.0), 0.0), with_head(tied(1.0), 1.0)];
    assert_eq!(head(&[("base", &all[0]), ("a", &all[1])]).1, Head::Tied);
}

#[test]
fn a_head_that_differs_unties_the_merge() {
    // θ₀ + ½(head_a − θ₀) + ½(embedding_b − θ₀), θ₀ being the base's embedding.
    let (written, verdict, notes) = head(&[("base", &tied(0.0)), ("a", &with_head(tied(1.0), 8.0)), ("b", &tied(2.0))]);
    assert_eq!((written, verdict), (Some(vec![5.0, 6.0, 7.0, 8.0]), Head::Untied));
    assert!(notes.iter().any(|note| note.contains(HEAD) && note.contains("untied")), "{notes:?}");
}

#[test]
fn heads_of_untied_models_are_tensors_like_others() {
    let untied = |x: f64, head: f64| with_head(tied(x).config(json!({"tie_word_embeddings": false})), head);
    let (written, verdict, notes) = head(&[("base", &untied(0.0, 4.0)), ("a", &untied(1.0, 6.0))]);
    assert_eq!((written, verdict, notes.len()), (Some(vec![6.0, 7.0, 8.0, 9.0]), Head::AsItIs, 0));
    // Equal by chance, or without a word about it: still a tensor.
    let silent = |x: f64| Model { config: None, ..with_head(tied(x), x) };
    assert_eq!(head(&[("base", &silent(0.0)), ("a", &silent(2.0))]).0, Some(vec![2.0, 3.0, 4.0, 5.0]));
    assert_eq!(head(&[("base", &tied(0.0)), ("a", &tied(1.0))]).1, Head::AsItIs);
}

#[test]
fn an_untied_model_that_lost_its_head_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    with_head(tied(0.0), 4.0).config(json!({"tie_word_embeddings": false})).save(&dir.path().join("a"));
    tied(1.0).config(json!({"tie_word_embeddings": false})).save(&dir.path().join("b"));
    let error = plan(dir.path(), &mean(&["a", "b"])).err().expect("has no head");
    assert!([HEAD, "in a", "not in b"].iter().all(|word| error.message.contains(word)), "{error}");
}

#[test]
fn the_config_is_told_whether_there_is_a_head() {
    let dir = tempfile::tempdir().unwrap();
    let untied = json!({"tie_word_embeddings": false});
    tied(0.0).save(&dir.path().join("tied"));
    with_head(tied(1.0), 1.0).save(&dir.path().join("copy"));
    with_head(tied(1.0), 4.0).config(untied.clone()).save(&dir.path().join("untied"));
    for (models, donor, told) in [
        // (tie the config, untie the config)
        (["tied", "tied"], None, [true, false]),
        (["tied", "copy"], None, [true, false]),
        (["tied", "untied"], None, [false, true]),
        (["untied", "untied"], None, [false, false]),
        // The config comes from a model of the other kind.
        (["untied", "untied"], Some("tied"), [false, true]),
        (["tied", "tied"], Some("untied"), [true, false]),
    ] {
        let mut recipe = mean(&models);
        recipe["donor"] = json!(donor);
        let plan = plan(dir.path(), &recipe).unwrap();
        let (layout, limits) = laid_out(&plan, RUN).unwrap();
        let summary = mergecore::report::summary(&plan, &layout, limits.threads, limits.bytes(&plan));
        assert_eq!((&summary["tied"], &summary["untied"]), (&json!(told[0]), &json!(told[1])), "{recipe}");
    }
}

#[test]
fn a_head_that_is_ignored_decides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    tied(0.0).save(&dir.path().join("a"));
    with_head(tied(1.0), 4.0).save(&dir.path().join("b"));
    let mut recipe = mean(&["a", "b"]);
    recipe["ignore"] = json!([HEAD]);
    let plan = plan(dir.path(), &recipe).unwrap();
    let (layout, limits) = laid_out(&plan, RUN).unwrap();
    let summary = mergecore::report::summary(&plan, &layout, limits.threads, limits.bytes(&plan));
    // An untied config without a head is a model whose head is made up when it is loaded.
    assert!(!plan.has_head() && summary["untied"] == false, "{}", summary["notes"]);
}

// What is told about it

#[test]
fn the_same_merge_writes_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let (wild, plain) = (dir.path().join("wild"), dir.path().join("plain"));
    save(&family(Make::Wild), &wild);
    save(&family(Make::Plain), &plain);
    for spec in METHODS {
        let recipe = recipe(spec, &setting(spec));
        let models = if makes(spec).contains(&Make::Wild) { &wild } else { &plain };
        let (one, other) = (dir.path().join(format!("{}-1", spec.name)), dir.path().join(format!("{}-2", spec.name)));
        to_disk(models, &recipe, &one, Run { threads: 1, shard: 50_000, ..RUN }).unwrap();
        to_disk(models, &recipe, &other, Run { threads: 3, tile: 1 << 20, shard: 50_000, ..RUN }).unwrap();
        assert!(files(&one) == files(&other), "{}", spec.name);
    }
}

#[test]
fn the_manifests_recipe_makes_the_same_merge() {
    let dir = tempfile::tempdir().unwrap();
    save(&family(Make::Plain), dir.path());
    for spec in METHODS {
        let (one, other) = (dir.path().join(format!("{}-1", spec.name)), dir.path().join(format!("{}-2", spec.name)));
        to_disk(dir.path(), &recipe(spec, &setting(spec)), &one, RUN).unwrap();
        let manifest = read_json(&one.join("mergecore.json"));
        to_disk(dir.path(), &manifest["recipe"], &other, RUN).unwrap();
        assert!(files(&one) == files(&other), "{}", spec.name);
    }
}

#[test]
fn the_manifest_tells_every_tensor_and_the_report_sums_them_up() {
    let dir = tempfile::tempdir().unwrap();
    let family = family(Make::Plain);
    save(&family, dir.path());
    let recipe = json!({"merge_method": "task_arithmetic", "base_model": "base", "models": ["a", "b"]});
    let out = dir.path().join("out");
    let report = to_disk(dir.path(), &recipe, &out, RUN).unwrap();
    let (manifest, merged) = (read_json(&out.join("mergecore.json")), read_back(&out));
    let told: BTreeMap<&str, &Json> = manifest["tensors"].as_array().unwrap().iter().map(|t| (t["name"].as_str().unwrap(), t)).collect();
    assert_eq!(told.len(), merged.parts.len());
    let mut squares = 0.0;
    for part in &merged.parts {
        let told = told[part.name.as_str()];
        assert_eq!(told["blake3"], blake3::hash(&part.bytes).to_hex().as_str(), "{}", part.name);
        assert_eq!((&told["dtype"], &told["shape"]), (&json!(part.dtype.name()), &json!(part.shape)));
        assert_eq!(told["how"], if part.dtype.is_float() { "merged" } else { "copied" });
        if part.dtype.is_float() {
            let base = family[0].1.part(&part.name).values();
            let square: f64 = part.values().iter().zip(base).map(|(x, b)| (x - b).powi(2)).sum();
            let norm = told["delta_norm_rounded"].as_f64().unwrap();
            assert!((norm - square.sqrt()).abs() <= 1e-9 * square.sqrt(), "{}: {norm} for {}", part.name, square.sqrt());
            squares += square;
        }
    }
    for told in [&manifest, &report] {
        let norm = told["delta_norm_rounded"].as_f64().unwrap();
        assert!((norm - squares.sqrt()).abs() <= 1e-9 * norm, "{norm} for {}", squares.sqrt());
    }
    let bytes = |folder: &Path| read_back(folder).parts.iter().map(|part| part.bytes.len() as u64).sum::<u64>();
    // The derived buffer is not read, the copied ones once.
    let copied: u64 = merged.parts.iter().filter(|part| !part.dtype.is_float()).map(|part| part.bytes.len() as u64).sum();
    let read: u64 = ["base", "a", "b"].iter().map(|name| bytes(&dir.path().join(name)) - 8).sum::<u64>() - 2 * copied;
    assert_eq!(report["bytes_read"], read);
    assert_eq!(report["bytes_written"], fs::metadata(out.join("model.safetensors")).unwrap().len());
    assert_eq!(report["parameter_count"], merged.parts.iter().map(|p| p.shape.iter().product::<u64>()).sum::<u64>());
    let verdict = verify(&out, 2, &Watch::default()).unwrap();
    assert_eq!((verdict.problems, verdict.tensors), (Vec::<String>::new(), merged.parts.len()));
}

#[test]
fn what_is_not_finite_is_counted_and_warned_of() {
    let row = |x: [f64; 4]| Model::default().floats("w", Dtype::F32, &[4], &x).floats("v", Dtype::F32, &[1], &[1.0]);
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let models = [("a", &row([1.0, nan, inf, 0.0])), ("b", &row([1.0, nan, -inf, 0.0]))];
    let (merged, report) = merge(&models, &mean(&["a", "b"]), RUN);
    let values = merged.part("w").values();
    assert!(values[0] == 1.0 && values[1].is_nan() && values[2].is_nan() && values[3] == 0.0);
    assert_eq!(
        (&report["nan"], &report["inf"], &report["inputs_nan"], &report["inputs_inf"]),
        (&json!(2), &json!(0), &json!(2), &json!(2))
    );
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("a holds 1 NaN and 1 infinite") && warnings.contains("b holds 1 NaN"), "{warnings}");
    // Finite inputs, and an output type that cannot hold them.
    let large = row([6e4, 7e4, 1e9, 0.0]);
    let mut recipe = mean(&["a", "b"]);
    recipe["dtype"] = json!("float16");
    let (_, report) = merge(&[("a", &large), ("b", &large)], &recipe, RUN);
    assert_eq!((&report["inf"], &report["inputs_inf"]), (&json!(2), &json!(0)));
    assert!(report["warnings"].to_string().contains("range"), "{report}");
}

#[test]
fn a_model_may_be_named_twice_and_the_base_among_the_models() {
    let one = |x: f64| Model::default().floats("w", Dtype::F32, &[1], &[x]);
    let models = [("base", &one(1.0)), ("a", &one(3.0))];
    assert_eq!(merge(&models, &mean(&["a", "a", "base"]), RUN).0.part("w").values(), [((3.0f32 / 3.0 + 3.0 / 3.0) + 1.0 / 3.0) as f64]);
    let among = json!({"merge_method": "task_arithmetic", "base_model": "base", "models": ["base", "a"]});
    assert_eq!(merge(&models, &among, RUN).0.part("w").values(), [3.0]);
}

/// What `show` promises is what a merge does: of small models exactly, of larger ones but for a sample and a search for ties.
#[test]
fn the_inputs_are_read_as_often_as_the_plan_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = rows::Dice(3);
    let mut make = |name: &str, dtype: Dtype, rows: u64| {
        let mut row = |count: u64| (0..count).map(|_| dice.unit() * 0.02).collect::<Vec<_>>();
        let model = Model::default().floats("w", dtype, &[rows, 64], &row(rows * 64)).floats("v", Dtype::F32, &[64], &row(64));
        model.save(&dir.path().join(name));
    };
    for (size, dtype, rows) in [("small", Dtype::BF16, 100), ("large", Dtype::BF16, 30_000), ("fine", Dtype::F64, 30_000)] {
        ["base", "a", "b"].iter().for_each(|name| make(&format!("{size}-{name}"), dtype, rows));
    }
    let (bf16, narrow) = (["small", "large"].as_slice(), Json::Null);
    for (method, parameters, dtype, sizes, passes) in [
        ("ties", json!({"scope": "tensor"}), &narrow, bf16, 1),
        ("ties", json!({"scope": "model", "density": 0.2}), &narrow, bf16, 3),
        ("ties", json!({"scope": "model", "density": 1.0}), &narrow, bf16, 2),
        ("ties", json!({"scope": "model", "density": 0.2}), &json!("float64"), &["large"], 3),
        ("ties", json!({"scope": "model", "density": 0.2}), &narrow, &["fine"], 4),
        ("dare_ties", json!({"scope": "tensor", "rescale": "l1"}), &narrow, bf16, 1),
        ("dare_ties", json!({"scope": "model", "rescale": "inverse"}), &narrow, bf16, 2),
        ("dare_ties", json!({"scope": "model", "rescale": "l1"}), &narrow, bf16, 3),
    ] {
        // A cap leaves thresholds the least room.
        for (size, cap) in sizes.iter().flat_map(|size| [(*size, None), (*size, Some(45_000_000))]) {
            let named = |name: &str| format!("{size}-{name}");
            let models = [named("a"), named("b")];
            let mut recipe = json!({"merge_method": method, "base_model": named("base"), "models": models, "parameters": parameters});
            if *dtype != narrow {
                recipe["dtype"] = dtype.clone();
            }
            let plan = plan(dir.path(), &recipe).unwrap();
            assert_eq!(plan.passes(), passes, "{recipe}");
            let out = dir.path().join("out");
            let watch = Watch::default();
            let report = model::finish(&plan, &out, Run { cap, overwrite: true, ..RUN }, &watch).unwrap();
            let [done, total] = [&watch.done, &watch.total].map(|count| count.load(Ordering::Relaxed));
            assert_eq!(done, total, "{recipe}: the progress ends elsewhere");
            let read = report["bytes_read"].as_f64().unwrap() / (plan.bytes_to_read() / passes as u64) as f64;
            let over = read - passes as f64;
            let right = match size {
                "small" => over == 0.0,
                // A second pass, which larger models of f64 need.
                "fine" => (-1.0..0.2).contains(&over),
                _ if method == "ties" => (0.0..0.2).contains(&over),
                _ => over == 0.0,
            };
            assert!(right, "{recipe}: read {read} times");
        }
    }
}

// Stacked slices

#[test]
fn stacked_layers_are_those_of_their_models_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    let layer =
        |number: usize| [format!("model.layers.{number}.mlp.up_proj.weight"), format!("model.layers.{number}.mlp.down_proj.weight")];
    let make = |name: &str, seed: u64| {
        let mut dice = rows::Dice(seed);
        let mut bits = |finite: u16| (0..64).flat_map(|_| (dice.next() as u16 & finite).to_le_bytes()).collect::<Vec<_>>();
        let mut model = Model::default();
        for name in (0..3).flat_map(layer).chain([EMBEDDING.into(), "model.norm.weight".into()]) {
            // No NaN: 0 and not 1 in the lowest bit of the exponent.
            model = model.raw(&name, Dtype::BF16, &[8, 8], &bits(!0x80));
        }
        model.save(&dir.path().join(name));
        model
    };
    let (a, b) = (make("a", 1), make("b", 2));
    let piece = |model: &str, range: [usize; 2], parameters: Json| json!({"sources": [{"model": model, "layer_range": range, "parameters": parameters}]});
    let muted = json!({"scale": [{"filter": "down_proj", "value": 0}, {"value": 1}]});
    let slices = [piece("a", [0, 2], json!({})), piece("b", [1, 3], json!({})), piece("a", [1, 2], muted)];
    let recipe = json!({"merge_method": "passthrough", "slices": slices, "base_model": "b"});
    to_disk(dir.path(), &recipe, &dir.path().join("out"), RUN).unwrap();
    let merged = read_back(&dir.path().join("out"));
    assert_eq!(merged.parts.len(), 2 * 5 + 2);
    for (out, (model, number)) in [(&a, 0), (&a, 1), (&b, 1), (&b, 2), (&a, 1)].into_iter().enumerate() {
        for (out_name, name) in layer(out).iter().zip(layer(number)) {
            match out == 4 && name.contains("down_proj") {
                true => assert!(merged.part(out_name).values().iter().all(|x| *x == 0.0)),
                false => assert!(merged.part(out_name).bytes == model.part(&name).bytes, "{out_name}"),
            }
        }
    }
    assert!(
        merged.part(EMBEDDING).bytes == a.part(EMBEDDING).bytes
            && merged.part("model.norm.weight").bytes == a.part("model.norm.weight").bytes
    );
    // A base is one model more, where the recipe has models.
    let two = json!({"merge_method": "passthrough", "models": ["a"], "base_model": "b"});
    let message = plan(dir.path(), &two).err().expect("has two models").message;
    assert!(message.contains("exactly 1 model") && message.contains("a, b"), "{message}");
}
