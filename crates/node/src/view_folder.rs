//! The folder of view documents: what lies there is declared, when the node starts and whenever it changes.
//!
//! A file is written bit by bit, and half of a document can be a document. So a file is declared once two looks in a row found
//! the same; write it under another ending and rename it, and it is whole at the first.

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
/// How long at most until a file that changed is looked at once more.
const LOOK_TWICE: Duration = Duration::from_secs(1);

/// Watches the folder at `path` until the node stops.
pub(crate) async fn watch(env: Env, views: ViewCare, path: PathBuf, every: Duration) {
    let mut folder =
        Folder { env: env.clone(), views, path, seen: BTreeMap::new(), coming: BTreeMap::new(), trouble: None };
    loop {
        tokio::select! {
            biased;
            () = env.tasks().stop().cancelled() => return,
            () = folder.look() => {}
        }
        tokio::select! {
            biased;
            () = env.tasks().stop().cancelled() => return,
            () = env.sleep(if folder.coming.is_empty() { every } else { every.min(LOOK_TWICE) }) => {}
        }
    }
}

struct Folder {
    env: Env,
    views: ViewCare,
    path: PathBuf,
    /// What each file said when it was last looked at, declared or not, or why it could not be read.
    seen: BTreeMap<PathBuf, Result<String, String>>,
    /// What a file that changed said for the first time.
    coming: BTreeMap<PathBuf, Result<String, String>>,
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
        self.coming.retain(|file, _| files.contains(file));
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
            self.coming.remove(&file);
            return;
        }
        if self.coming.get(&file) != Some(&found) {
            self.coming.insert(file, found);
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
            self.coming.remove(&file);
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

#[cfg(test)]
mod tests {
    use quorate_data::{materialized_view::QueryLimits, store::sqlite};

    use super::*;

    const VISITS: &str = r#"view = "visits"
version = 1
[tables.visit]
key = "stream"
columns = { stream = "text", n = "integer" }
[[on]]
bind = { stream = "$.stream" }
sql = "INSERT INTO visit (stream, n) VALUES (:stream, 1) ON CONFLICT (stream) DO NOTHING"
"#;
    const MORE: &str = r#"[[on]]
type = "left"
bind = { stream = "$.stream" }
sql = "DELETE FROM visit WHERE stream = :stream"
"#;

    #[tokio::test]
    async fn a_document_is_not_declared_while_it_is_being_written() {
        let (env, at) = (Env::real(), tempfile::tempdir().unwrap());
        let store = sqlite::open(&env, sqlite::Config::at(at.path().join("log.db"))).await.unwrap();
        let views = ViewCare::open(&store, QueryLimits::default()).await.unwrap();
        let path = at.path().join("views");
        env.disk().create_dir_all(&path).unwrap();
        let (disk, file) = (env.disk().clone(), path.join("visits.toml"));
        let mut folder =
            Folder { env, views: views.clone(), path, seen: BTreeMap::new(), coming: BTreeMap::new(), trouble: None };
        let write = |text: &str| {
            use std::io::Write as _;
            let mut file = disk.create(&file).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let whole = format!("{VISITS}{MORE}");
        // Half of it is a document of its own, which nobody could take back: a version is declared once.
        write(VISITS);
        folder.look().await;
        assert!(views.list(None, 10).await.unwrap().is_empty());
        write(&whole);
        folder.look().await;
        assert!(views.list(None, 10).await.unwrap().is_empty());
        folder.look().await;
        assert_eq!(views.document(&"visits".parse().unwrap(), None).await.unwrap().text, whole);
        folder.look().await;
        assert!(folder.coming.is_empty());
    }
}
