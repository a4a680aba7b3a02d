//! The disk of a simulated host, and SQLite on it.
