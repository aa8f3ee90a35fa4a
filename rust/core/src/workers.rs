//! A pool for calls that hand out work hundreds of times, chunk by chunk: [`crate::threads`] would
//! make its threads anew for each chunk. It lives as long as the call, so a forked child has none.

use crate::error::{Error, Result};
use std::sync::{Mutex, PoisonError};

/// One thread, or a pool of several.
pub struct Workers {
    pool: Option<rayon::ThreadPool>,
}

impl Workers {
    /// Exactly `threads`, or as many as the machine has, or one where `small` says that handing
    /// the work out would cost more than doing it.
    ///
    /// # Errors
    /// Zero threads, or threads that the system does not give.
    pub fn new(threads: Option<usize>, small: bool) -> Result<Self> {
        let n = match threads {
            Some(0) => return Err(Error::argument("threads is 0, must be at least 1")),
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
