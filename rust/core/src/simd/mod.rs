//! Inner loops, chosen by what the processor has: those of dense greedy selection, [`bits`], and any
//! plain loop that gains from wider vectors ([`Loop`]).
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

#[cfg(target_arch = "x86_64")]
mod avx2;
pub mod bits;

#[cfg(target_arch = "x86_64")]
use crate::cpu;
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
#[inline(always)]
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
    if cpu::avx2() {
        // SAFETY: `cpu` saw AVX2.
        return unsafe { S::leading_within(blocks, lowest, highest) };
    }
    let within = |block: &[S; BLOCK]| {
        // No early exit: this way it becomes a handful of vector comparisons.
        block.iter().fold(true, |all, &x| all & (x <= highest) & (x >= lowest))
    };
    blocks.iter().position(|block| !within(block)).unwrap_or(blocks.len())
}

/// A plain loop that gains from wider vectors. `run` and what it calls for each number are
/// `#[inline(always)]`, so that the compiler sees them in [`widest`].
pub trait Loop {
    /// What it returns.
    type Output;

    /// Run it.
    fn run(self) -> Self::Output;
}

/// Run a loop as compiled for AVX2 where the processor has it: the same bits.
#[inline]
pub fn widest<L: Loop>(work: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    if cpu::avx2() {
        // SAFETY: `cpu` saw AVX2.
        return unsafe { avx2::run(work) };
    }
    work.run()
}

/// Numbers compared by [`over`] together.
pub const MASK: usize = 64;

/// A bit for each value whose magnitude is over its limit, which is a number; the lowest bit for the
/// first value. NaN counts as over.
#[inline]
pub fn over(values: &[f32; MASK], limits: &[f32; MASK]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if cpu::avx2() {
        // SAFETY: `cpu` saw AVX2.
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
    if cpu::avx2() {
        // SAFETY: `cpu` saw AVX2.
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
    /// The fastest one that may run.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if cpu::avx2() {
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
            // SAFETY: `cpu` saw avx2 and fma; the lengths were just compared.
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

#[cfg(not(target_arch = "x86_64"))]
impl Vector for f32 {}
#[cfg(not(target_arch = "x86_64"))]
impl Vector for f64 {}
