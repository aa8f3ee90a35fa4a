//! Borrowed numpy arrays as slices.

use numpy::ndarray::Dimension;
use numpy::{Element, PyArray, PyArray1, PyArrayMethods, PyReadonlyArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// The elements of a C-contiguous array, without a copy.
pub fn slice<'a, T: Element, D: Dimension>(
    name: &str,
    array: &'a PyReadonlyArray<'_, T, D>,
) -> PyResult<&'a [T]> {
    let wrong = || {
        PyTypeError::new_err(format!("{name} of shape {:?} must be C-contiguous", array.shape()))
    };
    // `as_slice` takes the other order too, in which rows are columns.
    if !array.is_c_contiguous() {
        return Err(wrong());
    }
    array.as_slice().map_err(|_| wrong())
}

/// An array of one of two element types.
pub enum Either<'py, A: Element, B: Element, D: Dimension> {
    /// Of the first type.
    A(PyReadonlyArray<'py, A, D>),
    /// Of the second.
    B(PyReadonlyArray<'py, B, D>),
}

impl<'py, A: Element, B: Element, D: Dimension> Either<'py, A, B, D> {
    /// # Errors
    /// Another type or number of dimensions, naming the `valid` ones.
    pub fn extract(name: &str, valid: &str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        // A cast looks at the type and makes no exception, unlike an extraction.
        if let Ok(array) = object.cast::<PyArray<A, D>>() {
            return Ok(Self::A(array.readonly()));
        }
        match object.cast::<PyArray<B, D>>() {
            Ok(array) => Ok(Self::B(array.readonly())),
            Err(_) => {
                let n = D::NDIM.unwrap_or(0);
                let message = format!("{name} must be a {n}-dimensional {valid} array");
                Err(PyTypeError::new_err(message))
            }
        }
    }

    /// Its lengths.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::A(array) => array.shape(),
            Self::B(array) => array.shape(),
        }
    }

    /// The number of its elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }
}

/// float32 or float64.
pub type Floats<'py, D> = Either<'py, f32, f64, D>;

/// A one-dimensional array.
pub type Array<'py, T> = Bound<'py, PyArray1<T>>;

/// Two id columns, positions or features beside them, activations, attributions.
pub type Columns<'py> =
    (Array<'py, i64>, Array<'py, u32>, Array<'py, u32>, Array<'py, f32>, Option<Array<'py, f32>>);
