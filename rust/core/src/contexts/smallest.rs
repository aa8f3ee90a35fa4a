//! The smallest few of a stream.

use std::collections::BinaryHeap;

/// The `limit` smallest of the (key, sequence) pairs offered to it.
#[derive(Debug, Clone)]
pub struct Smallest {
    limit: usize,
    heap: BinaryHeap<(u64, u64)>,
}

impl Smallest {
    pub fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::new() }
    }

    /// Whether `pair` belongs to them.
    pub fn wants(&self, pair: (u64, u64)) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|&largest| pair < largest)
    }

    /// Take a pair that is wanted; returns the sequence that is one too many.
    pub fn take(&mut self, pair: (u64, u64)) -> Option<u64> {
        self.heap.push(pair);
        if self.heap.len() <= self.limit {
            return None;
        }
        self.heap.pop().map(|(_, sequence)| sequence)
    }

    /// All of them, in no order.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.heap.iter().copied()
    }
}
