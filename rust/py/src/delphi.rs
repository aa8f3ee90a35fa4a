//! Delphi latent caches.

use crate::arrays::Columns;
use crate::enter::{abandonable, interruptible};
use numpy::PyArray1;
use pie_fast_core::delphi::{Cache, SplitFile, integer_matrix};
use pyo3::prelude::*;
use std::path::PathBuf;

/// An opened cache: (path, layer, start, last) per file.
#[pyclass(frozen, module = "pie_fast._native")]
pub struct DelphiCache {
    core: Cache,
}

#[pymethods]
impl DelphiCache {
    #[new]
    fn new(py: Python<'_>, files: Vec<(PathBuf, u64, u64, Option<u64>)>) -> PyResult<Self> {
        let split = |(path, layer, start, last)| SplitFile { path, layer, start, last };
        let files = files.into_iter().map(split).collect();
        Ok(Self { core: abandonable(py, |_| Cache::open(files))? })
    }

    #[getter]
    fn n_sequences(&self) -> u64 {
        self.core.n_sequences()
    }

    #[getter]
    fn n_entries(&self) -> u64 {
        self.core.n_entries()
    }

    /// Latents per layer.
    fn width(&self, py: Python<'_>) -> PyResult<u64> {
        interruptible(py, true, |cancel| self.core.width(cancel))
    }

    /// `(prompt_ptr, feature, position, activation, None)` of a range of sequences.
    fn entries<'py>(
        &self,
        py: Python<'py>,
        first: u64,
        n: u64,
        n_features: u64,
    ) -> PyResult<Columns<'py>> {
        let all =
            interruptible(py, true, |cancel| self.core.entries(first, n, n_features, cancel))?;
        Ok((
            PyArray1::from_vec(py, all.prompt_ptr),
            PyArray1::from_vec(py, all.feature),
            PyArray1::from_vec(py, all.position),
            PyArray1::from_vec(py, all.activation),
            None,
        ))
    }
}

/// `tokens` `[n_sequences, n]` flattened, with `n`; None if the file has none.
#[pyfunction]
pub fn delphi_tokens(
    py: Python<'_>,
    path: PathBuf,
) -> PyResult<Option<(Bound<'_, PyArray1<i64>>, usize)>> {
    let tokens = abandonable(py, |cancel| integer_matrix(path, "tokens", cancel))?;
    Ok(tokens.map(|(values, columns)| (PyArray1::from_vec(py, values), columns)))
}
