//! Declaring views, and going on with what was declared.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    document::Document,
    keep::{self, Origin, StoredDocument},
    projection::Declared,
    trial, watch,
};
use crate::{
    materialized_view::{Changed, Fingerprint, ViewError, ViewName, Views, rows},
    store::{Store, StoreError},
};

/// What became of a document that was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The view.
    pub view: ViewName,
    /// Its version.
    pub version: u32,
    /// Whether this version is new.
    pub new: bool,
}

/// A version of a view that was declared once and does not run in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotStarted {
    /// The view.
    pub view: ViewName,
    /// Its version.
    pub version: u32,
    /// Why.
    pub reason: String,
}

impl Views {
    /// Checks a document as [`declare`](Self::declare) does, and changes nothing.
    ///
    /// # Errors
    /// [`ViewError::Document`] lists everything that is wrong, with its places.
    pub async fn check(&self, document: Arc<Document>) -> Result<(), ViewError> {
        let (env, limits) = (self.shared.store.env().clone(), self.shared.store.limits().clone());
        self.shared.store.env().run_blocking(move || trial::run(&env, &limits, &document)).await
    }

    /// Declares a view: from now on, and after every restart, it is kept up to date as the document says.
    ///
    /// A version that is new gets a build of its own, beside what readers have; document and build are there together or not
    /// at all. A version that is known is left as it is: declaring it again changes nothing, and where only comments, the
    /// description or samples differ, the new text is kept.
    ///
    /// # Errors
    /// [`ViewError::Document`] lists what is wrong with it. [`ViewError::FoldChanged`], where this version means something
    /// else already.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the view declared or not. Repeating is safe.
    pub async fn declare(&self, document: Document) -> Result<Declaration, ViewError> {
        let document = Arc::new(document);
        self.check(document.clone()).await?;
        let _one_at_a_time = self.shared.declaring.lock().await;
        let (view, version) = (document.view().clone(), document.version());
        let known = keep::versions_of(&mut &self.shared.store, &view).await?;
        if known.is_empty() && !rows::builds(&mut &self.shared.store, &view).await?.is_empty() {
            let what = format!("view `{view}` is kept by code of a program, not by a document: use another name");
            return Err(ViewError::invalid(what));
        }
        let new = !known.contains(&version);
        if new && known.len() >= keep::MAX_VERSIONS {
            return Err(ViewError::TooMany { what: "versions of one declared view", max: keep::MAX_VERSIONS });
        }
        if !new {
            self.means_the_same(&document).await?;
        }
        let means = Fingerprint::of(&Declared(document.clone()));
        if !new && self.runs(&view, version, &means).await? {
            self.replace_text(document).await?;
        } else {
            // What runs here under this name may be what somebody else deleted.
            self.shared.forget(|known| *known == (view.clone(), version));
            if !new && self.start_kept(&self.shared.store, &view, version).await? {
                self.replace_text(document).await?;
            } else {
                self.start_document(Origin::Declared(document)).await?;
            }
        }
        Ok(Declaration { view, version, new })
    }

    /// Whether a version runs here that means this, and has a build.
    async fn runs(&self, view: &ViewName, version: u32, means: &Fingerprint) -> Result<bool, ViewError> {
        let builds = rows::builds(&mut &self.shared.store, view).await?;
        let is_known = self.shared.code().get(&(view.clone(), version)).is_some_and(|code| code.fingerprint == *means);
        Ok(is_known && builds.iter().any(|build| build.version == version && build.fingerprint == *means))
    }

    /// Whether the document that is kept under this version makes the same rows.
    async fn means_the_same(&self, document: &Arc<Document>) -> Result<(), ViewError> {
        let found = keep::find(&mut &self.shared.store, document.view(), Some(document.version())).await?;
        let Some(kept) = found.filter(|kept| kept.text != document.text()) else { return Ok(()) };
        let of = |document: &Arc<Document>| Fingerprint::of(&Declared(document.clone()));
        let before = Document::read(&kept.text, kept.format).map(|kept| of(&Arc::new(kept)));
        let now = of(document);
        if before.as_ref() == Ok(&now) {
            return Ok(());
        }
        Err(ViewError::FoldChanged {
            view: document.view().clone(),
            version: document.version(),
            stored: before.map_or_else(|_| "unknown".to_owned(), |before| before.to_string()),
            found: now.to_string(),
        })
    }

    async fn replace_text(&self, document: Arc<Document>) -> Result<(), ViewError> {
        let (kept, now) = (document.clone(), self.shared.store.env().wall());
        let put = self.shared.store.transact(move |tx| {
            let document = kept.clone();
            Box::pin(async move { keep::put(tx, &document, now).await })
        });
        put.await.map_err(ViewError::of_transaction)?;
        self.remember(document);
        Ok(())
    }

    async fn start_document(&self, origin: Origin) -> Result<(), ViewError> {
        let (Origin::Declared(document) | Origin::Kept(document)) = &origin;
        let (document, mut config) = (document.clone(), document.config().clone());
        if matches!(origin, Origin::Kept(_)) {
            // Its text is what it was: only how it is read can have changed, with quorate.
            config.changed = Changed::Rebuild;
        }
        self.start_keeping(Arc::new(Declared(document.clone())), config, None, Some(origin)).await?;
        self.remember(document);
        Ok(())
    }

    fn remember(&self, document: Arc<Document>) {
        let key = (document.view().clone(), document.version());
        self.shared.not_started().remove(&key);
        self.shared.documents().insert(key, document);
    }

    /// The document of a version that runs in this process, for its tables and the types of their columns.
    pub fn declared(&self, view: &ViewName, version: u32) -> Option<Arc<Document>> {
        self.shared.documents().get(&(view.clone(), version)).cloned()
    }

    /// Goes on with the views that were declared: the newest version of each, and older ones that still have builds. What
    /// others declare on this store is gone on with as well, once they have left. Where this quorate reads a document otherwise
    /// than the one that made its rows, they are made anew beside what readers have, who get them once they have caught up; a
    /// version that readers have left for a newer one stays as it was.
    ///
    /// Returns those that could not be started; readers keep what they had of them, and [`View::describe`] says why. What the
    /// store's own failing was in the way of, a full disk say, is tried again until it is started.
    ///
    /// # Errors
    /// What was declared cannot be read.
    ///
    /// [`View::describe`]: crate::materialized_view::View::describe
    pub async fn start_declared(&self) -> Result<Vec<NotStarted>, ViewError> {
        let again = self.start_known().await?;
        self.shared.tasks.spawn("declared", watch::run(self.clone(), again));
        let of = |((view, version), reason): (&(ViewName, u32), &String)| NotStarted {
            view: view.clone(),
            version: *version,
            reason: reason.clone(),
        };
        Ok(self.shared.not_started().iter().map(of).collect())
    }

    /// Starts what was declared and does not run here. What cannot be started is remembered with the reason. Returns whether
    /// the store was in the way of some, so that trying again may do.
    pub(in super::super) async fn start_known(&self) -> Result<bool, ViewError> {
        let _one_at_a_time = self.shared.declaring.lock().await;
        let store = &self.shared.store;
        let (mut failed, mut again) = (BTreeMap::new(), false);
        let kept = keep::versions(&mut &*store).await?;
        let is_kept = |(view, version): &(ViewName, u32)| {
            kept.iter().any(|(known, versions)| known == view && versions.contains(version))
        };
        let declared: Vec<_> = self.shared.documents().keys().cloned().collect();
        // Somebody else deleted them.
        self.shared.forget(|known| declared.contains(known) && !is_kept(known));
        for (view, versions) in kept {
            let builds = rows::builds(&mut &*store, &view).await?;
            let newest = versions.last().copied();
            let is_wanted =
                |version: u32| Some(version) == newest || builds.iter().any(|build| build.version == version);
            for version in versions.into_iter().filter(|version| is_wanted(*version)) {
                let made = builds.iter().filter(|build| build.version == version);
                let made: Vec<&Fingerprint> = made.map(|build| &build.fingerprint).collect();
                let known = self.shared.code().get(&(view.clone(), version)).cloned();
                if known.is_some_and(|code| made.is_empty() || made.contains(&&code.fingerprint)) {
                    continue;
                }
                // There is another one under its name by now.
                self.shared.forget(|known| *known == (view.clone(), version));
                match self.start_kept(store, &view, version).await {
                    Ok(_) => {}
                    Err(ViewError::Store(StoreError::Closed)) => return Err(StoreError::Closed.into()),
                    Err(cause) => {
                        tracing::error!(%view, version, %cause, "a declared view cannot be started");
                        again |= matches!(cause, ViewError::Store(_));
                        failed.insert((view.clone(), version), cause.to_string());
                    }
                }
            }
        }
        *self.shared.not_started() = failed;
        Ok(again)
    }

    /// Starts a version as it is kept; whether it is there. Rows that an earlier quorate made otherwise of the same text are
    /// made anew, beside what readers have.
    async fn start_kept(&self, store: &Store, view: &ViewName, version: u32) -> Result<bool, ViewError> {
        loop {
            let Some(kept) = keep::find(&mut &*store, view, Some(version)).await? else { return Ok(false) };
            let document = Document::read(&kept.text, kept.format).map_err(ViewError::Document)?;
            match self.start_document(Origin::Kept(Arc::new(document))).await {
                // It was deleted meanwhile.
                Err(ViewError::NotFound { .. }) => return Ok(false),
                // Another text is kept meanwhile.
                Err(ViewError::NoCode { .. }) => {}
                started => return started.map(|()| true),
            }
        }
    }

    /// A document as it was declared; of the newest version where none is named.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] where there is none.
    pub async fn document(&self, view: &ViewName, version: Option<u32>) -> Result<StoredDocument, ViewError> {
        let found = keep::find(&mut &self.shared.store, view, version).await?;
        found.ok_or_else(|| ViewError::NotFound { view: view.clone() })
    }

    /// The versions of a view that were declared, oldest first; none for a view that is kept by code.
    pub async fn declared_versions(&self, view: &ViewName) -> Result<Vec<u32>, ViewError> {
        keep::versions_of(&mut &self.shared.store, view).await
    }
}
