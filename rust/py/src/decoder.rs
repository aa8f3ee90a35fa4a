//! Decoder rows, and how alike they are.

use crate::arrays::slice;
use crate::enter::{abandonable, detached, interruptible, watched};
use crate::errors::to_python;
use numpy::{PyArray1, PyArray2, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, get_array_module};
use pie_fast_core::Error;
use pie_fast_core::decoder::Decoder;
use pie_fast_core::dump::FloatType;
use pie_fast_core::redundancy::redundancy as cosines;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::path::PathBuf;

/// Numbers above which a slow disk may take a tenth of a second.
const LONG_READ: usize = 1 << 22;

/// `[len(ids), *row_shape]` float32: rows of a tensor of a safetensors file.
#[pyfunction]
#[pyo3(signature = (path, tensor, ids, *, row_axes=None, threads=None))]
pub fn decoder_rows<'py>(
    py: Python<'py>,
    path: PathBuf,
    tensor: &str,
    ids: PyReadonlyArray1<'py, i64>,
    row_axes: Option<usize>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let name = tensor.to_owned();
    let decoder = abandonable(py, move |_| Decoder::open_rows(path, &name, row_axes))?;
    gather(py, &decoder, slice("ids", &ids)?, threads)
}

/// The same of numbers that lie at `offset` of any file; `dtype` is BF16, F16 or F32.
#[pyfunction]
#[pyo3(signature = (path, name, dtype, shape, offset, ids, *, threads=None))]
#[expect(clippy::too_many_arguments, reason = "where the numbers lie, and which are wanted")]
pub fn rows_at<'py>(
    py: Python<'py>,
    path: PathBuf,
    name: &str,
    dtype: &str,
    shape: Vec<usize>,
    offset: u64,
    ids: PyReadonlyArray1<'py, i64>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let kind = FloatType::parse(dtype).ok_or_else(|| {
        to_python(Error::argument(format!("dtype is {dtype}, must be BF16, F16 or F32")))
    })?;
    let decoder = detached(py, || Decoder::raw(path, name, kind, &shape, offset))?;
    gather(py, &decoder, slice("ids", &ids)?, threads)
}

fn gather<'py>(
    py: Python<'py>,
    decoder: &Decoder,
    ids: &[i64],
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let mut shape = vec![ids.len()];
    shape.extend(decoder.row_shape());
    // numpy's own array: a MemoryError where there is no memory, huge pages where there are. Every
    // number in it is written, or nobody gets to see it.
    let empty =
        get_array_module(py)?.call_method1("empty", (PyTuple::new(py, shape)?, "float32"))?;
    let rows = empty.cast_into::<PyArrayDyn<f32>>()?;
    let mut out = rows.try_readwrite()?;
    let values = out.as_slice_mut()?;
    let long = values.len() > LONG_READ;
    interruptible(py, long, |cancel| decoder.rows(ids, threads, values, cancel))?;
    drop(out);
    Ok(rows)
}

/// `[M, M]` float32 cosines of write vectors; `decoders` are (layer, file, tensor).
#[pyfunction]
#[pyo3(signature = (decoders, n_layers, layers, rows, *, weights=None, threads=None, progress=None))]
#[expect(clippy::too_many_arguments, reason = "one keyword each in Python")]
pub fn redundancy<'py>(
    py: Python<'py>,
    decoders: Vec<(usize, PathBuf, String)>,
    n_layers: usize,
    layers: PyReadonlyArray1<'py, i64>,
    rows: PyReadonlyArray1<'py, i64>,
    weights: Option<Vec<f64>>,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (layers, rows) = (slice("layers", &layers)?, slice("rows", &rows)?);
    let wrong = |message: String| to_python(Error::argument(message));
    if layers.len() != rows.len() {
        return Err(wrong(format!("{} layers for {} rows", layers.len(), rows.len())));
    }
    let mut features = Vec::with_capacity(rows.len());
    for (&layer, &row) in layers.iter().zip(rows) {
        // What is not an index at all is reported as what no decoder has.
        let index = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
        features.push((index(layer), index(row)));
    }
    if let Some((layer, ..)) = decoders.iter().find(|(layer, ..)| *layer >= n_layers) {
        return Err(wrong(format!("layer {layer} is outside [0, {n_layers})")));
    }
    let opened = abandonable(py, move |_| {
        let mut opened: Vec<Option<Decoder>> = (0..n_layers).map(|_| None).collect();
        for (layer, path, tensor) in &decoders {
            opened[*layer] = Some(Decoder::open(path, tensor)?);
        }
        Ok(opened)
    })?;
    let matrix = watched(py, progress, |watch| {
        cosines(&opened, &features, weights.as_deref(), threads, watch)
    })?;
    PyArray1::from_vec(py, matrix).reshape([rows.len(), rows.len()])
}
