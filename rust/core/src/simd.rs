//! The inner loops of dense greedy selection, chosen by what the processor has.
//!
//! One step of the greedy rule adds a row of the synergy matrix to every candidate's bonus and
//! looks for the best `score + bonus / n`. Division is the slow part, so the pass computes
//! `score + bonus * (1 / n)` instead and keeps the maximum of every block; afterwards
//! [`Kernel::argmax`] divides exactly, but only where a block comes within rounding of the best.
//! The exact value decides, so every kernel returns the same bits.
//!
//! Lane arrays left to the autovectoriser were no faster than SSE2 and AVX-512 was slower than AVX2
//! in a prototype; hence explicit AVX2 behind run-time detection, and plain Rust elsewhere.
#![allow(unsafe_code)]

use crate::real::Real;

/// Candidates per block; scores and bonuses are padded to a multiple of it.
pub const BLOCK: usize = 32;
/// Partial maxima kept per block, one per vector lane.
pub const LANES: usize = 4;

/// A row element type with its vector loads.
pub trait Row: Real {
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    /// # Safety
    /// `at` points to 4 readable elements.
    unsafe fn load4(at: *const Self) -> std::arch::x86_64::__m256d;
}

/// The state that one pass reads and writes; all slices have the same padded length.
#[derive(Debug)]
pub struct Pass<'a> {
    /// `[padded]`: score, or minus infinity for what may not be taken.
    pub score: &'a [f64],
    /// `[padded]`: sum of the rows added so far.
    pub bonus: &'a mut [f64],
    /// `[padded / BLOCK * LANES]`: written by [`Kernel::add_row`], read by [`Kernel::argmax`].
    pub maxima: &'a mut [f64],
    /// What the bonus is divided by.
    pub divisor: f64,
    /// The largest magnitude among the scores that may be taken at the start.
    pub scale: f64,
}

/// A set of inner loops that this processor can run.
#[derive(Debug, Clone, Copy)]
pub struct Kernel(Isa);

#[derive(Debug, Clone, Copy)]
enum Isa {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Kernel {
    /// The fastest one.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Self(Isa::Avx2);
        }
        Self::plain()
    }

    /// The one that runs anywhere.
    #[must_use]
    pub const fn plain() -> Self {
        Self(Isa::Plain)
    }

    /// `bonus += row`, the block maxima of `score + bonus / divisor` within rounding, and the
    /// candidate with the largest exact value, the first one of equals.
    ///
    /// `next` is a row that may be asked for next; it is prefetched and nothing else.
    pub fn step<W: Row>(self, row: &[W], next: &[W], pass: &mut Pass<'_>) -> (usize, f64) {
        // Shorter arrays would be read out of bounds below.
        let padded = row.len().next_multiple_of(BLOCK);
        assert!(pass.score.len() == padded && pass.bonus.len() == padded);
        assert!(pass.maxima.len() == padded / BLOCK * LANES);
        match self.0 {
            Isa::Plain => {
                let most = plain::add_row(row, pass);
                plain::argmax(most, pass)
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` saw avx2 and fma; the lengths were just compared.
            Isa::Avx2 => unsafe {
                let most = avx2::add_row(row, next, pass);
                avx2::argmax(most, pass)
            },
        }
    }
}

/// How far below the largest bound a block may lie and still hold the winner.
///
/// With u = 2^-53, `bound` and the exact `v` differ by at most `u (3 |b/n| + |v| + |bound|)`, and
/// near the top `|b/n| <= |v| + |s|`, so by at most `u (5 |bound| + 3 scale)` up to second order;
/// twice that, once for the winner and once for the largest bound, is under `8 * 2^-52 * (...)`.
/// The constant covers underflow.
fn slack(most: f64, pass: &Pass<'_>) -> f64 {
    8.0 * f64::EPSILON * (most.abs() + pass.scale) + f64::MIN_POSITIVE
}

mod plain {
    use super::{BLOCK, LANES, Pass, Row, slack};

    pub fn add_row<W: Row>(row: &[W], pass: &mut Pass<'_>) -> f64 {
        let reciprocal = 1.0 / pass.divisor;
        let mut most = f64::NEG_INFINITY;
        let blocks = row.chunks(BLOCK).zip(pass.bonus.chunks_exact_mut(BLOCK));
        let rest = pass.score.chunks_exact(BLOCK).zip(pass.maxima.chunks_exact_mut(LANES));
        for ((row, bonus), (score, maxima)) in blocks.zip(rest) {
            maxima.fill(f64::NEG_INFINITY);
            for (i, (w, b)) in row.iter().zip(bonus).enumerate() {
                *b += w.to_f64();
                maxima[i % LANES] = maxima[i % LANES].max(score[i] + *b * reciprocal);
            }
            most = maxima.iter().fold(most, |most, &m| most.max(m));
        }
        most
    }

    pub fn argmax(most: f64, pass: &Pass<'_>) -> (usize, f64) {
        let cutoff = most - slack(most, pass);
        let mut best = (0, f64::NEG_INFINITY);
        for (block, maxima) in pass.maxima.chunks_exact(LANES).enumerate() {
            if maxima.iter().any(|&m| m >= cutoff) {
                best = exact(block * BLOCK, pass, best);
            }
        }
        best
    }

    /// The better of `best` and the block at `start`.
    pub fn exact(start: usize, pass: &Pass<'_>, mut best: (usize, f64)) -> (usize, f64) {
        for f in start..start + BLOCK {
            let value = pass.score[f] + pass.bonus[f] / pass.divisor;
            if value > best.1 {
                best = (f, value);
            }
        }
        best
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BLOCK, LANES, Pass, Row, plain, slack};
    use std::arch::x86_64::*;

    /// How far ahead of the use a row is asked for: the hardware's own prefetch starts anew in
    /// every 4 KiB page, and rows of a large matrix come from DRAM.
    const AHEAD_BYTES: usize = 3072;

    /// # Safety
    /// AVX2 and FMA exist; `score` and `bonus` have `row.len()` rounded up to `BLOCK` elements,
    /// `maxima` has `LANES` for each block.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn add_row<W: Row>(row: &[W], next: &[W], pass: &mut Pass<'_>) -> f64 {
        let reciprocal = _mm256_set1_pd(1.0 / pass.divisor);
        let mut most = _mm256_set1_pd(f64::NEG_INFINITY);
        let whole = row.len() / BLOCK;
        let (score, bonus) = (pass.score.as_ptr(), pass.bonus.as_mut_ptr());
        for block in 0..whole {
            let at = block * BLOCK;
            prefetch(row, at + AHEAD_BYTES / size_of::<W>());
            prefetch(next, at);
            let mut block_most = _mm256_set1_pd(f64::NEG_INFINITY);
            for i in (at..at + BLOCK).step_by(4) {
                // SAFETY: i + 4 <= whole * BLOCK <= row.len() <= the padded lengths.
                unsafe {
                    let sum =
                        _mm256_add_pd(_mm256_loadu_pd(bonus.add(i)), W::load4(row.as_ptr().add(i)));
                    _mm256_storeu_pd(bonus.add(i), sum);
                    let value = _mm256_fmadd_pd(sum, reciprocal, _mm256_loadu_pd(score.add(i)));
                    block_most = _mm256_max_pd(block_most, value);
                }
            }
            most = _mm256_max_pd(most, block_most);
            // SAFETY: maxima has LANES elements for each block.
            unsafe { _mm256_storeu_pd(pass.maxima.as_mut_ptr().add(block * LANES), block_most) };
        }
        let mut lanes = [0.0; 4];
        // SAFETY: four f64 are written to an array of four.
        unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), most) };
        let most = lanes.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let at = whole * BLOCK;
        if at == row.len() {
            return most;
        }
        let mut tail = Pass {
            score: &pass.score[at..],
            bonus: &mut pass.bonus[at..],
            maxima: &mut pass.maxima[whole * LANES..],
            ..*pass
        };
        most.max(plain::add_row(&row[at..], &mut tail))
    }

    /// # Safety
    /// AVX2 exists; lengths as for [`add_row`].
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn argmax(most: f64, pass: &Pass<'_>) -> (usize, f64) {
        let cutoff = _mm256_set1_pd(most - slack(most, pass));
        let mut best = (0, f64::NEG_INFINITY);
        for (block, maxima) in pass.maxima.chunks_exact(LANES).enumerate() {
            // SAFETY: a chunk has four elements.
            let maxima = unsafe { _mm256_loadu_pd(maxima.as_ptr()) };
            let near = _mm256_cmp_pd::<_CMP_GE_OQ>(maxima, cutoff);
            if _mm256_movemask_pd(near) != 0 {
                best = plain::exact(block * BLOCK, pass, best);
            }
        }
        best
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn prefetch<W>(row: &[W], at: usize) {
        for line in (0..BLOCK * size_of::<W>()).step_by(64) {
            // A prefetch of any address is harmless; the arithmetic wraps instead of overflowing.
            let address = row.as_ptr().wrapping_add(at).wrapping_byte_add(line);
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
    }

    impl Row for f32 {
        #[inline]
        unsafe fn load4(at: *const f32) -> __m256d {
            // SAFETY: the caller gives four readable elements and runs with AVX.
            unsafe { _mm256_cvtps_pd(_mm_loadu_ps(at)) }
        }
    }

    impl Row for f64 {
        #[inline]
        unsafe fn load4(at: *const f64) -> __m256d {
            // SAFETY: the caller gives four readable elements and runs with AVX.
            unsafe { _mm256_loadu_pd(at) }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Row for f32 {}
#[cfg(not(target_arch = "x86_64"))]
impl Row for f64 {}
