//! What is kept of one feature.

use super::smallest::Smallest;
use super::{BIN_SHIFT, Limits, N_BINS, SAMPLE, SILENT, TOP};
use crate::error::Result;
use crate::file::reserve;
use crate::mix::{GOLDEN, mix};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The strongest activation in a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    pub sequence: u64,
    pub position: u32,
    pub value: f32,
}

/// A sequence whose activations are kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Why: a mask of [`TOP`], [`SAMPLE`] and [`SILENT`].
    pub kind: u8,
    /// `[n_tokens of it]`, 0 where it does not fire; none where it is silent.
    pub values: Vec<f32>,
}

#[derive(Debug, Clone)]
pub struct Feature {
    /// `[N_BINS]` positions.
    pub histogram: Vec<u64>,
    /// One for each sequence it fires in, in the order they came.
    pub peaks: Vec<Peak>,
    /// By sequence.
    pub kept: BTreeMap<u64, Kept>,
    top: Smallest,
    sample: Smallest,
    silent: Smallest,
}

/// The bits of `|value|`: they order as the magnitudes do.
pub fn magnitude(value: f32) -> u32 {
    value.abs().to_bits()
}

/// The stronger the smaller.
fn weakness(value: f32) -> u64 {
    u64::from(!magnitude(value))
}

/// splitmix64 of the number of a sequence.
fn hash(sequence: u64) -> u64 {
    mix(sequence.wrapping_add(GOLDEN))
}

/// The bin of an activation in [`Feature::histogram`].
pub fn bin(value: f32) -> usize {
    (magnitude(value) >> BIN_SHIFT) as usize
}

impl Feature {
    pub fn new(limits: Limits) -> Result<Self> {
        let mut histogram = Vec::new();
        reserve(&mut histogram, N_BINS)?;
        histogram.resize(N_BINS, 0);
        Ok(Self {
            histogram,
            peaks: Vec::new(),
            kept: BTreeMap::new(),
            top: Smallest::new(limits.n_top),
            sample: Smallest::new(limits.n_sample),
            silent: Smallest::new(limits.n_silent),
        })
    }

    /// A sequence it fires in. Where it is kept, its values are still to be filled in.
    pub fn active(&mut self, peak: Peak) {
        let sequence = peak.sequence;
        self.peaks.push(peak);
        self.offer(TOP, (weakness(peak.value), sequence), Vec::new);
        self.offer(SAMPLE, (hash(sequence), sequence), Vec::new);
    }

    /// A sequence it does not fire in.
    pub fn silent(&mut self, sequence: u64) {
        self.offer(SILENT, (hash(sequence), sequence), Vec::new);
    }

    /// Take over what another one has of other sequences.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.iter_mut().zip(&other.histogram).for_each(|(mine, theirs)| *mine += theirs);
        self.peaks.extend_from_slice(&other.peaks);
        let kinds = [(TOP, &other.top), (SAMPLE, &other.sample), (SILENT, &other.silent)];
        for (kind, smallest) in kinds {
            for (key, sequence) in smallest.pairs() {
                let values = || other.kept.get(&sequence).map(|kept| kept.values.clone());
                self.offer(kind, (key, sequence), || values().unwrap_or_default());
            }
        }
    }

    fn offer(&mut self, kind: u8, pair: (u64, u64), values: impl FnOnce() -> Vec<f32>) {
        let smallest = match kind {
            TOP => &mut self.top,
            SAMPLE => &mut self.sample,
            _ => &mut self.silent,
        };
        if !smallest.wants(pair) {
            return;
        }
        let new = || Kept { kind: 0, values: values() };
        self.kept.entry(pair.1).or_insert_with(new).kind |= kind;
        let Some(gone) = smallest.take(pair) else { return };
        if let Entry::Occupied(mut kept) = self.kept.entry(gone) {
            kept.get_mut().kind &= !kind;
            if kept.get().kind == 0 {
                kept.remove();
            }
        }
    }
}
