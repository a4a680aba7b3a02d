//! Names of views and of their tables, and the build that a table belongs to.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The longest name of a view or a table, in bytes.
pub(super) const MAX_BYTES: usize = 63;

/// A view's name: 1 to 63 small letters and digits in words joined by `-`, such as `loans-by-state`; it begins with a letter.
///
/// Cheap to clone. Narrower than other names, because tables are named after it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewName(Arc<str>);

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewNameError {
    /// It is no view's name.
    #[error(
        "`{name}` cannot name a view: use 1 to {MAX_BYTES} small letters and digits, with single `-` between words"
    )]
    View {
        /// What was given.
        name: String,
    },
    /// It is no table's name.
    #[error(
        "`{name}` cannot name a view's table: use 1 to {MAX_BYTES} small letters and digits, with single `_` between words"
    )]
    Table {
        /// What was given.
        name: String,
    },
}

impl ViewName {
    /// Checks `text` and keeps it as a name.
    pub fn new(text: impl AsRef<str>) -> Result<Self, ViewNameError> {
        let text = text.as_ref();
        if is_words(text, '-') { Ok(Self(text.into())) } else { Err(ViewNameError::View { name: shortened(text) }) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks the name of a view's table: as of a view, with `_` between words.
pub(super) fn check_table(name: &str) -> Result<(), ViewNameError> {
    if is_words(name, '_') { Ok(()) } else { Err(ViewNameError::Table { name: shortened(name) }) }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_BYTES + 1).collect()
}

fn is_words(text: &str, joint: char) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (1..=MAX_BYTES).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.split(joint).all(is_word)
}

impl FromStr for ViewName {
    type Err = ViewNameError;

    fn from_str(text: &str) -> Result<Self, ViewNameError> {
        Self::new(text)
    }
}

impl fmt::Display for ViewName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ViewName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for ViewName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ViewName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One build of a view: a set of tables that is filled from the beginning of the log. Counted from 1 over all views of a
/// store, and never reused: a reader that holds the number of a dropped build finds nothing, never another view's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Build(u32);

impl Build {
    /// The `n`-th build of the store.
    pub const fn new(n: u32) -> Self {
        Self(n)
    }

    /// As a number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether `table` (or an index) is named as one of this build's.
    pub(crate) fn owns(self, table: &str) -> bool {
        build_of(table) == Some(self)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What tables of views begin with. The application reads them, and never writes them.
pub(crate) const TABLE_PREFIX: &str = "view__";

/// The build that a table named so belongs to. Neither views nor tables have `__` in their names, so this is unambiguous.
fn build_of(table: &str) -> Option<Build> {
    let mut parts = table.strip_prefix(TABLE_PREFIX)?.split("__");
    let (_view, build, _table) = (parts.next()?, parts.next()?, parts.next()?);
    let number = build.parse().ok().filter(|_| parts.next().is_none() && !build.starts_with('+'))?;
    Some(Build(number))
}

/// The tables of one build, by the names its projection gives them.
///
/// A projection writes `{loan}`, and the rows of build 12 of view `loans` are in `view__loans__12__loan`. So any number of
/// builds, of one version or of several, lie beside each other, and none can reach another's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    view: ViewName,
    build: Build,
}

impl Namespace {
    /// The tables of `build` of `view`.
    pub fn new(view: ViewName, build: Build) -> Self {
        Self { view, build }
    }

    /// The view.
    pub fn view(&self) -> &ViewName {
        &self.view
    }

    /// The build.
    pub fn build(&self) -> Build {
        self.build
    }

    /// The table, or index, that the projection calls `name`, as the store has it.
    pub fn table(&self, name: &str) -> String {
        format!("{TABLE_PREFIX}{}__{}__{name}", self.view.as_str().replace('-', "_"), self.build)
    }

    /// `sql` with every `{name}` replaced by [`table`](Self::table). What is in braces and is no table's name stays, such as
    /// JSON in a text.
    pub fn expand(&self, sql: &str) -> String {
        let mut expanded = String::with_capacity(sql.len() + 64);
        let mut rest = sql;
        while let Some((before, behind)) = rest.split_once('{') {
            expanded.push_str(before);
            match behind.split_once('}').filter(|(name, _)| check_table(name).is_ok()) {
                Some((name, behind)) => {
                    expanded.push_str(&self.table(name));
                    rest = behind;
                }
                None => {
                    expanded.push('{');
                    rest = behind;
                }
            }
        }
        expanded.push_str(rest);
        expanded
    }
}
