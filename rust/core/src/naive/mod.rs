//! The obvious version of everything fast: the oracle of tests and benchmarks.

pub mod score;
mod select;
mod topk;

pub use select::greedy_select;
pub use topk::top_k;
