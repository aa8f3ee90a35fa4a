//! Delphi latent caches: activations of one layer's latents, split by latent range.
//!
//! A split has `locations` `[n, 3]` of (sequence, position, latent - start), ascending, in an
//! integer dtype of its own, and `activations` `[n]`. Nothing is loaded whole: where a range of
//! sequences lies in a split is found by bisection over the file.

use crate::cancel::Cancel;
use crate::dump::{Entries, FloatType};
use crate::error::{Error, Result};
use crate::file::{Source, reserve};
use crate::gram_kernel::widen;
use crate::header::Header;
use std::ops::Range;
use std::path::PathBuf;

/// Rows read at once.
const CHUNK: usize = 1 << 18;

/// One file of a cache.
#[derive(Debug, Clone)]
pub struct SplitFile {
    /// Where it is.
    pub path: PathBuf,
    /// The layer of its module.
    pub layer: u64,
    /// What is added to its latents.
    pub start: u64,
    /// Its last latent, inclusive, where the file's name says so.
    pub last: Option<u64>,
}

/// An opened cache of one or more layers.
#[derive(Debug)]
pub struct Cache {
    splits: Vec<Split>,
    n_sequences: u64,
}

#[derive(Debug)]
struct Split {
    file: SplitFile,
    source: Source,
    n: u64,
    locations: u64,
    integer: Integer,
    activations: u64,
    float: FloatType,
}

/// Integer dtypes of `locations`.
#[derive(Debug, Clone, Copy)]
enum Integer {
    U8,
    U16,
    I16,
    U32,
    I32,
    I64,
}

impl Integer {
    fn parse(dtype: &str) -> Option<Self> {
        match dtype {
            "U8" => Some(Self::U8),
            "U16" => Some(Self::U16),
            "I16" => Some(Self::I16),
            "U32" => Some(Self::U32),
            "I32" => Some(Self::I32),
            "I64" | "U64" => Some(Self::I64),
            _ => None,
        }
    }

    /// `n` numbers as i64; what is negative stays so, and fails the range checks.
    fn read(self, source: &Source, offset: u64, n: usize) -> Result<Vec<i64>> {
        fn cast<T: bytemuck::Pod + Into<i64>>(s: &Source, o: u64, n: usize) -> Result<Vec<i64>> {
            Ok(s.read_vec::<T>(o, n)?.into_iter().map(Into::into).collect())
        }
        match self {
            Self::U8 => cast::<u8>(source, offset, n),
            Self::U16 => cast::<u16>(source, offset, n),
            Self::I16 => cast::<i16>(source, offset, n),
            Self::U32 => cast::<u32>(source, offset, n),
            Self::I32 => cast::<i32>(source, offset, n),
            Self::I64 => source.read_vec::<i64>(offset, n),
        }
    }

    fn size(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

/// One entry on its way into a dump's order.
#[derive(Debug, Clone, Copy)]
struct Entry {
    sequence: u64,
    feature: u32,
    position: u32,
    activation: f32,
}

impl Cache {
    /// Open the files of a cache.
    ///
    /// # Errors
    /// A file that is not what the format promises.
    pub fn open(files: Vec<SplitFile>) -> Result<Self> {
        let splits = files.into_iter().map(Split::open).collect::<Result<Vec<_>>>()?;
        let mut n_sequences = 0;
        for split in splits.iter().filter(|split| split.n > 0) {
            let last = split.location(split.n - 1)?[0];
            n_sequences = n_sequences.max(last.saturating_add(1).max(0) as u64);
        }
        Ok(Self { splits, n_sequences })
    }

    /// Sequences up to the last that has an entry.
    #[must_use]
    pub fn n_sequences(&self) -> u64 {
        self.n_sequences
    }

    /// Entries in all files.
    #[must_use]
    pub fn n_entries(&self) -> u64 {
        self.splits.iter().map(|split| split.n).sum()
    }

    /// The width that the file names tell; files without ranges are read through for it.
    ///
    /// # Errors
    /// A file that is not what the format promises; an interrupt.
    pub fn width(&self, cancel: &Cancel) -> Result<u64> {
        let mut width = 0;
        for split in &self.splits {
            let last = match split.file.last {
                Some(last) => last,
                None => split.last_latent(cancel)?,
            };
            width = width.max(last.saturating_add(1));
        }
        Ok(width)
    }

    /// The entries of the sequences `first .. first + n` as prompts of a dump with `n_features`
    /// features per layer.
    ///
    /// # Errors
    /// Rows out of order or twice, sequences or latents out of range, activations that are not
    /// finite; the message names file and row. An interrupt.
    pub fn entries(&self, first: u64, n: u64, n_features: u64, cancel: &Cancel) -> Result<Entries> {
        let sequences = first..first.saturating_add(n);
        let mut runs = Vec::with_capacity(self.splits.len());
        for split in &self.splits {
            runs.push(split.collect(&sequences, n_features, cancel)?);
        }
        let total = runs.iter().map(Vec::len).sum();
        let mut out = Entries { prompt_ptr: vec![0], ..Entries::default() };
        reserve(&mut out.feature, total)?;
        reserve(&mut out.position, total)?;
        reserve(&mut out.activation, total)?;
        let mut left: Vec<&[Entry]> = runs.iter().map(Vec::as_slice).collect();
        let mut all = Vec::new();
        for sequence in sequences {
            cancel.check()?;
            all.clear();
            for run in &mut left {
                // Rows ascend by sequence in each file.
                let (here, rest) = run.split_at(run.partition_point(|e| e.sequence == sequence));
                all.extend_from_slice(here);
                *run = rest;
            }
            append(&mut out, &mut all)?;
        }
        Ok(out)
    }
}

/// Append the entries of one sequence, which come in any order.
fn append(out: &mut Entries, all: &mut [Entry]) -> Result<()> {
    all.sort_unstable_by_key(|e| (e.feature, e.position));
    let key = |e: &Entry| (e.sequence, e.feature, e.position);
    if let Some(pair) = all.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
        let (sequence, feature, position) = key(&pair[0]);
        let message = format!(
            "(sequence, feature, position) ({sequence}, {feature}, {position}) is in two files"
        );
        return Err(Error::argument(message));
    }
    out.feature.extend(all.iter().map(|e| e.feature));
    out.position.extend(all.iter().map(|e| e.position));
    out.activation.extend(all.iter().map(|e| e.activation));
    out.prompt_ptr.push(out.feature.len() as i64);
    Ok(())
}

impl Split {
    fn open(file: SplitFile) -> Result<Self> {
        let source = Source::open(&file.path)?;
        let header = Header::read(&source)?;
        let activations = header.get(&source, "activations")?;
        let float = FloatType::parse(&activations.dtype).ok_or_else(|| {
            let message = format!("has dtype {}, must be F16, BF16 or F32", activations.dtype);
            source.wrong("activations", message)
        })?;
        let &[n] = activations.shape.as_slice() else {
            let message = format!("has shape {:?}, must have one axis", activations.shape);
            return Err(source.wrong("activations", message));
        };
        let locations = header.get(&source, "locations")?;
        let integer = Integer::parse(&locations.dtype).ok_or_else(|| {
            source.wrong("locations", format!("has dtype {}, must be whole", locations.dtype))
        })?;
        if locations.shape != [n, 3] {
            let message = format!("has shape {:?}, must be [{n}, 3]", locations.shape);
            return Err(source.wrong("locations", message));
        }
        let (locations, activations) = (locations.offset, activations.offset);
        Ok(Self { file, source, n: n as u64, locations, integer, activations, float })
    }

    /// (sequence, position, latent) of one row.
    fn location(&self, row: u64) -> Result<[i64; 3]> {
        let three = self.rows(row, 1)?;
        Ok([three[0], three[1], three[2]])
    }

    fn rows(&self, row: u64, n: usize) -> Result<Vec<i64>> {
        self.integer.read(&self.source, self.locations + row * 3 * self.integer.size(), 3 * n)
    }

    /// The first row whose sequence is at least `sequence`, if the rows ascend.
    fn lower_bound(&self, sequence: u64) -> Result<u64> {
        let (mut low, mut high) = (0, self.n);
        while low < high {
            let middle = low + (high - low) / 2;
            if (self.location(middle)?[0] as i128) < i128::from(sequence) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn last_latent(&self, cancel: &Cancel) -> Result<u64> {
        let (mut last, mut row) = (0, 0);
        while row < self.n {
            cancel.check()?;
            let n = CHUNK.min((self.n - row) as usize);
            let rows = self.rows(row, n)?;
            last = rows.chunks_exact(3).map(|r| r[2].max(0) as u64).fold(last, u64::max);
            row += n as u64;
        }
        Ok(last.saturating_add(self.file.start))
    }

    /// The entries of `sequences`, in the order of the file.
    fn collect(
        &self,
        sequences: &Range<u64>,
        n_features: u64,
        cancel: &Cancel,
    ) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let (low, high) = (self.lower_bound(sequences.start)?, self.lower_bound(sequences.end)?);
        let mut before = [i64::MIN; 3];
        let mut row = low;
        if let Ok(n) = usize::try_from(high.saturating_sub(low)) {
            reserve(&mut all, n)?;
        }
        while row < high {
            cancel.check()?;
            let n = CHUNK.min((high - row) as usize);
            let rows = self.rows(row, n)?;
            let activations = self.activations(row, n)?;
            for (i, (triple, &activation)) in rows.chunks_exact(3).zip(&activations).enumerate() {
                let triple = [triple[0], triple[1], triple[2]];
                if triple <= before {
                    let message = format!("{triple:?} follows {before:?}, rows must ascend");
                    return Err(self.wrong(row + i as u64, &message));
                }
                before = triple;
                all.push(self.entry(row + i as u64, triple, activation, sequences, n_features)?);
            }
            row += n as u64;
        }
        if low > high {
            return Err(self.wrong(high, "sequences do not ascend"));
        }
        Ok(all)
    }

    fn activations(&self, row: u64, n: usize) -> Result<Vec<f32>> {
        let offset = self.activations + row * self.float.size();
        if self.float == FloatType::F32 {
            return self.source.read_vec::<f32>(offset, n);
        }
        let half = self.source.read_vec::<u16>(offset, n)?;
        let mut wide = vec![0.0; n];
        widen(&half, self.float, &mut wide);
        Ok(wide)
    }

    fn entry(
        &self,
        row: u64,
        [sequence, position, latent]: [i64; 3],
        activation: f32,
        sequences: &Range<u64>,
        n_features: u64,
    ) -> Result<Entry> {
        let within = |value: i64, end: u64| u64::try_from(value).ok().filter(|&v| v < end);
        let sequence = within(sequence, sequences.end)
            .filter(|s| *s >= sequences.start)
            .ok_or_else(|| self.wrong(row, &format!("sequence {sequence} is out of order")))?;
        let end = self.file.last.map_or(n_features, |last| last.saturating_add(1).min(n_features));
        let index = latent.checked_add_unsigned(self.file.start).and_then(|v| within(v, end));
        let (start, layer) = (self.file.start, self.file.layer);
        let index = index.ok_or_else(|| {
            self.wrong(row, &format!("latent {latent} + {start} is outside [{start}, {end})"))
        })?;
        let feature = layer.checked_mul(n_features).and_then(|base| base.checked_add(index));
        let feature = feature.and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            self.wrong(row, &format!("layer {layer} of {n_features} features exceeds 2^32 ids"))
        })?;
        let position = u32::try_from(position)
            .map_err(|_| self.wrong(row, &format!("position {position} is not a position")))?;
        if !activation.is_finite() {
            return Err(self.source.wrong(
                "activations",
                format!("row {row} has {activation}, must be finite (16 bits hold up to 65504)"),
            ));
        }
        Ok(Entry { sequence, feature, position, activation })
    }

    fn wrong(&self, row: u64, message: &str) -> Error {
        self.source.wrong("locations", format!("row {row}: {message}"))
    }
}

/// An integer matrix of a safetensors file as i64, or `None` if the file has no such tensor.
///
/// # Shapes
/// `[rows, columns]`, row-major, with the number of columns.
///
/// # Errors
/// The tensor is no integer matrix; the file is not what its format promises; an interrupt.
pub fn integer_matrix(
    path: PathBuf,
    name: &str,
    cancel: &Cancel,
) -> Result<Option<(Vec<i64>, usize)>> {
    let source = Source::open(path)?;
    let header = Header::read(&source)?;
    let Some(tensor) = header.find(name) else { return Ok(None) };
    let integer = Integer::parse(&tensor.dtype);
    let (Some(integer), &[rows, columns]) = (integer, tensor.shape.as_slice()) else {
        let message = format!(
            "is {} of shape {:?}, must be whole numbers with two axes",
            tensor.dtype, tensor.shape
        );
        return Err(source.wrong(name, message));
    };
    let n = rows.saturating_mul(columns);
    let mut all = Vec::new();
    reserve(&mut all, n)?;
    for from in (0..n).step_by(CHUNK) {
        cancel.check()?;
        let offset = tensor.offset + from as u64 * integer.size();
        all.append(&mut integer.read(&source, offset, CHUNK.min(n - from))?);
    }
    Ok(Some((all, columns)))
}
