//! The embedded store keeps every promise that any store must.

mod sqlite;

quorate_data::store_conformance!(sqlite::Folder::new());
