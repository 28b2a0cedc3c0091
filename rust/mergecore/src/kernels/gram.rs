//! How do vectors lie to each other? Their Gram matrix, and the sums of them that are read off it.
//!
//! What lies in the span of a few vectors (a mean direction, a step towards it) is a list of coefficients; its length and its angles
//! follow from the vectors' dot products. So a tensor is read once for the matrix and once for the sum, whatever is computed in between.

use std::ops::Range;

use super::angle;
use crate::dtype::Real;

/// How many dot products `count` vectors have, those with themselves among them.
pub const fn pairs(count: usize) -> usize {
    count * (count + 1) / 2
}

/// The dot products of the rows' elements in `span`: each row with itself and those after it.
pub fn dots<R: Real>(rows: &[Vec<R>], span: Range<usize>, dots: &mut [f64]) {
    let each = (0..rows.len()).flat_map(|i| (i..rows.len()).map(move |j| (i, j)));
    for (dot, (i, j)) in dots.iter_mut().zip(each) {
        *dot = angle::dot(&rows[i][span.clone()], &rows[j][span.clone()]);
    }
}

/// The dot products of every vector with every other.
#[derive(Debug, Clone, PartialEq)]
pub struct Gram {
    count: usize,
    dots: Vec<f64>,
}

impl Gram {
    /// Of dot products in the order of `dots`.
    pub fn new(count: usize, dots: &[f64]) -> Gram {
        let mut gram = Gram { count, dots: vec![0.0; count * count] };
        let mut dots = dots.iter();
        for i in 0..count {
            for j in i..count {
                let dot = *dots.next().expect("one for each pair");
                gram.dots[i * count + j] = dot;
                gram.dots[j * count + i] = dot;
            }
        }
        gram
    }

    /// Of the rows' elements in `span`.
    pub fn of<R: Real>(rows: &[Vec<R>], span: Range<usize>) -> Gram {
        let mut upper = vec![0.0; pairs(rows.len())];
        dots(rows, span, &mut upper);
        Gram::new(rows.len(), &upper)
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn dot(&self, i: usize, j: usize) -> f64 {
        self.dots[i * self.count + j]
    }

    /// ‖xᵢ‖ for each i; 0 where it is nothing beside the longest: what would bring it to that length is infinite in f32.
    pub fn norms(&self) -> Vec<f64> {
        let norms: Vec<f64> = (0..self.count).map(|i| self.dot(i, i).sqrt()).collect();
        let longest = norms.iter().copied().fold(0.0, f64::max);
        norms.into_iter().map(|norm| if norm < 1e-30 * longest { 0.0 } else { norm }).collect()
    }

    /// Whether there is neither NaN nor infinity in it: of finite f64, squares may overflow.
    pub fn is_finite(&self) -> bool {
        self.dots.iter().all(|dot| dot.is_finite())
    }

    /// Of the vectors at length 1; one without length keeps none.
    pub fn of_directions(&self) -> Gram {
        let mut gram = self.clone();
        for i in 0..self.count {
            for j in 0..self.count {
                // One root of a product, so that the cosine of equal or opposite vectors is 1 or −1 to the last bit.
                let lengths = (self.dot(i, i) * self.dot(j, j)).sqrt();
                gram.dots[i * self.count + j] = if lengths > 0.0 { (self.dot(i, j) / lengths).clamp(-1.0, 1.0) } else { 0.0 };
            }
        }
        gram
    }

    /// ⟨xᵢ, Σ fⱼxⱼ⟩
    pub fn along(&self, i: usize, factors: &[f64]) -> f64 {
        (0..self.count).map(|j| self.dot(i, j) * factors[j]).sum()
    }

    /// ‖Σ fᵢxᵢ‖; 0 where the terms of its square cancel until their rounding is left.
    pub fn length(&self, factors: &[f64]) -> f64 {
        let (mut square, mut size) = (0.0, 0.0);
        for i in 0..self.count {
            for j in 0..self.count {
                let term = factors[i] * factors[j] * self.dot(i, j);
                square += term;
                size += term.abs();
            }
        }
        if square <= 1e-14 * size {
            0.0
        } else {
            square.sqrt()
        }
    }
}

wide! {
    /// out ← Σ fᵢxᵢ of the rows' elements from `first` on.
    pub fn combine<R>(out: &mut [R], rows: &[Vec<R>], first: usize, factors: &[f64]) {
        // A strip of the sum stays in the core's nearest cache until all rows are in it.
        const STRIP: usize = 1024;
        for (number, out) in out.chunks_mut(STRIP).enumerate() {
            out.fill(R::ZERO);
            for (row, factor) in rows.iter().zip(factors) {
                let factor = R::of(*factor);
                for (sum, x) in out.iter_mut().zip(&row[first + number * STRIP..]) {
                    *sum = *sum + *x * factor;
                }
            }
        }
    }
}

wide! {
    /// The dot products of the columns of a and b, matrices whose rows are `dots.len()` long.
    pub fn dots_of_columns<R>(a: &[R], b: &[R], dots: &mut [f64]) {
        dots.fill(0.0);
        for (a, b) in a.chunks_exact(dots.len()).zip(b.chunks_exact(dots.len())) {
            for ((dot, a), b) in dots.iter_mut().zip(a).zip(b) {
                *dot += a.f64() * b.f64();
            }
        }
    }
}

wide! {
    /// out ← a·s + b·t, column by column: each column has its own factors.
    pub fn combine_columns<R>(out: &mut [R], a: &[R], s: &[R], b: &[R], t: &[R]) {
        let rows = out.chunks_exact_mut(s.len()).zip(a.chunks_exact(s.len())).zip(b.chunks_exact(s.len()));
        for ((out, a), b) in rows {
            for ((((out, a), b), s), t) in out.iter_mut().zip(a).zip(b).zip(s).zip(t) {
                *out = *a * *s + *b * *t;
            }
        }
    }
}
