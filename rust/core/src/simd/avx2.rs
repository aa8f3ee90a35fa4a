//! The loops for AVX2 and FMA.

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

#[target_feature(enable = "avx2")]
pub fn run<L: super::Loop>(work: L) -> L::Output {
    work.run()
}

/// The plain loop, compiled for AVX2: twice as wide, the same bits.
#[target_feature(enable = "avx2")]
pub fn synergies<J: Real>(joint: &[J], first: f64, others: &[f64], lowest: f32, out: &mut [f32]) {
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
            let mut near = _mm256_movemask_pd(_mm256_cmp_pd::<_CMP_GE_OQ>(value, cutoff)) as usize;
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
