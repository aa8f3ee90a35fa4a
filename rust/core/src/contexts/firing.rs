//! Where each feature fires in a batch, as bits.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::simd::bits::{ROWS, nonzero, shared};
use crate::workers::Workers;
use std::ops::Range;

/// Words that one worker fills at a time.
const WORDS: usize = 32;

/// Words whose shared bits are counted in 32 bits.
const TILE: usize = 1 << 20;

/// Bits of the positions where each of `k` features fires.
pub struct Firing {
    /// `[n_words, k]`, a word for [`ROWS`] positions.
    words: Vec<u32>,
    k: usize,
}

impl Firing {
    /// Of `values` `[n, k]`, row-major, at the positions that are `counted` `[n]`.
    ///
    /// # Errors
    /// A value that is not finite, wherever it is; of several the first. An interrupt.
    pub fn of(
        values: &[f32],
        counted: &[bool],
        k: usize,
        workers: &Workers,
        cancel: &Cancel,
    ) -> Result<Self> {
        let mut words = vec![0; counted.len().div_ceil(ROWS) * k];
        if k > 0 {
            let rows = values.chunks(WORDS * ROWS * k).zip(counted.chunks(WORDS * ROWS));
            let mut blocks: Vec<_> = words.chunks_mut(WORDS * k).zip(rows).collect();
            workers.each(&mut blocks, |i, (words, (values, counted))| {
                cancel.check()?;
                let rows = values.chunks(ROWS * k).zip(counted.chunks(ROWS));
                let finite = words
                    .chunks_exact_mut(k)
                    .zip(rows)
                    .all(|(masks, (rows, counted))| nonzero(rows, counted, masks));
                if finite { Ok(()) } else { Err(not_finite(values, i * WORDS * ROWS, k)) }
            })?;
        }
        Ok(Self { words, k })
    }

    /// The positions among `rows` where `feature` fires, ascending.
    pub fn positions(&self, feature: usize, rows: Range<usize>) -> impl Iterator<Item = usize> {
        let words = rows.start / ROWS..rows.end.div_ceil(ROWS);
        words.flat_map(move |word| {
            let start = word * ROWS;
            let mut bits = self.words[word * self.k + feature];
            // The first and the last word hold other rows too.
            bits &= u32::MAX << rows.start.saturating_sub(start);
            bits &= u32::MAX >> (start + ROWS).saturating_sub(rows.end);
            std::iter::from_fn(move || {
                let at = start + bits.trailing_zeros() as usize;
                let found = (bits != 0).then_some(at);
                bits &= bits.wrapping_sub(1);
                found
            })
        })
    }

    /// Add to `pairs` `[k, k]`, on and above its diagonal, the positions where two features fire.
    ///
    /// # Errors
    /// None.
    pub fn count_pairs(&self, pairs: &mut [u64], workers: &Workers) -> Result<()> {
        let k = self.k;
        let mut rows: Vec<&mut [u64]> = pairs.chunks_mut(k.max(1)).collect();
        workers.each(&mut rows, |i, row| {
            for words in self.words.chunks(TILE * k) {
                let mut counts = vec![0; k];
                shared(words, i, &mut counts);
                row.iter_mut().zip(counts).for_each(|(all, n)| *all += u64::from(n));
            }
            Ok(())
        })
    }
}

/// The error of the first value that is not finite, in rows from `row` on.
fn not_finite(values: &[f32], row: usize, k: usize) -> Error {
    let at = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
    let (row, column, value) = (row + at / k, at % k, values[at]);
    Error::argument(format!("values[{row}, {column}] is {value}, must be finite"))
}
