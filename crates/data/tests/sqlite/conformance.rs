//! The embedded store keeps every promise that any store must.

use crate::shared;

quorate_data::store_conformance!(shared::Folder::new());
