//! The HTTP surface of a real, listening node, seen from outside. Hostile input first.

mod append;
mod client;
mod hostile;
mod keys;
mod lifecycle;
mod node;
mod read;
mod several;
mod store;
mod subscribe;
