//! One piece of work, done so many times: what `benches/instructions.py` counts instructions of.
//!
//! `count NAME TIMES`, with `PIE_FAST_KERNELS` for other kernels than the processor's best; prints
//! which ran. The names are those of `main`.

#![allow(clippy::unwrap_used)] // in `common`, which writes the dump

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Entry, Store, write_dump};
use pie_fast_core::contexts::{Batch, Collector, Limits as Kept};
use pie_fast_core::cpu::choose;
use pie_fast_core::decoder::Decoder;
use pie_fast_core::dump::Dump;
use pie_fast_core::redundancy::redundancy;
use pie_fast_core::score::{RankBy, score};
use pie_fast_core::select::dense::Dense;
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::select::{Bonus, Limits, Synergy, greedy_select};
use pie_fast_core::synergy::{Importances, n_pairs, top_per_row, unpack};
use pie_fast_core::topk::{Filter, top_k};
use pie_fast_core::{Cancel, Error, Result};
use std::hint::black_box;

/// Numbers in [-1, 1) that look random.
fn noise(n: usize, seed: u64) -> Vec<f64> {
    let one = |i: u64| {
        let mixed = (i + seed * 0x9E37_79B9).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..n as u64).map(one).collect()
}

/// 64 prompts of at most 2,000 entries over 26 layers of 1,024 features; low ids are frequent.
fn prompts() -> Vec<Vec<Entry>> {
    let one = |seed| {
        let mut ids: Vec<u32> =
            noise(2000, seed).iter().map(|x| (x.abs().powi(3) * 26.0 * 1024.0) as u32).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().zip(noise(2000, seed + 100)).map(|(id, x)| (id, 0, 1.0, x as f32)).collect()
    };
    // Seed 0 begins with -1 itself, whose id would be one too large.
    (1..=64).map(one).collect()
}

/// The whole pass over a dump: read, checked, added in the fixed order.
fn scores_of_dump(rank_by: RankBy, times: usize) -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    write_dump(folder.path(), &prompts(), (26, 1024), &[], Store::F32);
    let dump = Dump::open(folder.path())?;
    for _ in 0..times {
        black_box(score(&dump, rank_by, Some(1), &mut |_, _| Ok(()))?);
    }
    Ok(())
}

/// Decoders of two layers of 128 features and width 256, bf16: what `work` does with them.
fn with_decoders(work: impl FnOnce(&[Option<Decoder>]) -> Result<()>) -> Result<()> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let numbers: Vec<u16> =
        noise(128 * 3 * 256, 4).iter().map(|&x| half::bf16::from_f64(x).to_bits()).collect();
    let middle = 2 * 128 * 2 * 256;
    let header = format!(
        r#"{{"a":{{"dtype":"BF16","shape":[128,2,256],"data_offsets":[0,{middle}]}},"b":{{"dtype":"BF16","shape":[128,1,256],"data_offsets":[{middle},{}]}}}}"#,
        2 * numbers.len()
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    std::fs::write(file.path(), bytes).unwrap();
    work(&[Some(Decoder::open(file.path(), "a")?), Some(Decoder::open(file.path(), "b")?)])
}

fn redundancy_of_decoders(times: usize) -> Result<()> {
    let features: Vec<_> = (0..256).map(|i| (i % 2, i / 2)).collect();
    with_decoders(|decoders| {
        for _ in 0..times {
            black_box(redundancy(decoders, &features, None, Some(1), &mut |_, _| Ok(()))?);
        }
        Ok(())
    })
}

fn rows_of_decoder(times: usize) -> Result<()> {
    let ids: Vec<i64> = (0..128).map(|i| i * 77 % 128).collect();
    with_decoders(|decoders| {
        let mut out = vec![0.0; ids.len() * 2 * 256];
        for _ in 0..times {
            for decoder in &decoders[..1] {
                let decoder = decoder.as_ref().ok_or(Error::Interrupted)?;
                decoder.rows(&ids, Some(1), &mut out, &Cancel::new())?;
            }
            black_box(&out);
        }
        Ok(())
    })
}

/// 128 sequences of 64 positions and 48 features, of which one in ten fires.
fn contexts_of_batches(times: usize) -> Result<()> {
    let (n, length, k) = (128, 64, 48);
    let fires = |x: f64| if x.abs() > 0.9 { x as f32 } else { 0.0 };
    let values: Vec<f32> = noise(n * length * k, 5).into_iter().map(fires).collect();
    let ptr: Vec<i64> = (0..=n).map(|i| (i * length) as i64).collect();
    let counted = vec![true; n * length];
    let mut collector = Collector::new(k, Kept { n_top: 10, n_sample: 20, n_silent: 20 })?;
    for time in 0..times {
        let batch = Batch::new((time * n) as i64, &ptr, &values, k, &counted)?;
        collector.add(&batch, Some(1), &Cancel::new())?;
    }
    black_box(collector.state());
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (cancel, limits) = (Cancel::new(), Limits::default());
    println!("{}", choose()?.name());
    let m = 1000;
    let (scores, joint) = (noise(m, 1), noise(n_pairs(m), 2));
    let pairs = Importances { joint: &joint, single: &vec![0.0; m], clipped: false };
    match name.as_str() {
        "greedy-dense" => {
            let packed: Vec<f32> = joint.iter().map(|&x| x as f32).collect();
            let full = unpack(&packed, m, &cancel)?;
            let matrix = Dense::new(&full, m)?;
            for _ in 0..times {
                black_box(greedy_select(&scores, &matrix, 200, Bonus::Mean, limits, &cancel)?);
            }
        }
        "check" => {
            let packed: Vec<f32> = joint.iter().map(|&x| x as f32).collect();
            let full = unpack(&packed, m, &cancel)?;
            let matrix = Dense::new(&full, m)?;
            for _ in 0..times {
                matrix.check(Some(1), &cancel)?;
            }
        }
        "greedy-sparse" => {
            let csr = top_per_row(pairs, 20, true, Some(1), &cancel)?;
            let matrix = Csr::new(&csr.indptr, &csr.indices, &csr.values)?;
            for _ in 0..times {
                black_box(greedy_select(&scores, &matrix, 200, Bonus::Mean, limits, &cancel)?);
            }
        }
        "top-k" => {
            let many = noise(1_000_000, 3);
            for _ in 0..times {
                black_box(top_k(&many, 400, Filter::default(), Some(1), &cancel)?);
            }
        }
        "strongest" => {
            for _ in 0..times {
                black_box(top_per_row(pairs, 20, false, Some(1), &cancel)?);
            }
        }
        "redundancy" => redundancy_of_decoders(times)?,
        "rows" => rows_of_decoder(times)?,
        "contexts" => contexts_of_batches(times)?,
        "score" => scores_of_dump(RankBy::MeanAbs, times)?,
        "score-signed" => scores_of_dump(RankBy::Signed, times)?,
        _ => return Err(Error::argument(format!("no work is called {name:?}"))),
    }
    Ok(())
}
