//! The one place that releases the GIL.

use crate::errors::to_python;
use pie_fast_core::Result;
use pyo3::prelude::*;

/// Run `work` without the GIL and turn its error into a Python exception.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(to_python)
}
