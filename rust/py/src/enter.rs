//! The one place that releases the GIL.

use crate::errors::to_python;
use pie_fast_core::{Cancel, Error, Result, dump::Watch};
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often long work looks for Ctrl-C and tells its progress.
const POLL: Duration = Duration::from_millis(50);

/// Run `work` without the GIL and turn its error into a Python exception.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(to_python)
}

/// As [`interruptible`], for work that cannot look at the flag (a stranger's file may begin with a
/// header of 100 MB): at a signal it is left to end on a thread of its own, unheard.
pub fn abandonable<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let cancel = Arc::new(Cancel::new());
    let theirs = Arc::clone(&cancel);
    let (done, waiting) = channel::<()>();
    let worker = std::thread::Builder::new().spawn(move || {
        // Dropped when the work ends, in whatever way.
        let _done = done;
        work(&theirs)
    });
    let worker =
        worker.map_err(|e| to_python(Error::argument(format!("cannot start a thread: {e}"))))?;
    py.detach(move || {
        while waiting.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
            Python::attach(|py| py.check_signals()).inspect_err(|_| cancel.cancel())?;
        }
        // As a panic on this thread would be: PyO3 turns it into PanicException.
        let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.map_err(to_python)
    })
}

/// As [`detached`], for work that takes long: between its chunks, on the calling thread, it looks
/// for Ctrl-C and calls `progress(done, total)`. What either raises ends the work and is raised.
pub fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&mut Watch<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let outcome = py.detach(|| {
        let mut last = Instant::now();
        work(&mut |done, total| {
            if last.elapsed() < POLL && done < total {
                return Ok(());
            }
            last = Instant::now();
            let outcome = Python::attach(|py| -> PyResult<()> {
                py.check_signals()?;
                if let Some(progress) = &progress {
                    progress.call1(py, (done, total))?;
                }
                Ok(())
            });
            outcome.map_err(|error| {
                raised = Some(error);
                Error::Interrupted
            })
        })
    });
    match raised {
        Some(error) => Err(error),
        None => outcome.map_err(to_python),
    }
}

/// As [`detached`], for long work without a progress callback: it runs on a thread of its own while
/// this one looks for signals, and a `KeyboardInterrupt` (or what else a signal handler raises)
/// stops it.
///
/// The thread costs some 30 microseconds, so short work (`long` false) runs in place.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    long: bool,
    work: impl FnOnce(&Cancel) -> Result<T> + Send,
) -> PyResult<T> {
    let cancel = Cancel::new();
    if !long {
        return detached(py, || work(&cancel));
    }
    let (result, raised) = py.detach(|| {
        std::thread::scope(|scope| {
            let (done, waiting) = channel::<()>();
            let cancel = &cancel;
            let worker = scope.spawn(move || {
                // Dropped when the work ends, in whatever way.
                let _done = done;
                work(cancel)
            });
            let mut raised = None;
            while waiting.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                if raised.is_none() {
                    raised = Python::attach(|py| py.check_signals()).err();
                    if raised.is_some() {
                        cancel.cancel();
                    }
                }
            }
            (worker.join(), raised)
        })
    });
    match (raised, result) {
        (Some(raised), _) => Err(raised),
        (None, Ok(result)) => result.map_err(to_python),
        // As a panic on this thread would be: PyO3 turns it into PanicException.
        (None, Err(panic)) => std::panic::resume_unwind(panic),
    }
}
