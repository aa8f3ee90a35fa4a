//! A score in two parts, for a dump that several machines read: what each block of prompts comes
//! to, and the blocks joined in order. Both parts do what one pass does, addition for addition.

use crate::cancel::Cancel;
use crate::dump::{BLOCK, Dump, Watch};
use crate::error::{Error, Result};
use crate::file;
use crate::score::rule::{Max, Rule};
use crate::score::{NOTHING, RankBy, check_column, totals};
use crate::workers::Workers;
use std::ops::Range;

/// Features between two looks at the flag.
const STRETCH: usize = 1 << 20;

/// What the prompts of one block come to, of the features that have entries in it.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSums {
    /// Global ids, ascending.
    pub ids: Vec<u32>,
    /// `B[b, f]` of [`crate::score`].
    pub sums: Vec<f64>,
}

/// Steps 1 and 2 of a score, for one block of 256 prompts.
///
/// # Errors
/// The dump has no such block; and as [`crate::score::score`].
///
/// # Memory
/// 8 bytes per feature, 12 per feature with entries, and the buffers of [`crate::score::score`].
pub fn block_sums(
    dump: &Dump,
    rank_by: RankBy,
    block: u64,
    threads: Option<usize>,
    watch: &mut Watch<'_>,
) -> Result<BlockSums> {
    check_column(dump, rank_by)?;
    let n_blocks = dump.n_prompts().div_ceil(BLOCK);
    if block >= n_blocks {
        return Err(Error::argument(format!("block {block} is outside [0, {n_blocks})")));
    }
    let prompts = block * BLOCK..dump.n_prompts().min((block + 1) * BLOCK);
    let workers = Workers::new(threads, true)?;
    // Of one block alone the totals are its sums: joining nothing with them changes no bit.
    let all = totals(dump, prompts, rank_by, &workers, watch)?;
    let there = || all.iter().enumerate().filter(|(_, sum)| sum.to_bits() != NOTHING.to_bits());
    let mut found = BlockSums { ids: Vec::new(), sums: Vec::new() };
    let n = there().count();
    found.ids.reserve_exact(n);
    found.sums.reserve_exact(n);
    for (id, &sum) in there() {
        found.ids.push(id as u32);
        found.sums.push(sum);
    }
    Ok(found)
}

/// Step 3 of a score, for a range of features: blocks, each added up somewhere, joined in order.
#[derive(Debug, Clone)]
pub struct Fold {
    rank_by: RankBy,
    first: u64,
    totals: Vec<f64>,
}

impl Fold {
    /// No block so far, of the features `ids`.
    ///
    /// # Errors
    /// A range that runs backwards or beyond the largest id, no memory for it, or `cancel`.
    pub fn new(rank_by: RankBy, ids: Range<u64>, cancel: &Cancel) -> Result<Self> {
        let Range { start, end } = ids;
        if start > end || end > u64::from(u32::MAX) + 1 {
            return Err(Error::argument(format!("features {start}..{end} are no range of ids")));
        }
        let mut totals = file::zeros((end - start) as usize)?;
        for totals in totals.chunks_mut(STRETCH) {
            cancel.check()?;
            totals.fill(NOTHING);
        }
        Ok(Self { rank_by, first: start, totals })
    }

    /// How many features the range has.
    #[must_use]
    pub fn n_features(&self) -> usize {
        self.totals.len()
    }

    /// Join the next block: features of the range, ascending, and what the block comes to.
    ///
    /// # Errors
    /// Lengths that differ, ids out of order or outside the range, sums that are not finite; then
    /// nothing has changed. After `cancel` a part of the block may be in: drop the fold.
    pub fn add(&mut self, ids: &[u32], sums: &[f64], cancel: &Cancel) -> Result<()> {
        if ids.len() != sums.len() {
            let message = format!("{} sums for {} features", sums.len(), ids.len());
            return Err(Error::argument(message));
        }
        for from in (0..ids.len()).step_by(STRETCH) {
            cancel.check()?;
            // One more than the stretch: the step to the next one rises too.
            let part = from..ids.len().min(from + STRETCH + 1);
            self.check(&ids[part.clone()], &sums[part])?;
        }
        for (ids, sums) in ids.chunks(STRETCH).zip(sums.chunks(STRETCH)) {
            cancel.check()?;
            self.join(ids, sums);
        }
        Ok(())
    }

    /// Scores of the range, and which of its features have entries.
    ///
    /// # Errors
    /// `cancel`.
    pub fn finish(&self, n_prompts: u64, cancel: &Cancel) -> Result<(Vec<f64>, Vec<bool>)> {
        let has = |total: &f64| total.to_bits() != NOTHING.to_bits();
        let score = |total: &f64| self.rank_by.finish(*total, n_prompts as f64) + 0.0;
        let n = self.totals.len();
        let (mut scores, mut there) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for totals in self.totals.chunks(STRETCH) {
            cancel.check()?;
            scores.extend(totals.iter().map(|t| if has(t) { score(t) } else { 0.0 }));
            there.extend(totals.iter().map(has));
        }
        Ok((scores, there))
    }

    fn join(&mut self, ids: &[u32], sums: &[f64]) {
        for (&id, &sum) in ids.iter().zip(sums) {
            let total = &mut self.totals[(u64::from(id) - self.first) as usize];
            *total = match self.rank_by {
                RankBy::Max => Max.join(*total, sum),
                _ => *total + sum,
            };
        }
    }

    fn check(&self, ids: &[u32], sums: &[f64]) -> Result<()> {
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] >= pair[1]) {
            let message = format!("feature {} follows {}: out of order", pair[1], pair[0]);
            return Err(Error::argument(message));
        }
        let end = self.first + self.totals.len() as u64;
        let outside = |&&id: &&u32| !(self.first..end).contains(&u64::from(id));
        if let Some(id) = ids.iter().find(outside) {
            return Err(Error::argument(format!(
                "feature {id} is outside [{}, {end})",
                self.first
            )));
        }
        if let Some(i) = sums.iter().position(|sum| !sum.is_finite()) {
            let message = format!("the sum of feature {} is {}, must be finite", ids[i], sums[i]);
            return Err(Error::argument(message));
        }
        Ok(())
    }
}
