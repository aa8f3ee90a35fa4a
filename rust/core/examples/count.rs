//! One piece of work, done so many times: what `benches/instructions.py` counts instructions of.
//!
//! `count greedy-dense|greedy-sparse|top-k|strongest|score|score-signed TIMES`

#![allow(clippy::unwrap_used)] // in `common`, which writes the dump

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Entry, Store, write_dump};
use pie_fast_core::dump::Dump;
use pie_fast_core::score::{RankBy, score};
use pie_fast_core::select::dense::Dense;
use pie_fast_core::select::sparse::Csr;
use pie_fast_core::select::{Bonus, Limits, greedy_select};
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

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (cancel, limits) = (Cancel::new(), Limits::default());
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
        "score" => scores_of_dump(RankBy::MeanAbs, times)?,
        "score-signed" => scores_of_dump(RankBy::Signed, times)?,
        _ => return Err(Error::argument(format!("no work is called {name:?}"))),
    }
    Ok(())
}
