//! A synergy matrix from Python, dense or CSR, and the way from its element types to generic code.

use crate::arrays::{Either, Floats, slice};
use crate::enter::interruptible;
use crate::errors::to_python;
use numpy::ndarray::Dimension;
use numpy::{Element, Ix1, Ix2, PyReadonlyArray, PyReadonlyArray1, PyUntypedArrayMethods};
use pie_fast_core::real::Index;
use pie_fast_core::select::Synergy;
use pie_fast_core::select::dense::Dense;
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::simd::Vector;
use pie_fast_core::{Cancel, Result};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Work (numbers looked at) above which Ctrl-C is looked for: about a tenth of a second.
pub const LONG: usize = 100_000_000;

/// A synergy matrix as it comes from Python.
pub enum Matrix<'py> {
    /// `[M, M]`.
    Dense(Floats<'py, Ix2>),
    /// indptr, indices, values.
    Sparse(PyReadonlyArray1<'py, i64>, Either<'py, i32, i64, Ix1>, Floats<'py, Ix1>),
}

impl<'py> FromPyObject<'_, 'py> for Matrix<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        type Three<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);
        if !object.is_instance_of::<PyTuple>() {
            return Floats::extract("synergy", "float32 or float64", &object).map(Self::Dense);
        }
        let (indptr, indices, values): Three<'py> = object.extract()?;
        let indptr = indptr
            .extract()
            .map_err(|_| PyTypeError::new_err("indptr must be an int64 array of dimension 1"))?;
        Ok(Self::Sparse(
            indptr,
            Either::extract("indices", "int32 or int64", &indices)?,
            Floats::extract("values", "float32 or float64", &values)?,
        ))
    }
}

impl Matrix<'_> {
    /// How many numbers it stores.
    pub fn len(&self) -> usize {
        match self {
            Self::Dense(w) => w.len(),
            Self::Sparse(indptr, indices, _) => indptr.len() + indices.len(),
        }
    }
}

/// What to do once the element types are known.
pub trait Visit: Send {
    /// The result.
    type Output: Send;
    fn visit<S: Vector, W: Synergy>(
        self,
        scores: &[S],
        synergy: &W,
        c: &Cancel,
    ) -> Result<Self::Output>;
}

/// Find the element types, release the GIL, visit.
///
/// `work` is how many numbers will be looked at.
pub fn over<V: Visit, D: Dimension>(
    py: Python<'_>,
    scores: &Either<'_, f64, f32, D>,
    matrix: &Matrix<'_>,
    work: usize,
    visit: V,
) -> PyResult<V::Output> {
    match scores {
        Either::A(scores) => with_scores(py, slice("scores", scores)?, matrix, work, visit),
        Either::B(scores) => with_scores(py, slice("scores", scores)?, matrix, work, visit),
    }
}

/// [`over`], for scores already borrowed.
pub fn with_scores<V: Visit, S: Vector>(
    py: Python<'_>,
    scores: &[S],
    matrix: &Matrix<'_>,
    work: usize,
    visit: V,
) -> PyResult<V::Output> {
    match matrix {
        Matrix::Dense(Either::A(w)) => with_dense(py, scores, w, work, visit),
        Matrix::Dense(Either::B(w)) => with_dense(py, scores, w, work, visit),
        Matrix::Sparse(p, Either::A(i), w) => {
            with_rows(py, scores, slice("indptr", p)?, slice("indices", i)?, w, work, visit)
        }
        Matrix::Sparse(p, Either::B(i), w) => {
            with_rows(py, scores, slice("indptr", p)?, slice("indices", i)?, w, work, visit)
        }
    }
}

fn with_dense<V: Visit, S: Vector, W: Vector + Element>(
    py: Python<'_>,
    scores: &[S],
    synergy: &PyReadonlyArray<'_, W, Ix2>,
    work: usize,
    visit: V,
) -> PyResult<V::Output> {
    let [rows, columns] = [synergy.shape()[0], synergy.shape()[1]];
    if rows != columns {
        let message = format!("synergy has shape [{rows}, {columns}], must be square");
        return Err(to_python(pie_fast_core::Error::argument(message)));
    }
    let matrix = Dense::new(slice("synergy", synergy)?, rows).map_err(to_python)?;
    interruptible(py, work > LONG, |cancel| visit.visit(scores, &matrix, cancel))
}

fn with_rows<V: Visit, S: Vector, I: Index>(
    py: Python<'_>,
    scores: &[S],
    indptr: &[i64],
    indices: &[I],
    values: &Floats<'_, Ix1>,
    work: usize,
    visit: V,
) -> PyResult<V::Output> {
    match values {
        Either::A(values) => {
            let matrix = Csr::new(indptr, indices, slice("values", values)?).map_err(to_python)?;
            interruptible(py, work > LONG, |cancel| visit.visit(scores, &matrix, cancel))
        }
        Either::B(values) => {
            let matrix = Csr::new(indptr, indices, slice("values", values)?).map_err(to_python)?;
            interruptible(py, work > LONG, |cancel| visit.visit(scores, &matrix, cancel))
        }
    }
}
