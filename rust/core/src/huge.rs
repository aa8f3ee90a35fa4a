//! Large arrays in huge pages, where the system has them to give.
//!
//! A fresh array costs a page fault for every 4 KiB, and random additions into one of 80 MB miss
//! the table of addresses nearly every time. 2 MiB pages halve the first and end the second.
#![allow(unsafe_code)]

use crate::error::Result;
use crate::file;
use bytemuck::{Pod, Zeroable};

/// Bytes below which there is no huge page to fill.
const HUGE: usize = 1 << 21;

/// `n` zeros, as [`file::zeros`]; the pages of large ones come when they are first written.
///
/// # Errors
/// There is no memory for them.
pub fn zeros<T: Zeroable>(n: usize) -> Result<Vec<T>> {
    let mut all = file::zeros(n)?;
    advise(&mut all);
    Ok(all)
}

/// The first `n` elements of `buffer`, as [`file::room`].
///
/// # Errors
/// There is no memory for `n` elements.
pub fn room<T: Pod>(buffer: &mut Vec<T>, n: usize) -> Result<&mut [T]> {
    if buffer.len() < n {
        *buffer = Vec::new();
        *buffer = zeros(n)?;
    }
    Ok(&mut buffer[..n])
}

/// Ask for huge pages under `memory`. It is advice: nothing is lost where it is not taken.
fn advise<T>(memory: &mut [T]) {
    #[cfg(target_os = "linux")]
    if size_of_val(memory) >= HUGE {
        const PAGE: usize = 1 << 12;
        let from = memory.as_mut_ptr() as usize;
        let to = (from + size_of_val(memory)) & !(PAGE - 1);
        // The page that `from` lies in begins with the allocator's own header, and the first
        // huge page with it.
        let from = from & !(PAGE - 1);
        // SAFETY: the range is memory of this process, and MADV_HUGEPAGE changes neither its
        // contents nor its protection. A refusal is an error code, which is ignored.
        unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (memory, HUGE);
}
