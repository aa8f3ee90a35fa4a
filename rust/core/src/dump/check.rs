//! Looking at every byte of a dump: deep checks, and what there is to tell about it.

use crate::dump::{Dump, Pieces, Rows, Want, Watch};
use crate::error::{Error, Result};
use crate::file::Source;
use crate::workers::Workers;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Entries read at once.
const CHUNK: usize = 1 << 20;

/// Bytes hashed at once.
const HASHED: usize = 1 << 22;

/// What a pass over all entries finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Entries per layer that has any.
    pub layers: BTreeMap<u64, u64>,
    /// Entries whose activation is 0 (their baseline is not).
    pub n_zero: u64,
    /// Entries with a negative activation.
    pub n_negative: u64,
    /// Entries by floor(log2 |activation|), of activations other than 0.
    pub exponents: BTreeMap<i32, u64>,
    /// Smallest and largest activation; `None` without entries.
    pub range: Option<(f32, f32)>,
    /// Largest position; `None` without entries.
    pub last_position: Option<u32>,
}

impl Dump {
    /// Check every entry and the hash of every shard.
    ///
    /// `prompt_lengths` are `[n_prompts]` token counts, 0 where unknown; positions must be below.
    ///
    /// # Errors
    /// What is not as the format and the manifest promise; what `watch` returns.
    pub fn verify(&self, prompt_lengths: Option<&[i64]>, watch: &mut Watch<'_>) -> Result<()> {
        let n = self.n_prompts();
        if let Some(lengths) = prompt_lengths.filter(|lengths| lengths.len() as u64 != n) {
            let message = format!("{} prompt lengths for {n} prompts", lengths.len());
            return Err(Error::argument(message));
        }
        self.each_piece(watch, |rows, shard, prompt, range| {
            let Some(&len) = prompt_lengths.and_then(|lengths| lengths.get(prompt)) else {
                return Ok(());
            };
            let beyond = |&i: &usize| len > 0 && i64::from(rows.position(i)) >= len;
            match range.clone().find(beyond) {
                None => Ok(()),
                Some(i) => {
                    let position = rows.position(i);
                    let message = format!("{position} in prompt {prompt}, which has {len} tokens");
                    Err(shard.wrong("position", message))
                }
            }
        })?;
        self.manifest().shards.iter().try_for_each(|entry| {
            let source = Source::open(self.folder().join(&entry.file))?;
            let hash = sha256(&source, watch, self.n_active())?;
            if hash == entry.hash {
                return Ok(());
            }
            Err(source
                .wrong("file", format!("has sha256 {hash}, the manifest says {}", entry.hash)))
        })
    }

    /// One pass over all entries for what there is to tell about them.
    ///
    /// # Errors
    /// As [`Dump::verify`], hashes excepted.
    pub fn summary(&self, watch: &mut Watch<'_>) -> Result<Summary> {
        let mut found = Summary {
            layers: BTreeMap::new(),
            n_zero: 0,
            n_negative: 0,
            exponents: BTreeMap::new(),
            range: None,
            last_position: None,
        };
        let mut exponents = [0u64; 256];
        let n_features = self.manifest().n_features;
        self.each_piece(watch, |rows, _, _, range| {
            add_layers(&mut found.layers, &rows.features()[range.clone()], n_features);
            for &a in &rows.activations()[range.clone()] {
                exponents[(a.to_bits() >> 23 & 0xff) as usize] += 1;
                found.n_zero += u64::from(a == 0.0);
                found.n_negative += u64::from(a < 0.0);
                let (min, max) = found.range.unwrap_or((a, a));
                found.range = Some((min.min(a), max.max(a)));
            }
            found.last_position = found.last_position.max(range.map(|i| rows.position(i)).max());
            Ok(())
        })?;
        // Exponent 0 is zero and the subnormals, which lie below 2^-126.
        exponents[0] -= found.n_zero;
        let filled = exponents.iter().enumerate().filter(|&(_, &n)| n > 0);
        found.exponents = filled.map(|(i, &n)| (i as i32 - 127, n)).collect();
        Ok(found)
    }

    /// Read everything; `visit` is given each prompt's rows, its global index and its range.
    fn each_piece(
        &self,
        watch: &mut Watch<'_>,
        mut visit: impl FnMut(&Rows, &Source, usize, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let want = Want { activation: true, attribution: self.has_attribution() };
        let (mut rows, mut done) = (Rows::default(), 0);
        let alone = Workers::new(None, true)?;
        let mut pieces = Pieces::new(self, 0..self.n_prompts(), &alone);
        while let Some(piece) = pieces.next(CHUNK, &mut || watch(done, self.n_active()))? {
            rows.load(&piece.shard, piece.prompts.clone(), want)?;
            let ptr = &piece.shard.prompt_ptr;
            let begin = ptr[piece.prompts.start];
            for prompt in piece.prompts.clone() {
                let range = (ptr[prompt] - begin) as usize..(ptr[prompt + 1] - begin) as usize;
                let global = piece.shard.first_prompt as usize + prompt;
                visit(&rows, &piece.shard.source, global, range)?;
            }
            done += piece.len() as u64;
            watch(done, self.n_active())?;
        }
        Ok(())
    }
}

/// Count the entries of one prompt by layer; ids ascend.
fn add_layers(layers: &mut BTreeMap<u64, u64>, mut ids: &[u32], n_features: u64) {
    while let Some(&first) = ids.first() {
        let layer = u64::from(first) / n_features;
        let n = ids.partition_point(|&id| u64::from(id) < (layer + 1) * n_features);
        *layers.entry(layer).or_insert(0) += n as u64;
        ids = &ids[n..];
    }
}

/// The sha256 of a file in hex.
fn sha256(source: &Source, watch: &mut Watch<'_>, total: u64) -> Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0u8; HASHED.min(source.len() as usize)];
    let mut at = 0;
    while at < source.len() {
        let n = buffer.len().min((source.len() - at) as usize);
        source.read(&mut buffer[..n], at)?;
        digest.update(&buffer[..n]);
        at += n as u64;
        watch(total, total)?;
    }
    Ok(hex(&digest.finalize()))
}

/// Bytes in hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
