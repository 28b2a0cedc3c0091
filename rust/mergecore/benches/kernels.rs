//! How fast is each kernel? Each gives its naive twin's answer first, or is not measured.
//!
//! Rows are blocks, as a run has them: they fit a core's cache, so this is arithmetic and not memory.

use std::hint::black_box;
use std::time::Duration;

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use mergecore::dtype::{count_unfinite, Dtype, Real};
use mergecore::kernels::geometry::{Geometry, Strip, STRIP};
use mergecore::kernels::select::{Seen, Selector};
use mergecore::kernels::{angle, blend, elect, mask};

#[path = "../tests/naive/mod.rs"]
mod naive;
#[path = "../tests/rows/mod.rs"]
mod rows;

use rows::{row, rows, Flavour, Sample};

/// Elements in a block of the engine.
const BLOCK: usize = 16 * 1024;
const WEIGHTS: [f64; 3] = [0.5, 0.9, 0.3];

fn assert_same<R: Sample>(got: &[R], want: &[R]) {
    assert!(got.len() == want.len() && got.iter().zip(want).all(|(got, want)| got.same(*want)), "another answer than the naive twin's");
}

/// Checks `kernel` against `want` on a copy of `start`, then measures it over the same numbers.
fn measure(criterion: &mut Criterion, name: &str, start: &[f32], want: &[f32], mut kernel: impl FnMut(&mut [f32])) {
    let mut out = start.to_vec();
    kernel(&mut out);
    assert_same(&out, want);
    let mut group = criterion.benchmark_group("kernels");
    group.throughput(Throughput::Elements(start.len() as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            // Always from the same numbers, so that nothing drifts into denormals; the copy is of the cache, and the same for all.
            out.copy_from_slice(black_box(start));
            kernel(black_box(&mut out));
        });
    });
}

fn blending(criterion: &mut Criterion) {
    let (x, y) = (row::<f32>(1, BLOCK, Flavour::Plain), row::<f32>(2, BLOCK, Flavour::Plain));
    let models = rows::<f32>(3, 3, BLOCK, Flavour::Plain);
    measure(criterion, "subtract", &x, &naive::subtract(&x, &y), |x| blend::subtract(x, &y));
    measure(criterion, "add_fused", &x, &naive::add_fused(&x, &y, 0.3), |x| blend::add_fused(x, &y, 0.3));
    measure(criterion, "divide", &x, &naive::divide(&x, 0.3), |x| blend::divide(x, 0.3));
    measure(criterion, "attach", &x, &naive::attach(&x, &y, 0.3), |x| blend::attach(x, &y, 0.3));
    measure(criterion, "combine", &x, &naive::combine(&y, 0.3, &models[0], 0.7), |x| blend::combine(x, &y, 0.3, &models[0], 0.7));
    let want = naive::weighted_sum(BLOCK, &models, &WEIGHTS, true);
    measure(criterion, "weighted_sum of 3", &x, &want, |x| blend::weighted_sum(x, &models, &WEIGHTS, true));
}

fn summing(criterion: &mut Criterion) {
    let (x, y) = (row::<f32>(1, BLOCK, Flavour::Plain), row::<f32>(2, BLOCK, Flavour::Plain));
    type Sum<'a> = (&'a str, f64, &'a dyn Fn() -> f64);
    let sums: [Sum; 3] = [
        ("dot", naive::in_lanes(&naive::products(&x, &y)), &|| angle::dot(black_box(&x), &y)),
        ("l1", naive::in_lanes(&naive::magnitudes(&x)), &|| angle::l1(black_box(&x))),
        ("distances", naive::in_lanes(&naive::squares(&x, &y)), &|| {
            let mut distances = angle::Distances::default();
            distances.add(black_box(&x), &x, &y);
            distances.squared()[0]
        }),
    ];
    let mut group = criterion.benchmark_group("kernels");
    group.throughput(Throughput::Elements(BLOCK as u64));
    for (name, want, sum) in sums {
        assert_eq!(sum(), want, "{name}");
        group.bench_function(name, |bencher| bencher.iter(sum));
    }
    assert_eq!(count_unfinite(&x), (0, 0));
    let strips: Vec<Strip<f32>> = (0..5).map(|seed| Strip(row::<f32>(seed, STRIP, Flavour::Plain).try_into().unwrap())).collect();
    let (mut sums, mut sizes) = (Geometry::of(4), [Default::default(); 4]);
    assert!(sums.add(&strips[0], &strips[1..], &mut sizes, STRIP) && sums.zeros().all(|zeros| zeros == 0.0));
    group.throughput(Throughput::Elements(STRIP as u64));
    group.bench_function("geometry of 4", |bencher| bencher.iter(|| sums.add(black_box(&strips[0]), &strips[1..], &mut sizes, STRIP)));
    group.throughput(Throughput::Elements(BLOCK as u64));
    group.bench_function("count_unfinite", |bencher| bencher.iter(|| count_unfinite(black_box(&x))));
}

/// The tenth largest of a hundred, in a tensor of many blocks: weights, and the few distinct magnitudes of 16-bit deltas.
fn selecting(criterion: &mut Criterion) {
    const COUNT: usize = 64 * BLOCK;
    for (name, flavour) in [("select of 1M", Flavour::Plain), ("select of 1M, tied", Flavour::Tied)] {
        let x = row::<f32>(1, COUNT, flavour);
        let select = || {
            let mut selector = Selector::new::<f32>(COUNT as u64 / 10, COUNT as u64, COUNT / BLOCK, COUNT as u64 / 4);
            let mut seen = Seen::default();
            loop {
                if let Some(cutoff) = selector.cutoff() {
                    break cutoff;
                }
                x.chunks(BLOCK).enumerate().for_each(|(block, x)| selector.observe(block, x, &mut seen));
                selector.absorb(&mut seen);
                selector.advance();
            }
        };
        let (cutoff, mut trimmed) = (select(), x.clone());
        trimmed.chunks_mut(BLOCK).enumerate().for_each(|(block, x)| cutoff.trim(block, x));
        assert_same(&trimmed, &naive::only(&x, &naive::largest(&x, COUNT / 10)));
        let mut group = criterion.benchmark_group("kernels");
        group.throughput(Throughput::Elements(COUNT as u64));
        group.bench_function(name, |bencher| bencher.iter(&select));
        // A block before the last tie.
        let want = naive::only(&x[..BLOCK], &naive::largest(&x, COUNT / 10)[..BLOCK]);
        drop(group);
        measure(criterion, &name.replace("select of 1M", "trim"), &x[..BLOCK], &want, |x| cutoff.trim(0, x));
    }
}

fn electing(criterion: &mut Criterion) {
    let models = rows::<f32>(3, 3, BLOCK, Flavour::Plain);
    let votes: Vec<Vec<f32>> = models.iter().zip(WEIGHTS).map(|(row, w)| naive::scale(row, w as f32)).collect();
    let total = naive::tally(BLOCK, &votes);
    for (name, normalize) in [("disjoint of 3", false), ("disjoint of 3, normalized", true)] {
        let want = naive::disjoint(&total, &votes, &WEIGHTS, normalize, 1.0);
        measure(criterion, name, &total, &want, |out| elect::disjoint(out, &models, &WEIGHTS, normalize, 1.0));
    }
}

fn masking(criterion: &mut Criterion) {
    let x = row::<f32>(1, BLOCK, Flavour::Plain);
    let key = mask::Key::new(42, "w", 0);
    let want = naive::only(&x, &naive::mask(42, "w", 0, 0, BLOCK, 0.3));
    measure(criterion, "mask", &x, &want, |x| mask::apply(key, 0, 0.3, x));
    measure(criterion, "mask and divide", &x, &naive::divide(&want, 0.3), |x| mask::apply_and_divide(key, 0, 0.3, 0.3, x));
}

fn encoding(criterion: &mut Criterion) {
    let x = row::<f32>(1, BLOCK, Flavour::Plain);
    for dtype in Dtype::FLOATS {
        let want: Vec<u8> = x.iter().flat_map(|x| naive::numbers::encode(dtype, f64::from(*x))).collect();
        let mut bytes = vec![0u8; want.len()];
        f32::encode(dtype, &x, &mut bytes);
        assert!(bytes == want, "{dtype:?}");
        let mut group = criterion.benchmark_group("dtype");
        group.throughput(Throughput::Elements(BLOCK as u64));
        group.bench_function(format!("encode {}", dtype.name()), |bencher| bencher.iter(|| f32::encode(dtype, black_box(&x), &mut bytes)));
        drop(group);
        let back: Vec<f32> = want.chunks(dtype.size()).map(|b| naive::numbers::decode(dtype, b) as f32).collect();
        let mut out = vec![0f32; BLOCK];
        f32::decode(dtype, &want, &mut out);
        assert_same(&out, &back);
        let mut group = criterion.benchmark_group("dtype");
        group.throughput(Throughput::Elements(BLOCK as u64));
        group.bench_function(format!("decode {}", dtype.name()), |bencher| bencher.iter(|| f32::decode(dtype, black_box(&want), &mut out)));
    }
}

criterion_group! {
    name = kernels;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30);
    targets = blending, summing, selecting, electing, masking, encoding
}
criterion_main!(kernels);
