//! Every method's formula over whole tensors, as its paper has it.
//!
//! A method of the registry without a twin here fails the law `every_method_is_its_formula`.

use super::{add_fused, attach, combine, disjoint, divide, in_pairs, largest, majority, mask, only, products, scale, subtract, sum, tally};
use crate::rows::Sample;
use mergecore::kernels::thin::Rescale;
use mergecore::params::Params;

/// One tensor of all models.
pub struct Tensor<R> {
    pub name: String,
    pub base: Option<Vec<R>>,
    pub models: Rows<R>,
    pub onto: Option<Vec<R>>,
}

/// One row a tensor, or one a model.
type Rows<R> = Vec<Vec<R>>;

/// What a method is said to be, beside what it says of itself.
pub struct Twin {
    pub name: &'static str,
    /// Whether the seed matters.
    pub random: bool,
    /// Whether the twin has the same bits (else a sum was taken in another order).
    pub exact: fn(&Params) -> bool,
    pub narrow: fn(&[Tensor<f32>], &Params, u64) -> Rows<f32>,
    pub wide: fn(&[Tensor<f64>], &Params, u64) -> Rows<f64>,
}

fn always(_: &Params) -> bool {
    true
}

fn never(_: &Params) -> bool {
    false
}

fn without_l1(params: &Params) -> bool {
    params.word("rescale") != "l1"
}

pub const TWINS: &[Twin] = &[
    Twin { name: "linear", random: false, exact: always, narrow: linear, wide: linear },
    Twin { name: "slerp", random: false, exact: never, narrow: slerp, wide: slerp },
    Twin { name: "task_arithmetic", random: false, exact: always, narrow: task_arithmetic, wide: task_arithmetic },
    Twin { name: "ties", random: false, exact: without_l1, narrow: ties, wide: ties },
    Twin { name: "dare_linear", random: true, exact: without_l1, narrow: dare_linear, wide: dare_linear },
    Twin { name: "dare_ties", random: true, exact: without_l1, narrow: dare_ties, wide: dare_ties },
    Twin { name: "ram", random: false, exact: always, narrow: ram, wide: ram },
    Twin { name: "ramplus_tl", random: false, exact: always, narrow: ramplus_tl, wide: ramplus_tl },
    Twin { name: "nearswap", random: false, exact: always, narrow: nearswap, wide: nearswap },
    Twin { name: "passthrough", random: false, exact: always, narrow: passthrough, wide: passthrough },
];

pub fn twin(method: &str) -> &'static Twin {
    TWINS.iter().find(|twin| twin.name == method).unwrap_or_else(|| panic!("write {method}'s formula into tests/naive/methods.rs"))
}

/// θ = Σ wᵢθᵢ / Σ wᵢ, each product fused into the sum.
fn linear<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let weights = params.each("weight");
    let total = weights.iter().fold(R::ZERO, |sum, w| sum + R::of(*w));
    let merge = |tensor: &Tensor<R>| {
        let mut out = vec![R::ZERO; tensor.models[0].len()];
        for (x, w) in tensor.models.iter().zip(&weights) {
            out = add_fused(&out, x, R::of(*w));
        }
        if params.flag("normalize") {
            out = divide(&out, total);
        }
        out
    };
    model.iter().map(merge).collect()
}

/// θ = [sin((1−t)Ω) a + sin(tΩ) b] / sin Ω, a straight line where |cos Ω| > 0.9995.
fn slerp<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let t = params.number("t");
    let merge = |tensor: &Tensor<R>| {
        let (a, b) = (&tensor.models[0], &tensor.models[1]);
        let norm = |x: &[R]| match sum(&products(x, x)).0.sqrt() {
            n if n <= 1e-8 => 1.0,
            n => n,
        };
        let cos = (sum(&products(a, b)).0 / (norm(a) * norm(b))).clamp(-1.0, 1.0);
        let straight = cos.is_nan() || cos.abs() > 0.9995;
        let omega = cos.acos();
        let (s, t) = if straight { (1.0 - t, t) } else { (((1.0 - t) * omega).sin() / omega.sin(), (t * omega).sin() / omega.sin()) };
        combine(a, R::of(s), b, R::of(t))
    };
    model.iter().map(merge).collect()
}

/// δᵢ = θᵢ − θ₀
fn task_vectors<R: Sample>(tensor: &Tensor<R>) -> Rows<R> {
    let base = tensor.base.as_ref().expect("a method of task vectors has a base");
    tensor.models.iter().map(|x| subtract(x, base)).collect()
}

/// θ = onto + λ·Δ, onto being the base unless another is named.
fn model_again<R: Sample>(tensor: &Tensor<R>, delta: &[R], params: &Params) -> Vec<R> {
    let onto = tensor.onto.as_ref().or(tensor.base.as_ref()).expect("a method of task vectors has a base");
    attach(delta, onto, R::of(params.number("lambda")))
}

/// Δ = Σ wᵢδᵢ (over Σ wᵢ if normalize)
fn task_arithmetic<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let merge = |tensor: &Tensor<R>| {
        let delta = super::weighted_sum(tensor.models[0].len(), &task_vectors(tensor), &params.each("weight"), params.flag("normalize"));
        model_again(tensor, &delta, params)
    };
    model.iter().map(merge).collect()
}

/// Elect a sign for each element of the weighted task vectors, and merge those that agree.
fn elected<R: Sample>(model: &[Tensor<R>], deltas: &[Rows<R>], params: &Params) -> Rows<R> {
    let weights = params.each("weight");
    let votes: Vec<Rows<R>> = deltas.iter().map(|tensor| tensor.iter().zip(&weights).map(|(x, w)| scale(x, R::of(*w))).collect()).collect();
    let totals: Rows<R> = model.iter().zip(&votes).map(|(t, votes)| tally(t.models[0].len(), votes)).collect();
    // A sum of zero elects +; over the whole model, it elects what most elements elect.
    let zero = if params.word("scope") == "model" { majority(&totals.concat()) } else { 1.0 };
    let merge = |i: usize| {
        let delta = disjoint(&totals[i], &votes[i], &weights, params.flag("normalize"), zero);
        model_again(&model[i], &delta, params)
    };
    (0..model.len()).map(merge).collect()
}

/// δ̂ᵢ = keptᵢ∘δᵢ, rescaled; `kept(i, density)` are model i's masks, one a tensor.
fn thinned<R: Sample>(
    model: &[Tensor<R>],
    params: &Params,
    whole: bool,
    kept: impl Fn(&[Rows<R>], usize, f64) -> Vec<Vec<bool>>,
) -> Vec<Rows<R>> {
    let deltas: Vec<Rows<R>> = model.iter().map(task_vectors).collect();
    let rescale = Rescale::named(params.word("rescale"));
    let mut thinned: Vec<Rows<R>> = model.iter().map(|_| Vec::new()).collect();
    for (i, density) in params.each("density").into_iter().enumerate() {
        let masks = kept(&deltas, i, density);
        let one = |tensor: usize| {
            let size = |x: &[R]| in_pairs(&super::magnitudes(x));
            (size(&deltas[tensor][i]), size(&only(&deltas[tensor][i], &masks[tensor])))
        };
        let each: Vec<(f64, f64)> = (0..model.len()).map(one).collect();
        let all = each.iter().fold((0.0, 0.0), |sum, x| (sum.0 + x.0, sum.1 + x.1));
        for tensor in 0..model.len() {
            let sums = if whole { all } else { each[tensor] };
            thinned[tensor].push(super::thin(&deltas[tensor][i], &masks[tensor], density, rescale, sums));
        }
    }
    thinned
}

/// Keep the density·n largest of each task vector (n: the tensor's elements, or the model's), then elect.
fn ties<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let count = |density: f64, n: usize| if density > 0.0 { ((density * n as f64) as usize).max(1) } else { 0 };
    let whole = params.word("scope") == "model";
    let trim = |deltas: &[Rows<R>], i: usize, density: f64| -> Vec<Vec<bool>> {
        if !whole {
            return deltas.iter().map(|tensor| largest(&tensor[i], count(density, tensor[i].len()))).collect();
        }
        let flat: Vec<R> = deltas.iter().flat_map(|tensor| tensor[i].iter().copied()).collect();
        let mut kept = largest(&flat, count(density, flat.len())).into_iter();
        deltas.iter().map(|tensor| kept.by_ref().take(tensor[i].len()).collect()).collect()
    };
    elected(model, &thinned(model, params, whole, trim), params)
}

/// mᵢ ~ Bernoulli(density)
fn dropped<R: Sample>(model: &[Tensor<R>], params: &Params, seed: u64, whole: bool) -> Vec<Rows<R>> {
    thinned(model, params, whole, |deltas, i, density| {
        model.iter().zip(deltas).map(|(t, delta)| mask(seed, &t.name, i, 0, delta[i].len(), density)).collect()
    })
}

fn dare_linear<R: Sample>(model: &[Tensor<R>], params: &Params, seed: u64) -> Rows<R> {
    let merge = |(tensor, deltas): (&Tensor<R>, Rows<R>)| {
        let delta = super::weighted_sum(tensor.models[0].len(), &deltas, &params.each("weight"), params.flag("normalize"));
        model_again(tensor, &delta, params)
    };
    model.iter().zip(dropped(model, params, seed, false)).map(merge).collect()
}

fn dare_ties<R: Sample>(model: &[Tensor<R>], params: &Params, seed: u64) -> Rows<R> {
    elected(model, &dropped(model, params, seed, params.word("scope") == "model"), params)
}

/// Σ δᵢ over |A| where |δᵢ| > ε; what only one model changes is multiplied by its factor.
fn over_the_active<R: Sample>(tensor: &Tensor<R>, deltas: &Rows<R>, params: &Params, alone: &[f64]) -> Vec<R> {
    let epsilon = R::of(params.number("epsilon"));
    let one = |j: usize| {
        let active: Vec<usize> = (0..deltas.len()).filter(|i| deltas[*i][j].abs() > epsilon).collect();
        let sum = active.iter().fold(R::ZERO, |sum, i| sum + deltas[*i][j]);
        match active[..] {
            [] => R::ZERO,
            [i] => sum * R::of(alone[i]),
            _ => sum / R::of(active.len() as f64),
        }
    };
    let delta: Vec<R> = (0..tensor.models[0].len()).map(one).collect();
    model_again(tensor, &delta, params)
}

fn ram<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    model.iter().map(|tensor| over_the_active(tensor, &task_vectors(tensor), params, &vec![1.0; params.models])).collect()
}

/// As `ram`, each model's factor being 1 + r·clamp(shared / own, 0, α).
fn ramplus_tl<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let merge = |tensor: &Tensor<R>| {
        let (deltas, epsilon) = (task_vectors(tensor), params.number("epsilon"));
        let active = |i: usize, j: usize| deltas[i][j].abs() > R::of(epsilon);
        let factor = |i: usize| {
            let (mut shared, mut own) = (0.0, 0.0);
            for j in (0..deltas[i].len()).filter(|j| active(i, *j)) {
                match (0..deltas.len()).filter(|other| active(*other, j)).count() {
                    1 => own += 1.0,
                    _ => shared += 1.0,
                }
            }
            let ratio: f64 = if shared == 0.0 { 0.0 } else { shared / f64::max(own, epsilon) };
            1.0 + params.number("r") * if ratio < 0.0 { 0.0 } else { ratio }.min(params.number("alpha"))
        };
        let factors: Vec<f64> = (0..deltas.len()).map(factor).collect();
        over_the_active(tensor, &deltas, params, &factors)
    };
    model.iter().map(merge).collect()
}

/// δ·ω, ω = clamp(t / max(|δ|, 1e-6), 0, 1)
fn nearswap<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let share = |delta: R| {
        let size = if delta.abs() > R::of(1e-6) { delta.abs() } else { R::of(1e-6) };
        match R::of(params.number("t")) / size {
            share if share <= R::ZERO => R::ZERO,
            share if share >= R::ONE => R::ONE,
            share => share,
        }
    };
    let merge = |tensor: &Tensor<R>| {
        let delta: Vec<R> = task_vectors(tensor)[0].iter().map(|delta| *delta * share(*delta)).collect();
        model_again(tensor, &delta, params)
    };
    model.iter().map(merge).collect()
}

fn passthrough<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    model.iter().map(|tensor| scale(&tensor.models[0], R::of(params.each("scale")[0]))).collect()
}
