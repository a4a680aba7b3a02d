//! Sagas over a real store: what they do, and what the next process finds.

mod at_once;
mod awaiting;
mod barrier;
mod children;
mod children_killed;
mod children_left;
mod choreography;
mod choreography_kept;
mod choreography_resumed;
mod crashes;
mod deciding;
mod requests;
mod running;
mod unreadable;
mod world;
