//! Tensors that are taken one by one: the bytes and the report of a merge onto the disk, in memory that does not grow with the model.

mod model;
mod naive;
mod rows;

use std::fs::OpenOptions;

use mergecore::error::{Kind, Result};
use mergecore::layout::Layout;
use mergecore::methods::METHODS;
use mergecore::plan::Plan;
use mergecore::run::device::Device;
use mergecore::run::stream::{Source, Stream};
use mergecore::run::Limits;
use model::family::{family, makes, recipe, save, setting, Make};
use model::{laid_out, plan, read_back, to_disk, Model, Part, Run, RUN};
use serde_json::{json, Value as Json};

struct Held {
    plan: Plan<'static>,
    layout: Layout,
    limits: Limits,
}

impl Source for Held {
    fn plan(&self) -> &Plan<'static> {
        &self.plan
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn device(&self) -> Option<&dyn Device> {
        None
    }
}

fn held(dir: &std::path::Path, recipe: &Json, run: Run) -> Held {
    let plan = plan(dir, recipe).unwrap();
    let (layout, limits) = laid_out(&plan, run).unwrap();
    Held { plan, layout, limits }
}

/// All that a stream gives, and what it tells at its end.
fn taken(held: Held, ahead: u64) -> Result<(Model, Json)> {
    let parts: Vec<Part> = {
        let part =
            |job: &mergecore::plan::Job| Part { name: job.name.clone(), dtype: job.dtype, shape: job.shape.clone(), bytes: Vec::new() };
        held.plan.jobs.iter().map(part).collect()
    };
    let stream = Stream::begin(held, ahead);
    let mut found = Vec::new();
    while let Some(merged) = stream.next()? {
        found.push(Part { bytes: merged.bytes, ..parts[merged.job].clone() });
    }
    assert!(stream.next()?.is_none(), "the end stays the end");
    found.sort_by(|a: &Part, b: &Part| a.name.cmp(&b.name));
    let report = serde_json::from_str(&stream.report().expect("it has ended")).unwrap();
    Ok((Model { parts: found, config: None }, report))
}

#[test]
fn every_method_gives_a_stream_what_it_gives_the_disk() {
    for make in [Make::Plain, Make::Mixed, Make::Tied] {
        let (family, dir) = (family(make), tempfile::tempdir().unwrap());
        save(&family, dir.path());
        for spec in METHODS.iter().filter(|spec| makes(spec).contains(&make)) {
            let recipe = recipe(spec, &setting(spec));
            let out = dir.path().join(format!("out-{}", spec.name));
            let report = to_disk(dir.path(), &recipe, &out, RUN).unwrap();
            let whole = read_back(&out);
            for (threads, ahead) in [(1, 0), (3, 0), (2, 1 << 30)] {
                let (model, told) = taken(held(dir.path(), &recipe, Run { threads, ..RUN }), ahead).unwrap();
                assert!(model == whole, "{recipe}: {threads} threads, {ahead} bytes ahead");
                for key in ["delta_norm", "delta_norm_rounded", "nan", "inf", "warnings", "bytes_read", "parameter_count"] {
                    assert_eq!(told[key], report[key], "{recipe}: {key}");
                }
                assert_eq!((&told["bytes_written"], &told["files"]), (&json!(0), &json!([])));
            }
        }
    }
}

#[test]
fn equal_weights_have_one_digest_and_others_another() {
    let (family, dir) = (family(Make::Plain), tempfile::tempdir().unwrap());
    save(&family, dir.path());
    let digest = |lambda: f64| {
        let recipe =
            json!({"merge_method": "task_arithmetic", "base_model": "base", "models": [{"model": "a"}], "parameters": {"lambda": lambda}});
        let stream = Stream::begin(held(dir.path(), &recipe, RUN), 0);
        assert!(stream.digest(&plan(dir.path(), &recipe).unwrap()).is_none(), "not before its end");
        while stream.next().unwrap().is_some() {}
        stream.digest(&plan(dir.path(), &recipe).unwrap()).expect("it has ended")
    };
    assert_eq!(digest(0.5), digest(0.5));
    assert_ne!(digest(0.5), digest(0.25));
}

/// Whoever leaves does not wait for the rest, and the engine does not wait for whoever has left.
#[test]
fn a_stream_that_is_let_go_of_ends() {
    let (family, dir) = (family(Make::Plain), tempfile::tempdir().unwrap());
    save(&family, dir.path());
    for spec in METHODS {
        for take in 0..2 {
            let stream = Stream::begin(held(dir.path(), &recipe(spec, &setting(spec)), RUN), 0);
            for _ in 0..take {
                stream.next().unwrap();
            }
            drop(stream); // it joins the engine's thread
        }
    }
}

#[test]
fn what_happens_to_an_input_is_told_in_the_end() {
    let (family, dir) = (family(Make::Plain), tempfile::tempdir().unwrap());
    save(&family, dir.path());
    let held = held(dir.path(), &json!({"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]}), RUN);
    let file = model::shards(&dir.path().join("b")).remove(0);
    OpenOptions::new().write(true).open(&file).unwrap().set_len(100).unwrap();
    let error = taken(held, 0).expect_err("a model is gone");
    assert!(error.message.contains(file.to_str().unwrap()), "{}", error.message);
    assert_eq!(error.kind, Kind::Run);
}
