//! Feature dumps: a folder of safetensors shards and a manifest.
//!
//! Per prompt a dump lists `(feature, position, activation, attribution)` in ascending
//! (feature, position). A dump is opened by checking its manifest and every shard's layout;
//! entries are read by pread when they are needed and checked before they are used. The first time
//! that a shard is needed, its sha256 is compared with the manifest's: a bit that fell in a number
//! leaves a number, and nothing else would tell. Nothing is kept open between calls.

mod check;
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
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Whether each shard was hashed; whoever comes second waits for the first.
    hashed: Arc<Vec<Mutex<bool>>>,
}

impl Dump {
    /// Open the dump in `folder`.
    ///
    /// # Errors
    /// The manifest or the layout of a shard is not what the format promises; the message names
    /// the file, the field and the value.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let manifest = Manifest::read(&folder)?;
        let hashed = Arc::new(manifest.shards.iter().map(|_| Mutex::new(false)).collect());
        let mut dump = Self { folder, manifest, n_active: 0, has_attribution: true, hashed };
        for (i, entry) in dump.manifest.shards.iter().enumerate() {
            let shard = dump.layout(i)?;
            let has = shard.columns.attribution.is_some();
            if i > 0 && has != dump.has_attribution {
                let (this, other) = if has { ("has", "have not") } else { ("lacks", "have") };
                let message = format!("this shard {this} it, those before {other}");
                return Err(shard.source.wrong("attribution", message));
            }
            dump.has_attribution = has;
            dump.n_active += entry.n_active;
        }
        Ok(dump)
    }

    /// The same, whose shards are read without comparing their sha256.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        let trusted = self.manifest.shards.iter().map(|_| Mutex::new(true));
        self.hashed = Arc::new(trusted.collect());
        self
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

    /// Open shard `i` to read it: its layout is checked again, the file may be another one by now.
    pub(crate) fn shard(&self, i: usize) -> Result<Shard> {
        let shard = self.layout(i)?;
        let mut hashed = self.hashed[i].lock().unwrap_or_else(PoisonError::into_inner);
        if !*hashed {
            check::compare_hash(&shard.source, &self.manifest.shards[i].hash, &mut || Ok(()))?;
            *hashed = true;
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
