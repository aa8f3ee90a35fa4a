//! Entries as they are: of a range of prompts, or of a few features.

use crate::dump::{Dump, Pieces, Rows, Want, Watch};
use crate::error::{Error, Result};
use crate::file::reserve;
use crate::workers::Workers;

/// Entries read at once; a bound on memory, not on a piece of one prompt.
const CHUNK: usize = 1 << 20;

/// The entries of a range of prompts, CSR over the prompts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entries {
    /// `[n_prompts + 1]`, starts at 0.
    pub prompt_ptr: Vec<i64>,
    /// Global feature ids, ascending within a prompt.
    pub feature: Vec<u32>,
    /// Positions, ascending within a prompt and feature.
    pub position: Vec<u32>,
    /// Activations.
    pub activation: Vec<f32>,
    /// Attributions, when the dump has them.
    pub attribution: Option<Vec<f32>>,
}

/// The entries of a few features, in the order of the dump.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeatureEntries {
    /// Global prompt index of each entry.
    pub prompt: Vec<i64>,
    /// Position of each entry.
    pub position: Vec<u32>,
    /// Global feature id of each entry.
    pub feature: Vec<u32>,
    /// Activation of each entry.
    pub activation: Vec<f32>,
    /// Attributions, when the dump has them.
    pub attribution: Option<Vec<f32>>,
}

impl Dump {
    /// The entries of the prompts `first .. first + n`.
    ///
    /// # Errors
    /// Prompts that the dump does not have; a shard that is not what its format promises; `watch`.
    ///
    /// # Memory
    /// All entries of the range.
    pub fn entries(&self, first: u64, n: u64, watch: &mut Watch<'_>) -> Result<Entries> {
        self.check_prompts(first, n)?;
        let want = Want { activation: true, attribution: self.has_attribution() };
        let mut out = Entries { prompt_ptr: vec![0], ..Entries::default() };
        let mut attribution = Vec::new();
        let mut rows = Rows::default();
        let alone = Workers::new(None, true)?;
        let mut pieces = Pieces::new(self, first..first + n, &alone);
        loop {
            let done = out.feature.len() as u64;
            let mut pause = || watch(done, self.n_active());
            let Some(piece) = pieces.next(CHUNK, &mut pause)? else { break };
            pause()?;
            rows.load(&piece.shard, piece.prompts.clone(), want)?;
            let (base, ptr) = (out.feature.len() as u64, &piece.shard.prompt_ptr);
            let begin = ptr[piece.prompts.start];
            let ends = ptr[piece.prompts.start + 1..=piece.prompts.end].iter();
            out.prompt_ptr.extend(ends.map(|&end| (base + end - begin) as i64));
            let total = out.feature.len() + piece.len();
            reserve_growing(&mut out.feature, total)?;
            reserve_growing(&mut out.position, total)?;
            reserve_growing(&mut out.activation, total)?;
            out.feature.extend_from_slice(rows.features());
            out.position.extend((0..piece.len()).map(|i| rows.position(i)));
            out.activation.extend_from_slice(rows.activations());
            if want.attribution {
                reserve_growing(&mut attribution, total)?;
                attribution.extend_from_slice(rows.attributions());
            }
        }
        out.attribution = want.attribution.then_some(attribution);
        Ok(out)
    }

    /// The entries of `features` (any order, repeats ignored) over all prompts, in one pass.
    ///
    /// # Errors
    /// Ids that the dump does not have; a shard that is not what its format promises; `watch`.
    pub fn entries_of(&self, features: &[i64], watch: &mut Watch<'_>) -> Result<FeatureEntries> {
        let wanted = self.check_features(features)?;
        let want = Want { activation: true, attribution: self.has_attribution() };
        let mut out = FeatureEntries::default();
        let mut attribution = Vec::new();
        let (mut rows, mut done) = (Rows::default(), 0);
        let alone = Workers::new(None, true)?;
        let mut pieces = Pieces::new(self, 0..self.n_prompts(), &alone);
        while let Some(piece) = pieces.next(CHUNK, &mut || watch(done, self.n_active()))? {
            rows.load(&piece.shard, piece.prompts.clone(), want)?;
            let ptr = &piece.shard.prompt_ptr;
            let begin = ptr[piece.prompts.start];
            for prompt in piece.prompts.clone() {
                let range = (ptr[prompt] - begin) as usize..(ptr[prompt + 1] - begin) as usize;
                let global = piece.shard.first_prompt as i64 + prompt as i64;
                each_wanted(rows.features(), range, &wanted, |i| {
                    out.prompt.push(global);
                    out.position.push(rows.position(i));
                    out.feature.push(rows.features()[i]);
                    out.activation.push(rows.activations()[i]);
                    if want.attribution {
                        attribution.push(rows.attributions()[i]);
                    }
                });
            }
            done += piece.len() as u64;
            watch(done, self.n_active())?;
        }
        out.attribution = want.attribution.then_some(attribution);
        Ok(out)
    }

    /// Global ids handed in by a caller, checked, ascending, without repeats.
    pub(crate) fn check_features(&self, features: &[i64]) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(features.len());
        for &id in features {
            let valid = u32::try_from(id).ok().filter(|&id| u64::from(id) < self.n_ids());
            ids.push(valid.ok_or_else(|| {
                Error::argument(format!("feature id {id} is outside [0, {})", self.n_ids()))
            })?);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// Call `found` for each entry in `range` whose feature is in `wanted`; both are ascending.
fn each_wanted(
    feature: &[u32],
    range: std::ops::Range<usize>,
    wanted: &[u32],
    mut found: impl FnMut(usize),
) {
    let mut from = range.start;
    for &id in wanted {
        from += feature[from..range.end].partition_point(|&f| f < id);
        while from < range.end && feature[from] == id {
            found(from);
            from += 1;
        }
    }
}

/// Room for `n` elements, doubling, so that appending piece by piece stays linear.
fn reserve_growing<T>(buffer: &mut Vec<T>, n: usize) -> Result<()> {
    if buffer.capacity() < n { reserve(buffer, n.max(2 * buffer.len())) } else { Ok(()) }
}
