//! The one place that releases the GIL.

use crate::errors::to_python;
use pie_fast_core::{Error, Result, dump::Watch};
use pyo3::prelude::*;
use std::time::{Duration, Instant};

/// How often long work looks for Ctrl-C and tells its progress.
const POLL: Duration = Duration::from_millis(50);

/// Run `work` without the GIL and turn its error into a Python exception.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(to_python)
}

/// As [`detached`], for work that takes long: between its chunks, on the calling thread, it looks
/// for Ctrl-C and calls `progress(done, total)`. What either raises ends the work and is raised.
pub fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&mut Watch<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let outcome = py.detach(|| {
        let mut last = Instant::now();
        work(&mut |done, total| {
            if last.elapsed() < POLL && done < total {
                return Ok(());
            }
            last = Instant::now();
            let outcome = Python::attach(|py| -> PyResult<()> {
                py.check_signals()?;
                if let Some(progress) = &progress {
                    progress.call1(py, (done, total))?;
                }
                Ok(())
            });
            outcome.map_err(|error| {
                raised = Some(error);
                Error::Interrupted
            })
        })
    });
    match raised {
        Some(error) => Err(error),
        None => outcome.map_err(to_python),
    }
}
