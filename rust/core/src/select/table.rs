//! The touched candidates: an open-addressing table from id to bonus.
//!
//! An array over all candidates would be simpler, but at 10^7 of them each touch would be a page
//! of its own; 16 bytes for each touched one stay in cache, and a fresh page costs more than all
//! the work on it. Nothing is ever removed.

use crate::simd;

/// What is known of a touched candidate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slot {
    pub bonus: f64,
    pub id: u32,
    /// How often it was touched; 0 marks an empty slot, [`CLOSED`] one that may not be taken.
    pub touches: u32,
}

const CLOSED: u32 = u32::MAX;

impl Slot {
    /// May this candidate still be taken?
    pub fn is_open(&self) -> bool {
        self.touches != CLOSED
    }
}

/// The table; its size is a power of two and at most three quarters of it are in use.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Slot>,
    used: usize,
    shift: u32,
}

impl Table {
    /// One with room for about `expected` ids.
    pub fn new(expected: usize) -> Self {
        // A guess that is too high costs fresh pages, one that is too low some copying.
        let size = (expected + expected / 2).clamp(1 << 6, 1 << 16).next_power_of_two();
        Self { slots: vec![Slot::default(); size], used: 0, shift: 64 - size.trailing_zeros() }
    }

    /// Where the search for an id begins.
    fn home(&self, id: u32) -> usize {
        // Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
        (u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    /// Where the id is, or would be.
    fn find(&self, id: u32) -> usize {
        let mut at = self.home(id);
        while self.slots[at].touches != 0 && self.slots[at].id != id {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    /// Ask for the memory of an id that will be looked for soon.
    pub fn prefetch(&self, id: u32) {
        simd::prefetch(&self.slots, self.home(id));
    }

    pub fn get(&self, id: u32) -> Option<&Slot> {
        let slot = &self.slots[self.find(id)];
        (slot.touches != 0).then_some(slot)
    }

    /// Add to the bonus of an id; it is counted as touched once more.
    pub fn add(&mut self, id: u32, bonus: f64) -> Slot {
        let slot = self.slot(id);
        slot.bonus += bonus;
        if slot.is_open() {
            slot.touches += 1;
        }
        *slot
    }

    /// Never to be taken (again).
    pub fn close(&mut self, id: u32) {
        self.slot(id).touches = CLOSED;
    }

    /// The open ones, in an order that nothing may depend on.
    pub fn open(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.touches != 0 && slot.is_open())
    }

    /// The slot of an id, made if need be; the caller sets its touches.
    fn slot(&mut self, id: u32) -> &mut Slot {
        let mut at = self.find(id);
        if self.slots[at].touches == 0 {
            self.used += 1;
            if 4 * self.used > 3 * self.slots.len() {
                self.grow();
                at = self.find(id);
            }
            self.slots[at].id = id;
        }
        &mut self.slots[at]
    }

    fn grow(&mut self) {
        let size = 2 * self.slots.len();
        self.shift -= 1;
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); size]);
        for slot in old.into_iter().filter(|slot| slot.touches != 0) {
            let at = self.find(slot.id);
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_touched_after_growing() {
        let mut table = Table::new(0);
        for id in (0..30_000).step_by(3) {
            table.add(id, 1.0);
        }
        for id in (0..30_000).step_by(6) {
            table.add(id, 1.0);
            table.close(id + 1);
        }
        for id in 0..30_000 {
            let want = match id % 6 {
                0 => Some((2.0, 2)),
                3 => Some((1.0, 1)),
                1 => Some((0.0, CLOSED)),
                _ => None,
            };
            assert_eq!(table.get(id).map(|s| (s.bonus, s.touches)), want, "{id}");
        }
        assert_eq!(table.open().count(), 10_000);
    }
}
