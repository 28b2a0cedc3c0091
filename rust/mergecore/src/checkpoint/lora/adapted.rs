//! A weight with its adapter on it, computed while it is read: W + B·A·scale, and DoRA's m·(W + B·A·scale)/‖W + B·A·scale‖.
//!
//! As peft's `merge_and_unload` has it for factors in float32: the product is summed in f32 in the order of the ranks, scaled, and added
//! in f32. What is read is that sum, not rounded to the model's own type. Each element is summed by itself, so that the same bits come out
//! for any piece that is read. The factors of a tensor are held while it is in work; DoRA's norms take one pass over the weight, and
//! stay (one number a row).

use std::sync::{Arc, Mutex, OnceLock};

use super::super::{Bytes, Tensor};
use crate::dtype::{Dtype, Real};
use crate::error::Result;
use crate::kernels::{angle, blend, low_rank};

/// Elements of a row that are computed at a time, so that they stay in the core's nearest cache.
const STRIP: usize = 2048;
/// Elements that are read of the weight at a time.
const READ: usize = 1 << 16;

/// What is put on a weight.
pub struct Patch {
    pub a: Tensor<'static>,
    pub b: Tensor<'static>,
    pub magnitude: Option<Tensor<'static>>,
    pub scale: f64,
    /// The weight is (in, out): the product is transposed, and so is what DoRA's magnitudes belong to.
    pub transposed: bool,
}

/// The weight with the patch on it, under the weight's own type, shape and place.
pub fn tensor(weight: &Tensor<'static>, patch: Patch) -> Tensor<'static> {
    let source: Arc<dyn Bytes> = match weight.read_as() {
        Dtype::F64 => Arc::new(Adapted::<f64>::new(weight, patch)),
        _ => Arc::new(Adapted::<f32>::new(weight, patch)),
    };
    Tensor { source, ..weight.clone() }
}

struct Adapted<R> {
    weight: Tensor<'static>,
    patch: Patch,
    rows: usize,
    columns: usize,
    rank: usize,
    factors: Mutex<Option<Arc<Factors<R>>>>,
    stretch: OnceLock<Result<Vec<R>>>,
}

/// As the product needs them: (rows, r) and (r, columns).
struct Factors<R> {
    left: Vec<R>,
    right: Vec<R>,
}

impl<R: Real> Adapted<R> {
    fn new(weight: &Tensor<'static>, patch: Patch) -> Self {
        let (rows, columns, rank) = (weight.shape[0] as usize, weight.shape[1] as usize, patch.a.shape[0] as usize);
        Adapted { weight: weight.clone(), patch, rows, columns, rank, factors: Mutex::default(), stretch: OnceLock::new() }
    }

    fn factors(&self) -> Result<Arc<Factors<R>>> {
        // Held while loading: who comes second would read the same again.
        let mut held = self.factors.lock().expect("no holder panics");
        if let Some(factors) = &*held {
            return Ok(factors.clone());
        }
        let (a, b) = (whole(&self.patch.a)?, whole(&self.patch.b)?);
        let factors = Arc::new(match self.patch.transposed {
            false => Factors { left: b, right: a },
            true => Factors { left: transpose(&a, self.rank), right: transpose(&b, self.columns) },
        });
        *held = Some(factors.clone());
        Ok(factors)
    }

    /// Shows `count` elements from `first` on, row by row and strip by strip, the patch added but not stretched: `see(row, column, sums)`.
    fn strips(&self, factors: &Factors<R>, first: usize, count: usize, see: &mut dyn FnMut(usize, usize, &mut [R])) -> Result<()> {
        let (dtype, size) = (self.weight.read_as(), self.weight.read_as().size());
        let mut raw = vec![0; count.min(READ) * size];
        let (mut weights, mut sums) = ([R::ZERO; STRIP], [R::ZERO; STRIP]);
        let mut ahead: &[u8] = &[];
        let mut done = 0;
        while done < count {
            if ahead.is_empty() {
                let raw = &mut raw[..READ.min(count - done) * size];
                self.weight.read((first + done) as u64, raw)?;
                ahead = raw;
            }
            let (row, column) = ((first + done) / self.columns, (first + done) % self.columns);
            // A strip ends where the row does, and where what was read does.
            let length = STRIP.min(self.columns - column).min(ahead.len() / size);
            let (weights, sums) = (&mut weights[..length], &mut sums[..length]);
            let now;
            (now, ahead) = ahead.split_at(length * size);
            R::decode(dtype, now, weights);
            low_rank::row(&factors.left[row * self.rank..(row + 1) * self.rank], &factors.right, self.columns, column, sums);
            blend::attach(sums, weights, R::of(self.patch.scale));
            see(row, column, sums);
            done += length;
        }
        Ok(())
    }

    /// DoRA's factors m/‖·‖, one a row (one a column of a transposed weight); none without magnitudes.
    fn stretch(&self, factors: &Factors<R>) -> Result<Option<&[R]>> {
        let Some(magnitude) = &self.patch.magnitude else { return Ok(None) };
        let make = || -> Result<Vec<R>> {
            let mut squares = vec![0.0; if self.patch.transposed { self.columns } else { self.rows }];
            // Always the whole weight from its beginning, so that the sums are taken of the same strips.
            self.strips(factors, 0, self.rows * self.columns, &mut |row, column, sums| match self.patch.transposed {
                false => squares[row] += angle::dot(sums, sums),
                true => low_rank::add_squares(&mut squares[column..], sums),
            })?;
            let magnitudes = whole::<R>(magnitude)?;
            Ok(magnitudes.into_iter().zip(squares).map(|(m, square)| m / R::of(square.sqrt())).collect())
        };
        self.stretch.get_or_init(make).as_ref().map(|factors| Some(factors.as_slice())).map_err(Clone::clone)
    }

    /// Which element a byte of this tensor belongs to.
    fn element(&self, offset: u64) -> usize {
        ((offset - self.weight.offset) / R::DTYPE.size() as u64) as usize
    }
}

impl<R: Real> Bytes for Adapted<R> {
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let size = R::DTYPE.size();
        let (first, count) = (self.element(offset), out.len() / size);
        let factors = self.factors()?;
        let stretch = self.stretch(&factors)?;
        let mut done = 0;
        self.strips(&factors, first, count, &mut |row, column, sums| {
            match stretch {
                Some(factors) if self.patch.transposed => low_rank::stretch(sums, &factors[column..]),
                Some(factors) => sums.iter_mut().for_each(|x| *x = *x * factors[row]),
                None => {}
            }
            R::encode(R::DTYPE, sums, &mut out[done..done + sums.len() * size]);
            done += sums.len() * size;
        })
    }

    fn will_need(&self, offset: u64, bytes: u64) {
        self.weight.will_need(self.element(offset) as u64, bytes / R::DTYPE.size() as u64);
    }

    fn yields(&self, _stored: Dtype) -> Dtype {
        R::DTYPE
    }

    fn held(&self) -> u64 {
        // While they are loaded, once more as they are in the file or not yet transposed.
        let factors = (self.rank * (self.rows + self.columns)) as u64;
        let norms = if self.patch.magnitude.is_some() { self.rows.max(self.columns) as u64 * 8 } else { 0 };
        2 * factors * R::DTYPE.size() as u64 + norms
    }

    fn rest(&self) {
        *self.factors.lock().expect("no holder panics") = None;
    }
}

fn whole<R: Real>(tensor: &Tensor) -> Result<Vec<R>> {
    let count = tensor.elements() as usize;
    let mut raw = vec![0; count * tensor.dtype.size()];
    tensor.read(0, &mut raw)?;
    let mut values = vec![R::ZERO; count];
    R::decode(tensor.dtype, &raw, &mut values);
    Ok(values)
}

/// A matrix of `rows` rows, with its axes swapped.
fn transpose<R: Real>(matrix: &[R], rows: usize) -> Vec<R> {
    let columns = matrix.len() / rows.max(1);
    let mut swapped = vec![R::ZERO; matrix.len()];
    for (i, row) in matrix.chunks_exact(columns.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(j, x)| swapped[j * rows + i] = *x);
    }
    swapped
}

/// A tensor that takes the place of another: it is read as it is, and counts as the other's type.
pub struct InPlaceOf(pub Tensor<'static>);

impl Bytes for InPlaceOf {
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.0.source.read(offset, out)
    }

    fn will_need(&self, offset: u64, bytes: u64) {
        self.0.source.will_need(offset, bytes);
    }

    fn yields(&self, _stored: Dtype) -> Dtype {
        self.0.read_as()
    }
}
