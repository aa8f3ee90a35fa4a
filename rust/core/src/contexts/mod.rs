//! Contexts of a few features, collected while a corpus streams by.
//!
//! A batch is some sequences and the activations of all features at all their positions. One pass
//! over it, row by row, notes where each feature fires; after that only firings are looked at. Of
//! each feature is kept:
//!
//! 1. counts: positions where it fires (activation not 0), a histogram of `|a|`, and with each
//!    other feature the positions where both fire;
//! 2. the *peak* of each sequence it fires in: the strongest `|a|`, first of equals, sign kept;
//! 3. activations at all positions of a bounded number of sequences: the `n_top` strongest peaks
//!    (ties to the smaller sequence) and `n_sample` of the sequences it fires in; and the numbers
//!    of `n_silent` sequences it does not fire in.
//!
//! A sample is the sequences whose numbers have the smallest splitmix64 hashes. So it is uniform,
//! and nothing depends on how the sequences came in batches, in which order, on how many threads,
//! or from which of several collectors that were merged.
//!
//! Memory: `K * (n_top + n_sample)` sequences of activations, 16 bytes for each peak, `8 K^2` for
//! the pairs and 16 KiB a feature for the histogram.

pub mod batch;
mod check;
mod feature;
mod firing;
mod seen;
mod smallest;
mod state;

pub use batch::Batch;
pub use state::State;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::file::reserve;
use crate::workers::Workers;
use feature::Feature;
use seen::Seen;

/// Bins of a histogram: 8 to an octave, by the highest 11 bits of the magnitude as a float.
///
/// Bin `b` begins at `f32::from_bits(b << 20)`.
pub const N_BINS: usize = (f32::INFINITY.to_bits() >> BIN_SHIFT) as usize;
const BIN_SHIFT: u32 = 20;

/// The most features: their pairs take 8 GiB.
pub const MAX_FEATURES: usize = 1 << 15;

/// Numbers of a batch below which handing out the work costs more than doing it.
const SMALL: usize = 1 << 19;

/// `kept_kind`: among the strongest.
pub const TOP: u8 = 1;
/// `kept_kind`: in the sample of sequences with a firing.
pub const SAMPLE: u8 = 2;
/// `kept_kind`: in the sample of sequences without one.
pub const SILENT: u8 = 4;

/// How many sequences of each kind are kept for a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The strongest.
    pub n_top: usize,
    /// Sampled among those with a firing.
    pub n_sample: usize,
    /// Sampled among those without one.
    pub n_silent: usize,
}

/// What was collected so far.
#[derive(Debug, Clone)]
pub struct Collector {
    limits: Limits,
    seen: Seen,
    counted: u64,
    /// `[K, K]`; of the upper triangle the rest follows.
    pairs: Vec<u64>,
    features: Vec<Feature>,
}

impl Collector {
    /// An empty collector.
    ///
    /// # Errors
    /// More than [`MAX_FEATURES`], or no memory for them.
    pub fn new(n_features: usize, limits: Limits) -> Result<Self> {
        if n_features > MAX_FEATURES {
            let message = format!("n_features is {n_features}, must be at most {MAX_FEATURES}");
            return Err(Error::argument(message));
        }
        let mut pairs = Vec::new();
        reserve(&mut pairs, n_features * n_features)?;
        pairs.resize(n_features * n_features, 0);
        let features = (0..n_features).map(|_| Feature::new(limits)).collect::<Result<_>>()?;
        Ok(Self { limits, seen: Seen::default(), counted: 0, pairs, features })
    }

    /// The number of features, K.
    #[must_use]
    pub fn n_features(&self) -> usize {
        self.features.len()
    }

    /// Collect from a batch, on `threads` (all of them where None); the result does not depend on
    /// their number. After an error nothing has changed, nor after an interrupt: the first pass
    /// over the batch stops for it, what follows does not.
    ///
    /// # Errors
    /// A batch of another number of features, sequences that were added before, counts above
    /// `i64::MAX`; an interrupt.
    pub fn add(
        &mut self,
        batch: &Batch<'_>,
        threads: Option<usize>,
        cancel: &Cancel,
    ) -> Result<()> {
        let k = self.n_features();
        if batch.n_features() != k {
            let columns = batch.n_features();
            let message = format!("values have {columns} columns, must be the {k} features");
            return Err(Error::argument(message));
        }
        let workers = Workers::new(threads, k * batch.n_tokens() < SMALL)?;
        let firing = batch.firing(&workers, cancel)?;
        self.seen.check(&batch.sequences())?;
        self.counted = self.counted_with(batch.n_counted())?;
        self.seen.insert(batch.sequences());
        workers.each(&mut self.features, |i, feature| {
            batch.show(feature, i, &firing);
            Ok(())
        })?;
        firing.count_pairs(&mut self.pairs, &workers)
    }

    /// Take over what another collector has of other sequences. After an error nothing has changed.
    ///
    /// # Errors
    /// Another number of features, other limits, sequences of both, counts above `i64::MAX`.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let (k, theirs) = (self.n_features(), other.n_features());
        if theirs != k {
            let message = format!("the other collector has {theirs} features, must have {k}");
            return Err(Error::argument(message));
        }
        if other.limits != self.limits {
            let Limits { n_top, n_sample, n_silent } = other.limits;
            let message = format!(
                "the other collector has n_top {n_top}, n_sample {n_sample} and n_silent \
                 {n_silent}, must have {}, {} and {}",
                self.limits.n_top, self.limits.n_sample, self.limits.n_silent
            );
            return Err(Error::argument(message));
        }
        other.seen.ranges().iter().try_for_each(|range| self.seen.check(range))?;
        self.counted = self.counted_with(other.counted)?;
        other.seen.ranges().iter().for_each(|range| self.seen.insert(range.clone()));
        self.pairs.iter_mut().zip(&other.pairs).for_each(|(mine, theirs)| *mine += theirs);
        for (mine, theirs) in self.features.iter_mut().zip(&other.features) {
            mine.merge(theirs);
        }
        Ok(())
    }

    /// The counted positions with `more` of them. No other count is larger than that.
    fn counted_with(&self, more: u64) -> Result<u64> {
        let sum = self.counted.checked_add(more).filter(|&sum| i64::try_from(sum).is_ok());
        sum.ok_or_else(|| {
            let (have, most) = (self.counted, i64::MAX);
            Error::argument(format!("{have} and {more} counted positions are more than {most}"))
        })
    }
}
