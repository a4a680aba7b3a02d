//! Decisions that hold: state as a fold of events, and commands that are decided against it without a race.

pub mod cqrs;
pub mod event_sourcing;
pub mod saga;
pub mod two_phase_commit;
