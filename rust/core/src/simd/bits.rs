//! Which numbers of a matrix are not 0, as bits; and bits that two columns share.
//!
//! The plain loops are compiled twice, for what every processor has and for AVX2.

/// Rows whose bits are in one word.
pub const ROWS: usize = u32::BITS as usize;

/// Set bit `r` of `masks[c]` where row `r` counts and its number `c` is not 0.
///
/// # Shapes
/// `rows` `[counted.len(), masks.len()]`, row-major, at most [`ROWS`] of them.
///
/// Returns whether all numbers are finite, those of rows that do not count too.
#[inline]
pub fn nonzero(rows: &[f32], counted: &[bool], masks: &mut [u32]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::avx2() {
        // SAFETY: `cpu` saw AVX2.
        return unsafe { avx2::nonzero(rows, counted, masks) };
    }
    plain::nonzero(rows, counted, masks)
}

/// Add to `counts[c]`, for each column `c` from `column` on, the bits that it shares with `column`.
///
/// # Shapes
/// `words` `[n, counts.len()]`, row-major; a count is below 2^32.
#[inline]
pub fn shared(words: &[u32], column: usize, counts: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::avx2() {
        // SAFETY: `cpu` saw AVX2.
        return unsafe { avx2::shared(words, column, counts) };
    }
    plain::shared(words, column, counts);
}

mod plain {
    const MAGNITUDE: u32 = 0x7FFF_FFFF;

    #[inline(always)]
    pub fn nonzero(rows: &[f32], counted: &[bool], masks: &mut [u32]) -> bool {
        let mut largest = 0;
        for (r, (row, &counted)) in rows.chunks_exact(masks.len()).zip(counted).enumerate() {
            let bit = u32::from(counted) << r;
            for (mask, value) in masks.iter_mut().zip(row) {
                // As signed numbers, which vectors compare faster.
                let magnitude = (value.to_bits() & MAGNITUDE).cast_signed();
                *mask |= if magnitude != 0 { bit } else { 0 };
                largest = largest.max(magnitude);
            }
        }
        largest < f32::INFINITY.to_bits().cast_signed()
    }

    #[inline(always)]
    pub fn shared(words: &[u32], column: usize, counts: &mut [u32]) {
        for row in words.chunks_exact(counts.len()) {
            let mine = row[column];
            if mine != 0 {
                for (count, theirs) in counts[column..].iter_mut().zip(&row[column..]) {
                    *count += (mine & theirs).count_ones();
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::plain;

    #[target_feature(enable = "avx2")]
    pub fn nonzero(rows: &[f32], counted: &[bool], masks: &mut [u32]) -> bool {
        plain::nonzero(rows, counted, masks)
    }

    #[target_feature(enable = "avx2")]
    pub fn shared(words: &[u32], column: usize, counts: &mut [u32]) {
        plain::shared(words, column, counts);
    }
}
