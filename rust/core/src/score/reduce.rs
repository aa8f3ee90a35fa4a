//! Step 1: the entries of each prompt and feature become one number.

use crate::dump::{Piece, Rows, Want};
use crate::error::Result;
use crate::file::reserve;
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

    /// Ids of all prompts, one after the other.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The number of each id, never -0.0.
    pub fn sums(&self) -> &[f64] {
        &self.sums
    }

    /// Where each prompt ends in `ids`.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// Read the piece and reduce it.
    pub fn load(&mut self, rows: &mut Rows, want: Want, rank_by: RankBy) -> Result<()> {
        self.ids.clear();
        self.sums.clear();
        self.ends.clear();
        let Some(piece) = self.piece.clone() else { return Ok(()) };
        rows.load(&piece.shard, piece.prompts.clone(), want)?;
        reserve(&mut self.ids, piece.len())?;
        reserve(&mut self.sums, piece.len())?;
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
        for pair in ptr.windows(2) {
            let (from, to) = ((pair[0] - ptr[0]) as usize, (pair[1] - ptr[0]) as usize);
            let (ids, values) = (&ids[from..to], &values[from..to]);
            let mut i = 0;
            while i < ids.len() {
                let id = ids[i];
                let mut sum = 0.0;
                while i < ids.len() && ids[i] == id {
                    sum = fold(sum, values[i]);
                    i += 1;
                }
                self.ids.push(id);
                self.sums.push(finish(sum));
            }
            self.ends.push(self.ids.len());
        }
    }
}
