//! Views that are declared without Rust: the reading of their documents and statements, not yet wired to anything.
//!
//! What is here is what a declared view is checked with: the document as a tree that knows its places ([`quorate_foundations::document`]), the
//! types of columns ([`kind`]), paths into events ([`path`]), and the statements ([`sql`]; ADR 17 says why they are
//! parsed). It is compiled for tests only until a [`Projection`](super::Projection) is made of it.
#![expect(dead_code, reason = "the document and the projection that use this are not there yet")]

mod kind;
mod path;
mod sql;
