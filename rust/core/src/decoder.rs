//! Rows of a decoder tensor, read from its checkpoint file without loading the rest.
//!
//! Row `f` of `W_dec_l [n_features, n_layers - l, d_model]` is one span of the file. Each row that
//! is asked for is read once, in the order of the file, neighbours together.

use crate::cancel::Cancel;
use crate::dump::FloatType;
use crate::error::{Error, Result};
use crate::file::{Source, room};
use crate::gram_kernel::widen;
use crate::header::Header;
use crate::workers::{Spare, Workers};
use std::path::Path;

/// Bytes that one read brings at most, a row of more bytes excepted.
const SPAN: usize = 1 << 20;

/// Numbers below which one thread is faster than several.
const SMALL: usize = 1 << 18;

/// An open decoder tensor.
#[derive(Debug)]
pub struct Decoder {
    source: Source,
    tensor: String,
    dtype: FloatType,
    n_rows: usize,
    row_shape: Vec<usize>,
    row_len: usize,
    offset: u64,
}

impl Decoder {
    /// Open `tensor` in the safetensors file `path`, a row for each index of its first axis.
    ///
    /// # Errors
    /// The file is not what its format promises, has no such tensor, or the tensor is not bf16,
    /// f16 or f32 of at least two axes.
    pub fn open(path: impl AsRef<Path>, tensor: &str) -> Result<Self> {
        Self::open_rows(path, tensor, None)
    }

    /// As [`Decoder::open`], with rows of the last `row_axes` axes: the axes before them are taken
    /// as one.
    ///
    /// # Errors
    /// As [`Decoder::open`], or the tensor has no axis left to count rows by.
    pub fn open_rows(
        path: impl AsRef<Path>,
        tensor: &str,
        row_axes: Option<usize>,
    ) -> Result<Self> {
        let source = Source::open(path.as_ref())?;
        let header = Header::read(&source)?;
        let found = header.get(&source, tensor)?;
        let dtype = FloatType::parse(&found.dtype).ok_or_else(|| {
            source.wrong(tensor, format!("has dtype {}, must be BF16, F16 or F32", found.dtype))
        })?;
        let row_axes = row_axes.unwrap_or(found.shape.len().saturating_sub(1)).max(1);
        if found.shape.len() <= row_axes {
            let least = if row_axes == 1 { "two".to_owned() } else { (row_axes + 1).to_string() };
            let message = format!("has shape {:?}, must have at least {least} axes", found.shape);
            return Err(source.wrong(tensor, message));
        }
        let (shape, offset) = (found.shape.clone(), found.offset);
        Self::at(source, tensor, dtype, &shape, row_axes, offset)
    }

    /// Numbers of `shape` that lie at `offset` of the file `path`, which need not be safetensors;
    /// `name` is what errors call them.
    ///
    /// # Errors
    /// The file ends before the last of them, or `shape` has no axis to count rows by.
    pub fn raw(
        path: impl AsRef<Path>,
        name: &str,
        dtype: FloatType,
        shape: &[usize],
        offset: u64,
    ) -> Result<Self> {
        let source = Source::open(path.as_ref())?;
        if shape.len() < 2 {
            return Err(source.wrong(name, format!("has shape {shape:?}, must have two axes")));
        }
        let bytes = shape.iter().try_fold(dtype.size(), |n, &axis| n.checked_mul(axis as u64));
        let end = bytes.and_then(|bytes| offset.checked_add(bytes));
        if end.is_none_or(|end| end > source.len()) {
            let message = format!("of shape {shape:?} does not fit the {} bytes", source.len());
            return Err(source.wrong(name, message));
        }
        Self::at(source, name, dtype, shape, shape.len() - 1, offset)
    }

    fn at(
        source: Source,
        tensor: &str,
        dtype: FloatType,
        shape: &[usize],
        row_axes: usize,
        offset: u64,
    ) -> Result<Self> {
        let (counted, row_shape) = shape.split_at(shape.len() - row_axes);
        // An empty tensor may name any size for its other axes.
        let product = |axes: &[usize]| axes.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis));
        let n_rows = product(counted)
            .ok_or_else(|| source.wrong(tensor, format!("has impossible shape {shape:?}")))?;
        let row_len = product(row_shape)
            .ok_or_else(|| source.wrong(tensor, format!("has impossible rows {row_shape:?}")))?;
        let (tensor, row_shape) = (tensor.to_owned(), row_shape.to_vec());
        Ok(Self { source, tensor, dtype, n_rows, row_shape, row_len, offset })
    }

    /// Number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Shape of one row.
    #[must_use]
    pub fn row_shape(&self) -> &[usize] {
        &self.row_shape
    }

    /// How its elements are stored.
    #[must_use]
    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// An error about this tensor.
    pub(crate) fn wrong(&self, message: impl Into<String>) -> Error {
        self.source.wrong(&self.tensor, message)
    }

    /// `out.len()` elements of a row from element `from` on, widened. The caller has checked that
    /// the row has them.
    pub(crate) fn part(&self, row: usize, from: usize, out: &mut [f32]) -> Result<()> {
        let offset = self.offset + (row * self.row_len + from) as u64 * self.dtype.size();
        if self.dtype == FloatType::F32 {
            self.source.read(out, offset)?;
        } else {
            let half = self.source.read_vec::<u16>(offset, out.len())?;
            widen(&half, self.dtype, out);
        }
        self.check_finite(row, out)
    }

    /// As [`Decoder::part`], the bits of a bf16 tensor.
    pub(crate) fn part_bf16(&self, row: usize, from: usize, out: &mut [u16]) -> Result<()> {
        const EXPONENT: u16 = 0x7f80;
        self.source.read(out, self.offset + 2 * (row * self.row_len + from) as u64)?;
        let bad = out.iter().fold(false, |bad, bits| bad | (bits & EXPONENT == EXPONENT));
        if bad { Err(self.wrong(format!("row {row} is not finite"))) } else { Ok(()) }
    }

    fn check_finite(&self, row: usize, values: &[f32]) -> Result<()> {
        if values.iter().fold(true, |all, v| all & v.is_finite()) {
            return Ok(());
        }
        let bad = values.iter().find(|v| !v.is_finite()).unwrap_or(&f32::NAN);
        Err(self.wrong(format!("row {row} has {bad}, must be finite")))
    }

    /// Read the rows `ids`, in that order, with repeats, into `out`.
    ///
    /// # Shapes
    /// `out` is `[ids.len(), row_shape..]`.
    ///
    /// # Errors
    /// Ids that are not rows; `out` of another length; a number that is not finite; a file that
    /// ends too early; an interrupt.
    ///
    /// # Memory
    /// 1 MiB per thread.
    pub fn rows(
        &self,
        ids: &[i64],
        threads: Option<usize>,
        out: &mut [f32],
        cancel: &Cancel,
    ) -> Result<()> {
        let order = self.order(ids)?;
        let len = ids.len().saturating_mul(self.row_len);
        if out.len() != len {
            return Err(Error::argument(format!("out has length {}, must be {len}", out.len())));
        }
        if len == 0 {
            return Ok(());
        }
        // Ascending by row, so that neighbours are read together and repeats once.
        let rows = take_in_order(out.chunks_mut(self.row_len).collect(), &order);
        let mut jobs = self.jobs(rows, &order);
        let spare = Spare::<Scratch>::default();
        let read = |job: &mut Job<'_>| spare.with(|scratch| self.read(job, scratch));
        Workers::new(threads, len < SMALL)?.each(&mut jobs, |_, job| {
            cancel.check()?;
            read(job)
        })
    }

    /// (row, place in the result), ascending by row.
    fn order(&self, ids: &[i64]) -> Result<Vec<(usize, usize)>> {
        let mut order = Vec::with_capacity(ids.len());
        for (place, &id) in ids.iter().enumerate() {
            let row = usize::try_from(id).ok().filter(|&row| row < self.n_rows);
            let row = row.ok_or_else(|| {
                let message = format!("row {id} is outside [0, {})", self.n_rows);
                Error::argument(format!(
                    "{}: {}: {message}",
                    self.source.path().display(),
                    self.tensor
                ))
            })?;
            order.push((row, place));
        }
        order.sort_unstable();
        Ok(order)
    }

    /// Cut the ordered rows into spans of neighbouring rows.
    fn jobs<'a>(&self, rows: Vec<&'a mut [f32]>, order: &[(usize, usize)]) -> Vec<Job<'a>> {
        let most = (SPAN / (self.row_len * self.dtype.size() as usize)).max(1);
        let mut jobs: Vec<Job<'a>> = Vec::new();
        for (out, &(row, _)) in rows.into_iter().zip(order) {
            match jobs.last_mut() {
                Some(job) if row < job.end || (row == job.end && row - job.first < most) => {
                    job.end = row + 1;
                    job.out.push((row, out));
                }
                _ => jobs.push(Job { first: row, end: row + 1, out: vec![(row, out)] }),
            }
        }
        jobs
    }

    fn read(&self, job: &mut Job<'_>, scratch: &mut Scratch) -> Result<()> {
        let offset = self.offset + (job.first * self.row_len) as u64 * self.dtype.size();
        let n = (job.end - job.first) * self.row_len;
        let within = |row: usize| (row - job.first) * self.row_len..;
        match (self.dtype, job.out.as_mut_slice()) {
            (FloatType::F32, [(_, out)]) => self.source.read(out, offset)?,
            (FloatType::F32, rows) => {
                let wide = room(&mut scratch.wide, n)?;
                self.source.read(wide, offset)?;
                for (row, out) in rows {
                    out.copy_from_slice(&wide[within(*row)][..self.row_len]);
                }
            }
            (half_type, rows) => {
                let half = room(&mut scratch.half, n)?;
                self.source.read(half, offset)?;
                for (row, out) in rows {
                    widen(&half[within(*row)][..self.row_len], half_type, out);
                }
            }
        }
        job.out.iter().try_for_each(|(row, out)| self.check_finite(*row, out))
    }
}

/// What rows are read into when they are not read straight into the result.
#[derive(Default)]
struct Scratch {
    half: Vec<u16>,
    wide: Vec<f32>,
}

/// Neighbouring rows, read at once, and where each goes.
struct Job<'a> {
    first: usize,
    end: usize,
    out: Vec<(usize, &'a mut [f32])>,
}

/// The slices in the order of their places.
fn take_in_order<'a>(rows: Vec<&'a mut [f32]>, order: &[(usize, usize)]) -> Vec<&'a mut [f32]> {
    let mut rows: Vec<Option<&mut [f32]>> = rows.into_iter().map(Some).collect();
    order.iter().filter_map(|&(_, place)| rows[place].take()).collect()
}
