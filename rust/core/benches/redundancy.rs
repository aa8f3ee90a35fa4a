//! Decoder rows and their cosines beside naive versions: `cargo bench -p pie-fast-core --bench
//! redundancy`.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use pie_fast_core::Cancel;
use pie_fast_core::decoder::Decoder;
use pie_fast_core::redundancy::redundancy;
use std::hint::black_box;
use std::path::Path;

const N_FEATURES: usize = 2048;
const D_MODEL: usize = 256;
const POOL: usize = 200;

/// A float32 decoder of one layer, and its numbers.
fn write_decoder(path: &Path) -> Vec<f32> {
    let noise = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
    let values: Vec<f32> = (0..N_FEATURES * D_MODEL).map(noise).collect();
    let shape = format!("[{N_FEATURES},1,{D_MODEL}]");
    let end = 4 * values.len();
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
    values
}

/// Rows one after another.
fn naive_rows(values: &[f32], ids: &[i64]) -> Vec<f32> {
    let row = |id: &i64| &values[*id as usize * D_MODEL..][..D_MODEL];
    ids.iter().flat_map(row).copied().collect()
}

/// By definition, in float64.
fn naive_cosines(rows: &[f32]) -> Vec<f64> {
    let rows: Vec<&[f32]> = rows.chunks(D_MODEL).collect();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    rows.iter().flat_map(|a| rows.iter().map(|b| cosine(a, b))).collect()
}

fn bench(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let values = write_decoder(&path);
    let ids: Vec<i64> = (0..POOL as i64).map(|i| i * 7 % N_FEATURES as i64).collect();
    let decoder = Decoder::open(&path, "w").unwrap();
    let rows = || {
        let mut out = vec![0.0; POOL * D_MODEL];
        decoder.rows(&ids, Some(1), &mut out, &Cancel::new()).unwrap();
        out
    };
    assert_eq!(rows(), naive_rows(&values, &ids));
    let mut group = c.benchmark_group("200 decoder rows");
    group.bench_function("fast, from a file", |b| b.iter(rows));
    group.bench_function("naive, in memory", |b| {
        b.iter(|| naive_rows(black_box(&values), &ids));
    });
    group.finish();

    let features: Vec<(usize, usize)> = ids.iter().map(|&id| (0, id as usize)).collect();
    let decoders = [Some(Decoder::open(&path, "w").unwrap())];
    let fast = || redundancy(&decoders, &features, None, Some(1), &mut |_, _| Ok(())).unwrap();
    let picked = rows();
    let naive = || naive_cosines(black_box(&picked));
    // Sums of float32 products round; 1e-5 is far below what separates two features.
    assert_eq!(fast().len(), POOL * POOL);
    assert!(fast().iter().zip(naive()).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-5));
    let mut group = c.benchmark_group("redundancy of 200");
    group.bench_function("fast", |b| b.iter(fast));
    group.sample_size(10);
    group.bench_function("naive", |b| b.iter(naive));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
