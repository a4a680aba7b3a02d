//! Decisions that hold: state as a fold of events, and commands that are decided against it without a race.

pub mod cqrs;
pub mod event_sourcing;
pub mod saga;
pub mod two_phase_commit;

/// The rooms of this crate that keep tables, for whoever moves a store.
pub fn rooms() -> Vec<quorate_data::store::moving::Room> {
    use quorate_data::store::moving::{Can, Room};
    const PROCESSES: &str = "choreographed processes, which follow the log of an embedded store alone: remove them";
    const BRANCHES: &str = "what the embedded participant promised in transactions, or has not forgotten yet: over PostgreSQL \
                            that is another one's";
    vec![
        Room::carried(cqrs::TABLES),
        Room::carried(event_sourcing::TABLES),
        Room::carried(saga::TABLES),
        Room::carried(saga::BARRIER_TABLES),
        // Signs of life of the processes that have it open.
        Room::begun_anew(saga::OWNER_TABLES),
        Room::begun_anew(two_phase_commit::SIGN_TABLES),
        Room::carried_where(Can::BelongToOne, saga::choreography::TABLES, &["quorate_process"], PROCESSES),
        Room::carried_where(Can::BelongToOne, two_phase_commit::TABLES, &["quorate_txn_branch"], BRANCHES),
    ]
}
