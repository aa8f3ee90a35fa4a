//! Greedy over a sparse matrix: read only what moves.
//!
//! * A candidate that no selected one touches has its score for a value. These wait in a list, the
//!   best 2k by score, made by one threshold scan (not a sort) and grown eightfold when used up.
//! * A touched candidate has a bonus b. Until it is touched again its value is bounded: for b >= 0
//!   by its value now (the divisor only grows, and rounding is monotone), for b < 0 by its value at
//!   a later step, the *horizon*, which doubles; then the heap of bounds is built anew.
//! * A touched candidate whose bound over all later steps is under the last listed score cannot be
//!   chosen while the list lasts, so it stays out of the heap; few are left in it.
//!
//! The top of the heap is evaluated exactly and compared with the list by *the* order; an entry
//! that is older than the last touch of its candidate is dropped.

use super::table::{Slot, Table};
use super::{Bonus, Engine, Synergy, check, not_finite, same_length, too_large};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::feature::Scored;
use crate::real::{Index, Real};
use crate::simd::{self, Vector};
use crate::topk::{Filter, top_k};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A symmetric sparse matrix in rows.
///
/// # Shapes
/// `indptr` `[M + 1]`, `indices` and `values` `[nnz]`. The order within a row does not matter; a
/// column twice in a row is an error, found by [`Synergy::check`]. The diagonal is never used.
#[derive(Debug, Clone, Copy)]
pub struct Csr<'a, I, W> {
    pub(super) indptr: &'a [i64],
    pub(super) indices: &'a [I],
    pub(super) values: &'a [W],
}

impl<'a, I: Index, W: Real> Csr<'a, I, W> {
    /// # Errors
    /// An empty `indptr`, one that does not span `indices`, or `values` of another length; more
    /// than 2^32 - 1 candidates.
    pub fn new(indptr: &'a [i64], indices: &'a [I], values: &'a [W]) -> Result<Self> {
        let (nnz, n_values) = (indices.len(), values.len());
        if n_values != nnz {
            let message = format!("values has length {n_values}, must be {nnz} as indices");
            return Err(Error::argument(message));
        }
        match (indptr.first(), indptr.last()) {
            (Some(0), Some(&last)) if usize::try_from(last) == Ok(nnz) => {}
            (Some(&first), Some(&last)) => {
                let message =
                    format!("indptr goes from {first} to {last}, must go from 0 to {nnz}");
                return Err(Error::argument(message));
            }
            _ => return Err(Error::argument("indptr is empty, must have length M + 1")),
        }
        if u32::try_from(indptr.len()).is_err() {
            let n = indptr.len() - 1;
            return Err(Error::argument(format!("{n} candidates, must be less than 2^32 - 1")));
        }
        Ok(Self { indptr, indices, values })
    }

    /// The number of candidates M.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Whether there are no candidates.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A column number of a row as a position.
    ///
    /// # Errors
    /// It is not in `0..M`.
    pub fn column(&self, row: usize, column: I) -> Result<usize> {
        let (f, n) = (column.position(), self.len());
        if f < n {
            return Ok(f);
        }
        Err(Error::argument(format!("row {row} of synergy has column {column}, must be in 0..{n}")))
    }

    /// Columns and values of a row.
    ///
    /// # Errors
    /// Its `indptr` does not ascend within `indices`.
    pub fn row(&self, id: usize) -> Result<(&'a [I], &'a [W])> {
        let (from, to) = (self.indptr[id], self.indptr[id + 1]);
        let range = match (usize::try_from(from), usize::try_from(to)) {
            (Ok(from), Ok(to)) if from <= to && to <= self.indices.len() => from..to,
            _ => {
                let nnz = self.indices.len();
                return Err(Error::argument(format!(
                    "indptr[{id}] = {from} and indptr[{}] = {to}, must ascend within 0..={nnz}",
                    id + 1
                )));
            }
        };
        Ok((&self.indices[range.clone()], &self.values[range]))
    }
}

/// Entries of a row that are worked on together.
const AHEAD: usize = 64;

/// An upper bound on the value of a touched candidate; the largest bound is the greatest.
#[derive(Debug, Clone, Copy)]
struct Entry {
    bound: f64,
    id: u32,
    touches: u32,
}

impl Entry {
    /// In *the* order: is this bound ahead of that candidate?
    fn ahead_of(&self, (id, value): (usize, f64)) -> bool {
        match self.bound.total_cmp(&value) {
            Ordering::Greater => true,
            Ordering::Equal => (self.id as usize) < id,
            Ordering::Less => false,
        }
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_bound = self.bound.total_cmp(&other.bound);
        by_bound.then(other.id.cmp(&self.id)).then(self.touches.cmp(&other.touches))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// A running selection over a [`Csr`] matrix.
#[derive(Debug)]
pub struct SparseEngine<'a, S, I, W> {
    matrix: Csr<'a, I, W>,
    scores: &'a [S],
    rule: Bonus,
    /// The largest number selected before a step.
    last: usize,
    n_taken: usize,
    /// The best by score; all before `cursor` are in the table.
    list: Vec<Scored>,
    cursor: usize,
    table: Table,
    heap: BinaryHeap<Entry>,
    /// Up to which number selected the bounds of negative bonuses hold.
    horizon: usize,
    pending: Option<usize>,
}

impl<I: Index, W: Real> Synergy for Csr<'_, I, W> {
    type Engine<'a, S: Vector>
        = SparseEngine<'a, S, I, W>
    where
        Self: 'a;

    fn n(&self) -> usize {
        self.len()
    }

    fn check(&self, threads: Option<usize>, cancel: &Cancel) -> Result<()> {
        check::sparse(self, threads, cancel)
    }

    fn add_row(&self, id: usize, into: &mut [f64]) -> Result<()> {
        let (columns, values) = self.row(id)?;
        for (&column, w) in columns.iter().zip(values) {
            let f = self.column(id, column)?;
            if !w.finite() {
                return Err(not_finite(format_args!("synergy[{id}, {f}]"), w));
            }
            into[f] += w.to_f64();
        }
        Ok(())
    }

    fn clear_row(&self, id: usize, from: &mut [f64]) -> Result<()> {
        for &column in self.row(id)?.0 {
            from[self.column(id, column)?] = 0.0;
        }
        Ok(())
    }

    fn engine<'a, S: Vector>(
        &'a self,
        scores: &'a [S],
        k: usize,
        rule: Bonus,
    ) -> Result<SparseEngine<'a, S, I, W>> {
        same_length(scores, self.n())?;
        let mut engine = SparseEngine {
            matrix: *self,
            scores,
            rule,
            last: k.saturating_sub(1),
            n_taken: 0,
            list: Vec::new(),
            cursor: 0,
            table: Table::new(k.saturating_mul(self.indices.len() / self.len().max(1))),
            heap: BinaryHeap::new(),
            horizon: 1,
            pending: None,
        };
        engine.list_best((2 * k).max(16))?;
        Ok(engine)
    }
}

impl<S: Vector, I: Index, W: Real> SparseEngine<'_, S, I, W> {
    /// List the best `n` by score; all scores are checked on the way.
    fn list_best(&mut self, n: usize) -> Result<()> {
        let filter = Filter { mask: None, finite: true };
        self.list = top_k(self.scores, n.min(self.scores.len()), filter, Some(1), &Cancel::new())?;
        Ok(())
    }

    fn score(&self, id: usize) -> f64 {
        self.scores[id].to_f64() + 0.0
    }

    fn value_with(&self, score: f64, bonus: f64) -> f64 {
        score + bonus / self.rule.divisor(self.n_taken)
    }

    /// The entry for a touched candidate, if it can matter while the list lasts, that is if its
    /// bound over all later steps reaches `floor`.
    fn entry(&self, slot: &Slot, floor: f64) -> Option<Entry> {
        let score = self.score(slot.id as usize);
        let at = |n: usize| score + slot.bonus / self.rule.divisor(n);
        let (bound, ever) = if slot.bonus >= 0.0 {
            let now = at(self.n_taken);
            (now, now)
        } else {
            (at(self.horizon.min(self.last)), at(self.last))
        };
        (ever >= floor).then_some(Entry { bound, id: slot.id, touches: slot.touches })
    }

    /// The score that the list guarantees: whatever is listed and waits has at least this.
    fn floor(&self) -> f64 {
        if self.list.len() == self.scores.len() {
            return f64::NEG_INFINITY;
        }
        self.list.last().map_or(f64::NEG_INFINITY, |last| last.score)
    }

    /// Add the row of the last one taken.
    fn settle(&mut self) -> Result<()> {
        let Some(id) = self.pending.take() else { return Ok(()) };
        let (columns, values) = self.matrix.row(id)?;
        let floor = self.floor();
        for (columns, values) in columns.chunks(AHEAD).zip(values.chunks(AHEAD)) {
            // Each touch would wait for memory twice; asked for together, they wait together.
            for &column in columns {
                self.table.prefetch(column.position() as u32);
                simd::prefetch(self.scores, column.position());
            }
            for (&column, &w) in columns.iter().zip(values) {
                let f = self.matrix.column(id, column)?;
                if !w.finite() {
                    return Err(not_finite(format_args!("synergy[{id}, {f}]"), w));
                }
                if f != id && !w.is_zero() {
                    let slot = self.table.add(f as u32, w.to_f64());
                    if slot.is_open()
                        && let Some(entry) = self.entry(&slot, floor)
                    {
                        self.heap.push(entry);
                    }
                }
            }
        }
        if self.n_taken > self.horizon {
            self.horizon = 2 * self.n_taken;
            self.renew();
        }
        Ok(())
    }

    /// Bounds up to the new horizon. What is not in the heap was under the floor for all later
    /// steps, and the floor is where it was.
    fn renew(&mut self) {
        let floor = self.floor();
        let old = std::mem::take(&mut self.heap).into_vec();
        let current = |entry: &Entry| {
            self.table.get(entry.id).filter(|slot| slot.touches == entry.touches).copied()
        };
        let entries = old.iter().filter_map(current).filter_map(|slot| self.entry(&slot, floor));
        self.heap = entries.collect::<Vec<_>>().into();
    }

    /// The heap anew, under a floor that fell.
    fn rebuild(&mut self) {
        let floor = self.floor();
        let entries = self.table.open().filter_map(|slot| self.entry(slot, floor));
        self.heap = entries.collect::<Vec<_>>().into();
    }

    /// Ask for the rows of those that will probably be taken now and next.
    fn prefetch_rows(&self) {
        for one in self.list[self.cursor..].iter().take(2) {
            let start = usize::try_from(self.matrix.indptr[one.id as usize]).unwrap_or(usize::MAX);
            // Four cache lines of columns and of values; longer rows are read in sequence.
            for line in 0..4 {
                let step = line * 64;
                simd::prefetch(self.matrix.indices, start.saturating_add(step / size_of::<I>()));
                simd::prefetch(self.matrix.values, start.saturating_add(step / size_of::<W>()));
            }
        }
    }

    /// The first listed candidate that waits and is not `skip`; the list grows as needed.
    fn waiting(&mut self, skip: Option<usize>) -> Result<Option<Scored>> {
        let gone = |table: &Table, one: &Scored| table.get(one.id as u32).is_some();
        loop {
            while self.list.get(self.cursor).is_some_and(|one| gone(&self.table, one)) {
                self.cursor += 1;
            }
            let mut rest = self.list[self.cursor..].iter();
            let found = rest.find(|one| skip != Some(one.id as usize) && !gone(&self.table, one));
            if found.is_some() || self.list.len() == self.scores.len() {
                return Ok(found.copied());
            }
            self.list_best(self.list.len().saturating_mul(8))?;
            self.rebuild();
        }
    }
}

impl<S: Vector, I: Index, W: Real> Engine for SparseEngine<'_, S, I, W> {
    fn best(&mut self, skip: Option<usize>) -> Result<Option<(usize, f64)>> {
        self.settle()?;
        let mut best = self.waiting(skip)?.map(|one| (one.id as usize, one.score));
        let mut looked_at = Vec::new();
        while let Some(&entry) = self.heap.peek() {
            if best.is_some_and(|best| !entry.ahead_of(best)) {
                break;
            }
            self.heap.pop();
            let Some(slot) = self.table.get(entry.id).copied() else { continue };
            if slot.touches != entry.touches {
                continue;
            }
            let now = self.value_with(self.score(entry.id as usize), slot.bonus);
            looked_at.extend(self.entry(&slot, f64::NEG_INFINITY));
            let here = (entry.id as usize, now);
            let ahead = Entry { bound: now, ..entry };
            if skip != Some(here.0) && best.is_none_or(|best| ahead.ahead_of(best)) {
                best = Some(here);
            }
        }
        self.heap.extend(looked_at);
        self.prefetch_rows();
        Ok(best)
    }

    fn take(&mut self, id: usize) -> Result<()> {
        self.settle()?;
        self.table.close(id as u32);
        self.n_taken += 1;
        self.pending = Some(id);
        Ok(())
    }

    fn forbid(&mut self, id: usize) {
        self.table.close(id as u32);
    }

    fn value(&mut self, id: usize) -> Result<(f64, f64)> {
        self.settle()?;
        let score = self.score(id);
        let bonus = self.table.get(id as u32).map_or(0.0, |slot| slot.bonus);
        Ok((score, self.value_with(score, bonus)))
    }

    fn blame(&self) -> Error {
        too_large()
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
