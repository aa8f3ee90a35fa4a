//! The streaming collector against the definition, for any batches, order, threads and merges.

#![allow(missing_docs, clippy::unwrap_used)]

use pie_fast_core::Cancel;
use pie_fast_core::contexts::{Batch, Collector, Limits, State};
use pie_fast_core::naive::contexts::{Sequence, collect};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => Just(0.0f32),
        3 => prop::sample::select(vec![-0.0, 1.0, -1.0, 2.0, f32::MIN_POSITIVE / 4.0, f32::MAX]),
        2 => -4.0f32..4.0,
    ]
}

/// Ragged sequences with some numbers left out, of K features.
fn corpus() -> impl Strategy<Value = (usize, Vec<Sequence>)> {
    (0..20usize).prop_flat_map(|k| {
        let row = (prop::collection::vec(value(), k), prop::bool::weighted(0.8));
        let sequence = (prop::collection::vec(row, 0..6), prop::bool::weighted(0.2));
        let sequences = prop::collection::vec(sequence, 0..30).prop_map(|all| {
            let mut number = 0;
            let numbered = all.into_iter().map(|(rows, gap)| {
                number += 1 + u64::from(gap);
                let (rows, counted) = rows.into_iter().unzip();
                Sequence { number, rows, counted }
            });
            numbered.collect()
        });
        (Just(k), sequences)
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..6usize, 0..6usize, 0..6usize).prop_map(|(n_top, n_sample, n_silent)| Limits {
        n_top,
        n_sample,
        n_silent,
    })
}

fn add(collector: &mut Collector, sequences: &[Sequence], threads: usize) {
    let Some(first) = sequences.first() else { return };
    let mut ptr = vec![0];
    for sequence in sequences {
        ptr.push(ptr.last().unwrap() + sequence.rows.len() as i64);
    }
    let values: Vec<f32> = sequences.iter().flat_map(|s| s.rows.concat()).collect();
    let counted: Vec<bool> = sequences.iter().flat_map(|s| s.counted.clone()).collect();
    let first = first.number as i64;
    let batch = Batch::new(first, &ptr, &values, collector.n_features(), &counted).unwrap();
    collector.add(&batch, Some(threads), &Cancel::new()).unwrap();
}

/// Runs of sequences without a gap, of at most `most`.
fn batches(sequences: &[Sequence], most: usize) -> Vec<&[Sequence]> {
    let runs = sequences.chunk_by(|a, b| a.number + 1 == b.number);
    runs.flat_map(|run| run.chunks(most)).collect()
}

/// With floats by their bits.
fn bits(state: &State) -> (State, Vec<u32>) {
    let floats = state.peak_value.iter().chain(&state.kept_values);
    (state.clone(), floats.map(|value| value.to_bits()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn matches_naive(
        (k, sequences) in corpus(),
        limits in limits(),
        most in 1..9usize,
        threads in prop::sample::select(vec![1usize, 2, 8]),
        order in any::<u64>(),
        n_parts in 1..4usize,
    ) {
        let expected = bits(&collect(k, limits, &sequences));
        let mut whole = Collector::new(k, limits).unwrap();
        batches(&sequences, usize::MAX).iter().for_each(|batch| add(&mut whole, batch, threads));
        prop_assert_eq!(bits(&whole.state()), expected.clone());

        let mut pieces = batches(&sequences, most);
        pieces.sort_by_key(|piece| piece[0].number.wrapping_mul(order | 1));
        let mut parts = vec![Collector::new(k, limits).unwrap(); n_parts];
        for (i, piece) in pieces.iter().enumerate() {
            add(&mut parts[i % n_parts], piece, 1);
        }
        // As a run that is cut off and goes on from what was saved.
        let mut merged = Collector::from_state(&parts[0].state()).unwrap();
        parts[1..].iter().rev().for_each(|part| merged.merge(part).unwrap());
        prop_assert_eq!(bits(&merged.state()), expected.clone());
        let restored = Collector::from_state(&merged.state()).unwrap();
        prop_assert_eq!(bits(&restored.state()), expected);
    }

    /// Whatever is changed in a state: an error, or a state that is what it says.
    #[test]
    fn a_changed_state_is_refused_or_consistent(
        (k, sequences) in corpus(),
        limits in limits(),
        (array, at, to) in (0..15usize, any::<prop::sample::Index>(), prop_oneof![
            -2..9i64, Just(i64::MAX), Just(i64::MIN), Just(1 << 40)
        ]),
        cut in any::<bool>(),
    ) {
        let before = collect(k, limits, &sequences);
        let mut state = before.clone();
        change(&mut state, array, at, to, cut);
        match Collector::from_state(&state) {
            Ok(collector) => prop_assert_eq!(bits(&collector.state()), bits(&state)),
            Err(error) => {
                prop_assert!(state != before);
                prop_assert!(error.to_string().len() > 10);
            }
        }
    }
}

fn change(state: &mut State, array: usize, at: prop::sample::Index, to: i64, cut: bool) {
    if array >= 12 {
        return change_other(state, array, at, if cut { f32::NAN } else { to as f32 });
    }
    let whole = [
        &mut state.limits,
        &mut state.counts,
        &mut state.seen,
        &mut state.fires,
        &mut state.coactive,
        &mut state.histogram,
        &mut state.peak_ptr,
        &mut state.peak_sequence,
        &mut state.peak_position,
        &mut state.kept_ptr,
        &mut state.kept_sequence,
        &mut state.kept_values_ptr,
    ];
    for values in whole.into_iter().skip(array).take(1) {
        if cut {
            values.pop();
        } else if !values.is_empty() {
            *at.get_mut(values) = to;
        }
    }
}

fn change_other(state: &mut State, array: usize, at: prop::sample::Index, to: f32) {
    match array {
        12 if !state.kept_kind.is_empty() => *at.get_mut(&mut state.kept_kind) = to as u8,
        13 if !state.peak_value.is_empty() => *at.get_mut(&mut state.peak_value) = to,
        14 if !state.kept_values.is_empty() => *at.get_mut(&mut state.kept_values) = to,
        _ => {}
    }
}

/// Sequences longer than a word of bits and than a block of them, features in several states.
#[test]
fn long_sequences_match_naive_on_any_number_of_threads() {
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u32
    };
    let k = 5;
    let lengths = [1500, 31, 0, 32, 33, 64, 1, 1100, 7];
    let sequences: Vec<Sequence> = (0..27)
        .map(|number| {
            let n = lengths[number % lengths.len()];
            let mut value = |feature: usize| {
                let fires = random() % [1, 2, 40, 4000, u32::MAX][feature] == 0;
                if fires { (random() as f32).sin() } else { 0.0 }
            };
            let rows: Vec<Vec<f32>> = (0..n).map(|_| (0..k).map(&mut value).collect()).collect();
            let counted = (0..n).map(|row| row != 0 && row % 100 != 3).collect();
            Sequence { number: number as u64, rows, counted }
        })
        .collect();
    let limits = Limits { n_top: 3, n_sample: 4, n_silent: 2 };
    let expected = bits(&collect(k, limits, &sequences));
    assert!(expected.0.fires[0] > 8000 && expected.0.fires[4] == 0);
    for threads in [1, 2, 8] {
        for most in [1, 5, 27] {
            let mut collector = Collector::new(k, limits).unwrap();
            for batch in batches(&sequences, most) {
                add(&mut collector, batch, threads);
            }
            assert_eq!(bits(&collector.state()), expected, "{threads} threads, batches of {most}");
        }
    }
}
