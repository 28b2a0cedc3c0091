//! What must hold of every merge method? The tests loop over the registry: a new method inherits them all.

mod model;
mod naive;
mod rows;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mergecore::dtype::Dtype;
use mergecore::error::Kind as Wrong;
use mergecore::matrices::Which;
use mergecore::methods::{Base, Spec, METHODS};
use mergecore::params::Kind;
use mergecore::recipe::Recipe;
use mergecore::run::Limits;
use model::family::{ends, family, member, others, recipe, recipes, save, setting, settings, Make, Setting, MAKES};
use model::{formula, in_memory, plan, read_back, to_disk, Model, Run, RUN};
use naive::methods::twin;
use naive::numbers::ulp;
use serde_json::{json, Value as Json};

/// `setting` and everything it can be turned into.
fn all_settings(spec: &Spec) -> Vec<Setting> {
    let mut all = settings(spec, others);
    all.extend(settings(spec, ends).into_iter().skip(1));
    all
}

#[test]
fn the_registry_lists_the_files_of_its_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/methods");
    let stem = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
    let files: BTreeSet<String> = fs::read_dir(folder).unwrap().map(stem).filter(|name| name != "mod").collect();
    let names: BTreeSet<String> = METHODS.iter().map(|spec| spec.name.to_string()).collect();
    assert_eq!(files, names);
    assert_eq!(METHODS.len(), names.len(), "a method is listed twice");
}

#[test]
fn every_method_and_parameter_says_what_it_is() {
    for spec in METHODS {
        for text in [spec.summary, spec.formula, spec.paper, spec.cost] {
            assert!(!text.is_empty(), "{}", spec.name);
        }
        assert!(1 <= spec.models.0 && spec.models.0 <= spec.models.1, "{}", spec.name);
        for param in spec.params {
            assert!(!param.doc.is_empty(), "{} of {} is not documented", param.name, spec.name);
            assert!(!spec.idle.contains(&param.name), "{} of {} is idle and is not", param.name, spec.name);
            assert!(!param.per_model || matches!(param.kind, Kind::Number { .. }), "{} of {}", param.name, spec.name);
        }
    }
}

#[test]
fn a_parameter_that_is_unknown_or_out_of_range_is_refused_by_name() {
    for spec in METHODS {
        let refusal = |setting: &Setting| match Recipe::parse(&recipe(spec, setting).to_string(), false) {
            Ok(_) => panic!("{}: {setting:?} is accepted", spec.name),
            Err(e) => {
                assert_eq!(e.kind, Wrong::Recipe, "{e}");
                assert!(!e.message.contains('\n'), "{e}");
                e.message
            }
        };
        let with = |name: &str, value: Json| refusal(&Setting::from_iter([(name.to_string(), value)]));
        let message = with("wholly_unknown", json!(1));
        assert!(message.contains("\"wholly_unknown\"") && message.contains(spec.name), "{message}");
        for param in spec.params {
            let message = with(&format!("{}x", param.name), json!(1));
            assert!(message.contains(&format!("did you mean \"{}\"?", param.name)), "{message}");
            let bad = match param.kind {
                Kind::Number { min, max } if min.is_finite() => vec![json!(min - 1e-9), json!(max + 1e-9), json!("nan"), json!("much")],
                Kind::Number { .. } => vec![json!("nan"), json!("inf"), json!("-inf"), json!("much"), json!(true), json!({"a": 1})],
                Kind::Whole { min, max } => vec![json!(min - 1.0), json!(max + 1.0), json!(min + 0.5), json!("nan"), json!("much")],
                Kind::NumberOr { min, max, .. } => {
                    vec![json!(min / 2.0), json!(max + 1e-9), json!("nan"), json!("nothing like it"), json!(true)]
                }
                Kind::Method | Kind::Mapping => unreachable!("modifiers have these"),
                Kind::Flag => vec![json!(1), json!("true"), json!([true, false])],
                Kind::Word { .. } => vec![json!("nothing like it"), json!(1)],
            };
            for value in bad {
                let message = with(param.name, value);
                assert!(message.contains(param.name), "{message}");
            }
            if !param.per_model {
                let mut recipe = recipe(spec, &Setting::new());
                recipe["models"][0]["parameters"][param.name] = param.default.json();
                let message = Recipe::parse(&recipe.to_string(), false).err().expect("one value for the merge").message;
                assert!(message.contains(param.name), "{message}");
            }
        }
    }
}

#[test]
fn a_number_of_models_that_does_not_fit_is_refused() {
    for spec in METHODS {
        let mut wrong = vec![spec.models.0 - 1];
        wrong.extend(spec.models.1.checked_add(1));
        for count in wrong {
            let names: Vec<String> = (0..count).map(|i| format!("m{i}")).collect();
            let mut recipe = json!({"merge_method": spec.name, "models": names});
            if spec.base == Base::Required {
                recipe["base_model"] = json!("base");
            }
            let message = Recipe::parse(&recipe.to_string(), false).err().expect("too few or too many").message;
            assert!(message.contains(spec.name) && message.contains(&format!("given {count}")), "{message}");
        }
    }
}

#[test]
fn a_key_without_effect_is_accepted_with_a_warning() {
    let family = family(Make::Plain);
    for spec in METHODS {
        let plain = in_memory(&family, &recipe(spec, &setting(spec)), RUN).unwrap();
        for key in spec.idle {
            let mut idle = setting(spec);
            idle.insert(key.to_string(), json!(true));
            let recipe = recipe(spec, &idle);
            let warnings = Recipe::parse(&recipe.to_string(), false).unwrap().warnings;
            assert!(warnings.iter().any(|w| w.contains(key) && w.contains(spec.name)), "{warnings:?}");
            assert!(in_memory(&family, &recipe, RUN).unwrap() == plain, "{key} changes {}", spec.name);
        }
    }
}

/// The engine against the formula, written naively over whole tensors; with ties, cancelling votes, NaN and infinities, in all dtypes.
#[test]
fn every_method_is_its_formula() {
    for (number, make) in MAKES.into_iter().enumerate() {
        let family = family(make);
        for spec in METHODS {
            for (i, mut recipe) in all_settings(spec).iter().flat_map(|setting| recipes(spec, setting)).enumerate() {
                // An SVD takes a while: each setting of a method that needs one meets one family in three, and the wild one.
                let slow = spec.params.iter().any(|param| param.name == "matrices");
                if slow && number < 3 && i % 3 != number {
                    continue;
                }
                // Each setting meets another output type, and every other one another `onto`.
                let dtype = [None, Some(Dtype::F32), Some(Dtype::BF16), Some(Dtype::F64), Some(Dtype::F16)][i % 5];
                if let Some(dtype) = dtype {
                    recipe["dtype"] = json!(dtype.name());
                }
                if !recipe["base_model"].is_null() && i % 2 == 1 {
                    recipe["onto"] = json!("a");
                }
                let Ok(parsed) = Recipe::parse(&recipe.to_string(), false) else { continue };
                let bound = (spec.bind)(&parsed.plain().unwrap().unwrap()).unwrap();
                if make == Make::Wild && bound.spectral().is_some_and(|spectral| spectral.which() != Which::None) {
                    // What is not finite has no singular values.
                    let refusal = in_memory(&family, &recipe, RUN).expect_err("is refused");
                    assert!(
                        refusal.kind == Wrong::Run && refusal.message.contains("NaN or infinite") && refusal.message.contains("tensor")
                    );
                    continue;
                }
                let merged = in_memory(&family, &recipe, RUN).unwrap();
                formula::check(&parsed, &family, &merged, dtype, &format!("{make:?} {recipe}"));
            }
        }
    }
}

#[test]
fn neither_threads_nor_tiles_nor_the_disk_can_be_seen_in_the_bytes() {
    for make in [Make::Plain, Make::Mixed, Make::Tied] {
        let (family, dir) = (family(make), tempfile::tempdir().unwrap());
        save(&family, dir.path());
        for spec in METHODS {
            for (i, recipe) in settings(spec, others).iter().flat_map(|setting| recipes(spec, setting)).enumerate() {
                let once = in_memory(&family, &recipe, Run { threads: 1, tile: 1 << 20, ..RUN }).unwrap();
                for (threads, tile) in [(1, 1), (2, 1), (3, 1), (2, 40_000), (3, 1 << 20)] {
                    let again = in_memory(&family, &recipe, Run { threads, tile, ..RUN }).unwrap();
                    assert!(again == once, "{recipe}: other bytes with {threads} threads and tiles of {tile}");
                }
                let out = dir.path().join(format!("{}-{i}", spec.name));
                let report = to_disk(dir.path(), &recipe, &out, Run { threads: 1 + i % 3, shard: 30_000, ..RUN }).unwrap();
                assert!(read_back(&out) == once, "{recipe}: other bytes from disk");
                assert_eq!(report["tensors"], once.parts.len(), "{report}");
            }
        }
    }
}

#[test]
fn less_memory_changes_no_byte() {
    let (family, dir) = (family(Make::Mixed), tempfile::tempdir().unwrap());
    save(&family, dir.path());
    for spec in METHODS {
        for recipe in settings(spec, others).iter().flat_map(|setting| recipes(spec, setting)) {
            let plan = plan(dir.path(), &recipe).unwrap();
            let choose = |cap: u64| Limits::choose(&plan, Some(3), Some(cap), None);
            let (mut refused, mut enough) = (0, Limits::choose(&plan, Some(3), None, None).unwrap().bytes(&plan));
            let free = in_memory(&family, &recipe, RUN).unwrap();
            assert_eq!(choose(enough).unwrap().threads, 3);
            while enough - refused > 1 {
                let cap = refused + (enough - refused) / 2;
                match choose(cap) {
                    Ok(limits) => {
                        assert!(limits.bytes(&plan) <= cap, "{recipe}: {limits:?} takes more than {cap}");
                        let merged = in_memory(&family, &recipe, Run { cap: Some(cap), threads: 3, tile: 1 << 20, ..RUN }).unwrap();
                        assert!(merged == free, "{recipe}: other bytes within {cap} bytes of memory");
                        enough = cap;
                    }
                    Err(e) => {
                        assert!(e.kind == Wrong::Space && e.message.contains("--max-memory"), "{e}");
                        refused = cap;
                    }
                }
            }
            assert_eq!(choose(enough).unwrap().threads, 1, "{recipe}");
            assert_eq!(Limits::choose(&plan, Some(0), None, None).unwrap_err().kind, Wrong::Recipe);
        }
    }
}

#[test]
fn equal_inputs_come_back_unchanged() {
    for make in [Make::Plain, Make::Mixed, Make::Tied] {
        let base = family(make).swap_remove(0).1;
        let same: Vec<(String, Model)> = ["base", "a", "b", "c"].map(|name| (name.to_string(), base.clone())).into();
        for spec in METHODS {
            let mut requests = recipes(spec, &Setting::new());
            requests.extend(all_settings(spec).iter().flat_map(|setting| recipes(spec, setting)));
            for (i, request) in requests.into_iter().enumerate() {
                // No task vector is left of equal models, whatever is done with it; a mean of weights is one if they sum to 1.
                let vectors = !request["base_model"].is_null();
                if !vectors && i > 0 {
                    continue;
                }
                let Ok(merged) = in_memory(&same, &request, RUN) else {
                    assert!(Recipe::parse(&request.to_string(), false).is_err(), "{request}");
                    continue;
                };
                for part in merged.float_parts() {
                    for (got, want) in part.values().into_iter().zip(base.part(&part.name).values()) {
                        let digits = matches!(part.dtype, Dtype::F32 | Dtype::F64) && !vectors;
                        let slack = if digits { 2.0 * ulp(part.dtype, want) } else { 0.0 };
                        assert!((got - want).abs() <= slack, "{request}: {} has {got:e} for {want:e}", part.name);
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_finite_stays_finite() {
    // Nothing at all, nothing but zeros, the smallest numbers, all alike, one element.
    let rows: [(&str, Vec<f64>); 5] =
        [("zeros", vec![0.0; 70]), ("tiny", vec![1e-45; 70]), ("alike", vec![0.5; 70]), ("one", vec![-3.0]), ("large", vec![1e3; 5])];
    let mut members = family(Make::Tied);
    for (m, (_, model)) in members.iter_mut().enumerate() {
        for (name, values) in &rows {
            let values: Vec<f64> = values.iter().map(|x| x * [1.0, 1.0, -1.0, 2.0][m]).collect();
            *model = std::mem::take(model).floats(name, Dtype::F32, &[values.len() as u64], &values);
            *model = std::mem::take(model).floats(&format!("{name}.equal"), Dtype::BF16, &[1], &[if m == 0 { 0.0 } else { 0.25 }]);
        }
    }
    for spec in METHODS {
        let mut merges = 0;
        for request in all_settings(spec).iter().flat_map(|setting| recipes(spec, setting)) {
            match in_memory(&members, &request, RUN) {
                Ok(merged) => {
                    merges += 1;
                    for part in merged.float_parts() {
                        assert!(part.values().iter().all(|x| x.is_finite()), "{request}: {}", part.name);
                    }
                }
                // Weights that sum to nothing may be refused; nothing else may.
                Err(e) => assert!(e.kind == Wrong::Recipe && e.message.contains("weights"), "{request}: {e}"),
            }
        }
        assert!(merges > spec.params.len(), "{}", spec.name);
    }
}

/// Weights whose sum vanishes in the arithmetic, though not on paper.
#[test]
fn weights_that_cancel_are_refused_or_harmless() {
    let family = family(Make::Plain);
    for spec in METHODS.iter().filter(|spec| spec.params.iter().any(|p| p.name == "weight")) {
        for weights in [[1.0, -0.9999999999], [1e-50, 1e-50], [0.0, 0.0], [1e39, 1.0]] {
            let setting = Setting::from_iter([("weight".to_string(), json!([weights[0], weights[1], 0.0]))]);
            for request in recipes(spec, &setting) {
                match in_memory(&family, &request, RUN) {
                    Ok(merged) => {
                        let finite = merged.float_parts().all(|part| part.values().iter().all(|x| x.is_finite()));
                        assert!(finite, "NaN or infinities are made of the weights: {request}");
                    }
                    Err(e) => assert!(e.kind == Wrong::Recipe && e.message.contains("weight"), "{e}"),
                }
            }
        }
    }
}

#[test]
fn the_seed_decides_where_chance_does() {
    let family = family(Make::Plain);
    for spec in METHODS {
        for setting in settings(spec, others) {
            let seeded = |seed: u64| {
                let mut recipe = recipe(spec, &setting);
                recipe["seed"] = json!(seed);
                in_memory(&family, &recipe, RUN).unwrap()
            };
            assert!(seeded(1) == seeded(1), "{}", spec.name);
            assert_eq!(seeded(1) != seeded(u64::MAX), twin(spec.name).random, "{}: does the seed matter?", spec.name);
        }
    }
}

#[test]
fn the_order_of_the_models_matters_where_the_method_says_so() {
    let family = family(Make::Plain);
    for spec in METHODS {
        for one_way in settings(spec, others).iter().flat_map(|setting| recipes(spec, setting)) {
            let mut other_way = one_way.clone();
            other_way["models"].as_array_mut().unwrap().reverse();
            let (one, other) = (in_memory(&family, &one_way, RUN).unwrap(), in_memory(&family, &other_way, RUN).unwrap());
            let mut different = 0;
            for (a, b) in one.float_parts().zip(other.float_parts()) {
                let inputs: Vec<Vec<f64>> = family.iter().map(|(_, model)| model.part(&a.name).values()).collect();
                for (i, (x, y)) in a.values().into_iter().zip(b.values()).enumerate() {
                    // One step, that of the largest number among the result and the inputs, since sums cancel; where the output keeps
                    // all digits of the arithmetic, one for each of its roundings.
                    let size = inputs.iter().map(|input| input[i].abs()).fold(x.abs(), f64::max);
                    let steps = if a.dtype.size() == 2 { 1 } else { 2 * inputs.len() };
                    different += usize::from((x - y).abs() > steps as f64 * ulp(a.dtype, size));
                }
            }
            assert_eq!(different == 0, spec.order_free, "{different} elements hang on the order of the models: {one_way}");
        }
    }
}

#[test]
fn every_parameter_changes_the_output() {
    // Votes that cancel exactly are what the rule for a sum of zero is for.
    let (plain, tied) = (family(Make::Plain), family(Make::Tied));
    for spec in METHODS {
        for param in spec.params {
            for value in others(param, model::family::count(spec)) {
                // Some choices matter only beside others (a scope only to what is taken over it): one setting of those must do.
                let changes = settings(spec, others).into_iter().any(|setting| {
                    let mut other = setting.clone();
                    other.insert(param.name.into(), value.clone());
                    [&plain, &tied].into_iter().any(|family| {
                        let merge = |setting| in_memory(family, &recipe(spec, setting), RUN).unwrap();
                        other != setting && merge(&setting) != merge(&other)
                    })
                });
                assert!(changes, "{} = {value} never changes {}", param.name, spec.name);
            }
        }
    }
}

#[test]
fn a_parameter_left_out_has_its_default() {
    let family = family(Make::Plain);
    for spec in METHODS {
        let count = model::family::count(spec);
        let spelled = spec.params.iter().map(|param| {
            let value = match param.default.json() {
                share if share == "1/N" => json!(1.0 / count as f64),
                value => value,
            };
            (param.name.to_string(), if param.per_model { json!(vec![value; count]) } else { value })
        });
        let spelled = in_memory(&family, &recipe(spec, &spelled.collect()), RUN).unwrap();
        assert!(in_memory(&family, &recipe(spec, &Setting::new()), RUN).unwrap() == spelled, "{}", spec.name);
    }
}

#[test]
fn a_task_vector_scaled_by_nothing_leaves_what_it_is_added_to() {
    let family = family(Make::Mixed);
    for spec in METHODS.iter().filter(|spec| spec.params.iter().any(|param| param.name == "lambda")) {
        let mut setting = setting(spec);
        setting.insert("lambda".into(), json!(0));
        let mut recipe = recipe(spec, &setting);
        for onto in ["base", "b"] {
            recipe["onto"] = json!(onto);
            // The output has the base's types; what it is added to has others, none of which is finer.
            recipe["dtype"] = json!("float64");
            let merged = in_memory(&family, &recipe, RUN).unwrap();
            for part in merged.float_parts() {
                assert_eq!(part.values(), member(&family, onto).part(&part.name).values(), "{} onto {onto}: {}", spec.name, part.name);
            }
        }
    }
}

/// What one method makes of a neutral setting is another method's merge.
#[test]
fn methods_meet_where_their_formulas_do() {
    let family = family(Make::Plain);
    let merge = |recipe: Json| in_memory(&family, &recipe, RUN).unwrap();
    let vectors = |method: &str, parameters: Json| {
        merge(json!({"merge_method": method, "base_model": "base", "models": ["a", "b"], "parameters": parameters}))
    };
    let sum = vectors("task_arithmetic", json!({"weight": 0.75, "lambda": 0.5}));
    let dare = vectors("dare_linear", json!({"weight": 0.75, "lambda": 0.5, "density": 1}));
    assert!(dare == sum, "DARE that drops nothing is a sum");
    // Nothing dropped, one model: all agree with themselves.
    let alone = |method: &str| merge(json!({"merge_method": method, "base_model": "base", "models": ["a"], "parameters": {"density": 1}}));
    assert!(alone("ties") == alone("dare_ties"), "all agree");
    // The ends of a line are its models, in the first one's types.
    for (t, end) in [(0, "a"), (1, "b")] {
        let at = merge(json!({"merge_method": "slerp", "models": ["a", "b"], "parameters": {"t": t}}));
        at.float_parts().for_each(|part| assert_eq!(part.values(), member(&family, end).part(&part.name).values(), "t = {t}"));
    }
    // Extrapolation: RL + α(RL − SFT) is (1 + α)·RL − α·SFT.
    let expo = merge(json!({"merge_method": "task_arithmetic", "base_model": "a", "models": ["b"], "onto": "b", "dtype": "float64",
        "parameters": {"weight": 1, "lambda": 0.5}}));
    for part in expo.float_parts() {
        let (sft, rl) = (member(&family, "a").part(&part.name).values(), member(&family, "b").part(&part.name).values());
        for (x, (sft, rl)) in part.values().into_iter().zip(sft.into_iter().zip(rl)) {
            assert!((x - (1.5 * rl - 0.5 * sft)).abs() <= 1e-14 * (rl.abs() + sft.abs()), "{}", part.name);
        }
    }
}
