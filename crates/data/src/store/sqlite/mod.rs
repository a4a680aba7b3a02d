//! The embedded store: SQLite.

use std::path::PathBuf;

use quorate_runtime::Env;

use super::{Limits, OpenError, Store};

/// Where the embedded store lives and what it accepts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The database file; its folder must exist.
    pub path: PathBuf,
    /// What it accepts at most.
    pub limits: Limits,
}

impl Config {
    /// A store at `path` with the default limits.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), limits: Limits::default() }
    }
}

/// Opens the store at `config.path`, creating it if it is not there.
pub async fn open(_env: &Env, config: Config) -> Result<Store, OpenError> {
    Err(OpenError::Foreign { path: config.path })
}
