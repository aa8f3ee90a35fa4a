//! Sequences that come together, and one walk over the activations of a group of features.

use super::GROUP;
use super::feature::{Feature, Peak, bin, magnitude};
use crate::error::{Error, Result};
use crate::workers::Workers;
use std::ops::Range;

/// Numbers that are looked at for NaN by one worker at a time.
const CHECKED: usize = 1 << 16;

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

    /// # Errors
    /// A value that is not finite, wherever it is; of several the first.
    pub(super) fn check_finite(&self, workers: &Workers) -> Result<()> {
        let mut pieces: Vec<&[f32]> = self.values.chunks(CHECKED).collect();
        workers.each(&mut pieces, |i, piece| {
            // A sum that the compiler makes many of at once; it is NaN as soon as one is not finite.
            if piece.iter().map(|value| u32::from(!value.is_finite())).sum::<u32>() == 0 {
                return Ok(());
            }
            let at = i * CHECKED + piece.iter().position(|value| !value.is_finite()).unwrap_or(0);
            let (row, column) = (at / self.n_features, at % self.n_features);
            let value = self.values[at];
            Err(Error::argument(format!("values[{row}, {column}] is {value}, must be finite")))
        })
    }

    /// Show `features`, of the columns from `column` on, every sequence, and note in `firing`
    /// `[features, n_words]` the bits of the positions where each fires.
    pub(super) fn walk(&self, column: usize, features: &mut [Feature], firing: &mut [u64]) {
        let n_words = firing.len() / features.len();
        for (sequence, ends) in self.sequences().zip(self.ptr.windows(2)) {
            let rows = ends[0] as usize..ends[1] as usize;
            let mut strongest = [0u32; GROUP];
            let mut peak_row = [0; GROUP];
            for row in rows.clone().filter(|&row| self.counted[row]) {
                let start = row * self.n_features + column;
                let line = &self.values[start..start + features.len()];
                for (i, &value) in line.iter().enumerate().filter(|(_, value)| **value != 0.0) {
                    firing[i * n_words + row / 64] |= 1 << (row % 64);
                    // Checked to be finite, but the caller's array may have changed since.
                    if let Some(count) = features[i].histogram.get_mut(bin(value)) {
                        *count += 1;
                    }
                    if magnitude(value) > strongest[i] {
                        (strongest[i], peak_row[i]) = (magnitude(value), row);
                    }
                }
            }
            for (i, feature) in features.iter_mut().enumerate() {
                if strongest[i] == 0 {
                    feature.silent(sequence);
                    continue;
                }
                let value = self.values[peak_row[i] * self.n_features + column + i];
                let position = (peak_row[i] - rows.start) as u32;
                let peak = Peak { sequence, position, value };
                feature.active(peak, || self.column(column + i, rows.clone()));
            }
        }
    }

    /// One feature's activations at some positions, 0 where they do not count.
    fn column(&self, column: usize, rows: Range<usize>) -> Vec<f32> {
        let value = |row: usize| {
            if self.counted[row] { self.values[row * self.n_features + column] } else { 0.0 }
        };
        rows.map(value).collect()
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
