//! Streaming scores: one number per feature from one pass over a dump.
//!
//! The order of every addition is fixed by the dump alone:
//!
//! 1. `s[p, f]`: the entries of prompt `p` and feature `f`, added in file order;
//! 2. `B[b, f]`: the `s` (or `|s|`) of the 256 prompts of block `b`, added in order of prompt;
//! 3. `S[f]`: the blocks, added in order.
//!
//! So any number of threads and any cut into shards gives the same bytes. Work is divided where
//! order does not matter: a slab of the dump is read and checked piece by piece, then the three
//! steps run over ranges of features, each range with one owner that visits the slab in order. Ids
//! rise within a prompt, so an owner walks its range in tiles that stay in cache, with one cursor
//! per prompt.

mod blocks;
mod rule;
mod slab;
mod tiles;

use crate::dump::{Column, Dump, Pieces, Watch};
use crate::error::{Error, Result};
use crate::simd;
use crate::workers::{Spare, Workers};
use rule::Rule;
use slab::Slab;
use std::ops::Range;
use std::str::FromStr;
use tiles::Totals;

pub use blocks::{BlockSums, Fold, block_sums};

/// Entries below which one thread is faster than several.
const SMALL: u64 = 1 << 19;

/// Slabs of calls that ended. Fresh memory costs a page fault for every 4 KiB, which on a small
/// dump takes longer than to add it up.
static SLABS: Spare<Slab> = Spare::new();

/// The identity of addition that also says "no entry so far": no sum of numbers that are not
/// -0.0 is -0.0.
pub(crate) const NOTHING: f64 = -0.0;

/// What a feature is ranked by. `a` is an activation, `g` an attribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankBy {
    /// Mean over prompts of the sum of `g` over positions.
    Signed,
    /// Absolute value of [`RankBy::Signed`].
    Abs,
    /// Mean over prompts of |sum of `g` over positions|.
    MeanAbs,
    /// Mean over prompts of the sum of |`a`| over positions.
    Magnitude,
    /// Largest |`a`|.
    Max,
    /// Number of prompts with an `a` other than 0.
    Count,
}

impl RankBy {
    /// All of them, by name.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("signed", Self::Signed),
        ("abs", Self::Abs),
        ("mean_abs", Self::MeanAbs),
        ("magnitude", Self::Magnitude),
        ("max", Self::Max),
        ("count", Self::Count),
    ];

    /// Whether it needs attributions; the others need activations.
    #[must_use]
    pub fn needs_attribution(self) -> bool {
        matches!(self, Self::Signed | Self::Abs | Self::MeanAbs)
    }

    /// The score of a feature whose blocks come to `total`.
    #[inline(always)]
    fn finish(self, total: f64, n_prompts: f64) -> f64 {
        match self {
            Self::Max | Self::Count => total,
            Self::Abs => (total / n_prompts).abs(),
            Self::Signed | Self::MeanAbs | Self::Magnitude => total / n_prompts,
        }
    }
}

impl FromStr for RankBy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|&(_, rank_by)| rank_by).ok_or_else(|| {
            let names = Self::NAMES.map(|(name, _)| name).join(", ");
            Error::argument(format!("rank_by {name:?} is not one of {names}"))
        })
    }
}

/// One score per feature and whether the feature has entries.
pub(crate) struct Scores {
    totals: Vec<f64>,
    rank_by: RankBy,
    n_prompts: f64,
    workers: Workers,
}

impl Scores {
    /// The score of a feature, or `None` if it has no entry.
    pub fn get(&self, id: usize) -> Option<f64> {
        let total = self.totals[id];
        (total.to_bits() != NOTHING.to_bits()).then(|| self.finish(total))
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.totals.len()
    }

    fn finish(&self, total: f64) -> f64 {
        self.rank_by.finish(total, self.n_prompts)
    }

    /// All scores, 0.0 for features without entries.
    pub fn into_dense(mut self) -> Result<Vec<f64>> {
        /// Scores of a range.
        const RANGE: usize = 1 << 18;
        let mut totals = std::mem::take(&mut self.totals);
        let mut ranges: Vec<&mut [f64]> = totals.chunks_mut(RANGE).collect();
        self.workers.each(&mut ranges, |_, range| {
            simd::widest(Finish { range, rank_by: self.rank_by, n_prompts: self.n_prompts });
            Ok(())
        })?;
        Ok(totals)
    }
}

/// Makes scores of totals.
struct Finish<'a> {
    range: &'a mut [f64],
    rank_by: RankBy,
    n_prompts: f64,
}

impl simd::Loop for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { range, rank_by, n_prompts } = self;
        // Without prompts there is nothing to divide; adding 0.0 makes a 0.0 of NOTHING.
        let n_prompts = n_prompts.max(1.0);
        range.iter_mut().for_each(|total| *total = rank_by.finish(*total, n_prompts) + 0.0);
    }
}

/// Scores of all features of a dump.
///
/// # Shapes
/// `[n_layers * n_features]`, by global id; 0.0 for features without entries.
///
/// # Errors
/// Attributions asked of a dump without them; a shard that is not what its format promises; what
/// `watch` returns.
///
/// # Memory
/// 8 bytes per feature (16 where a block of 256 prompts has over 2 million entries) and about
/// 20 MB, or what the largest prompt takes; up to 32 MB of the latter are kept for the next call.
pub fn score(
    dump: &Dump,
    rank_by: RankBy,
    threads: Option<usize>,
    watch: &mut Watch<'_>,
) -> Result<Vec<f64>> {
    scores(dump, rank_by, threads, watch)?.into_dense()
}

/// As [`score`], and which features have entries.
pub(crate) fn scores(
    dump: &Dump,
    rank_by: RankBy,
    threads: Option<usize>,
    watch: &mut Watch<'_>,
) -> Result<Scores> {
    check_column(dump, rank_by)?;
    let workers = Workers::new(threads, dump.n_active() < SMALL)?;
    let totals = totals(dump, 0..dump.n_prompts(), rank_by, &workers, watch)?;
    Ok(Scores { totals, rank_by, n_prompts: dump.n_prompts() as f64, workers })
}

/// Refuse to rank by what the dump does not have.
fn check_column(dump: &Dump, rank_by: RankBy) -> Result<()> {
    if !rank_by.needs_attribution() || dump.has_attribution() {
        return Ok(());
    }
    let name = RankBy::NAMES.iter().find(|(_, r)| *r == rank_by).map_or("", |(name, _)| name);
    Err(Error::argument(format!(
        "{}: rank_by {name:?} needs attributions, which this dump does not have; \
         magnitude, max and count need activations only",
        dump.folder().display()
    )))
}

/// Sums over the prompts `prompts`, which begin where a block begins.
fn totals(
    dump: &Dump,
    prompts: Range<u64>,
    rank_by: RankBy,
    workers: &Workers,
    watch: &mut Watch<'_>,
) -> Result<Vec<f64>> {
    let attributions = rank_by.needs_attribution();
    let column = if attributions { Column::Attribution } else { Column::Activation };
    let over = (dump, prompts, column);
    match rank_by {
        RankBy::Signed | RankBy::Abs => stream(over, rule::Sum, workers, watch),
        RankBy::MeanAbs => stream(over, rule::AbsoluteSum, workers, watch),
        RankBy::Magnitude => stream(over, rule::SumOfAbsolutes, workers, watch),
        RankBy::Max => stream(over, rule::Max, workers, watch),
        RankBy::Count => stream(over, rule::Any, workers, watch),
    }
}

fn stream(
    (dump, prompts, column): (&Dump, Range<u64>, Column),
    rule: impl Rule,
    workers: &Workers,
    watch: &mut Watch<'_>,
) -> Result<Vec<f64>> {
    let n_ids = usize::try_from(dump.n_ids())
        .map_err(|_| Error::argument(format!("{} features do not fit", dump.n_ids())))?;
    // A manifest may tell of any number of features.
    let mut totals = Totals::new(n_ids).map_err(|e| {
        Error::argument(format!("{}: a total per feature: {e}", dump.folder().display()))
    })?;
    let mut pieces = Pieces::new(dump, prompts, workers);
    let mut add_all = |slab: &mut Slab| -> Result<()> {
        let mut done = 0;
        loop {
            let mut pause = || watch(done, dump.n_active());
            let parts = slab.next(&mut pieces, column, workers, &mut pause)?;
            if parts.is_empty() {
                return Ok(());
            }
            totals.add(&parts, rule, workers)?;
            done += parts.iter().map(|part| part.ids().len() as u64).sum::<u64>();
            watch(done, dump.n_active())?;
        }
    };
    SLABS.with(|slab| {
        let outcome = add_all(slab);
        slab.close();
        outcome
    })?;
    Ok(totals.into_inner())
}
