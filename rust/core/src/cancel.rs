//! A flag by which a caller stops long work.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared between the work, which looks at it a few times a second, and whoever may stop it.
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// A flag that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Ask the work to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Go on, or not.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once [`Cancel::cancel`] was called.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}
