//! Is a matrix what it says: finite, in range, symmetric?
//!
//! Looking at all of a matrix costs more than a selection, which reads k of its rows; hence it is
//! a call of its own, made once per matrix.

use super::not_finite;
use super::sparse::Csr;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::mix::{GOLDEN, mix};
use crate::real::{Index, Real};
use crate::workers::Workers;

/// Rows that one task looks at.
const ROWS: usize = 64;
/// Below this many numbers one thread does it.
const FEW: usize = 1 << 20;

/// Every pair of a dense matrix, in tiles, so that both triangles are read in whole cache lines.
pub fn dense<W: Real>(w: &[W], n: usize, threads: Option<usize>, cancel: &Cancel) -> Result<()> {
    let workers = Workers::new(threads, w.len() < FEW)?;
    workers.map(n.div_ceil(ROWS), |task| {
        cancel.check()?;
        let rows = task * ROWS..((task + 1) * ROWS).min(n);
        for start in (0..rows.end).step_by(ROWS) {
            let columns = start..(start + ROWS).min(rows.end);
            if !tile(w, n, rows.clone(), columns.clone()) {
                return Err(first_wrong(w, n, rows, columns));
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn tile<W: Real>(
    w: &[W],
    n: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) -> bool {
    rows.fold(true, |good, i| {
        let row = &w[i * n..][columns.clone()];
        row.iter().zip(columns.clone()).fold(good, |good, (&a, j)| {
            // A NaN is not equal to itself; an infinity is equal to its mirror.
            good & (a == w[j * n + i]) & a.finite()
        })
    })
}

fn first_wrong<W: Real>(
    w: &[W],
    n: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) -> Error {
    for i in rows {
        for j in columns.clone() {
            let (a, b) = (w[i * n + j], w[j * n + i]);
            for (i, j, x) in [(i, j, a), (j, i, b)] {
                if !x.finite() {
                    return not_finite(format_args!("synergy[{i}, {j}]"), x);
                }
            }
            if a != b {
                return asymmetric(i, j, a, b);
            }
        }
    }
    Error::argument("synergy is not symmetric")
}

fn asymmetric(i: usize, j: usize, a: impl Real, b: impl Real) -> Error {
    Error::argument(format!("synergy is not symmetric: [{i}, {j}] is {a} but [{j}, {i}] is {b}"))
}

/// Every entry of a sparse matrix, in one pass over it and without a transpose.
///
/// Symmetry is shown by a sum over all entries: a 64-bit hash of (smaller id, larger id, value) is
/// added for an entry above the diagonal and subtracted for one below. Mirrored entries cancel; a
/// matrix that is not symmetric has a sum of 0 with probability 2^-64. Rows need no order, and a
/// stored zero counts as absent. Only when the sum is not 0 the pair is searched for, slowly.
pub fn sparse<I: Index, W: Real>(
    matrix: &Csr<'_, I, W>,
    threads: Option<usize>,
    cancel: &Cancel,
) -> Result<()> {
    let n = matrix.len();
    let workers = Workers::new(threads, matrix.indices.len() < FEW)?;
    let n_tasks = n.div_ceil(FEW / ROWS);
    let sums = workers.map(n_tasks, |task| {
        let rows = task * (FEW / ROWS)..((task + 1) * (FEW / ROWS)).min(n);
        let mut sum = 0_u64;
        let mut sorted = Vec::new();
        for id in rows {
            cancel.check()?;
            sum = sum.wrapping_add(sparse_row(matrix, id, &mut sorted)?);
        }
        Ok(sum)
    })?;
    if sums.iter().fold(0_u64, |all, &sum| all.wrapping_add(sum)) == 0 {
        return Ok(());
    }
    Err(unmatched(matrix, cancel)?)
}

/// The signed hash sum of one row, after a look at each of its entries.
fn sparse_row<I: Index, W: Real>(
    matrix: &Csr<'_, I, W>,
    row: usize,
    sorted: &mut Vec<I>,
) -> Result<u64> {
    let (columns, values) = matrix.row(row)?;
    let mut sum = 0_u64;
    for (&column, &value) in columns.iter().zip(values) {
        let f = matrix.column(row, column)?;
        if !value.finite() {
            return Err(not_finite(format_args!("synergy[{row}, {f}]"), value));
        }
        let hash = if value.is_zero() { 0 } else { pair_hash(row.min(f), row.max(f), value) };
        sum = match row.cmp(&f) {
            std::cmp::Ordering::Less => sum.wrapping_add(hash),
            std::cmp::Ordering::Equal => sum,
            std::cmp::Ordering::Greater => sum.wrapping_sub(hash),
        };
    }
    if !columns.is_sorted_by(|a, b| a < b) {
        sorted.clear();
        sorted.extend_from_slice(columns);
        sorted.sort_unstable();
        if let Some(two) = sorted.windows(2).find(|two| two[0] == two[1]) {
            let column = two[0];
            return Err(Error::argument(format!("row {row} of synergy has column {column} twice")));
        }
    }
    Ok(sum)
}

fn pair_hash(low: usize, high: usize, value: impl Real) -> u64 {
    // Ids are below 2^32. Mixed once over the pair and once over all.
    let pair = (low as u64) << 32 | high as u64;
    mix(mix(pair.wrapping_add(GOLDEN)) ^ value.to_f64().to_bits())
}

/// The first entry whose mirror is missing or different.
fn unmatched<I: Index, W: Real>(matrix: &Csr<'_, I, W>, cancel: &Cancel) -> Result<Error> {
    for i in 0..matrix.len() {
        cancel.check()?;
        let (columns, values) = matrix.row(i)?;
        for (&column, &a) in columns.iter().zip(values).filter(|(_, a)| !a.is_zero()) {
            let j = column.position();
            let (back, mirrored) = matrix.row(j)?;
            match back.iter().position(|c| c.position() == i) {
                Some(at) if mirrored[at] == a => {}
                Some(at) => return Ok(asymmetric(i, j, a, mirrored[at])),
                None => {
                    return Ok(Error::argument(format!(
                        "synergy is not symmetric: [{i}, {j}] is {a} but [{j}, {i}] is not stored"
                    )));
                }
            }
        }
    }
    Ok(Error::argument("synergy is not symmetric"))
}
