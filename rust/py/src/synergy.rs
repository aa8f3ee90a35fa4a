//! Synergy matrices: thinned out, unpacked, clustered, read from a file.

use crate::arrays::Either;
use crate::arrays::{Floats, slice};
use crate::enter::{abandonable, interruptible};
use crate::errors::to_python;
use crate::matrix::LONG;
use numpy::{
    Ix1, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyUntypedArrayMethods,
};
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::synergy::{self, CsrArrays, Importances, Values};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

type PyCsr<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<f32>>);

fn csr(py: Python<'_>, arrays: CsrArrays) -> PyCsr<'_> {
    (
        PyArray1::from_vec(py, arrays.indptr),
        PyArray1::from_vec(py, arrays.indices),
        PyArray1::from_vec(py, arrays.values),
    )
}

fn square(py: Python<'_>, values: Vec<f32>, n: usize) -> PyResult<Bound<'_, PyArray2<f32>>> {
    PyArray1::from_vec(py, values).reshape([n, n])
}

/// The arrays and the metadata of a checked `synergy.safetensors`.
#[pyfunction]
pub fn load_synergy(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let loaded = abandonable(py, move |cancel| synergy::load(&path, cancel))?;
    let m = loaded.pool.len();
    let out = PyDict::new(py);
    match loaded.values {
        Values::Dense(values) => out.set_item("values", square(py, values, m)?)?,
        Values::Sparse(arrays) => out.set_item("values", csr(py, arrays))?,
    }
    let redundancy = loaded.redundancy.map(|values| square(py, values, m)).transpose()?;
    out.set_item("pool", PyArray1::from_vec(py, loaded.pool))?;
    out.set_item("done", PyArray1::from_vec(py, loaded.done))?;
    out.set_item("redundancy", redundancy)?;
    out.set_item("known", loaded.known.map(|known| PyArray1::from_vec(py, known)))?;
    out.set_item("metadata", loaded.metadata)?;
    Ok(out)
}

/// A packed upper triangle as a full matrix.
#[pyfunction]
pub fn unpack_synergy<'py>(
    py: Python<'py>,
    packed: PyReadonlyArray1<'py, f32>,
    n: usize,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let values = slice("packed", &packed)?;
    let full = interruptible(py, values.len() > LONG, |cancel| synergy::unpack(values, n, cancel))?;
    square(py, full, n)
}

/// The strongest pairs of every row as CSR.
#[pyfunction]
pub fn top_synergies<'py>(
    py: Python<'py>,
    joint: &Bound<'py, PyAny>,
    single: PyReadonlyArray1<'py, f64>,
    per_row: usize,
    clipped: bool,
    symmetric: bool,
    threads: Option<usize>,
) -> PyResult<PyCsr<'py>> {
    let single = slice("single", &single)?;
    let arrays = match Floats::<Ix1>::extract("joint", "float32 or float64", joint)? {
        Either::A(joint) => {
            let pairs = Importances { joint: slice("joint", &joint)?, single, clipped };
            interruptible(py, pairs.joint.len() > LONG, |cancel| {
                synergy::top_per_row(pairs, per_row, symmetric, threads, cancel)
            })?
        }
        Either::B(joint) => {
            let pairs = Importances { joint: slice("joint", &joint)?, single, clipped };
            interruptible(py, pairs.joint.len() > LONG, |cancel| {
                synergy::top_per_row(pairs, per_row, symmetric, threads, cancel)
            })?
        }
    };
    Ok(csr(py, arrays))
}

/// The smallest id of each candidate's group.
#[pyfunction]
pub fn synergy_clusters<'py>(
    py: Python<'py>,
    matrix: &Bound<'py, PyAny>,
    threshold: f64,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    type Rows<'py> =
        (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i32>, PyReadonlyArray1<'py, f32>);
    let labels = if let Ok(full) = matrix.extract::<PyReadonlyArray2<'py, f32>>() {
        let n = full.shape()[0];
        let values = slice("matrix", &full)?;
        interruptible(py, values.len() > LONG, |cancel| {
            synergy::clusters(values, n, threshold, cancel)
        })?
    } else {
        let (indptr, indices, values): Rows<'py> = matrix.extract().map_err(|_| {
            PyTypeError::new_err("matrix must be a float32 matrix or (int64, int32, float32) CSR")
        })?;
        let (indptr, indices) = (slice("indptr", &indptr)?, slice("indices", &indices)?);
        let rows = Csr::new(indptr, indices, slice("values", &values)?).map_err(to_python)?;
        let long = indices.len() > LONG / 4;
        interruptible(py, long, |cancel| synergy::clusters_sparse(&rows, threshold, cancel))?
    };
    Ok(PyArray1::from_vec(py, labels))
}
