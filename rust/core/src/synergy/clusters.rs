//! Groups of candidates that strong pairs connect.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::real::Index;
use crate::select::sparse::Csr;

/// Label each candidate with the smallest id of its group: two are in one group when a chain of
/// pairs with a value of at least `threshold` leads from one to the other.
///
/// # Shapes
/// `values` `[n, n]` row-major and symmetric (the upper triangle is read), the result `[n]`.
///
/// # Errors
/// A threshold that is not above 0 (it would connect pairs that have no value); numbers that are
/// not `n * n`; an interrupt.
pub fn clusters(values: &[f32], n: usize, threshold: f64, cancel: &Cancel) -> Result<Vec<i64>> {
    if n.checked_mul(n) != Some(values.len()) {
        let got = values.len();
        return Err(Error::argument(format!("matrix holds {got} numbers, must be {n} x {n}")));
    }
    let mut groups = Groups::new(n, threshold)?;
    for (i, row) in values.chunks_exact(n.max(1)).enumerate() {
        cancel.check()?;
        for (j, &value) in row.iter().enumerate().skip(i + 1) {
            groups.see(i, j, value);
        }
    }
    Ok(groups.labels())
}

/// As [`clusters`], over a sparse matrix.
///
/// # Errors
/// A threshold that is not above 0; a broken row; an interrupt.
pub fn clusters_sparse<I: Index>(
    matrix: &Csr<'_, I, f32>,
    threshold: f64,
    cancel: &Cancel,
) -> Result<Vec<i64>> {
    let n = matrix.len();
    let mut groups = Groups::new(n, threshold)?;
    for i in 0..n {
        cancel.check()?;
        let (columns, values) = matrix.row(i)?;
        for (&column, &value) in columns.iter().zip(values) {
            groups.see(i, matrix.column(i, column)?, value);
        }
    }
    Ok(groups.labels())
}

/// Disjoint sets; a root is the smallest of its set.
struct Groups {
    parent: Vec<usize>,
    threshold: f64,
}

impl Groups {
    fn new(n: usize, threshold: f64) -> Result<Self> {
        if threshold.is_finite() && threshold > 0.0 {
            return Ok(Self { parent: (0..n).collect(), threshold });
        }
        Err(Error::argument(format!("threshold is {threshold}, must be above 0 and finite")))
    }

    fn see(&mut self, i: usize, j: usize, value: f32) {
        if f64::from(value) >= self.threshold {
            let (i, j) = (self.root(i), self.root(j));
            self.parent[i.max(j)] = i.min(j);
        }
    }

    fn root(&mut self, mut i: usize) -> usize {
        while self.parent[i] != i {
            self.parent[i] = self.parent[self.parent[i]];
            i = self.parent[i];
        }
        i
    }

    fn labels(mut self) -> Vec<i64> {
        (0..self.parent.len()).map(|i| self.root(i) as i64).collect()
    }
}
