//! The shapes of events, how they may change, and how old ones are read.
//!
//! An event log is a diary that others read years later. Whoever writes today decides what every future reader has to
//! understand, and an entry once written stays as it is. Three things keep a diary readable: an agreed form for each
//! kind of entry, written down ([`SchemaRegistry`]); a rule for changing the form that harms no reader
//! ([`Compatibility`]); and a translator for entries in forms given up ([`upcast::Upcasters`]).
//!
//! Prefer them in this order. A *compatible* change (a new optional field of a closed object, a wider type) needs no
//! code: register the schema under [`Compatibility::Backward`] and go on. Where the form has to break, give the type a
//! new version with [`Compatibility::None`] and an upcaster from the old one; deciders and projections then never see
//! the old form. Where the *meaning* changes, take a new event type: no translator can know what was not said.
//!
//! # When not to use it
//! - A type whose shape nobody but its one producer relies on needs no schema: types without one pass unchecked, unless
//!   the registry refuses them ([`UnknownType`]).
//! - Rules that need other events ("the order exists") are a decider's, not a schema's.
//! - Several events that should have been one are not merged by an upcaster, which sees one event at a time; copy the
//!   stream into a new one.
//! - Snapshots and views are not upcast. They are derived: discard them when the code that folds them changes.
//!
//! # What it promises
//! A [`Registrar`] keeps schemas in a store, and the store holds every append against them, also inside transactions:
//! what is appended behind a registration was held against it, what came before is not looked at again, and what the log
//! knows is answered as the first time ([`store`](crate::store)). An event is held against the version that its
//! `dataschema` names, and read as that version; one without `dataschema` is of version 1 ([`version_of`]). Data is looked
//! at before it is sealed; only JSON fits.
//!
//! Everything else here touches no clock, disk or network; the same rows and calls give the same answers everywhere. Two
//! registrations cannot both win a version: the row's key is type and version, and the store's transaction decides
//! ([`Schemas::propose`], then [`SchemaRegistry::admit`]). The comparison of schemas is sound and incomplete: what passes is safe, what is refused
//! with "cannot be proved" may have been safe, too. What a schema or a document may cost is bounded by [`Limits`], each
//! by name, whoever wrote it.
//!
//! # Example
//! ```
//! use quorate_data::schema::{Compatibility, RegistryPolicy, SchemaRegistry, Which, upcast::{Upcasters, Versioned}};
//! use serde_json::json;
//!
//! // Version 1 counted pounds. A second schema that asks for pence would break everyone who replays the log …
//! let registry = SchemaRegistry::new(RegistryPolicy::default());
//! let opened = "account.opened".parse()?;
//! let amount_in = |unit: &str| json!({
//!     "type": "object", "required": [unit], "additionalProperties": false, "properties": {unit: {"type": "integer"}},
//! });
//! let first = registry.register(&opened, &amount_in("pounds"), Compatibility::Backward)?;
//! let refused = registry.register(&opened, &amount_in("pence"), Compatibility::Backward).unwrap_err();
//! let missing = "`/properties/pence` (before: ``): was undeclared, became required";
//! assert!(refused.to_string().contains(missing), "{refused}");
//!
//! // … so the break is declared, and bridged.
//! let second = registry.register(&opened, &amount_in("pence"), Compatibility::None)?;
//! let upcasters = Upcasters::builder()
//!     .latest("account.opened", second.get())
//!     .step("account.opened", 1, 2, |data| {
//!         Ok(json!({"pence": data["pounds"].as_i64().and_then(|pounds| pounds.checked_mul(100)).ok_or("no amount")?}))
//!     })
//!     .build()?;
//! let stored = Versioned { event_type: opened, version: first, data: json!({"pounds": 12}) };
//! let current = upcasters.upcast(stored)?.remove(0);
//! assert_eq!(current.data, json!({"pence": 1200}));
//! assert!(registry.current().validate("account.opened", Which::Latest, &current.data).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Sources
//! Greg Young, "Versioning in an Event Sourced System" (2016): weak schema, upcasting, copy-transform, and why a new
//! meaning is a new event. Ours differs in refusing broken chains at start-up and in downcasting for consumers that lag.
//! The words backward, forward, full and transitive are those of Confluent's Schema Registry; ours proves over JSON
//! Schema documents rather than over its own list of allowed edits, and therefore also takes their "open content model"
//! at its word unless told otherwise ([`Undeclared`]). Dialect: JSON Schema 2020-12, with `format` asserted.

mod address;
mod candidate;
mod compat;
mod document;
mod limits;
mod registrar;
mod registry;
pub(crate) mod rows;
mod strict;
pub mod upcast;
mod version;
mod vocabulary;

pub use address::{address, version_named, version_of};
pub(crate) use candidate::Candidate;
pub use compat::{
    Certainty, Compatibility, Direction, Finding, MAX_FINDINGS, Undeclared, UnknownCompatibility, incompatibilities,
};
pub use document::{Schema, SchemaFault};
pub use limits::{Limits, fixed_limits};
pub use registrar::{Registered, Registrar, RegistrarError};
pub use registry::{
    Checked, Incompatibility, MAX_INCOMPATIBLE, Proposal, RegisterError, RegistryPolicy, Rejection, RowError,
    SchemaRegistry, SchemaRow, SchemaSize, Schemas, UnknownType, Violation, Which,
};
pub use version::SchemaVersion;
pub(crate) use vocabulary::percent_decoded;
