//! How fast is each method, from bytes to bytes? In memory, so that no disk is measured; each gives its formula's answer first.
//!
//! The throughput is that of the bytes that a merge must move: every input read once, the output written once. What a method reads again
//! (for a threshold, an angle) is its own cost.

use std::collections::BTreeMap;
use std::time::Duration;

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use mergecore::dtype::Dtype;
use mergecore::methods::METHODS;
use mergecore::plan::{plan, Plan};
use mergecore::recipe::Recipe;
use mergecore::run::{memory, Limits, Watch};

#[path = "../tests/model/mod.rs"]
mod model;
#[path = "../tests/naive/mod.rs"]
mod naive;
#[path = "../tests/rows/mod.rs"]
mod rows;

use model::family::{member, recipe, Setting};
use model::{formula, in_memory, Model, RUN};
use rows::{row, Flavour};

/// A base and its fine-tunes: one bf16 matrix.
fn family(rows: u64) -> Vec<(String, Model)> {
    let shape = [rows, 1024];
    let base = row::<f64>(1, (rows * 1024) as usize, Flavour::Plain);
    let one = |(i, name): (usize, &str)| {
        let delta = row::<f64>(2 + i as u64, base.len(), Flavour::Plain);
        let values: Vec<f64> = base.iter().zip(delta).map(|(x, d)| if i == 0 { *x } else { x + 0.02 * d }).collect();
        (name.to_string(), Model::default().floats("w", Dtype::BF16, &shape, &values))
    };
    ["base", "a", "b", "c"].into_iter().enumerate().map(one).collect()
}

fn merging(criterion: &mut Criterion) {
    let (small, large) = (family(60), family(4096));
    let mut group = criterion.benchmark_group("methods");
    for spec in METHODS {
        let request = recipe(spec, &Setting::new());
        let merged = in_memory(&small, &request, RUN).expect("a merge");
        formula::check(&Recipe::parse(&request.to_string(), false).expect("a recipe"), &small, &merged, None, spec.name);

        let parsed = Recipe::parse(&request.to_string(), false).expect("a recipe");
        let checkpoints = parsed.references().iter().map(|name| member(&large, name).lend(name)).collect();
        let plan: Plan = plan(parsed, checkpoints).expect("a plan");
        let limits = Limits::choose(&plan, None, None, None).expect("no limit");
        let mut out = vec![0u8; plan.bytes_to_write() as usize];
        group.throughput(Throughput::Bytes(plan.bytes_to_read() + plan.bytes_to_write()));
        group.bench_function(spec.name, |bencher| {
            bencher.iter(|| {
                let out = BTreeMap::from([("w".to_string(), &mut out[..])]);
                memory::merge(&plan, limits, out, &Watch::default()).expect("a merge");
            });
        });
    }
}

criterion_group! {
    name = methods;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3)).sample_size(20);
    targets = merging
}
criterion_main!(methods);
