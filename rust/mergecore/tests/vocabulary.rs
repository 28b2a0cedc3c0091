//! Rows gathered while they are read, and what a loop over rows says they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use mergecore::checkpoint::vocabulary::{Origin, Vocabulary};
use mergecore::checkpoint::{Checkpoint, Lent, Tensor};
use mergecore::dtype::Dtype;
use proptest::prelude::*;

const NAME: &str = "model.embed_tokens.weight";

fn model<'a>(reference: &str, bytes: &'a [u8], rows: usize, width: usize) -> Checkpoint<'a> {
    let tensor = Tensor { dtype: Dtype::F32, shape: vec![rows as u64, width as u64], file: 0, offset: 0, source: Arc::new(Lent(bytes)) };
    Checkpoint::lent(reference, BTreeMap::from([(NAME.to_string(), tensor)]))
}

fn values(seed: u32, count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| ((i + 1).wrapping_mul(2_654_435_761 ^ seed.wrapping_mul(97)) >> 8) as f32 / 4096.0).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The row of a model in the output, as the maps define it.
fn naive(origin: Origin, own: &[Vec<f32>], map: &[Origin], made: &[Vec<f32>]) -> Vec<f32> {
    match origin {
        Origin::Own(row) => own[row as usize].clone(),
        Origin::Made(number) => made[number].clone(),
        Origin::Mean => {
            let rows: Vec<Vec<f32>> =
                map.iter().filter(|origin| **origin != Origin::Mean).map(|origin| naive(*origin, own, map, made)).collect();
            let sum = |column: usize| rows.iter().fold(0.0, |sum, row| sum + f64::from(row[column]));
            (0..own[0].len()).map(|column| (sum(column) / rows.len().max(1) as f64) as f32).collect()
        }
    }
}

fn origins(rows: usize, made: usize) -> impl Strategy<Value = Vec<Origin>> {
    // Runs of rows that follow each other, among single ones.
    let run = (0..rows, 1..40usize)
        .prop_map(move |(first, length)| (first..(first + length).min(rows)).map(|row| Origin::Own(row as u64)).collect::<Vec<_>>());
    let single = prop_oneof![(0..made).prop_map(Origin::Made), Just(Origin::Mean)].prop_map(|origin| vec![origin]);
    prop::collection::vec(prop_oneof![run, single], 1..30).prop_map(|parts| parts.concat())
}

proptest! {
    // A failure is printed with its inputs, not kept in a file.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_piece_that_is_read_is_what_the_maps_say(
        (width, maps, sources) in (1usize..300).prop_flat_map(|width| (
            Just(width),
            prop::collection::vec(origins(50, 4), 2..3),
            prop::collection::vec(prop::collection::vec((0usize..2, 0u64..50), 0..3), 4),
        )),
        places in prop::collection::vec((0.0..1.0, 0.0..1.0), 8),
    ) {
        let rows = maps.iter().map(Vec::len).min().unwrap();
        let maps: Vec<Vec<Origin>> = maps.into_iter().map(|map| map[..rows].to_vec()).collect();
        let stored: Vec<Vec<f32>> = (0..2).map(|seed| values(seed, 50 * width)).collect();
        let raw: Vec<Vec<u8>> = stored.iter().map(|values| bytes(values)).collect();
        let own: Vec<Vec<Vec<f32>>> = stored.iter().map(|values| values.chunks(width).map(<[f32]>::to_vec).collect()).collect();
        let mean = |sources: &Vec<(usize, u64)>| -> Vec<f32> {
            let sum = |column: usize| sources.iter().fold(0.0f32, |sum, (model, row)| sum + own[*model][*row as usize][column]);
            (0..width).map(|column| sum(column) / sources.len().max(1) as f32).collect()
        };
        let made: Vec<Vec<f32>> = sources.iter().map(mean).collect();

        let named = |model: &usize| ["a", "b"][*model].to_string();
        let vocabulary = Vocabulary {
            rows: rows as u64,
            maps: maps.iter().enumerate().map(|(model, map)| (named(&model), map.clone().into())).collect(),
            made: sources.iter().map(|sources| sources.iter().map(|(model, row)| (named(model), *row)).collect()).collect(),
        };
        let mut models = [model("a", &raw[0], 50, width), model("b", &raw[1], 50, width)];
        vocabulary.align(&mut models).unwrap();
        for (number, model) in models.iter().enumerate() {
            let tensor = &model.tensors[NAME];
            prop_assert_eq!(&tensor.shape, &vec![rows as u64, width as u64]);
            let map = &maps[number];
            let expected: Vec<f32> = map.iter().flat_map(|origin| naive(*origin, &own[number], map, &made)).collect();
            for (from, to) in &places {
                let first = (from * expected.len() as f64) as usize;
                let count = (to * (expected.len() - first) as f64) as usize;
                let mut out = vec![0; count * 4];
                tensor.will_need(first as u64, count as u64);
                tensor.read(first as u64, &mut out).unwrap();
                prop_assert_eq!(out, bytes(&expected[first..first + count]));
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let raw = bytes(&values(1, 8));
    let vocabulary =
        |origin: Origin, made: Vec<Vec<(String, u64)>>| Vocabulary { rows: 1, maps: [("a".into(), [origin].into())].into(), made };
    let refusal = |vocabulary: Vocabulary, reference: &str| {
        vocabulary.align(&mut [model(reference, &raw, 4, 2)]).expect_err("it does not fit").to_string()
    };
    assert!(refusal(vocabulary(Origin::Own(4), vec![]), "a").contains("has 4 rows"));
    assert!(refusal(vocabulary(Origin::Own(0), vec![]), "b").contains("b: has no tokenizer"));
    assert!(refusal(vocabulary(Origin::Made(0), vec![vec![("c".into(), 0)]]), "a").contains("of c, which is not merged"));
    assert!(refusal(vocabulary(Origin::Made(0), vec![vec![("a".into(), 9)]]), "a").contains("row 9"));
}

#[test]
fn two_vocabularies_have_two_hashes_and_every_row_is_counted() {
    let map = |origins: &[Origin]| BTreeMap::from([("a".to_string(), Arc::from(origins))]);
    let made = vec![vec![("a".to_string(), 1)], vec![]];
    let one = Vocabulary { rows: 4, maps: map(&[Origin::Own(2), Origin::Made(0), Origin::Made(1), Origin::Mean]), made: made.clone() };
    let two = Vocabulary { rows: 4, maps: map(&[Origin::Own(1), Origin::Made(0), Origin::Made(1), Origin::Mean]), made };
    assert_ne!(one.hash(), two.hash());
    assert_eq!(one.hash(), one.clone().hash());
    let account = &one.account()["models"]["a"];
    assert_eq!(["own", "of_another", "mean_of_models", "zero", "mean_of_rows"].map(|key| account[key].as_u64().unwrap()), [1, 1, 0, 1, 1]);
}
