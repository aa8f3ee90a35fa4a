//! The obvious version of everything fast: the oracle of tests and benchmarks.

pub mod contexts;
pub mod score;
mod select;
mod synergy;
mod topk;

pub use select::{greedy_select, improve_by_swaps};
pub use synergy::top_per_row;
pub use topk::top_k;
