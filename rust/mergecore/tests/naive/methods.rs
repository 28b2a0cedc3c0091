//! Every method's formula over whole tensors, as its paper has it.
//!
//! A method of the registry without a twin here fails the law `every_method_is_its_formula`.

use super::spectral::spectral;
use super::{add_fused, attach, combine, disjoint, divide, in_pairs, largest, majority, mask, only, products, scale, subtract, sum, tally};
use crate::rows::Sample;
use mergecore::kernels::thin::Rescale;
use mergecore::params::Params;

/// One tensor of all models.
pub struct Tensor<R> {
    pub name: String,
    pub shape: Vec<usize>,
    /// The length of the last axis.
    pub row: usize,
    pub base: Option<Vec<R>>,
    pub models: Rows<R>,
    pub onto: Option<Vec<R>>,
    /// What rounding to the models' type moves a number by, as a share of it (its standard deviation).
    pub rounded: f64,
}

/// One row a tensor, or one a model.
pub type Rows<R> = Vec<Vec<R>>;

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
    Twin { name: "nuslerp", random: false, exact: never, narrow: nuslerp, wide: nuslerp },
    Twin { name: "multislerp", random: false, exact: never, narrow: multislerp, wide: multislerp },
    Twin { name: "karcher", random: false, exact: never, narrow: karcher, wide: karcher },
    Twin { name: "model_stock", random: false, exact: never, narrow: model_stock, wide: model_stock },
    Twin { name: "task_arithmetic", random: false, exact: always, narrow: task_arithmetic, wide: task_arithmetic },
    Twin { name: "ties", random: false, exact: without_l1, narrow: ties, wide: ties },
    Twin { name: "dare_linear", random: true, exact: without_l1, narrow: dare_linear, wide: dare_linear },
    Twin { name: "dare_ties", random: true, exact: without_l1, narrow: dare_ties, wide: dare_ties },
    Twin { name: "della", random: true, exact: without_l1, narrow: della, wide: della },
    Twin { name: "della_linear", random: true, exact: without_l1, narrow: della_linear, wide: della_linear },
    Twin { name: "breadcrumbs", random: false, exact: without_l1, narrow: breadcrumbs, wide: breadcrumbs },
    Twin { name: "breadcrumbs_ties", random: false, exact: without_l1, narrow: breadcrumbs_ties, wide: breadcrumbs_ties },
    Twin { name: "sce", random: false, exact: never, narrow: sce, wide: sce },
    Twin { name: "tsv", random: false, exact: never, narrow: tsv, wide: tsv },
    Twin { name: "iso_c", random: false, exact: never, narrow: iso_c, wide: iso_c },
    Twin { name: "iso_cts", random: false, exact: never, narrow: iso_cts, wide: iso_cts },
    Twin { name: "ram", random: false, exact: always, narrow: ram, wide: ram },
    Twin { name: "ramplus_tl", random: false, exact: always, narrow: ramplus_tl, wide: ramplus_tl },
    Twin { name: "nearswap", random: false, exact: always, narrow: nearswap, wide: nearswap },
    Twin { name: "arcee_fusion", random: false, exact: always, narrow: arcee_fusion, wide: arcee_fusion },
    Twin { name: "passthrough", random: false, exact: always, narrow: passthrough, wide: passthrough },
];

pub fn twin(method: &str) -> &'static Twin {
    TWINS.iter().find(|twin| twin.name == method).unwrap_or_else(|| panic!("write {method}'s formula into tests/naive/methods.rs"))
}

fn tsv<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    spectral(model, params, super::spectral::tsv)
}

fn iso_c<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    spectral(model, params, super::spectral::iso_c)
}

fn iso_cts<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    spectral(model, params, super::spectral::iso_cts)
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
pub fn task_vectors<R: Sample>(tensor: &Tensor<R>) -> Rows<R> {
    let base = tensor.base.as_ref().expect("a method of task vectors has a base");
    tensor.models.iter().map(|x| subtract(x, base)).collect()
}

/// θ = onto + λ·Δ, onto being the base unless another is named.
pub fn model_again<R: Sample>(tensor: &Tensor<R>, delta: &[R], params: &Params) -> Vec<R> {
    let onto = tensor.onto.as_ref().or(tensor.base.as_ref()).expect("a method of task vectors has a base");
    attach(delta, onto, R::of(params.number("lambda")))
}

/// Task vectors where there is a base, else weights.
fn vectors<R: Sample>(tensor: &Tensor<R>) -> Rows<R> {
    if tensor.base.is_some() {
        task_vectors(tensor)
    } else {
        tensor.models.clone()
    }
}

/// θ = onto + Δ where there is a base, else Δ.
fn onto_base<R: Sample>(tensor: &Tensor<R>, delta: Vec<R>) -> Vec<R> {
    match tensor.onto.as_ref().or(tensor.base.as_ref()) {
        Some(onto) => attach(&delta, onto, R::ONE),
        None => delta,
    }
}

/// The indices of a tensor's elements, vector by vector along its axis `axis`.
fn along(shape: &[usize], axis: usize) -> Vec<Vec<usize>> {
    let (Some(length), elements) = (shape.get(axis), shape.iter().product::<usize>()) else { return vec![vec![0]] };
    let stride: usize = shape[axis + 1..].iter().product();
    let starts = (0..elements).filter(|i| (i / stride).is_multiple_of(*length));
    starts.map(|start| (0..*length).map(|i| start + i * stride).collect()).collect()
}

/// `merge` of each vector: picked out of every model's row, and put where it came from.
fn each_vector<R: Sample>(rows: &Rows<R>, places: &[Vec<usize>], merge: impl Fn(&Rows<R>) -> Vec<R>) -> Vec<R> {
    let mut out = rows[0].clone();
    for place in places {
        let picked: Rows<R> = rows.iter().map(|row| place.iter().map(|i| row[*i]).collect()).collect();
        for (i, x) in place.iter().zip(merge(&picked)) {
            out[*i] = x;
        }
    }
    out
}

fn f64s<R: Sample>(x: &[R]) -> Vec<f64> {
    x.iter().map(|x| x.f64()).collect()
}

fn dot<R: Sample>(a: &[R], b: &[R]) -> f64 {
    sum(&products(a, b)).0
}

/// Σ fᵢxᵢ in f64, rounded at the end.
fn mix<R: Sample>(rows: &Rows<R>, factors: &[f64]) -> Vec<R> {
    (0..rows[0].len()).map(|k| R::of(rows.iter().zip(factors).map(|(x, f)| f * x[k].f64()).sum())).collect()
}

fn all_finite<R: Sample>(rows: &Rows<R>) -> bool {
    rows.iter().flatten().all(|x| x.is_finite())
}

/// Δ = [sin((1−t)Ω) δ₁ + sin(tΩ) δ₂] / sin Ω, a straight line where cos Ω is ±1.
fn nuslerp<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let weight = params.each("weight");
    let total = weight[0] + weight[1];
    let t = if total.abs() < 1e-6 { 0.5 } else { weight[1] / total };
    let one = |x: &Rows<R>| {
        let norm = |x: &[R]| dot(x, x).sqrt().max(1e-7);
        let cos = (dot(&x[0], &x[1]) / (norm(&x[0]) * norm(&x[1]))).clamp(-1.0, 1.0);
        // As near to ±1 as the arithmetic can tell.
        let straight = cos.is_nan() || 1.0 - cos.abs() < R::EPSILON / 4.0;
        let omega = cos.acos();
        let (s, t) = if straight { (1.0 - t, t) } else { (((1.0 - t) * omega).sin() / omega.sin(), (t * omega).sin() / omega.sin()) };
        mix(x, &[s, t])
    };
    let merge = |tensor: &Tensor<R>| {
        let places = match (params.flag("nuslerp_flatten"), params.flag("nuslerp_row_wise")) {
            (true, _) => vec![(0..tensor.models[0].len()).collect()],
            (false, true) => along(&tensor.shape, 0),
            (false, false) => along(&tensor.shape, tensor.shape.len().max(1) - 1),
        };
        onto_base(tensor, each_vector(&vectors(tensor), &places, one))
    };
    model.iter().map(merge).collect()
}

/// Δ = Σ wᵢ‖δᵢ‖ · m/‖m‖, m = Σ wᵢδᵢ / (‖δᵢ‖ + eps)
fn multislerp<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let (mut weights, eps) = (params.each("weight"), params.number("eps"));
    if params.flag("normalize_weights") {
        let total = sum(&weights).0;
        weights.iter_mut().for_each(|w| *w /= total);
    }
    let one = |x: &Rows<R>| {
        if x.len() == 1 {
            return x[0].clone();
        }
        let norms: Vec<f64> = x.iter().map(|x| dot(x, x).sqrt()).collect();
        let shares: Vec<f64> = norms.iter().zip(&weights).map(|(n, w)| if n + eps > 0.0 { w / (n + eps) } else { 0.0 }).collect();
        let mean: Vec<f64> = (0..x[0].len()).map(|k| x.iter().zip(&shares).map(|(x, s)| s * x[k].f64()).sum()).collect();
        let length = dot(&mean, &mean).sqrt();
        let terms: f64 = norms.iter().zip(&shares).map(|(n, s)| (n * s).abs()).sum();
        if !all_finite(x) || length < eps || length <= 1e-7 * terms {
            return mix(x, &weights);
        }
        let size: f64 = norms.iter().zip(&weights).map(|(n, w)| n * w).sum();
        mean.iter().map(|m| R::of(m / length * size)).collect()
    };
    model.iter().map(|tensor| onto_base(tensor, one(&vectors(tensor)))).collect()
}

/// The mean on the sphere, by steps along the mean of the arcs; every vector at full length.
fn karcher<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let (steps, tol) = (params.number("max_iter") as usize, params.number("tol"));
    let merge = |tensor: &Tensor<R>| {
        let (x, n) = (&tensor.models, tensor.models.len() as f64);
        if x.len() == 1 || !all_finite(x) {
            return mix(x, &vec![1.0 / n; x.len()]);
        }
        let norms: Vec<f64> = x.iter().map(|x| dot(x, x).sqrt()).collect();
        let long = x.iter().zip(&norms).filter(|(_, norm)| **norm > tol);
        let directions: Vec<Vec<f64>> = long.map(|(x, norm)| f64s(x).iter().map(|x| x / norm).collect()).collect();
        let Some(first) = directions.first() else { return vec![R::ZERO; x[0].len()] };
        let share = 1.0 / directions.len() as f64;
        let unit = |x: &[f64]| -> Vec<f64> {
            let length = dot(x, x).sqrt();
            x.iter().map(|v| v / length).collect()
        };
        let mut mean: Vec<f64> = (0..first.len()).map(|k| directions.iter().map(|u| share * u[k]).sum()).collect();
        mean = if dot(&mean, &mean).sqrt() < tol.max(1e-7) { first.clone() } else { unit(&mean) };
        for _ in 0..steps {
            let mut step = vec![0.0; first.len()];
            for u in &directions {
                let cos = dot(u, &mean).clamp(-1.0, 1.0);
                let (angle, sin) = (cos.acos(), (1.0 - cos * cos).sqrt());
                if angle >= tol && sin >= 1e-6 {
                    let arc = u.iter().zip(&mean).map(|(u, m)| share * angle / sin * (u - cos * m));
                    step.iter_mut().zip(arc).for_each(|(s, a)| *s += a);
                }
            }
            let length = dot(&step, &step).sqrt();
            if length < tol.max(1e-12) {
                break;
            }
            mean = unit(&mean.iter().zip(&step).map(|(m, s)| length.cos() * m + length.sin() / length * s).collect::<Vec<_>>());
        }
        let size = sum(&norms).0 / n;
        mean.iter().map(|m| R::of(size * m)).collect()
    };
    model.iter().map(merge).collect()
}

/// θ = θ₀ + t Σ δᵢ / N, t = Nc / (1 + (N−1) c)
fn model_stock<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let one = |x: &Rows<R>| {
        let n = x.len() as f64;
        let mut cosines = Vec::new();
        for (i, a) in x.iter().enumerate() {
            for b in &x[i + 1..] {
                let least = if params.flag("clamp") { 0.0 } else { 1e-6 };
                let lengths = (dot(a, a).sqrt() * dot(b, b).sqrt()).max(least);
                cosines.push(if lengths == 0.0 { 0.0 } else { (dot(a, b) / lengths).clamp(-1.0, 1.0) });
            }
        }
        let cos = sum(&cosines).0 / cosines.len() as f64;
        let divisor = 1.0 + (n - 1.0) * cos;
        let t = if divisor.abs() < 1e-6 || !all_finite(x) { 0.0 } else { n * cos / divisor };
        let t = if params.flag("clamp") { t.clamp(0.0, 1.0) } else { t };
        mix(x, &vec![t / n; x.len()])
    };
    let merge = |tensor: &Tensor<R>| {
        let places = match params.flag("filter_wise") {
            true => along(&tensor.shape, tensor.shape.len().max(1) - 1),
            false => vec![(0..tensor.models[0].len()).collect()],
        };
        onto_base(tensor, each_vector(&task_vectors(tensor), &places, one))
    };
    model.iter().map(merge).collect()
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
    let zero = if params.has("scope") && params.word("scope") == "model" { majority(&totals.concat()) } else { 1.0 };
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

/// Σ wᵢδ̂ᵢ (over Σ wᵢ if normalize)
fn summed<R: Sample>(model: &[Tensor<R>], deltas: Vec<Rows<R>>, params: &Params) -> Rows<R> {
    let merge = |(tensor, deltas): (&Tensor<R>, Rows<R>)| {
        let delta = super::weighted_sum(tensor.models[0].len(), &deltas, &params.each("weight"), params.flag("normalize"));
        model_again(tensor, &delta, params)
    };
    model.iter().zip(deltas).map(merge).collect()
}

fn dare_linear<R: Sample>(model: &[Tensor<R>], params: &Params, seed: u64) -> Rows<R> {
    summed(model, dropped(model, params, seed, false), params)
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

/// Of each task vector the density·n largest after its γ·n largest.
fn crumbs<R: Sample>(model: &[Tensor<R>], params: &Params) -> Vec<Rows<R>> {
    thinned(model, params, false, |deltas, i, density| {
        let one = |delta: &[R]| {
            let part = |share: f64| (share * delta.len() as f64) as usize;
            let outliers = part(params.each("gamma")[i]).min(delta.len() - part(density));
            let (both, outliers) = (largest(delta, part(density) + outliers), largest(delta, outliers));
            both.iter().zip(&outliers).map(|(both, outlier)| *both && !*outlier).collect()
        };
        deltas.iter().map(|tensor| one(&tensor[i])).collect()
    })
}

fn breadcrumbs<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    summed(model, crumbs(model, params), params)
}

fn breadcrumbs_ties<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    elected(model, &crumbs(model, params), params)
}

/// pᵢ = density − ε + 2ε·rank, the rank from 0 (smallest of its row) to 1.
fn chances<R: Sample>(row: &[R], density: f64, epsilon: f64) -> Vec<R> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|i, j| row[*i].by_magnitude(row[*j]).then(j.cmp(i)));
    let mut chances = vec![R::of(density); row.len()];
    for (rank, i) in order.into_iter().enumerate().filter(|_| row.len() > 1) {
        let rank = R::of(rank as f64) / R::of(row.len() as f64 - 1.0);
        chances[i] = R::of(density - epsilon) + rank * R::of(2.0 * epsilon);
    }
    chances
}

/// mᵢ ~ Bernoulli(pᵢ), each kept element over its own pᵢ.
fn pruned<R: Sample>(model: &[Tensor<R>], params: &Params, seed: u64) -> Vec<Rows<R>> {
    let rescale = Rescale::named(params.word("rescale"));
    let prune = |tensor: &Tensor<R>, i: usize, delta: &[R]| {
        let (density, epsilon) = (params.each("density")[i], params.each("epsilon")[i]);
        if density == 0.0 || density == 1.0 {
            return only(delta, &vec![density == 1.0; delta.len()]);
        }
        let chances: Vec<R> = delta.chunks(tensor.row).flat_map(|row| chances(row, density, epsilon)).collect();
        let stream = super::stream(seed, &tensor.name, i);
        let kept: Vec<bool> = (0..delta.len()).map(|j| super::keeps(stream, j as u64, chances[j].f64())).collect();
        let dropped = only(delta, &kept);
        let size = |x: &[R]| in_pairs(&super::magnitudes(x));
        match rescale {
            Rescale::Inverse => dropped.iter().zip(&chances).map(|(x, p)| *x / *p).collect(),
            other => super::thin(delta, &kept, density, other, (size(delta), size(&dropped))),
        }
    };
    let all = |tensor: &Tensor<R>| task_vectors(tensor).iter().enumerate().map(|(i, delta)| prune(tensor, i, delta)).collect();
    model.iter().map(all).collect()
}

fn della<R: Sample>(model: &[Tensor<R>], params: &Params, seed: u64) -> Rows<R> {
    elected(model, &pruned(model, params, seed), params)
}

fn della_linear<R: Sample>(model: &[Tensor<R>], params: &Params, seed: u64) -> Rows<R> {
    summed(model, pruned(model, params, seed), params)
}

/// Select by variance, calculate weights of mean squares, erase what disagrees.
fn sce<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let merge = |tensor: &Tensor<R>| {
        let (mut deltas, topk) = (task_vectors(tensor), params.number("select_topk"));
        let (models, count) = (deltas.len(), tensor.models[0].len());
        if topk < 1.0 {
            let variance = |j: usize| {
                let off: Vec<f64> = deltas.iter().map(|delta| delta[j].f64() - deltas[0][j].f64()).collect();
                let mean = sum(&off).0 / models as f64;
                R::of(off.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / models as f64)
            };
            let variances: Vec<R> = (0..count).map(variance).collect();
            let vary = variances.iter().filter(|x| **x != R::ZERO).count();
            let kept = largest(&variances, (vary as f32 * topk as f32) as usize);
            deltas = deltas.iter().map(|delta| only(delta, &kept)).collect();
        }
        let means: Vec<f64> = deltas.iter().map(|delta| sum(&products(delta, delta)).0 / count as f64).collect();
        let total = sum(&means).0;
        let weight = |mean: &f64| if total.is_finite() && total >= 1e-6 { mean / total } else { 1.0 / models as f64 };
        let weights: Vec<R> = means.iter().map(|mean| R::of(weight(mean))).collect();
        let totals = tally(count, &deltas);
        let one = |j: usize| {
            let agree = (0..models).filter(|i| if totals[j] >= R::ZERO { deltas[*i][j] > R::ZERO } else { deltas[*i][j] < R::ZERO });
            let (total, divisor) = agree.fold((R::ZERO, R::ZERO), |(s, d), i| (s + deltas[i][j] * weights[i], d + weights[i]));
            total / if divisor > R::of(1e-6) { divisor } else { R::of(1e-6) }
        };
        model_again(tensor, &(0..count).map(one).collect::<Vec<_>>(), params)
    };
    model.iter().map(merge).collect()
}

/// Σ p ln(p/q) of two rows' softmaxes.
fn divergence(x: &[f64], base: &[f64]) -> f64 {
    let softmax = |x: &[f64]| {
        let largest = x.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        let powers: Vec<f64> = x.iter().map(|x| (x - largest).exp()).collect();
        let total = sum(&powers).0;
        powers.iter().map(|power| power / total + 1e-8).collect::<Vec<_>>()
    };
    match softmax(x).iter().zip(softmax(base)).map(|(p, q)| p * (p / q).ln()).sum::<f64>() {
        negative if negative < 0.0 => 0.0,
        divergence => divergence,
    }
}

/// δ where |δ|·KL reaches median + 1.5·(Q₃ − Q₁) of the tensor.
fn arcee_fusion<R: Sample>(model: &[Tensor<R>], params: &Params, _: u64) -> Rows<R> {
    let merge = |tensor: &Tensor<R>| {
        let delta = &task_vectors(tensor)[0];
        let wide = |x: &[R]| x.iter().map(|x| x.f64()).collect::<Vec<_>>();
        let (base, change) = (wide(tensor.base.as_ref().unwrap()), wide(delta));
        let rows = base.chunks(tensor.row).zip(change.chunks(tensor.row));
        let importance = |(base, change): (&[f64], &[f64])| {
            let moved = divergence(&base.iter().zip(change).map(|(b, d)| b + d).collect::<Vec<_>>(), base);
            change.iter().map(|d| R::of(d.abs() * moved)).collect::<Vec<_>>()
        };
        let importances: Vec<R> = rows.flat_map(importance).collect();
        let mut sorted = importances.clone();
        sorted.sort_by(|a, b| a.by_magnitude(*b));
        let quantile = |q: f64| sorted[(q * (sorted.len() - 1) as f64) as usize];
        let kept: Vec<bool> = match sorted.len() {
            0 => Vec::new(),
            _ => {
                let least = quantile(0.5) + R::of(1.5) * (quantile(0.75) - quantile(0.25));
                importances.iter().map(|s| *s >= least).collect()
            }
        };
        model_again(tensor, &only(delta, &kept), params)
    };
    model.iter().map(merge).collect()
}
