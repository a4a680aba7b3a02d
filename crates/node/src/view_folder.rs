//! The folder of view documents: what lies there is declared, when the node starts and whenever it changes.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use quorate_data::{
    materialized_view::declared::{Document, Format},
    store::Retry,
};
use quorate_runtime::Env;

use crate::verbs::ViewCare;

/// The most documents in a folder.
const MAX_FILES: usize = 1_000;

/// Watches the folder at `path` until the node stops.
pub(crate) async fn watch(env: Env, views: ViewCare, path: PathBuf, every: Duration) {
    let mut folder = Folder { env: env.clone(), views, path, seen: BTreeMap::new(), trouble: None };
    loop {
        tokio::select! {
            biased;
            () = env.tasks().stop().cancelled() => return,
            () = folder.look() => {}
        }
        tokio::select! {
            biased;
            () = env.tasks().stop().cancelled() => return,
            () = env.sleep(every) => {}
        }
    }
}

struct Folder {
    env: Env,
    views: ViewCare,
    path: PathBuf,
    /// What each file said when it was last looked at, declared or not, or why it could not be read.
    seen: BTreeMap<PathBuf, Result<String, String>>,
    /// What was last said of the folder as a whole, so that it is said once.
    trouble: Option<String>,
}

impl Folder {
    async fn look(&mut self) {
        let (disk, path) = (self.env.disk().clone(), self.path.clone());
        let found = self.env.run_blocking(move || disk.list(&path)).await.and_then(|files| {
            let documents: Vec<PathBuf> = files.into_iter().filter(|file| format(file).is_some()).collect();
            if documents.len() <= MAX_FILES {
                return Ok(documents);
            }
            Err(io::Error::other(format!("{} documents are there, and at most {MAX_FILES} are read", documents.len())))
        });
        let files = match found {
            Ok(files) => files,
            Err(cause) => return self.complain(&cause),
        };
        self.trouble = None;
        self.seen.retain(|file, _| files.contains(file));
        for file in files {
            self.look_at(file).await;
        }
    }

    fn complain(&mut self, cause: &io::Error) {
        let what = cause.to_string();
        if self.trouble.as_ref() != Some(&what) {
            tracing::warn!(folder = %self.path.display(), %cause, "the folder of view documents cannot be read");
            self.trouble = Some(what);
        }
    }

    async fn look_at(&mut self, file: PathBuf) {
        let (disk, path) = (self.env.disk().clone(), file.clone());
        let found = self.env.run_blocking(move || read(&*disk, &path)).await.map_err(|cause| cause.to_string());
        if self.seen.get(&file) == Some(&found) {
            return;
        }
        let is_settled = match &found {
            Ok(text) => self.declare(&file, text).await,
            Err(cause) => {
                tracing::warn!(file = %file.display(), %cause, "a view document cannot be read");
                true
            }
        };
        if is_settled {
            self.seen.insert(file, found);
        }
    }

    /// Whether declaring it again would give the same answer.
    async fn declare(&self, file: &Path, text: &str) -> bool {
        let Some(format) = format(file) else { return true };
        let shown = file.display();
        let declared = match Document::read(text, format) {
            Ok(document) => self.views.declare(document).await,
            Err(faults) => Err(faults.into()),
        };
        match declared {
            Ok(declared) => {
                if declared.new {
                    tracing::info!(file = %shown, view = %declared.view, version = declared.version, "a view was declared");
                }
                true
            }
            Err(refused) => {
                tracing::warn!(file = %shown, %refused, "a view document was refused");
                refused.retry() == Retry::Never
            }
        }
    }
}

fn read(disk: &dyn quorate_runtime::disk::Disk, path: &Path) -> io::Result<String> {
    let size = disk.size(path)?;
    if size > Document::MAX_BYTES as u64 {
        return Err(io::Error::other(format!(
            "it has {size} bytes, and a document has at most {}",
            Document::MAX_BYTES
        )));
    }
    String::from_utf8(disk.read(path)?).map_err(io::Error::other)
}

fn format(file: &Path) -> Option<Format> {
    Format::of_file(file.file_name()?.to_str()?)
}
