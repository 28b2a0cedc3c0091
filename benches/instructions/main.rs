//! How many instructions does an element take? The program that `benches/instructions.py` counts under callgrind.
//!
//! `instructions NAME TIMES` does one piece of work so many times, on one thread; what two runs differ by is the work itself, without what
//! goes before it. `instructions` alone prints the names, each with the elements of one time.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use mergecore::checkpoint::{Checkpoint, Lent, Tensor};
use mergecore::dtype::{Dtype, Real};
use mergecore::kernels::geometry::{Geometry, Strip, STRIP};
use mergecore::plan::{plan, Plan};
use mergecore::recipe::Recipe;
use mergecore::run::{memory, Limits, Watch};
use mergecore::write::digest::Digest;
use serde_json::json;

const ROWS: usize = 128;
const COLUMNS: usize = 1024;
const COUNT: usize = ROWS * COLUMNS;

/// A sum, changes from a base, an angle, thresholds, masks, both, norms. What looks at singular values is faer's, and not counted here.
const MERGES: [&str; 7] = ["linear", "task_arithmetic", "slerp", "ties", "dare_ties", "della", "model_stock"];

type Work = Box<dyn FnMut()>;

/// Evenly spread from -0.5 to 0.5, at no cost to speak of: a counter's product with the golden ratio.
fn values(seed: u32, scale: f32) -> impl Iterator<Item = f32> {
    (0..COUNT as u32).map(move |i| {
        let spread = (i + seed * 0x0100_0003).wrapping_mul(0x9e37_79b9);
        scale * ((spread ^ (spread >> 15)) as f32 / u32::MAX as f32 - 0.5)
    })
}

/// One matrix of bfloat16: the base, or one that was tuned from it.
fn matrix(member: u32) -> Vec<u8> {
    let tuned = values(1, 0.1).zip(values(2 + member, if member == 0 { 0.0 } else { 0.002 })).map(|(x, d)| x + d);
    tuned.flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

/// The program ends when its work does: what it lends it need not take back.
fn lent(reference: &str, bytes: Vec<u8>) -> Checkpoint<'static> {
    let source = Arc::new(Lent(Vec::leak(bytes)));
    let tensor = Tensor { dtype: Dtype::BF16, shape: vec![ROWS as u64, COLUMNS as u64], file: 0, offset: 0, source };
    Checkpoint::lent(reference, BTreeMap::from([("w".to_string(), tensor)]))
}

fn merging(method: &str) -> Work {
    let names = if method == "slerp" { &["a", "b"][..] } else { &["a", "b", "c"] };
    let models: Vec<_> = names.iter().map(|name| json!({"model": name})).collect();
    let mut recipe = json!({"merge_method": method, "models": models, "seed": 3});
    if !["linear", "slerp"].contains(&method) {
        recipe["base_model"] = json!("base");
    }
    let parsed = Recipe::parse(&recipe.to_string(), false).expect("a recipe");
    let member = |name: &str| ["base", "a", "b", "c"].iter().position(|known| *known == name).expect("a member") as u32;
    let checkpoints = parsed.references().iter().map(|name| lent(name, matrix(member(name)))).collect();
    let plan: Plan = plan(parsed, checkpoints).expect("a plan");
    let limits = Limits::choose(&plan, Some(1), None, None).expect("no limit");
    let mut out = vec![0u8; COUNT * Dtype::BF16.size()];
    Box::new(move || {
        let out = BTreeMap::from([("w".to_string(), &mut out[..])]);
        memory::merge(&plan, limits, out, &Watch::default()).expect("a merge");
    })
}

fn encoding(dtype: Dtype) -> Work {
    let (values, mut bytes): (Vec<f32>, _) = (values(1, 1.0).collect(), vec![0u8; COUNT * dtype.size()]);
    Box::new(move || f32::encode(dtype, black_box(&values), black_box(&mut bytes)))
}

fn decoding(dtype: Dtype) -> Work {
    let (values, mut bytes): (Vec<f32>, _) = (values(1, 1.0).collect(), vec![0u8; COUNT * dtype.size()]);
    f32::encode(dtype, &values, &mut bytes);
    let mut out = vec![0f32; COUNT];
    Box::new(move || f32::decode(dtype, black_box(&bytes), black_box(&mut out)))
}

/// Elements of two bytes, as a merge hands them over: a block at a time.
fn digesting() -> Work {
    let bytes = matrix(0);
    Box::new(move || {
        let digest = Digest::new(bytes.len() as u64);
        bytes.chunks(1 << 15).enumerate().for_each(|(i, block)| digest.add((i << 15) as u64, block));
        black_box(digest.finish());
    })
}

/// A base and three models.
fn comparing() -> Work {
    let strip = |seed: u32| Strip(values(seed, 1.0).take(STRIP).collect::<Vec<f32>>().try_into().expect("a strip"));
    let strips: Vec<Strip<f32>> = (0..4).map(strip).collect();
    let (mut sums, mut sizes) = (Geometry::of(3), [Default::default(); 3]);
    Box::new(move || {
        for _ in 0..COUNT / STRIP {
            black_box(sums.add(black_box(&strips[0]), &strips[1..], &mut sizes, STRIP));
        }
    })
}

fn work(name: &str) -> Work {
    match name {
        "decode bfloat16" => decoding(Dtype::BF16),
        "decode float16" => decoding(Dtype::F16),
        "encode bfloat16" => encoding(Dtype::BF16),
        "encode float16" => encoding(Dtype::F16),
        "digest" => digesting(),
        "compare" => comparing(),
        method => merging(method),
    }
}

const KERNELS: [&str; 6] = ["decode bfloat16", "decode float16", "encode bfloat16", "encode float16", "digest", "compare"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [name, times] => {
            let mut work = work(name);
            (0..times.parse().expect("a number")).for_each(|_| work());
        }
        _ => MERGES.iter().chain(&KERNELS).for_each(|name| println!("{name}\t{COUNT}")),
    }
}
