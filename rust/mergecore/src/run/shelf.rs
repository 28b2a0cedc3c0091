//! What was read already of this block of the models? Decoded once, it serves every merge that wants it.

use super::desk::Seat;
use super::reader::row;
use crate::checkpoint::Tensor;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::blend;

/// Which numbers: of which tensor, from which element on, and how many.
type Label = ((usize, u64, Dtype), u64, usize);

/// One row of a block, as it was read.
pub struct Row<R> {
    label: Label,
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
    /// What the last merge has left on the desk as it was read: its base, which no method changes, and each model with the base that was
    /// subtracted from it.
    base: Option<Label>,
    inputs: Vec<Option<(Label, Option<Label>)>>,
}

impl<R> Default for Shelf<R> {
    fn default() -> Self {
        Shelf { shared: false, rows: Vec::new(), used: 0, base: None, inputs: Vec::new() }
    }
}

impl<R: Seat> Shelf<R> {
    /// The next block begins, of which nothing was read.
    pub fn clear(&mut self) {
        (self.used, self.base) = (0, None);
        self.inputs.clear();
    }

    /// The desk has room for so many models only.
    pub fn truncate_inputs(&mut self, models: usize) {
        self.inputs.truncate(models);
    }

    /// A method has changed the rows of the models on the desk.
    pub fn forget_inputs(&mut self) {
        self.inputs.clear();
    }

    /// Those numbers, read unless they are here.
    pub fn row(&mut self, tensor: &Tensor, first: u64, count: usize, raw: &mut Vec<u8>) -> Result<&Row<R>> {
        let label = (tensor.place(), first, count);
        if let Some(known) = self.rows[..self.used].iter().position(|row| row.label == label) {
            return Ok(&self.rows[known]);
        }
        if self.used == self.rows.len() {
            self.rows.push(Row { label, values: Vec::new(), unfinite: [0; 2] });
        }
        let place = &mut self.rows[self.used];
        (place.label, place.unfinite) = (label, [0; 2]);
        row(tensor, first, count, raw, &mut place.values, None, &mut place.unfinite)?;
        self.used += 1;
        Ok(place)
    }

    /// Puts those numbers into `base`, unless they lie there; how many of them are NaN, and how many infinite.
    pub fn lay_base(&mut self, tensor: &Tensor, first: u64, count: usize, raw: &mut Vec<u8>, base: &mut Vec<R>) -> Result<[u64; 2]> {
        let there = self.base.take();
        let Row { label, values, unfinite } = self.row(tensor, first, count, raw)?;
        let (label, unfinite) = (*label, *unfinite);
        if Some(label) != there {
            base.clear();
            base.extend_from_slice(values);
        }
        self.base = Some(label);
        Ok(unfinite)
    }

    /// Puts model number `which` into `values`, less the base that lies on the desk if there is one, unless it lies there; how many of its
    /// numbers are NaN, and how many infinite.
    pub fn lay_input(
        &mut self,
        (which, tensor): (usize, &Tensor),
        (first, count): (u64, usize),
        raw: &mut Vec<u8>,
        base: Option<&Vec<R>>,
        values: &mut Vec<R>,
    ) -> Result<[u64; 2]> {
        let less = base.and(self.base);
        self.inputs.resize(self.inputs.len().max(which + 1), None);
        let there = self.inputs[which].take();
        let Row { label, values: read, unfinite } = self.row(tensor, first, count, raw)?;
        let (here, unfinite) = (Some((*label, less)), *unfinite);
        if here != there {
            values.resize(count, R::ZERO);
            match base {
                Some(base) => blend::difference(values, read, base),
                None => values.copy_from_slice(read),
            }
        }
        self.inputs[which] = here;
        Ok(unfinite)
    }
}
