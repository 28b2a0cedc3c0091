//! Is every kernel its naive twin, to the last bit, on numbers that were picked to break it?

mod naive;
mod rows;

use std::sync::Mutex;

use mergecore::dtype::{count_unfinite, Dtype, Real};
use mergecore::kernels::cutoff::Cutoff;
use mergecore::kernels::geometry::{Geometry, Strip, STRIP};
use mergecore::kernels::gram::{self, Gram};
use mergecore::kernels::select::{Seen, Selector};
use mergecore::kernels::thin::{Rescale, Thin};
use mergecore::kernels::{angle, blend, elect, low_rank, mask};
use naive::numbers;
use proptest::prelude::*;
use rows::{element_of, flavours, lengths, row, rows, Dice, Flavour, Sample};

/// PROPTEST_CASES asks for more; a failure is printed with its inputs, not kept in a file.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn assert_same<R: Sample>(got: &[R], want: &[R]) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        prop_assert!(got.same(*want), "element {}: {:?} instead of {:?}", i, got, want);
    }
    Ok(())
}

/// Weights that cancel, vanish or are far apart, too.
fn weights(models: usize) -> impl Strategy<Value = Vec<f64>> {
    let one = prop_oneof![2 => -2.0..2.0f64, 2 => prop::sample::select(vec![1.0, 1.0, -1.0, 0.0, 0.5, 1e-6, 3e-8, -1e-9, 1e-300])];
    prop::collection::vec(one, models)
}

fn densities() -> impl Strategy<Value = f64> {
    prop_oneof![4 => 0.0..1.0f64, 1 => Just(0.0), 1 => Just(1.0), 1 => Just(0.5), 1 => Just(2f64.powi(-24)), 1 => Just(1e-300)]
}

/// The sums of `got` are `want` for plain addition too, but for rounding.
fn assert_near(got: f64, terms: &[f64]) -> Result<(), TestCaseError> {
    let (sum, size) = naive::sum(terms);
    if size.is_finite() {
        prop_assert!((got - sum).abs() <= 1e-15 * terms.len() as f64 * size, "{} instead of {}", got, sum);
    } else if terms.iter().any(|x| x.is_nan()) {
        prop_assert!(got.is_nan(), "{} hides a NaN", got);
    } else if terms.iter().any(|x| x.is_infinite()) {
        prop_assert!(!got.is_finite(), "{} hides an infinity", got);
    }
    Ok(())
}

/// Finds the `keep` largest of `x` as a run does: blocks are looked at in any order by several threads, and counted tile by tile.
/// Also how many passes it took, and how often, in them, a block was looked at on average.
#[rustfmt::skip]
fn select<R: Sample>(
    x: &[R], keep: usize, block: usize, tile: usize, threads: usize, gather: u64, dice: &mut Dice,
) -> (Cutoff, usize, f64) {
    let mut selector = Selector::new::<R>(keep as u64, x.len() as u64, x.len().div_ceil(block), gather);
    let (mut rounds, mut looks) = (0, 0);
    let cutoff = loop {
        if let Some(cutoff) = selector.cutoff() {
            break cutoff;
        }
        rounds += 1;
        let blocks: Vec<(usize, &[R])> = x.chunks(block).enumerate().collect();
        looks += blocks.iter().filter(|(number, _)| selector.wants(*number)).count();
        let mut tiles: Vec<_> = blocks.chunks(tile).collect();
        dice.shuffle(&mut tiles);
        let queue = Mutex::new(tiles);
        let work = || {
            let mut seen = Seen::default();
            loop {
                let Some(tile) = queue.lock().unwrap().pop() else { return };
                tile.iter().for_each(|(number, x)| selector.observe(*number, x, &mut seen));
                selector.absorb(&mut seen);
            }
        };
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        selector.advance();
    };
    (cutoff, rounds, looks as f64 / x.len().div_ceil(block).max(1) as f64)
}

/// Of rows in strips of so many times sixteen elements.
fn distances<R: Sample>(a: &[R], b: &[R], c: &[R], lanes: usize) -> [f64; 2] {
    let (mut distances, strip) = (angle::Distances::default(), 16 * lanes);
    a.chunks(strip).zip(b.chunks(strip)).zip(c.chunks(strip)).for_each(|((a, b), c)| distances.add(a, b, c));
    distances.squared()
}

macro_rules! kernels {
    ($real:ident) => {
        mod $real {
            use super::*;
            type R = $real;

            proptest! {
                #![proptest_config(config())]

                #[test]
                fn blend_is_its_twin(
                    seed: u64, count in lengths(), flavour in flavours(), factor in any::<u64>(), power in -150..150i32,
                ) {
                    let factor: R = element_of(factor, flavour);
                    let (x, y) = (row::<R>(seed, count, flavour), row::<R>(!seed, count, flavour));
                    let z = row::<R>(seed ^ 7, count, Flavour::Plain);
                    let on = |act: &dyn Fn(&mut [R])| { let mut out = x.clone(); act(&mut out); out };
                    assert_same(&on(&|x| blend::subtract(x, &y)), &naive::subtract(&x, &y))?;
                    assert_same(&on(&|x| blend::add_fused(x, &y, factor)), &naive::add_fused(&x, &y, factor))?;
                    assert_same(&on(&|x| blend::scale(x, factor)), &naive::scale(&x, factor))?;
                    for divisor in [factor, R::ONE, R::of(2f64.powi(power)), R::of(-(2f64.powi(power)))] {
                        assert_same(&on(&|x| blend::divide(x, divisor)), &naive::divide(&x, divisor))?;
                    }
                    assert_same(&on(&|x| blend::attach(x, &y, factor)), &naive::attach(&x, &y, factor))?;
                    assert_same(&on(&|out| blend::combine(out, &y, factor, &z, R::of(0.7))), &naive::combine(&y, factor, &z, R::of(0.7)))?;
                }

                #[test]
                fn a_weighted_sum_is_its_twin(
                    seed: u64, count in lengths(), flavour in flavours(), weights in (1..5usize).prop_flat_map(weights), normalize: bool,
                ) {
                    let models = rows::<R>(seed, weights.len(), count, flavour);
                    let mut out = row::<R>(seed, count, Flavour::Wild);
                    blend::weighted_sum(&mut out, &models, &weights, normalize);
                    assert_same(&out, &naive::weighted_sum(count, &models, &weights, normalize))?;
                }

                #[test]
                fn a_gram_matrix_and_what_is_made_of_it_are_their_twins(
                    seed: u64, count in lengths(), flavour in flavours(), factors in (1..6usize).prop_flat_map(weights), first in 0..70usize,
                ) {
                    let wider = rows::<R>(seed, factors.len(), first + count, flavour);
                    let models: Vec<Vec<R>> = wider.iter().map(|row| row[first..].to_vec()).collect();
                    let mut dots = vec![f64::NAN; gram::pairs(factors.len())];
                    gram::dots(&wider, first..first + count, &mut dots);
                    for (got, want) in dots.iter().zip(naive::dots(&models)) {
                        prop_assert!(got.same(want), "{} instead of {}", got, want);
                    }
                    let matrix = Gram::of(&wider, first..first + count);
                    prop_assert_eq!(format!("{matrix:?}"), format!("{:?}", Gram::new(factors.len(), &dots)));
                    let mut out = row::<R>(seed, count, Flavour::Wild);
                    gram::combine(&mut out, &wider, first, &factors);
                    assert_same(&out, &naive::weighted_sum(count, &models, &factors, false))?;
                    if matches!(flavour, Flavour::Plain | Flavour::Tied) {
                        let sum: Vec<f64> = naive::weighted_sum(count, &models.iter().map(|x| x.iter().map(|x| x.f64()).collect()).collect::<Vec<_>>(), &factors, false);
                        let size: f64 = models.iter().zip(&factors).map(|(x, f)| f.abs() * naive::sum(&naive::products(x, x)).0.sqrt()).sum();
                        let length = naive::sum(&naive::products(&sum, &sum)).0.sqrt();
                        prop_assert!((matrix.length(&factors) - length).abs() <= 2e-7 * size, "{} instead of {}", matrix.length(&factors), length);
                        for (i, x) in models.iter().enumerate() {
                            let along = naive::sum(&naive::products(&x.iter().map(|x| x.f64()).collect::<Vec<_>>(), &sum)).0;
                            let most = size * matrix.norms()[i];
                            prop_assert!((matrix.along(i, &factors) - along).abs() <= 1e-12 * most, "{} instead of {}", matrix.along(i, &factors), along);
                        }
                    }
                }

                #[test]
                fn columns_are_their_twins(seed: u64, height in 0..40usize, width in 1..150usize, flavour in flavours()) {
                    let (a, b) = (row::<R>(seed, height * width, flavour), row::<R>(!seed, height * width, flavour));
                    let mut dots = vec![f64::NAN; width];
                    gram::dots_of_columns(&a, &b, &mut dots);
                    for (got, want) in dots.iter().zip(naive::dots_of_columns(&a, &b, width)) {
                        prop_assert!(got.same(want), "{} instead of {}", got, want);
                    }
                    let (s, t) = (row::<R>(seed ^ 5, width, Flavour::Plain), row::<R>(seed ^ 9, width, flavour));
                    let mut out = row::<R>(seed, height * width, Flavour::Wild);
                    gram::combine_columns(&mut out, &a, &s, &b, &t);
                    assert_same(&out, &naive::combine_columns(&a, &s, &b, &t))?;
                }

                #[test]
                fn a_product_is_summed_in_the_order_of_the_ranks(
                    seed: u64, count in 0..70usize, rank in 0..11usize, (before, after) in (0..5usize, 0..5usize), flavour in flavours(),
                ) {
                    let stride = before + count + after;
                    let (left, right) = (row::<R>(seed, rank, flavour), row::<R>(!seed, rank * stride, flavour));
                    let mut out = row::<R>(seed ^ 7, count, Flavour::Wild);
                    low_rank::row(&left, &right, stride, before, &mut out);
                    assert_same(&out, &naive::product(&left, &right, stride, before, count))?;
                    let stretched: Vec<R> = out.iter().zip(&right).map(|(x, f)| *x * *f).collect();
                    let length = stretched.len();
                    low_rank::stretch(&mut out[..length], &right[..length]);
                    assert_same(&out[..length], &stretched)?;
                    let (mut sums, x) = (vec![0.5; length], row::<R>(seed ^ 9, length, Flavour::Plain));
                    low_rank::add_squares(&mut sums, &x);
                    prop_assert!(sums.iter().zip(&x).all(|(sum, x)| sum.same(0.5 + x.f64() * x.f64())));
                }

                #[test]
                fn sums_are_taken_in_the_order_that_is_promised(
                    seed: u64, count in lengths(), flavour in flavours(), shift in 0..9usize, strip in 1..200usize,
                ) {
                    // Shifted, so that the rows lie on other addresses: alignment must not be seen in a sum.
                    let (a, b) = (row::<R>(seed, count + shift, flavour), row::<R>(!seed, count + shift, flavour));
                    let (a, b) = (&a[shift..], &b[shift..]);
                    let (a, b) = (&a.to_vec()[..], b);
                    let c = row::<R>(seed ^ 7, count, Flavour::Plain);
                    for (got, terms) in [
                        (angle::dot(a, b), naive::products(a, b)),
                        (angle::l1(a), naive::magnitudes(a)),
                        (distances(a, &c, b, strip)[0], naive::squares(a, b)),
                        (distances(a, &c, b, strip)[1], naive::squares(&c, b)),
                    ] {
                        prop_assert!(got.same(naive::in_lanes(&terms)), "{} instead of {}", got, naive::in_lanes(&terms));
                        assert_near(got, &terms)?;
                    }
                }

                #[test]
                fn the_largest_are_those_that_sorting_finds(
                    seed: u64, count in lengths(), flavour in flavours(), share in 0.0..1.0f64,
                    (block, tile, threads) in (1..70usize, 1..5usize, 1..4usize),
                    gather in prop_oneof![Just(0.0), 0.0..2.0f64, Just(2.0)],
                ) {
                    let x = row::<R>(seed, count, flavour);
                    let gather = (gather * count as f64) as u64;
                    // A block of a few elements in a row of thousands only takes time.
                    let block = if count > 2000 { block * 50 } else { block };
                    for keep in [0, 1.min(count), (share * count as f64) as usize, count.saturating_sub(1), count, count + 1] {
                        let (cutoff, rounds, _) = select(&x, keep, block, tile, threads, gather, &mut Dice(seed));
                        let mut trimmed = x.clone();
                        trimmed.chunks_mut(block).enumerate().for_each(|(number, x)| cutoff.trim(number, x));
                        let largest = naive::largest(&x, keep);
                        assert_same(&trimmed, &naive::only(&x, &largest))?;
                        let mut others = x.clone();
                        others.chunks_mut(block).enumerate().for_each(|(number, x)| cutoff.drop(number, x));
                        assert_same(&others, &naive::only(&x, &largest.iter().map(|kept| !kept).collect::<Vec<_>>()))?;
                        if keep > 0 && keep < count {
                            let kept = x.iter().zip(&largest).filter(|(_, kept)| **kept).map(|(x, _)| u64::from(x.magnitude()));
                            prop_assert_eq!(Some(cutoff.threshold), kept.min(), "the least that is kept");
                        }
                        // Nothing is looked at where nothing is to be decided; a list that holds all needs no counting.
                        let digits = if R::MAGNITUDE_BITS == 31 { 2 } else { 5 };
                        let passes = match keep {
                            keep if keep == 0 || keep >= count => 0..=0,
                            _ if gather == 2 * count as u64 && digits == 2 => 1..=1,
                            _ if gather == 2 * count as u64 => 1..=4,
                            _ => 1..=digits + 1,
                        };
                        prop_assert!(passes.contains(&rounds), "{} passes instead of {:?}", rounds, passes);
                    }
                }

                #[test]
                fn an_election_is_its_twin(
                    seed: u64, count in lengths(), flavour in flavours(), weights in (1..5usize).prop_flat_map(weights), normalize: bool,
                    zero in prop::sample::select(vec![1.0, -1.0, 0.0, 17.0, -3.0]),
                ) {
                    let rows = rows::<R>(seed, weights.len(), count, flavour);
                    let votes: Vec<Vec<R>> = rows.iter().zip(&weights).map(|(row, w)| naive::scale(row, R::of(*w))).collect();
                    let total = naive::tally(count, &votes);
                    prop_assert_eq!(elect::majority(&rows, &weights, count), naive::majority(&total));
                    let mut out = row::<R>(!seed, count, Flavour::Wild);
                    elect::disjoint(&mut out, &rows, &weights, normalize, zero);
                    assert_same(&out, &naive::disjoint(&total, &votes, &weights, normalize, zero))?;
                }

                #[test]
                fn a_mask_is_one_counter_at_a_time(
                    seed: u64, name in "[a-z.é]{0,9}", model in 0..3usize,
                    count in lengths(), flavour in flavours(), density in densities(), factor in any::<u64>(),
                    first in prop_oneof![0..300u64, (1u64 << 34) - 70..(1u64 << 34) + 9, Just((1u64 << 62) - 3)],
                ) {
                    let want = naive::mask(seed, &name, model, first, count, density);
                    let key = mask::Key::new(seed, &name, model);
                    let mut kept: Vec<bool> = (0..count).map(|i| i % 2 == 0).collect();
                    mask::fill(key, first, density, &mut kept);
                    prop_assert_eq!(&kept, &want);
                    let x = row::<R>(seed, count, flavour);
                    let mut masked = x.clone();
                    mask::apply(key, first, density, &mut masked);
                    assert_same(&masked, &naive::only(&x, &want))?;
                    // Each element by its own density.
                    let chances: Vec<R> = (0..count).map(|i| R::of((density + i as f64 / 64.0).fract().max(1e-3))).collect();
                    let stream = naive::stream(seed, &name, model);
                    let drawn: Vec<bool> = (first..).zip(&chances).map(|(i, p)| naive::keeps(stream, i, p.f64())).collect();
                    let mut gate = chances.clone();
                    mask::draw(key, first, &mut gate);
                    assert_same(&gate, &naive::only(&chances, &drawn))?;
                    let mut gated = x.clone();
                    blend::gate(&mut gated, &gate, true);
                    let over: Vec<R> = x.iter().zip(&chances).map(|(x, p)| *x / *p).collect();
                    assert_same(&gated, &naive::only(&over, &drawn))?;
                    let factor: R = element_of(factor, flavour);
                    let mut scaled = x.clone();
                    mask::apply_and_scale(key, first, density, factor, &mut scaled);
                    assert_same(&scaled, &naive::scale(&masked, factor))?;
                    let mut divided = x;
                    mask::apply_and_divide(key, first, density, factor, &mut divided);
                    assert_same(&divided, &naive::divide(&masked, factor))?;
                }

                #[test]
                fn thinning_is_its_twin(
                    seed: u64, count in lengths(), flavour in flavours(), density in prop::collection::vec(densities(), 1..4),
                    rescale in prop::sample::select(vec![Rescale::Inverse, Rescale::L1, Rescale::None]), first in 0..300u64,
                ) {
                    let deltas = rows::<R>(seed, density.len(), count, flavour);
                    let key = |model| mask::Key::new(seed, "w", model);
                    let thin = Thin { density: density.clone(), rescale };
                    let mut sums = vec![f64::NAN; 2 * density.len()];
                    let (mut measured, mut thinned) = (deltas.clone(), deltas.clone());
                    prop_assert_eq!(thin.sums(), if rescale == Rescale::L1 { sums.len() } else { 0 });
                    thin.measure(&mut measured, key, first, &mut sums);
                    thin.apply(&mut thinned, key, first, &sums);
                    for (model, density) in density.iter().enumerate() {
                        let kept = naive::mask(seed, "w", model, first, count, *density);
                        let masked = naive::only(&deltas[model], &kept);
                        assert_same(&measured[model], &masked)?;
                        assert_near(sums[2 * model], &naive::magnitudes(&deltas[model]))?;
                        assert_near(sums[2 * model + 1], &naive::magnitudes(&masked))?;
                        let sums = (sums[2 * model], sums[2 * model + 1]);
                        assert_same(&thinned[model], &naive::thin(&deltas[model], &kept, *density, rescale, sums))?;
                    }
                }

                #[test]
                fn an_encoding_is_the_nearest_number(seed: u64, count in 0..600usize, flavour in flavours()) {
                    let x = row::<R>(seed, count, flavour);
                    for dtype in Dtype::FLOATS {
                        let mut bytes = vec![0u8; count * dtype.size()];
                        R::encode(dtype, &x, &mut bytes);
                        let mut back = vec![R::ZERO; count];
                        R::decode(dtype, &bytes, &mut back);
                        for ((x, bytes), back) in x.iter().zip(bytes.chunks(dtype.size())).zip(&back) {
                            let nearest = numbers::decode(dtype, &numbers::encode(dtype, x.f64()));
                            let stored = numbers::decode(dtype, bytes);
                            prop_assert!(stored.same(nearest), "{:?} became {} in {:?}, not {}", x, stored, dtype, nearest);
                            prop_assert!(back.same(R::of(stored)), "{:?}: {} was read as {:?}", dtype, stored, back);
                        }
                    }
                }

                #[test]
                fn what_is_not_finite_is_counted(seed: u64, count in lengths(), flavour in flavours()) {
                    let x = row::<R>(seed, count, flavour);
                    let of = |count: &dyn Fn(&R) -> bool| x.iter().filter(|x| count(x)).count() as u64;
                    prop_assert_eq!(count_unfinite(&x), (of(&|x| x.is_nan()), of(&|x| x.f64().is_infinite())));
                }
            }
        }
    };
}

kernels!(f32);
kernels!(f64);

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_tree_adds_neighbours_first(seed: u64, count in 0..300usize) {
        let x = row::<f64>(seed, count, Flavour::Plain);
        prop_assert_eq!(angle::tree(&x), naive::in_pairs(&x));
    }
}

#[test]
fn the_naive_generator_gives_the_published_test_vectors() {
    // Random123's known-answer file: philox4x32, 10 rounds.
    let pi = ([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]);
    assert_eq!(naive::philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    assert_eq!(naive::philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    assert_eq!(naive::philox(pi.0, pi.1), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
}

/// A word of the generator is a 24-bit number: at a density of just that an element is dropped, at one step more it is kept.
#[test]
fn a_density_is_exact_to_its_24_bits() {
    let (key, stream) = (mask::Key::new(7, "w", 1), naive::stream(7, "w", 1));
    for index in 0..400u64 {
        let word = naive::philox([(index / 4) as u32, 0, 0, 0], stream)[(index % 4) as usize] >> 8;
        for (steps, kept) in [(0.0, false), (0.5, true), (1.0, true)] {
            let density = (f64::from(word) + steps) / f64::from(1 << 24);
            let mut got = [!kept];
            mask::fill(key, index, density, &mut got);
            assert_eq!((got[0], naive::keeps(stream, index, density)), (kept, kept), "element {index} at density {density}");
        }
    }
}

#[test]
fn the_naive_encodings_know_every_pattern_of_16_bits() {
    for bits in 0..=u16::MAX {
        for (dtype, want) in [(Dtype::BF16, half::bf16::from_bits(bits).to_f64()), (Dtype::F16, half::f16::from_bits(bits).to_f64())] {
            let value = numbers::decode(dtype, &bits.to_le_bytes());
            assert!(value.same(want), "{dtype:?} {bits:#x}: {value} instead of {want}");
            if !value.is_nan() {
                assert_eq!(numbers::encode(dtype, value), bits.to_le_bytes(), "{dtype:?} {value}");
            }
        }
    }
}

/// Ties, in the numbers that 16-bit checkpoints really have: hundreds of equal magnitudes at the threshold, over many blocks.
#[test]
fn ties_are_kept_from_the_lowest_index_up() {
    let x = [0.5f32, -1.0, 1.0, 0.25, -0.5, 1.0, -1.0, 0.5];
    for (keep, want) in [(1, [1].as_slice()), (3, &[1, 2, 5]), (4, &[1, 2, 5, 6]), (5, &[0, 1, 2, 5, 6]), (6, &[0, 1, 2, 4, 5, 6])] {
        for (block, gather) in [(1, 0), (3, 0), (3, 4), (3, 100), (8, 0), (8, 100)] {
            let (cutoff, ..) = select(&x, keep, block, 1, 1, gather, &mut Dice(1));
            let mut trimmed = x;
            trimmed.chunks_mut(block).enumerate().for_each(|(number, x)| cutoff.trim(number, x));
            let kept: Vec<usize> = (0..8).filter(|i| trimmed[*i] != 0.0).collect();
            assert_eq!(kept, want, "keep {keep}, blocks of {block}, gather {gather}");
        }
    }
}

/// A tensor that is not small: a sample brackets the threshold, unless it misleads.
#[test]
fn a_sample_saves_passes_and_never_changes_the_answer() {
    const COUNT: usize = 120_000;
    const BLOCK: usize = 20;
    const KEEP: usize = 24_000;
    let gather = COUNT as u64 / 2;
    let plain = row::<f32>(1, COUNT, Flavour::Plain);
    // The blocks that are sampled are made to lie about the others.
    let selector = Selector::new::<f32>(KEEP as u64, COUNT as u64, COUNT / BLOCK, gather);
    let sampled: Vec<usize> = (0..COUNT / BLOCK).filter(|block| selector.wants(*block)).collect();
    assert!((COUNT / BLOCK / 20..COUNT / BLOCK / 12).contains(&sampled.len()), "{} blocks are sampled", sampled.len());
    let lying = |factor: f32| {
        let mut x = plain.clone();
        sampled.iter().for_each(|block| x[block * BLOCK..][..BLOCK].iter_mut().for_each(|x| *x *= factor));
        x
    };
    let halves: Vec<f32> = plain.iter().enumerate().map(|(i, x)| if i % 10 < 2 { 2f32.copysign(*x) } else { 1f32.copysign(*x) }).collect();
    for (what, x, passes) in [
        ("a sample", plain.clone(), 2..=2),
        ("few values", row::<f32>(2, COUNT, Flavour::Tied), 2..=2),
        ("one value", vec![0.5; COUNT], 2..=2),
        ("zeros", vec![0.0; COUNT], 2..=2),
        ("a threshold between two crowds", halves, 2..=2),
        ("a sample of smaller elements", lying(1e-6), 3..=5),
        ("a sample of larger elements", lying(1e6), 3..=5),
        ("a sample of zeros", lying(0.0), 3..=5),
    ] {
        for threads in [1, 3] {
            let (cutoff, rounds, _) = select(&x, KEEP, BLOCK, 50, threads, gather, &mut Dice(threads as u64));
            let mut trimmed = x.clone();
            trimmed.chunks_mut(BLOCK).enumerate().for_each(|(number, x)| cutoff.trim(number, x));
            assert!(trimmed == naive::only(&x, &naive::largest(&x, KEEP)), "{what}");
            assert!(passes.contains(&rounds), "{what}: {rounds} passes");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases / 8, ..config() })]

    #[test]
    fn a_sampled_threshold_is_the_one_that_sorting_finds(
        seed: u64, count in 65_537..150_000usize, flavour in flavours(), share in 0.0..1.0f64,
        (block, tile, threads) in (100..5000usize, 1..5usize, 1..4usize), gather in 0.0..1.0f64,
    ) {
        fn check<R: Sample>(
            x: &[R], keep: usize, block: usize, tile: usize, threads: usize, gather: u64, seed: u64,
        ) -> Result<(), TestCaseError> {
            let (cutoff, rounds, _) = select(x, keep, block, tile, threads, gather, &mut Dice(seed));
            let mut trimmed = x.to_vec();
            trimmed.chunks_mut(block).enumerate().for_each(|(number, x)| cutoff.trim(number, x));
            assert_same(&trimmed, &naive::only(x, &naive::largest(x, keep)))?;
            prop_assert!(rounds <= if R::MAGNITUDE_BITS == 31 { 5 } else { 7 }, "{} passes", rounds);
            Ok(())
        }
        let gather = (gather * gather * count as f64) as u64;
        for keep in [1, (share * count as f64) as usize, count - 1] {
            check(&row::<f32>(seed, count, flavour), keep, block, tile, threads, gather, seed)?;
            // Some numbers of f64 among those of f32: most values end in zeros, not all.
            let mut x = row::<f32>(seed, count, flavour).into_iter().map(f64::from).collect::<Vec<_>>();
            let other = row::<f64>(seed, count, flavour);
            x.iter_mut().zip(other).step_by(1 + block % 7 * 100).for_each(|(x, other)| *x = other);
            check(&x, keep, block, tile, threads, gather, seed)?;
        }
    }
}

/// The difference of two weights as a bf16 checkpoint stores them: of one row of a matrix, whose weights and changes have a size of their own.
fn delta(dice: &mut Dice, size: f64) -> f64 {
    let normal = |dice: &mut Dice| (0..6).map(|_| dice.unit()).sum::<f64>() / 2f64.sqrt();
    let bf16 = |x: f64| numbers::decode(Dtype::BF16, &numbers::encode(Dtype::BF16, x));
    let base = bf16(normal(dice) * 0.02 * size);
    bf16(base + normal(dice) * 0.002 * size) - base
}

/// A model of 70 B elements has more of them in any bracket than can be listed, and thousands of every value: so has this, for its room. One
/// look at everything has to do, beside a sample and a search for ties in a few blocks; in f64 two, unless its values are those of bf16.
#[test]
fn a_crowd_is_counted_in_one_pass() {
    const COUNT: usize = 3 << 20;
    const BLOCK: usize = 2048;
    let mut dice = Dice(70);
    let sizes: Vec<f64> = (0..COUNT / BLOCK).map(|_| 2f64.powf(dice.unit())).collect();
    let deltas: Vec<f64> = (0..COUNT).map(|i| delta(&mut dice, sizes[i / BLOCK])).collect();
    // Some hundred thousand values, as many as a bracket has of f32; and twenty elements of each.
    let dense: Vec<f64> = (0..COUNT).map(|_| f64::from(1.0 + dice.unit().abs() as f32 * 0.02)).collect();
    fn check<R: Sample>(what: &str, x: &[f64], most: f64, dice: &mut Dice) {
        let x: Vec<R> = x.iter().map(|x| R::of(*x)).collect();
        let mut sorted: Vec<u64> = x.iter().map(|x| x.magnitude().into()).collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        for density in [0.05, 0.2, 0.5, 0.9] {
            let keep = (density * COUNT as f64) as usize;
            // Half of these may be listed: a percent of all.
            let (cutoff, rounds, reads) = select(&x, keep, BLOCK, 8, 2, COUNT as u64 / 50, dice);
            let threshold = sorted[keep - 1];
            let larger = sorted.partition_point(|x| *x > threshold);
            let ties = x.iter().enumerate().filter(|(_, x)| x.magnitude().into() == threshold).map(|(i, _)| i);
            let last = ties.take(keep - larger).last().unwrap();
            for (i, x) in x.chunks(BLOCK).enumerate() {
                let mut trimmed = x.to_vec();
                cutoff.trim(i, &mut trimmed);
                for (j, (x, trimmed)) in x.iter().zip(&trimmed).enumerate() {
                    let bits: u64 = x.magnitude().into();
                    let kept = bits > threshold || bits == threshold && i * BLOCK + j <= last;
                    assert!(trimmed.same(if kept { *x } else { R::ZERO }), "{what}, density {density}: element {}", i * BLOCK + j);
                }
            }
            assert!(reads < most, "{what}, density {density}: {reads} reads in {rounds} passes");
        }
    }
    check::<f32>("bf16 deltas", &deltas, 1.2, &mut dice);
    check::<f32>("a crowd", &dense, 1.2, &mut dice);
    check::<f64>("bf16 deltas in f64", &deltas, 1.2, &mut dice);
    check::<f64>("a crowd in f64", &dense, 2.2, &mut dice);
}

/// The sums of all strips but those that are refused; and where these begin.
fn geometry<R: Sample>(base: &[R], rows: &[Vec<R>]) -> (Geometry, Vec<usize>) {
    let mut sums = Geometry::of(rows.len());
    let mut sizes = vec![Default::default(); rows.len()];
    let strip = |row: &[R]| {
        let mut strip = Strip::ZERO;
        strip.0[..row.len()].copy_from_slice(row);
        strip
    };
    let mut refused = Vec::new();
    for at in (0..base.len()).step_by(STRIP) {
        let end = base.len().min(at + STRIP);
        let strips: Vec<Strip<R>> = rows.iter().map(|row| strip(&row[at..end])).collect();
        if !sums.add(&strip(&base[at..end]), &strips, &mut sizes, end - at) {
            refused.push(at);
        }
    }
    (sums, refused)
}

fn assert_geometry<R: Sample>(base: &[R], rows: &[Vec<R>]) -> Result<(), TestCaseError> {
    let (got, refused) = geometry(base, rows);
    // Sums beyond f32 may be infinite where none of their terms is.
    let tame = rows.iter().flatten().all(|x| !x.is_finite() || x.abs().f64() < 1e30);
    for at in (0..base.len()).step_by(STRIP) {
        let whole = rows.iter().all(|row| row[at..].iter().take(STRIP).all(|x| x.is_finite()));
        prop_assert!(if refused.contains(&at) { !tame || !whole } else { whole }, "the strip at {}", at);
    }
    let kept = |row: &[R]| -> Vec<R> {
        let strips = row.chunks(STRIP).enumerate().filter(|(i, _)| !refused.contains(&(i * STRIP)));
        strips.flat_map(|(_, strip)| strip.to_vec()).collect()
    };
    let (base, rows): (Vec<R>, Vec<Vec<R>>) = (kept(base), rows.iter().map(|row| kept(row)).collect());
    let (zeros_found, l1_found): (Vec<f64>, Vec<f64>) = (got.zeros().collect(), got.l1().collect());
    let touched_found: Vec<f64> = got.touched_square().collect();
    let near = |got: f64, want: f64, size: f64| (got - want).abs() <= 1e-6 * size || got.to_bits() == want.to_bits();
    let norm = |row: &[R]| row.iter().map(|x| x.f64() * x.f64()).sum::<f64>().sqrt();
    let (mut dots, mut pairs) = (got.dots(), got.pairs());
    prop_assert!(near(got.base_square(), norm(&base).powi(2), norm(&base).powi(2)));
    for (i, a) in rows.iter().enumerate() {
        let zeros = a.iter().filter(|x| **x == R::ZERO).count() as f64;
        prop_assert_eq!(zeros_found[i], zeros);
        let l1 = a.iter().map(|x| x.f64().abs()).sum::<f64>();
        prop_assert!(near(l1_found[i], l1, l1), "l1 {}: {} instead of {}", i, l1_found[i], l1);
        let strips = base.chunks(STRIP).zip(a.chunks(STRIP));
        let touched: f64 = strips.filter(|(_, a)| a.iter().any(|x| *x != R::ZERO)).map(|(base, _)| norm(base).powi(2)).sum();
        prop_assert!(near(touched_found[i], touched, touched), "touched {}: {} instead of {}", i, touched_found[i], touched);
        for (j, b) in rows.iter().enumerate().skip(i) {
            let (dot, want) = (dots.next().unwrap(), a.iter().zip(b).map(|(x, y)| x.f64() * y.f64()).sum::<f64>());
            prop_assert!(
                (dot - want).abs() <= 1e-13 * norm(a) * norm(b) || !(norm(a) * norm(b)).is_finite(),
                "dot {} {}: {} instead of {}",
                i,
                j,
                dot,
                want
            );
            if i == j {
                continue;
            }
            let got = pairs.next().unwrap();
            let against = |(x, y): &(R, R)| (*x > R::ZERO && *y < R::ZERO) || (*x < R::ZERO && *y > R::ZERO);
            let gaps = |all: bool| {
                let pairs = a.iter().zip(b).map(|(x, y)| (*x, *y)).filter(move |pair| all || against(pair));
                pairs.map(|(x, y)| (x - y).abs().f64()).sum::<f64>()
            };
            prop_assert_eq!(got.conflicts, a.iter().zip(b).filter(|(x, y)| against(&(**x, **y))).count() as f64);
            if tame {
                let right = near(got.apart, gaps(true), gaps(true)) && near(got.conflicting, gaps(false), gaps(false));
                prop_assert!(right, "{} {}: {:?} instead of {} {}", i, j, got, gaps(true), gaps(false));
            }
        }
    }
    prop_assert!(dots.next().is_none() && pairs.next().is_none());
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn task_vectors_are_measured_strip_by_strip(seed in any::<u64>(), count in lengths(), models in 1..11usize, flavour in flavours()) {
        fn family<R: Sample>(seed: u64, count: usize, models: usize, flavour: Flavour) -> (Vec<R>, Vec<Vec<R>>) {
            // One has not moved at all.
            let mut rows = rows::<R>(seed, models, count, flavour);
            rows[models / 2].fill(R::ZERO);
            (row::<R>(seed ^ 1, count, Flavour::Plain), rows)
        }
        let (base, rows) = family::<f32>(seed, count, models, flavour);
        assert_geometry(&base, &rows)?;
        let (base, rows) = family::<f64>(seed, count, models, flavour);
        assert_geometry(&base, &rows)?;
    }
}
