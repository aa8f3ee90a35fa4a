//! Core errors as Python exceptions. The classes live in `pie_fast.errors`, so they pickle.

use pie_fast_core::Error;
use pyo3::PyErr;
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError};

mod python {
    #![allow(missing_docs)]
    pyo3::import_exception!(pie_fast.errors, PieFastError);
    pyo3::import_exception!(pie_fast.errors, BudgetError);
    pyo3::import_exception!(pie_fast.errors, DumpError);
}

/// `Argument` -> `PieFastError`, `Budget` -> `BudgetError`, `Format` -> `DumpError`, `Io` -> the `OSError` subclass of its errno.
pub fn to_python(error: Error) -> PyErr {
    match error {
        Error::Format { .. } => python::DumpError::new_err(error.to_string()),
        Error::Io { ref path, ref source } => match source.raw_os_error() {
            // OSError(errno, strerror, filename) chooses FileNotFoundError and its siblings itself.
            Some(code) => {
                PyOSError::new_err((code, source.to_string(), path.display().to_string()))
            }
            None => PyOSError::new_err(error.to_string()),
        },
        Error::Budget(message) => python::BudgetError::new_err(message),
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        other => python::PieFastError::new_err(other.to_string()),
    }
}
