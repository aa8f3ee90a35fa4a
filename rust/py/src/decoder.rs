//! Decoder rows.

use crate::arrays::slice;
use crate::enter::detached;
use numpy::{IxDyn, PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArray1};
use pie_fast_core::decoder::Decoder;
use pyo3::prelude::*;
use std::path::PathBuf;

/// `[len(ids), *row_shape]` float32: rows of a tensor of a safetensors file.
#[pyfunction]
#[pyo3(signature = (path, tensor, ids, *, threads=None))]
pub fn decoder_rows<'py>(
    py: Python<'py>,
    path: PathBuf,
    tensor: &str,
    ids: PyReadonlyArray1<'py, i64>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let ids = slice("ids", &ids)?;
    let rows = detached(py, || Decoder::open(path, tensor)?.rows(ids, threads))?;
    let mut shape = vec![ids.len()];
    shape.extend(&rows.row_shape);
    PyArray1::from_vec(py, rows.values).reshape(IxDyn(&shape))
}
