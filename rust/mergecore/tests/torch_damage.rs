//! Bad torch files: every one is an error of one line that names the file; never a crash, never memory without bounds, nothing executed.

mod damage;
mod model;
mod naive;
mod pickled;
mod rows;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use damage::{assert_names, config, edited, edits, good, means};
use mergecore::checkpoint::Checkpoint;
use mergecore::error::{Error, Kind};
use model::{into_memory, plan, RUN};
use pickled::Pickle;
use proptest::prelude::*;

const FILE: &str = "bad/pytorch_model.bin";

#[track_caller]
fn refusal(what: &str, bytes: &[u8]) -> Error {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("bad")).unwrap();
    fs::write(dir.path().join(FILE), bytes).unwrap();
    let began = Instant::now();
    let error = Checkpoint::open("bad", &dir.path().join("bad")).err().unwrap_or_else(|| panic!("{what} is read"));
    assert!(began.elapsed() < Duration::from_secs(20), "{what} takes {:?}", began.elapsed());
    assert_eq!(error.kind, Kind::Model, "{what}: {error}");
    assert!(!error.message.contains('\n') && error.message.len() < 700, "{what}: {error}");
    assert_names(what, &error, &[FILE]);
    error
}

#[track_caller]
fn check(what: &str, pickle: Pickle, words: &[&str]) {
    assert_names(what, &refusal(what, &pickled::file(pickle, &[&[0; 8]])), words);
}

/// A state dict of one tensor of eight bytes.
fn one(entries: impl FnOnce(Pickle) -> Pickle) -> Pickle {
    Pickle::start().dict(|pickle| entries(pickle.text("w")))
}

fn view(class: &'static str, offset: i64, shape: &'static [i64], strides: &'static [i64]) -> Pickle {
    one(|pickle| pickle.view(class, "0", offset, shape, strides))
}

#[test]
fn nothing_that_a_pickle_asks_for_is_done() {
    let out = ["load it in torch where it can be trusted", "safetensors", "nothing was run"];
    let call = |ask: &[u8], target: &str| {
        let pickle = Pickle::start().op(ask).text("touch /tmp/x").op(&[0x85]).op(b"R");
        check(target, pickle.clone(), &[&[target][..], &out].concat());
        check(target, one(|inner| inner.op(&pickle.0[2..])), &[target]);
    };
    call(b"cos\nsystem\n", "os.system");
    call(b"cposix\nsystem\n", "posix.system");
    call(b"cbuiltins\neval\n", "builtins.eval");
    call(b"c__builtin__\ngetattr\n", "__builtin__.getattr");
    call(b"ctorch\nload\n", "torch.load");
    call(b"ctorch.hub\nload\n", "torch.hub.load");
    call(b"cnumpy.core.multiarray\n_reconstruct\n", "numpy.core.multiarray._reconstruct");
    call(b"(X\x02\0\0\0hiios\nsystem\n", "os.system");
    call(b"X\x02\0\0\0osX\x06\0\0\0system\x93", "os.system");
    call(b"c\x1b[31mos\rx\nsys\ttem\n", "[31mos x.sys tem");
    call(format!("c{}\nsystem\n", "ö".repeat(5000)).as_bytes(), "…");
    for (op, name) in [(b"\x81", "0x81"), (b"o", "0x6f"), (b"P", "0x50"), (b"\x82", "0x82"), (b"\x8c", "0x8c"), (b"\xff", "0xff")] {
        check(name, Pickle::start().op(op), &[name, "no tensor needs"]);
    }
    for protocol in [0, 3, 4, 5, 255] {
        check("a protocol", Pickle(vec![0x80, protocol]).op(b"}"), &["protocol", &protocol.to_string()]);
    }
}

#[test]
fn a_file_of_another_kind_is_refused_with_the_way_out() {
    let pickle = || Pickle::start().dict(|pickle| pickled::state(pickle, &good().parts)).end();
    let with = |name: &str, bytes: &[u8]| {
        let mut members = pickled::members(pickle(), pickled::storages(&good().parts));
        members.retain(|(known, _)| known != name);
        members.push((name.into(), bytes.into()));
        pickled::archive(&members, false)
    };
    let whole = pickled::image(&good().parts);
    let directory = whole.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    let edit = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[directory + at] = byte;
        bytes
    };
    let others: Vec<(&str, Vec<u8>, &[&str])> = vec![
        (
            "torch's old format",
            b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec(),
            &["old format", "save_pretrained"],
        ),
        ("TorchScript", with("archive/constants.pkl", b"x"), &["TorchScript", "save_pretrained"]),
        ("TorchScript's code", with("archive/code/__torch__.py", b"x"), &["TorchScript"]),
        ("big-endian numbers", with("archive/byteorder", b"big"), &["byte order \"big\"", "save_pretrained"]),
        ("a compressed pickle", edit(10, 8), &["data.pkl compressed", "save_pretrained"]),
        ("an encrypted pickle", edit(8, 1), &["encrypted"]),
        ("two pickles", with("other/data.pkl", b"x"), &["data.pkl"]),
        ("no pickle", pickled::archive(&[("x".into(), vec![])], false), &["no data.pkl"]),
        ("an empty file", vec![], &["0 bytes"]),
        ("a text", b"never unpickled".to_vec(), &["not a torch file"]),
        ("git-lfs's note", b"version https://git-lfs.github.com/spec/v1\noid".to_vec(), &["git lfs pull"]),
        ("no storage", pickled::archive(&pickled::members(pickle(), vec![]), false), &["archive/data/0"]),
        ("a number", pickled::file(Pickle::start().int(3), &[]), &["no state dict"]),
        ("a tensor alone", pickled::file(Pickle::start().view("ByteStorage", "0", 0, &[8], &[1]), &[&[0; 8]]), &["no state dict"]),
        ("an empty dict", pickled::file(Pickle::start().op(b"}"), &[]), &["no tensors"]),
    ];
    for (what, bytes, words) in others {
        if what == "an empty dict" {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("pytorch_model.bin"), bytes).unwrap();
            assert_names(what, &Checkpoint::open("bad", dir.path()).err().unwrap(), words);
            continue;
        }
        assert_names(what, &refusal(what, &bytes), words);
    }
    assert_names(
        "two members of one name",
        &refusal("two", &{
            let mut members = pickled::members(pickle(), pickled::storages(&good().parts));
            members.push(members[2].clone());
            pickled::archive(&members, false)
        }),
        &["archive/data/0 twice"],
    );
}

#[test]
fn tensors_that_cannot_be_merged_are_refused_by_name() {
    check("complex numbers", view("ComplexFloatStorage", 0, &[1], &[1]), &["tensor w", "C64"]);
    check("codes", view("QInt8Storage", 0, &[8], &[1]), &["tensor w", "QI8"]);
    let float8 = one(|pickle| {
        let pickle =
            pickle.global("torch._utils", "_rebuild_tensor_v3").op(b"((").text("storage").global("torch.storage", "UntypedStorage");
        let pickle = pickle.text("0").text("cpu").int(8).op(b"tQ").int(0).ints(&[8]).ints(&[1]).op(&[0x89]).op(b"N");
        pickle.global("torch", "float8_e4m3fn").op(b"tR")
    });
    check("float8", float8, &["tensor w", "quantised", "unquantised"]);
    let int8 = Pickle::start().dict(|pickle| pickle.text("l.weight").view("CharStorage", "0", 0, &[2, 4], &[4, 1]));
    check("8-bit codes", int8, &["tensor l.weight", "quantised"]);
    let huge = i64::MAX;
    let views = [
        view("FloatStorage", 0, &[3], &[1]),
        view("FloatStorage", 2, &[1], &[1]),
        view("FloatStorage", 1, &[2], &[1]),
        view("FloatStorage", huge, &[1], &[1]),
        view("FloatStorage", 0, &[2], &[i64::MAX]),
        view("FloatStorage", 0, &[i64::MAX, i64::MAX, 0], &[0, 0, 0]),
        view("FloatStorage", 0, &[i64::MAX], &[0]),
        view("FloatStorage", 0, &[1 << 32, 1 << 32], &[0, 0]),
        view("DoubleStorage", 0, &[2, 1], &[1, 1]),
    ];
    for pickle in views {
        check("a view beyond its storage", pickle, &["tensor w", "does not fit its storage"]);
    }
    for pickle in [
        view("FloatStorage", -1, &[1], &[1]),
        view("FloatStorage", 0, &[-1], &[1]),
        view("FloatStorage", 1, &[2], &[-1]),
        view("FloatStorage", 0, &[1, 1], &[1]),
        view("FloatStorage", 0, &[1; 17], &[1; 17]),
    ] {
        check("a view of no shape", pickle, &["damaged", "at byte"]);
    }
    // A repeated element may be a tensor larger than any disk: its shape does not fit the others', or the disk is too small.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.pt"), pickled::file(view("FloatStorage", 0, &[1 << 30, 1 << 30], &[0, 0]), &[&[0; 8]])).unwrap();
    let checkpoint = Checkpoint::open("x", &dir.path().join("x.pt")).unwrap();
    let mut some = [1; 64];
    checkpoint.tensor("w").unwrap().read(1 << 50, &mut some).unwrap();
    assert_eq!(some, [0; 64]);
}

#[test]
fn bombs_and_rings_are_refused_in_bounds() {
    let state = |bomb: Pickle| Pickle::start().dict(|pickle| pickle.text("x").op(&bomb.0)).end();
    let repeat = |op: &[u8], count: usize| Pickle(op.repeat(count));
    let file = |pickle: Vec<u8>| pickled::archive(&pickled::members(pickle, vec![]), false);
    for (what, bytes, word) in [
        ("lists without end", Pickle::start().op(&repeat(b"]", 5_000_000).0).0, "steps"),
        ("marks without end", Pickle::start().op(&repeat(b"(", 5_000_000).0).0, "steps"),
        (
            "a memo without end",
            Pickle::start()
                .op(b"]")
                .op(&(0..3_000_000u32).flat_map(|i| [b"r".as_slice(), &i.to_le_bytes()].concat()).collect::<Vec<u8>>())
                .0,
            "steps",
        ),
        ("tuples in tuples", state(Pickle(b")".to_vec()).op(&repeat(&[0x85], 1_500_000).0)), "no tensors"),
        (
            "a thousand million lists by doubling",
            state(Pickle(b"(]q\x02".to_vec()).op(&repeat(b"h\x02h\x02\x86q\x02", 300_000).0).op(b"t")),
            "no tensors",
        ),
        ("a ring", state(Pickle(b"]q\x02h\x02a".to_vec())), "no tensors"),
        ("a ring of dicts", state(Pickle(b"}q\x02K\x01h\x02s".to_vec())), "no tensors"),
        ("a text longer than the file", state(Pickle(b"X\xff\xff\xff\xffhello".to_vec())), "ends too early"),
        ("an integer longer than the file", state(Pickle(b"\x8a\xff\x01".to_vec())), "ends too early"),
        ("a pickle larger than any", vec![b'N'; (32 << 20) + 1], "more than any model needs"),
        ("nothing", vec![], "ends too early"),
        ("a stop", vec![b'.'], "empty stack"),
        ("a mark", b"\x80\x02(.".to_vec(), "mark"),
        ("a tuple without a mark", b"\x80\x02t.".to_vec(), "no mark"),
        ("an empty memo", b"\x80\x02h\x07.".to_vec(), "recalls 7"),
        ("half a pair", b"\x80\x02}(K\x01u.".to_vec(), "without a value"),
        ("a call of nothing", b"\x80\x02K\x01)R.".to_vec(), "no name"),
        ("a list for a storage", b"\x80\x02]Q.".to_vec(), "no storage"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.pt"), file(bytes)).unwrap();
        let began = Instant::now();
        let error = Checkpoint::open("x", &dir.path().join("x.pt")).err().unwrap_or_else(|| panic!("{what} is read"));
        assert!(began.elapsed() < Duration::from_secs(20), "{what} takes {:?}", began.elapsed());
        assert_names(what, &error, &["x.pt", word]);
    }
    // A ring that holds a tensor is walked once.
    let ring = Pickle::start().dict(|pickle| pickle.text("x").op(b"]q\x02h\x02a").view("ByteStorage", "0", 0, &[8], &[1]).op(b"a"));
    check("a ring with a tensor", ring, &["entries x"]);
}

#[test]
fn a_file_that_was_cut_is_refused_wherever_it_was_cut() {
    for wide in [false, true] {
        let pickle = Pickle::start().dict(|pickle| pickled::state(pickle, &good().parts)).end();
        let whole = pickled::archive(&pickled::members(pickle, pickled::storages(&good().parts)), wide);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pt");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = Checkpoint::open("x", &path).err().unwrap_or_else(|| panic!("{length} of {} bytes are read", whole.len()));
            assert_names("a cut file", &error, &["x.pt"]);
        }
        fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(Checkpoint::open("x", &path).is_err(), "a byte after the end");
    }
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad");
    pickled::save_shards(&good(), &path, 2);
    let gone = path.join("pytorch_model-00002-of-00002.bin");
    let bytes = fs::read(&gone).unwrap();
    fs::remove_file(&gone).unwrap();
    let open = || Checkpoint::open("bad", &path).err().unwrap();
    assert_names("a lost shard", &open(), &["pytorch_model.bin.index.json", "pytorch_model-00002-of-00002.bin", "not there"]);
    fs::write(&gone, &bytes[..bytes.len() / 2]).unwrap();
    assert_names("a cut shard", &open(), &["pytorch_model-00002-of-00002.bin", "truncated"]);
    fs::write(&gone, &bytes).unwrap();
    fs::remove_file(path.join("pytorch_model.bin.index.json")).unwrap();
    assert_names("no index", &open(), &["2 .bin files", "pytorch_model.bin.index.json"]);
}

// Anything at all

/// Opens, plans and merges: the answer is a merge or an error of one line.
fn survive(dir: &Path, bytes: &[u8]) -> std::result::Result<(), TestCaseError> {
    good().save(&dir.join("good"));
    fs::create_dir_all(dir.join("bad")).unwrap();
    fs::write(dir.join(FILE), bytes).unwrap();
    if let Err(e) = plan(dir, &means(&["bad", "good"])).and_then(|plan| into_memory(&plan, RUN)) {
        prop_assert!(!e.message.contains('\n'), "{}", e);
    }
    if let Ok(checkpoint) = Checkpoint::open("bad", &dir.join("bad")) {
        mergecore::report::contents(&checkpoint);
        for tensor in checkpoint.tensors.values().filter(|tensor| tensor.bytes() < 1 << 20) {
            prop_assert!(tensor.read(0, &mut vec![0; tensor.bytes() as usize]).is_ok());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_damage_to_a_file_is_a_crash(edits in edits(), wide: bool) {
        let pickle = Pickle::start().dict(|pickle| pickled::state(pickle, &good().parts)).end();
        let whole = pickled::archive(&pickled::members(pickle, pickled::storages(&good().parts)), wide);
        let dir = tempfile::tempdir().unwrap();
        survive(dir.path(), &edited(whole, &edits))?;
    }

    #[test]
    fn no_damage_to_a_pickle_is_a_crash(edits in edits()) {
        let pickle = Pickle::start().dict(|pickle| pickled::state(pickle, &good().parts)).end();
        let members = pickled::members(edited(pickle, &edits), pickled::storages(&good().parts));
        let dir = tempfile::tempdir().unwrap();
        survive(dir.path(), &pickled::archive(&members, false))?;
    }

    /// Operations in any order, so that the machine is reached behind its first checks.
    #[test]
    fn no_program_is_a_crash(ops in prop::collection::vec(0usize..40, 0..60)) {
        let (a, b) = (Pickle::default(), Pickle::default());
        let (tensor, storage) = (a.view("FloatStorage", "0", 0, &[2], &[1]).0, b.storage("FloatStorage", "0").0);
        let words: Vec<&[u8]> = vec![
            b"(", b".", b"N", b"\x88", b"G\0\0\0\0\0\0\0\0", b"K\x02", b"M\x01\x01", b"J\xff\xff\xff\xff", b"\x8a\x01\x80", b"\x8a\x00",
            b"X\x01\0\0\0w", b"X\x07\0\0\0storage", b"X\x01\0\0\x000", b")", b"]", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"}", b"s",
            b"u", b"q\x01", b"q\x02", b"r\x01\0\0\0", b"h\x01", b"h\x02", b"j\x02\0\0\0", b"ccollections\nOrderedDict\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n",
            b"Q", b"R", b"b", &tensor, &storage,
        ];
        let program = ops.iter().fold(Pickle::start(), |pickle, op| pickle.op(words[*op]));
        let dir = tempfile::tempdir().unwrap();
        survive(dir.path(), &pickled::file(program, &[&[0; 8]]))?;
    }
}
