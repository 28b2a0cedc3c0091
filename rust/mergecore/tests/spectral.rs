//! Are matrices multiplied, decomposed and put together as the formulas have it, with the same bytes for any number of threads?

mod model;
mod naive;
mod rows;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use faer::Mat;
use mergecore::error::Kind;
use mergecore::kernels::spectral::matrix::Matrix;
use mergecore::kernels::spectral::product::Dense;
use mergecore::kernels::spectral::reshape::{reshape, Account, Sizes};
use mergecore::kernels::spectral::spectrum::{Spectrum, Tolerance};
use mergecore::kernels::spectral::stack::{Floor, Stack};
use mergecore::kernels::spectral::workers::Workers;
use mergecore::run::Limits;
use model::family::{family, save, Make};
use model::{in_memory, plan, read_back, to_disk, Run, RUN};
use rows::Dice;
use serde_json::{json, Value as Json};

static NOBODY: AtomicBool = AtomicBool::new(false);

fn workers(threads: usize) -> Workers<'static> {
    Workers::new(threads, &NOBODY).unwrap()
}

/// Random numbers, some rows and columns of which are much smaller, and a block of which is zero.
fn values(rows: usize, columns: usize, seed: u64) -> Vec<f32> {
    let mut dice = Dice(seed);
    let size = |n: usize| 0.5f64.powi((n % 7) as i32);
    let zero = |i: usize, j: usize| i < rows / 3 && j >= columns / 2;
    let one = |k: usize| (k / columns, k % columns, dice.unit());
    let numbers: Vec<(usize, usize, f64)> = (0..rows * columns).map(one).collect();
    numbers.into_iter().map(|(i, j, x)| if zero(i, j) { 0.0 } else { (x * size(i) * size(j)) as f32 }).collect()
}

fn mat(rows: usize, columns: usize, values: &[f32]) -> Mat<f64> {
    Mat::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j]))
}

fn close(got: &Mat<f64>, want: &Mat<f64>, share: f64) {
    let off = (got - want).norm_l2() / want.norm_l2().max(1e-300);
    assert!(off <= share, "off by {off:.1e}");
}

fn of_dense(x: &Dense) -> Mat<f64> {
    Mat::from_fn(x.rows, x.columns, |i, j| x.values[j * x.rows + i])
}

fn of_matrix(x: &Matrix<f32>, rows: usize, columns: usize) -> Mat<f64> {
    mat(rows, columns, &x.values)
}

/// A wider than tall, as the kernels see it: short × long.
fn short_by_long(a: Mat<f64>) -> Mat<f64> {
    if a.nrows() > a.ncols() {
        a.transpose().to_owned()
    } else {
        a
    }
}

/// Across the pieces into which products are cut, in both orientations.
const SHAPES: [(usize, usize); 9] = [(1, 1), (1, 9), (9, 1), (5, 5), (255, 257), (300, 1100), (1100, 300), (513, 513), (700, 640)];

#[test]
fn products_with_a_matrix_are_what_they_are() {
    for (rows, columns) in SHAPES {
        let (flat, other) = (values(rows, columns, 1), values(rows, columns, 2));
        let (a, b) = (Matrix::new(rows, columns, flat.clone()), Matrix::new(rows, columns, other.clone()));
        let (x, y) = (short_by_long(mat(rows, columns, &flat)), short_by_long(mat(rows, columns, &other)));
        let workers = workers(3);
        close(&of_dense(&a.gram(2.0, &workers).unwrap()), &(4.0 * &x * x.transpose()), 1e-13);
        let count = a.short.div_ceil(2);
        close(&of_dense(&a.dots(&b, count, &workers).unwrap()), &(&x * y.transpose().get(.., ..count)), 1e-12);
        let mut dice = Dice(3);
        let w = Dense { rows: a.short, columns: a.short, values: (0..a.short * a.short).map(|_| dice.unit()).collect() };
        let product = of_dense(&w) * &x;
        let mut moved = a.clone();
        moved.transform(w.view(), &workers).unwrap();
        close(&short_by_long(of_matrix(&moved, rows, columns)), &product, 1e-6);
        let mut moved = b.clone();
        moved.compose(0, w.view(), &a, &workers).unwrap();
        close(&short_by_long(of_matrix(&moved, rows, columns)), &product, 1e-6);
        let mut moved = b.clone();
        moved.subtract(w.view(), &a, &workers).unwrap();
        close(&short_by_long(of_matrix(&moved, rows, columns)), &(&y - &product), 1e-6);
        let wide = a.rows_from(w.view(), 0..a.long, &workers).unwrap();
        let wide = Mat::from_fn(a.short, a.long, |i, j| wide.values[j * a.short + i]);
        close(&wide, &product, 1e-13);
    }
}

#[test]
fn a_spectrum_is_that_of_an_svd_however_small_its_end_is() {
    for (rows, columns) in [(40, 60), (60, 40), (330, 350)] {
        for condition in [1.0, 1e2, 1e5, 1e8] {
            let (r, flat) = (rows.min(columns), values(rows, columns, 4));
            let svd = mat(rows, columns, &flat).thin_svd().unwrap();
            let sigma: Vec<f64> = (0..r).map(|i| 3.0 * f64::powf(condition, -(i as f64) / (r - 1) as f64)).collect();
            let made = Mat::from_fn(rows, r, |i, j| svd.U()[(i, j)] * sigma[j]) * svd.V().transpose();
            let flat: Vec<f64> = (0..rows * columns).map(|k| made[(k / columns, k % columns)]).collect();
            let a = Matrix::new(rows, columns, flat);
            let spectrum = Spectrum::of(&a, &|sigma| sigma.len(), &workers(2)).unwrap();
            for (got, want) in spectrum.sigma.iter().zip(&sigma) {
                assert!((got - want).abs() <= 1e-7 * want, "{rows} x {columns}, condition {condition:e}: {got:e} for {want:e}");
            }
            // polar(A), of which every direction counts as much.
            let mut polar = a.clone();
            let sizes = |_: &[f64], rank: usize| Sizes { kept: vec![1.0; rank], rest: false };
            let account = reshape(&mut polar, Tolerance::Relative(1e-9), 0.0, &sizes, &workers(2)).unwrap();
            assert_eq!(account.rank, r);
            let want = svd.U() * svd.V().transpose();
            close(&Mat::from_fn(rows, columns, |i, j| polar.values[i * columns + j]), &want, 1e-7);
        }
    }
}

#[test]
fn the_number_of_threads_is_not_seen() {
    // Beyond the size from which faer works in parallel, and across the pieces.
    for (rows, columns) in [(640, 1100), (1100, 640)] {
        let of = |threads: usize| {
            let workers = workers(threads);
            let [mut a, b, c] = [5, 6, 7].map(|seed| Matrix::new(rows, columns, values(rows, columns, seed)));
            let half = |sigma: &[f64], rank: usize| Sizes { kept: sigma[..rank].iter().map(|x| x.sqrt()).collect(), rest: true };
            let account = reshape(&mut a, Tolerance::Relative(1e-6), 0.0, &half, &workers).unwrap();
            let mut stack = Stack::like(&b);
            let floor = Floor { tolerance: Tolerance::Relative(1e-6), noise: 0.0, left_of: None };
            stack.push(&b, 320, floor, &workers).unwrap();
            let mut left = c.clone();
            stack.leave_out(&mut left, 320, &workers).unwrap();
            stack.push(&left, 320, floor, &workers).unwrap();
            let mut merged = c;
            let other = stack.merge(&mut merged, None, floor.tolerance, &workers).unwrap();
            (a.values, left.values, merged.values, account, other)
        };
        let once = of(1);
        for threads in [2, 3, 7] {
            assert!(of(threads) == once, "{threads} threads make other bytes of {rows} x {columns}");
        }
    }
}

#[test]
fn a_result_that_is_wrong_is_refused() {
    let fine = Account { rank: 3, stable_rank: 2.0, noise_share: 0.0, orthogonality: 1e-7, residual: 1e-8 };
    let result = Matrix::new(2, 2, vec![1.0f32; 4]);
    assert!(fine.certified(&result).is_ok());
    for wrong in [Account { orthogonality: 1e-4, ..fine }, Account { residual: f64::NAN, ..fine }] {
        let error = wrong.certified(&result).unwrap_err();
        assert!(error.kind == Kind::Run && error.message.contains("orthogonality") && error.message.contains("residual"), "{error}");
    }
    // Of numbers that f32 holds to a few digits nothing else can be asked.
    assert!(Account { residual: 1e-2, ..fine }.certified(&Matrix::new(1, 2, vec![1e-41f32, 0.0])).is_ok());
    // The figures tell: of a matrix whose singular values are others than it is said to have.
    let a = Matrix::new(30, 40, values(30, 40, 8));
    let spectrum = Spectrum::of(&a, &|sigma| sigma.len(), &workers(1)).unwrap();
    assert!(spectrum.orthogonality(&a, &spectrum.sigma, &workers(1)).unwrap() < 1e-12);
    let mut sigma = spectrum.sigma.clone();
    sigma[0] *= 1.001;
    assert!(spectrum.orthogonality(&a, &sigma, &workers(1)).unwrap() > 1e-5);
}

/// Rows of equal or opposite signs: at right angles to whatever random signs a check might multiply them with.
#[test]
fn no_matrix_escapes_its_checks() {
    for (rows, columns) in [(4, 4), (4, 9), (9, 4), (64, 80)] {
        for pattern in 0..200u64 {
            let sign = |i: usize| if (pattern >> (i % 60)) & 1 == 0 { 0.1 } else { -0.1 };
            let flat: Vec<f32> = (0..rows * columns).map(|k| (sign(k / columns) * sign(7 + k % columns)) as f32).collect();
            let mut a = Matrix::new(rows, columns, flat.clone());
            let alike = |sigma: &[f64], rank: usize| Sizes { kept: sigma[..rank].to_vec(), rest: false };
            let account = reshape(&mut a, Tolerance::Relative(1e-6), 0.0, &alike, &workers(1)).unwrap();
            assert_eq!(account.rank, 1);
            close(&of_matrix(&a, rows, columns), &mat(rows, columns, &flat), 1e-6);
        }
    }
}

#[test]
fn a_direction_just_above_the_floor_counts() {
    // AAᵀ in f64 does not tell 1e-8 of the largest from zero.
    for small in [5e-8, 1e-8, 5e-9, 2e-9] {
        for seed in 0..20 {
            let svd = mat(30, 44, &values(30, 44, 100 + seed)).thin_svd().unwrap();
            let sigma = |j: usize| if j == 29 { small } else { 1.0 };
            let made = Mat::from_fn(30, 30, |i, j| svd.U()[(i, j)] * sigma(j)) * svd.V().transpose();
            let mut a = Matrix::new(30, 44, (0..30 * 44).map(|k| made[(k / 44, k % 44)]).collect());
            let ones = |_: &[f64], rank: usize| Sizes { kept: vec![1.0; rank], rest: false };
            let account = reshape(&mut a, Tolerance::Relative(1e-9), 0.0, &ones, &workers(1)).unwrap();
            assert_eq!(account.rank, 30, "{small:e}");
        }
    }
}

#[test]
fn nothing_stays_nothing() {
    for (rows, columns) in [(4, 6), (6, 4), (1, 1)] {
        let mut zero = Matrix::new(rows, columns, vec![0.0f32; rows * columns]);
        let alike = |_: &[f64], rank: usize| Sizes { kept: vec![1.0; rank], rest: false };
        let account = reshape(&mut zero, Tolerance::Storage, 0.0, &alike, &workers(1)).unwrap();
        assert_eq!((account, zero.values), (Account::ZERO, vec![0.0; rows * columns]));
    }
}

#[test]
fn who_wants_to_stop_does_not_wait_for_a_decomposition() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let workers = Workers::new(1, &STOP).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            STOP.store(true, Ordering::Relaxed);
        });
        let start = Instant::now();
        let result = workers.long(|_| std::thread::sleep(Duration::from_secs(20)));
        assert_eq!(result.unwrap_err().kind, Kind::Interrupted);
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

fn modified(method: &str, modifiers: Json) -> Json {
    json!({"merge_method": method, "base_model": "base", "models": ["a", "b", "c"], "modifiers": modifiers})
}

fn modified_recipes() -> Vec<Json> {
    let matched = |scope: &str, to: &str| json!({"match_norm": {"to": to, "scope": scope}});
    vec![
        modified("task_arithmetic", json!([{"boost": {"matrices": "all"}}])),
        modified("ties", json!(["boost", matched("model", "task_arithmetic")])),
        modified("dare_ties", json!([matched("tensor", "iso_c"), {"boost": {"beta": 0.5}}])),
        modified("tsv", json!([matched("tensor", "task_arithmetic")])),
        modified("iso_c", json!([matched("model", "ties")])),
        modified("sce", json!([{"match_norm": {"to": "ties", "scope": "model", "parameters": {"scope": "model", "density": 0.5}}}])),
    ]
}

#[test]
fn modified_merges_are_the_same_for_any_threads_tiles_and_from_disk() {
    for make in [Make::Plain, Make::Mixed] {
        let (family, dir) = (family(make), tempfile::tempdir().unwrap());
        save(&family, dir.path());
        for (i, recipe) in modified_recipes().iter().enumerate() {
            let once = in_memory(&family, recipe, Run { threads: 1, tile: 1 << 20, ..RUN }).unwrap();
            for (threads, tile) in [(2, 1), (3, 40_000)] {
                assert!(in_memory(&family, recipe, Run { threads, tile, ..RUN }).unwrap() == once, "{recipe}: {threads} threads");
            }
            let out = dir.path().join(format!("out-{i}"));
            to_disk(dir.path(), recipe, &out, Run { threads: 2, shard: 30_000, ..RUN }).unwrap();
            assert!(read_back(&out) == once, "{recipe}: other bytes from disk");
            let mut unmodified = recipe.clone();
            unmodified["modifiers"] = Json::Null;
            assert!(in_memory(&family, &unmodified, RUN).unwrap() != once, "{recipe}: nothing is modified");
        }
    }
}

#[test]
fn memory_that_is_too_little_for_a_matrix_is_refused_with_its_name() {
    let (family, dir) = (family(Make::Plain), tempfile::tempdir().unwrap());
    save(&family, dir.path());
    let recipe = modified("tsv", Json::Null);
    let plan = plan(dir.path(), &recipe).unwrap();
    let needed = Limits::choose(&plan, Some(1), None, None).unwrap().bytes(&plan);
    let without = modified("task_arithmetic", Json::Null);
    let without = self::plan(dir.path(), &without).unwrap();
    let least = Limits::choose(&without, Some(1), None, None).unwrap().bytes(&without);
    assert!(needed > least, "{needed} {least}");
    let error = Limits::choose(&plan, Some(1), Some(needed / 3), None).unwrap_err();
    assert!(error.kind == Kind::Space && error.message.contains("--max-memory"), "{error}");
}
