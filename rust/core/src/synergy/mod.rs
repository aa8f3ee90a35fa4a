//! Synergy matrices: packed, thinned out, split into clusters, read from a file.
//!
//! The synergy of a pair is `I({f, g}) - I(f) - I(g)`, signed or clipped at 0. A matrix of M
//! candidates is symmetric with an unused diagonal, so while it is filled it is kept *packed*: the
//! upper triangle row by row, `(0, 1), (0, 2) .. (0, M-1), (1, 2) ..`, M (M - 1) / 2 numbers.

mod clusters;
mod file;
mod top;

pub use clusters::{clusters, clusters_sparse};
pub use file::{Loaded, Values, load};
pub use top::{Importances, top_per_row};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::file::zeros;

/// A sparse matrix that owns its arrays; columns ascend within a row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CsrArrays {
    /// `[M + 1]`.
    pub indptr: Vec<i64>,
    /// `[nnz]`.
    pub indices: Vec<i32>,
    /// `[nnz]`.
    pub values: Vec<f32>,
}

/// How many pairs `n` candidates have.
#[must_use]
pub const fn n_pairs(n: usize) -> usize {
    // One of n and n - 1 is even; dividing it first never overflows where the result does not.
    if n.is_multiple_of(2) { n / 2 * n.saturating_sub(1) } else { (n - 1) / 2 * n }
}

/// Where row `i` begins in a packed matrix: the place of `(i, i + 1)`.
#[must_use]
pub const fn row_start(n: usize, i: usize) -> usize {
    i * (2 * n - i - 1) / 2
}

fn check_packed<T>(name: &str, packed: &[T], n: usize) -> Result<()> {
    if packed.len() == n_pairs(n) {
        return Ok(());
    }
    let (got, want) = (packed.len(), n_pairs(n));
    Err(Error::argument(format!("{name} has length {got}, must be {want} for {n} candidates")))
}

/// A packed matrix as a full one, its diagonal 0.
///
/// # Shapes
/// `packed` `[n (n - 1) / 2]`, the result `[n, n]` row-major.
///
/// # Errors
/// `packed` has another length; there is no memory for the matrix; an interrupt.
pub fn unpack(packed: &[f32], n: usize, cancel: &Cancel) -> Result<Vec<f32>> {
    check_packed("packed", packed, n)?;
    let mut full = zeros(n.saturating_mul(n))?;
    // In tiles, so that the lower triangle is written in whole cache lines.
    const TILE: usize = 32;
    for rows in (0..n).step_by(TILE) {
        cancel.check()?;
        for columns in (rows..n).step_by(TILE) {
            for i in rows..(rows + TILE).min(n) {
                let from = columns.max(i + 1);
                let to = (columns + TILE).min(n);
                for j in from..to {
                    let value = packed[row_start(n, i) + j - i - 1];
                    full[i * n + j] = value;
                    full[j * n + i] = value;
                }
            }
        }
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_places() -> Result<()> {
        let go = Cancel::new();
        assert_eq!([0, 1, 2, 3, 4, 5].map(n_pairs), [0, 0, 1, 3, 6, 10]);
        assert_eq!(
            unpack(&[1.0, 2.0, 3.0], 3, &go)?,
            [0.0, 1.0, 2.0, 1.0, 0.0, 3.0, 2.0, 3.0, 0.0]
        );
        let n = 70;
        let packed: Vec<f32> = (0..n_pairs(n)).map(|p| p as f32).collect();
        let full = unpack(&packed, n, &go)?;
        let mut place = 0;
        for i in 0..n {
            assert_eq!(full[i * n + i], 0.0);
            for j in i + 1..n {
                assert_eq!((full[i * n + j], full[j * n + i]), (packed[place], packed[place]));
                place += 1;
            }
        }
        assert!(unpack(&packed, n + 1, &go).is_err());
        Ok(())
    }
}
