//! Feature dumps: a folder of safetensors shards and a manifest.
//!
//! Per prompt a dump lists `(feature, position, activation, attribution)` in ascending
//! (feature, position). A dump is opened by checking its manifest and every shard's layout;
//! entries are read by pread when they are needed and checked before they are used, after the CRC-32
//! of their shard where the manifest has one. Nothing is kept open between calls.

mod check;
mod crc;
mod entries;
pub mod manifest;
mod rows;
mod scan;
mod shard;

pub use check::Summary;
pub use entries::{Entries, FeatureEntries};
pub use manifest::{Manifest, ShardEntry};
pub use shard::FloatType;

pub(crate) use rows::{Column, Rows, Scratch, Want};
pub(crate) use scan::{Piece, Pieces};
pub(crate) use shard::Shard;

use crate::error::{Error, Result};
use crate::workers::Workers;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Prompts are added up in blocks of this many, by global prompt index, whatever the shards.
pub const BLOCK: u64 = 256;

/// Told after each chunk of work how many of how many entries are done; an error stops the work.
pub type Watch<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// An opened feature dump.
#[derive(Debug, Clone)]
pub struct Dump {
    folder: PathBuf,
    manifest: Manifest,
    n_active: u64,
    has_attribution: bool,
}

impl Dump {
    /// Open the dump in `folder`.
    ///
    /// # Errors
    /// The manifest or the layout of a shard is not what the format promises; the message names
    /// the file, the field and the value.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        Self::open_prompts(folder, 0..u64::MAX)
    }

    /// As [`Dump::open`] where only the shards that hold some of `prompts` need to be there, and
    /// only these are checked. Reading other prompts is an error of the missing file.
    ///
    /// # Errors
    /// As [`Dump::open`].
    pub fn open_prompts(folder: impl Into<PathBuf>, prompts: Range<u64>) -> Result<Self> {
        let folder = folder.into();
        let manifest = Manifest::read(&folder)?;
        let mut dump = Self { folder, manifest, n_active: 0, has_attribution: true };
        let whole = prompts == (0..u64::MAX);
        let mut seen = 0;
        for (i, entry) in dump.manifest.shards.iter().enumerate() {
            dump.n_active += entry.n_active;
            let end = entry.first_prompt + entry.n_prompts;
            if !whole && prompts.start.max(entry.first_prompt) >= prompts.end.min(end) {
                continue;
            }
            let shard = dump.layout(i)?;
            let has = shard.columns.attribution.is_some();
            if seen > 0 && has != dump.has_attribution {
                let (this, other) = if has { ("has", "have not") } else { ("lacks", "have") };
                let message = format!("this shard {this} it, those before {other}");
                return Err(shard.source.wrong("attribution", message));
            }
            dump.has_attribution = has;
            seen += 1;
        }
        Ok(dump)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Layers, features per layer, prompts and shards.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// `n_layers * n_features`, the number of global feature ids.
    #[must_use]
    pub fn n_ids(&self) -> u64 {
        self.manifest.n_layers * self.manifest.n_features
    }

    /// How many prompts it has.
    #[must_use]
    pub fn n_prompts(&self) -> u64 {
        self.manifest.n_prompts
    }

    /// How many entries it has.
    #[must_use]
    pub fn n_active(&self) -> u64 {
        self.n_active
    }

    /// Whether it has attributions beside the activations; true of a dump without shards.
    #[must_use]
    pub fn has_attribution(&self) -> bool {
        self.has_attribution
    }

    /// Open shard `i` to read it: its layout is checked again, the file may be another one by now,
    /// and its CRC-32 by `workers`.
    pub(crate) fn shard(
        &self,
        i: usize,
        workers: &Workers,
        pause: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Shard> {
        let shard = self.layout(i)?;
        if let Some(promised) = self.manifest.shards[i].crc32 {
            crc::compare(&shard.source, promised, workers, pause)?;
        }
        Ok(shard)
    }

    fn layout(&self, i: usize) -> Result<Shard> {
        Shard::open(&self.folder, &self.manifest.shards[i], self.n_ids())
    }

    /// Check that `first .. first + n` are prompts of this dump.
    pub(crate) fn check_prompts(&self, first: u64, n: u64) -> Result<()> {
        if first.checked_add(n).is_none_or(|end| end > self.n_prompts()) {
            let message = format!(
                "{n} prompts from {first} on are outside the {} prompts of the dump",
                self.n_prompts()
            );
            return Err(Error::argument(message));
        }
        Ok(())
    }
}
