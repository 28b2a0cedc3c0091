//! Whole or not at all: a run that is stopped at any moment goes on with the same command, and ends with the same bytes.

mod model;
mod naive;
mod rows;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mergecore::checkpoint::{Bytes, Tensor};
use mergecore::error::{Error, Kind, Result};
use mergecore::methods::METHODS;
use mergecore::plan::{Plan, Work};
use mergecore::run::Watch;
use mergecore::verify::verify;
use mergecore::write::documents::{self, Claim};
use mergecore::write::journal::{Journal, Record, NAME as JOURNAL};
use model::family::{family, makes, recipe, save, setting, Make};
use model::{files, finish, plan, Model, Run, RUN};
use rows::Dice;
use serde_json::{json, Value as Json};

type Act<'a> = Arc<dyn Fn(usize) + Send + Sync + 'a>;

/// A tensor's bytes with somebody at the door, who is told the number of every read.
struct Door<'a> {
    bytes: Arc<dyn Bytes + 'a>,
    reads: Arc<AtomicUsize>,
    act: Act<'a>,
}

impl Bytes for Door<'_> {
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        (self.act)(self.reads.fetch_add(1, Ordering::SeqCst));
        self.bytes.read(offset, out)
    }
}

/// Calls `act` before every read of a model's weights while the plan is run.
fn watched<'a>(mut plan: Plan<'a>, act: impl Fn(usize) + Send + Sync + 'a) -> Plan<'a> {
    let (reads, act): (_, Act<'a>) = (Arc::new(AtomicUsize::new(0)), Arc::new(act));
    let door = |tensor: &mut Tensor<'a>| {
        let bytes = tensor.source.clone();
        tensor.source = Arc::new(Door { bytes, reads: reads.clone(), act: act.clone() });
    };
    for job in &mut plan.jobs {
        match &mut job.work {
            Work::Merge { inputs, .. } => inputs.iter_mut().for_each(door),
            Work::Copy(tensor) => door(tensor),
        }
    }
    plan
}

fn partial(out: &Path) -> PathBuf {
    mergecore::write::partial_of(out)
}

/// Lines of the journal that tell of finished tensors.
fn journalled(out: &Path) -> usize {
    fs::read_to_string(partial(out).join(JOURNAL)).map_or(0, |text| text.lines().count().saturating_sub(1))
}

/// Waits until the journal tells of a tensor, at most ten seconds.
fn wait_for_journal(out: &Path) {
    let start = Instant::now();
    while journalled(out) == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "nothing is journalled");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (name, bytes) in files(from) {
        fs::write(to.join(name), bytes).unwrap();
    }
}

/// A merge of one saved family in one folder, with shards, and what it writes when nobody disturbs it.
struct Scene {
    dir: tempfile::TempDir,
    recipe: Json,
    whole: std::collections::BTreeMap<String, Vec<u8>>,
}

const CUT: Run = Run { shard: 40_000, ..RUN };

impl Scene {
    fn new(make: Make, recipe: Json) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        save(&family(make), dir.path());
        Scene::of(dir, recipe)
    }

    fn of(dir: tempfile::TempDir, recipe: Json) -> Scene {
        let out = dir.path().join("whole");
        model::to_disk(dir.path(), &recipe, &out, CUT).unwrap();
        let whole = files(&out);
        Scene { dir, recipe, whole }
    }

    fn ties(make: Make) -> Scene {
        let spec = mergecore::methods::find("ties").unwrap();
        Scene::new(make, recipe(spec, &setting(spec)))
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn plan(&self) -> Plan<'static> {
        plan(self.dir.path(), &self.recipe).unwrap()
    }

    fn run(&self, out: &Path, run: Run) -> Result<Json> {
        finish(&self.plan(), out, run, &Watch::default())
    }

    /// Runs until `stop` says so before read number n, on one thread.
    fn interrupt(&self, out: &Path, stop: impl Fn(usize) -> bool + Send + Sync) {
        let watch = Watch::default();
        let watched = watched(self.plan(), |read| {
            if stop(read) {
                watch.cancelled.store(true, Ordering::SeqCst);
            }
        });
        let error = finish(&watched, out, Run { threads: 1, ..CUT }, &watch).expect_err("is interrupted");
        assert_eq!(error.kind, Kind::Interrupted, "{error}");
        assert!(!out.exists() && partial(out).exists(), "an interrupted merge looks finished");
    }

    /// Runs until the last tensor, waits there for the journal, and stops.
    fn stop_late(&self, out: &Path) {
        let last = self.reads() - 1;
        self.interrupt(out, |read| {
            if read == last {
                wait_for_journal(out);
            }
            read == last
        });
        assert!(journalled(out) > 0);
    }

    /// How often an undisturbed run on one thread reads.
    fn reads(&self) -> usize {
        let count = AtomicUsize::new(0);
        let watched = watched(self.plan(), |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let out = self.dir.path().join("counted");
        finish(&watched, &out, Run { threads: 1, ..CUT }, &Watch::default()).unwrap();
        fs::remove_dir_all(out).unwrap();
        drop(watched);
        count.into_inner()
    }

    #[track_caller]
    fn assert_whole(&self, out: &Path) {
        let got = files(out);
        let differs = |name: &&String| got.get(*name) != self.whole.get(*name);
        let different: Vec<&String> = got.keys().chain(self.whole.keys()).filter(differs).collect();
        assert!(different.is_empty(), "{}: {different:?} differ", self.recipe);
        assert!(!partial(out).exists());
    }
}

#[test]
fn a_merge_stopped_at_any_read_goes_on() {
    for spec in METHODS {
        let scene = Scene::new(Make::Plain, recipe(spec, &setting(spec)));
        let (out, reads) = (scene.out(), scene.reads());
        for at in [0, 1, reads / 4, reads / 2, reads - 1] {
            scene.interrupt(&out, |read| read == at);
        }
        scene.run(&out, Run { threads: 3, tile: 1 << 20, ..CUT }).unwrap();
        scene.assert_whole(&out);
    }
}

#[test]
fn journalled_tensors_are_not_made_again() {
    std::thread::scope(|scope| {
        for (spec, make) in METHODS
            .iter()
            .flat_map(|spec| [Make::Plain, Make::Wild].map(|make| (spec, make)))
            .filter(|(spec, make)| makes(spec).contains(make))
        {
            scope.spawn(move || {
                let scene = Scene::new(make, recipe(spec, &setting(spec)));
                let out = scene.out();
                scene.stop_late(&out);
                let report = scene.run(&out, CUT).unwrap_or_else(|e| panic!("{make:?} {}: {e}", spec.name));
                let (resumed, tensors) = (report["resumed_tensors"].as_u64().unwrap(), report["tensors"].as_u64().unwrap());
                assert!(0 < resumed && resumed < tensors, "{resumed} of {tensors}");
                scene.assert_whole(&out);
            });
        }
    });
}

/// What a kill leaves is what lies in OUT.partial at that moment.
#[test]
fn a_merge_killed_at_any_moment_goes_on() {
    let scene = Scene::ties(Make::Plain);
    let (out, reads) = (scene.out(), scene.reads());
    let left = Mutex::new(Vec::new());
    let watched = watched(scene.plan(), |read| {
        if read + 1 == reads {
            wait_for_journal(&out);
        }
        if read % 7 == 0 || read + 1 == reads {
            let kill = scene.dir.path().join(format!("killed-{read}"));
            copy(&partial(&out), &partial(&kill));
            left.lock().unwrap().push(kill);
        }
    });
    finish(&watched, &out, Run { threads: 1, ..CUT }, &Watch::default()).unwrap();
    scene.assert_whole(&out);
    let left = left.lock().unwrap();
    assert!(left.len() > 3);
    for kill in left.iter() {
        scene.run(kill, CUT).unwrap();
        scene.assert_whole(kill);
    }
}

#[test]
fn a_journal_cut_anywhere_is_no_obstacle() {
    // A name of many bytes a letter: a cut falls into the middle of one.
    let dir = tempfile::tempdir().unwrap();
    for (name, x) in [("a", 1.0), ("b", 3.0)] {
        let model = Model::default().floats("日本語.weight", mergecore::dtype::Dtype::F32, &[2], &[x, x]);
        model.floats("zulu", mergecore::dtype::Dtype::F32, &[2], &[x, -x]).save(&dir.path().join(name));
    }
    let scene = Scene::of(dir, json!({"merge_method": "linear", "models": ["a", "b"]}));
    let out = scene.out();
    scene.stop_late(&out);
    let journal = fs::read(partial(&out).join(JOURNAL)).unwrap();
    for cut in 0..journal.len() {
        let again = scene.dir.path().join("again");
        copy(&partial(&out), &partial(&again));
        fs::write(partial(&again).join(JOURNAL), &journal[..cut]).unwrap();
        scene.run(&again, CUT).unwrap_or_else(|e| panic!("cut at {cut} of {}: {e}", journal.len()));
        scene.assert_whole(&again);
        fs::remove_dir_all(again).unwrap();
    }
}

#[test]
fn a_damaged_journal_is_refused_by_name() {
    let scene = Scene::ties(Make::Plain);
    let out = scene.out();
    scene.stop_late(&out);
    let path = partial(&out).join(JOURNAL);
    let journal = fs::read(&path).unwrap();
    let mut dice = Dice(1);
    let mut refused = 0;
    for _ in 0..60 {
        let mut damaged = journal.clone();
        let at = dice.below(damaged.len() as u64) as usize;
        damaged[at] = dice.next() as u8;
        fs::write(&path, &damaged).unwrap();
        let again = scene.dir.path().join("again");
        copy(&partial(&out), &partial(&again));
        match scene.run(&again, CUT) {
            Ok(_) => fs::remove_dir_all(&again).unwrap(),
            Err(e) => {
                refused += 1;
                assert!(e.message.contains("again.partial") && !e.message.contains('\n'), "{e}");
                fs::remove_dir_all(partial(&again)).unwrap();
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn another_recipes_leftovers_are_refused_unless_overwritten() {
    let mut scene = Scene::ties(Make::Plain);
    let out = scene.out();
    scene.interrupt(&out, |read| read == 5);
    let recipe = scene.recipe.clone();
    for (key, value) in [("seed", json!(4)), ("dtype", json!("float32")), ("models", json!(["a", "b"])), ("ignore", json!(["model.flags"]))]
    {
        scene.recipe[key] = value;
        let error = scene.run(&out, CUT).expect_err(key);
        assert!(error.kind == Kind::Exists && error.message.contains("out.partial"), "{error}");
        assert!(error.message.contains("another recipe") && error.message.contains("--overwrite"), "{error}");
        scene.recipe = recipe.clone();
    }
    // Another layout is another output, too.
    let error = scene.run(&out, RUN).unwrap_err();
    assert!(error.kind == Kind::Exists, "{error}");
    // The same inputs at another time are other inputs.
    let input = scene.dir.path().join("a/model.safetensors");
    let bytes = fs::read(&input).unwrap();
    fs::write(&input, &bytes).unwrap();
    let error = scene.run(&out, CUT).unwrap_err();
    assert!(error.kind == Kind::Exists && error.message.contains("inputs have changed"), "{error}");
    let tensors = |folder: &Path| model::read_back(folder);
    scene.run(&out, Run { overwrite: true, ..CUT }).unwrap();
    assert!(tensors(&out) == tensors(&scene.dir.path().join("whole")));
}

#[test]
fn leftovers_that_lost_a_shard_are_not_trusted() {
    let scene = Scene::ties(Make::Plain);
    let out = scene.out();
    scene.stop_late(&out);
    for damage in [|path: &Path| fs::remove_file(path), |path: &Path| fs::OpenOptions::new().write(true).open(path)?.set_len(100)] {
        let again = scene.dir.path().join("again");
        copy(&partial(&out), &partial(&again));
        model::shards(&partial(&again)).iter().for_each(|path| damage(path).unwrap());
        // Killed once more, before anything is made again: the files have their size back, and not their bytes.
        scene.interrupt(&again, |read| read == 0);
        scene.run(&again, CUT).unwrap();
        scene.assert_whole(&again);
        fs::remove_dir_all(&again).unwrap();
    }
}

#[test]
fn records_come_back_from_the_journal_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(1);
    let mut deltas: Vec<Option<[f64; 2]>> = (0..2000).map(|_| Some([dice.unit().abs(), f64::from_bits(dice.next() >> 2)])).collect();
    deltas.extend([None, Some([0.0, -0.0]), Some([f64::INFINITY, 1.0]), Some([f64::NAN, f64::NAN]), Some([5e-324, f64::MAX])]);
    let record = |(i, delta): (usize, Option<[f64; 2]>)| Record {
        name: format!("t{i}"),
        digest: "d".into(),
        delta,
        unfinite: [1, u64::MAX],
        sources: vec![[2, 3]],
        spectra: json!([{"part": "q", "rank": i, "noise_share": 1.0 / (i + 3) as f64}]),
    };
    let records: Vec<Record> = deltas.into_iter().enumerate().map(record).collect();
    let (mut journal, none) = Journal::open(dir.path(), "recipe", "inputs", false).unwrap();
    assert!(none.is_empty());
    records.chunks(100).for_each(|some| journal.add(some.to_vec()).unwrap());
    drop(journal);
    let (_, read) = Journal::open(dir.path(), "recipe", "inputs", false).unwrap();
    assert_eq!(read.len(), records.len());
    for record in &records {
        // By bits: NaN is not equal to itself.
        let bits = |record: &Record| record.delta.map(|delta| delta.map(f64::to_bits));
        let back = &read[&record.name];
        assert_eq!(bits(back), bits(record), "{:?} came back as {:?}", record.delta, back.delta);
        assert_eq!((&back.digest, back.unfinite, &back.sources), (&record.digest, record.unfinite, &record.sources));
        assert_eq!(back.spectra, record.spectra);
    }
}

#[test]
fn a_line_is_not_glued_to_one_that_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let record = |name: &str| Record {
        name: name.into(),
        digest: "d".into(),
        delta: None,
        unfinite: [0, 0],
        sources: Vec::new(),
        spectra: Json::Null,
    };
    let open = || Journal::open(dir.path(), "recipe", "inputs", false).unwrap();
    open().0.add(vec![record("one")]).unwrap();
    let path = dir.path().join(JOURNAL);
    fs::write(&path, [fs::read(&path).unwrap(), b"{\"done\": [{\"na".to_vec()].concat()).unwrap();
    open().0.add(vec![record("two")]).unwrap();
    assert_eq!(open().1.into_keys().collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn two_merges_do_not_write_to_one_place() {
    let scene = Scene::ties(Make::Plain);
    let out = scene.out();
    let second = |overwrite: bool| {
        let error = scene.run(&out, Run { overwrite, ..CUT }).expect_err("somebody writes there");
        assert!(error.kind == Kind::Exists && error.message.contains("out.partial") && error.message.contains("another"), "{error}");
    };
    let watched = watched(scene.plan(), |read| {
        if read == 3 {
            second(false);
            second(true);
        }
    });
    finish(&watched, &out, CUT, &Watch::default()).unwrap();
    scene.assert_whole(&out);
}

#[test]
fn what_stands_at_out_stays_until_the_merge_is_whole() {
    let scene = Scene::ties(Make::Plain);
    let out = scene.out();
    copy(&scene.dir.path().join("a"), &out);
    let old = files(&out);
    let refused = scene.run(&out, CUT).unwrap_err();
    assert!(refused.kind == Kind::Exists && refused.message.contains("--overwrite"), "{refused}");
    let watch = Watch::default();
    let stopped = watched(scene.plan(), |read| {
        assert!(files(&out) == old);
        watch.cancelled.fetch_or(read == 9, Ordering::SeqCst);
    });
    finish(&stopped, &out, Run { overwrite: true, threads: 1, ..CUT }, &watch).unwrap_err();
    assert!(files(&out) == old, "the old output is gone and the new one is not whole");
    scene.run(&out, Run { overwrite: true, ..CUT }).unwrap();
    scene.assert_whole(&out);
    let left: Vec<String> =
        fs::read_dir(scene.dir.path()).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(left.iter().all(|name| !name.contains("replaced")), "{left:?}");
}

#[test]
fn an_output_that_appears_meanwhile_is_not_replaced() {
    let scene = Scene::ties(Make::Plain);
    let out = scene.out();
    let watched = watched(scene.plan(), |read| {
        if read == 3 {
            fs::create_dir(&out).unwrap();
            fs::write(out.join("mine"), "x").unwrap();
        }
    });
    let error: Error = finish(&watched, &out, CUT, &Watch::default()).unwrap_err();
    assert!(error.message.contains("out.partial"), "{error}");
    assert_eq!(files(&out).len(), 1);
    fs::remove_dir_all(&out).unwrap();
    let report = scene.run(&out, CUT).unwrap();
    assert_eq!(report["resumed_tensors"], report["tensors"], "a finished merge is made again");
    scene.assert_whole(&out);
    assert_eq!(verify(&out, 1, &Watch::default()).unwrap().problems, Vec::<String>::new());
}

/// Killed between the two renames that put the new output in place of the old one.
#[test]
fn an_output_that_was_moved_aside_is_not_lost() {
    let scene = Scene::ties(Make::Plain);
    let out = scene.out();
    copy(&scene.dir.path().join("a"), &out);
    let old = files(&out);
    let watch = Watch::default();
    let stopped = watched(scene.plan(), |read| {
        watch.cancelled.fetch_or(read == 9, Ordering::SeqCst);
    });
    finish(&stopped, &out, Run { overwrite: true, threads: 1, ..CUT }, &watch).unwrap_err();
    fs::rename(&out, partial(&out).join(".mergecore-replaced")).unwrap();
    // Without --overwrite the old one is back where it was; with it, the new one takes its place.
    let refused = scene.run(&out, CUT).unwrap_err();
    assert!(refused.kind == Kind::Exists && files(&out) == old, "{refused}");
    scene.run(&out, Run { overwrite: true, ..CUT }).unwrap();
    scene.assert_whole(&out);
}

/// Killed between the rename that puts the output in its place and the end.
#[test]
fn what_a_kill_after_the_last_rename_has_left_goes() {
    let scene = Scene::ties(Make::Plain);
    let out = scene.out();
    scene.run(&out, CUT).unwrap();
    let whole = files(&out);
    let leave = || {
        fs::write(out.join(".mergecore-journal.jsonl"), "{}\n").unwrap();
        copy(&scene.dir.path().join("a"), &out.join(".mergecore-replaced"));
    };
    leave();
    let refused = scene.run(&out, CUT).unwrap_err();
    assert!(refused.kind == Kind::Exists && refused.message.contains("--overwrite"), "{refused}");
    assert!(files(&out) == whole && !out.join(".mergecore-replaced").exists());
    // A run that is just about to do it is left to it.
    leave();
    let living = fs::File::open(out.join(".mergecore-journal.jsonl")).unwrap();
    // SAFETY: the descriptor is open; a lock cannot touch memory.
    assert_eq!(unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(&living), libc::LOCK_EX) }, 0);
    scene.run(&out, CUT).unwrap_err();
    assert!(out.join(".mergecore-replaced").exists());
    drop(living);
    // What is not whole is no output of ours, whatever lies in it.
    fs::remove_file(out.join("mergecore.json")).unwrap();
    scene.run(&out, CUT).unwrap_err();
    assert!(out.join(".mergecore-replaced").exists());
}

#[test]
fn a_neighbour_with_a_name_like_ours_is_left_alone() {
    let scene = Scene::ties(Make::Plain);
    // OUT.replaced is where --overwrite moves what stood at OUT; it may be somebody's.
    for overwrite in [false, true] {
        let out = scene.dir.path().join(format!("neighbour-{overwrite}"));
        let neighbour = scene.dir.path().join(format!("neighbour-{overwrite}.replaced"));
        copy(&scene.dir.path().join("a"), &neighbour);
        if overwrite {
            copy(&scene.dir.path().join("b"), &out);
        }
        let merged = scene.run(&out, Run { overwrite, ..CUT });
        assert!(neighbour.join("model.safetensors").exists(), "{}: a model was deleted that nobody named", neighbour.display());
        if let Err(e) = merged {
            assert!(e.message.contains("replaced"), "{e}");
        }
    }
}

/// What a recipe of two documents leaves when it is stopped in the last: `one` in OUT.partial, an output of its own, and the journal.
fn of_documents() -> (Scene, PathBuf, PathBuf, Claim) {
    let dir = tempfile::tempdir().unwrap();
    save(&family(Make::Plain), dir.path());
    let (out, one) = (dir.path().join("out"), dir.path().join("out.partial/.mergecore-documents/one"));
    let claim = documents::claim(&out, &[], "request", false).unwrap();
    let mean = json!({"merge_method": "linear", "models": ["a", "b"]});
    model::to_disk(dir.path(), &mean, &one, CUT).unwrap();
    let last = json!({"merge_method": "linear", "models": ["out.partial/.mergecore-documents/one", "a"]});
    (Scene::of(dir, last), out, one, claim)
}

#[test]
fn documents_stay_until_the_output_is_whole_and_then_go() {
    let (scene, out, one, claim) = of_documents();
    scene.stop_late(&out);
    drop(claim);
    for (request, overwrite) in [("request", false), ("request", true), ("another", true)] {
        let left = files(&one);
        documents::claim(&out, &[], request, overwrite).unwrap();
        assert_eq!(files(&one), left, "a document may be of use to another recipe: {request}");
    }
    drop(documents::claim(&out, &[], "request", true).unwrap());
    // Made again it is the same, whenever that is: what was made of it is still good.
    scene.stop_late(&out);
    fs::remove_dir_all(&one).unwrap();
    model::to_disk(scene.dir.path(), &json!({"merge_method": "linear", "models": ["a", "b"]}), &one, CUT).unwrap();
    let report = scene.run(&out, CUT).unwrap();
    assert!(report["resumed_tensors"].as_u64().unwrap() > 0);
    assert!(!out.join(".mergecore-documents").exists());
    scene.assert_whole(&out);
}

#[test]
fn another_merge_does_not_go_on_among_documents() {
    let (scene, out, one, claim) = of_documents();
    let other = json!({"merge_method": "linear", "models": ["b", "a"]});
    let merge = |overwrite| model::to_disk(scene.dir.path(), &other, &out, Run { overwrite, ..CUT });
    let refused = |result: Result<Json>, word: &str| {
        let error = result.expect_err("is refused");
        assert!(error.kind == Kind::Exists && error.message.contains(word), "{error}");
        assert!(one.join("mergecore.json").exists());
    };
    refused(merge(false), "--overwrite");
    refused(merge(true), "another mergecore");
    refused(documents::claim(&out, &[], "request", true).map(|_| Json::Null), "another mergecore");
    drop(claim);
    refused(documents::claim(&out, &[], "another", false).map(|_| Json::Null), "another recipe");
    merge(true).unwrap();
    assert!(!out.join(".mergecore-documents").exists() && !partial(&out).exists());
}
