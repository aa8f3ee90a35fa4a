//! One shard: header and prompt pointer checked, columns found, nothing else read yet.

use crate::dump::manifest::ShardEntry;
use crate::error::Result;
use crate::file::Source;
use crate::header::{Header, Tensor};
use std::path::Path;

/// How activations are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// IEEE half.
    F16,
    /// The upper half of an f32.
    BF16,
    /// IEEE single.
    F32,
}

impl FloatType {
    /// From the spelling of a safetensors header.
    #[must_use]
    pub fn parse(dtype: &str) -> Option<Self> {
        match dtype {
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::BF16),
            "F32" => Some(Self::F32),
            _ => None,
        }
    }

    /// Bytes per element.
    #[must_use]
    pub fn size(self) -> u64 {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// Where the columns of a shard are. Offsets count from the start of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    pub feature: u64,
    pub position: u64,
    pub wide_position: bool,
    pub activation: u64,
    pub activation_type: FloatType,
    pub attribution: Option<u64>,
}

/// An open shard whose layout has been checked.
#[derive(Debug)]
pub(crate) struct Shard {
    pub source: Source,
    pub first_prompt: u64,
    /// CSR pointer over its prompts: starts at 0, never falls, ends at the number of entries.
    pub prompt_ptr: Vec<u64>,
    pub columns: Columns,
    /// `n_layers * n_features`: feature ids are below it.
    pub n_ids: u64,
}

impl Shard {
    /// Open a shard, and compare it with its line in the manifest.
    pub fn open(folder: &Path, entry: &ShardEntry, n_ids: u64) -> Result<Self> {
        let source = Source::open(folder.join(&entry.file))?;
        if source.len() != entry.bytes {
            let message = format!("has {} bytes, the manifest says {}", source.len(), entry.bytes);
            return Err(source.wrong("file", message));
        }
        let header = Header::read(&source)?;
        let columns = columns(&source, &header, entry.n_active)?;
        let prompt_ptr = prompt_ptr(&source, &header, entry)?;
        Ok(Self { source, first_prompt: entry.first_prompt, prompt_ptr, columns, n_ids })
    }

    /// How many prompts it has.
    pub fn n_prompts(&self) -> usize {
        self.prompt_ptr.len() - 1
    }
}

fn columns(source: &Source, header: &Header, n_active: u64) -> Result<Columns> {
    let column = |name: &str| -> Result<&Tensor> {
        let tensor = header.get(source, name)?;
        if tensor.shape.len() != 1 || tensor.shape[0] as u64 != n_active {
            let message =
                format!("has shape {:?}, the manifest says [{n_active}] (n_active)", tensor.shape);
            return Err(source.wrong(name, message));
        }
        Ok(tensor)
    };
    let typed = |tensor: &Tensor, valid: &[&str]| -> Result<()> {
        if valid.contains(&tensor.dtype.as_str()) {
            return Ok(());
        }
        let message = format!("has dtype {}, must be {}", tensor.dtype, valid.join(" or "));
        Err(source.wrong(&tensor.name, message))
    };
    let (feature, position) = (column("feature")?, column("position")?);
    let activation = column("activation")?;
    typed(feature, &["U32"])?;
    typed(position, &["U16", "U32"])?;
    typed(activation, &["F16", "BF16", "F32"])?;
    let attribution = match header.find("attribution") {
        Some(_) => Some(column("attribution")?),
        None => None,
    };
    if let Some(tensor) = attribution {
        typed(tensor, &["F32"])?;
    }
    Ok(Columns {
        feature: feature.offset,
        position: position.offset,
        wide_position: position.dtype == "U32",
        activation: activation.offset,
        activation_type: FloatType::parse(&activation.dtype).unwrap_or(FloatType::F32),
        attribution: attribution.map(|t| t.offset),
    })
}

/// Read `prompt_ptr` and check that it starts at 0, never falls and ends at the entries.
fn prompt_ptr(source: &Source, header: &Header, entry: &ShardEntry) -> Result<Vec<u64>> {
    let name = "prompt_ptr";
    let tensor = header.get(source, name)?;
    let want = entry.n_prompts.saturating_add(1);
    if tensor.dtype != "I64" || tensor.shape.len() != 1 || tensor.shape[0] as u64 != want {
        let message = format!(
            "is {} of shape {:?}, must be I64 of shape [{want}] (n_prompts + 1)",
            tensor.dtype, tensor.shape
        );
        return Err(source.wrong(name, message));
    }
    // Read as u64: a negative number is then far above the last one and fails the same checks.
    let ptr = source.read_vec::<u64>(tensor.offset, tensor.shape[0])?;
    let (first, last) = (ptr[0] as i64, ptr[ptr.len() - 1] as i64);
    if first != 0 || last as u64 != entry.n_active {
        let message = format!("runs from {first} to {last}, must be 0 to {}", entry.n_active);
        return Err(source.wrong(name, message));
    }
    if let Some(i) = ptr.windows(2).position(|pair| pair[0] > pair[1]) {
        let message = format!("falls from {} to {} at {i}", ptr[i] as i64, ptr[i + 1] as i64);
        return Err(source.wrong(name, message));
    }
    Ok(ptr)
}
