//! Naive beside fast: `cargo bench -p pie-fast-core --bench select`.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pie_fast_core::select::dense::Dense;
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::select::{Bonus, Limits, Synergy, greedy_select};
use pie_fast_core::simd::Kernel;
use pie_fast_core::synergy::{CsrArrays, Importances, n_pairs, top_per_row, unpack};
use pie_fast_core::topk::{Filter, top_k};
use pie_fast_core::{Cancel, Result, naive};
use std::hint::black_box;

/// Numbers in [-1, 1) that look random.
fn noise(n: usize, seed: u64) -> impl Iterator<Item = f64> {
    (0..n as u64).map(move |i| {
        let mixed = (i + seed * 0x9E37_79B9).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    })
}

fn dense(m: usize) -> (Vec<f64>, Vec<f32>) {
    let packed: Vec<f32> = noise(n_pairs(m), 1).map(|x| x as f32).collect();
    (noise(m, 2).collect(), unpack(&packed, m, &Cancel::new()).unwrap_or_default())
}

/// The strongest 50 of each row of 2,000: a sparse matrix as it comes from a dense one.
fn sparse(m: usize) -> (Vec<f64>, CsrArrays) {
    let joint: Vec<f64> = noise(n_pairs(m), 3).collect();
    let pairs = Importances { joint: &joint, single: &vec![0.0; m], clipped: false };
    let csr = top_per_row(pairs, 50, true, Some(1), &Cancel::new());
    (noise(m, 4).collect(), csr.unwrap_or_default())
}

/// With a number for every pair.
fn filled(csr: &CsrArrays, m: usize) -> Vec<f32> {
    let mut full = vec![0.0; m * m];
    for (row, ends) in csr.indptr.windows(2).enumerate() {
        for at in ends[0] as usize..ends[1] as usize {
            full[row * m + csr.indices[at] as usize] = csr.values[at];
        }
    }
    full
}

fn select(scores: &[f64], synergy: &impl Synergy, k: usize) -> Result<Vec<i64>> {
    let (limits, cancel) = (Limits::default(), Cancel::new());
    Ok(greedy_select(scores, synergy, k, Bonus::Mean, limits, &cancel)?.ids)
}

fn greedy(c: &mut Criterion) {
    let mut group = c.benchmark_group("greedy dense");
    for (m, k) in [(400, 100), (2000, 100), (2000, 800)] {
        let (scores, w) = dense(m);
        let Ok(fast) = Dense::new(&w, m) else { continue };
        let plain = fast.with_kernel(Kernel::plain());
        let size = format!("M={m} k={k}");
        let naive = || {
            naive::greedy_select(&scores, |f, s| f64::from(w[f * m + s]), k, Bonus::Mean)
                .map(|selection| selection.ids)
        };
        // Answers are compared before anything is timed.
        assert_eq!(select(&scores, &fast, k).ok(), naive().ok());
        assert_eq!(select(&scores, &plain, k).ok(), naive().ok());
        group.bench_function(BenchmarkId::new("fast", &size), |b| {
            b.iter(|| select(black_box(&scores), &fast, k));
        });
        group.bench_function(BenchmarkId::new("plain kernel", &size), |b| {
            b.iter(|| select(black_box(&scores), &plain, k));
        });
        if m == 400 {
            group.bench_function(BenchmarkId::new("naive", &size), |b| b.iter(naive));
        }
    }
    group.finish();

    let mut group = c.benchmark_group("greedy sparse");
    let (scores, csr) = sparse(2000);
    let full = filled(&csr, 2000);
    let naive = || {
        naive::greedy_select(&scores, |f, s| f64::from(full[f * 2000 + s]), 100, Bonus::Mean)
            .map(|selection| selection.ids)
    };
    if let Ok(matrix) = Csr::new(&csr.indptr, &csr.indices, &csr.values) {
        for k in [100, 800] {
            // The first of a longer selection are the shorter one.
            let first = select(&scores, &matrix, k).map(|ids| ids[..100].to_vec());
            assert_eq!(first.ok(), naive().ok());
            group.bench_function(BenchmarkId::new("fast", k), |b| {
                b.iter(|| select(black_box(&scores), &matrix, k));
            });
        }
    }
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("naive", 100), |b| b.iter(naive));
    group.finish();
}

fn top(c: &mut Criterion) {
    let mut group = c.benchmark_group("top 400 of 1e6");
    let scores: Vec<f64> = noise(1_000_000, 5).collect();
    let fast = || top_k(&scores, 400, Filter::default(), Some(1), &Cancel::new());
    let ids: Option<Vec<usize>> =
        fast().ok().map(|best| best.iter().map(|one| one.id as usize).collect());
    assert_eq!(ids, naive::top_k(&scores, 400).ok());
    group.bench_function("fast", |b| b.iter(fast));
    group.sample_size(10);
    group.bench_function("naive", |b| b.iter(|| naive::top_k(black_box(&scores), 400)));
    group.finish();
}

fn strongest(c: &mut Criterion) {
    let joint: Vec<f64> = noise(n_pairs(1000), 6).collect();
    let single = vec![0.0; 1000];
    let pairs = Importances { joint: &joint, single: &single, clipped: false };
    let parts = |csr: CsrArrays| (csr.indptr, csr.indices, csr.values);
    let fast = || top_per_row(black_box(pairs), 50, false, Some(1), &Cancel::new());
    let naive = || naive::top_per_row(&joint, &single, 50, false, false);
    assert_eq!(fast().ok().map(parts), Some(parts(naive())));
    let mut group = c.benchmark_group("strongest 50 of 1000 rows");
    group.bench_function("fast", |b| b.iter(fast));
    group.sample_size(10);
    group.bench_function("naive", |b| b.iter(naive));
    group.finish();
}

criterion_group!(benches, greedy, top, strongest);
criterion_main!(benches);
