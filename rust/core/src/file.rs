//! Files read by position. Nothing is mapped, so a file that shrinks while it is read is an error
//! and never a signal.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use bytemuck::{Pod, Zeroable};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[cfg(target_endian = "big")]
compile_error!("feature dumps are little endian and read without byte swapping");

/// Numbers read between two looks at whether to stop.
const PART: usize = 1 << 22;

/// A regular file, open for reading at any offset from any thread.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Source {
    /// Open a file.
    ///
    /// # Errors
    /// It does not exist, cannot be read, or is not a regular file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        // Asked before opening: opening a fifo would wait for a writer.
        let kind = std::fs::metadata(&path).map_err(|e| Error::io(&path, e))?;
        if !kind.is_file() {
            return Err(Error::format(path, "file", "is not a regular file"));
        }
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let len = file.metadata().map_err(|e| Error::io(&path, e))?.len();
        Ok(Self { path, file, len })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it had no bytes when it was opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When it was last written.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn modified(&self) -> Result<SystemTime> {
        let found = self.file.metadata().and_then(|metadata| metadata.modified());
        found.map_err(|e| Error::io(&self.path, e))
    }

    /// An error about this file.
    pub fn wrong(&self, field: impl Into<String>, message: impl Into<String>) -> Error {
        Error::format(&self.path, field, message)
    }

    /// Fill `out` from the bytes at `offset`.
    ///
    /// # Errors
    /// The file ends before `out` is full, or cannot be read.
    pub fn read<T: Pod>(&self, out: &mut [T], offset: u64) -> Result<()> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(out);
        let end = offset.saturating_add(bytes.len() as u64);
        read_exact_at(&self.file, bytes, offset).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => self.wrong(
                "file",
                format!("ends before byte {end}; it had {} bytes when it was opened", self.len),
            ),
            _ => Error::io(&self.path, source),
        })
    }

    /// As [`Source::read_vec`] for what may be gigabytes.
    ///
    /// # Errors
    /// As [`Source::read_vec`]; an interrupt.
    pub fn read_long<T: Pod>(&self, offset: u64, n: usize, cancel: &Cancel) -> Result<Vec<T>> {
        let mut out = zeros(n)?;
        for (i, part) in out.chunks_mut(PART).enumerate() {
            cancel.check()?;
            self.read(part, offset + (i * PART * size_of::<T>()) as u64)?;
        }
        Ok(out)
    }

    /// `n` elements from the bytes at `offset`.
    ///
    /// # Errors
    /// As [`Source::read`], or `n` elements do not fit into memory.
    pub fn read_vec<T: Pod>(&self, offset: u64, n: usize) -> Result<Vec<T>> {
        let mut out = Vec::new();
        self.read(room(&mut out, n)?, offset)?;
        Ok(out)
    }
}

/// The first `n` elements of `buffer`, which grows when it is shorter and never shrinks, so that a
/// loop can read into it again and again. What was in it may be lost.
///
/// # Errors
/// There is no memory for `n` elements.
pub fn room<T: Pod>(buffer: &mut Vec<T>, n: usize) -> Result<&mut [T]> {
    if buffer.len() < n {
        // Freed first: the two together may not fit.
        *buffer = Vec::new();
        *buffer = zeros(n)?;
    }
    Ok(&mut buffer[..n])
}

/// `n` zeros, straight from the allocator: large ones cost nothing until they are written.
///
/// # Errors
/// There is no memory for them.
pub fn zeros<T: Zeroable>(n: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| no_memory::<T>(n))
}

/// Make sure that `buffer` holds `n` elements without growing again.
///
/// # Errors
/// There is no memory for them.
pub fn reserve<T>(buffer: &mut Vec<T>, n: usize) -> Result<()> {
    buffer.try_reserve_exact(n.saturating_sub(buffer.len())).map_err(|_| no_memory::<T>(n))
}

fn no_memory<T>(n: usize) -> Error {
    let bytes = n.saturating_mul(size_of::<T>());
    Error::argument(format!("no memory for {n} elements ({bytes} bytes)"))
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
