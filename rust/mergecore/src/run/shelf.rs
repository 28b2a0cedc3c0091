//! What was read already of this block of the models? Decoded once, it serves every merge that wants it.

use super::desk::Seat;
use super::reader::row;
use crate::checkpoint::Tensor;
use crate::dtype::Dtype;
use crate::error::Result;

/// Which numbers: of which tensor, from which element on, and how many.
type Label = ((usize, u64, Dtype), u64, usize);

/// One row of a block, as it was read.
pub struct Row<R> {
    label: Option<Label>,
    pub values: Vec<R>,
    pub unfinite: [u64; 2],
}

/// The rows of one block, while the merges that share it are made one after the other.
pub struct Shelf<R> {
    /// Whether there is anybody to share with.
    pub shared: bool,
    /// The first `used` are of the present block; the others are room for the next.
    rows: Vec<Row<R>>,
    used: usize,
    /// The row that the last merge had as its base, and still lies on the desk: no method changes that.
    base: Option<Label>,
}

impl<R> Default for Shelf<R> {
    fn default() -> Self {
        Shelf { shared: false, rows: Vec::new(), used: 0, base: None }
    }
}

impl<R: Seat> Shelf<R> {
    /// The next block begins, of which nothing was read.
    pub fn clear(&mut self) {
        (self.used, self.base) = (0, None);
    }

    /// Those numbers, read unless they are here.
    pub fn row(&mut self, tensor: &Tensor, first: u64, count: usize, raw: &mut Vec<u8>) -> Result<&Row<R>> {
        let label = Some((tensor.place(), first, count));
        if let Some(known) = self.rows[..self.used].iter().position(|row| row.label == label) {
            return Ok(&self.rows[known]);
        }
        if self.used == self.rows.len() {
            self.rows.push(Row { label: None, values: Vec::new(), unfinite: [0; 2] });
        }
        let place = &mut self.rows[self.used];
        (place.label, place.unfinite) = (None, [0; 2]);
        row(tensor, first, count, raw, &mut place.values, None, &mut place.unfinite)?;
        place.label = label;
        self.used += 1;
        Ok(place)
    }

    /// Puts those numbers into `base`, unless they lie there; how many of them are NaN, and how many infinite.
    pub fn lay_base(&mut self, tensor: &Tensor, first: u64, count: usize, raw: &mut Vec<u8>, base: &mut Vec<R>) -> Result<[u64; 2]> {
        let there = self.base.take();
        let Row { label, values, unfinite } = self.row(tensor, first, count, raw)?;
        let (label, unfinite) = (*label, *unfinite);
        if label != there {
            base.clear();
            base.extend_from_slice(values);
        }
        self.base = label;
        Ok(unfinite)
    }
}
