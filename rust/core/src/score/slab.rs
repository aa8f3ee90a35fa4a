//! A slab of the dump in memory: read, checked, and not added up yet.

use crate::dump::{Column, Piece, Pieces, Scratch};
use crate::error::Result;
use crate::huge;
use crate::workers::{Spare, Workers};

/// Entries of a slab: a quarter to twice as many are in memory at once, 8 bytes each.
const SLAB: usize = 1 << 20;

/// Entries of a piece, which one thread loads at once: it stays in cache while it is checked.
const PIECE: usize = 1 << 15;

/// The next pieces of a dump and room for their entries, used again for every slab.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    pieces: Vec<Piece>,
    ids: Vec<u32>,
    values: Vec<f32>,
    scratch: Spare<Scratch>,
}

impl Slab {
    /// Take the next pieces, read and check them; none at the end of the dump.
    pub fn next(
        &mut self,
        pieces: &mut Pieces<'_>,
        column: Column,
        workers: &Workers,
        pause: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Vec<Part<'_>>> {
        self.choose(pieces, pause)?;
        let n = self.pieces.iter().map(Piece::len).sum();
        let mut ids = huge::room(&mut self.ids, n)?;
        let mut values = huge::room(&mut self.values, n)?;
        let mut parts = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let (part_ids, part_values);
            (part_ids, ids) = ids.split_at_mut(piece.len());
            (part_values, values) = values.split_at_mut(piece.len());
            parts.push(Part { piece, ids: part_ids, values: part_values });
        }
        let load = |_, part: &mut Part<'_>| self.scratch.with(|buffers| part.load(buffers, column));
        workers.each(&mut parts, load)?;
        Ok(parts)
    }

    /// Let go of the dump's files, and of rooms that only a prompt of unusual size needs.
    pub fn close(&mut self) {
        self.pieces.clear();
        if self.ids.len() > 4 * SLAB {
            *self = Self::default();
        }
    }

    fn choose(
        &mut self,
        pieces: &mut Pieces<'_>,
        pause: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        // The second bound is for prompts without entries, which would fill no slab.
        const MAX_PIECES: usize = 1 << 12;
        self.pieces.clear();
        let (mut entries, mut at_block_end) = (0, false);
        // Slabs end where blocks end if they can: a block in two slabs is added to the totals by
        // a sweep over all features.
        while entries < 2 * SLAB
            && !(at_block_end && entries >= SLAB / 4)
            && self.pieces.len() < MAX_PIECES
        {
            let Some(piece) = pieces.next(PIECE, pause)? else { break };
            entries += piece.len();
            at_block_end = piece.ends_block;
            self.pieces.push(piece);
        }
        Ok(())
    }
}

/// The ids and values of one piece, as the file has them.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    piece: &'a Piece,
    ids: &'a mut [u32],
    values: &'a mut [f32],
}

impl Part<'_> {
    /// Whether a block ends with it.
    pub fn ends_block(&self) -> bool {
        self.piece.ends_block
    }

    /// Number of prompts.
    pub fn n_prompts(&self) -> usize {
        self.piece.prompts.len()
    }

    /// Ids of all prompts, one after the other; they never fall within a prompt.
    pub fn ids(&self) -> &[u32] {
        self.ids
    }

    /// The value of each entry.
    pub fn values(&self) -> &[f32] {
        self.values
    }

    /// Where each prompt ends in `ids`.
    pub fn ends(&self) -> impl Iterator<Item = usize> {
        let ptr = &self.piece.shard.prompt_ptr[self.piece.prompts.start..=self.piece.prompts.end];
        ptr[1..].iter().map(move |&end| (end - ptr[0]) as usize)
    }

    fn load(&mut self, scratch: &mut Scratch, column: Column) -> Result<()> {
        let Piece { shard, prompts, .. } = self.piece;
        scratch.read_features(shard, prompts.clone(), self.ids)?;
        scratch.read_values(shard, column, shard.prompt_ptr[prompts.start], self.values)
    }
}
