//! What a ranking adds up, step by step.

/// The three steps of a score; [`crate::score`] says in which order they are taken.
pub(crate) trait Rule: Copy + Sync {
    /// Step 1: take one more value of a prompt and feature, beginning from 0.0.
    fn fold(self, sum: f64, value: f32) -> f64;

    /// What a prompt gives for a feature, once all its values are folded; never -0.0.
    #[inline(always)]
    fn finish(self, sum: f64) -> f64 {
        sum
    }

    /// Steps 2 and 3: join a prompt into a block, or a block into the totals.
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Sum;

#[derive(Clone, Copy)]
pub(crate) struct AbsoluteSum;

#[derive(Clone, Copy)]
pub(crate) struct SumOfAbsolutes;

#[derive(Clone, Copy)]
pub(crate) struct Max;

#[derive(Clone, Copy)]
pub(crate) struct Any;

impl Rule for Sum {
    #[inline(always)]
    fn fold(self, sum: f64, value: f32) -> f64 {
        sum + f64::from(value)
    }
}

impl Rule for AbsoluteSum {
    #[inline(always)]
    fn fold(self, sum: f64, value: f32) -> f64 {
        sum + f64::from(value)
    }

    #[inline(always)]
    fn finish(self, sum: f64) -> f64 {
        sum.abs()
    }
}

impl Rule for SumOfAbsolutes {
    #[inline(always)]
    fn fold(self, sum: f64, value: f32) -> f64 {
        sum + f64::from(value.abs())
    }
}

impl Rule for Max {
    #[inline(always)]
    fn fold(self, sum: f64, value: f32) -> f64 {
        sum.max(f64::from(value.abs()))
    }

    /// Not `f64::max`, which may answer -0.0 (no entry) for -0.0 and 0.0 (an activation of 0).
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        if b > a || a.to_bits() == super::NOTHING.to_bits() { b } else { a }
    }
}

impl Rule for Any {
    #[inline(always)]
    fn fold(self, sum: f64, value: f32) -> f64 {
        if value == 0.0 { sum } else { 1.0 }
    }
}
