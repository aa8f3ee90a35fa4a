//! Step 1: the entries of each prompt and feature become one number.

use crate::dump::{Piece, Rows, Want};
use crate::error::Result;
use crate::file::room;
use crate::score::RankBy;

/// A piece and what it was reduced to: per prompt, ascending ids and one number for each.
#[derive(Debug, Default)]
pub(crate) struct Part {
    piece: Option<Piece>,
    ids: Vec<u32>,
    sums: Vec<f64>,
    ends: Vec<usize>,
}

impl Part {
    /// Take another piece.
    pub fn assign(&mut self, piece: Piece) {
        self.piece = Some(piece);
    }

    /// Number of entries before the reduction.
    pub fn n_entries(&self) -> usize {
        self.piece.as_ref().map_or(0, Piece::len)
    }

    /// Whether a block ends with it.
    pub fn ends_block(&self) -> bool {
        self.piece.as_ref().is_none_or(|piece| piece.ends_block)
    }

    fn n(&self) -> usize {
        self.ends.last().map_or(0, |&end| end)
    }

    /// Ids of all prompts, one after the other.
    pub fn ids(&self) -> &[u32] {
        &self.ids[..self.n()]
    }

    /// The number of each id, never -0.0.
    pub fn sums(&self) -> &[f64] {
        &self.sums[..self.n()]
    }

    /// Where each prompt ends in `ids`.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// Read the piece and reduce it.
    pub fn load(&mut self, rows: &mut Rows, want: Want, rank_by: RankBy) -> Result<()> {
        self.ends.clear();
        let Some(piece) = self.piece.clone() else { return Ok(()) };
        rows.load(&piece.shard, piece.prompts.clone(), want)?;
        room(&mut self.ids, piece.len())?;
        room(&mut self.sums, piece.len())?;
        let values = if want.attribution { rows.attributions() } else { rows.activations() };
        let rows = (rows.features(), values);
        let add = |sum: f64, v: f32| sum + f64::from(v);
        match rank_by {
            RankBy::Signed | RankBy::Abs => self.reduce(&piece, rows, add, |sum| sum),
            RankBy::MeanAbs => self.reduce(&piece, rows, add, f64::abs),
            RankBy::Magnitude => {
                self.reduce(&piece, rows, |sum, v| sum + f64::from(v.abs()), |sum| sum)
            }
            RankBy::Max => self.reduce(&piece, rows, |max, v| max.max(f64::from(v.abs())), |m| m),
            RankBy::Count => {
                self.reduce(&piece, rows, |any, v| if v == 0.0 { any } else { 1.0 }, |any| any)
            }
        }
        Ok(())
    }

    fn reduce(
        &mut self,
        piece: &Piece,
        (ids, values): (&[u32], &[f32]),
        fold: impl Fn(f64, f32) -> f64,
        finish: impl Fn(f64) -> f64,
    ) {
        let ptr = &piece.shard.prompt_ptr[piece.prompts.start..=piece.prompts.end];
        let mut end = 0;
        for pair in ptr.windows(2) {
            let (from, to) = ((pair[0] - ptr[0]) as usize, (pair[1] - ptr[0]) as usize);
            // As much room as there are entries is left, and each run takes one place.
            let out = (&mut self.ids[end..end + to - from], &mut self.sums[end..end + to - from]);
            end += reduce_runs((&ids[from..to], &values[from..to]), out, &fold, &finish);
            self.ends.push(end);
        }
    }
}

/// Reduce each run of equal ids to one number; how many runs there were. All slices have the same
/// length.
#[inline]
fn reduce_runs(
    (ids, values): (&[u32], &[f32]),
    (out_ids, out_sums): (&mut [u32], &mut [f64]),
    fold: impl Fn(f64, f32) -> f64,
    finish: impl Fn(f64) -> f64,
) -> usize {
    let n = ids.len();
    let (values, out_ids, out_sums) = (&values[..n], &mut out_ids[..n], &mut out_sums[..n]);
    let (mut i, mut runs) = (0, 0);
    while i < n {
        let id = ids[i];
        let mut sum = fold(0.0, values[i]);
        i += 1;
        while i < n && ids[i] == id {
            sum = fold(sum, values[i]);
            i += 1;
        }
        out_ids[runs] = id;
        out_sums[runs] = finish(sum);
        runs += 1;
    }
    runs
}
