//! `manifest.json`: what a dump says about itself. Only what reading needs is looked at here;
//! the rest (model, behaviour, metric ...) is for people and for Python.

use crate::dump::check::hex;
use crate::error::{Error, Result};
use crate::file::Source;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The newest version of the format that this crate reads.
pub const VERSION: u64 = 1;

/// Feature ids are u32.
pub const MAX_FEATURES: u64 = 1 << 32;

/// The longest manifest that is read: of a hundred thousand shards. As values it may take ninety
/// times as much.
const MAX_BYTES: u64 = 1 << 25;

/// What the manifest says about one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardEntry {
    /// File name inside the dump's folder.
    pub file: String,
    /// Global index of its first prompt.
    pub first_prompt: u64,
    /// How many prompts it has.
    pub n_prompts: u64,
    /// How many entries it has.
    pub n_active: u64,
    /// Length of the file.
    pub bytes: u64,
    /// sha256 of the file, in hex.
    pub hash: String,
    /// CRC-32 of the file (that of zlib); older dumps have none.
    pub crc32: Option<u32>,
}

/// The part of `manifest.json` that reading needs.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Layers of the CLT.
    pub n_layers: u64,
    /// Features per layer.
    pub n_features: u64,
    /// Prompts in all shards.
    pub n_prompts: u64,
    /// The shards by first prompt; together they are `0..n_prompts`.
    pub shards: Vec<ShardEntry>,
}

impl Manifest {
    /// Read and check `manifest.json` of the dump in `folder`.
    ///
    /// # Errors
    /// The folder is not a dump, the dump is of a newer version, or the manifest contradicts
    /// itself; the message names the key.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("manifest.json");
        if folder.is_dir() && !path.exists() {
            return Err(Error::format(
                path,
                "file",
                "is missing: the folder is not a feature dump",
            ));
        }
        let source = Source::open(&path)?;
        if source.len() > MAX_BYTES {
            let message = format!("of {} bytes exceeds the {MAX_BYTES} it may have", source.len());
            return Err(Error::format(path, "file", message));
        }
        let text = source.read_vec::<u8>(0, source.len() as usize)?;
        let value: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|e| Error::format(&path, "file", format!("is not a JSON object: {e}")))?;
        let fields = Fields { path: &path, prefix: String::new(), map: &value };
        let found = Self::from_fields(&fields)?;
        check_seal(&fields, &text)?;
        Ok(found)
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self> {
        if fields.text("format")? != "pie-fast-dump" {
            return Err(fields.wrong("format", "is not \"pie-fast-dump\""));
        }
        let version = fields.number("version", 1, u64::MAX)?;
        if version > VERSION {
            let message = format!(
                "{version} is newer than {VERSION}, the newest that is read here: update pie_fast"
            );
            return Err(fields.wrong("version", message));
        }
        let n_layers = fields.number("n_layers", 1, MAX_FEATURES)?;
        let n_features = fields.number("n_features", 1, MAX_FEATURES / n_layers)?;
        let n_prompts = fields.number("n_prompts", 0, i64::MAX as u64)?;
        let mut shards = shards(fields)?;
        shards.sort_by_key(|shard| (shard.first_prompt, shard.n_prompts));
        check_tiling(fields, &shards, n_prompts)?;
        Ok(Self { n_layers, n_features, n_prompts, shards })
    }
}

fn shards(fields: &Fields<'_>) -> Result<Vec<ShardEntry>> {
    let list = fields.get("shards")?.as_array();
    let list = list.ok_or_else(|| fields.wrong("shards", "is not a list"))?;
    let mut shards = Vec::with_capacity(list.len());
    let mut seen = std::collections::BTreeSet::new();
    for (i, value) in list.iter().enumerate() {
        let prefix = format!("shards[{i}].");
        let map = value.as_object();
        let map = map.ok_or_else(|| fields.wrong(&format!("shards[{i}]"), "is not an object"))?;
        let shard = shard(&Fields { path: fields.path, prefix, map })?;
        if !seen.insert(shard.file.clone()) {
            let message = format!("{} is listed twice", shard.file);
            return Err(fields.wrong(&format!("shards[{i}].file"), message));
        }
        shards.push(shard);
    }
    Ok(shards)
}

fn shard(fields: &Fields<'_>) -> Result<ShardEntry> {
    let file = fields.text("file")?;
    let mut parts = Path::new(file).components();
    let plain = matches!(
        (parts.next(), parts.next()),
        (Some(std::path::Component::Normal(name)), None) if name == file
    );
    if !plain {
        return Err(fields.wrong("file", format!("{file:?} is not the name of a file in the dump")));
    }
    let max = i64::MAX as u64;
    let hash = fields.text("hash")?;
    if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(fields.wrong("hash", format!("{hash:?} is not 64 hexadecimal digits")));
    }
    Ok(ShardEntry {
        file: file.to_owned(),
        first_prompt: fields.number("first_prompt", 0, max)?,
        n_prompts: fields.number("n_prompts", 0, max)?,
        n_active: fields.number("n_active", 0, max)?,
        bytes: fields.number("bytes", 0, max)?,
        hash: hash.to_ascii_lowercase(),
        crc32: crc32(fields)?,
    })
}

fn crc32(fields: &Fields<'_>) -> Result<Option<u32>> {
    if !fields.map.contains_key("crc32") {
        return Ok(None);
    }
    let text = fields.text("crc32")?;
    let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match u32::from_str_radix(text, 16) {
        Ok(found) if digits => Ok(Some(found)),
        _ => Err(fields.wrong("crc32", format!("{text:?} is not 8 hexadecimal digits"))),
    }
}

/// Compare `checksum`, the last key where there is one: the sha256 of all bytes before it.
fn check_seal(fields: &Fields<'_>, text: &[u8]) -> Result<()> {
    if !fields.map.contains_key("checksum") {
        if ends_in_seal(text) {
            let message = "another name stands in its place: the file was changed";
            return Err(fields.wrong("checksum", message));
        }
        return Ok(());
    }
    let promised = fields.text("checksum")?;
    let key = b"\"checksum\"";
    let end = text.windows(key.len()).rposition(|some| some == key).unwrap_or(text.len());
    let hash = hex(&Sha256::digest(&text[..end]));
    if hash == promised {
        return Ok(());
    }
    let message = format!("is {promised:?}, the bytes before it have {hash}: the file was changed");
    Err(fields.wrong("checksum", message))
}

/// Whether the last line is a checksum's, whatever a bit made of its name.
fn ends_in_seal(text: &[u8]) -> bool {
    let line = text.strip_suffix(b"\"\n}").and_then(|rest| rest.split_last_chunk::<64>());
    line.is_some_and(|(rest, digits)| {
        digits.iter().all(u8::is_ascii_hexdigit)
            && rest
                .strip_suffix(b"\": \"")
                .is_some_and(|rest| rest.len() > 9 && rest[rest.len() - 9] == b'"')
    })
}

/// The shards follow each other from prompt 0 to `n_prompts`.
fn check_tiling(fields: &Fields<'_>, shards: &[ShardEntry], n_prompts: u64) -> Result<()> {
    let mut next = 0u64;
    for shard in shards {
        if shard.first_prompt != next {
            let (file, first) = (&shard.file, shard.first_prompt);
            let fault = if first < next { "overlaps the one before it" } else { "leaves a gap" };
            let message = format!("{file} begins at prompt {first} where {next} is next: {fault}");
            return Err(fields.wrong("shards", message));
        }
        next = next.saturating_add(shard.n_prompts);
    }
    if next != n_prompts {
        return Err(fields.wrong("n_prompts", format!("is {n_prompts}, the shards have {next}")));
    }
    Ok(())
}

/// Typed access to the keys of one JSON object, with errors that say where it is.
struct Fields<'a> {
    path: &'a PathBuf,
    prefix: String,
    map: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn wrong(&self, key: &str, message: impl Into<String>) -> Error {
        Error::format(self.path, format!("{}{key}", self.prefix), message)
    }

    fn get(&self, key: &str) -> Result<&Value> {
        self.map.get(key).ok_or_else(|| self.wrong(key, "is missing"))
    }

    fn text(&self, key: &str) -> Result<&str> {
        self.get(key)?.as_str().ok_or_else(|| self.wrong(key, "is not a string"))
    }

    fn number(&self, key: &str, min: u64, max: u64) -> Result<u64> {
        let value = self.get(key)?;
        match value.as_u64() {
            Some(n) if (min..=max).contains(&n) => Ok(n),
            _ => Err(self.wrong(key, format!("{value} is not a whole number in [{min}, {max}]"))),
        }
    }
}
