//! The inner loops over decoder rows: widening halves, and tiles of a Gram matrix.
//!
//! A tile is `MR` rows of one operand, read as they lie, times `NR` rows of the other, packed so
//! that element k of all of them is together. The processor decides at run time which kernel
//! runs: bf16 rows are multiplied as they are where it can (AVX-512 BF16), else they are widened
//! and multiplied in f32 (AVX2 with FMA, or plain Rust). Every kernel adds along k in one fixed
//! order, so a tile's bits depend on the kernel but not on threads or on where the tile lies.
#![allow(unsafe_code)]

use crate::cpu;
use crate::dump::FloatType;
use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Rows of a tile.
pub(crate) const MR: usize = 6;

/// Half precision bits to f32.
pub(crate) fn widen(bits: &[u16], kind: FloatType, out: &mut [f32]) {
    match kind {
        FloatType::F16 => bytemuck::cast_slice::<u16, f16>(bits).convert_to_f32_slice(out),
        // A plain shift, which vectorises; bf16's own conversion also quiets NaNs, one at a time.
        FloatType::BF16 => {
            for (out, &bits) in out.iter_mut().zip(bits) {
                *out = f32::from_bits(u32::from(bits) << 16);
            }
        }
        FloatType::F32 => {}
    }
}

/// A kernel over elements of one type.
pub(crate) trait Kernel: Copy + Sync {
    /// What rows are made of.
    type Element: Pod + Send + Sync;
    /// Columns of a tile.
    const NR: usize;
    /// Elements of a row that are packed next to each other; rows are padded to a multiple.
    const DEPTH: usize;

    /// `out[i * NR + j] = sum over k of a[i][k] * b[j][k]`.
    ///
    /// `b` is packed: element k of row j at `(k / DEPTH * NR + j) * DEPTH + k % DEPTH`.
    fn tile(self, a: [&[Self::Element]; MR], b: &[Self::Element], out: &mut [f32]);
}

/// f32 rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct F32Kernel {
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no other kernel there"))]
    avx2: bool,
}

impl F32Kernel {
    /// The fastest one that may run.
    pub fn detect() -> Self {
        Self { avx2: cpu::avx2() }
    }

    /// The one that runs anywhere.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { avx2: false }
    }
}

impl Kernel for F32Kernel {
    type Element = f32;
    const NR: usize = 16;
    const DEPTH: usize = 1;

    fn tile(self, a: [&[f32]; MR], b: &[f32], out: &mut [f32]) {
        let depth = a[0].len();
        assert!(a.iter().all(|row| row.len() == depth) && b.len() == depth * Self::NR);
        assert!(out.len() == MR * Self::NR);
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            // SAFETY: `cpu` saw avx2 and fma; the lengths were just compared.
            unsafe { x86::f32_tile(a, b, out) };
            return;
        }
        plain_tile(a, b, out);
    }
}

/// bf16 rows, as the bits of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bf16Kernel(());

impl Bf16Kernel {
    /// Where one may run.
    pub fn detect() -> Option<Self> {
        (cpu::kernels() >= cpu::Kernels::Avx512).then_some(Self(()))
    }
}

impl Kernel for Bf16Kernel {
    type Element = u16;
    const NR: usize = 64;
    const DEPTH: usize = 2;

    fn tile(self, a: [&[u16]; MR], b: &[u16], out: &mut [f32]) {
        let depth = a[0].len();
        assert!(a.iter().all(|row| row.len() == depth) && b.len() == depth * Self::NR);
        assert!(depth.is_multiple_of(2) && out.len() == MR * Self::NR);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the only constructor asked `cpu`, which saw avx512f and avx512bf16; the lengths were just compared.
        unsafe {
            x86::bf16_tile(a, b, out);
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("there is no constructor on this processor");
    }
}

fn plain_tile(a: [&[f32]; MR], b: &[f32], out: &mut [f32]) {
    const NR: usize = F32Kernel::NR;
    for (row, out) in a.iter().zip(out.chunks_exact_mut(NR)) {
        let mut sums = [0.0f32; NR];
        for (x, column) in row.iter().zip(b.chunks_exact(NR)) {
            for (sum, y) in sums.iter_mut().zip(column) {
                *sum += x * y;
            }
        }
        out.copy_from_slice(&sums);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::MR;
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_setzero_ps, _mm256_storeu_ps, _mm512_dpbf16_ps, _mm512_loadu_si512,
        _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    use std::mem::transmute;

    /// # Safety
    /// avx2 and fma; rows of equal length n, `b` of 16 n, `out` of 96 elements.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn f32_tile(a: [&[f32]; MR], b: &[f32], out: &mut [f32]) {
        let mut sums = [[_mm256_setzero_ps(); 2]; MR];
        for k in 0..a[0].len() {
            // SAFETY: k < n, so 16 k + 15 < 16 n is inside `b` and k inside each row.
            unsafe {
                let low = _mm256_loadu_ps(b.as_ptr().add(16 * k));
                let high = _mm256_loadu_ps(b.as_ptr().add(16 * k + 8));
                for (row, sum) in a.iter().zip(&mut sums) {
                    let x = _mm256_broadcast_ss(row.get_unchecked(k));
                    sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
                    sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
                }
            }
        }
        for (out, sum) in out.chunks_exact_mut(16).zip(sums) {
            // SAFETY: each chunk has 16 elements.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), sum[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), sum[1]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn as_bf16(bits: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes, and any bits are 32 bf16 numbers.
        unsafe { transmute::<__m512i, __m512bh>(bits) }
    }

    /// # Safety
    /// avx512f and avx512bf16; rows of equal even length n, `b` of 64 n, `out` of 384 elements.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn bf16_tile(a: [&[u16]; MR], b: &[u16], out: &mut [f32]) {
        let mut sums = [[_mm512_setzero_ps(); 4]; MR];
        for k in (0..a[0].len()).step_by(2) {
            // SAFETY: k and k + 1 are below the even n: 4 loads of 32 elements from 64 k on end at
            // 64 (k + 2) <= 64 n, and the pair lies inside each row.
            unsafe {
                let at = b.as_ptr().add(64 * k);
                let columns: [__m512bh; 4] = [
                    as_bf16(_mm512_loadu_si512(at.cast())),
                    as_bf16(_mm512_loadu_si512(at.add(32).cast())),
                    as_bf16(_mm512_loadu_si512(at.add(64).cast())),
                    as_bf16(_mm512_loadu_si512(at.add(96).cast())),
                ];
                for (row, sum) in a.iter().zip(&mut sums) {
                    let pair = row.as_ptr().add(k).cast::<i32>().read_unaligned();
                    let x = as_bf16(_mm512_set1_epi32(pair));
                    for (sum, column) in sum.iter_mut().zip(columns) {
                        *sum = _mm512_dpbf16_ps(*sum, x, column);
                    }
                }
            }
        }
        for (out, sum) in out.chunks_exact_mut(64).zip(sums) {
            for (out, sum) in out.chunks_exact_mut(16).zip(sum) {
                // SAFETY: each chunk has 16 elements.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Every kernel against f64, within the bound of a recursive f32 sum.
    #[test]
    fn tiles_match_f64() {
        let value = |i: usize| bf16::from_f32(((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 3.0);
        for depth in [0, 2, 6, 64, 250] {
            let a: Vec<bf16> = (0..MR * depth).map(value).collect();
            let b: Vec<bf16> = (0..64 * depth).map(|i| value(i + 5)).collect();
            let wide = |v: &[bf16]| v.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
            check(F32Kernel::plain(), &wide(&a), &wide(&b), depth, f32::into);
            check(F32Kernel::detect(), &wide(&a), &wide(&b), depth, f32::into);
            if let Some(kernel) = Bf16Kernel::detect() {
                let (a, b) = (bytemuck::cast_slice(&a), bytemuck::cast_slice(&b));
                check(kernel, a, b, depth, |x: u16| bf16::from_bits(x).to_f64());
            }
        }
    }

    fn check<K: Kernel>(
        kernel: K,
        a: &[K::Element],
        b: &[K::Element],
        depth: usize,
        wide: impl Fn(K::Element) -> f64,
    ) {
        let row = |i: usize| &a[i * depth..(i + 1) * depth];
        let packed = &b[..K::NR * depth];
        let mut out = vec![0.0; MR * K::NR];
        kernel.tile(std::array::from_fn(row), packed, &mut out);
        for i in 0..MR {
            for j in 0..K::NR {
                let at = |k: usize| packed[(k / K::DEPTH * K::NR + j) * K::DEPTH + k % K::DEPTH];
                let terms = (0..depth).map(|k| wide(row(i)[k]) * wide(at(k)));
                let (sum, size) = terms.fold((0.0, 0.0), |(s, m), t| (s + t, m + t.abs()));
                let bound = size * (depth as f64 + 2.0) * f64::from(f32::EPSILON);
                let found = f64::from(out[i * K::NR + j]);
                assert!((found - sum).abs() <= bound, "{found} is not {sum} at {i}, {j}");
            }
        }
    }
}
