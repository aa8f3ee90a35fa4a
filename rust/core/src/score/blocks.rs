//! Scores from parts: the sums of each block, made anywhere, and put together in order.
//!
//! Step 3 of a score adds whole blocks in order, so a block is the largest part that can be summed
//! apart without another answer. What machines exchange is the sums of a block's own features.

use crate::dump::{BLOCK, Dump, Watch};
use crate::error::{Error, Result};
use crate::score::rule::{self, Rule};
use crate::score::{NOTHING, RankBy, Scores, totals};
use crate::workers::Workers;

/// The sums of a run of blocks, CSR over the blocks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockSums {
    /// `[n_blocks + 1]`, starts at 0.
    pub block_ptr: Vec<i64>,
    /// Global feature ids, ascending within a block.
    pub feature: Vec<u32>,
    /// What each comes to in its block.
    pub sum: Vec<f64>,
}

/// The sums of the blocks `first .. first + n` of 256 prompts.
///
/// # Errors
/// Blocks that the dump does not have; and as [`crate::score::score`].
///
/// # Memory
/// As [`crate::score::score`], and 12 bytes for each feature of each block.
pub fn block_sums(
    dump: &Dump,
    rank_by: RankBy,
    (first, n): (u64, u64),
    threads: Option<usize>,
    watch: &mut Watch<'_>,
) -> Result<BlockSums> {
    let n_blocks = dump.n_prompts().div_ceil(BLOCK);
    if first.checked_add(n).is_none_or(|end| end > n_blocks) {
        let message = format!("{n} blocks from {first} on, the dump has {n_blocks}");
        return Err(Error::argument(message));
    }
    // A block is a few hundred thousand entries: too little for several threads.
    let workers = Workers::new(threads, true)?;
    let mut found = BlockSums { block_ptr: vec![0], ..BlockSums::default() };
    for block in first..first + n {
        let prompts = block * BLOCK..((block + 1) * BLOCK).min(dump.n_prompts());
        let sums = totals(dump, rank_by, prompts, &workers, watch)?;
        for (id, &sum) in sums.iter().enumerate() {
            if sum.to_bits() != NOTHING.to_bits() {
                found.feature.push(id as u32);
                found.sum.push(sum);
            }
        }
        found.block_ptr.push(found.feature.len() as i64);
    }
    Ok(found)
}

/// The sums of all features over the blocks that were added so far.
#[derive(Debug)]
pub struct Folded {
    totals: Vec<f64>,
    rank_by: RankBy,
}

impl Folded {
    /// No block yet, of `n_ids` features.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new(n_ids: usize, rank_by: RankBy) -> Result<Self> {
        let mut totals = crate::huge::zeros(n_ids)?;
        totals.fill(NOTHING);
        Ok(Self { totals, rank_by })
    }

    /// Add the next blocks.
    ///
    /// # Errors
    /// Pointers that do not fit the columns, ids that do not rise within a block or are out of
    /// range, sums that are not finite.
    pub fn add(&mut self, block_ptr: &[i64], feature: &[u32], sum: &[f64]) -> Result<()> {
        self.check(block_ptr, feature, sum)?;
        match self.rank_by {
            RankBy::Max => self.join(feature, sum, rule::Max),
            _ => self.join(feature, sum, rule::Sum),
        }
        Ok(())
    }

    /// Blocks follow each other in the columns, so an entry after the other is block after block.
    fn join(&mut self, feature: &[u32], sum: &[f64], rule: impl Rule) {
        for (&id, &sum) in feature.iter().zip(sum) {
            let total = &mut self.totals[id as usize];
            *total = rule.join(*total, sum);
        }
    }

    fn check(&self, block_ptr: &[i64], feature: &[u32], sum: &[f64]) -> Result<()> {
        let n = feature.len();
        let whole = block_ptr.first() == Some(&0) && block_ptr.last() == Some(&(n as i64));
        if !whole || block_ptr.windows(2).any(|pair| pair[0] > pair[1]) || sum.len() != n {
            return Err(Error::argument(format!(
                "block_ptr must rise from 0 to the {n} features, of which there are {} sums",
                sum.len()
            )));
        }
        for pair in block_ptr.windows(2) {
            let ids = &feature[pair[0] as usize..pair[1] as usize];
            if let Some(pair) = ids.windows(2).find(|pair| pair[0] >= pair[1]) {
                let message = format!("feature {} follows {} in a block", pair[1], pair[0]);
                return Err(Error::argument(message));
            }
        }
        if let Some(id) = feature.iter().find(|&&id| id as usize >= self.totals.len()) {
            let message = format!("feature {id} is outside [0, {})", self.totals.len());
            return Err(Error::argument(message));
        }
        match sum.iter().find(|sum| !sum.is_finite()) {
            Some(sum) => Err(Error::argument(format!("sum is {sum}, must be finite"))),
            None => Ok(()),
        }
    }

    /// The scores, as of a dump of so many prompts whose blocks were all added.
    ///
    /// # Errors
    /// Threads that the system does not give.
    pub(crate) fn scores(&self, n_prompts: u64, threads: Option<usize>) -> Result<Scores> {
        Ok(Scores {
            totals: self.totals.clone(),
            rank_by: self.rank_by,
            n_prompts: n_prompts as f64,
            workers: Workers::new(threads, true)?,
        })
    }

    /// The scores, as [`crate::score::score`] of a dump of so many prompts.
    ///
    /// # Errors
    /// As [`crate::score::score`].
    pub fn score(&self, n_prompts: u64, threads: Option<usize>) -> Result<Vec<f64>> {
        self.scores(n_prompts, threads)?.into_dense()
    }
}
