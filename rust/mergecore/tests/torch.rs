//! Are old checkpoints read as what they are? (pytorch_model.bin: torch's zip format)

mod damage;
mod model;
mod naive;
mod pickled;
mod rows;

use std::fs;
use std::path::Path;

use damage::{assert_names, config, good, means};
use mergecore::checkpoint::Checkpoint;
use mergecore::dtype::Dtype;
use mergecore::error::Result;
use model::{read_back, to_disk, Model, RUN};
use pickled::Pickle;
use proptest::prelude::*;
use serde_json::Value as Json;

/// A file of these bytes, opened.
fn opened(bytes: &[u8]) -> Result<Checkpoint<'static>> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pytorch_model.bin"), bytes).unwrap();
    Checkpoint::open("m", dir.path())
}

/// A tensor's shape and all its bytes.
fn tensor(checkpoint: &Checkpoint, name: &str) -> (Vec<u64>, Vec<u8>) {
    let tensor = checkpoint.tensor(name).unwrap();
    let mut bytes = vec![0xAA; tensor.bytes() as usize];
    tensor.read(0, &mut bytes).unwrap();
    (tensor.shape.clone(), bytes)
}

fn merged(dir: &Path, models: &[&str]) -> (Model, Json) {
    let out = dir.join("out");
    let report = to_disk(dir, &means(models), &out, RUN).unwrap();
    let model = read_back(&out);
    fs::remove_dir_all(out).unwrap();
    (model, report)
}

#[test]
fn a_torch_file_merges_as_a_safetensors_file_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let x: Vec<f64> = (0..12).map(|x| 7.5 - f64::from(x)).collect();
    let other = Model::default().floats("model.embed_tokens.weight", Dtype::F32, &[4, 3], &x).floats("w", Dtype::BF16, &[2, 2], &x[4..8]);
    let other = other.raw("steps", Dtype::I64, &[1], &[7, 0, 0, 0, 0, 0, 0, 0]);
    good().save(&path.join("safe"));
    other.save(&path.join("other"));
    let want = merged(path, &["safe", "other"]).0;
    pickled::save(&good(), &path.join("one"));
    pickled::save_shards(&good(), &path.join("shards"), 2);
    fs::create_dir(path.join("alone")).unwrap();
    let image = pickled::image(&good().parts);
    for name in ["x.bin", "x.pt", "x.pth"] {
        fs::write(path.join("alone").join(name), &image).unwrap();
    }
    fs::create_dir(path.join("renamed")).unwrap();
    fs::write(path.join("renamed/weights.pt"), &image).unwrap();
    // What training leaves beside the weights is no second model.
    for name in ["optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state_0.pth"] {
        fs::write(path.join("renamed").join(name), "x").unwrap();
    }
    for name in ["one", "shards", "alone/x.bin", "alone/x.pt", "alone/x.pth", "renamed"] {
        let (model, report) = merged(path, &[name, "other"]);
        assert_eq!(model, want, "{name}");
        assert_eq!(report["warnings"], serde_json::json!([]), "{name}");
    }
    let checkpoint = Checkpoint::open("one", &path.join("one")).unwrap();
    assert_eq!(mergecore::report::contents(&checkpoint)["format"], "torch");
    assert!(checkpoint.fingerprint().unwrap()[0]["bytes"] == image.len());
    // 64-bit records say the same.
    let pickle = Pickle::start().dict(|pickle| pickled::state(pickle, &good().parts)).end();
    let wide = pickled::archive(&pickled::members(pickle, pickled::storages(&good().parts)), true);
    fs::write(path.join("one/pytorch_model.bin"), wide).unwrap();
    assert_eq!(merged(path, &["one", "other"]).0, want);
}

#[test]
fn safetensors_are_preferred() {
    let dir = tempfile::tempdir().unwrap();
    for shards in [1, 2] {
        let path = dir.path().join(shards.to_string());
        if shards == 1 {
            good().save(&path)
        } else {
            good().save_shards(&path, 2)
        }
        fs::write(path.join("pytorch_model.bin"), "never looked at").unwrap();
        fs::write(path.join("pytorch_model.bin.index.json"), "never looked at").unwrap();
        let checkpoint = Checkpoint::open("m", &path).unwrap();
        assert_eq!(checkpoint.format(), "safetensors");
    }
}

#[test]
fn every_shape_and_view_is_read_as_torch_means_it() {
    let storage: Vec<u8> = (0..24u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let f32s = |values: &[u32]| values.iter().flat_map(|i| (*i as f32).to_le_bytes()).collect::<Vec<u8>>();
    let view = |pickle: Pickle, name: &str, offset, shape: &[i64], strides: &[i64]| {
        pickle.text(name).view("FloatStorage", "0", offset, shape, strides)
    };
    let pickle = Pickle::start().dict(|pickle| {
        let pickle = view(pickle, "whole", 0, &[2, 3, 4], &[12, 4, 1]);
        let pickle = view(pickle, "tied", 0, &[2, 3, 4], &[12, 4, 1]);
        let pickle = view(pickle, "slice", 5, &[3], &[1]);
        let pickle = view(pickle, "ones", 4, &[1, 2, 1], &[99, 1, 77]);
        let pickle = view(pickle, "scalar", 23, &[], &[]);
        let pickle = view(pickle, "empty", 24, &[0, 8], &[8, 1]);
        let pickle = view(pickle, "transposed", 0, &[3, 2], &[1, 3]);
        let pickle = view(pickle, "every other", 1, &[3], &[2]);
        let pickle = view(pickle, "repeated", 2, &[2, 2], &[0, 1]);
        let pickle = pickle.text("parameter").global("torch._utils", "_rebuild_parameter").op(b"(");
        let pickle = pickle.view("FloatStorage", "0", 1, &[2], &[1]).op(&[0x88]).global("collections", "OrderedDict").op(b")RtR");
        // torch.Size, and the 16-bit integers that have no storage of their own
        let pickle = pickle.text("typed").global("torch._utils", "_rebuild_tensor_v3").op(b"((").text("storage");
        let pickle = pickle.global("torch.storage", "UntypedStorage").text("0").text("cuda:0").int(24).op(b"tQ").int(0);
        let pickle = pickle.global("torch", "Size").ints(&[2]).op(&[0x85]).op(b"R").ints(&[1]).op(&[0x89]);
        pickle.global("collections", "OrderedDict").op(b")R").global("torch", "uint16").op(b"tR")
    });
    let state = pickle.op(b"}q\x02").text("_metadata").op(b"}sb");
    let checkpoint = opened(&pickled::file(state, &[&storage])).unwrap();
    let cases: [(&str, &[u64], &[u32]); 10] = [
        ("whole", &[2, 3, 4], &(0..24).collect::<Vec<u32>>()),
        ("tied", &[2, 3, 4], &(0..24).collect::<Vec<u32>>()),
        ("slice", &[3], &[5, 6, 7]),
        ("ones", &[1, 2, 1], &[4, 5]),
        ("scalar", &[], &[23]),
        ("empty", &[0, 8], &[]),
        ("transposed", &[3, 2], &[0, 3, 1, 4, 2, 5]),
        ("every other", &[3], &[1, 3, 5]),
        ("repeated", &[2, 2], &[2, 3, 2, 3]),
        ("parameter", &[2], &[1, 2]),
    ];
    for (name, shape, values) in cases {
        assert_eq!(tensor(&checkpoint, name), (shape.to_vec(), f32s(values)), "{name}");
    }
    assert_eq!(checkpoint.tensor("typed").unwrap().dtype, Dtype::U16);
    assert_eq!(tensor(&checkpoint, "typed").1, storage[..4]);
}

#[test]
fn a_large_transposed_matrix_is_read_in_bands() {
    // Several bands, the last one not whole; a row so large that a band is a part of it.
    for (rows, columns) in [(3000u64, 150u64), (37, 200_000)] {
        let storage: Vec<u8> = (0..rows * columns).flat_map(|i| ((i % 60_013) as u16).to_le_bytes()).collect();
        let pickle = Pickle::start()
            .dict(|pickle| pickle.text("w").view("BFloat16Storage", "0", 0, &[rows as i64, columns as i64], &[1, rows as i64]));
        let (_, bytes) = tensor(&opened(&pickled::file(pickle, &[&storage])).unwrap(), "w");
        let want: Vec<u8> =
            (0..rows * columns).flat_map(|i| (((i / columns + i % columns * rows) % 60_013) as u16).to_le_bytes()).collect();
        assert!(bytes == want, "{rows} × {columns}");
    }
}

#[test]
fn a_state_dict_inside_is_found_if_it_is_alone() {
    let w = |pickle: Pickle, name: &str| pickle.text(name).view("ByteStorage", "0", 0, &[2], &[1]);
    let save = |entries: &dyn Fn(Pickle) -> Pickle| opened(&pickled::file(Pickle::start().dict(entries), &[&[3, 4]]));
    let inside = save(&|pickle| {
        let pickle = pickle.text("epoch").int(3).text("args").op(b"}").text("lr").op(b"G\0\0\0\0\0\0\0\0s");
        pickle.text("state_dict").dict(|pickle| w(pickle, "w").text("names").op(b"](").text("w").op(b"e"))
    });
    let inside = inside.unwrap();
    assert_eq!(tensor(&inside, "w"), (vec![2], vec![3, 4]));
    assert_eq!(inside.passed_over, ["names"]);
    type Entries<'a> = &'a dyn Fn(Pickle) -> Pickle;
    let refused: [(&str, Entries, &[&str]); 5] = [
        ("another name", &|pickle| pickle.text("model").dict(|pickle| w(pickle, "w")), &["model", "state_dict"]),
        (
            "an optimizer",
            &|pickle| {
                let pickle = pickle.text("state_dict").dict(|pickle| w(pickle, "w"));
                pickle.text("optimizer").op(b"](}").int(0).view("ByteStorage", "0", 0, &[2], &[1]).op(b"se")
            },
            &["state_dict, optimizer"],
        ),
        ("a dict in a state dict", &|pickle| w(pickle, "w").text("more").dict(|pickle| w(pickle, "v")), &["more", "beside"]),
        ("a key that is no text", &|pickle| pickle.int(7).view("ByteStorage", "0", 0, &[2], &[1]), &["no text"]),
        ("the same name twice", &|pickle| w(w(pickle, "w"), "w"), &["w", "twice"]),
    ];
    for (what, entries, words) in refused {
        let error = save(entries).err().unwrap_or_else(|| panic!("{what} is read"));
        assert_names(what, &error, &["pytorch_model.bin"]);
        assert_names(what, &error, words);
    }
    // What is no tensor is said.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let pickle = Pickle::start().dict(|pickle| pickle.text("epoch").int(3).text("w").view("FloatStorage", "0", 0, &[1], &[1]));
    fs::write(dir.path().join("a/pytorch_model.bin"), pickled::file(pickle, &[&1f32.to_le_bytes()])).unwrap();
    let report = merged(dir.path(), &["a"]).1;
    assert!(report["notes"].to_string().contains("a holds epoch beside its tensors"), "{report}");
}

proptest! {
    #![proptest_config(config())]

    /// Any view that fits its storage, held against its definition, read in any pieces.
    #[test]
    fn any_view_is_read_as_its_strides_say(
        steps in prop::collection::vec((0u64..6, 0u64..40), 0..4), offset in 0u64..9, cut in any::<prop::sample::Index>(),
    ) {
        let shape: Vec<u64> = steps.iter().map(|(n, _)| *n).collect();
        let strides: Vec<u64> = steps.iter().map(|(_, stride)| *stride).collect();
        let longest: u64 = 9 + steps.iter().map(|(n, stride)| n * stride).sum::<u64>();
        let storage: Vec<u8> = (0..longest).flat_map(|i| (i as i32).to_le_bytes()).collect();
        let signed = |values: &[u64]| values.iter().map(|n| *n as i64).collect::<Vec<i64>>();
        let pickle = Pickle::start().dict(|pickle| {
            pickle.text("w").view("IntStorage", "0", offset as i64, &signed(&shape), &signed(&strides))
        });
        let checkpoint = opened(&pickled::file(pickle, &[&storage])).unwrap();
        let tensor = checkpoint.tensor("w").unwrap();
        let count = shape.iter().product::<u64>();
        let want: Vec<i32> = (0..count).map(|mut i| {
            let mut at = offset;
            for (n, stride) in steps.iter().rev() {
                at += i % n * stride;
                i /= n;
            }
            at as i32
        }).collect();
        let mut bytes = vec![0; count as usize * 4];
        let middle = cut.index(count as usize + 1);
        let (head, tail) = bytes.split_at_mut(middle * 4);
        tensor.read(0, head).unwrap();
        tensor.read(middle as u64, tail).unwrap();
        let got: Vec<i32> = bytes.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
        prop_assert_eq!(got, want);
    }
}
