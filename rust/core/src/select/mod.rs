//! Greedy FAP-Synergy selection, exact.
//!
//! While fewer than k are selected, take the remaining f with the largest
//! `score[f] + (sum over the selected s, in the order selected, of W[f, s]) / max(n, 1)`, where n is
//! the number selected; ties go to the smaller id. [`Bonus::Sum`] does not divide. Sums are f64.
//!
//! The rule runs over two engines that answer the same question, "which one is best now":
//! * [`dense`]: every candidate's bonus is kept, one row of W is added per step;
//! * [`sparse`]: candidates that no selected one touches wait in score order, the others in a heap
//!   of *valid* upper bounds. (Classical lazy greedy keeps stale values as bounds, which is wrong
//!   here: synergy may be positive, so values also rise.)
//!
//! One selection is sequential and runs on one thread; starting threads for each step was 2 to 6
//! times slower. Many selections over one matrix run side by side in [`select_many`].

mod check;
pub mod dense;
mod drive;
pub mod sparse;
mod swap;
mod table;

pub use drive::{Limits, Step, explain, greedy_select, select_many};
pub use swap::{Swapped, improve_by_swaps};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::simd::Vector;

/// What the sum of synergies is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bonus {
    /// By the number selected: the method's rule.
    Mean,
    /// By nothing.
    Sum,
}

impl Bonus {
    /// The divisor when `n` are selected.
    #[must_use]
    pub fn divisor(self, n: usize) -> f64 {
        match self {
            Self::Mean => n.max(1) as f64,
            Self::Sum => 1.0,
        }
    }
}

impl std::str::FromStr for Bonus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "mean" => Ok(Self::Mean),
            "sum" => Ok(Self::Sum),
            _ => Err(Error::argument(format!("bonus {text:?} must be \"mean\" or \"sum\""))),
        }
    }
}

/// What was chosen, in the order chosen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selection {
    /// `[k]`: positions in the scores.
    pub ids: Vec<i64>,
    /// `[k]`: score plus bonus of each at the step that took it.
    pub gains: Vec<f64>,
}

/// A running selection: which candidate is best now?
pub trait Engine {
    /// The best remaining candidate other than `skip` and its value; `None` when none remains.
    ///
    /// # Errors
    /// A number that is not finite.
    fn best(&mut self, skip: Option<usize>) -> Result<Option<(usize, f64)>>;

    /// Select one.
    ///
    /// # Errors
    /// A row of the matrix that is broken.
    fn take(&mut self, id: usize) -> Result<()>;

    /// Never take this one (again).
    fn forbid(&mut self, id: usize);

    /// Score and value of one that was neither taken nor forbidden.
    ///
    /// # Errors
    /// A number that is not finite.
    fn value(&mut self, id: usize) -> Result<(f64, f64)>;

    /// The message for a value that is not finite: which number of the matrix is to blame.
    fn blame(&self) -> Error;

    /// Look once more at everything read.
    ///
    /// # Errors
    /// A number that is not finite.
    fn finish(&self) -> Result<()>;
}

/// A symmetric matrix of synergies that a selection can run over.
pub trait Synergy: Sync {
    /// What runs over it.
    type Engine<'a, S: Vector>: Engine
    where
        Self: 'a;

    /// The number of candidates M.
    fn n(&self) -> usize;

    /// Look at every number: finite, in range, symmetric.
    ///
    /// # Errors
    /// The first that is not, with its place.
    fn check(&self, threads: Option<usize>, cancel: &Cancel) -> Result<()>;

    /// Add row `id` to a vector.
    ///
    /// # Shapes
    /// `into` `[M]`.
    ///
    /// # Errors
    /// A row that is broken or not finite.
    fn add_row(&self, id: usize, into: &mut [f64]) -> Result<()>;

    /// Set the places of row `id` in a vector to 0.
    ///
    /// # Errors
    /// A row that is broken.
    fn clear_row(&self, id: usize, from: &mut [f64]) -> Result<()>;

    /// Begin a selection of at most `k`.
    ///
    /// # Errors
    /// A score that is not finite, or scores of another length than M.
    fn engine<'a, S: Vector>(
        &'a self,
        scores: &'a [S],
        k: usize,
        bonus: Bonus,
    ) -> Result<Self::Engine<'a, S>>;
}

fn same_length<S>(scores: &[S], n: usize) -> Result<()> {
    if scores.len() == n {
        return Ok(());
    }
    let m = scores.len();
    Err(Error::argument(format!("synergy is of {n} candidates, scores of {m}")))
}

fn not_finite(place: impl std::fmt::Display, value: impl std::fmt::Display) -> Error {
    Error::argument(format!("{place} is {value}, must be finite"))
}

fn too_large() -> Error {
    Error::argument("the synergies of a candidate add up to more than float64 can hold")
}
