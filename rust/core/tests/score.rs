//! The streaming score against the definition, for any dump, threads and shards.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/cases.rs"]
mod cases;
mod common;

use cases::cases;
use common::{Entry, Store, write_dump};
use pie_fast_core::dump::Dump;
use pie_fast_core::naive;
use pie_fast_core::ranking::{Filter, active_features, top_k};
use pie_fast_core::score::{Fold, RankBy, block_sums, score};
use pie_fast_core::{Cancel, Error, Scored};
use proptest::prelude::*;
use std::collections::BTreeMap;

const N_LAYERS: u64 = 3;
const N_FEATURES: u64 = 7;

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -10.0f32..10.0,
        1 => prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, f32::MIN_POSITIVE / 4.0, 6e4, -6e4]),
        1 => prop::num::f32::NORMAL.prop_filter("fits every store", |v| v.abs() < 6e4),
    ]
}

fn prompt() -> impl Strategy<Value = Vec<Entry>> {
    let pair = (0..(N_LAYERS * N_FEATURES) as u32, 0..4u16);
    prop::collection::btree_map(pair, (value(), value()), 0..12).prop_map(
        |entries: BTreeMap<_, _>| {
            entries.into_iter().map(|((f, p), (a, g))| (f, p, a, g)).collect()
        },
    )
}

/// A few prompts, or enough for three blocks out of a few different ones.
fn prompts() -> impl Strategy<Value = Vec<Vec<Entry>>> {
    prop_oneof![
        3 => prop::collection::vec(prompt(), 0..6),
        1 => (prop::collection::vec(prompt(), 1..9), 200..700usize)
            .prop_map(|(some, n)| (0..n).map(|i| some[i * i % some.len()].clone()).collect()),
    ]
}

fn stored(prompts: &[Vec<Entry>], store: Store) -> Vec<naive::score::Prompt> {
    let round = |a: f32| match store {
        Store::F32 => a,
        Store::F16 => half::f16::from_f32(a).to_f32(),
        Store::Bf16 => half::bf16::from_f32(a).to_f32(),
    };
    let of = |prompt: &Vec<Entry>| prompt.iter().map(|e| (e.0, round(e.2), e.3)).collect();
    prompts.iter().map(of).collect()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn matches_naive(
        prompts in prompts(),
        cuts in prop::collection::vec(0..700usize, 0..4),
        store in prop::sample::select(vec![Store::F32, Store::F16, Store::Bf16]),
        threads in 1..4usize,
        by in 0..RankBy::NAMES.len(),
        k in 0..25usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(prompts.len())).collect();
        cuts.sort_unstable();
        write_dump(folder.path(), &prompts, (N_LAYERS, N_FEATURES), &cuts, store);
        let dump = Dump::open(folder.path()).unwrap();
        let (rank_by, n_ids) = (RankBy::NAMES[by].1, (N_LAYERS * N_FEATURES) as usize);
        let plain = stored(&prompts, store);

        let expected = naive::score::score(&plain, n_ids, rank_by);
        let scores = score(&dump, rank_by, Some(threads), &mut |_, _| Ok(())).unwrap();
        prop_assert_eq!(bits(&scores), bits(&expected));

        // The same in two parts: blocks apart, then joined, range of features by range.
        let middle = (n_ids * k / 25) as u64;
        let (mut apart, mut has_entry) = (Vec::new(), Vec::new());
        for ids in [0..middle, middle..n_ids as u64] {
            let go = Cancel::new();
            let mut fold = Fold::new(rank_by, ids.clone(), &go).unwrap();
            for block in 0..dump.n_prompts().div_ceil(256) {
                let of = block_sums(&dump, rank_by, block, Some(threads), &mut |_, _| Ok(()));
                let of = of.unwrap();
                let begin = of.ids.partition_point(|&id| u64::from(id) < ids.start);
                let end = of.ids.partition_point(|&id| u64::from(id) < ids.end);
                fold.add(&of.ids[begin..end], &of.sums[begin..end], &go).unwrap();
            }
            let (scores, has) = fold.finish(dump.n_prompts(), &go).unwrap();
            apart.extend(scores);
            has_entry.extend(has);
        }
        prop_assert_eq!(bits(&apart), bits(&expected));
        for (id, has) in has_entry.into_iter().enumerate() {
            prop_assert_eq!(has, plain.iter().flatten().any(|e| e.0 as usize == id));
        }

        let mut ranking: Vec<Scored> = (0..n_ids)
            .filter(|&id| plain.iter().flatten().any(|e| e.0 as usize == id))
            .map(|id| Scored::new(id as u64, expected[id]).unwrap())
            .collect();
        ranking.sort();
        let best = top_k(&dump, k, rank_by, &Filter::default(), Some(threads), &mut |_, _| Ok(()));
        if k <= ranking.len() {
            ranking.truncate(k);
            prop_assert_eq!(best.unwrap(), ranking);
        } else {
            prop_assert!(matches!(best, Err(Error::Budget(_))));
        }

        let count = naive::score::score(&plain, n_ids, RankBy::Count);
        let active: Vec<i64> = (0..n_ids).filter(|&i| count[i] > 0.0).map(|i| i as i64).collect();
        prop_assert_eq!(active_features(&dump, None, &mut |_, _| Ok(())).unwrap(), active);
    }
}

/// Slabs that end within blocks, prompts above the size of a piece, several tiles and owners.
#[test]
fn more_features_than_stay_in_cache() {
    let prompts: Vec<Vec<Entry>> = (0..600u32)
        .map(|p| {
            (0..900).map(|i| (i * 1300 + p * 7 % 1300, 0, 1.0, (i + p) as f32 - 700.5)).collect()
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    write_dump(folder.path(), &prompts, (12, 100_000), &[300], Store::F32);
    let dump = Dump::open(folder.path()).unwrap();
    let plain = stored(&prompts, Store::F32);
    for (_, rank_by) in RankBy::NAMES {
        let expected = bits(&naive::score::score(&plain, 1_200_000, rank_by));
        for threads in [1, 2, 5] {
            let scores = score(&dump, rank_by, Some(threads), &mut |_, _| Ok(())).unwrap();
            assert_eq!(bits(&scores), expected, "{rank_by:?} on {threads} threads");
        }
    }
}

#[test]
fn large_prompts_cross_pieces_and_slabs() {
    let mut state = 1u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let n_ids = 300_000;
    let prompts: Vec<Vec<Entry>> = (0..300)
        .map(|i| {
            let step = if i % 50 == 3 { 3 } else { 1 + random() % 25 };
            let mut ids: Vec<u32> = (0..n_ids / 30 * 3 / step)
                .map(|_| random() % n_ids)
                .chain((0..n_ids).step_by(step as usize * 9))
                .collect();
            ids.sort_unstable();
            ids.dedup();
            let mut of = |id: u32, p: u16| (id, p, (id % 7) as f32, (random() as f32).sin());
            ids.into_iter().flat_map(|id| [of(id, 0), of(id, 3)]).collect()
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    write_dump(folder.path(), &prompts, (3, 100_000), &[17, 256], Store::Bf16);
    let dump = Dump::open(folder.path()).unwrap();
    assert!(dump.n_active() > 4_500_000, "{} entries are too few", dump.n_active());
    let plain = stored(&prompts, Store::Bf16);
    for (_, rank_by) in RankBy::NAMES {
        let expected = bits(&naive::score::score(&plain, n_ids as usize, rank_by));
        for threads in [1, 2, 5] {
            let scores = score(&dump, rank_by, Some(threads), &mut |_, _| Ok(())).unwrap();
            assert_eq!(bits(&scores), expected, "{rank_by:?} on {threads} threads");
        }
    }
}

#[test]
fn an_error_of_the_watch_ends_the_work() {
    let folder = tempfile::tempdir().unwrap();
    write_dump(folder.path(), &[vec![(1, 0, 1.0, 1.0)]], (1, 2), &[], Store::F32);
    let dump = Dump::open(folder.path()).unwrap();
    let outcome = score(&dump, RankBy::Signed, None, &mut |_, _| Err(Error::Interrupted));
    assert!(matches!(outcome, Err(Error::Interrupted)));
}
