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

/// A number type with its vector loops.
pub trait Vector: Real {
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    /// # Safety
    /// `at` points to 4 readable elements.
    unsafe fn load4(at: *const Self) -> std::arch::x86_64::__m256d;

    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    /// # Safety
    /// AVX2 exists.
    unsafe fn leading_within(blocks: &[[Self; BLOCK]], lowest: Self, highest: Self) -> usize;
}

/// Ask for the memory of one element that will be read soon; an index out of range does nothing.
#[inline]
pub fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = slice.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is that of an element, and a prefetch changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}

/// How many blocks at the start have all their numbers in `[lowest, highest]`; NaN is never in.
#[inline]
pub fn leading_within<S: Vector>(blocks: &[[S; BLOCK]], lowest: S, highest: S) -> usize {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just seen.
        return unsafe { S::leading_within(blocks, lowest, highest) };
    }
    let within = |block: &[S; BLOCK]| {
        // No early exit: this way it becomes a handful of vector comparisons.
        block.iter().fold(true, |all, &x| all & (x <= highest) & (x >= lowest))
    };
    blocks.iter().position(|block| !within(block)).unwrap_or(blocks.len())
}

/// Numbers compared by [`over`] together.
pub const MASK: usize = 64;

/// A bit for each value whose magnitude is over its limit, which is a number; the lowest bit for the
/// first value. NaN counts as over.
#[inline]
pub fn over(values: &[f32; MASK], limits: &[f32; MASK]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just seen.
        return unsafe { avx2::over(values, limits) };
    }
    let bit =
        |(at, (w, limit)): (usize, (&f32, &f32))| u64::from(w.abs() > *limit || w.is_nan()) << at;
    values.iter().zip(limits).enumerate().map(bit).sum()
}

/// `out[i] = (joint[i] - first) - others[i]` in f64, rounded to f32, no less than `lowest`; as
/// many as the shortest slice has. NaN stays NaN.
#[inline]
pub fn synergies<J: Real>(joint: &[J], first: f64, others: &[f64], lowest: f32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just seen.
        return unsafe { avx2::synergies(joint, first, others, lowest, out) };
    }
    plain::synergies(joint, first, others, lowest, out);
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
    pub fn step<W: Vector>(self, row: &[W], pass: &mut Pass<'_>) -> (usize, f64) {
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
                let most = avx2::add_row(row, pass);
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
    use super::{BLOCK, LANES, Pass, Real, Vector, slack};

    #[inline(always)]
    pub fn synergies<J: Real>(
        joint: &[J],
        first: f64,
        others: &[f64],
        lowest: f32,
        out: &mut [f32],
    ) {
        for ((w, joint), other) in out.iter_mut().zip(joint).zip(others) {
            let value = ((joint.to_f64() - first) - other) as f32;
            // Not f32::max, which would turn NaN into the limit.
            *w = if value < lowest { lowest } else { value };
        }
    }

    pub fn add_row<W: Vector>(row: &[W], pass: &mut Pass<'_>) -> f64 {
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
                let block = block * BLOCK..(block + 1) * BLOCK;
                best = block.fold(best, |best, f| better(f, pass, best));
            }
        }
        best
    }

    /// The better of `best` and f, by the exact value; f is the larger id.
    #[inline]
    pub fn better(f: usize, pass: &Pass<'_>, best: (usize, f64)) -> (usize, f64) {
        let value = pass.score[f] + pass.bonus[f] / pass.divisor;
        if value > best.1 { (f, value) } else { best }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BLOCK, LANES, MASK, Pass, Real, Vector, plain, slack};
    use std::arch::x86_64::*;

    /// How far ahead of the use a row is asked for: the hardware's own prefetch starts anew in
    /// every 4 KiB page, and rows of a large matrix come from DRAM.
    const AHEAD_BYTES: usize = 3072;
    /// Rows that are longer are asked for ahead; shorter ones lie in cache or come at once.
    const LONG_ROW: usize = 2048;

    /// # Safety
    /// AVX2 and FMA exist; `score` and `bonus` have `row.len()` rounded up to `BLOCK` elements,
    /// `maxima` has `LANES` for each block.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn add_row<W: Vector>(row: &[W], pass: &mut Pass<'_>) -> f64 {
        let reciprocal = _mm256_set1_pd(1.0 / pass.divisor);
        let mut most = _mm256_set1_pd(f64::NEG_INFINITY);
        let (whole, tail) = row.as_chunks::<BLOCK>();
        let (score, bonus) = (pass.score.as_ptr(), pass.bonus.as_mut_ptr());
        let maxima = pass.maxima.as_mut_ptr();
        for (block, chunk) in whole.iter().enumerate() {
            if row.len() > LONG_ROW {
                prefetch(chunk);
            }
            // SAFETY: block is within all three arrays, as the caller promises.
            unsafe {
                let at = block * BLOCK;
                let here = add_block(chunk, score.add(at), bonus.add(at), reciprocal);
                _mm256_storeu_pd(maxima.add(block * LANES), here);
                most = _mm256_max_pd(most, here);
            }
        }
        if !tail.is_empty() {
            let mut chunk = [W::ZERO; BLOCK];
            chunk[..tail.len()].copy_from_slice(tail);
            // SAFETY: the arrays are padded to a whole last block.
            unsafe {
                let at = whole.len() * BLOCK;
                let here = add_block(&chunk, score.add(at), bonus.add(at), reciprocal);
                _mm256_storeu_pd(maxima.add(whole.len() * LANES), here);
                most = _mm256_max_pd(most, here);
            }
        }
        largest(most)
    }

    /// One block: add, and the maximum of each lane.
    ///
    /// # Safety
    /// `score` and `bonus` point to `BLOCK` elements.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn add_block<W: Vector>(
        row: &[W; BLOCK],
        score: *const f64,
        bonus: *mut f64,
        reciprocal: __m256d,
    ) -> __m256d {
        let mut most = _mm256_set1_pd(f64::NEG_INFINITY);
        for i in (0..BLOCK).step_by(LANES) {
            // SAFETY: i + LANES <= BLOCK, the length of all three.
            unsafe {
                let w = W::load4(row.as_ptr().add(i));
                let sum = _mm256_add_pd(_mm256_loadu_pd(bonus.add(i)), w);
                _mm256_storeu_pd(bonus.add(i), sum);
                let value = _mm256_fmadd_pd(sum, reciprocal, _mm256_loadu_pd(score.add(i)));
                most = _mm256_max_pd(most, value);
            }
        }
        most
    }

    /// The plain loop, compiled for AVX2: twice as wide, the same bits.
    #[target_feature(enable = "avx2")]
    pub fn synergies<J: Real>(
        joint: &[J],
        first: f64,
        others: &[f64],
        lowest: f32,
        out: &mut [f32],
    ) {
        plain::synergies(joint, first, others, lowest, out);
    }

    #[target_feature(enable = "avx2")]
    pub fn over(values: &[f32; MASK], limits: &[f32; MASK]) -> u64 {
        let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFF_FFFF));
        let (values, limits) = (values.as_chunks::<8>().0, limits.as_chunks::<8>().0);
        values.iter().zip(limits).enumerate().fold(0, |mask, (at, (values, limits))| {
            // SAFETY: arrays of eight are read.
            let (w, limit) =
                unsafe { (_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(limits.as_ptr())) };
            let over = _mm256_cmp_ps::<_CMP_NLE_UQ>(_mm256_and_ps(w, magnitude), limit);
            mask | u64::from(_mm256_movemask_ps(over) as u32) << (8 * at)
        })
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn largest(x: __m256d) -> f64 {
        let two = _mm_max_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd::<1>(x));
        _mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two)))
    }

    /// The best exact value among those within rounding of `most`.
    ///
    /// # Safety
    /// AVX2 and FMA exist; lengths as for [`add_row`].
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn argmax(most: f64, pass: &Pass<'_>) -> (usize, f64) {
        let cutoff = _mm256_set1_pd(most - slack(most, pass));
        let reciprocal = _mm256_set1_pd(1.0 / pass.divisor);
        let (score, bonus) = (pass.score.as_ptr(), pass.bonus.as_ptr());
        let mut best = (0, f64::NEG_INFINITY);
        for (block, maxima) in pass.maxima.chunks_exact(LANES).enumerate() {
            // SAFETY: a chunk has four elements.
            let maxima = unsafe { _mm256_loadu_pd(maxima.as_ptr()) };
            if _mm256_movemask_pd(_mm256_cmp_pd::<_CMP_GE_OQ>(maxima, cutoff)) == 0 {
                continue;
            }
            for at in (block * BLOCK..(block + 1) * BLOCK).step_by(LANES) {
                // SAFETY: the arrays have whole blocks.
                let (score, bonus) =
                    unsafe { (_mm256_loadu_pd(score.add(at)), _mm256_loadu_pd(bonus.add(at))) };
                let value = _mm256_fmadd_pd(bonus, reciprocal, score);
                let mut near =
                    _mm256_movemask_pd(_mm256_cmp_pd::<_CMP_GE_OQ>(value, cutoff)) as usize;
                while near != 0 {
                    best = plain::better(at + near.trailing_zeros() as usize, pass, best);
                    near &= near - 1;
                }
            }
        }
        best
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn prefetch<W>(chunk: &[W; BLOCK]) {
        for line in (0..size_of_val(chunk)).step_by(64) {
            // A prefetch of any address is harmless; the arithmetic wraps instead of overflowing.
            let address = chunk.as_ptr().wrapping_byte_add(AHEAD_BYTES + line);
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
    }

    impl Vector for f32 {
        #[inline]
        unsafe fn load4(at: *const f32) -> __m256d {
            // SAFETY: the caller gives four readable elements and runs with AVX.
            unsafe { _mm256_cvtps_pd(_mm_loadu_ps(at)) }
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn leading_within(blocks: &[[f32; BLOCK]], lowest: f32, highest: f32) -> usize {
            let (low, high) = (_mm256_set1_ps(lowest), _mm256_set1_ps(highest));
            let within = |block: &[f32; BLOCK]| {
                let mut all = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
                for eight in block.as_chunks::<8>().0 {
                    // SAFETY: an array of eight is read.
                    let x = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
                    all = _mm256_and_ps(all, _mm256_cmp_ps::<_CMP_LE_OQ>(x, high));
                    all = _mm256_and_ps(all, _mm256_cmp_ps::<_CMP_GE_OQ>(x, low));
                }
                _mm256_movemask_ps(all) == 0xFF
            };
            blocks.iter().position(|block| !within(block)).unwrap_or(blocks.len())
        }
    }

    impl Vector for f64 {
        #[inline]
        unsafe fn load4(at: *const f64) -> __m256d {
            // SAFETY: the caller gives four readable elements and runs with AVX.
            unsafe { _mm256_loadu_pd(at) }
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn leading_within(blocks: &[[f64; BLOCK]], lowest: f64, highest: f64) -> usize {
            let (low, high) = (_mm256_set1_pd(lowest), _mm256_set1_pd(highest));
            let within = |block: &[f64; BLOCK]| {
                let mut all = _mm256_castsi256_pd(_mm256_set1_epi64x(-1));
                for four in block.as_chunks::<4>().0 {
                    // SAFETY: an array of four is read.
                    let x = unsafe { _mm256_loadu_pd(four.as_ptr()) };
                    all = _mm256_and_pd(all, _mm256_cmp_pd::<_CMP_LE_OQ>(x, high));
                    all = _mm256_and_pd(all, _mm256_cmp_pd::<_CMP_GE_OQ>(x, low));
                }
                _mm256_movemask_pd(all) == 0xF
            };
            blocks.iter().position(|block| !within(block)).unwrap_or(blocks.len())
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Vector for f32 {}
#[cfg(not(target_arch = "x86_64"))]
impl Vector for f64 {}
