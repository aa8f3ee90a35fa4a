//! What the targets share: a folder to write input to, dumps made of it, and the naive answers.
//!
//! Every target reads its input through [`Unstructured`], from the front, so that the seeds of
//! `fuzz/seeds` can be written by a script; what is missing reads as zeros.

use libfuzzer_sys::arbitrary::Unstructured;
use pie_fast_core::dump::{Dump, Entries};
use pie_fast_core::naive;
use pie_fast_core::score::{RankBy, score};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Ids above which a dump is opened but not scored: eight bytes each are written.
const MANY: u64 = 1 << 20;

/// This process's folder, in `TMPDIR`; `fuzz/smoke` points that to memory and clears it.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().expect("a writable TMPDIR").keep())
}

/// Write a file into [`folder`].
pub fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("a writable TMPDIR");
    path
}

/// A number of `0..=most` from the input, 0 where it has ended.
pub fn up_to(u: &mut Unstructured<'_>, most: usize) -> usize {
    usize::from(u.arbitrary::<u16>().unwrap_or(0)) % (most + 1)
}

/// A f32 of the input: often one that collides or is at an end of the range.
pub fn number(u: &mut Unstructured<'_>) -> f32 {
    match u.arbitrary::<u8>().unwrap_or(0) {
        small @ ..0x80 => (f32::from(small) - 64.0) / 4.0,
        0x80 => -0.0,
        0x81 => f32::MAX,
        0x82 => f32::MIN,
        0x83 => f32::MIN_POSITIVE / 8.0,
        0x84 => f32::NAN,
        0x85 => f32::INFINITY,
        _ => f32::from_bits(u.arbitrary().unwrap_or(0)),
    }
}

/// One line of a manifest.
pub fn shard_line(file: &str, first: usize, n: usize, n_active: usize, bytes: usize) -> String {
    let hash = "0".repeat(64);
    format!(
        r#"{{"file":"{file}","first_prompt":{first},"n_prompts":{n},"n_active":{n_active},"bytes":{bytes},"hash":"{hash}"}}"#
    )
}

/// A manifest of shards.
pub fn manifest(n_layers: u64, n_features: u64, n_prompts: usize, shards: &[String]) -> String {
    let shards = shards.join(",");
    format!(
        r#"{{"format":"pie-fast-dump","version":1,"n_layers":{n_layers},"n_features":{n_features},"n_prompts":{n_prompts},"shards":[{shards}]}}"#
    )
}

/// A safetensors file of these columns: name, dtype, elements, bytes.
pub fn safetensors(columns: &[(&str, &str, usize, Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (String::new(), Vec::new());
    for (name, dtype, len, bytes) in columns {
        let comma = if header.is_empty() { "" } else { "," };
        let (begin, end) = (data.len(), data.len() + bytes.len());
        write!(
            header,
            r#"{comma}"{name}":{{"dtype":"{dtype}","shape":[{len}],"data_offsets":[{begin},{end}]}}"#
        )
        .expect("a string takes all");
        data.extend_from_slice(bytes);
    }
    let header = format!("{{{header}}}");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    file
}

/// Read a dump in every way there is. Where its entries can be read, the scores are the naive ones.
pub fn use_dump(dump: &Dump) {
    let (n, all) = (dump.n_prompts(), &mut |_, _| Ok(()));
    let summary = dump.summary(all);
    assert!(dump.verify(None, all).is_err() || n == 0, "no shard has the hash 00");
    let entries = dump.entries(0, n);
    assert_eq!(entries.is_ok(), summary.is_ok());
    let ids = [0, dump.n_ids() as i64 / 2, dump.n_ids() as i64 - 1];
    let some = dump.entries_of(&ids, all);
    assert!(dump.entries(0, n + 1).is_err() && dump.entries_of(&[-1], all).is_err());
    let Ok(entries) = entries else { return };
    let wanted = entries.feature.iter().filter(|&&id| ids.contains(&i64::from(id))).count();
    assert_eq!(some.expect("all entries can be read").feature.len(), wanted);
    if dump.n_ids() <= MANY {
        same_scores(dump, &entries);
    }
}

/// Bitwise the scores of the definition.
pub fn same_scores(dump: &Dump, entries: &Entries) {
    let prompts = prompts(entries);
    for (name, rank_by) in RankBy::NAMES {
        let scores = score(dump, rank_by, Some(1), &mut |_, _| Ok(()));
        if rank_by.needs_attribution() && entries.attribution.is_none() {
            assert!(scores.is_err());
            continue;
        }
        let scores = scores.expect("all entries can be read");
        let naive = naive::score::score(&prompts, dump.n_ids() as usize, rank_by);
        let bits = |all: &[f64]| all.iter().map(|score| score.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&scores), bits(&naive), "{name}");
    }
}

/// Entries as the naive version takes them.
pub fn prompts(entries: &Entries) -> Vec<naive::score::Prompt> {
    let attribution = |i| entries.attribution.as_ref().map_or(0.0, |all| all[i]);
    let entry = |i: usize| (entries.feature[i], entries.activation[i], attribution(i));
    let ranges = entries.prompt_ptr.windows(2).map(|two| two[0] as usize..two[1] as usize);
    ranges.map(|range| range.map(entry).collect()).collect()
}
