//! Where the stores are.

use std::{io, path::PathBuf};

use quorate_runtime::Env;

use crate::{
    exit::{Exit, Failure},
    output::note,
};

/// A folder for the stores. One of the demo's own is removed when this is dropped, unless somebody will want to look into it.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    passing: bool,
}

impl Folder {
    /// The folder that was asked for, which must hold nothing, or one of the demo's own.
    pub(crate) fn make(env: &Env, asked: Option<PathBuf>, seed: u64) -> Result<Self, Failure> {
        let passing = asked.is_none();
        let own = || std::env::temp_dir().join(format!("quorate-demo-{}-{seed}", std::process::id()));
        let path = asked.unwrap_or_else(own);
        let failed = |cause: io::Error| Failure::io(format!("the folder {}", path.display()), &cause);
        env.disk().create_dir_all(&path).map_err(failed)?;
        if !env.disk().list(&path).map_err(failed)?.is_empty() {
            let what = format!("the folder {} is not empty", path.display());
            return Err(Failure::new(Exit::Usage, what).advise("name an empty one, or none"));
        }
        Ok(Self { path, passing })
    }

    /// A folder that passes, for a pattern that is shown.
    pub(crate) fn passing(env: &Env) -> Result<Self, Failure> {
        let nth = env.random("passing-folder").below(u64::MAX);
        let path = std::env::temp_dir().join(format!("quorate-patterns-{}-{nth:x}", std::process::id()));
        env.disk()
            .create_dir_all(&path)
            .map_err(|cause| Failure::io(format!("the folder {}", path.display()), &cause))?;
        Ok(Self { path, passing: true })
    }

    /// Leaves it there.
    pub(crate) fn keep(&mut self) {
        self.passing = false;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.passing {
            // What is left of it is in the system's folder for what passes.
            let _removed = std::fs::remove_dir_all(&self.path);
        } else {
            note(&format!("the stores are in {}", self.path.display()));
        }
    }
}
