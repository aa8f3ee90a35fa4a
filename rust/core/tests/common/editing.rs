//! Changes dumps that `common` wrote; the manifest agrees afterwards, unless it is what is edited.

#![allow(dead_code)]

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The first shard.
pub const SHARD: &str = "shard-00000.safetensors";

/// One tensor of a file.
pub struct Column {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// The column of that name.
pub fn changed<'a>(columns: &'a mut [Column], name: &str) -> &'a mut Column {
    columns.iter_mut().find(|column| column.name == name).unwrap()
}

/// The bytes of an I64 column.
pub fn numbers(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Change `manifest.json`.
pub fn edit_manifest(folder: &Path, edit: impl FnOnce(&mut Value)) {
    let path = folder.join("manifest.json");
    let mut all: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut all);
    std::fs::write(path, all.to_string()).unwrap();
}

/// Give the manifest the length, the hash and the CRC-32 of shard `i`.
pub fn seal(folder: &Path, i: usize) {
    let (path, entry) = shard(folder, i);
    let data = std::fs::read(path).unwrap();
    let hash: String = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
    edit_manifest(folder, |all| {
        all["shards"][entry]["hash"] = json!(hash);
        all["shards"][entry]["crc32"] = json!(format!("{:08x}", crc32fast::hash(&data)));
        all["shards"][entry]["bytes"] = json!(data.len());
    });
}

/// Change the columns of the first shard.
pub fn edit_columns(folder: &Path, edit: impl FnOnce(&mut Vec<Column>)) {
    edit_shard(folder, 0, edit);
}

/// Change the columns of shard `i`, counted by name.
pub fn edit_shard(folder: &Path, i: usize, edit: impl FnOnce(&mut Vec<Column>)) {
    let (path, _) = shard(folder, i);
    let mut columns = read(&path);
    edit(&mut columns);
    std::fs::write(path, bytes(&columns, None)).unwrap();
    seal(folder, i);
}

/// Path and place in the manifest.
fn shard(folder: &Path, i: usize) -> (PathBuf, usize) {
    let name = format!("shard-{i:05}.safetensors");
    let text = std::fs::read(folder.join("manifest.json")).unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let shards = all["shards"].as_array().unwrap();
    (folder.join(&name), shards.iter().position(|shard| shard["file"] == name).unwrap())
}

fn read(path: &Path) -> Vec<Column> {
    let all = std::fs::read(path).unwrap();
    let end = 8 + u64::from_le_bytes(all[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&all[8..end]).unwrap();
    let of = |(name, tensor): (&String, &Value)| {
        let place = |i: usize| end + tensor["data_offsets"][i].as_u64().unwrap() as usize;
        Column {
            name: name.clone(),
            dtype: tensor["dtype"].as_str().unwrap().to_owned(),
            shape: serde_json::from_value(tensor["shape"].clone()).unwrap(),
            data: all[place(0)..place(1)].to_vec(),
        }
    };
    header.iter().map(of).collect()
}

/// A safetensors file of these columns.
pub fn bytes(columns: &[Column], metadata: Option<Value>) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    header.extend(metadata.map(|texts| ("__metadata__".to_owned(), texts)));
    for column in columns {
        let begin = data.len();
        data.extend_from_slice(&column.data);
        let offsets = [begin, data.len()];
        let line = json!({"dtype": column.dtype, "shape": column.shape, "data_offsets": offsets});
        header.insert(column.name.clone(), line);
    }
    let header = Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}
