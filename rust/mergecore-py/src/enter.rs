//! The one door between Python and the engine: the GIL is released, Ctrl-C is heard, a panic or an error becomes a Python exception.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

use mergecore::error::{Error, Kind, Result};
use mergecore::run::Watch;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;

/// How often signals are looked for and progress is told.
const BEAT: Duration = Duration::from_millis(100);

/// Runs `work` on a thread of its own without the GIL, while the calling thread listens. A signal handler or a progress callback that
/// raises stops the work; its exception is what the caller sees.
pub fn enter<T: Send>(py: Python, watch: &Watch, progress: Option<Py<PyAny>>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let tell = || -> PyResult<()> {
        py.check_signals()?;
        if let Some(progress) = &progress {
            progress.call1(py, (watch.done.load(Ordering::Relaxed), watch.total.load(Ordering::Relaxed)))?;
        }
        Ok(())
    };
    let mut raised = None;
    let result = std::thread::scope(|scope| {
        let (sender, mut receiver) = channel();
        scope.spawn(move || {
            // The receiver waits until the work is done, so sending cannot fail.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
        });
        loop {
            let (back, result) = py.detach(move || {
                let result = receiver.recv_timeout(BEAT);
                (receiver, result)
            });
            receiver = back;
            match result {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Ok(Err(Error::run("the engine's thread ended without a result"))),
                Err(RecvTimeoutError::Timeout) if raised.is_none() => {
                    if let Err(e) = tell() {
                        watch.cancelled.store(true, Ordering::Relaxed);
                        raised = Some(e);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    });
    if let Some(e) = raised {
        // Whoever pressed Ctrl-C a moment too late must know that the output is there.
        let late = matches!(result, Ok(Ok(_))) && e.is_instance_of::<PyKeyboardInterrupt>(py);
        return Err(if late { PyKeyboardInterrupt::new_err("the work was finished already") } else { e });
    }
    match result {
        Ok(Ok(value)) => {
            // The last word of progress; a Ctrl-C that comes only now is heard by Python itself.
            if let Some(progress) = &progress {
                progress.call1(py, (watch.done.load(Ordering::Relaxed), watch.total.load(Ordering::Relaxed)))?;
            }
            Ok(value)
        }
        Ok(Err(e)) => Err(raise(py, e)),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
            Err(PyRuntimeError::new_err(format!("mergecore has a bug: {}", words.unwrap_or_default())))
        }
    }
}

/// The Python exception for an engine's error: a class of `mergecore.errors`, with the message as its only argument.
pub fn raise(py: Python, e: Error) -> PyErr {
    let class = match e.kind {
        Kind::Recipe => "RecipeError",
        Kind::Model => "ModelError",
        Kind::NotFound => "ModelNotFoundError",
        Kind::Exists => "OutputExistsError",
        Kind::Space => "SpaceError",
        Kind::Run => "RunError",
        Kind::Interrupted => return PyKeyboardInterrupt::new_err(()),
    };
    let make = || -> PyResult<PyErr> { Ok(PyErr::from_value(py.import("mergecore.errors")?.getattr(class)?.call1((e.message,))?)) };
    make().unwrap_or_else(|broken| broken)
}

/// The engine's error for what Python raised.
pub fn error_of(py: Python, e: &PyErr) -> Error {
    if e.is_instance_of::<PyKeyboardInterrupt>(py) {
        return Error::interrupted();
    }
    let ours = || -> PyResult<bool> { Ok(e.matches(py, py.import("mergecore.errors")?.getattr("MergecoreError")?)?) };
    let words = e.value(py).to_string();
    match ours() {
        Ok(true) => Error::run(words),
        _ => Error::run(format!("the device failed: {}: {words}", e.get_type(py).name().map_or("error".into(), |name| name.to_string()))),
    }
}
