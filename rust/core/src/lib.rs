//! The engine of `pie_fast`: everything that needs numbers and files but no model.
//!
//! It has never heard of Python. PIE (arXiv 2604.16889) in the steps that run here:
//!
//! 1. *Prune*: stream a feature dump once, one score per feature, and keep the best M (the pool).
//! 2. *Rerank*: from scores `s[f]` and pair synergies `W[f, g]` pick K features greedily,
//!    each step the largest `s[f] + sum over selected g of W[f, g] / max(|S|, 1)`.
//! 3. *Read*: gather the decoder rows of the kept features from the checkpoint's own file.
//! 4. *Interpret*: collect the contexts of the kept features while a corpus streams by.
//!
//! Every fast path has a literal twin in [`naive`], and a property test that they agree.

pub mod cancel;
pub mod contexts;
pub mod cpu;
pub mod decoder;
pub mod delphi;
pub mod dump;
pub mod error;
pub mod feature;
pub mod file;
mod gram_kernel;
pub mod header;
mod huge;
mod mix;
pub mod naive;
pub mod ranking;
pub mod real;
pub mod redundancy;
pub mod score;
pub mod select;
pub mod simd;
pub mod synergy;
pub mod topk;
pub mod workers;

pub use cancel::Cancel;
pub use dump::Dump;
pub use error::{Error, Result};
pub use feature::{FeatureId, Scored};
