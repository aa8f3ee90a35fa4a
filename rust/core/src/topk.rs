//! Exact top-k of an array in one pass: score descending, ties to the smaller id, NaN an error.
//!
//! A buffer of at most `2k + 1024` entries is cut back to its best k whenever it is full, and from
//! then on the k-th best so far is a threshold: only a *larger* score gets in, since an equal one
//! comes later and so has the larger id. Whole blocks below the threshold are dismissed by a few
//! vector comparisons; what is left is reading memory. At worst (ascending scores) the buffer is
//! cut N/k times, each in O(k).
//!
//! Without a threshold the first pass over a long array would let in thousands, each at the price
//! of a block looked at number by number. So a sample guesses one that a few times k scores are
//! above; if fewer than k are, the guess was wrong and the array is scanned again without it.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::feature::Scored;
use crate::simd::{self, BLOCK, Vector};
use crate::workers::Workers;
use std::ops::Range;

/// Scores that make a thread worth while.
const PART: usize = 1 << 20;

/// What may be ranked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// `[M]`: false leaves a position out (its score must still be a number).
    pub mask: Option<&'a [bool]>,
    /// Refuse infinite scores too.
    pub finite: bool,
}

/// The k best positions of `scores`.
///
/// # Shapes
/// `scores` `[M]`; the result has length k, or fewer where the mask leaves fewer.
///
/// # Errors
/// k over M, a NaN (or, with `filter.finite`, an infinity) anywhere, a mask of another length,
/// zero threads, an interrupt.
pub fn top_k<S: Vector>(
    scores: &[S],
    k: usize,
    filter: Filter<'_>,
    threads: Option<usize>,
    cancel: &Cancel,
) -> Result<Vec<Scored>> {
    if k > scores.len() {
        return Err(Error::Budget(format!("k {k} exceeds the {} scores", scores.len())));
    }
    same_length(scores, filter)?;
    let workers = Workers::new(threads, scores.len() < 2 * PART)?;
    let parts = workers.count().min(scores.len().div_ceil(PART)).max(1);
    let size = scores.len().div_ceil(parts).next_multiple_of(BLOCK);
    let found = workers.map(parts, |part| {
        let from = (part * size).min(scores.len());
        let to = (from + size).min(scores.len());
        best_in(scores, from..to, k, filter, cancel)
    })?;
    let mut best = found.concat();
    keep_best(&mut best, k);
    best.sort_unstable();
    Ok(best)
}

/// The k best of every layer, as global positions; layer `l` is `scores[l * n_features ..]`.
///
/// # Shapes
/// `scores` `[n_layers * n_features]`; one result per layer, as [`top_k`]'s.
///
/// # Errors
/// k over `n_features`, scores that are not whole layers; otherwise as [`top_k`].
pub fn top_k_per_layer<S: Vector>(
    scores: &[S],
    k: usize,
    n_features: usize,
    filter: Filter<'_>,
    threads: Option<usize>,
    cancel: &Cancel,
) -> Result<Vec<Vec<Scored>>> {
    if n_features == 0 || !scores.len().is_multiple_of(n_features) {
        let n = scores.len();
        return Err(Error::argument(format!("{n} scores are not layers of {n_features}")));
    }
    if k > n_features {
        return Err(Error::Budget(format!("k {k} exceeds the {n_features} scores of a layer")));
    }
    same_length(scores, filter)?;
    let workers = Workers::new(threads, scores.len() < 2 * PART)?;
    workers.map(scores.len() / n_features, |layer| {
        let range = layer * n_features..(layer + 1) * n_features;
        let mut best = best_in(scores, range, k, filter, cancel)?;
        best.sort_unstable();
        Ok(best)
    })
}

fn same_length<S>(scores: &[S], filter: Filter<'_>) -> Result<()> {
    match filter.mask.map(<[bool]>::len) {
        Some(got) if got != scores.len() => {
            Err(Error::argument(format!("mask has length {got}, must be {}", scores.len())))
        }
        _ => Ok(()),
    }
}

/// Cut to the k best, in no order.
fn keep_best(all: &mut Vec<Scored>, k: usize) {
    if k == 0 {
        all.clear();
    } else if all.len() > k {
        all.select_nth_unstable(k - 1);
        all.truncate(k);
    }
}

/// The k best of a range, in no order.
fn best_in<S: Vector>(
    scores: &[S],
    range: Range<usize>,
    k: usize,
    filter: Filter<'_>,
    cancel: &Cancel,
) -> Result<Vec<Scored>> {
    let guessed = guess(&scores[range.clone()], k);
    let found = scan(scores, range.clone(), (k, guessed), filter, cancel)?;
    if guessed.is_none() || found.len() >= k {
        return Ok(found);
    }
    scan(scores, range, (k, None), filter, cancel)
}

/// A score that probably more than k are above, by the maxima of one block in 128; none where so
/// few blocks say nothing.
fn guess<S: Vector>(scores: &[S], k: usize) -> Option<S> {
    const STEP: usize = 128;
    let rank = 2 * k / STEP + 8;
    let blocks = scores.as_chunks::<BLOCK>().0;
    if blocks.len() < 4 * rank * STEP {
        return None;
    }
    let largest = |block: &[S; BLOCK]| {
        block.iter().fold(S::NEG_INFINITY, |most, &score| if score > most { score } else { most })
    };
    let mut maxima: Vec<S> = blocks.iter().step_by(STEP).map(largest).collect();
    let descending = |a: &S, b: &S| b.to_f64().total_cmp(&a.to_f64());
    Some(*maxima.select_nth_unstable_by(rank, descending).1)
}

/// The k best of those above `threshold`, in no order; all that there are where they are fewer.
fn scan<S: Vector>(
    scores: &[S],
    range: Range<usize>,
    (k, mut threshold): (usize, Option<S>),
    filter: Filter<'_>,
    cancel: &Cancel,
) -> Result<Vec<Scored>> {
    let capacity = (2 * k + 1024).min(range.len());
    let mut best: Vec<Scored> = Vec::with_capacity(capacity);
    // Until the buffer was cut once, `None` lets everything in.
    let lowest = if filter.finite { S::MIN } else { S::NEG_INFINITY };
    let mut start = range.start;
    while start < range.end {
        cancel.check()?;
        if let Some(threshold) = threshold {
            let stretch = &scores[start..(start + PART).min(range.end)];
            let blocks = stretch.as_chunks().0;
            let skipped = simd::leading_within(blocks, lowest, threshold);
            start += skipped * BLOCK;
            if skipped == blocks.len() && skipped > 0 {
                continue;
            }
        }
        let block = start..(start + BLOCK).min(range.end);
        for id in block.clone() {
            let score = scores[id];
            if threshold.is_some_and(|threshold| lowest <= score && score <= threshold) {
                continue;
            }
            check(id, score, filter.finite)?;
            if threshold.is_some_and(|threshold| score <= threshold)
                || filter.mask.is_some_and(|mask| !mask[id])
            {
                continue;
            }
            if best.len() == capacity {
                keep_best(&mut best, k);
                threshold = best.get(k.wrapping_sub(1)).map(|last| scores[last.id as usize]);
                if threshold.is_none_or(|threshold| score <= threshold) {
                    continue;
                }
            }
            best.push(Scored { id: id as u64, score: score.to_f64() + 0.0 });
        }
        start = block.end;
    }
    keep_best(&mut best, k);
    Ok(best)
}

fn check<S: Vector>(id: usize, score: S, finite: bool) -> Result<()> {
    if finite && !score.finite() {
        return Err(Error::argument(format!("score of id {id} is {score}, must be finite")));
    }
    if score.to_f64().is_nan() {
        return Err(Error::argument(format!("score of id {id} is NaN, must be a number")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<S: Vector>(scores: &[S], k: usize) -> Result<Vec<u64>> {
        let best = top_k(scores, k, Filter::default(), None, &Cancel::new())?;
        Ok(best.iter().map(|s| s.id).collect())
    }

    #[test]
    fn ties_zeros_and_infinities() -> Result<()> {
        assert_eq!(ids(&[0.0, -0.0, 1.0, 0.0], 4)?, [2, 0, 1, 3]);
        assert_eq!(ids(&[f32::NEG_INFINITY, 1.0, f32::INFINITY], 3)?, [2, 1, 0]);
        assert_eq!(ids::<f64>(&[], 0)?, [0; 0]);
        assert_eq!(ids(&[5.0_f64; 5000], 3)?, [0, 1, 2]);
        assert_eq!(ids(&[f64::NEG_INFINITY; 5000], 3)?, [0, 1, 2]);
        Ok(())
    }

    #[test]
    fn a_nan_anywhere_is_an_error_even_for_k_0() {
        for at in [0, 31, 32, 4999] {
            let mut scores = vec![1.0_f32; 5000];
            scores[at] = f32::NAN;
            for k in [0, 1, 5000] {
                let error = ids(&scores, k).map_err(|e| e.to_string());
                assert_eq!(error, Err(format!("score of id {at} is NaN, must be a number")));
            }
        }
    }

    /// Long enough for a guess: right, too high (the sampled blocks are not like the rest), and of
    /// no use (nothing is above it).
    #[test]
    fn guessed_thresholds_change_nothing() -> Result<()> {
        const N: usize = 1 << 18;
        let mixed = |i: usize| (i.wrapping_mul(0x9E37_79B1) >> 7) % 65_536;
        let sampled = |i: usize| (i / BLOCK).is_multiple_of(128);
        let arrays: [Vec<f32>; 5] = [
            (0..N).map(|i| mixed(i) as f32).collect(),
            (0..N).map(|i| mixed(i) as f32 + if sampled(i) { 1e6 } else { 0.0 }).collect(),
            vec![1.0; N],
            (0..N).map(|i| if sampled(i) { f32::INFINITY } else { -(i as f32) }).collect(),
            (0..N).map(|i| if i < 900 { 1.0 } else { -0.0 }).collect(),
        ];
        for scores in &arrays {
            for k in [1, 200, 3000, N] {
                let wide: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
                let want = crate::naive::top_k(&wide, k)?;
                assert_eq!(ids(scores, k)?, want.iter().map(|&f| f as u64).collect::<Vec<_>>());
            }
            let mut broken = scores.clone();
            broken[N - 1] = f32::NAN;
            assert!(ids(&broken, 1).is_err());
        }
        assert!(guess(&arrays[0], 200).is_some());
        Ok(())
    }

    #[test]
    fn guesses_are_of_one_block_in_128() {
        // Ascending, so that the last number of a block is its largest.
        let scores = |blocks: usize| (0..blocks * BLOCK).map(|i| i as f32).collect::<Vec<_>>();
        let last_of = |block: usize| Some(((block + 1) * BLOCK - 1) as f32);
        // Of 32 sampled blocks the one after 8, and of 44 the one after 11.
        assert_eq!(guess(&scores(4095), 0), None);
        assert_eq!(guess(&scores(4096), 0), last_of(23 * 128));
        assert_eq!(guess(&scores(5631), 200), None);
        assert_eq!(guess(&scores(5632), 200), last_of(32 * 128));
    }

    #[test]
    fn layers_are_ranked_apart_and_named_by_global_ids() -> Result<()> {
        let none = Filter::default();
        for (n_layers, n_features) in [(1, 1), (3, 31), (4, 33), (3, 4000)] {
            let scores: Vec<f64> =
                (0..n_layers * n_features).map(|f| ((f * 7919) % 101) as f64).collect();
            for k in [0, 1, n_features - 1, n_features] {
                for threads in [1, 3] {
                    let got = top_k_per_layer(
                        &scores,
                        k,
                        n_features,
                        none,
                        Some(threads),
                        &Cancel::new(),
                    );
                    let got: Vec<u64> = got?.concat().iter().map(|s| s.id).collect();
                    let mut want = Vec::new();
                    for (layer, scores) in scores.chunks(n_features).enumerate() {
                        let best = crate::naive::top_k(scores, k)?;
                        want.extend(best.iter().map(|f| (layer * n_features + f) as u64));
                    }
                    assert_eq!(got, want);
                }
            }
        }
        let failed = |scores: &[f64], k, n| {
            let done = top_k_per_layer(scores, k, n, none, None, &Cancel::new());
            done.map_err(|e| e.to_string()).err().unwrap_or_default()
        };
        assert_eq!(failed(&[1.0, 2.0], 2, 1), "k 2 exceeds the 1 scores of a layer");
        assert_eq!(failed(&[1.0, 2.0, 3.0], 1, 2), "3 scores are not layers of 2");
        let nan = failed(&[1.0, 2.0, 3.0, f64::NAN], 1, 2);
        assert_eq!(nan, "score of id 3 is NaN, must be a number");
        Ok(())
    }
}
