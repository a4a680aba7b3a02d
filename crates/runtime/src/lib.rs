//! The only crate that touches the world.
//!
//! Everything outside receives an [`Env`] and asks it for the time, for randomness, for the disk, the network and for
//! somewhere to run. [`Env::real`] is this machine; the simulator hands out hosts of a simulated world through the same
//! type, so what it runs is the product.

pub mod blocking;
pub mod clock;
pub mod disk;
mod env;
pub mod fault;
pub mod net;
pub mod probe;
pub mod random;
pub mod tasks;

pub use env::{Env, EnvParts};

/// A boxed future that may move between threads: what ports return, so that they stay usable as `dyn`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
