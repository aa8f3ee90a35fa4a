//! `synergy.safetensors`, read and distrusted.
//!
//! Tensors: `pool` U32 `[M]` ascending; `values` F32 `[M, M]`, or CSR as `indptr` I64 `[M + 1]`,
//! `indices` I32 `[nnz]`, `values` F32 `[nnz]`; `done` U8 `[M]`, 1 where all pairs of a row are
//! known; optional `redundancy` F32 `[M, M]`; optional `known` U8, one bit per packed pair (lowest
//! bit first) where pairs of rows that are not done are known. Metadata: `direction`, `estimator`,
//! `form` (clipped or signed), `n_prompts`.

use super::{CsrArrays, n_pairs};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::file::Source;
use crate::header::{Header, Tensor};
use crate::select::Synergy;
use crate::select::dense::Dense;
use crate::select::sparse::Csr;
use bytemuck::Pod;
use std::collections::BTreeMap;
use std::path::Path;

/// The synergies of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `[M, M]`.
    Dense(Vec<f32>),
    /// M rows.
    Sparse(CsrArrays),
}

/// What a file holds, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// `[M]` global ids, ascending.
    pub pool: Vec<u32>,
    /// Symmetric and finite.
    pub values: Values,
    /// `[M]`, 0 or 1.
    pub done: Vec<u8>,
    /// `[M, M]`, symmetric and finite.
    pub redundancy: Option<Vec<f32>>,
    /// One bit per packed pair.
    pub known: Option<Vec<u8>>,
    /// The texts beside the tensors: direction, estimator, form and `n_prompts` are there.
    pub metadata: BTreeMap<String, String>,
}

/// Read and check a file.
///
/// # Errors
/// It cannot be read, or is not what the format promises; the message names the tensor.
pub fn load(path: &Path, cancel: &Cancel) -> Result<Loaded> {
    let source = Source::open(path)?;
    let header = Header::read(&source)?;
    let reader = Reader { source: &source, header: &header, cancel };
    let clipped = reader.check_metadata()?;
    let pool: Vec<u32> = reader.all("pool", "U32")?;
    if let Some(two) = pool.windows(2).find(|two| two[0] >= two[1]) {
        let message = format!("has {} before {}, must ascend", two[0], two[1]);
        return Err(source.wrong("pool", message));
    }
    let m = pool.len();
    let values = if header.find("indptr").is_some() {
        Values::Sparse(reader.sparse(m)?)
    } else {
        Values::Dense(reader.square("values", m)?)
    };
    let numbers = match &values {
        Values::Dense(values) => values,
        Values::Sparse(csr) => &csr.values,
    };
    if let Some(x) = numbers.iter().find(|&&x| clipped && x < 0.0) {
        return Err(source.wrong("values", format!("has {x}, must be at least 0 when clipped")));
    }
    let done: Vec<u8> = reader.shaped("done", "U8", &[m])?;
    if let Some(flag) = done.iter().find(|&&flag| flag > 1) {
        return Err(source.wrong("done", format!("has {flag}, must be 0 or 1")));
    }
    let redundancy = header.find("redundancy").map(|_| reader.square("redundancy", m));
    let bits = [n_pairs(m).div_ceil(8)];
    let known = header.find("known").map(|_| reader.shaped("known", "U8", &bits));
    let (redundancy, known) = (redundancy.transpose()?, known.transpose()?);
    Ok(Loaded { pool, values, done, redundancy, known, metadata: header.metadata.clone() })
}

struct Reader<'a> {
    source: &'a Source,
    header: &'a Header,
    cancel: &'a Cancel,
}

impl Reader<'_> {
    /// Whether the synergies are clipped.
    fn check_metadata(&self) -> Result<bool> {
        let text = |key: &str| {
            let text = self.header.metadata.get(key).map(String::as_str);
            text.ok_or_else(|| self.source.wrong(key, "is missing in the metadata"))
        };
        let one_of = |key: &str, valid: [&str; 2]| {
            let text = text(key)?;
            if valid.contains(&text) {
                return Ok(text);
            }
            let message = format!("is {text:?}, must be {:?} or {:?}", valid[0], valid[1]);
            Err(self.source.wrong(key, message))
        };
        one_of("direction", ["noising", "denoising"])?;
        text("estimator")?;
        let n = text("n_prompts")?;
        if n.parse::<u64>().map_or(true, |n| n == 0) {
            let message = format!("is {n:?}, must be a number from 1 on");
            return Err(self.source.wrong("n_prompts", message));
        }
        Ok(one_of("form", ["clipped", "signed"])? == "clipped")
    }

    fn tensor(&self, name: &str, dtype: &str) -> Result<&Tensor> {
        let tensor = self.header.get(self.source, name)?;
        if tensor.dtype != dtype {
            let message = format!("has dtype {}, must be {dtype}", tensor.dtype);
            return Err(self.source.wrong(name, message));
        }
        Ok(tensor)
    }

    /// A tensor of one dimension and any length.
    fn all<T: Pod>(&self, name: &str, dtype: &str) -> Result<Vec<T>> {
        let tensor = self.tensor(name, dtype)?;
        let &[n] = tensor.shape.as_slice() else {
            let message = format!("has shape {:?}, must have one dimension", tensor.shape);
            return Err(self.source.wrong(name, message));
        };
        self.source.read_long(tensor.offset, n, self.cancel)
    }

    fn shaped<T: Pod>(&self, name: &str, dtype: &str, shape: &[usize]) -> Result<Vec<T>> {
        let tensor = self.tensor(name, dtype)?;
        if tensor.shape != shape {
            let message = format!("has shape {:?}, must be {shape:?}", tensor.shape);
            return Err(self.source.wrong(name, message));
        }
        self.source.read_long(tensor.offset, shape.iter().product(), self.cancel)
    }

    fn square(&self, name: &str, m: usize) -> Result<Vec<f32>> {
        let values = self.shaped(name, "F32", &[m, m])?;
        let checked = Dense::new(&values, m).and_then(|w| w.check(None, self.cancel));
        checked.map_err(|error| self.about(name, error))?;
        Ok(values)
    }

    fn sparse(&self, m: usize) -> Result<CsrArrays> {
        let indptr: Vec<i64> = self.shaped("indptr", "I64", &[m + 1])?;
        let indices: Vec<i32> = self.all("indices", "I32")?;
        let values: Vec<f32> = self.shaped("values", "F32", &[indices.len()])?;
        let checked =
            Csr::new(&indptr, &indices, &values).and_then(|csr| csr.check(None, self.cancel));
        checked.map_err(|error| self.about("values", error))?;
        Ok(CsrArrays { indptr, indices, values })
    }

    /// What is wrong with an array is wrong with the file.
    fn about(&self, name: &str, error: Error) -> Error {
        match error {
            Error::Argument(message) => self.source.wrong(name, message),
            other => other,
        }
    }
}
