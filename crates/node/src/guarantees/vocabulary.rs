//! The words of the table: what a row is about, where it is asked for, what it holds on, and what tries it.

/// What a guarantee is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// What survives.
    Durability,
    /// What happens together or not at all.
    Atomicity,
    /// What comes before what.
    Order,
    /// Who sees what, and when.
    Visibility,
    /// How often something happens or arrives.
    Delivery,
    /// What is noticed when it is no longer as it was.
    Integrity,
    /// How much is let through, and for how long.
    Load,
}

/// Where the operation is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// In process.
    Library,
    /// Over HTTP.
    Http,
    /// At the command line.
    Cli,
}

/// What keeps the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The embedded store.
    Sqlite,
    /// The store for several nodes.
    Postgres,
}

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A claim of [`quorate_data::store::conformance`].
    Conformance(&'static str),
    /// A test, with the file of the repository that it stands in.
    Test {
        /// The file.
        file: &'static str,
        /// The test's name.
        name: &'static str,
    },
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Guarantee {
    /// What it is about.
    pub about: About,
    /// The operation.
    pub operation: &'static str,
    /// Where it is asked for.
    pub surface: Surface,
    /// On which backends it holds; none where nothing is kept, so that it holds with all of them.
    pub backends: &'static [Backend],
    /// What holds.
    pub holds: &'static str,
    /// The tests that try it; at least one.
    pub proofs: &'static [Proof],
}

impl About {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Durability => "durability",
            Self::Atomicity => "atomicity",
            Self::Order => "order",
            Self::Visibility => "visibility",
            Self::Delivery => "delivery",
            Self::Integrity => "integrity",
            Self::Load => "load",
        }
    }
}

impl Surface {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Http => "http",
            Self::Cli => "cli",
        }
    }
}

impl Backend {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

impl Proof {
    /// The test's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conformance(name) | Self::Test { name, .. } => name,
        }
    }
}

/// A test, by the file of the repository that it stands in.
pub(super) const fn test(file: &'static str, name: &'static str) -> Proof {
    Proof::Test { file, name }
}

/// A row that holds on the embedded store.
pub(super) const fn row(
    about: About,
    operation: &'static str,
    surface: Surface,
    holds: &'static str,
    proofs: &'static [Proof],
) -> Guarantee {
    Guarantee { about, operation, surface, backends: &[Backend::Sqlite], holds, proofs }
}

/// A row that holds on either store.
pub(super) const fn on_both(
    about: About,
    operation: &'static str,
    surface: Surface,
    holds: &'static str,
    proofs: &'static [Proof],
) -> Guarantee {
    Guarantee { about, operation, surface, backends: &[Backend::Sqlite, Backend::Postgres], holds, proofs }
}

/// A row that holds on the store for several nodes.
pub(super) const fn on_postgres(
    about: About,
    operation: &'static str,
    surface: Surface,
    holds: &'static str,
    proofs: &'static [Proof],
) -> Guarantee {
    Guarantee { about, operation, surface, backends: &[Backend::Postgres], holds, proofs }
}

/// A row of something in the library that keeps nothing in a store.
pub(super) const fn in_memory(
    about: About,
    operation: &'static str,
    holds: &'static str,
    proofs: &'static [Proof],
) -> Guarantee {
    Guarantee { about, operation, surface: Surface::Library, backends: &[], holds, proofs }
}
