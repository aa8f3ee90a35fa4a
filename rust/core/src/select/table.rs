//! The touched candidates: an open-addressing table from id to bonus.
//!
//! An array over all candidates would be simpler, but at 10^7 of them most of its pages would be
//! touched once each; this stays in cache. Nothing is ever removed. Its order of iteration depends
//! on ids only, and nothing that leaves this crate depends on that order.

/// May this candidate still be taken?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Yes.
    Open,
    /// Taken or forbidden.
    Closed,
}

/// What is known of a touched candidate.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    pub score: f64,
    pub bonus: f64,
    id: u32,
    /// How often it was touched; 0 marks an empty slot.
    pub touches: u32,
    pub state: State,
}

const EMPTY: Slot = Slot { score: 0.0, bonus: 0.0, id: 0, touches: 0, state: State::Open };

/// The table; its size is a power of two and at most half of it is in use.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Slot>,
    used: usize,
    shift: u32,
}

impl Table {
    pub fn new() -> Self {
        Self { slots: vec![EMPTY; 1 << 10], used: 0, shift: 64 - 10 }
    }

    /// Where the id is, or would be.
    fn find(&self, id: u32) -> usize {
        // Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
        let mut at = (u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize;
        while self.slots[at].touches != 0 && self.slots[at].id != id {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    pub fn get(&self, id: u32) -> Option<&Slot> {
        let slot = &self.slots[self.find(id)];
        (slot.touches != 0).then_some(slot)
    }

    /// The slot of the id, made if need be, counted as touched once more.
    pub fn touch(&mut self, id: u32, score: impl FnOnce() -> f64) -> &mut Slot {
        if 2 * self.used >= self.slots.len() {
            self.grow();
        }
        let at = self.find(id);
        let slot = &mut self.slots[at];
        if slot.touches == 0 {
            self.used += 1;
            *slot = Slot { score: score(), id, ..EMPTY };
        }
        slot.touches += 1;
        slot
    }

    /// Never to be taken (again).
    pub fn close(&mut self, id: u32) {
        // The score of a closed slot is never looked at.
        self.touch(id, || 0.0).state = State::Closed;
    }

    pub fn open(&self) -> impl Iterator<Item = (u32, Slot)> {
        let used = self.slots.iter().filter(|s| s.touches != 0 && s.state == State::Open);
        used.map(|s| (s.id, *s))
    }

    fn grow(&mut self) {
        let size = self.slots.len() * 4;
        self.shift -= 2;
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; size]);
        for slot in old.into_iter().filter(|s| s.touches != 0) {
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
        let mut table = Table::new();
        for id in (0..30_000).step_by(3) {
            table.touch(id, || f64::from(id)).bonus += 1.0;
        }
        for id in (0..30_000).step_by(6) {
            table.touch(id, || 0.0).bonus += 1.0;
            table.close(id + 1);
        }
        for id in 0..30_000 {
            let want = match id % 6 {
                0 => Some((f64::from(id), 2.0)),
                3 => Some((f64::from(id), 1.0)),
                1 => Some((0.0, 0.0)),
                _ => None,
            };
            assert_eq!(table.get(id).map(|s| (s.score, s.bonus)), want, "{id}");
        }
        assert_eq!(table.open().count(), 10_000);
    }
}
