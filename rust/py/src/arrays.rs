//! Borrowed numpy arrays as slices.

use numpy::ndarray::Dimension;
use numpy::{Element, PyReadonlyArray, PyUntypedArrayMethods};
use pyo3::PyResult;
use pyo3::exceptions::PyTypeError;

/// The elements of a C-contiguous array, without a copy.
pub fn slice<'a, T: Element, D: Dimension>(
    name: &str,
    array: &'a PyReadonlyArray<'_, T, D>,
) -> PyResult<&'a [T]> {
    array.as_slice().map_err(|_| {
        PyTypeError::new_err(format!("{name} of shape {:?} must be C-contiguous", array.shape()))
    })
}
