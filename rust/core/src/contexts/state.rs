//! Everything that a collector holds, as plain arrays.

use super::{Collector, Limits, N_BINS};

/// The arrays of a [`Collector`]; equal collections have equal states.
///
/// K features; ranges of sequences, peaks and kept sequences ascend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// `[3]` n_top, n_sample, n_silent.
    pub limits: Vec<i64>,
    /// `[2]` sequences, counted positions.
    pub counts: Vec<i64>,
    /// `[n, 2]` first and after the last sequence of each range that was added.
    pub seen: Vec<i64>,
    /// `[K]` counted positions with an activation that is not 0.
    pub fires: Vec<i64>,
    /// `[K, K]` positions where both fire.
    pub coactive: Vec<i64>,
    /// `[K, N_BINS]` positions by `|activation|`.
    pub histogram: Vec<i64>,
    /// `[K + 1]` where each feature's peaks start.
    pub peak_ptr: Vec<i64>,
    /// `[n_peaks]` the sequence.
    pub peak_sequence: Vec<i64>,
    /// `[n_peaks]` the position in it.
    pub peak_position: Vec<i64>,
    /// `[n_peaks]` the activation there.
    pub peak_value: Vec<f32>,
    /// `[K + 1]` where each feature's kept sequences start.
    pub kept_ptr: Vec<i64>,
    /// `[n_kept]` the sequence.
    pub kept_sequence: Vec<i64>,
    /// `[n_kept]` a mask of [`super::TOP`], [`super::SAMPLE`] and [`super::SILENT`].
    pub kept_kind: Vec<u8>,
    /// `[n_kept + 1]` where the activations of each start.
    pub kept_values_ptr: Vec<i64>,
    /// Activations at all positions of the kept sequences it fires in, 0 where not counted.
    pub kept_values: Vec<f32>,
}

impl Collector {
    /// A copy of everything.
    #[must_use]
    pub fn state(&self) -> State {
        let k = self.n_features();
        let Limits { n_top, n_sample, n_silent } = self.limits;
        let ends = self.seen.ranges().iter().flat_map(|range| [range.start, range.end]);
        let pair = |i: usize, j: usize| self.pairs[i.min(j) * k + i.max(j)] as i64;
        let mut state = State {
            limits: [n_top, n_sample, n_silent]
                .map(|n| i64::try_from(n).unwrap_or(i64::MAX))
                .into(),
            counts: vec![self.seen.n_sequences() as i64, self.counted as i64],
            seen: ends.map(|end| end as i64).collect(),
            fires: (0..k).map(|i| pair(i, i)).collect(),
            coactive: (0..k * k).map(|at| pair(at / k, at % k)).collect(),
            histogram: Vec::with_capacity(k * N_BINS),
            peak_ptr: vec![0],
            kept_ptr: vec![0],
            kept_values_ptr: vec![0],
            ..State::default()
        };
        for feature in &self.features {
            state.histogram.extend(feature.histogram.iter().map(|&count| count as i64));
            let mut peaks = feature.peaks.clone();
            peaks.sort_unstable_by_key(|peak| peak.sequence);
            state.peak_sequence.extend(peaks.iter().map(|peak| peak.sequence as i64));
            state.peak_position.extend(peaks.iter().map(|peak| i64::from(peak.position)));
            state.peak_value.extend(peaks.iter().map(|peak| peak.value));
            state.peak_ptr.push(state.peak_sequence.len() as i64);
            for (&sequence, kept) in &feature.kept {
                state.kept_sequence.push(sequence as i64);
                state.kept_kind.push(kept.kind);
                state.kept_values.extend_from_slice(&kept.values);
                state.kept_values_ptr.push(state.kept_values.len() as i64);
            }
            state.kept_ptr.push(state.kept_sequence.len() as i64);
        }
        state
    }
}
