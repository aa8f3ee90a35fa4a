//! The obvious version of everything fast: the oracle of tests and benchmarks.

pub mod score;
