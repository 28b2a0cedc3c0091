//! How is a tensor merged whose matrices are merged, or modified, as a whole?
//!
//! Its task vector is made in memory, unit by unit: by the method's `solve`, which reads the models' task vectors one after the other, or
//! block by block as any other tensor's. Modifiers act on it; then it is written as all are. One tensor at a time uses all threads, or a few
//! do, where there are many threads and memory for it.

use std::sync::{Arc, Mutex};

use super::bundle::Bundle;
use super::desk::{Desk, Desks, Seat};
use super::norms::Scales;
use super::reader::{row, Reader};
use super::schedule::{drive, Task};
use super::tensor::{Merge, Then};
use super::writer::Writer;
use super::{Context, Spectrum};
use crate::error::{Error, Kind, Result};
use crate::kernels::angle;
use crate::kernels::spectral::matrix::Matrix;
use crate::kernels::spectral::reshape::reshape;
use crate::kernels::spectral::spectrum;
use crate::kernels::spectral::workers::Workers;
use crate::matrices::{Solve, Spectral, TaskVectors};
use crate::methods::{Facts, Formula, Method};
use crate::modifiers::Modifier;
use crate::names;
use crate::plan::matrices::{Part, Unit, Whole};
use crate::plan::{Bound, Job};

/// One tensor, whole.
pub struct WholeTask<'a, R> {
    pub context: &'a Context<'a>,
    pub workers: &'a Workers<'a>,
    pub reader: Reader<'a>,
    pub whole: &'a Whole,
    /// The whole model's facts, with the offset of this tensor's blocks in them.
    pub known: Option<(Facts, usize)>,
    pub writer: Arc<Writer<'a, R>>,
    pub end: End<'a>,
    pub index: usize,
}

/// What becomes of the task vector.
pub enum End<'a> {
    Write(Option<&'a Scales>),
    /// Σ Δ² is kept here, after so many modifiers.
    Measure(&'a Mutex<f64>, usize),
}

impl<R: Seat> WholeTask<'_, R>
where
    dyn Method: Formula<R>,
    dyn Spectral: Solve<R>,
{
    fn job(&self) -> &Job<'_> {
        self.reader.job
    }

    /// The unit's merged task vector, after `modifiers` of the modifiers; and what is known of its matrices.
    fn task_vector(&self, unit: &Unit, modifiers: usize, scales: Option<&Scales>) -> Result<(Vec<R>, Vec<Spectrum>)> {
        let mut spectra = Vec::new();
        let mut delta = match self.reader.bound.method.spectral().filter(|_| self.whole.solved) {
            Some(spectral) => self.solved(spectral, unit, &mut spectra)?,
            None => self.merged()?,
        };
        for (i, modifier) in self.reader.bound.modifiers[..modifiers].iter().enumerate() {
            match modifier {
                Modifier::Reshape(modifier) if self.whole.reshaped[i] => {
                    let of = self.context.plan.recipe.modifiers[i].spec.name;
                    for part in &unit.parts {
                        let mut matrix = taken(&mut delta, part);
                        // What a method has made of singular values is no longer as long as what rounding made of them.
                        let (tolerance, noise) = match self.whole.solved {
                            true => (modifier.tolerance().of_arithmetic(), 0.0),
                            false => (modifier.tolerance(), Vectors::new(self, unit, part).expected_noise(&weights(self.reader.bound))?),
                        };
                        if !matrix.largest().is_finite() {
                            let source = self.writer.first_unfinite().map(|source| self.job().origins[source].model.as_str());
                            return Err(self.within(part, unfinite(&self.job().name, source.unwrap_or("its merged task vector"))));
                        }
                        let sizes = |sigma: &[f64], rank: usize| modifier.sizes(sigma, rank);
                        let account = reshape(&mut matrix, tolerance, noise, &sizes, self.workers);
                        let account = account.map_err(|e| self.within(part, e))?;
                        spectra.push(Spectrum { of, part: part.label.clone(), account });
                        put_back(&mut delta, part, matrix);
                    }
                }
                Modifier::Reshape(_) => {}
                Modifier::MatchNorm(_) => {
                    let Some(scales) = scales else { continue };
                    let factor = R::of(scales.factor(self.index, || Ok(square(&delta)))?);
                    delta.iter_mut().for_each(|x| *x = *x * factor);
                }
            }
        }
        Ok((delta, spectra))
    }

    /// Matrix by matrix, by the method.
    fn solved(&self, spectral: &(dyn Spectral + 'static), unit: &Unit, spectra: &mut Vec<Spectrum>) -> Result<Vec<R>> {
        let elements = unit.elements.end - unit.elements.start;
        let mut delta = Vec::new();
        for part in &unit.parts {
            let mut vectors = Vectors::new(self, unit, part);
            let (matrix, account) = spectral.solve(&mut vectors, self.workers).map_err(|e| self.within(part, e))?;
            spectra.push(Spectrum { of: self.context.plan.recipe.spec.name, part: part.label.clone(), account });
            if !part.is_all(elements) {
                delta.resize(elements as usize, R::ZERO);
            }
            put_back(&mut delta, part, matrix);
        }
        self.context.progress(elements * self.job().element_bytes());
        Ok(delta)
    }

    /// Block by block, by the method.
    fn merged(&self) -> Result<Vec<R>> {
        let delta = Mutex::new(vec![R::ZERO; self.job().elements() as usize]);
        let reader = Reader::of(self.reader.job, self.reader.bound).expect("it is one");
        let merge = Merge::new(self.context, self.writer.clone(), reader, self.known.clone(), Then::Keep(&delta))?;
        let task: Arc<dyn Task<Desks>> = Arc::new(Bundle::new(vec![merge]));
        let open = |_| Ok(task.clone());
        drive(1, &open, self.context.limits.threads, &Desks::default, &self.context.watch.cancelled)?;
        drop(task);
        Ok(delta.into_inner().expect("no holder panics"))
    }

    /// An error in terms of the tensor, and of the part of it.
    fn within(&self, part: &Part, error: Error) -> Error {
        let part = if part.label.is_empty() { String::new() } else { format!(" ({})", part.label) };
        match error.kind {
            Kind::Run => Error::run(format!("{}{part}: {}", names::called(&self.job().name), error.message)),
            _ => error,
        }
    }
}

impl<R: Seat> Task<Desks> for WholeTask<'_, R>
where
    dyn Method: Formula<R>,
    dyn Spectral: Solve<R>,
{
    fn tiles(&self) -> usize {
        1
    }

    fn work(&self, _: usize, _: &mut Desks) -> Result<()> {
        let mut all = Vec::new();
        let mut squares = Vec::new();
        for unit in &self.whole.units {
            match self.end {
                End::Measure(_, modifiers) => squares.push(square(&self.task_vector(unit, modifiers, None)?.0)),
                End::Write(scales) => {
                    let (delta, spectra) = self.task_vector(unit, self.reader.bound.modifiers.len(), scales)?;
                    all.extend(spectra);
                    let task: Arc<dyn Task<Desks>> = Arc::new(WriteTask { whole: self, unit, delta });
                    let open = |_| Ok(task.clone());
                    drive(1, &open, self.context.limits.threads, &Desks::default, &self.context.watch.cancelled)?;
                }
            }
        }
        self.reader.rest();
        match self.end {
            End::Measure(sum, _) => {
                *sum.lock().expect("no holder panics") = angle::tree(&squares);
                Ok(())
            }
            End::Write(_) => self.writer.finished(all),
        }
    }

    fn conclude(&self) -> Result<bool> {
        Ok(false)
    }
}

/// Writes a unit's task vector.
struct WriteTask<'w, 'a, R> {
    whole: &'w WholeTask<'a, R>,
    unit: &'w Unit,
    delta: Vec<R>,
}

impl<R: Seat> Task<Desks> for WriteTask<'_, '_, R> {
    fn tiles(&self) -> usize {
        ((self.unit.elements.end - self.unit.elements.start).div_ceil(self.whole.context.limits.tile_of(self.whole.reader.job)) as usize)
            .max(1)
    }

    fn work(&self, tile: usize, desks: &mut Desks) -> Result<()> {
        let (desk, writer, reader) = (R::desk(desks), &self.whole.writer, &self.whole.reader);
        let (job, context) = (reader.job, self.whole.context);
        let (size, block) = (job.dtype.size(), job.block());
        let first = self.unit.elements.start + tile as u64 * context.limits.tile_of(job);
        let last = (first + context.limits.tile_of(job)).min(self.unit.elements.end);
        let mut trays = desk.take_trays(1);
        let encoded = &mut trays[0].bytes;
        encoded.resize((last - first) as usize * size, 0);
        let mut counts = writer.none();
        for (number, bytes) in ((first / block) as usize..).zip(encoded.chunks_mut(block as usize * size)) {
            context.watch.check_cancelled()?;
            reader.load_base(number, desk)?;
            let start = (number as u64 * block - self.unit.elements.start) as usize;
            let count = desk.out.len();
            desk.out.copy_from_slice(&self.delta[start..start + count]);
            writer.encode(reader, number, 1.0, desk, bytes, &mut counts)?;
        }
        // What the sources hold was counted when they were merged.
        counts[1..].fill([0; 2]);
        writer.write(first, size, encoded, counts)?;
        context.progress(encoded.len() as u64);
        desk.trays = trays;
        Ok(())
    }

    fn conclude(&self) -> Result<bool> {
        Ok(false)
    }
}

fn unfinite(tensor: &str, model: &str) -> Error {
    let way_out = match tensor {
        "" => "mend it".into(),
        _ => format!(
            "mend the model, or merge this tensor as no matrix (in a recipe, matrices: [{{filter: {tensor}, value: none}}, {{value: linear}}])"
        ),
    };
    Error::run(format!("{model} holds NaN or infinite values there, and a matrix with them has no singular values: {way_out}"))
}

/// The weights with which a method sums task vectors, for what rounding adds to the sum: as they are where it does not divide by theirs, and
/// more where it drops elements and makes up for them.
fn weights(bound: &Bound) -> Vec<f64> {
    let params = &bound.params;
    let mut weights = if params.has("weight") { params.each("weight") } else { vec![1.0; params.models] };
    let sum: f64 = weights.iter().sum();
    if (!params.has("weight") || !params.has("normalize") || params.flag("normalize")) && sum.abs() > 1e-8 {
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    if params.has("density") && params.has("rescale") && params.word("rescale") != "none" {
        let density = params.each("density");
        weights.iter_mut().zip(density).filter(|(_, density)| *density > 0.0).for_each(|(weight, density)| *weight /= density.sqrt());
    }
    weights
}

fn square<R: Seat>(values: &[R]) -> f64 {
    angle::tree(&values.chunks(1 << 14).map(|chunk| angle::dot(chunk, chunk)).collect::<Vec<_>>())
}

/// The part of a unit, as a matrix; the unit itself, where the part is all of it.
fn taken<R: Seat>(unit: &mut Vec<R>, part: &Part) -> Matrix<R> {
    let (rows, columns) = (part.rows.total(), part.columns.total());
    if part.is_all(unit.len() as u64) {
        return Matrix::new(rows, columns, std::mem::take(unit));
    }
    let mut values = Vec::with_capacity(rows * columns);
    part.runs().for_each(|(from, _, count)| values.extend_from_slice(&unit[from..from + count]));
    Matrix::new(rows, columns, values)
}

fn put_back<R: Seat>(unit: &mut Vec<R>, part: &Part, matrix: Matrix<R>) {
    if unit.is_empty() {
        *unit = matrix.values;
        return;
    }
    part.runs().for_each(|(from, to, count)| unit[from..from + count].copy_from_slice(&matrix.values[to..to + count]));
}

/// The task vectors of one matrix.
struct Vectors<'v, R> {
    reader: &'v Reader<'v>,
    workers: &'v Workers<'v>,
    unit: &'v Unit,
    part: &'v Part,
    /// The lengths of a long row and a long column of the base added, once it was read.
    base: Option<f64>,
    arithmetic: std::marker::PhantomData<R>,
}

/// Elements that one thread reads at once, and of which it makes one sum.
const CHUNK: usize = 1 << 19;
const STRIP: usize = 1 << 14;

impl<'v, R: Seat> Vectors<'v, R> {
    fn new(whole: &'v WholeTask<'_, R>, unit: &'v Unit, part: &'v Part) -> Self {
        Vectors { reader: &whole.reader, workers: whole.workers, unit, part, base: None, arithmetic: std::marker::PhantomData }
    }

    /// Reads Σ wᵢδᵢ of some rows of the part into `out`; gives the base's lengths.
    fn read(&self, rows: std::ops::Range<usize>, weights: &[f64], desk: &mut Desk<R>, out: &mut Vec<R>) -> Result<Lengths> {
        let (part, width) = (self.part, self.part.width);
        let mut lengths = Lengths { rows: Vec::with_capacity(rows.len()), columns: vec![0.0; part.columns.total()] };
        let mut sum = Vec::new();
        let mut row_number = rows.start;
        while row_number < rows.end {
            // As many rows as lie side by side and fit the cores' caches.
            let first = part.rows.at(row_number);
            let mut count = 1;
            while row_number + count < rows.end && part.rows.at(row_number + count) == first + count && (count + 1) * width <= STRIP {
                count += 1;
            }
            let start = self.unit.elements.start + (first * width) as u64;
            self.sum_of(start, count * width, weights, desk, &mut sum)?;
            for (row, base) in sum.chunks_exact(width).zip(desk.base.chunks_exact(width)) {
                let mut square = 0.0;
                for group in 0..part.columns.groups {
                    let from = part.columns.start + group * part.columns.stride;
                    out.extend(row[from..from + part.columns.count].iter().map(|x| R::of(*x)));
                    let columns = &mut lengths.columns[group * part.columns.count..][..part.columns.count];
                    for (column, x) in columns.iter_mut().zip(&base[from..from + part.columns.count]) {
                        *column += x.f64() * x.f64();
                        square += x.f64() * x.f64();
                    }
                }
                lengths.rows.push(square);
            }
            row_number += count;
        }
        Ok(lengths)
    }

    /// Σ wᵢδᵢ of elements side by side, in f64; their base stays on the desk.
    fn sum_of(&self, start: u64, count: usize, weights: &[f64], desk: &mut Desk<R>, sum: &mut Vec<f64>) -> Result<()> {
        let Desk { raw, base, onto, .. } = desk;
        sum.clear();
        sum.resize(count, 0.0);
        let mut unfinite = [0; 2];
        let tensor = self.reader.base.expect("a method that merges matrices has a base");
        row(tensor, start, count, raw, base, None, &mut unfinite)?;
        self.check_finite(0, unfinite)?;
        for (model, (tensor, weight)) in self.reader.inputs.iter().zip(weights).enumerate().filter(|(_, (_, weight))| **weight != 0.0) {
            row(tensor, start, count, raw, onto, Some(base), &mut unfinite)?;
            self.check_finite(1 + model, unfinite)?;
            sum.iter_mut().zip(&*onto).for_each(|(sum, x)| *sum += weight * x.f64());
        }
        Ok(())
    }

    fn check_finite(&self, source: usize, [nan, infinite]: [u64; 2]) -> Result<()> {
        if nan + infinite == 0 {
            return Ok(());
        }
        Err(unfinite(&self.reader.job.name, &self.reader.job.origins[source].model))
    }

    /// What `noise` says, for matrices that were not read here.
    fn expected_noise(&mut self, weights: &[f64]) -> Result<f64> {
        let none = vec![0.0; weights.len()];
        self.base = Some(self.each(&none, &|_, _| ())?);
        Ok(self.noise(weights))
    }

    /// Reads all rows, some at a time; gives the length of a long row of the base, and that of a long column, added.
    fn each(&self, weights: &[f64], take: &(dyn Fn(usize, Vec<R>) + Sync)) -> Result<f64> {
        let rows = (CHUNK / self.part.width.max(1)).max(1);
        let lengths = self.workers.each(self.part.rows.total().div_ceil(rows), |chunk| {
            let span = chunk * rows..((chunk + 1) * rows).min(self.part.rows.total());
            let (mut desk, mut out) = (Desk::default(), Vec::with_capacity(span.len() * self.part.columns.total()));
            let lengths = self.read(span.clone(), weights, &mut desk, &mut out)?;
            take(span.start * self.part.columns.total(), out);
            Ok(lengths)
        })?;
        let mut columns = vec![0.0; self.part.columns.total()];
        lengths.iter().for_each(|some| columns.iter_mut().zip(&some.columns).for_each(|(sum, x)| *sum += x));
        let rows: Vec<f64> = lengths.into_iter().flat_map(|lengths| lengths.rows).collect();
        Ok(long(rows).sqrt() + long(columns).sqrt())
    }
}

impl<R: Seat> TaskVectors<R> for Vectors<'_, R> {
    fn sum(&mut self, weights: &[f64]) -> Result<Matrix<R>> {
        let (rows, columns) = (self.part.rows.total(), self.part.columns.total());
        let values = Mutex::new(vec![R::ZERO; rows * columns]);
        let square = self.each(weights, &|start, some| {
            values.lock().expect("no holder panics")[start..start + some.len()].copy_from_slice(&some);
        })?;
        self.base = Some(square);
        let matrix = Matrix::new(rows, columns, values.into_inner().expect("no holder panics"));
        if !matrix.largest().is_finite() {
            return Err(Error::run("the change is too large for float32: give --dtype float64 (in a recipe, dtype)"));
        }
        Ok(matrix)
    }

    fn noise(&self, weights: &[f64]) -> f64 {
        // Rounding errors are as good as independent, each of a share of its number. The largest singular value of such a matrix is that of
        // its longest row and its longest column, added; the mean of all, rms (√m + √n), is too low where rows or columns differ in size
        // (3.4 times, for columns of which 8 are ten times as large).
        let models = self.reader.inputs.iter().zip(weights).map(|(tensor, weight)| (weight * tensor.read_as().rounding()).powi(2));
        self.base.unwrap_or(0.0) * models.sum::<f64>().sqrt()
    }
}

/// How long the rows and columns of some rows of a base are: their squares.
struct Lengths {
    rows: Vec<f64>,
    columns: Vec<f64>,
}

/// The longest but for one in a hundred: a single weight of a hundred times the others' size, as some models have, makes a row and a column
/// long, and adds one direction to the noise, not all.
fn long(mut squares: Vec<f64>) -> f64 {
    squares.sort_unstable_by(f64::total_cmp);
    squares.len().checked_sub(1 + squares.len() / 100).map_or(0.0, |place| squares[place])
}

/// Bytes that a tensor takes while it is merged whole: the unit, and what its largest matrix needs.
pub fn bytes(job: &Job, bound: &Bound, whole: &Whole, threads: u64) -> u64 {
    let element = if job.wide { 8 } else { 4 };
    let of_unit = |unit: &Unit| {
        let size = (unit.elements.end - unit.elements.start) * element;
        let of_part = |part: &Part| {
            let shape = part.shape(element);
            let beside = if part.is_all(unit.elements.end - unit.elements.start) { 0 } else { size };
            let solve =
                bound.method.spectral().filter(|_| whole.solved).map_or(size - size.min(beside), |spectral| spectral.bytes(shape, threads));
            let reshape = if whole.reshaped.contains(&true) { shape.bytes() + spectrum::bytes(shape.short(), threads) } else { 0 };
            beside + solve.max(reshape)
        };
        unit.parts.iter().map(of_part).max().unwrap_or(0)
    };
    whole.units.iter().map(of_unit).max().unwrap_or(0)
}
