//! Which inner loops run: the best that the processor has, or fewer where the environment says so.
//!
//! `PIE_FAST_KERNELS=portable|avx2|avx512` is for tests, for counting instructions, and for a
//! machine whose newer instructions are slow or emulated.

use crate::error::{Error, Result};
use std::sync::OnceLock;

/// The variable of the environment.
pub const VARIABLE: &str = "PIE_FAST_KERNELS";

/// Sets of instructions, each with all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernels {
    /// What runs anywhere.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 with BF16.
    Avx512,
}

impl Kernels {
    /// All of them with their names.
    pub const NAMES: [(&'static str, Self); 3] =
        [("portable", Self::Portable), ("avx2", Self::Avx2), ("avx512", Self::Avx512)];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    /// What this processor has.
    #[must_use]
    pub fn of_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            let newer =
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
            return if newer { Self::Avx512 } else { Self::Avx2 };
        }
        Self::Portable
    }
}

/// What [`VARIABLE`] asks for, or what the processor has.
///
/// # Errors
/// A name that is none, or instructions that the processor lacks.
pub fn choose() -> Result<Kernels> {
    chosen_by(std::env::var_os(VARIABLE).as_deref(), Kernels::of_processor())
}

fn chosen_by(wish: Option<&std::ffi::OsStr>, best: Kernels) -> Result<Kernels> {
    let Some(wish) = wish else { return Ok(best) };
    let found = Kernels::NAMES.iter().find(|(name, _)| wish == *name);
    match found {
        Some(&(_, kernels)) if kernels <= best => Ok(kernels),
        Some((name, _)) => Err(Error::argument(format!(
            "{VARIABLE} is {name}, this processor has {} at most",
            best.name()
        ))),
        None => Err(Error::argument(format!(
            "{VARIABLE} is {wish:?}, must be portable, avx2 or avx512"
        ))),
    }
}

/// [`choose`], asked once; where it fails, what the processor has.
#[inline]
pub fn kernels() -> Kernels {
    static CHOSEN: OnceLock<Kernels> = OnceLock::new();
    *CHOSEN.get_or_init(|| choose().unwrap_or_else(|_| Kernels::of_processor()))
}

/// Whether AVX2 and FMA may run: never where the processor lacks them.
#[inline]
pub(crate) fn avx2() -> bool {
    kernels() >= Kernels::Avx2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_takes_away_and_never_adds() {
        let choose = |wish: &str, best| chosen_by(Some(wish.as_ref()), best);
        for (at, &(name, kernels)) in Kernels::NAMES.iter().enumerate() {
            assert_eq!((kernels as usize, kernels.name()), (at, name));
            assert_eq!(chosen_by(None, kernels).ok(), Some(kernels));
            for (wish, wanted) in Kernels::NAMES {
                assert_eq!(choose(wish, kernels).ok(), (wanted <= kernels).then_some(wanted));
            }
        }
        let text = |result: Result<Kernels>| result.map_err(|error| error.to_string());
        let wrong = "PIE_FAST_KERNELS is \"AVX2\", must be portable, avx2 or avx512";
        assert_eq!(text(choose("AVX2", Kernels::Avx2)), Err(wrong.to_owned()));
        let lacking = "PIE_FAST_KERNELS is avx512, this processor has avx2 at most";
        assert_eq!(text(choose("avx512", Kernels::Avx2)), Err(lacking.to_owned()));
    }
}
