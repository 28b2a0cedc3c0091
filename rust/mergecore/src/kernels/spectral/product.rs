//! How are matrices multiplied, so that the same bytes come out for any number of threads?
//!
//! A product is cut into fixed pieces, each of which one thread makes, by the `gemm` crate. (faer's own products reached half of its speed
//! here: 31 against 74 GFLOP/s a core in f64, MKL's being 83; and one made on several threads has been seen to be wrong, its issue 273.)

use super::workers::Workers;
use crate::error::Result;

/// Columns of a product that are made at once.
const PANEL: usize = 512;

/// An f64 matrix, column by column.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f64>,
}

/// A look at some numbers as a matrix.
#[derive(Clone, Copy)]
pub struct View<'v> {
    values: &'v [f64],
    rows: usize,
    columns: usize,
    /// From an element to the one below it, and to the one on its right.
    down: usize,
    right: usize,
}

impl<'v> View<'v> {
    pub fn new(values: &'v [f64], (rows, columns): (usize, usize), (down, right): (usize, usize)) -> Self {
        assert!(rows == 0 || columns == 0 || (rows - 1) * down + (columns - 1) * right < values.len(), "the view is within the values");
        View { values, rows, columns, down, right }
    }

    pub fn transposed(self) -> Self {
        View { rows: self.columns, columns: self.rows, down: self.right, right: self.down, ..self }
    }

    pub fn rows(self) -> usize {
        self.rows
    }

    pub fn columns(self) -> usize {
        self.columns
    }

    fn some_columns(self, first: usize, count: usize) -> Self {
        View::new(&self.values[(first * self.right).min(self.values.len())..], (self.rows, count), (self.down, self.right))
    }

    /// Some of the rows.
    pub fn rows_of(self, rows: std::ops::Range<usize>) -> Self {
        self.transposed().some_columns(rows.start, rows.len()).transposed()
    }
}

/// How a product lies in memory: row by row or column by column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    ByRow,
    ByColumn,
}

/// out ← ab, or out + ab. On this thread alone.
pub fn multiply(out: &mut [f64], lies: Lies, a: View, b: View, add: bool) {
    let (rows, columns, depth) = (a.rows, b.columns, a.columns);
    assert!(depth == b.rows && out.len() == rows * columns, "the shapes of a product");
    if out.is_empty() {
        return;
    }
    if depth == 0 {
        if !add {
            out.fill(0.0);
        }
        return;
    }
    let (down, right) = if lies == Lies::ByRow { (columns, 1) } else { (1, rows) };
    // SAFETY: each matrix is within its slice, as `View::new` and the line above have it, and `out` overlaps none, being borrowed alone.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            out.as_mut_ptr(),
            right as isize,
            down as isize,
            add,
            a.values.as_ptr(),
            a.right as isize,
            a.down as isize,
            b.values.as_ptr(),
            b.right as isize,
            b.down as isize,
            if add { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

impl Dense {
    pub fn zeros(rows: usize, columns: usize) -> Dense {
        Dense { rows, columns, values: vec![0.0; rows * columns] }
    }

    pub fn view(&self) -> View<'_> {
        View::new(&self.values, (self.rows, self.columns), (1, self.rows))
    }

    /// Some of the columns.
    pub fn columns(&self, first: usize, count: usize) -> View<'_> {
        self.view().some_columns(first, count)
    }

    pub fn column(&self, j: usize) -> &[f64] {
        &self.values[j * self.rows..(j + 1) * self.rows]
    }

    pub fn column_mut(&mut self, j: usize) -> &mut [f64] {
        &mut self.values[j * self.rows..(j + 1) * self.rows]
    }

    /// ab, on all threads.
    pub fn product(a: View, b: View, workers: &Workers) -> Result<Dense> {
        let panels = workers.each(b.columns.div_ceil(PANEL), |panel| {
            let first = panel * PANEL;
            let columns = PANEL.min(b.columns - first);
            let mut out = vec![0.0; a.rows * columns];
            multiply(&mut out, Lies::ByColumn, a, b.some_columns(first, columns), false);
            Ok(out)
        })?;
        Ok(Dense { rows: a.rows, columns: b.columns, values: panels.concat() })
    }

    /// Each column times a factor.
    pub fn scaled(mut self, factors: &[f64]) -> Dense {
        for (j, factor) in factors.iter().enumerate() {
            self.column_mut(j).iter_mut().for_each(|x| *x *= factor);
        }
        self
    }
}
