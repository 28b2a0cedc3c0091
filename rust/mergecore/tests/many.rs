//! Many recipes with one reading: the bytes of each are those of a run of its own, and no piece of a model is read twice.

mod model;
mod naive;
mod rows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use mergecore::checkpoint::opened::Opened;
use mergecore::checkpoint::{Bytes, Tensor};
use mergecore::error::{Kind, Result};
use mergecore::layout::layout;
use mergecore::methods::{find, METHODS};
use mergecore::plan::{self, Plan, Work};
use mergecore::recipe::Recipe;
use mergecore::run::disk::{merge_many, Order};
use mergecore::run::{groups, Watch};
use mergecore::write::partial_of;
use model::family::{family, makes, recipe, recipes, save, setting, Make};
use model::{files, to_disk, Run, RUN};
use serde_json::{json, Value as Json};

const CUT: Run = Run { shard: 40_000, ..RUN };

/// The plans of several recipes over the models in `dir`, which are opened once.
fn plans(dir: &Path, recipes: &[Json]) -> Vec<Plan<'static>> {
    let opened = Opened::default();
    let plan = |recipe: &Json| {
        let recipe = Recipe::parse(&recipe.to_string(), false).unwrap();
        let open = |name: String| opened.checkpoint(&name, &dir.join(&name), None).unwrap();
        let checkpoints = recipe.references().into_iter().map(open).collect();
        plan::plan(recipe, checkpoints).unwrap()
    };
    recipes.iter().map(plan).collect()
}

fn outs(dir: &Path, count: usize) -> Vec<PathBuf> {
    (0..count).map(|i| dir.join(format!("out-{i}"))).collect()
}

fn together(plans: &[Plan], outs: &[PathBuf], room: (Option<usize>, Option<u64>), watch: &Watch) -> Result<Vec<Json>> {
    let layouts: Vec<_> = plans.iter().map(|plan| layout(plan, CUT.shard).unwrap()).collect();
    let order = |((plan, layout), out): ((_, _), &PathBuf)| Order {
        title: format!("recipe for {}", out.file_name().unwrap().display()),
        plan,
        layout,
        out: out.clone(),
        side_files: Vec::new(),
    };
    let orders = plans.iter().zip(&layouts).zip(outs).map(order).collect();
    merge_many(orders, room, &[], false, watch).map(|reports| reports.into_iter().map(|report| report.0).collect())
}

/// What each recipe makes in a run of its own.
fn apart(dir: &Path, recipes: &[Json]) -> Vec<BTreeMap<String, Vec<u8>>> {
    let alone = |(i, recipe)| {
        let out = dir.join(format!("alone-{i}"));
        to_disk(dir, recipe, &out, CUT).unwrap();
        files(&out)
    };
    recipes.iter().enumerate().map(alone).collect()
}

#[track_caller]
fn assert_same(recipes: &[Json], outs: &[PathBuf], apart: &[BTreeMap<String, Vec<u8>>], how: &str) {
    for ((recipe, out), want) in recipes.iter().zip(outs).zip(apart) {
        let got = files(out);
        let different: Vec<_> = got.keys().chain(want.keys()).filter(|name| got.get(*name) != want.get(*name)).collect();
        assert!(different.is_empty() && !partial_of(out).exists(), "{how}: {recipe}: {different:?} differ");
    }
}

/// Some recipes in which the same models are in other places, or not at all.
fn mixed() -> Vec<Json> {
    let of = |name: &str| recipe(find(name).unwrap(), &setting(find(name).unwrap()));
    let mut all: Vec<Json> = ["task_arithmetic", "ties", "linear", "dare_ties", "slerp", "breadcrumbs"].map(of).into();
    let other = |mut recipe: Json, key: &str, value: Json| {
        recipe["parameters"][key] = value;
        recipe
    };
    all.push(other(of("task_arithmetic"), "lambda", json!(1.5)));
    all.push(other(of("ties"), "lambda", json!(0.5)));
    all.push(json!({"merge_method": "task_arithmetic", "base_model": "a", "models": [{"model": "c"}]}));
    all.push(json!({"merge_method": "task_arithmetic", "base_model": "base", "models": [{"model": "b"}], "onto": "c"}));
    all.push(json!({"merge_method": "linear", "models": [{"model": "c"}, {"model": "base"}], "dtype": "float64"}));
    all
}

#[test]
fn every_method_makes_the_same_bytes_beside_all_others() {
    for make in [Make::Plain, Make::Mixed, Make::Tied, Make::Wild] {
        let dir = tempfile::tempdir().unwrap();
        save(&family(make), dir.path());
        let specs = METHODS.iter().filter(|spec| makes(spec).contains(&make));
        let all: Vec<Json> = specs.flat_map(|spec| recipes(spec, &setting(spec))).chain(mixed()).collect();
        let apart = apart(dir.path(), &all);
        for (threads, cap) in [(1, None), (3, None), (2, Some(80 << 20))] {
            let outs = outs(&dir.path().join(format!("{threads}")), all.len());
            let reports = together(&plans(dir.path(), &all), &outs, (Some(threads), cap), &Watch::default()).unwrap();
            assert_eq!(reports.len(), all.len());
            assert_same(&all, &outs, &apart, &format!("{make:?}, {threads} threads, {cap:?}"));
        }
    }
}

type Act<'a> = Arc<dyn Fn(usize) + Send + Sync + 'a>;

/// A source that tells the number of every read.
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

/// Puts one door before each source, whichever plans read it; counts the reads.
fn watched<'a>(mut plans: Vec<Plan<'a>>, act: impl Fn(usize) + Send + Sync + 'a) -> (Vec<Plan<'a>>, Arc<AtomicUsize>) {
    let (reads, act): (Arc<AtomicUsize>, Act<'a>) = (Arc::default(), Arc::new(act));
    let mut doors: BTreeMap<usize, Arc<dyn Bytes + 'a>> = BTreeMap::new();
    let mut door = |tensor: &mut Tensor<'a>| {
        let (place, bytes) = (tensor.place().0, tensor.source.clone());
        let made = || Arc::new(Door { bytes, reads: reads.clone(), act: act.clone() }) as Arc<dyn Bytes + 'a>;
        tensor.source = doors.entry(place).or_insert_with(made).clone();
    };
    for job in plans.iter_mut().flat_map(|plan| &mut plan.jobs) {
        match &mut job.work {
            Work::Merge { base, inputs, onto } => base.iter_mut().chain(inputs).chain(onto).for_each(&mut door),
            Work::Copy(tensor) => door(tensor),
        }
    }
    (plans, reads)
}

/// How many reads of models' floats these recipes take together.
fn reads(dir: &Path, recipes: &[Json], name: &str) -> usize {
    let (plans, reads) = watched(plans(dir, recipes), |_| ());
    together(&plans, &outs(&dir.join(name), recipes.len()), (Some(2), None), &Watch::default()).unwrap();
    let copied = |plan: &Plan| plan.jobs.iter().filter(|job| matches!(job.work, Work::Copy(_))).count();
    reads.load(Ordering::SeqCst) - plans.iter().map(copied).sum::<usize>()
}

#[test]
fn what_several_want_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    save(&family(Make::Plain), dir.path());
    let with = |name: &str, key: &str, value: f64| {
        let mut recipe = recipe(find(name).unwrap(), &setting(find(name).unwrap()));
        recipe["parameters"][key] = json!(value);
        recipe
    };
    let lambdas: Vec<Json> = (1..6).map(|i| with("task_arithmetic", "lambda", f64::from(i))).collect();
    let once = reads(dir.path(), &lambdas[..1], "one");
    assert_eq!(reads(dir.path(), &lambdas, "five"), once);
    // The pass for thresholds is shared, too; the others wait for the last reading.
    let ties = [
        with("ties", "lambda", 1.0),
        with("ties", "lambda", 0.5),
        with("task_arithmetic", "lambda", 1.0),
        with("dare_ties", "lambda", 2.0),
    ];
    let twice = reads(dir.path(), &ties[..1], "one of ties");
    assert!(twice > once);
    assert_eq!(reads(dir.path(), &ties, "four"), twice);
}

#[test]
fn recipes_that_do_not_fit_together_run_in_groups() {
    let dir = tempfile::tempdir().unwrap();
    save(&family(Make::Plain), dir.path());
    let all: Vec<Json> = mixed().into_iter().cycle().take(24).collect();
    let (plans, apart) = (plans(dir.path(), &all), apart(dir.path(), &all));
    let planned: Vec<&Plan> = plans.iter().collect();
    let count = |cap: Option<u64>| groups(&planned, Some(2), cap).unwrap().iter().map(|group| group.recipes.len()).collect::<Vec<_>>();
    assert_eq!(count(None), [24], "they all read the same models");
    let cap = Some(45 << 20);
    let some = count(cap);
    assert!(some.len() > 1 && some.iter().sum::<usize>() == 24 && some[0] > 1, "{some:?}");
    let outs = outs(&dir.path().join("grouped"), all.len());
    together(&plans, &outs, (Some(2), cap), &Watch::default()).unwrap();
    assert_same(&all, &outs, &apart, "grouped");
}

#[test]
fn one_that_is_wrong_stops_all_before_the_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    save(&family(Make::Plain), dir.path());
    let all = mixed();
    let (plans, outs) = (plans(dir.path(), &all), outs(&dir.path().join("new"), all.len()));
    let refused = |outs: &[PathBuf], plans: &[Plan], words: &str| {
        let error = together(plans, outs, (None, None), &Watch::default()).unwrap_err();
        assert!(error.message.contains(words), "{error}");
        let begun = outs.iter().filter(|out| partial_of(out).exists()).count();
        error.kind == Kind::Exists && begun == 0
    };
    // Somebody else's folder.
    std::fs::create_dir_all(&outs[3]).unwrap();
    assert!(refused(&outs, &plans, "recipe for out-3: "));
    std::fs::remove_dir(&outs[3]).unwrap();
    // Another recipe's leftovers.
    let watch = Watch::default();
    let (stopped, _) = watched(plans_of(dir.path(), &all[1..2]), |_| watch.cancelled.store(true, Ordering::SeqCst));
    together(&stopped, &outs[2..3], (None, None), &watch).unwrap_err();
    let error = together(&plans, &outs, (None, None), &Watch::default()).unwrap_err();
    assert!(error.message.starts_with("recipe for out-2: ") && error.message.contains("of another recipe"), "{error}");
    assert_eq!(outs.iter().filter(|out| partial_of(out).exists()).count(), 1);
    std::fs::remove_dir_all(partial_of(&outs[2])).unwrap();
    // One output for two, and one inside another's.
    let (mut twice, mut inside) = (outs.clone(), outs.clone());
    twice[4] = outs[1].join(".");
    inside[4] = partial_of(&outs[1]).join("x");
    assert!(refused(&twice, &plans, "is the output of two recipes"));
    assert!(refused(&inside, &plans, "would lie inside another output"));
    // An input of another recipe.
    let mut input = outs.clone();
    input[2] = dir.path().join("c");
    assert!(refused(&input, &plans, "input"));
}

use plans as plans_of;

#[test]
fn what_is_stopped_goes_on_and_what_is_whole_stays() {
    let dir = tempfile::tempdir().unwrap();
    save(&family(Make::Plain), dir.path());
    let all = mixed();
    let (apart, outs) = (apart(dir.path(), &all), outs(&dir.path().join("new"), all.len()));
    let (counted, reads) = watched(plans(dir.path(), &all), |_| ());
    together(&counted, &outs, (Some(1), None), &Watch::default()).unwrap();
    let reads = reads.load(Ordering::SeqCst);
    std::fs::remove_dir_all(dir.path().join("new")).unwrap();
    // One that is whole already: made by an earlier call.
    together(&plans(dir.path(), &all)[..1], &outs[..1], (None, None), &Watch::default()).unwrap();
    let made = std::fs::metadata(&outs[0]).unwrap().modified().unwrap();
    for at in [0, 1, reads / 4, reads / 2] {
        let watch = Watch::default();
        let stop = |read: usize| {
            if read == at {
                watch.cancelled.store(true, Ordering::SeqCst)
            }
        };
        let (stopped, _) = watched(plans(dir.path(), &all), stop);
        let error = together(&stopped, &outs, (Some(1), None), &watch).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (Kind::Interrupted, "interrupted"));
        assert!(outs[1..].iter().all(|out| !out.exists() && partial_of(out).exists()));
    }
    let reports = together(&plans(dir.path(), &all), &outs, (Some(3), None), &Watch::default()).unwrap();
    assert_same(&all, &outs, &apart, "stopped");
    assert_eq!(std::fs::metadata(&outs[0]).unwrap().modified().unwrap(), made);
    assert_eq!((&reports[0]["resumed_tensors"], &reports[0]["bytes_read"]), (&reports[0]["tensors"], &json!(0)));
    // All are whole: nothing is left to do.
    together(&plans(dir.path(), &all), &outs, (None, None), &Watch::default()).unwrap();
}
