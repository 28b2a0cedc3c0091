//! A tensor's matrix, as large as it is, in the type of the arithmetic; products with it are made in f64, piece by piece.
//!
//! It is never copied as a whole and never widened: a piece of it is widened by the thread that multiplies it. Either axis may be the
//! shorter one, along which everything is decomposed: a matrix that is `flipped` lies in memory as its transpose.

use std::ops::Range;
use std::sync::RwLock;

use super::product::{multiply, Dense, Lies, View};
use super::workers::Workers;
use crate::dtype::Real;
use crate::error::Result;

/// A block of a Gram matrix, and how much of the long axis is widened for it at a time.
const BLOCK: usize = 256;
const DEPTH: usize = 512;
/// How much of the long axis is transformed at a time.
pub const PANEL: usize = 512;

/// `short` × `long` numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix<R> {
    pub short: usize,
    pub long: usize,
    /// It lies in memory column by column: the tensor has more rows than columns.
    pub flipped: bool,
    pub values: Vec<R>,
}

/// Wp, which lies as `flipped` has it; on this thread alone.
fn product_of(w: View, piece: &Piece, flipped: bool) -> Vec<f64> {
    let mut out = vec![0.0; w.rows() * piece.long];
    multiply(&mut out, if flipped { Lies::ByColumn } else { Lies::ByRow }, w, piece.view(), false);
    out
}

/// A widened piece.
struct Piece {
    values: Vec<f64>,
    short: usize,
    long: usize,
    flipped: bool,
}

impl Piece {
    fn view(&self) -> View<'_> {
        let steps = if self.flipped { (1, self.short) } else { (self.long, 1) };
        View::new(&self.values, (self.short, self.long), steps)
    }
}

impl<R: Real> Matrix<R> {
    /// Of a tensor's rows, one after the other.
    pub fn new(rows: usize, columns: usize, values: Vec<R>) -> Self {
        assert_eq!(values.len(), rows * columns);
        Matrix { short: rows.min(columns), long: rows.max(columns), flipped: rows > columns, values }
    }

    /// Rows and columns of the tensor.
    pub fn shape(&self) -> [usize; 2] {
        if self.flipped {
            [self.long, self.short]
        } else {
            [self.short, self.long]
        }
    }

    pub fn wide(self) -> Matrix<f64> {
        let Matrix { short, long, flipped, values } = self;
        Matrix { short, long, flipped, values: values.into_iter().map(R::f64).collect() }
    }

    /// Zeros, of this shape and orientation.
    pub fn zeros_like<S: Real>(&self) -> Matrix<S> {
        Matrix { short: self.short, long: self.long, flipped: self.flipped, values: vec![S::ZERO; self.values.len()] }
    }

    /// Its first vectors along the long axis, as a matrix of their own.
    pub fn first(self, count: usize) -> Self {
        if count == self.short {
            return self;
        }
        let mut values = self.values;
        if self.flipped {
            for j in 0..self.long {
                values.copy_within(j * self.short..j * self.short + count, j * count);
            }
        }
        values.truncate(count * self.long);
        Matrix { short: count, values, ..self }
    }

    /// From one element to the next along the short axis, and along the long one.
    fn steps(&self) -> (usize, usize) {
        if self.flipped {
            (1, self.short)
        } else {
            (self.long, 1)
        }
    }

    fn piece(&self, short: Range<usize>, long: Range<usize>) -> Piece {
        let (down, right) = self.steps();
        let mut values = Vec::with_capacity(short.len() * long.len());
        // Whole lines of what lies side by side.
        let (lines, step, side) = if self.flipped { (long.clone(), right, short.clone()) } else { (short.clone(), down, long.clone()) };
        for line in lines {
            values.extend(self.values[line * step + side.start..line * step + side.end].iter().map(|x| x.f64()));
        }
        Piece { values, short: short.len(), long: long.len(), flipped: self.flipped }
    }

    /// The largest magnitude; NaN if there is one.
    pub fn largest(&self) -> f64 {
        self.values.iter().fold(0.0, |most: f64, x| if x.is_nan() || most.is_nan() { f64::NAN } else { most.max(x.abs().f64()) })
    }

    /// ‖A‖²
    pub fn square(&self) -> f64 {
        let squares: Vec<f64> = self.values.chunks(1 << 14).map(|chunk| crate::kernels::angle::dot(chunk, chunk)).collect();
        crate::kernels::angle::tree(&squares)
    }

    /// The dot products of all vectors along the long axis, AAᵀ, scaled by `scale²`.
    pub fn gram(&self, scale: f64, workers: &Workers) -> Result<Dense> {
        let blocks = self.short.div_ceil(BLOCK);
        let lower: Vec<(usize, usize)> = (0..blocks).flat_map(|i| (0..=i).map(move |j| (i, j))).collect();
        let span = |block: usize| block * BLOCK..((block + 1) * BLOCK).min(self.short);
        let parts = workers.each(lower.len(), |number| {
            let (i, j) = lower[number];
            let mut out = vec![0.0; span(i).len() * span(j).len()];
            for start in (0..self.long).step_by(DEPTH) {
                workers.check_cancelled()?;
                let long = start..(start + DEPTH).min(self.long);
                let mut a = self.piece(span(i), long.clone());
                a.values.iter_mut().for_each(|x| *x *= scale);
                if i == j {
                    multiply(&mut out, Lies::ByColumn, a.view(), a.view().transposed(), true);
                } else {
                    let mut b = self.piece(span(j), long);
                    b.values.iter_mut().for_each(|x| *x *= scale);
                    multiply(&mut out, Lies::ByColumn, a.view(), b.view().transposed(), true);
                }
            }
            Ok(out)
        })?;
        let mut gram = Dense::zeros(self.short, self.short);
        for ((i, j), part) in lower.into_iter().zip(parts) {
            let (rows, columns) = (span(i), span(j));
            for (c, column) in columns.enumerate() {
                for (r, row) in rows.clone().enumerate() {
                    let dot = part[c * rows.len() + r];
                    gram.values[column * self.short + row] = dot;
                    gram.values[row * self.short + column] = dot;
                }
            }
        }
        Ok(gram)
    }

    /// The dot products of this matrix's vectors along the long axis with the first of another's, ABᵀ.
    pub fn dots<S: Real>(&self, other: &Matrix<S>, count: usize, workers: &Workers) -> Result<Dense> {
        let panels = workers.each(count.div_ceil(BLOCK), |block| {
            let span = block * BLOCK..((block + 1) * BLOCK).min(count);
            let mut out = vec![0.0; self.short * span.len()];
            for start in (0..self.long).step_by(DEPTH) {
                workers.check_cancelled()?;
                let long = start..(start + DEPTH).min(self.long);
                let (a, b) = (self.piece(0..self.short, long.clone()), other.piece(span.clone(), long));
                multiply(&mut out, Lies::ByColumn, a.view(), b.view().transposed(), true);
            }
            Ok(out)
        })?;
        Ok(Dense { rows: self.short, columns: count, values: panels.concat() })
    }

    /// A ← WA
    pub fn transform(&mut self, w: View, workers: &Workers) -> Result<()> {
        let flipped = self.flipped;
        self.rewrite(0..w.rows(), workers, &|own, _| product_of(w, &own, flipped))
    }

    /// The vectors along the long axis, from `first` on, ← those of WB.
    pub fn compose<S: Real>(&mut self, first: usize, w: View, b: &Matrix<S>, workers: &Workers) -> Result<()> {
        let flipped = self.flipped;
        self.rewrite(first..first + w.rows(), workers, &|_, long| product_of(w, &b.piece(0..b.short, long), flipped))
    }

    /// A ← A − WB, of B's first vectors along the long axis, as many as W has columns.
    pub fn subtract<S: Real>(&mut self, w: View, b: &Matrix<S>, workers: &Workers) -> Result<()> {
        let flipped = self.flipped;
        self.rewrite(0..self.short, workers, &|own, long| {
            let product = product_of(w, &b.piece(0..w.columns(), long), flipped);
            own.values.into_iter().zip(product).map(|(x, y)| x - y).collect()
        })
    }

    /// WA of some of the long axis, in f64.
    pub fn rows_from(&self, w: View, long: Range<usize>, workers: &Workers) -> Result<Matrix<f64>> {
        let panels = workers.each(long.len().div_ceil(PANEL), |panel| {
            let start = long.start + panel * PANEL;
            Ok(product_of(w, &self.piece(0..self.short, start..(start + PANEL).min(long.end)), true))
        })?;
        Ok(Matrix { short: w.rows(), long: long.len(), flipped: true, values: panels.concat() })
    }

    /// Makes these vectors along the long axis anew, some of the axis at a time, by `make` from what all vectors are there.
    fn rewrite(&mut self, short: Range<usize>, workers: &Workers, make: &(dyn Fn(Piece, Range<usize>) -> Vec<f64> + Sync)) -> Result<()> {
        let (all, long) = (0..self.short, self.long);
        let shared = RwLock::new(self);
        let done = workers.each(long.div_ceil(PANEL), |panel| {
            let span = panel * PANEL..((panel + 1) * PANEL).min(long);
            // The lock is held while numbers are copied, not while they are multiplied.
            let piece = shared.read().expect("no holder panics").piece(all.clone(), span.clone());
            let made = make(piece, span.clone());
            shared.write().expect("no holder panics").put(short.clone(), span, &made);
            Ok(())
        });
        done.map(drop)
    }

    /// The elements ← these, which lie as the matrix does.
    fn put(&mut self, short: Range<usize>, long: Range<usize>, values: &[f64]) {
        let (down, right) = self.steps();
        let (lines, step, side) = if self.flipped { (long, right, short) } else { (short, down, long) };
        for (line, values) in lines.zip(values.chunks_exact(side.len().max(1))) {
            let line = &mut self.values[line * step + side.start..line * step + side.end];
            line.iter_mut().zip(values).for_each(|(x, value)| *x = R::of(*value));
        }
    }

    /// AX, of a long × columns matrix.
    pub fn times(&self, x: &Dense, workers: &Workers) -> Result<Dense> {
        let parts = workers.each(self.short.div_ceil(BLOCK), |block| {
            let span = block * BLOCK..((block + 1) * BLOCK).min(self.short);
            let mut out = vec![0.0; span.len() * x.columns];
            for start in (0..self.long).step_by(DEPTH) {
                let long = start..(start + DEPTH).min(self.long);
                let piece = self.piece(span.clone(), long.clone());
                multiply(&mut out, Lies::ByColumn, piece.view(), x.view().rows_of(long), true);
            }
            Ok(out)
        })?;
        let mut out = Dense::zeros(self.short, x.columns);
        for (block, part) in parts.iter().enumerate() {
            let rows = part.len() / x.columns.max(1);
            for (j, column) in part.chunks_exact(rows.max(1)).enumerate() {
                out.column_mut(j)[block * BLOCK..][..rows].copy_from_slice(column);
            }
        }
        Ok(out)
    }

    /// AᵀX, of a short × columns matrix.
    pub fn transposed_times(&self, x: &Dense, workers: &Workers) -> Result<Dense> {
        let parts = workers.each(self.long.div_ceil(DEPTH), |block| {
            let span = block * DEPTH..((block + 1) * DEPTH).min(self.long);
            let piece = self.piece(0..self.short, span.clone());
            let mut out = vec![0.0; span.len() * x.columns];
            multiply(&mut out, Lies::ByColumn, piece.view().transposed(), x.view(), false);
            Ok(out)
        })?;
        let mut out = Dense::zeros(self.long, x.columns);
        for (block, part) in parts.iter().enumerate() {
            let rows = part.len() / x.columns.max(1);
            for (j, column) in part.chunks_exact(rows.max(1)).enumerate() {
                out.column_mut(j)[block * DEPTH..][..rows].copy_from_slice(column);
            }
        }
        Ok(out)
    }
}
