//! The streaming score beside its naive version, answers asserted equal.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Entry, Store, write_dump};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pie_fast_core::dump::Dump;
use pie_fast_core::naive;
use pie_fast_core::score::{RankBy, score};

const N_LAYERS: u64 = 26;
const N_FEATURES: u64 = 16_384;

/// Prompts of about 2,000 entries each; low ids are frequent.
fn prompts(n: usize) -> Vec<Vec<Entry>> {
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    let n_ids = (N_LAYERS * N_FEATURES) as f64;
    let mut prompt = || {
        let mut ids: Vec<u32> = (0..2000).map(|_| (n_ids * random().powi(3)) as u32).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(|id| (id, 0, 1.0, random() as f32 - 0.5)).collect()
    };
    (0..n).map(|_| prompt()).collect()
}

fn bench(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let prompts = prompts(512);
    write_dump(folder.path(), &prompts, (N_LAYERS, N_FEATURES), &[], Store::F32);
    let dump = Dump::open(folder.path()).unwrap();
    let plain: Vec<naive::score::Prompt> =
        prompts.iter().map(|p| p.iter().map(|e| (e.0, e.2, e.3)).collect()).collect();
    let n_ids = (N_LAYERS * N_FEATURES) as usize;
    let by_definition = || naive::score::score(&plain, n_ids, RankBy::MeanAbs);
    let stream = |threads| score(&dump, RankBy::MeanAbs, threads, &mut |_, _| Ok(())).unwrap();
    assert_eq!(stream(Some(2)), by_definition());

    let mut group = criterion.benchmark_group("score mean_abs");
    group.throughput(Throughput::Elements(dump.n_active())).sample_size(10);
    group.bench_function("naive, in memory", |b| b.iter(by_definition));
    for threads in [1, 2] {
        group.bench_with_input(BenchmarkId::new("threads", threads), &threads, |b, &threads| {
            b.iter(|| stream(Some(threads)));
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
