//! A pool for calls that hand out work hundreds of times, chunk by chunk: [`crate::threads`] would
//! make its threads anew for each chunk. It lives as long as the call, so a forked child has none.

use crate::error::{Error, Result};
use std::sync::{Mutex, PoisonError};

/// What one thread adds up or copies, in numbers, between two looks at whoever may stop the work:
/// some 20 ms in the fastest kernel, 200 ms in the slowest.
const TURN: usize = 1 << 30;

/// More threads than any machine has cores for would take its memory and its process table.
const MAX_THREADS: usize = 1 << 10;

/// One thread, or a pool of several.
#[derive(Debug)]
pub struct Workers {
    pool: Option<rayon::ThreadPool>,
}

impl Workers {
    /// Exactly `threads`, or as many as the machine has, or one where `small` says that handing
    /// the work out would cost more than doing it.
    ///
    /// # Errors
    /// Zero or more than 1024 threads, or threads that the system does not give.
    pub fn new(threads: Option<usize>, small: bool) -> Result<Self> {
        let n = match threads {
            Some(n) if !(1..=MAX_THREADS).contains(&n) => {
                let message = format!("threads is {n}, must be in [1, {MAX_THREADS}]");
                return Err(Error::argument(message));
            }
            Some(n) => n,
            None if small => 1,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        if n == 1 {
            return Ok(Self { pool: None });
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
        let pool = pool.map_err(|e| Error::argument(format!("cannot start {n} threads: {e}")))?;
        Ok(Self { pool: Some(pool) })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// `work(i, item)` for each item, in any order, on any thread. Of several errors the one of
    /// the first item is returned, so that a message does not depend on timing.
    ///
    /// # Errors
    /// The first that `work` returns.
    pub fn each<T: Send>(
        &self,
        items: &mut [T],
        work: impl Fn(usize, &mut T) -> Result<()> + Sync,
    ) -> Result<()> {
        use rayon::prelude::*;
        let Some(pool) = &self.pool else {
            return items.iter_mut().enumerate().try_for_each(|(i, item)| work(i, item));
        };
        let outcomes: Vec<Result<()>> = pool.install(|| {
            let items = items.par_iter_mut().with_max_len(1).enumerate();
            items.map(|(i, item)| work(i, item)).collect()
        });
        outcomes.into_iter().collect()
    }

    /// As [`Workers::each`] for items that together take seconds: `pause` is called on this thread
    /// in between, and ends the work by an error. An item costs about `cost` multiplications.
    ///
    /// # Errors
    /// As [`Workers::each`]; what `pause` returns.
    pub fn each_in_turns<T: Send>(
        &self,
        items: &mut [T],
        cost: usize,
        pause: &mut dyn FnMut() -> Result<()>,
        work: impl Fn(usize, &mut T) -> Result<()> + Sync,
    ) -> Result<()> {
        let turn = self.count() * (TURN / cost.max(1)).max(1);
        for (i, items) in items.chunks_mut(turn).enumerate() {
            pause()?;
            self.each(items, |j, item| work(i * turn + j, item))?;
        }
        Ok(())
    }

    /// `work(0) .. work(n - 1)` with the results in that order, so that nothing about them depends
    /// on the number of threads.
    ///
    /// # Errors
    /// As [`Workers::each`].
    pub fn map<T: Send>(
        &self,
        n: usize,
        work: impl Fn(usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let mut results: Vec<Option<T>> = (0..n).map(|_| None).collect();
        self.each(&mut results, |i, slot| {
            *slot = Some(work(i)?);
            Ok(())
        })?;
        Ok(results.into_iter().flatten().collect())
    }
}

/// Scratch space, as many pieces of it as there are threads at work.
#[derive(Debug, Default)]
pub(crate) struct Spare<T>(Mutex<Vec<T>>);

impl<T> Spare<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T: Default> Spare<T> {
    /// Lend a piece to `work`, which finds in it whatever an earlier user left.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut piece = free().pop().unwrap_or_default();
        let result = work(&mut piece);
        free().push(piece);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const N: usize = 2000;

    #[test]
    fn no_two_threads_hold_a_piece_at_once() -> Result<()> {
        let spare = Spare::<(bool, usize)>::default();
        let made = AtomicUsize::new(0);
        for threads in [1, 2, 8] {
            let results = Workers::new(Some(threads), false)?.map(N, |i| {
                spare.with(|(held, uses)| {
                    assert!(!std::mem::replace(held, true), "lent twice");
                    made.fetch_add(usize::from(*uses == 0), Ordering::Relaxed);
                    *uses += 1;
                    std::thread::yield_now();
                    *held = false;
                });
                Ok(i)
            })?;
            assert!(results.into_iter().eq(0..N));
        }
        let pieces = spare.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let uses: usize = pieces.iter().map(|&(_, uses)| uses).sum();
        assert_eq!((pieces.len(), uses), (made.into_inner(), 3 * N));
        // One of the thread that had no pool, and one for each of eight at most.
        assert!(pieces.len() <= 8, "{} pieces", pieces.len());
        Ok(())
    }

    #[test]
    fn a_flag_set_anywhere_stops_all_threads_soon() -> Result<()> {
        for threads in [1, 2, 8] {
            let (cancel, after) = (Cancel::new(), AtomicUsize::new(0));
            let stopped = Workers::new(Some(threads), false)?.map(N, |i| {
                if i == N / 2 {
                    cancel.cancel();
                }
                cancel.check()?;
                after.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            assert!(matches!(stopped, Err(Error::Interrupted)));
            assert!(after.into_inner() < N);
        }
        Ok(())
    }

    #[test]
    fn turns_do_every_item_once_and_the_first_error_wins() -> Result<()> {
        for (threads, cost) in [(1, 1), (1, TURN), (2, TURN / 3), (8, usize::MAX)] {
            let workers = Workers::new(Some(threads), false)?;
            let (mut items, mut pauses) = (vec![usize::MAX; 100], 0);
            let mut pause = || {
                pauses += 1;
                Ok(())
            };
            workers.each_in_turns(&mut items, cost, &mut pause, |i, item| {
                *item = i;
                Ok(())
            })?;
            assert!(items.iter().copied().eq(0..100));
            assert_eq!(pauses, 100_usize.div_ceil(threads * (TURN / cost).max(1)));
            let wrong = workers.each_in_turns(&mut items, cost, &mut || Ok(()), |i, _| {
                if i < 7 { Ok(()) } else { Err(Error::argument(format!("item {i}"))) }
            });
            assert_eq!(wrong.map_err(|e| e.to_string()), Err("item 7".to_owned()));
            let mut refuse = || Err(Error::Interrupted);
            let none = workers.each_in_turns(&mut items, cost, &mut refuse, |_, _| Ok(()));
            assert!(matches!(none, Err(Error::Interrupted)));
        }
        Ok(())
    }
}
