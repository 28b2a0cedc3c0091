//! A device whose formulas Python works out: `mergecore.cuda`.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use mergecore::error::{Error, Result};
use mergecore::kernels::spectral::reshape::Account;
use mergecore::methods::METHODS;
use mergecore::modifiers::MODIFIERS;
use mergecore::run::device::{Bench, Device, Merged};
use mergecore::run::Spectrum;
use pyo3::prelude::*;
use serde_json::Value as Json;

use crate::convert::Memory;
use crate::enter::error_of;

/// Asks a Python object, and turns what it raises into an error.
fn ask<T>(object: &Py<PyAny>, work: impl FnOnce(&Bound<PyAny>) -> PyResult<T>) -> Result<T> {
    Python::attach(|py| work(object.bind(py)).map_err(|e| error_of(py, &e)))
}

/// Whether the merge is to stop, for Python to ask.
#[pyclass(frozen)]
pub struct Cancelled(Arc<AtomicBool>);

#[pymethods]
impl Cancelled {
    fn __call__(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub struct PyDevice(pub Py<PyAny>);

impl Device for PyDevice {
    fn lanes(&self) -> usize {
        ask(&self.0, |device| device.getattr("lanes")?.extract()).unwrap_or(1)
    }

    fn begin(&self, lane: usize, tensor: &Json, cancelled: &Arc<AtomicBool>) -> Result<Option<Box<dyn Bench>>> {
        let bench: Option<Py<PyAny>> = ask(&self.0, |device| {
            let bench = device.call_method1("begin", (lane, tensor.to_string(), Cancelled(cancelled.clone())))?;
            Ok((!bench.is_none()).then(|| bench.unbind()))
        })?;
        Ok(bench.map(|bench| Box::new(PyBench { bench, held: None }) as Box<dyn Bench>))
    }
}

struct PyBench {
    bench: Py<PyAny>,
    /// What Python has lent last.
    held: Option<Memory>,
}

impl PyBench {
    fn merged(&mut self, how: &str, which: u64) -> Result<Option<Merged<'_>>> {
        let found: Option<(Memory, Vec<[u64; 2]>)> = ask(&self.bench, |bench| bench.call_method1(how, (which,))?.extract())?;
        Ok(found.map(|(memory, unfinite)| Merged { values: self.held.insert(memory).bytes(), unfinite }))
    }
}

impl Bench for PyBench {
    fn chunk(&self) -> u64 {
        ask(&self.bench, |bench| bench.getattr("chunk")?.extract()).unwrap_or(0)
    }

    fn wanted(&mut self) -> Result<Option<Range<u64>>> {
        let span: Option<(u64, u64)> = ask(&self.bench, |bench| bench.call_method0("wanted")?.extract())?;
        Ok(span.map(|(start, end)| start..end))
    }

    fn buffer(&mut self, bytes: usize) -> Result<Option<&mut [u8]>> {
        let memory: Option<Memory> = ask(&self.bench, |bench| bench.call_method1("buffer", (bytes,))?.extract())?;
        match memory {
            None => Ok(None),
            Some(memory) if memory.is_writable() => Ok(Some(self.held.insert(memory).bytes_mut())),
            Some(_) => Err(Error::run("a device's buffer is read-only")),
        }
    }

    fn give(&mut self, source: usize) -> Result<Option<()>> {
        let taken: bool = ask(&self.bench, |bench| bench.call_method1("give", (source,))?.extract())?;
        Ok(taken.then_some(()))
    }

    fn observe(&mut self, first: u64) -> Result<Option<()>> {
        let seen: bool = ask(&self.bench, |bench| bench.call_method1("observe", (first,))?.extract())?;
        Ok(seen.then_some(()))
    }

    fn conclude(&mut self) -> Result<()> {
        ask(&self.bench, |bench| bench.call_method0("conclude").map(drop))
    }

    fn merge(&mut self, first: u64) -> Result<Option<Merged<'_>>> {
        self.merged("merge", first)
    }

    fn solve(&mut self, unit: usize) -> Result<Option<Merged<'_>>> {
        self.merged("solve", unit as u64)
    }

    fn spectra(&mut self) -> Result<Vec<Spectrum>> {
        type Told = (String, String, usize, f64, f64, f64, f64);
        let told: Vec<Told> = ask(&self.bench, |bench| bench.call_method0("spectra")?.extract())?;
        let known = |name: &str| {
            let names = METHODS.iter().map(|spec| spec.name).chain(MODIFIERS.iter().map(|spec| spec.name));
            names
                .into_iter()
                .find(|known| *known == name)
                .ok_or_else(|| Error::run(format!("a device tells of {name}, which is no method")))
        };
        let spectrum = |(of, part, rank, stable_rank, noise_share, orthogonality, residual): Told| {
            let account = Account { rank, stable_rank, noise_share, orthogonality, residual };
            Ok(Spectrum { of: known(&of)?, part, account })
        };
        told.into_iter().map(spectrum).collect()
    }
}
