//! The number types that arrays come in; all arithmetic on them is done in f64.

use std::fmt::{Debug, Display};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for i32 {}
    impl Sealed for i64 {}
}

/// f32 or f64.
pub trait Real:
    sealed::Sealed + Copy + PartialOrd + Send + Sync + Debug + Display + 'static
{
    /// Zero.
    const ZERO: Self;
    /// The smallest finite value.
    const MIN: Self;
    /// Minus infinity.
    const NEG_INFINITY: Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// Neither NaN nor infinite.
    fn finite(self) -> bool;
    /// Zero with either sign.
    fn is_zero(self) -> bool;
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const MIN: Self = <$t>::MIN;
            const NEG_INFINITY: Self = <$t>::NEG_INFINITY;
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn finite(self) -> bool {
                self.is_finite()
            }
            fn is_zero(self) -> bool {
                self == 0.0
            }
        }
    };
}
real!(f32);
real!(f64);

/// i32 or i64, the column numbers of a sparse matrix.
pub trait Index: sealed::Sealed + Copy + Ord + Send + Sync + Debug + Display + 'static {
    /// As an array position; a negative number becomes one that no array has.
    fn position(self) -> usize;
}

impl Index for i32 {
    fn position(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX)
    }
}

impl Index for i64 {
    fn position(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX)
    }
}
