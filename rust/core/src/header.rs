//! The header of a safetensors file, distrusted: `u64 length | JSON | data`.
//!
//! Everything is checked before a byte of data is read: the header fits the file, names are
//! unique, shapes times dtype equal the byte ranges, and the ranges cover the data without holes
//! or overlaps, as the format demands.

use crate::error::Result;
use crate::file::Source;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::{RawValue, Value};
use std::collections::BTreeMap;
use std::fmt;

/// The longest header that is read, as in the safetensors reference.
const MAX_HEADER: u64 = 100_000_000;

/// The longest description of one tensor. As values JSON takes up to ninety times the memory of its
/// text, so a long header is never held as values, only one tensor of it at a time.
const MAX_ENTRY: usize = 4096;

/// One tensor: where its bytes are and what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dtype as the header spells it, e.g. `BF16`.
    pub dtype: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where its first byte is, from the start of the file.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Every tensor of one file, in the order of their bytes.
#[derive(Debug, Clone)]
pub struct Header {
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// The texts of `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl Header {
    /// Read and check the header of a file.
    ///
    /// # Errors
    /// The header does not fit the file or contradicts itself; the message names the tensor.
    pub fn read(source: &Source) -> Result<Self> {
        let prefix = source
            .read_vec::<u64>(0, 1)
            .map_err(|_| source.wrong("header", format!("file of {} bytes", source.len())))?;
        let (len, limit) = (prefix[0], MAX_HEADER.min(source.len().saturating_sub(8)));
        if len > limit {
            let message = format!("length {len} exceeds the {limit} bytes it may have");
            return Err(source.wrong("header", message));
        }
        let text = source.read_vec::<u8>(8, len as usize)?;
        let entries: Entries<'_> = serde_json::from_slice(&text)
            .map_err(|e| source.wrong("header", format!("is not the JSON of a header: {e}")))?;
        let mut tensors = Vec::with_capacity(entries.0.len());
        let mut metadata = BTreeMap::new();
        for (name, value) in entries.0 {
            if name == "__metadata__" {
                metadata = serde_json::from_str(value.get())
                    .map_err(|e| source.wrong("__metadata__", format!("is not texts: {e}")))?;
            } else {
                tensors.push(tensor(source, &name, value.get(), 8 + len)?);
            }
        }
        tensors.sort_by_key(|tensor| (tensor.offset, tensor.bytes));
        check_cover(source, &tensors, 8 + len)?;
        Ok(Self { tensors, metadata })
    }

    /// The tensor called `name`, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// There is none; the message lists what there is.
    pub fn get(&self, source: &Source, name: &str) -> Result<&Tensor> {
        self.find(name).ok_or_else(|| {
            let names: Vec<_> = self.tensors.iter().take(8).map(|t| t.name.as_str()).collect();
            source.wrong(name, format!("is missing; the file has [{}]", names.join(", ")))
        })
    }
}

/// Bytes per element of the dtypes that have whole bytes; `None` for others, which may lie in a
/// file beside the tensors that are read.
#[must_use]
pub fn element_size(dtype: &str) -> Option<u64> {
    match dtype {
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => Some(1),
        "U16" | "I16" | "F16" | "BF16" => Some(2),
        "U32" | "I32" | "F32" => Some(4),
        "U64" | "I64" | "F64" | "C64" => Some(8),
        _ => None,
    }
}

/// One entry of the header as a [`Tensor`], its range inside the file.
fn tensor(source: &Source, name: &str, text: &str, data: u64) -> Result<Tensor> {
    let wrong = |message: String| source.wrong(name, message);
    if text.len() > MAX_ENTRY {
        let n = text.len();
        return Err(wrong(format!("takes {n} bytes of the header, must be at most {MAX_ENTRY}")));
    }
    let value: Value =
        serde_json::from_str(text).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let dtype = value["dtype"].as_str().ok_or_else(|| wrong("has no dtype".into()))?;
    let shape = numbers(&value["shape"]).ok_or_else(|| wrong("has no shape".into()))?;
    let range = numbers(&value["data_offsets"]).unwrap_or_default();
    let &[begin, end] = range.as_slice() else {
        return Err(wrong("has no data_offsets [begin, end]".into()));
    };
    let room = source.len() - data;
    if begin > end || end > room {
        return Err(wrong(format!("data_offsets [{begin}, {end}] are outside [0, {room}]")));
    }
    let size = element_size(dtype);
    let count = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
    let needed = count.and_then(|n| n.checked_mul(size.unwrap_or(0)));
    if size.is_some() && needed != Some(end - begin) {
        let have = end - begin;
        return Err(wrong(format!("shape {shape:?} of {dtype} does not take {have} bytes")));
    }
    let shape = shape.iter().map(|&n| n as usize).collect();
    let (name, dtype) = (name.to_owned(), dtype.to_owned());
    Ok(Tensor { name, dtype, shape, offset: data + begin, bytes: end - begin })
}

/// The ranges follow each other from the end of the header to the end of the file.
fn check_cover(source: &Source, tensors: &[Tensor], data: u64) -> Result<()> {
    let mut end = data;
    for tensor in tensors {
        if tensor.offset != end {
            let fault = if tensor.offset < end { "overlaps" } else { "leaves a hole after" };
            let message = format!(
                "data_offsets begin at {}, which {fault} the tensor before it (ends at {})",
                tensor.offset - data,
                end - data
            );
            return Err(source.wrong(&tensor.name, message));
        }
        end += tensor.bytes;
    }
    if end != source.len() {
        let (have, want) = (source.len(), end);
        return Err(
            source.wrong("file", format!("has {have} bytes, its header accounts for {want}"))
        );
    }
    Ok(())
}

fn numbers(value: &Value) -> Option<Vec<u64>> {
    value.as_array()?.iter().map(Value::as_u64).collect()
}

/// A JSON object whose keys are unique; `serde_json`'s own map would keep the last of two.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entries<'de>, A::Error> {
                let mut entries: Vec<(String, &'de RawValue)> = Vec::new();
                let mut seen = std::collections::BTreeSet::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format!("{name} is there twice")));
                    }
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}
