//! Independent tasks on a few threads, results in task order.
//!
//! Threads are made per call and not kept: a pool that outlives the call does not survive a fork
//! (torch's `DataLoader` forks), and making one costs some 30 microseconds, which callers spend
//! only where there are milliseconds to win.

use crate::error::{Error, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of threads for `n_tasks` tasks: as asked, or as many as there are cores.
///
/// # Errors
/// Zero threads asked for.
pub fn count(asked: Option<usize>, n_tasks: usize) -> Result<usize> {
    let threads = match asked {
        Some(0) => return Err(Error::argument("threads is 0, must be at least 1")),
        Some(n) => n,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    Ok(threads.min(n_tasks).max(1))
}

/// `work(0) .. work(n_tasks - 1)`, each once, on up to `threads` threads.
///
/// The results come in task order, so nothing about them depends on the number of threads; of
/// several errors the one of the first task is returned.
///
/// # Errors
/// Those of `work`, and zero threads.
pub fn map<T: Send>(
    n_tasks: usize,
    threads: Option<usize>,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = count(threads, n_tasks)?;
    if threads == 1 {
        return (0..n_tasks).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(n_tasks));
    let drain = || {
        let mut mine = Vec::new();
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= n_tasks {
                break;
            }
            mine.push((task, work(task)));
        }
        // A panic of `work` is raised again by the scope; the lock itself is never held over one.
        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).append(&mut mine);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(drain);
        }
        drain();
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_unstable_by_key(|&(task, _)| task);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_task_order() -> Result<()> {
        for threads in [None, Some(1), Some(3), Some(50)] {
            assert_eq!(map(9, threads, |i| Ok(i * i))?, [0, 1, 4, 9, 16, 25, 36, 49, 64]);
        }
        assert!(map(0, Some(2), Ok)?.is_empty());
        Ok(())
    }

    #[test]
    fn the_first_error_wins_and_no_thread_is_no_answer() {
        let fail = |i| if i > 2 { Err(Error::argument(format!("{i}"))) } else { Ok(i) };
        for threads in [1, 4] {
            let error = map(9, Some(threads), fail).map_err(|e| e.to_string());
            assert_eq!(error, Err("3".to_owned()));
        }
        assert!(map(9, Some(0), Ok).is_err());
    }
}
