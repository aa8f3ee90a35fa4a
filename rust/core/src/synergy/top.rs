//! The strongest pairs of every row, without ever holding the full matrix.
//!
//! A task is a panel of rows. Its pairs lie in the packed triangle in two ways, both contiguous:
//! right of the diagonal a row is a run of columns, left of it a column is a run of the panel's
//! rows. Each row has a threshold from a sample of its pairs, low enough that more than t pass
//! (when fewer do, the row is done again without one), so that nearly all pairs are dismissed by
//! vector comparisons and a row's buffer stays short. Scattering all pairs into rows and sorting
//! those was five times slower in a prototype.

use super::{CsrArrays, check_packed, row_start};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::real::Real;
use crate::simd;
use crate::workers::Workers;

/// Rows of a panel, and columns looked at together.
const PANEL: usize = simd::MASK;
/// Pairs per row in the sample, taken in groups.
const SAMPLE: usize = 256;
const GROUP: usize = 8;

/// Joint importances of all pairs and the single ones: `synergy = (joint - single[i]) - single[j]`
/// with i < j, in f64, then rounded to f32.
#[derive(Debug, Clone, Copy)]
pub struct Importances<'a, J> {
    /// `[M (M - 1) / 2]`, packed.
    pub joint: &'a [J],
    /// `[M]`.
    pub single: &'a [f64],
    /// Whether negative synergies become 0.
    pub clipped: bool,
}

impl<J: Real> Importances<'_, J> {
    /// Of row `i` with the columns from `j` (> i) on.
    #[inline]
    fn run(&self, i: usize, j: usize, out: &mut [f32]) {
        let from = row_start(self.single.len(), i) + j - i - 1;
        let (joint, others) = (&self.joint[from..], &self.single[j..]);
        let lowest = if self.clipped { 0.0 } else { f32::NEG_INFINITY };
        simd::synergies(joint, self.single[i], others, lowest, out);
    }

    fn one(&self, i: usize, j: usize) -> f32 {
        let mut out = [0.0];
        self.run(i.min(j), i.max(j), &mut out);
        out[0]
    }
}

/// The `t` strongest pairs of every row by magnitude, ties to the smaller column; zeros never.
///
/// With `symmetric` a pair that is among the strongest of either of its rows is in both, as
/// selection needs it; rows may then have more than t.
///
/// # Shapes
/// As [`Importances`]; the result has M rows, columns ascending.
///
/// # Errors
/// Lengths that do not fit; a number that is not finite; zero threads; an interrupt.
pub fn top_per_row<J: Real>(
    pairs: Importances<'_, J>,
    t: usize,
    symmetric: bool,
    threads: Option<usize>,
    cancel: &Cancel,
) -> Result<CsrArrays> {
    let n = pairs.single.len();
    check_packed("joint", pairs.joint, n)?;
    if i32::try_from(n).is_err() {
        return Err(Error::argument(format!("{n} candidates, must be less than 2^31")));
    }
    if let Some(i) = pairs.single.iter().position(|x| !x.is_finite()) {
        let x = pairs.single[i];
        return Err(Error::argument(format!("single[{i}] is {x}, must be finite")));
    }
    // A row has n - 1 pairs, and what it keeps is set aside beforehand.
    let t = t.min(n.saturating_sub(1));
    let workers = Workers::new(threads, n < 512)?;
    let panels = workers.map(n.div_ceil(PANEL), |panel| {
        cancel.check()?;
        let rows = panel * PANEL..((panel + 1) * PANEL).min(n);
        Panel::new(pairs, rows, t).fill()
    })?;
    let rows: Vec<Vec<Pair>> = panels.into_iter().flatten().collect();
    Ok(if symmetric { gather(&mirrored(&rows, cancel)?) } else { gather(&rows) })
}

type Pair = (u32, f32);

struct Panel<'a, J> {
    pairs: Importances<'a, J>,
    first: usize,
    t: usize,
    /// `[rows]`: only larger magnitudes get in.
    threshold: [f32; PANEL],
    kept: Vec<Vec<Pair>>,
}

impl<'a, J: Real> Panel<'a, J> {
    fn new(pairs: Importances<'a, J>, rows: std::ops::Range<usize>, t: usize) -> Self {
        let kept = rows.clone().map(|_| Vec::with_capacity(4 * t + 64)).collect();
        Self { pairs, first: rows.start, t, threshold: [0.0; PANEL], kept }
    }

    fn fill(mut self) -> Result<Vec<Vec<Pair>>> {
        let (n, first, rows) = (self.pairs.single.len(), self.first, self.kept.len());
        if self.t == 0 {
            self.threshold = [f32::MAX; PANEL];
        } else if n >= 2 * SAMPLE && n >= 8 * self.t {
            self.sample();
        }
        let mut out = [0.0; PANEL];
        for j in 0..(first + rows).saturating_sub(1) {
            // Column j of the rows under the diagonal; zeros, for the others, are never kept.
            let start = (j + 1).saturating_sub(first);
            out[..start].fill(0.0);
            self.pairs.run(j, first + start, &mut out[start..rows]);
            let mut over = simd::over(&out, &self.threshold);
            while over != 0 {
                let row = over.trailing_zeros() as usize;
                self.offer(row, j, out[row]);
                over &= over - 1;
            }
        }
        for row in 0..rows {
            self.right(row, first + row + 1);
        }
        for row in 0..rows {
            self.settle(row)?;
        }
        Ok(self.kept)
    }

    /// The pairs of one row with the columns from `start` on.
    fn right(&mut self, row: usize, start: usize) {
        let n = self.pairs.single.len();
        let mut out = [0.0; PANEL];
        for j in (start..n).step_by(PANEL) {
            let width = PANEL.min(n - j);
            self.pairs.run(self.first + row, j, &mut out[..width]);
            // Zeros are never kept.
            out[width..].fill(0.0);
            let mut over = simd::over(&out, &[self.threshold[row]; PANEL]);
            while over != 0 {
                let at = over.trailing_zeros() as usize;
                self.offer(row, j + at, out[at]);
                over &= over - 1;
            }
        }
    }

    /// Thresholds such that about 2 t of each row should pass.
    fn sample(&mut self) {
        let (n, rows) = (self.pairs.single.len(), self.kept.len());
        let end = self.first + rows;
        let mut some = vec![[0.0_f32; SAMPLE]; rows];
        for at in (0..SAMPLE).step_by(GROUP) {
            // Left of the panel a group is columns apart, right of it neighbours: what is cheap.
            let from = at * n / SAMPLE;
            if from >= end && from + GROUP <= n {
                for (row, some) in some.iter_mut().enumerate() {
                    self.pairs.run(self.first + row, from, &mut some[at..at + GROUP]);
                }
                continue;
            }
            for at in at..at + GROUP {
                let j = at * n / SAMPLE;
                let mut out = [0.0; PANEL];
                if j < self.first {
                    self.pairs.run(j, self.first, &mut out[..rows]);
                } else {
                    // The diagonal counts as 0.
                    let others = (0..rows).filter(|row| self.first + row != j);
                    others.for_each(|row| out[row] = self.pairs.one(self.first + row, j));
                }
                some.iter_mut().zip(out).for_each(|(some, w)| some[at] = w);
            }
        }
        let rank = ((2 * self.t + 2 * n / SAMPLE) * SAMPLE / n).min(SAMPLE - 1);
        for (some, threshold) in some.iter_mut().zip(&mut self.threshold) {
            some.select_nth_unstable_by(rank, |a, b| b.abs().total_cmp(&a.abs()));
            // Strictly below, so that equal ones pass. NaN, found later, lets all pass.
            *threshold = some[rank].abs().next_down().max(0.0);
        }
    }

    #[inline]
    fn offer(&mut self, row: usize, j: usize, w: f32) {
        if w.abs() <= self.threshold[row] {
            return;
        }
        let kept = &mut self.kept[row];
        kept.push((j as u32, w));
        if kept.len() >= 4 * self.t + 64 {
            strongest(kept, self.t);
            // Columns come in ascending order, so a later one of equal magnitude ranks behind.
            self.threshold[row] =
                kept.get(self.t.saturating_sub(1)).map_or(0.0, |last| last.1.abs());
        }
    }

    /// Cut a row to its strongest t, in the order of columns.
    fn settle(&mut self, row: usize) -> Result<()> {
        let i = self.first + row;
        if self.kept[row].len() < self.t && self.threshold[row] > 0.0 {
            // The sample promised too much.
            self.threshold[row] = 0.0;
            self.kept[row].clear();
            for j in 0..i {
                self.offer(row, j, self.pairs.one(j, i));
            }
            self.right(row, i + 1);
        }
        let kept = &mut self.kept[row];
        if let Some((j, w)) = kept.iter().find(|(_, w)| !w.is_finite()) {
            return Err(Error::argument(format!("synergy of ({i}, {j}) is {w}, must be finite")));
        }
        kept.retain(|(_, w)| *w != 0.0);
        strongest(kept, self.t);
        kept.sort_unstable_by_key(|&(j, _)| j);
        Ok(())
    }
}

/// Cut to the t strongest, in no order.
fn strongest(kept: &mut Vec<Pair>, t: usize) {
    if kept.len() > t && t > 0 {
        kept.select_nth_unstable_by(t - 1, |a, b| {
            b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0))
        });
        kept.truncate(t);
    }
}

/// Each pair of either row in both.
fn mirrored(rows: &[Vec<Pair>], cancel: &Cancel) -> Result<Vec<Vec<Pair>>> {
    let mut all = rows.to_vec();
    for (i, row) in rows.iter().enumerate() {
        cancel.check()?;
        for &(j, w) in row {
            let other = &rows[j as usize];
            if other.binary_search_by_key(&(i as u32), |&(column, _)| column).is_err() {
                all[j as usize].push((i as u32, w));
            }
        }
    }
    for row in &mut all {
        cancel.check()?;
        row.sort_unstable_by_key(|&(j, _)| j);
    }
    Ok(all)
}

fn gather(rows: &[Vec<Pair>]) -> CsrArrays {
    let nnz = rows.iter().map(Vec::len).sum();
    let mut csr = CsrArrays {
        indptr: Vec::with_capacity(rows.len() + 1),
        indices: Vec::with_capacity(nnz),
        values: Vec::with_capacity(nnz),
    };
    csr.indptr.push(0);
    for row in rows {
        csr.indices.extend(row.iter().map(|&(j, _)| j as i32));
        csr.values.extend(row.iter().map(|&(_, w)| w));
        csr.indptr.push(csr.indices.len() as i64);
    }
    csr
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the columns in which a row has its strongest pairs: the first or the last ones.
    #[test]
    fn a_few_times_t_pass_the_sampled_threshold() {
        let (n, t) = (1000, 20);
        let single = vec![0.0; n];
        for value in [|i: usize, j: usize| i + j, |i: usize, j: usize| 3000 - i - j] {
            let upper = (0..n).flat_map(|i| (i + 1..n).map(move |j| value(i, j) as f32));
            let joint: Vec<f32> = upper.collect();
            let pairs = Importances { joint: &joint[..], single: &single, clipped: false };
            for first in (0..n).step_by(PANEL) {
                let mut panel = Panel::new(pairs, first..(first + PANEL).min(n), t);
                panel.sample();
                for (row, threshold) in (first..n).zip(panel.threshold) {
                    let others = (0..n).filter(|&j| j != row);
                    let n_over = others.filter(|&j| value(row, j) as f32 > threshold).count();
                    assert!((t..=4 * t).contains(&n_over), "{n_over} of row {row}");
                }
            }
        }
    }
}
