//! Contexts by the definition: all sequences at once, everything sorted.

use crate::contexts::{Limits, N_BINS, SAMPLE, SILENT, State, TOP};
use std::collections::BTreeSet;

/// One sequence: its number, and of each position the activations of all features and whether it
/// counts.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Its number.
    pub number: u64,
    /// `[n_tokens][K]` activations.
    pub rows: Vec<Vec<f32>>,
    /// `[n_tokens]`.
    pub counted: Vec<bool>,
}

impl Sequence {
    /// One feature's activations, 0 where a position does not count or holds -0.
    fn of(&self, feature: usize) -> Vec<f32> {
        let rows = self.rows.iter().zip(&self.counted);
        rows.map(|(row, &counted)| if counted && row[feature] != 0.0 { row[feature] } else { 0.0 })
            .collect()
    }
}

/// What a collector holds after `sequences`, which ascend.
#[must_use]
pub fn collect(n_features: usize, limits: Limits, sequences: &[Sequence]) -> State {
    let numbers: BTreeSet<i64> = sequences.iter().map(|s| s.number as i64).collect();
    let starts = numbers.iter().filter(|&n| !numbers.contains(&(n - 1)));
    let ends = numbers.iter().filter(|&n| !numbers.contains(&(n + 1)));
    let counted = sequences.iter().flat_map(|s| &s.counted).filter(|&&counted| counted).count();
    let both = |i: usize, j: usize| {
        let of = |s: &Sequence| {
            s.of(i).into_iter().zip(s.of(j)).filter(|&(a, b)| a != 0.0 && b != 0.0).count()
        };
        sequences.iter().map(of).sum::<usize>() as i64
    };
    let mut state = State {
        limits: vec![limits.n_top as i64, limits.n_sample as i64, limits.n_silent as i64],
        counts: vec![sequences.len() as i64, counted as i64],
        seen: starts.zip(ends).flat_map(|(&start, &end)| [start, end + 1]).collect(),
        fires: (0..n_features).map(|i| both(i, i)).collect(),
        coactive: (0..n_features * n_features)
            .map(|at| both(at / n_features, at % n_features))
            .collect(),
        peak_ptr: vec![0],
        kept_ptr: vec![0],
        kept_values_ptr: vec![0],
        ..State::default()
    };
    for feature in 0..n_features {
        one(feature, limits, sequences, &mut state);
    }
    state
}

fn one(feature: usize, limits: Limits, sequences: &[Sequence], state: &mut State) {
    let mut histogram = vec![0; N_BINS];
    let (mut peaks, mut silent): (Vec<(u64, usize, f32)>, Vec<u64>) = (Vec::new(), Vec::new());
    for sequence in sequences {
        let values = sequence.of(feature);
        for value in values.iter().filter(|value| **value != 0.0) {
            histogram[(value.abs().to_bits() >> 20) as usize] += 1;
        }
        let most = values.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
        match values.iter().position(|value| most > 0.0 && value.abs() == most) {
            Some(at) => peaks.push((sequence.number, at, values[at])),
            None => silent.push(sequence.number),
        }
    }
    let mut top = peaks.clone();
    top.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()).then(a.0.cmp(&b.0)));
    let top: Vec<u64> = top.iter().map(|peak| peak.0).take(limits.n_top).collect();
    let sample = smallest(peaks.iter().map(|peak| peak.0).collect(), limits.n_sample);
    let silent = smallest(silent, limits.n_silent);
    for sequence in sequences {
        let of = |kind: u8, kept: &[u64]| if kept.contains(&sequence.number) { kind } else { 0 };
        let kind = of(TOP, &top) | of(SAMPLE, &sample) | of(SILENT, &silent);
        if kind == 0 {
            continue;
        }
        state.kept_sequence.push(sequence.number as i64);
        state.kept_kind.push(kind);
        if kind != SILENT {
            state.kept_values.extend(sequence.of(feature));
        }
        state.kept_values_ptr.push(state.kept_values.len() as i64);
    }
    state.kept_ptr.push(state.kept_sequence.len() as i64);
    state.histogram.extend(histogram);
    state.peak_sequence.extend(peaks.iter().map(|peak| peak.0 as i64));
    state.peak_position.extend(peaks.iter().map(|peak| peak.1 as i64));
    state.peak_value.extend(peaks.iter().map(|peak| peak.2));
    state.peak_ptr.push(state.peak_sequence.len() as i64);
}

/// The `n` whose splitmix64 hashes are smallest.
fn smallest(mut sequences: Vec<u64>, n: usize) -> Vec<u64> {
    sequences.sort_by_key(|&sequence| splitmix64(sequence));
    sequences.truncate(n);
    sequences
}

/// The output of splitmix64 seeded with `seed` (Steele, Lea, Flood 2014).
fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
