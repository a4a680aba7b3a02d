//! What can go wrong in the world, as plain data: written in scenarios and experiments, injected by whoever owns the port.

pub mod disk;

pub use disk::DiskFaults;
