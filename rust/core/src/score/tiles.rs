//! Steps 2 and 3: prompts are added into blocks and blocks into totals, tile by tile.

use crate::error::Result;
use crate::file::reserve;
use crate::score::reduce::Part;
use crate::score::{NOTHING, RankBy};
use crate::workers::Workers;

/// Features of a tile: its block sums and totals together fill a quarter of a 1 MiB cache.
const TILE: usize = 1 << 14;

/// Numbers that a prompt should have in a tile, or walking the tiles costs more than it saves.
const PER_TILE: usize = 16;

/// Sums of all features over the blocks, and over the block that is being added up.
pub(crate) struct Totals {
    totals: Vec<f64>,
    /// The beginning of a block whose end is in another slab; empty until there is one.
    carry: Vec<f64>,
    carried: bool,
}

impl Totals {
    /// Nothing so far, of `n` features.
    pub fn new(n: usize) -> Result<Self> {
        Ok(Self { totals: filled(n)?, carry: Vec::new(), carried: false })
    }

    /// The sums over all blocks; [`NOTHING`] where nothing was added.
    pub fn into_inner(self) -> Vec<f64> {
        self.totals
    }

    /// Add a slab of loaded parts, in order.
    pub fn add(&mut self, slab: &[Part], rank_by: RankBy, workers: &Workers) -> Result<()> {
        let ends = slab.last().is_none_or(Part::ends_block);
        if !ends && self.carry.is_empty() {
            self.carry = filled(self.totals.len())?;
        }
        let tile = tile_len(slab, self.totals.len());
        // Twice as many ranges as threads: one that has more than its share is less of a wait.
        let n_owners = if workers.count() == 1 { 1 } else { 2 * workers.count() };
        let owned = self.totals.len().div_ceil(n_owners).next_multiple_of(8);
        let mut carries = self.carry.chunks_mut(owned);
        let mut owners: Vec<Owned<'_>> = self
            .totals
            .chunks_mut(owned)
            .enumerate()
            .map(|(i, totals)| Owned {
                first: i * owned,
                totals,
                carry: carries.next().unwrap_or_default(),
                begun: self.carried,
                ends,
            })
            .collect();
        workers.each(&mut owners, |_, owner| match rank_by {
            // Not f64::max, which may answer -0.0 (no entry) for -0.0 and 0.0 (an activation of 0).
            RankBy::Max => {
                owner.add(
                    slab,
                    tile,
                    |a, b| {
                        if b > a || a.to_bits() == NOTHING.to_bits() { b } else { a }
                    },
                )
            }
            _ => owner.add(slab, tile, |a, b| a + b),
        })?;
        self.carried = !ends;
        Ok(())
    }
}

/// Features per tile, so that a prompt has enough numbers in each.
fn tile_len(slab: &[Part], n_ids: usize) -> usize {
    let numbers: usize = slab.iter().map(|part| part.ids().len()).sum();
    let prompts: usize = slab.iter().map(|part| part.ends().len()).sum();
    let wanted = numbers / (PER_TILE * prompts.max(1));
    n_ids.div_ceil(wanted.clamp(1, n_ids.div_ceil(TILE).max(1)))
}

/// A range of features with one owner.
struct Owned<'a> {
    first: usize,
    totals: &'a mut [f64],
    /// As long as `totals`, or empty.
    carry: &'a mut [f64],
    /// Whether `carry` holds the beginning of the slab's first block.
    begun: bool,
    /// Whether the slab's last block ends with it.
    ends: bool,
}

impl Owned<'_> {
    fn add(
        &mut self,
        slab: &[Part],
        tile: usize,
        join: impl Fn(f64, f64) -> f64 + Copy,
    ) -> Result<()> {
        let mut cursors = self.cursors(slab);
        let mut begins = cursors.clone();
        let mut block = filled(tile.min(self.totals.len()))?;
        for from in (0..self.totals.len()).step_by(tile) {
            let to = (from + tile).min(self.totals.len());
            let block = &mut block[..to - from];
            if self.begun {
                block.copy_from_slice(&self.carry[from..to]);
            }
            begins.copy_from_slice(&cursors);
            let mut walk =
                Walk { base: self.first + from, totals: &mut self.totals[from..to], block };
            walk.slab(slab, self.begun, &begins, &mut cursors, join);
            if !self.ends {
                self.carry[from..to].copy_from_slice(walk.block);
                walk.block.fill(NOTHING);
            }
        }
        Ok(())
    }

    /// For each prompt of the slab, where this range begins among its ids.
    fn cursors(&self, slab: &[Part]) -> Vec<usize> {
        let mut cursors = Vec::new();
        for part in slab {
            let mut begin = 0;
            for &end in part.ends() {
                let ids = &part.ids()[begin..end];
                cursors.push(begin + ids.partition_point(|&id| (id as usize) < self.first));
                begin = end;
            }
        }
        cursors
    }
}

/// One tile on its way through a slab.
struct Walk<'a> {
    base: usize,
    totals: &'a mut [f64],
    block: &'a mut [f64],
}

impl Walk<'_> {
    /// Add every prompt; where a block ends, add it to the totals. Cursors move past the tile.
    fn slab(
        &mut self,
        slab: &[Part],
        begun: bool,
        begins: &[usize],
        cursors: &mut [usize],
        join: impl Fn(f64, f64) -> f64 + Copy,
    ) {
        let (mut prompt, mut block_prompt, mut block_part) = (0, 0, 0);
        let (mut added, mut dense) = (0, begun);
        for (i, part) in slab.iter().enumerate() {
            for &end in part.ends() {
                added += self.prompt(part, &mut cursors[prompt], end, join);
                prompt += 1;
            }
            if !part.ends_block() {
                continue;
            }
            // Beyond this share a sweep over the tile is faster than a second walk. A block that
            // began in another slab has numbers that the second walk would not meet.
            if dense || 4 * added > self.totals.len() {
                self.flush_all(join);
            } else {
                let (begins, ends) = (&begins[block_prompt..], &cursors[block_prompt..]);
                self.flush_walked(&slab[block_part..=i], begins, ends, join);
            }
            (block_prompt, block_part, added, dense) = (prompt, i + 1, 0, false);
        }
    }

    /// Add one prompt's numbers from its cursor to the end of the tile; how many there were.
    #[inline]
    fn prompt(
        &mut self,
        part: &Part,
        cursor: &mut usize,
        end: usize,
        join: impl Fn(f64, f64) -> f64,
    ) -> usize {
        let begin = *cursor;
        let (ids, sums) = (&part.ids()[begin..end], &part.sums()[begin..end]);
        let mut n = 0;
        for (&id, &sum) in ids.iter().zip(sums) {
            let Some(slot) = self.block.get_mut(id as usize - self.base) else { break };
            *slot = join(*slot, sum);
            n += 1;
        }
        *cursor = begin + n;
        n
    }

    fn flush_all(&mut self, join: impl Fn(f64, f64) -> f64) {
        for (total, block) in self.totals.iter_mut().zip(self.block.iter_mut()) {
            *total = join(*total, *block);
            *block = NOTHING;
        }
    }

    /// Flush the features that the block has numbers for; a second visit adds nothing.
    fn flush_walked(
        &mut self,
        parts: &[Part],
        begins: &[usize],
        ends: &[usize],
        join: impl Fn(f64, f64) -> f64,
    ) {
        let mut prompt = 0;
        for part in parts {
            for _ in part.ends() {
                for &id in &part.ids()[begins[prompt]..ends[prompt]] {
                    let i = id as usize - self.base;
                    self.totals[i] = join(self.totals[i], self.block[i]);
                    self.block[i] = NOTHING;
                }
                prompt += 1;
            }
        }
    }
}

/// `n` times [`NOTHING`].
fn filled(n: usize) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    reserve(&mut all, n)?;
    all.resize(n, NOTHING);
    Ok(all)
}
