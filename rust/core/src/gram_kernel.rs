//! Kernels over half-precision rows.

use crate::dump::FloatType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Half precision bits to f32.
pub(crate) fn widen(bits: &[u16], kind: FloatType, out: &mut [f32]) {
    match kind {
        FloatType::F16 => bytemuck::cast_slice::<u16, f16>(bits).convert_to_f32_slice(out),
        FloatType::BF16 => bytemuck::cast_slice::<u16, bf16>(bits).convert_to_f32_slice(out),
        FloatType::F32 => {}
    }
}
