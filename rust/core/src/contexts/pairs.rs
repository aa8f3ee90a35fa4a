//! Positions where two features fire, from bit sets of the positions where each does.

use crate::error::Result;
use crate::workers::Workers;

/// Add to `pairs` `[k, k]`, on and above its diagonal, the positions that two rows of `firing`
/// `[k, n_words]` share.
pub fn count(
    firing: &[u64],
    n_words: usize,
    k: usize,
    pairs: &mut [u64],
    workers: &Workers,
) -> Result<()> {
    let row = |i: usize| &firing[i * n_words..(i + 1) * n_words];
    let mut rows: Vec<&mut [u64]> = pairs.chunks_mut(k.max(1)).collect();
    workers.each(&mut rows, |i, counts| {
        for (j, count) in counts.iter_mut().enumerate().skip(i) {
            *count += row(i)
                .iter()
                .zip(row(j))
                .map(|(a, b)| u64::from((a & b).count_ones()))
                .sum::<u64>();
        }
        Ok(())
    })
}
