//! Which sequences were added: ranges, so that a corpus in order takes one.

use crate::error::{Error, Result};
use std::ops::Range;

/// Ranges of sequences, ascending, with a gap between any two.
#[derive(Debug, Clone, Default)]
pub struct Seen(Vec<Range<u64>>);

impl Seen {
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// # Errors
    /// Some of `range` is there already.
    pub fn check(&self, range: &Range<u64>) -> Result<()> {
        let at = self.0.partition_point(|old| old.end <= range.start);
        match self.0.get(at) {
            Some(old) if old.start < range.end && !range.is_empty() => {
                let sequence = old.start.max(range.start);
                Err(Error::argument(format!("sequence {sequence} was added before")))
            }
            _ => Ok(()),
        }
    }

    /// Insert a range that passed [`Seen::check`].
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|old| old.end < range.start);
        let after = self.0.partition_point(|old| old.start <= range.end);
        let touching = &self.0[first..after];
        let start = touching.first().map_or(range.start, |old| old.start.min(range.start));
        let end = touching.last().map_or(range.end, |old| old.end.max(range.end));
        self.0.splice(first..after, std::iter::once(start..end));
    }

    pub fn contains(&self, sequence: u64) -> bool {
        let at = self.0.partition_point(|old| old.end <= sequence);
        self.0.get(at).is_some_and(|old| old.start <= sequence)
    }

    pub fn n_sequences(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }
}
