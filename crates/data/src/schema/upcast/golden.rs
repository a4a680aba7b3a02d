//! A corpus of events as they once were written, kept to prove that they still can be read.
//!
//! Keep one stored event of every version of every type beside the code, and check them in a test: a new version
//! without an upcaster, an upcaster whose result the schema refuses, or a version that nobody kept an example of then
//! fails the build instead of a replay.

use super::{TypeVersion, UpcastError, Upcasters, Versioned};
use crate::schema::registry::{Rejection, Schemas, Which};
use std::{collections::BTreeSet, fmt};

/// What a corpus of examples shows to be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenFailure {
    /// No example was kept of a version.
    #[error("{missing}: there is no example")]
    Missing {
        /// The version without example.
        missing: TypeVersion,
    },
    /// The example does not fit the schema of its own version.
    #[error("{example}, example {index}: does not fit its own schema")]
    NotOfItsVersion {
        /// What it is an example of.
        example: TypeVersion,
        /// Which of the examples, counted from 0.
        index: usize,
        /// What is wrong.
        #[source]
        rejection: Rejection,
    },
    /// The example can't be brought to the latest version.
    #[error("{example}, example {index}: cannot be upcast")]
    NotUpcast {
        /// What it is an example of.
        example: TypeVersion,
        /// Which of the examples, counted from 0.
        index: usize,
        /// Why not.
        #[source]
        error: UpcastError,
    },
    /// What the example becomes does not fit the latest schema.
    #[error("{example}, example {index}: what it becomes does not fit {result}")]
    NotCurrent {
        /// What it is an example of.
        example: TypeVersion,
        /// Which of the examples, counted from 0.
        index: usize,
        /// What it was to become.
        result: TypeVersion,
        /// What is wrong.
        #[source]
        rejection: Rejection,
    },
}

/// Everything that a corpus shows to be wrong; never empty.
#[derive(Debug)]
pub struct GoldenFailures(pub Vec<GoldenFailure>);

impl fmt::Display for GoldenFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, failure) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "; " } else { "" })?;
            write!(f, "{failure}")?;
            let mut cause = std::error::Error::source(failure);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl std::error::Error for GoldenFailures {}

/// Checks that there is an example of every version that `upcasters` know, that each fits the schema of its version,
/// and that what it becomes fits the latest schema. Versions that `schemas` don't have are not checked against one.
///
/// # Errors
/// [`GoldenFailures`]: everything found wrong, missing examples first.
///
/// # Example
/// ```
/// use quorate_data::schema::{RegistryPolicy, Schemas, upcast::{Upcasters, golden}};
///
/// let upcasters = Upcasters::builder().latest("a", 2).step("a", 1, 2, |data| Ok(data)).build()?;
/// let failures = golden::check(&[], &upcasters, &Schemas::new(RegistryPolicy::default())).unwrap_err();
/// assert_eq!(failures.to_string(), "a 1: there is no example; a 2: there is no example");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check(examples: &[Versioned], upcasters: &Upcasters, schemas: &Schemas) -> Result<(), GoldenFailures> {
    let shown: BTreeSet<_> = examples.iter().map(Versioned::type_version).collect();
    let missing = upcasters.known().filter(|known| !shown.contains(known));
    let missing = missing.map(|missing| GoldenFailure::Missing { missing });
    let wrong = examples.iter().enumerate().flat_map(|(index, example)| one(index, example, upcasters, schemas).err());
    let failures: Vec<_> = missing.chain(wrong).collect();
    if failures.is_empty() { Ok(()) } else { Err(GoldenFailures(failures)) }
}

fn one(index: usize, stored: &Versioned, upcasters: &Upcasters, schemas: &Schemas) -> Result<(), GoldenFailure> {
    let example = || stored.type_version();
    fits(stored, schemas).map_err(|rejection| GoldenFailure::NotOfItsVersion {
        example: example(),
        index,
        rejection,
    })?;
    let current = upcasters.upcast(stored.clone()).map_err(|error| GoldenFailure::NotUpcast {
        example: example(),
        index,
        error,
    })?;
    current.iter().try_for_each(|event| {
        let result = event.type_version();
        fits(event, schemas).map_err(|rejection| GoldenFailure::NotCurrent {
            example: example(),
            index,
            result,
            rejection,
        })
    })
}

fn fits(event: &Versioned, schemas: &Schemas) -> Result<(), Rejection> {
    let (event_type, version) = (event.event_type.as_str(), event.version);
    match schemas.latest(event_type) {
        Some(_) => schemas.validate(event_type, Which::Exactly(version), &event.data).map(|_| ()),
        None => Ok(()),
    }
}
