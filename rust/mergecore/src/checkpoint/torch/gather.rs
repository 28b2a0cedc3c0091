//! How is a transposed tensor read? By gathering its elements row by row, as if it lay in the file in order.
//!
//! Old checkpoints hold such tensors: weights that were converted from another framework and transposed on the way. Elements of a row lie
//! far apart, but those of a column side by side; so a band of rows is gathered at once and kept, and each read of the file gives as
//! many elements as the band has rows. Bands are a thread's own.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crate::checkpoint::bytes::{Bytes, InputFile};
use crate::error::Result;

/// Bytes of a band, and how many rows it has at least, unless that were too large a band.
const BAND: u64 = 1 << 18;
const ROWS: u64 = 16;
const LARGEST: u64 = 8 << 20;
/// Bytes of bands that a thread keeps.
const KEPT: usize = 16 << 20;

/// A tensor whose elements do not lie in order.
pub struct Gathered {
    file: Arc<InputFile>,
    /// Where its first element is; offsets are counted from there as if the tensor were contiguous.
    start: u64,
    size: u64,
    elements: u64,
    /// (length, stride) of each dimension that has more than one element, outermost first, in elements.
    steps: Vec<(u64, u64)>,
    number: u64,
}

struct Band {
    number: u64,
    first: u64,
    bytes: Vec<u8>,
}

thread_local! {
    static BANDS: RefCell<VecDeque<Band>> = const { RefCell::new(VecDeque::new()) };
}

/// Whether elements lie in the order of their indices. The stride of a dimension of one element says nothing.
pub fn contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1u64;
    shape.iter().zip(strides).rev().filter(|(n, _)| **n != 1).all(|(n, stride)| {
        let fits = *stride == expected;
        expected = expected.saturating_mul(*n);
        fits
    })
}

impl Gathered {
    /// `start` and the strides have been checked against the file.
    pub fn new(file: Arc<InputFile>, start: u64, size: u64, shape: &[u64], strides: &[u64]) -> Gathered {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let steps: Vec<(u64, u64)> = shape.iter().copied().zip(strides.iter().copied()).filter(|(n, _)| *n != 1).collect();
        Gathered { file, start, size, elements: shape.iter().product(), steps, number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// The band that element `at` is in: its first element, and how many.
    fn band(&self, at: u64) -> (u64, u64) {
        let row = self.elements / self.steps[0].0;
        let rows = (BAND / self.size / row).max(ROWS);
        // A row may be larger than memory (a stride of 0 repeats one element): such a band is a part of a row.
        let count = if row <= LARGEST / self.size / rows { row * rows } else { BAND / self.size };
        let first = at / count * count;
        (first, count.min(self.elements - first))
    }

    fn gather(&self, first: u64, count: u64) -> Result<Vec<u8>> {
        let row = self.elements / self.steps[0].0;
        let mut out = vec![0u8; (count * self.size) as usize];
        let whole_rows = first.is_multiple_of(row) && count.is_multiple_of(row);
        if self.steps[0].1 == 1 && whole_rows && count > row {
            self.gather_columns(first / row, row, &mut out)?;
        } else {
            self.gather_runs(first, &mut out)?;
        }
        Ok(out)
    }

    /// Rows from `first` on, whose elements of one column lie side by side: each read gives a column.
    fn gather_columns(&self, first: u64, row: u64, out: &mut [u8]) -> Result<()> {
        let size = self.size as usize;
        let width = row as usize * size;
        let mut column = vec![0u8; out.len() / row as usize];
        for i in 0..row {
            self.file.read(self.start + (first + self.place(i)) * self.size, &mut column)?;
            for (element, to) in column.chunks_exact(size).zip(out[i as usize * size..].chunks_mut(width)) {
                to[..size].copy_from_slice(element);
            }
        }
        Ok(())
    }

    /// Elements from `first` on, as many at once as lie side by side.
    fn gather_runs(&self, first: u64, out: &mut [u8]) -> Result<()> {
        let (inner, stride) = *self.steps.last().expect("what has one element is contiguous");
        let run = if stride == 1 { inner } else { 1 };
        let (mut at, mut rest) = (first, out);
        while !rest.is_empty() {
            let count = (run - at % run).min(rest.len() as u64 / self.size);
            let (now, later) = rest.split_at_mut((count * self.size) as usize);
            self.file.read(self.start + self.place(at) * self.size, now)?;
            (at, rest) = (at + count, later);
        }
        Ok(())
    }

    /// Where in the storage an element is, counted from the first.
    fn place(&self, mut element: u64) -> u64 {
        let mut place = 0;
        for (n, stride) in self.steps.iter().rev() {
            place += element % n * stride;
            element /= n;
        }
        place
    }
}

impl Bytes for Gathered {
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let (mut at, mut done) = (offset - self.start, 0);
        while done < out.len() {
            let (first, count) = self.band(at / self.size);
            BANDS.with_borrow_mut(|bands| {
                let found = bands.iter().position(|band| band.number == self.number && band.first == first);
                if found.is_none() {
                    while bands.iter().map(|band| band.bytes.len()).sum::<usize>() > KEPT {
                        bands.pop_front();
                    }
                    bands.push_back(Band { number: self.number, first, bytes: self.gather(first, count)? });
                }
                let band = &bands[found.unwrap_or(bands.len() - 1)].bytes;
                let skip = (at - first * self.size) as usize;
                let take = (band.len() - skip).min(out.len() - done);
                out[done..done + take].copy_from_slice(&band[skip..skip + take]);
                (at, done) = (at + take as u64, done + take);
                Ok(())
            })?;
        }
        Ok(())
    }
}
