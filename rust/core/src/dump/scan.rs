//! One pass over a dump in pieces: a few whole prompts of one shard and one block.

use crate::dump::{BLOCK, Dump, Shard};
use crate::error::Result;
use crate::workers::Workers;
use std::ops::Range;
use std::sync::Arc;

/// A run of prompts that is read at once. It lies in one shard and in one block.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub shard: Arc<Shard>,
    /// Prompts, counted within the shard.
    pub prompts: Range<usize>,
    /// Whether the block ends with this piece.
    pub ends_block: bool,
}

impl Piece {
    /// Number of entries.
    pub fn len(&self) -> usize {
        let ptr = &self.shard.prompt_ptr;
        (ptr[self.prompts.end] - ptr[self.prompts.start]) as usize
    }
}

/// Cuts prompts `next .. end` of a dump into pieces, in order; `workers` check each shard first.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    dump: &'a Dump,
    workers: &'a Workers,
    open: Option<Arc<Shard>>,
    index: usize,
    next: u64,
    end: u64,
}

impl<'a> Pieces<'a> {
    /// Over the prompts `prompts`, which the dump has.
    pub fn new(dump: &'a Dump, prompts: Range<u64>, workers: &'a Workers) -> Self {
        let shards = &dump.manifest().shards;
        let index = shards.partition_point(|s| s.first_prompt + s.n_prompts <= prompts.start);
        Self { dump, workers, open: None, index, next: prompts.start, end: prompts.end }
    }

    /// The next piece: at most `max` entries, or one prompt that has more. `pause` may stop it where
    /// a shard begins.
    pub fn next(
        &mut self,
        max: usize,
        pause: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Piece>> {
        if self.next >= self.end {
            return Ok(None);
        }
        let shard = self.shard(pause)?;
        let start = (self.next - shard.first_prompt) as usize;
        let block_end = (self.next / BLOCK + 1) * BLOCK;
        let stop = block_end.min(self.end) - shard.first_prompt;
        let stop = (stop as usize).min(shard.n_prompts());
        let limit = shard.prompt_ptr[start].saturating_add(max as u64);
        let fits = shard.prompt_ptr[start + 1..=stop].partition_point(|&ptr| ptr <= limit);
        let end = start + fits.max(1);
        self.next = shard.first_prompt + end as u64;
        let ends_block = self.next == block_end || self.next == self.end;
        Ok(Some(Piece { shard, prompts: start..end, ends_block }))
    }

    /// The shard that holds prompt `next`; shards without prompts are passed over.
    fn shard(&mut self, pause: &mut dyn FnMut() -> Result<()>) -> Result<Arc<Shard>> {
        loop {
            let entry = &self.dump.manifest().shards[self.index];
            if self.next < entry.first_prompt + entry.n_prompts {
                break;
            }
            self.index += 1;
            self.open = None;
        }
        let shard = match self.open.take() {
            Some(shard) => shard,
            None => Arc::new(self.dump.shard(self.index, self.workers, pause)?),
        };
        self.open = Some(Arc::clone(&shard));
        Ok(shard)
    }
}
