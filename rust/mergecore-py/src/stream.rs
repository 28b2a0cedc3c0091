//! A merge whose tensors Python takes one by one.

use mergecore::layout::Layout;
use mergecore::plan;
use mergecore::run::device::Device;
use mergecore::run::stream::{self, Source};
use mergecore::run::Limits;
use pyo3::prelude::*;

use crate::convert::Bytes;
use crate::device::PyDevice;
use crate::enter::enter;
use crate::Plan;

/// A merge on its way; one that is let go of before its end is stopped.
#[pyclass(frozen, weakref)]
pub struct Stream {
    plan: Py<Plan>,
    /// There until it is dropped.
    stream: Option<stream::Stream>,
}

impl Drop for Stream {
    /// The engine's thread is waited for, and may itself wait for Python: a device's formulas are worked out there.
    fn drop(&mut self) {
        let stream = self.stream.take();
        Python::attach(|py| py.detach(|| drop(stream)));
    }
}

impl Stream {
    fn stream(&self) -> &stream::Stream {
        self.stream.as_ref().expect("it is there until it is dropped")
    }
}

struct Held(Py<Plan>, Option<PyDevice>);

impl Source for Held {
    fn plan(&self) -> &plan::Plan<'static> {
        &self.0.get().plan
    }

    fn layout(&self) -> &Layout {
        &self.0.get().layout
    }

    fn limits(&self) -> Limits {
        self.0.get().limits
    }

    fn device(&self) -> Option<&dyn Device> {
        self.1.as_ref().map(|device| device as &dyn Device)
    }
}

#[pymethods]
impl Stream {
    #[new]
    #[pyo3(signature = (plan, ahead, device = None))]
    fn new(py: Python, plan: Py<Plan>, ahead: u64, device: Option<Py<PyAny>>) -> Stream {
        let stream = stream::Stream::begin(Held(plan.clone_ref(py), device.map(PyDevice)), ahead);
        Stream { plan, stream: Some(stream) }
    }

    /// The next tensor: its number among the plan's, and its bytes.
    fn next(&self, py: Python) -> PyResult<Option<(usize, Bytes)>> {
        let merged = enter(py, self.stream().watch(), None, || self.stream().next())?;
        Ok(merged.map(|merged| (merged.job, Bytes::new(merged.bytes))))
    }

    /// Stops the merge, and waits until it has.
    fn close(&self, py: Python) {
        py.detach(|| self.stream().close());
    }

    fn report(&self) -> Option<String> {
        self.stream().report()
    }

    fn digest(&self) -> Option<String> {
        self.stream().digest(&self.plan.get().plan)
    }
}
