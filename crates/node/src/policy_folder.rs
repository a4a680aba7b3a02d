//! The folder of policies: what lies there is in force, all of it or what was before, and whatever changes is looked at.
//!
//! Whole files are read and compared, so that it doesn't matter how they come to be others: written anew, renamed over, or
//! behind a link that leads elsewhere now.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use quorate_foundations::document::{Fault, Format};
use quorate_resilience::policy::Document;
use quorate_runtime::Env;

use crate::verbs::{Policies, PolicyError};

/// The most files in a folder.
const MAX_FILES: usize = 1_000;

/// What each file says.
type Texts = BTreeMap<PathBuf, String>;

/// The folder, and what it said when it was last looked at.
pub(crate) struct Folder {
    env: Env,
    policies: Policies,
    path: PathBuf,
    /// What needs no second look: it is in force, or cannot be read.
    seen: Option<Result<Texts, String>>,
}

/// Why what lies in a folder is not in force.
pub(crate) enum Refused {
    /// Something is wrong with it, whatever else there is.
    Files(String),
    /// It cannot be in force beside what is declared: that holds, until somebody changes the one or the other.
    BesideDeclared(String),
}

impl Folder {
    pub(crate) const fn new(env: Env, policies: Policies, path: PathBuf) -> Self {
        Self { env, policies, path, seen: None }
    }

    /// Brings into force what lies there, if it is not what lay there before.
    ///
    /// # Errors
    /// What is wrong, with file, line and field where it has any. What was in force still is.
    pub(crate) async fn look(&mut self) -> Result<(), Refused> {
        let (disk, path) = (self.env.disk().clone(), self.path.clone());
        let found = self.env.run_blocking(move || texts(&*disk, &path)).await.map_err(|cause| cause.to_string());
        if self.seen.as_ref() == Some(&found) {
            return Ok(());
        }
        let files = match found.clone().and_then(|texts| read(&texts)) {
            Ok(files) => files,
            Err(wrong) => {
                self.seen = Some(found);
                self.policies.refuse_files().await;
                return Err(Refused::Files(wrong));
            }
        };
        let changes = match self.policies.replace_files(files.clone()).await {
            Ok(changes) => changes,
            // What is declared may be deleted: it is tried again.
            Err(refused) => {
                return Err(match Policies::check_files(files) {
                    Err(alone) => Refused::Files(told(&alone)),
                    Ok(()) => Refused::BesideDeclared(told(&refused)),
                });
            }
        };
        self.seen = Some(found);
        let (added, changed, removed) = (changes.added.len(), changes.changed.len(), changes.removed.len());
        tracing::info!(folder = %self.path.display(), added, changed, removed, "policies are in force");
        Ok(())
    }

    /// Looks again and again until the node stops.
    pub(crate) async fn watch(mut self, every: Duration) {
        let (env, mut told) = (self.env.clone(), String::new());
        loop {
            tokio::select! {
                biased;
                () = env.tasks().stop().cancelled() => return,
                () = env.sleep(every) => {}
            }
            tokio::select! {
                biased;
                () = env.tasks().stop().cancelled() => return,
                looked = self.look() => match looked {
                    Err(Refused::Files(wrong) | Refused::BesideDeclared(wrong)) if wrong != told => {
                        tracing::warn!(folder = %self.path.display(), wrong, "policies were refused; those of before hold");
                        told = wrong;
                    }
                    Err(_) => {}
                    Ok(()) => told.clear(),
                },
            }
        }
    }
}

fn texts(disk: &dyn quorate_runtime::disk::Disk, folder: &Path) -> io::Result<Texts> {
    let files: Vec<PathBuf> = disk.list(folder)?.into_iter().filter(|file| format(file).is_some()).collect();
    if files.len() > MAX_FILES {
        return Err(io::Error::other(format!("{} files are there, and at most {MAX_FILES} are read", files.len())));
    }
    let text = |file: PathBuf| {
        let named = |cause: io::Error| io::Error::other(format!("{}: {cause}", file.display()));
        let (size, max) = (disk.size(&file).map_err(named)?, Policies::MAX_BYTES);
        if size > max as u64 {
            return Err(named(io::Error::other(format!("it has {size} bytes, and a file may have {max}"))));
        }
        let text =
            String::from_utf8(disk.read(&file).map_err(named)?).map_err(|wrong| named(io::Error::other(wrong)))?;
        Ok((file, text))
    };
    files.into_iter().map(text).collect()
}

/// The documents of all files, or everything that is wrong with any of them.
fn read(texts: &Texts) -> Result<BTreeMap<PathBuf, Vec<Document>>, String> {
    let (mut files, mut wrong) = (BTreeMap::new(), String::new());
    for (file, text) in texts {
        let Some(format) = format(file) else { continue };
        match Document::read_all(text, format) {
            Ok(documents) => _ = files.insert(file.clone(), documents),
            Err(faults) => faults.list.iter().for_each(|fault| line(&mut wrong, Some(file), fault)),
        }
    }
    if wrong.is_empty() { Ok(files) } else { Err(wrong) }
}

fn told(refused: &PolicyError) -> String {
    let PolicyError::Impossible(misfits) = refused else { return refused.to_string() };
    let mut text = String::new();
    for misfit in misfits {
        line(&mut text, misfit.file.as_deref(), &misfit.fault);
    }
    text
}

/// Adds what is wrong, as compilers say it.
fn line(text: &mut String, file: Option<&Path>, fault: &Fault) {
    let between = if text.is_empty() { "" } else { "\n" };
    let place = file.map_or_else(|| "(declared)".into(), |file| file.display().to_string());
    let Fault { line, column, field, what } = fault;
    let _ = write!(text, "{between}{place}:{line}:{column}: `{field}`: {what}");
}

fn format(file: &Path) -> Option<Format> {
    Format::of_file(file.file_name()?.to_str()?)
}
