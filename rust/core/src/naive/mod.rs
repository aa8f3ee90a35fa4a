//! The obvious versions: what the fast ones must agree with, and what benchmarks compare to.

mod select;
mod topk;

pub use select::greedy_select;
pub use topk::top_k;
