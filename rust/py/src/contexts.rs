//! The collector of contexts.

use crate::arrays::slice;
use crate::enter::{detached, interruptible};
use crate::errors::to_python;
use crate::matrix::LONG;
use numpy::ndarray::Dimension;
use numpy::{
    Element, Ix1, Ix2, PyArray, PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyUntypedArrayMethods,
};
use pie_fast_core::contexts::{Batch, Collector, Limits, N_BINS, State};
use pie_fast_core::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Contexts of a few features, collected while a corpus streams by, in bounded memory.
#[pyclass(frozen, module = "pie_fast._native")]
pub struct ContextCollector {
    core: Mutex<Collector>,
}

#[pymethods]
impl ContextCollector {
    #[new]
    #[pyo3(signature = (n_features, *, n_top=20, n_sample=200, n_silent=200))]
    fn new(n_features: i64, n_top: i64, n_sample: i64, n_silent: i64) -> PyResult<Self> {
        let limits = || {
            let n_top = size("n_top", n_top)?;
            let n_sample = size("n_sample", n_sample)?;
            let limits = Limits { n_top, n_sample, n_silent: size("n_silent", n_silent)? };
            Collector::new(size("n_features", n_features)?, limits)
        };
        limits().map(Self::of).map_err(to_python)
    }

    /// Collect from a batch of sequences; after an error nothing has changed.
    #[pyo3(signature = (first, ptr, values, counted, *, threads=None))]
    fn add(
        &self,
        py: Python<'_>,
        first: i64,
        ptr: PyReadonlyArray1<'_, i64>,
        values: PyReadonlyArray2<'_, f32>,
        counted: PyReadonlyArray1<'_, bool>,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let [rows, columns] = [values.shape()[0], values.shape()[1]];
        let (ptr, values) = (slice("ptr", &ptr)?, slice("values", &values)?);
        let counted = slice("counted", &counted)?;
        interruptible(py, values.len() > LONG, |cancel| {
            if counted.len() != rows {
                let n = counted.len();
                let message = format!("counted has length {n}, must be the {rows} rows of values");
                return Err(Error::argument(message));
            }
            let batch = Batch::new(first, ptr, values, columns, counted)?;
            self.lock().add(&batch, threads, cancel)
        })
    }

    /// Take over what another collector has of other sequences.
    fn merge(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        detached(py, || {
            // A copy, so that two that are merged into each other at once do not wait forever.
            let other = other.lock().clone();
            self.lock().merge(&other)
        })
    }

    /// Everything, as plain arrays; equal collections have equal bytes.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = detached(py, || Ok(self.lock().state()))?;
        let (k, n_ranges) = (state.fires.len(), state.seen.len() / 2);
        let arrays = PyDict::new(py);
        let vector = |name, values| arrays.set_item(name, PyArray1::from_vec(py, values));
        let matrix = |name, values, shape: [usize; 2]| {
            arrays.set_item(name, PyArray1::from_vec(py, values).reshape(shape)?)
        };
        vector("limits", state.limits)?;
        vector("counts", state.counts)?;
        matrix("seen", state.seen, [n_ranges, 2])?;
        vector("fires", state.fires)?;
        matrix("coactive", state.coactive, [k, k])?;
        matrix("histogram", state.histogram, [k, N_BINS])?;
        vector("peak_ptr", state.peak_ptr)?;
        vector("peak_sequence", state.peak_sequence)?;
        vector("peak_position", state.peak_position)?;
        arrays.set_item("peak_value", PyArray1::from_vec(py, state.peak_value))?;
        vector("kept_ptr", state.kept_ptr)?;
        vector("kept_sequence", state.kept_sequence)?;
        arrays.set_item("kept_kind", PyArray1::from_vec(py, state.kept_kind))?;
        vector("kept_values_ptr", state.kept_values_ptr)?;
        arrays.set_item("kept_values", PyArray1::from_vec(py, state.kept_values))?;
        Ok(arrays)
    }

    /// The collector that a state was taken from.
    #[staticmethod]
    fn from_state(py: Python<'_>, arrays: &Bound<'_, PyDict>) -> PyResult<Self> {
        let fires = vector(arrays, "fires")?;
        let state = State {
            limits: vector(arrays, "limits")?,
            counts: vector(arrays, "counts")?,
            seen: matrix(arrays, "seen", 2)?,
            coactive: matrix(arrays, "coactive", fires.len())?,
            histogram: matrix(arrays, "histogram", N_BINS)?,
            peak_ptr: vector(arrays, "peak_ptr")?,
            peak_sequence: vector(arrays, "peak_sequence")?,
            peak_position: vector(arrays, "peak_position")?,
            peak_value: vector(arrays, "peak_value")?,
            kept_ptr: vector(arrays, "kept_ptr")?,
            kept_sequence: vector(arrays, "kept_sequence")?,
            kept_kind: vector(arrays, "kept_kind")?,
            kept_values_ptr: vector(arrays, "kept_values_ptr")?,
            kept_values: vector(arrays, "kept_values")?,
            fires,
        };
        detached(py, || Collector::from_state(&state)).map(Self::of)
    }
}

impl ContextCollector {
    fn of(core: Collector) -> Self {
        Self { core: Mutex::new(core) }
    }

    /// To be called without the GIL, which a thread that waits for it may hold.
    fn lock(&self) -> MutexGuard<'_, Collector> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(name: &str, n: i64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::argument(format!("{name} is {n}, must be at least 0")))
}

/// A copy of one array of a state, in row-major order.
fn vector<T: Element + Clone>(arrays: &Bound<'_, PyDict>, name: &str) -> PyResult<Vec<T>> {
    let (values, _) = read::<T, Ix1>(arrays, name)?;
    Ok(values)
}

/// [`vector`], for a matrix of so many columns.
fn matrix(arrays: &Bound<'_, PyDict>, name: &str, columns: usize) -> PyResult<Vec<i64>> {
    let (values, shape) = read::<i64, Ix2>(arrays, name)?;
    if shape[1] == columns {
        return Ok(values);
    }
    let message = format!("{name} has {} columns, must have {columns}", shape[1]);
    Err(to_python(Error::argument(message)))
}

fn read<T: Element + Clone, D: Dimension>(
    arrays: &Bound<'_, PyDict>,
    name: &str,
) -> PyResult<(Vec<T>, Vec<usize>)> {
    let wrong = |message: String| to_python(Error::argument(message));
    let object = arrays.get_item(name)?.ok_or_else(|| wrong(format!("the state has no {name}")))?;
    let array = object.cast::<PyArray<T, D>>().map_err(|_| {
        let (n, dtype) = (D::NDIM.unwrap_or(0), T::get_dtype(arrays.py()));
        wrong(format!("{name} must be a {n}-dimensional {dtype} array"))
    })?;
    let array = array.readonly();
    let shape = array.shape().to_vec();
    // In one go where it lies in order: the GIL is held, as what is copied is Python's.
    let in_order = array.is_c_contiguous().then(|| array.as_slice().ok()).flatten();
    let copy = |all: &[T]| all.to_vec();
    Ok((in_order.map_or_else(|| array.as_array().iter().cloned().collect(), copy), shape))
}
