//! Calls from several threads at once, some of them stopped: the answer of one alone, or none.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Entry, Store, write_dump};
use pie_fast_core::dump::Dump;
use pie_fast_core::score::{RankBy, score};
use pie_fast_core::select::dense::Dense;
use pie_fast_core::select::{Bonus, select_many};
use pie_fast_core::topk::{Filter, top_k};
use pie_fast_core::{Cancel, Error, Result};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

const CALLERS: usize = 4;
const ROUNDS: usize = 6;

/// `work` by several callers at once, half of them with a flag that somebody sets at some time.
fn stress<T: PartialEq + Send + Sync>(work: impl Fn(&Cancel) -> Result<T> + Sync) {
    let alone = work(&Cancel::new()).unwrap();
    let whole = AtomicUsize::new(0);
    for round in 0..ROUNDS {
        let (flags, start) = ([Cancel::new(), Cancel::new()], Barrier::new(CALLERS + 1));
        std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                let (flag, start, alone, work, whole) =
                    (&flags[caller % 2], &start, &alone, &work, &whole);
                scope.spawn(move || {
                    start.wait();
                    match work(flag) {
                        Ok(found) => {
                            assert!(found == *alone, "another answer than alone");
                            whole.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            let asked = caller % 2 == 1 && matches!(error, Error::Interrupted);
                            assert!(asked, "{error}");
                        }
                    }
                });
            }
            start.wait();
            (0..round * round * 50).for_each(|_| std::thread::yield_now());
            flags[1].cancel();
        });
    }
    assert!(whole.into_inner() >= ROUNDS * CALLERS / 2);
}

/// Numbers that look random, some of them equal.
fn noise(n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50) as f32 - 8000.0).collect()
}

#[test]
fn the_best_of_many() {
    // Two parts and a bit, so that the threads have something to share.
    let scores = noise((1 << 21) + 12_345);
    stress(|cancel| top_k(&scores, 300, Filter::default(), Some(3), cancel));
}

#[test]
fn many_selections() {
    let (m, n_rows) = (100, 12);
    let mut matrix = vec![0.0_f32; m * m];
    for i in 0..m {
        for j in 0..m {
            matrix[i * m + j] = (i * j % 17) as f32 - 8.0;
        }
    }
    let (scores, dense) = (noise(n_rows * m), Dense::new(&matrix, m).unwrap());
    stress(|cancel| select_many(&scores, n_rows, &dense, 20, Bonus::Mean, Some(3), cancel));
}

#[test]
fn scores_of_one_dump() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = |seed: u32| -> Vec<Entry> {
        (0..900).map(|i| (i * 450 + seed % 450, 0, 1.0, (i + seed) as f32)).collect()
    };
    let prompts: Vec<_> = (0..300).map(prompt).collect();
    // So many features that their totals lie in huge pages.
    write_dump(folder.path(), &prompts, (26, 16_384), &[100], Store::F32);
    let dump = Dump::open(folder.path()).unwrap();
    stress(|cancel| {
        let scores = score(&dump, RankBy::MeanAbs, Some(3), &mut |_, _| cancel.check())?;
        Ok(scores.into_iter().map(f64::to_bits).collect::<Vec<_>>())
    });
}
