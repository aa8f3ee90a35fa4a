//! Sequences that come together.

use super::SILENT;
use super::feature::{Feature, Peak, bin, magnitude};
use super::firing::Firing;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::workers::Workers;
use std::ops::Range;

/// Activations of all features at all positions of some sequences.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    first: u64,
    ptr: &'a [i64],
    values: &'a [f32],
    n_features: usize,
    counted: &'a [bool],
}

impl<'a> Batch<'a> {
    /// The sequences `first`, `first + 1`, ...
    ///
    /// # Shapes
    /// `ptr` `[n + 1]` where each starts, from 0; `values` `[n_tokens, n_features]`, row-major;
    /// `counted` `[n_tokens]`, the positions that have features: elsewhere an activation counts as 0.
    ///
    /// # Errors
    /// Lengths that do not fit, a `ptr` that descends, sequences outside `0..=i64::MAX` or with
    /// more than `u32::MAX` positions.
    pub fn new(
        first: i64,
        ptr: &'a [i64],
        values: &'a [f32],
        n_features: usize,
        counted: &'a [bool],
    ) -> Result<Self> {
        let wrong = |message: String| Err(Error::argument(message));
        let n_tokens = counted.len();
        if n_tokens.checked_mul(n_features) != Some(values.len()) {
            let n = values.len();
            return wrong(format!("{n} values are not {n_tokens} positions of {n_features}"));
        }
        check_ptr(ptr, n_tokens)?;
        let last = i64::MAX - (ptr.len() as i64 - 1);
        match u64::try_from(first) {
            Ok(start) if first <= last => {
                Ok(Self { first: start, ptr, values, n_features, counted })
            }
            _ => wrong(format!("first is {first}, must be in 0..={last}")),
        }
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.counted.len()
    }

    pub(super) fn n_features(&self) -> usize {
        self.n_features
    }

    pub(super) fn n_counted(&self) -> u64 {
        self.counted.iter().filter(|&&counted| counted).count() as u64
    }

    pub(super) fn sequences(&self) -> Range<u64> {
        self.first..self.first + (self.ptr.len() as u64 - 1)
    }

    /// Where each feature fires.
    ///
    /// # Errors
    /// A value that is not finite, wherever it is; of several the first. An interrupt.
    pub(super) fn firing(&self, workers: &Workers, cancel: &Cancel) -> Result<Firing> {
        Firing::of(self.values, self.counted, self.n_features, workers, cancel)
    }

    /// Show all sequences to the `feature` of a column.
    pub(super) fn show(&self, feature: &mut Feature, column: usize, firing: &Firing) {
        for i in 0..self.ptr.len() - 1 {
            self.show_one(feature, column, i, firing);
        }
        // Only now, as most sequences that are kept at first give way to others of the batch.
        for (sequence, kept) in feature.kept.range_mut(self.sequences()) {
            if kept.kind != SILENT {
                kept.values = self.values(column, (sequence - self.first) as usize, firing);
            }
        }
    }

    /// The batch's sequence `i`.
    fn show_one(&self, feature: &mut Feature, column: usize, i: usize, firing: &Firing) {
        let (sequence, rows) = (self.first + i as u64, self.rows(i));
        let mut strongest = 0;
        let mut peak = Peak { sequence, position: 0, value: 0.0 };
        for row in firing.positions(column, rows.clone()) {
            let value = self.values[row * self.n_features + column];
            // Checked to be finite, but the caller's array may have changed since.
            if let Some(count) = feature.histogram.get_mut(bin(value)) {
                *count += 1;
            }
            if magnitude(value) > strongest {
                strongest = magnitude(value);
                (peak.position, peak.value) = ((row - rows.start) as u32, value);
            }
        }
        if strongest == 0 {
            feature.silent(sequence);
        } else {
            feature.active(peak);
        }
    }

    /// A column's activations at all positions of the batch's sequence `i`.
    fn values(&self, column: usize, i: usize, firing: &Firing) -> Vec<f32> {
        let rows = self.rows(i);
        let mut values = vec![0.0; rows.len()];
        for row in firing.positions(column, rows.clone()) {
            values[row - rows.start] = self.values[row * self.n_features + column];
        }
        values
    }

    /// The rows of the batch's sequence `i`.
    fn rows(&self, i: usize) -> Range<usize> {
        self.ptr[i] as usize..self.ptr[i + 1] as usize
    }
}

fn check_ptr(ptr: &[i64], n_tokens: usize) -> Result<()> {
    let wrong = |message: String| Err(Error::argument(message));
    let (Some(&begin), Some(&end)) = (ptr.first(), ptr.last()) else {
        return wrong("ptr is empty, must have length n + 1".into());
    };
    if begin != 0 {
        return wrong(format!("ptr[0] is {begin}, must be 0"));
    }
    for (i, two) in ptr.windows(2).enumerate() {
        if two[1] < two[0] {
            return wrong(format!("ptr[{}] is {}, must be at least {}", i + 1, two[1], two[0]));
        }
        if two[1] - two[0] > i64::from(u32::MAX) {
            let (n, most) = (two[1] - two[0], u32::MAX);
            return wrong(format!("sequence {i} has {n} positions, must have at most {most}"));
        }
    }
    if usize::try_from(end) != Ok(n_tokens) {
        return wrong(format!("ptr ends at {end}, must end at the {n_tokens} positions"));
    }
    Ok(())
}
