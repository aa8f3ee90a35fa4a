//! Steps 2 and 3: prompts are added into blocks and blocks into totals, tile by tile.

use crate::error::Result;
use crate::huge;
use crate::score::NOTHING;
use crate::score::rule::Rule;
use crate::score::slab::Part;
use crate::simd;
use crate::workers::Workers;

/// Features of a tile: its block sums and totals together fill half of a 1 MiB cache.
const TILE: usize = 1 << 15;

/// Features beyond which totals are no longer in cache when their block ends. They are then asked
/// for while the block is added up: their loads were two thirds of the time.
const CACHED: usize = 1 << 20;

/// Numbers that a prompt should have in a tile, or walking the tiles costs more than it saves.
const PER_TILE: usize = 16;

/// Sums of all features over the blocks, and over the block that is being added up.
pub(crate) struct Totals {
    totals: Vec<f64>,
    /// The beginning of a block whose end is in another slab; empty until there is one.
    carry: Vec<f64>,
    carried: bool,
    /// Whether nothing was added yet; then the totals are not written yet either.
    fresh: bool,
}

impl Totals {
    /// Nothing so far, of `n` features.
    pub fn new(n: usize) -> Result<Self> {
        Ok(Self { totals: huge::zeros(n)?, carry: Vec::new(), carried: false, fresh: true })
    }

    /// The sums over all blocks; [`NOTHING`] where nothing was added.
    pub fn into_inner(mut self) -> Vec<f64> {
        if self.fresh {
            self.totals.fill(NOTHING);
        }
        self.totals
    }

    /// Add a slab of loaded parts, in order.
    pub fn add(&mut self, slab: &[Part<'_>], rule: impl Rule, workers: &Workers) -> Result<()> {
        let ends = slab.last().is_none_or(Part::ends_block);
        if !ends && self.carry.is_empty() {
            self.carry = huge::zeros(self.totals.len())?;
        }
        let tile = tile_len(slab, self.totals.len());
        let far = self.totals.len() > CACHED;
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
                fresh: self.fresh,
            })
            .collect();
        workers.each(&mut owners, |_, owner| {
            if far {
                simd::widest(Add::<true, _> { owner, slab, tile, rule });
            } else {
                simd::widest(Add::<false, _> { owner, slab, tile, rule });
            }
            Ok(())
        })?;
        self.carried = !ends;
        self.fresh = false;
        Ok(())
    }
}

/// Features per tile, so that a prompt has enough numbers in each.
fn tile_len(slab: &[Part<'_>], n_ids: usize) -> usize {
    let numbers: usize = slab.iter().map(|part| part.ids().len()).sum();
    let prompts: usize = slab.iter().map(Part::n_prompts).sum();
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
    /// Whether the totals are still to be set to [`NOTHING`].
    fresh: bool,
}

/// What an owner does with a slab; `FAR` where there are more totals than [`CACHED`].
struct Add<'a, 'b, const FAR: bool, R> {
    owner: &'a mut Owned<'b>,
    slab: &'a [Part<'a>],
    tile: usize,
    rule: R,
}

impl<const FAR: bool, R: Rule> simd::Loop for Add<'_, '_, FAR, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.owner.add::<FAR>(self.slab, self.tile, self.rule);
    }
}

impl Owned<'_> {
    #[inline(always)]
    fn add<const FAR: bool>(&mut self, slab: &[Part<'_>], tile: usize, rule: impl Rule) {
        let mut cursors = self.cursors(slab);
        let mut begins = cursors.clone();
        let mut block = vec![NOTHING; tile.min(self.totals.len())];
        for from in (0..self.totals.len()).step_by(tile) {
            let to = (from + tile).min(self.totals.len());
            let block = &mut block[..to - from];
            if self.fresh {
                // Here and not where they are made: every owner writes its own pages.
                self.totals[from..to].fill(NOTHING);
            }
            if self.begun {
                block.copy_from_slice(&self.carry[from..to]);
            }
            begins.copy_from_slice(&cursors);
            let totals = &mut self.totals[from..to];
            let mut walk = Walk::<FAR> { base: self.first + from, totals, block };
            walk.slab(slab, self.begun, &begins, &mut cursors, rule);
            if !self.ends {
                self.carry[from..to].copy_from_slice(walk.block);
                walk.block.fill(NOTHING);
            }
        }
    }

    /// For each prompt of the slab, where this range begins among its ids.
    fn cursors(&self, slab: &[Part<'_>]) -> Vec<usize> {
        let mut cursors = Vec::new();
        for part in slab {
            let mut begin = 0;
            for end in part.ends() {
                let ids = &part.ids()[begin..end];
                cursors.push(begin + ids.partition_point(|&id| (id as usize) < self.first));
                begin = end;
            }
        }
        cursors
    }
}

/// One tile on its way through a slab; `FAR` where there are more totals than [`CACHED`].
struct Walk<'a, const FAR: bool> {
    base: usize,
    totals: &'a mut [f64],
    block: &'a mut [f64],
}

impl<const FAR: bool> Walk<'_, FAR> {
    /// Add every prompt; where a block ends, add it to the totals. Cursors move past the tile.
    #[inline(always)]
    fn slab(
        &mut self,
        slab: &[Part<'_>],
        begun: bool,
        begins: &[usize],
        cursors: &mut [usize],
        rule: impl Rule,
    ) {
        let (mut prompt, mut block_prompt, mut block_part) = (0, 0, 0);
        let (mut added, mut dense) = (0, begun);
        for (i, part) in slab.iter().enumerate() {
            for end in part.ends() {
                added += self.prompt(part, &mut cursors[prompt], end, rule);
                prompt += 1;
            }
            if !part.ends_block() {
                continue;
            }
            // Beyond this share a sweep over the tile is faster than a second walk. A block that
            // began in another slab has numbers that the second walk would not meet.
            if dense || 4 * added > self.totals.len() {
                self.flush_all(rule);
            } else {
                let (begins, ends) = (&begins[block_prompt..], &cursors[block_prompt..]);
                self.flush_walked(&slab[block_part..=i], begins, ends, rule);
            }
            (block_prompt, block_part, added, dense) = (prompt, i + 1, 0, false);
        }
    }

    /// Add one prompt's numbers from its cursor to the end of the tile; how many there were.
    #[inline(always)]
    fn prompt(
        &mut self,
        part: &Part<'_>,
        cursor: &mut usize,
        end: usize,
        rule: impl Rule,
    ) -> usize {
        let begin = *cursor;
        let (ids, values) = (&part.ids()[begin..end], &part.values()[begin..end]);
        let n = add_rows::<FAR>(ids, values, (self.base, self.block), self.totals, rule);
        *cursor = begin + n;
        n
    }

    #[inline(always)]
    fn flush_all(&mut self, rule: impl Rule) {
        for (total, block) in self.totals.iter_mut().zip(self.block.iter_mut()) {
            *total = rule.join(*total, *block);
            *block = NOTHING;
        }
    }

    /// Flush the features that the block has numbers for; a second visit adds nothing.
    #[inline(always)]
    fn flush_walked(
        &mut self,
        parts: &[Part<'_>],
        begins: &[usize],
        ends: &[usize],
        rule: impl Rule,
    ) {
        let mut prompt = 0;
        for part in parts {
            for _ in 0..part.n_prompts() {
                for &id in &part.ids()[begins[prompt]..ends[prompt]] {
                    let i = id as usize - self.base;
                    self.totals[i] = rule.join(self.totals[i], self.block[i]);
                    self.block[i] = NOTHING;
                }
                prompt += 1;
            }
        }
    }
}

/// Add the runs of equal ids at the beginning of `ids` that lie in the tile: what each run comes to
/// is joined into the block. How many entries that were. `FAR` asks for the totals of the same
/// features, which will be needed.
///
/// Few features are active at several positions of a prompt, so most groups of 8 entries are 8
/// runs, which needs no branch for each of them.
#[inline(always)]
fn add_rows<const FAR: bool>(
    ids: &[u32],
    values: &[f32],
    (base, block): (usize, &mut [f64]),
    totals: &[f64],
    rule: impl Rule,
) -> usize {
    const GROUP: usize = 8;
    let n = ids.len();
    let values = &values[..n];
    let beyond = base + block.len();
    let mut add = |id: u32, sum: f64| {
        if FAR {
            simd::prefetch(totals, id as usize - base);
        }
        if let Some(slot) = block.get_mut(id as usize - base) {
            *slot = rule.join(*slot, rule.finish(sum));
        }
    };
    let mut i = 0;
    while i < n {
        let mut stop = n;
        if let Some(group) = ids[i..].first_chunk::<{ GROUP + 1 }>()
            && (group[GROUP - 1] as usize) < beyond
        {
            if (0..GROUP).fold(true, |single, j| single & (group[j] != group[j + 1])) {
                for j in 0..GROUP {
                    add(group[j], rule.fold(0.0, values[i + j]));
                }
                i += GROUP;
                continue;
            }
            stop = i + GROUP;
        }
        while i < stop {
            let id = ids[i];
            if id as usize >= beyond {
                return i;
            }
            let mut sum = rule.fold(0.0, values[i]);
            i += 1;
            while i < n && ids[i] == id {
                sum = rule.fold(sum, values[i]);
                i += 1;
            }
            add(id, sum);
        }
    }
    n
}
