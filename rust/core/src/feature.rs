//! Feature ids and *the* order: score descending, id ascending. NaN is an error, never a rank.

use crate::error::{Error, Result};
use std::cmp::Ordering;

/// A CLT dictionary element, shown as `L5:42`; `layer` is the layer it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureId {
    /// The layer whose residual stream the feature reads.
    pub layer: u32,
    /// Its index in that layer's dictionary.
    pub index: u32,
}

/// An id with its score, ordered best first: a sorted slice of these is a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// A position or a global feature id.
    pub id: u64,
    /// Its score, finite and never -0.0.
    pub score: f64,
}

impl Scored {
    /// Make one; 0.0 is added so that -0.0 ties with 0.0.
    ///
    /// # Errors
    /// A score that is NaN or infinite.
    pub fn new(id: u64, score: f64) -> Result<Self> {
        if !score.is_finite() {
            return Err(Error::argument(format!("score of id {id} is {score}, must be finite")));
        }
        Ok(Self { id, score: score + 0.0 })
    }
}

impl Eq for Scored {}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_first_and_ties_to_the_smaller_id() -> Result<()> {
        let mut all = [
            Scored::new(3, 1.0)?,
            Scored::new(1, -0.0)?,
            Scored::new(0, 0.0)?,
            Scored::new(2, 1.0)?,
        ];
        all.sort();
        assert_eq!(all.map(|s| s.id), [2, 3, 0, 1]);
        Ok(())
    }

    #[test]
    fn nan_is_an_error() {
        assert!(Scored::new(7, f64::NAN).is_err());
    }
}
