//! The methods that look at singular values, by an SVD of each matrix in f64, as their authors write them; and with the rank tolerance.

use faer::Mat;
use mergecore::matrices::{self, Which};
use mergecore::params::Params;

use super::methods::{model_again, task_vectors, Rows, Tensor};
use crate::rows::Sample;

/// U, σ and V of a thin SVD.
type Svd = (Mat<f64>, Vec<f64>, Mat<f64>);

fn svd(a: &Mat<f64>) -> Svd {
    if let Ok(svd) = a.thin_svd() {
        let (u, v) = (svd.U().to_owned(), svd.V().to_owned());
        // Now and then it does not converge, or makes NaN, of finite numbers.
        if [&u, &v].iter().all(|x| x.col_iter().all(|column| column.iter().all(|x| x.is_finite()))) {
            return (u, svd.S().column_vector().iter().copied().collect(), v);
        }
    }
    if a.nrows() < a.ncols() {
        let (v, sigma, u) = jacobi(a.transpose().to_owned());
        return (u, sigma, v);
    }
    jacobi(a.clone())
}

/// Turns pairs of columns until all are at right angles (Hestenes 1958); slow, and sure.
fn jacobi(mut u: Mat<f64>) -> Svd {
    let n = u.ncols();
    let mut v = Mat::<f64>::identity(n, n);
    let dot = |u: &Mat<f64>, i: usize, j: usize| (0..u.nrows()).map(|k| u[(k, i)] * u[(k, j)]).sum::<f64>();
    let turn = |x: &mut Mat<f64>, i: usize, j: usize, c: f64, s: f64| {
        for k in 0..x.nrows() {
            let (a, b) = (x[(k, i)], x[(k, j)]);
            (x[(k, i)], x[(k, j)]) = (c * a - s * b, s * a + c * b);
        }
    };
    for _ in 0..40 {
        let mut turned = false;
        for i in 0..n {
            for j in i + 1..n {
                let (ii, ij, jj) = (dot(&u, i, i), dot(&u, i, j), dot(&u, j, j));
                if ij.abs() <= 1e-15 * (ii * jj).sqrt() {
                    continue;
                }
                turned = true;
                let zeta = (jj - ii) / (2.0 * ij);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let c = 1.0 / (1.0 + t * t).sqrt();
                turn(&mut u, i, j, c, c * t);
                turn(&mut v, i, j, c, c * t);
            }
        }
        if !turned {
            break;
        }
    }
    let lengths: Vec<f64> = (0..n).map(|j| dot(&u, j, j).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| lengths[*b].total_cmp(&lengths[*a]));
    let sigma: Vec<f64> = order.iter().map(|j| lengths[*j]).collect();
    let left = Mat::from_fn(u.nrows(), n, |i, j| if sigma[j] > 0.0 { u[(i, order[j])] / sigma[j] } else { 0.0 });
    (left, sigma, Mat::from_fn(n, n, |i, j| v[(i, order[j])]))
}

fn largest(a: &Mat<f64>) -> f64 {
    svd(a).1.first().copied().unwrap_or(0.0)
}

/// The first columns.
fn first(a: &Mat<f64>, count: usize) -> Mat<f64> {
    a.get(.., ..count).to_owned()
}

fn beside(parts: &[Mat<f64>]) -> Mat<f64> {
    let columns: Vec<(usize, usize)> = parts.iter().enumerate().flat_map(|(p, part)| (0..part.ncols()).map(move |j| (p, j))).collect();
    Mat::from_fn(parts[0].nrows(), columns.len(), |i, j| parts[columns[j].0][(i, columns[j].1)])
}

/// U Vᵀ over the singular values that are not below the floor.
fn polar(a: &Mat<f64>, share: f64) -> Mat<f64> {
    let (u, sigma, v) = svd(a);
    let kept = sigma.iter().filter(|s| **s > 0.0 && **s >= share * sigma[0]).count();
    first(&u, kept) * first(&v, kept).transpose()
}

fn scaled(a: &Mat<f64>, factors: &[f64]) -> Mat<f64> {
    Mat::from_fn(a.nrows(), a.ncols(), |i, j| a[(i, j)] * factors[j])
}

/// What rounding the models has made: each element's standard deviation a share of it by its type, over the longest row and column.
struct Noise {
    lengths: f64,
    share: f64,
}

impl Noise {
    fn of(&self, weights: &[f64]) -> f64 {
        self.share * self.lengths * weights.iter().map(|w| w * w).sum::<f64>().sqrt()
    }
}

/// The method on matrices; what are none get the mean.
pub fn spectral<R: Sample>(model: &[Tensor<R>], params: &Params, solve: fn(&Task) -> Mat<f64>) -> Rows<R> {
    let weights = params.each("weight");
    let one = |tensor: &Tensor<R>| {
        let deltas = task_vectors(tensor);
        let count = deltas[0].len();
        let matrix = match matrices::which(params) {
            Which::None => false,
            _ if tensor.shape.len() != 2 || count == 0 => false,
            Which::All => true,
            Which::Linear => !tensor.name.contains("embed_tokens"),
            Which::Projections => tensor.name.contains("up_proj"),
        };
        let delta = match matrix {
            true => {
                let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
                let of = |delta: &Vec<R>, weight: f64| Mat::from_fn(rows, columns, |i, j| weight * delta[i * columns + j].f64());
                let base = tensor.base.as_ref().expect("there is one");
                let at = |i: usize, j: usize| base[i * columns + j].f64().powi(2);
                let longest_row = (0..rows).map(|i| (0..columns).map(|j| at(i, j)).sum::<f64>()).fold(0.0, f64::max).sqrt();
                let longest_column = (0..columns).map(|j| (0..rows).map(|i| at(i, j)).sum::<f64>()).fold(0.0, f64::max).sqrt();
                let noise = Noise { lengths: longest_row + longest_column, share: tensor.rounded };
                let deltas: Vec<Mat<f64>> = deltas.iter().zip(&weights).map(|(delta, weight)| of(delta, *weight)).collect();
                let result = solve(&Task { deltas, weights: weights.clone(), params, noise });
                (0..count).map(|i| R::of(result[(i / columns, i % columns)])).collect()
            }
            false => {
                let sum = super::weighted_sum(count, &deltas, &weights, false);
                super::divide(&sum, R::of(weights.len() as f64))
            }
        };
        model_again(tensor, &delta, params)
    };
    model.iter().map(one).collect()
}

/// One matrix of all models: wᵢδᵢ.
pub struct Task<'t> {
    deltas: Vec<Mat<f64>>,
    weights: Vec<f64>,
    params: &'t Params,
    noise: Noise,
}

impl Task<'_> {
    fn sum(&self) -> Mat<f64> {
        self.deltas[1..].iter().fold(self.deltas[0].clone(), |sum, delta| sum + delta)
    }

    fn floor(&self, largest: f64, weights: &[f64]) -> f64 {
        self.params.number_or_word("rank_tol").map_or(self.noise.of(weights), |share| share * largest)
    }

    fn share(&self) -> f64 {
        self.params.number_or_word("rank_tol").unwrap_or(1e-6)
    }

    fn r(&self) -> usize {
        self.deltas[0].nrows().min(self.deltas[0].ncols())
    }

    /// The first triplets; zeros for those below the floor.
    fn top(&self, a: &Mat<f64>, count: usize, floor: f64) -> Svd {
        let (u, sigma, v) = svd(a);
        let keep = |s: f64| if s >= floor && s > 0.0 { 1.0 } else { 0.0 };
        let kept: Vec<f64> = sigma[..count].iter().map(|s| keep(*s)).collect();
        let sizes = sigma[..count].iter().zip(&kept).map(|(s, keep)| s * keep).collect();
        (scaled(&first(&u, count), &kept), sizes, scaled(&first(&v, count), &kept))
    }
}

pub fn iso_c(task: &Task) -> Mat<f64> {
    let sum = task.sum();
    let (u, sigma, v) = svd(&sum);
    let floor = task.floor(sigma[0], &task.weights);
    let kept = sigma.iter().filter(|s| **s >= floor && **s > 0.0).count();
    let mean = sigma[..kept].iter().sum::<f64>() / sigma.len() as f64;
    scaled(&first(&u, kept), &vec![mean; kept]) * first(&v, kept).transpose()
}

pub fn tsv(task: &Task) -> Mat<f64> {
    let models = task.deltas.len();
    let alone = |i: usize| [task.weights[i]];
    let triplets: Vec<Svd> =
        task.deltas.iter().enumerate().map(|(i, d)| task.top(d, task.r() / models, task.floor(largest(d), &alone(i)))).collect();
    let sigma: Vec<f64> = triplets.iter().flat_map(|t| t.1.clone()).collect();
    let side = |pick: fn(&Svd) -> Mat<f64>| polar(&beside(&triplets.iter().map(pick).collect::<Vec<_>>()), task.share());
    scaled(&side(|t| t.0.clone()), &sigma) * side(|t| t.2.clone()).transpose()
}

pub fn iso_cts(task: &Task) -> Mat<f64> {
    let (models, r) = (task.deltas.len(), task.r());
    let rest = r - (task.params.number("common_space_fraction") * r as f64) as usize;
    let own = ((rest as f64 / models as f64).round_ties_even() as usize).min(r / models);
    let sum = task.sum();
    let common = task.top(&sum, r - models * own, task.floor(largest(&sum), &task.weights));
    let mut triplets = vec![common];
    for delta in task.deltas.iter().filter(|_| own > 0) {
        let left = delta - &triplets[0].0 * (triplets[0].0.transpose() * delta);
        triplets.push(task.top(&left, own, task.floor(largest(delta), &task.weights)));
    }
    let mean = triplets.iter().flat_map(|t| t.1.clone()).sum::<f64>() / r as f64;
    let side = |pick: fn(&Svd) -> Mat<f64>| polar(&beside(&triplets.iter().map(pick).collect::<Vec<_>>()), task.share());
    let near = side(|t| t.0.clone());
    scaled(&near, &vec![mean; r]) * side(|t| t.2.clone()).transpose()
}
