//! Are the parts of a model merged each in its own way, and is no tensor of any forgotten?

mod model;
mod naive;
mod rows;

use std::path::Path;

use mergecore::dtype::Dtype;
use mergecore::recipe::Recipe;
use mergecore::report;
use model::{laid_out, plan, read_back, to_disk, Model, RUN};
use serde_json::{json, Value as Json};

/// Two stacks of layers, a projector, and a head beside them, as newer files have them; every element of a tensor is `value`.
fn seeing(value: f64) -> Model {
    let text = (0..3).map(|i| format!("model.language_model.layers.{i}.mlp.up_proj.weight"));
    let tower = (0..2).map(|i| format!("model.vision_tower.encoder.layers.{i}.fc1.weight"));
    let outside = [
        "lm_head.weight",
        "model.language_model.embed_tokens.weight",
        "model.language_model.norm.weight",
        "model.multi_modal_projector.linear_1.weight",
        "model.vision_tower.ln_pre.weight",
        "model.vision_tower.post_layernorm.weight",
    ];
    let names = text.chain(tower).chain(outside.map(String::from));
    names.fold(Model::default(), |model, name| model.floats(&name, Dtype::F32, &[2], &[value, value]))
}

fn folder(models: &[(&str, &Model)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    models.iter().for_each(|(name, model)| model.save(&dir.path().join(name)));
    dir
}

fn values(dir: &Path, recipe: &Json) -> impl Fn(&str) -> f64 {
    to_disk(dir, recipe, &dir.join("out"), RUN).unwrap_or_else(|e| panic!("{e}"));
    let merged = read_back(&dir.join("out"));
    move |name| merged.part(name).values()[0]
}

fn refusal(dir: &Path, recipe: &Json) -> String {
    plan(dir, recipe).err().expect("is refused").message
}

fn modular(modules: Json) -> Json {
    json!({"merge_method": "linear", "modules": modules})
}

#[test]
fn each_module_has_its_models_and_its_parameters() {
    let dir = folder(&[("a", &seeing(0.0)), ("b", &seeing(1.0)), ("tower", &seeing(5.0))]);
    let mut recipe = modular(json!({
        "text_decoder": {"models": ["a", {"model": "b", "parameters": {"weight": [0, 0.5]}}]},
        "vision_tower": {"models": ["a", {"model": "tower"}], "parameters": {"weight": 0.5}},
        "multi_modal_projector": {"models": ["tower"]},
    }));
    recipe["parameters"] = json!({"weight": 1, "normalize": false});
    let value = values(dir.path(), &recipe);
    assert_eq!([0, 1, 2].map(|i| value(&format!("model.language_model.layers.{i}.mlp.up_proj.weight"))), [0.0, 0.25, 0.5]);
    assert_eq!(value("lm_head.weight"), 0.0);
    assert_eq!([0, 1].map(|i| value(&format!("model.vision_tower.encoder.layers.{i}.fc1.weight"))), [2.5, 2.5]);
    assert_eq!(value("model.multi_modal_projector.linear_1.weight"), 5.0);
}

#[test]
fn a_module_s_slices_leave_the_other_stacks_as_they_are() {
    let dir = folder(&[("a", &seeing(1.0)), ("b", &seeing(2.0))]);
    let piece = |model: &str, first: usize, end: usize| json!({"sources": [{"model": model, "layer_range": [first, end]}]});
    let recipe = modular(json!({
        "text_decoder": {"models": ["a"]},
        "vision_tower": {"slices": [piece("a", 0, 1), piece("b", 0, 2)]},
        "multi_modal_projector": {"models": ["b"]},
    }));
    let value = values(dir.path(), &recipe);
    assert_eq!([0, 1, 2].map(|i| value(&format!("model.vision_tower.encoder.layers.{i}.fc1.weight"))), [1.0, 2.0, 2.0]);
    // What comes before the layers is the first slice's, what comes after them the last's.
    assert_eq!((value("model.vision_tower.ln_pre.weight"), value("model.vision_tower.post_layernorm.weight")), (1.0, 2.0));
    assert_eq!(value("model.language_model.layers.2.mlp.up_proj.weight"), 1.0);

    let plan = plan(dir.path(), &recipe).unwrap();
    let (layout, _) = laid_out(&plan, RUN).unwrap();
    let said = report::summary(&plan, &layout, 1, 0);
    let origins = json!([["a", 0], ["b", 0], ["b", 1]]);
    assert_eq!(said["stacks"], json!([{"name": "model.vision_tower.encoder.layers", "part": "vision_tower", "origins": origins}]));
}

#[test]
fn a_model_need_only_have_what_its_modules_take() {
    let tower = Model { parts: seeing(5.0).parts.into_iter().filter(|part| part.name.contains("vision")).collect(), config: None };
    let dir = folder(&[("a", &seeing(1.0)), ("tower", &tower)]);
    let grafted = modular(json!({
        "vision_tower": {"models": ["tower"]},
        "default": {"models": ["a"]},
    }));
    let value = values(dir.path(), &grafted);
    assert_eq!((value("model.vision_tower.ln_pre.weight"), value("lm_head.weight")), (5.0, 1.0));
    let missing = modular(json!({"text_decoder": {"models": ["a", "tower"]}, "default": {"models": ["a"]}}));
    assert!(refusal(dir.path(), &missing).contains("the module text_decoder takes no tensor of tower"));
}

#[test]
fn a_tensor_in_no_module_is_refused_with_the_modules_that_would_take_it() {
    let odd = seeing(1.0).floats("model.embed_vision.weight", Dtype::F32, &[1], &[1.0]);
    let dir = folder(&[("a", &seeing(1.0)), ("odd", &odd)]);
    let all = json!({"text_decoder": {"models": ["odd"]}, "visoin_tower": {"models": ["odd"]}});
    let two = |model: &str| json!({"text_decoder": {"models": [model]}, "multi_modal_projector": {"models": [model]}});
    for (modules, words) in [
        (
            two("a"),
            vec!["tensor model.vision_tower.", " of a ", "text_decoder, multi_modal_projector", "vision_tower or model.vision_tower"],
        ),
        (
            json!({"text_decoder": {"models": ["odd"]}, "vision_tower": {"models": ["odd"]}, "multi_modal_projector": {"models": ["odd"]}}),
            vec!["tensor model.embed_vision.weight of odd", "add a module model.embed_vision", "--ignore"],
        ),
        (all, vec!["tensor model.embed_vision.weight"]),
        (
            json!({"default": {"models": ["a"]}, "visoin_tower": {"models": ["a"]}}),
            vec!["visoin_tower takes no tensor of a; did you mean \"vision_tower\"?"],
        ),
        (
            json!({"default": {"models": ["a"]}, "vision_tower": {"models": ["a"]}, "vision_model": {"models": ["a"]}}),
            vec!["vision_tower and vision_model", "give one"],
        ),
    ] {
        let message = refusal(dir.path(), &modular(modules));
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    let mut ignored = modular(json!({"text_decoder": {"models": ["odd"]}, "vision_tower": {"models": ["odd"]}}));
    ignored["ignore"] = json!(["model.embed_vision*", "*multi_modal_projector*"]);
    assert!(plan(dir.path(), &ignored).is_ok());
}

#[test]
fn a_modular_recipe_that_cannot_be_is_refused_by_name() {
    let dir = folder(&[("a", &seeing(1.0))]);
    let range = |range: Json| json!({"slices": [{"sources": [{"model": "a", "layer_range": range}]}]});
    for (change, words) in [
        (json!({"models": ["a"]}), "modules and models"),
        (json!({"modules": {}}), "mapping of parts"),
        (json!({"modules": ["a"]}), "mapping of parts"),
        (json!({"modules": {"text_decoder": {"modles": ["a"]}}}), "in the module text_decoder; did you mean \"models\"?"),
        (json!({"modules": {"text_decoder": {"parameters": {}}}}), "the module text_decoder needs models"),
        (json!({"modules": {"text_decoder": {"models": ["a"], "slices": []}}}), "the module text_decoder has models and slices"),
        (json!({"modules": {"text_decoder": ["a"]}}), "the module text_decoder must be a mapping"),
        (json!({"modules": {"text_decoder": {"models": []}}}), "given 0 in the module text_decoder"),
        (json!({"modules": {"text_decoder": {"models": ["a"], "parameters": {"weigth": 1}}}}), "\"weight\""),
        (json!({"modules": {"default": range(json!([0, 1]))}}), "several stacks of layers"),
        (json!({"modules": {"default": {"models": ["a"]}, "text_decoder": range(json!([1, 4]))}}), "has 3 layers"),
    ] {
        let mut recipe = modular(json!({"default": {"models": ["a"]}}));
        recipe.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let message = refusal(dir.path(), &recipe);
        assert!(message.contains(words), "{message}");
    }
    let message = refusal(dir.path(), &json!({"merge_method": "linear", "slices": range(json!([0, 1]))["slices"]}));
    assert!(message.contains("give modules"), "{message}");
    let onto = |module: Json| {
        let modules = json!({"default": {"models": ["a"]}, "vision_tower": module});
        Recipe::parse(&json!({"merge_method": "task_arithmetic", "base_model": "o", "onto": "a", "modules": modules}).to_string(), false)
    };
    assert!(onto(json!({"models": ["a"]})).is_ok() && onto(range(json!([0, 1]))).is_err());
}

#[test]
fn a_resolved_modular_recipe_asks_for_the_same_merge() {
    let text = json!({
        "merge_method": "ties", "base_model": "o", "parameters": {"density": 0.5},
        "modules": {
            "vision_tower": {"models": ["a", {"model": "b", "parameters": {"weight": 0.3}}], "parameters": {"density": [0.1, 0.9]}},
            "text_decoder": {"slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}, {"model": "o", "layer_range": [1, 3]}]}]},
        },
    });
    let once = Recipe::parse(&text.to_string(), true).unwrap();
    let resolved = once.resolved();
    let again = Recipe::parse(&resolved.to_string(), true).unwrap();
    assert_eq!(resolved, again.resolved());
    assert_eq!(resolved["modules"].as_object().unwrap().keys().collect::<Vec<_>>(), ["vision_tower", "text_decoder"]);
    assert_eq!(again.slices[1].base_layers, Some(1..3));
    assert_eq!(once.models(), ["a", "b"]);
    let said = once.parameters();
    assert!(said["density"].as_str().unwrap().contains("2 scopes") && said["weight"].as_str().unwrap().contains("in one module"), "{said}");
}

#[test]
fn what_the_first_layer_keeps_for_the_others_stays_in_it() {
    let bias = |part: &str| format!("{part}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
    let make = |value: f64| {
        let blocks = ["encoder", "decoder"].map(|part| (0..3).map(move |i| format!("{part}.block.{i}.layer.0.layer_norm.weight")));
        let names =
            blocks.into_iter().flatten().chain(["encoder", "decoder"].map(bias)).chain(["shared.weight".into(), "lm_head.weight".into()]);
        names.fold(Model::default(), |model, name| model.floats(&name, Dtype::F32, &[1], &[value]))
    };
    let dir = folder(&[("a", &make(1.0)), ("b", &make(2.0))]);
    let piece = |model: &str, first: usize, end: usize| json!({"sources": [{"model": model, "layer_range": [first, end]}]});
    let recipe = modular(json!({
        "encoder": {"slices": [piece("a", 1, 3), piece("b", 0, 2)]},
        "decoder": {"models": ["a"]},
        "shared": {"models": ["b"]},
    }));
    let value = values(dir.path(), &recipe);
    assert_eq!([0, 1, 2, 3].map(|i| value(&format!("encoder.block.{i}.layer.0.layer_norm.weight"))), [1.0, 1.0, 2.0, 2.0]);
    assert_eq!((value(&bias("encoder")), value("lm_head.weight")), (1.0, 2.0));
    let merged = read_back(&dir.path().join("out"));
    assert_eq!(merged.parts.iter().filter(|part| part.name.contains("relative")).count(), 2);
}
