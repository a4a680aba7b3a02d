//! Event schemas and versions.
