//! Writes small dumps for the tests of this folder.

use std::fmt::Write as _;
use std::path::Path;

/// One entry: feature, position, activation, attribution.
pub type Entry = (u32, u16, f32, f32);

/// How activations are stored.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code)]
pub enum Store {
    F32,
    F16,
    Bf16,
}

/// Write a dump whose shards end at `cuts` (ascending) and at the last prompt.
pub fn write_dump(
    folder: &Path,
    prompts: &[Vec<Entry>],
    shape: (u64, u64),
    cuts: &[usize],
    store: Store,
) {
    let mut shards = String::new();
    let ends: Vec<usize> = cuts.iter().copied().chain([prompts.len()]).collect();
    let mut first = 0;
    for (i, &end) in ends.iter().enumerate() {
        let (bytes, n_active) = shard(&prompts[first..end], store);
        let file = format!("shard-{i:05}.safetensors");
        std::fs::write(folder.join(&file), &bytes).unwrap();
        let comma = if i == 0 { "" } else { "," };
        let n = end - first;
        write!(
            shards,
            r#"{comma}{{"file":"{file}","first_prompt":{first},"n_prompts":{n},"n_active":{n_active},"bytes":{},"hash":"{}"}}"#,
            bytes.len(),
            "0".repeat(64)
        )
        .unwrap();
        first = end;
    }
    let manifest = format!(
        r#"{{"format":"pie-fast-dump","version":1,"n_layers":{},"n_features":{},"n_prompts":{},"shards":[{shards}]}}"#,
        shape.0,
        shape.1,
        prompts.len()
    );
    std::fs::write(folder.join("manifest.json"), manifest).unwrap();
}

/// The bytes of one shard and its number of entries.
fn shard(prompts: &[Vec<Entry>], store: Store) -> (Vec<u8>, usize) {
    let mut ptr = vec![0i64];
    for prompt in prompts {
        ptr.push(ptr[ptr.len() - 1] + prompt.len() as i64);
    }
    let all: Vec<Entry> = prompts.iter().flatten().copied().collect();
    let n = all.len();
    let (dtype, activation): (&str, Vec<u8>) = match store {
        Store::F32 => ("F32", all.iter().flat_map(|e| e.2.to_le_bytes()).collect()),
        Store::F16 => {
            ("F16", all.iter().flat_map(|e| half::f16::from_f32(e.2).to_le_bytes()).collect())
        }
        Store::Bf16 => {
            ("BF16", all.iter().flat_map(|e| half::bf16::from_f32(e.2).to_le_bytes()).collect())
        }
    };
    let columns: [(&str, &str, usize, Vec<u8>); 5] = [
        ("prompt_ptr", "I64", ptr.len(), ptr.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("feature", "U32", n, all.iter().flat_map(|e| e.0.to_le_bytes()).collect()),
        ("attribution", "F32", n, all.iter().flat_map(|e| e.3.to_le_bytes()).collect()),
        ("position", "U16", n, all.iter().flat_map(|e| e.1.to_le_bytes()).collect()),
        ("activation", dtype, n, activation),
    ];
    let (mut header, mut data) = (String::new(), Vec::new());
    for (name, dtype, len, bytes) in &columns {
        let (begin, end) = (data.len(), data.len() + bytes.len());
        let comma = if header.is_empty() { "" } else { "," };
        write!(header, r#"{comma}"{name}":{{"dtype":"{dtype}","shape":[{len}],"data_offsets":[{begin},{end}]}}"#).unwrap();
        data.extend_from_slice(bytes);
    }
    let header = format!("{{{header}}}");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    (file, n)
}
