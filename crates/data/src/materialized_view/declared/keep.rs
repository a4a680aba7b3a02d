//! Documents in the store, by view and version.

use std::sync::Arc;

use quorate_foundations::time::Wall;

use super::{document::Document, projection::Declared, source::Format};
use crate::{
    materialized_view::{
        Fingerprint, ViewError, ViewName,
        registered::Registered,
        rows::{self, Rows},
    },
    store::{DynTx, RoomTables, Row},
};

/// The table, by version.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "view_document",
    versions: &["
        CREATE TABLE quorate_view_document (
            view TEXT NOT NULL,
            version BIGINT NOT NULL,
            format TEXT NOT NULL,
            document TEXT NOT NULL,
            declared_ns BIGINT NOT NULL,
            PRIMARY KEY (view, version))
    "],
};

/// The most versions of one view that are kept.
pub(super) const MAX_VERSIONS: usize = 100;

const COLUMNS: &str = "view, version, format, document, declared_ns";

/// A document as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    /// The view.
    pub view: ViewName,
    /// Its version.
    pub version: u32,
    /// How it is written.
    pub format: Format,
    /// The document.
    pub text: String,
    /// When it was declared first, by the store's wall clock.
    pub declared_at: Wall,
}

/// Where the document of a view that is started comes from.
#[derive(Clone)]
pub(in super::super) enum Origin {
    /// Somebody declares it now: it is kept.
    Declared(Arc<Document>),
    /// It was kept before, and is still to be there, as it was read.
    Kept(Arc<Document>),
}

impl Origin {
    /// Has the document kept in the transaction that finds or begins its build.
    ///
    /// # Errors
    /// Of one that was kept: [`ViewError::NotFound`] where the view was deleted, [`ViewError::NoCode`] where another text is
    /// kept by now.
    pub(in super::super) async fn settle(&self, tx: &mut DynTx, now: Wall) -> Result<(), ViewError> {
        match self {
            Self::Declared(document) => put(tx, document, now).await,
            Self::Kept(document) => {
                let view = || document.view().clone();
                let found = find(tx, document.view(), Some(document.version())).await?;
                let found = found.ok_or_else(|| ViewError::NotFound { view: view() })?;
                let is_same = (found.format, found.text.as_str()) == (document.format(), document.text());
                if is_same { Ok(()) } else { Err(ViewError::NoCode { view: view() }) }
            }
        }
    }
}

/// The document that is kept under the version of `code`, which it means. It is read for that, which takes a while: not in a
/// transaction, where others wait.
///
/// # Errors
/// [`ViewError::NotFound`] where the view was deleted, [`ViewError::NoCode`] where it was declared anew and means something
/// else by now.
pub(in super::super) async fn kept(from: &mut impl Rows, code: &Registered) -> Result<StoredDocument, ViewError> {
    let view = || code.name.clone();
    let kept = find(from, &code.name, Some(code.version)).await?.ok_or_else(|| ViewError::NotFound { view: view() })?;
    let document = Document::read(&kept.text, kept.format).map_err(ViewError::Document)?;
    let is_same = Fingerprint::of(&Declared(Arc::new(document))) == code.fingerprint;
    if is_same { Ok(kept) } else { Err(ViewError::NoCode { view: view() }) }
}

/// Whether a document is still kept as it was read.
///
/// # Errors
/// [`ViewError::NotFound`] where the view was deleted.
pub(in super::super) async fn is_kept(tx: &mut DynTx, read: &StoredDocument) -> Result<bool, ViewError> {
    let found = find(tx, &read.view, Some(read.version)).await?;
    let now = found.ok_or_else(|| ViewError::NotFound { view: read.view.clone() })?;
    Ok((now.format, &now.text) == (read.format, &read.text))
}

/// Keeps a document; where its version is there already, in place of the text that was kept.
pub(super) async fn put(tx: &mut DynTx, document: &Document, now: Wall) -> Result<(), ViewError> {
    let sql = "INSERT INTO quorate_view_document (view, version, format, document, declared_ns)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (view, version) DO UPDATE SET format = excluded.format, document = excluded.document";
    let params = [
        rows::text(document.view()),
        document.version().into(),
        document.format().as_str().into(),
        document.text().into(),
        now.unix_nanos().into(),
    ];
    tx.room_execute(sql, &params).await?;
    Ok(())
}

/// Forgets all versions of a view.
pub(in super::super) async fn forget(tx: &mut DynTx, view: &ViewName) -> Result<u64, ViewError> {
    Ok(tx.room_execute("DELETE FROM quorate_view_document WHERE view = $1", &[rows::text(view)]).await?)
}

/// The views that have documents, with the versions of each, oldest first.
pub(super) async fn versions(from: &mut impl Rows) -> Result<Vec<(ViewName, Vec<u32>)>, ViewError> {
    let sql = "SELECT view, version FROM quorate_view_document ORDER BY view, version";
    let mut all: Vec<(ViewName, Vec<u32>)> = Vec::new();
    for row in from.rows(sql, Vec::new()).await? {
        let (view, version) = (name(&row)?, number(&row)?);
        match all.last_mut() {
            Some((last, versions)) if *last == view => versions.push(version),
            _ => all.push((view, vec![version])),
        }
    }
    Ok(all)
}

/// The versions of one view, oldest first.
pub(super) async fn versions_of(from: &mut impl Rows, view: &ViewName) -> Result<Vec<u32>, ViewError> {
    let sql = "SELECT view, version FROM quorate_view_document WHERE view = $1 ORDER BY version";
    from.rows(sql, vec![rows::text(view)]).await?.iter().map(number).collect()
}

/// One version of a view; the newest where none is named.
pub(super) async fn find(
    from: &mut impl Rows,
    view: &ViewName,
    version: Option<u32>,
) -> Result<Option<StoredDocument>, ViewError> {
    let mut params = vec![rows::text(view)];
    let which = version.map_or("ORDER BY version DESC LIMIT 1", |version| {
        params.push(version.into());
        "AND version = $2"
    });
    let sql = format!("SELECT {COLUMNS} FROM quorate_view_document WHERE view = $1 {which}");
    from.rows(&sql, params).await?.first().map(document).transpose()
}

fn document(row: &Row) -> Result<StoredDocument, ViewError> {
    let format = rows::string(row.at(2), "format")?;
    Ok(StoredDocument {
        view: name(row)?,
        version: number(row)?,
        format: Format::named(format).ok_or_else(|| corrupt(format!("`{format}` is no form of a document")))?,
        text: rows::string(row.at(3), "document")?.to_owned(),
        declared_at: Wall::from_unix_nanos(row.at(4).as_i64().ok_or_else(|| corrupt("it has no time"))?),
    })
}

fn name(row: &Row) -> Result<ViewName, ViewError> {
    ViewName::new(rows::string(row.at(0), "view")?).map_err(corrupt)
}

fn number(row: &Row) -> Result<u32, ViewError> {
    u32::try_from(rows::unsigned(row.at(1), "version")?).map_err(corrupt)
}

fn corrupt(what: impl std::fmt::Display) -> ViewError {
    ViewError::corrupt("quorate_view_document", what)
}
