//! Is a merge its formula?

use mergecore::dtype::Dtype;
use mergecore::methods::Scope;
use mergecore::recipe::Recipe;

use super::family::member;
use super::{Model, Part};
use crate::naive::methods::{twin, Tensor};
use crate::naive::numbers::{decode, encode, ulp};
use crate::rows::Sample;

/// Holds a merge of a family against the twin of its method, tensor by tensor; `dtype` is the output's, if not each tensor's own.
pub fn check(recipe: &Recipe, family: &[(String, Model)], merged: &Model, dtype: Option<Dtype>, what: &str) {
    let references = recipe.references();
    let inputs: Vec<&Model> = references.iter().map(|name| member(family, name)).collect();
    // The base comes first, else the first model: it decides names and types.
    let first = inputs[0];
    let out = |part: &Part| dtype.unwrap_or(part.dtype);
    let is_wide = |part: &&Part| out(part) == Dtype::F64 || inputs.iter().any(|model| model.part(&part.name).dtype == Dtype::F64);
    let mut parts: Vec<&Part> = first.float_parts().collect();
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    // One threshold over the model compares numbers of one type.
    let params = recipe.plain().unwrap().expect("the twins know no gradients");
    let bound = (recipe.spec.bind)(&params).unwrap();
    let whole = bound.scope() == Scope::Model;
    // Singular vectors are found through squares, whose conditions are squared, too.
    let share = if bound.spectral().is_some() { 1e-8 } else { 1e-12 };
    let all_wide = whole && parts.iter().any(is_wide);
    let (wide, narrow): (Vec<&Part>, Vec<&Part>) = parts.iter().partition(|part| all_wide || is_wide(part));

    let twin = twin(recipe.spec.name);
    let exact = (twin.exact)(&params);
    let want = (twin.narrow)(&tensors(&narrow, recipe, family), &params, recipe.seed);
    narrow.iter().zip(&want).for_each(|(part, want)| compare(merged.part(&part.name), want, (exact, share), &inputs, what));
    let want = (twin.wide)(&tensors(&wide, recipe, family), &params, recipe.seed);
    wide.iter().zip(&want).for_each(|(part, want)| compare(merged.part(&part.name), want, (exact, share), &inputs, what));

    // Integers are copied, derived buffers left out, nothing else is there.
    let copied: Vec<&Part> = first.parts.iter().filter(|p| !p.dtype.is_float() && !p.name.ends_with("inv_freq")).collect();
    for part in parts.iter().chain(&copied) {
        let got = merged.part(&part.name);
        assert_eq!((got.dtype, &got.shape), (if part.dtype.is_float() { out(part) } else { part.dtype }, &part.shape), "{what}");
        assert!(part.dtype.is_float() || got == *part, "{what}: {} is not copied", part.name);
    }
    assert_eq!(merged.parts.len(), parts.len() + copied.len(), "{what}");
}

fn tensors<R: Sample>(parts: &[&Part], recipe: &Recipe, family: &[(String, Model)]) -> Vec<Tensor<R>> {
    let values = |model: &String, name: &str| member(family, model).part(name).values().into_iter().map(R::of).collect::<Vec<R>>();
    let tensor = |part: &&Part| Tensor {
        name: part.name.clone(),
        shape: part.shape.iter().map(|n| *n as usize).collect(),
        row: part.shape.last().map_or(1, |n| *n as usize).max(1),
        base: recipe.base.as_ref().map(|base| values(base, &part.name)),
        models: recipe.models().into_iter().map(|model| values(model, &part.name)).collect(),
        onto: recipe.onto.as_ref().map(|onto| values(onto, &part.name)),
        rounded: (-rounding(member(family, recipe.models()[0]).part(&part.name).dtype)).exp2(),
    };
    parts.iter().map(tensor).collect()
}

/// The digits of a type, and what a uniform error has below them.
fn rounding(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::BF16 => 9.2,
        Dtype::F16 => 12.2,
        Dtype::F32 => 25.2,
        _ => 54.2,
    }
}

fn compare<R: Sample>(got: &Part, want: &[R], (exact, share): (bool, f64), inputs: &[&Model], what: &str) {
    let inputs: Vec<Vec<f64>> = inputs.iter().map(|model| model.part(&got.name).values()).collect();
    // An element of a matrix that is merged whole is made of all of them.
    let least = if share > 1e-12 { want.iter().map(|x| x.f64().abs()).fold(0.0, f64::max) } else { 0.0 };
    assert_eq!(got.values().len(), want.len(), "{what}: {}", got.name);
    for (i, (x, want)) in got.values().into_iter().zip(want).enumerate() {
        let want = decode(got.dtype, &encode(got.dtype, want.f64()));
        // A sum in another order may round a factor differently (and an angle's factors all the more), which a rounding of the output can
        // make one step.
        let size = inputs.iter().map(|input| input[i].abs()).fold(want.abs().max(least), f64::max);
        let slack = ulp(got.dtype, x.abs().max(want.abs())) + (64.0 * R::EPSILON + share) * size;
        let near = !exact && (x - want).abs() <= slack;
        assert!(near || x.same(want), "{what}: {}[{i}] is {x:e} instead of {want:e}", got.name);
    }
}
