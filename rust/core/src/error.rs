//! One error type. A message names the value that is wrong and the range that is valid.

use std::path::PathBuf;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of a call is out of its valid range.
    #[error("{0}")]
    Argument(String),

    /// A budget is out of its valid range.
    #[error("{0}")]
    Budget(String),

    /// A file is not what its format promises: `field` is the tensor or key that is wrong.
    #[error("{}: {field}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The tensor, key or part of the file.
        field: String,
        /// What it holds and what would be valid.
        message: String,
    },

    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },

    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Short for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Argument`] from anything that prints.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::Argument(message.into())
    }

    /// An [`Error::Format`].
    pub fn format(
        path: impl Into<PathBuf>,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::Format { path: path.into(), field: field.into(), message: message.into() }
    }

    /// An [`Error::Io`].
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
