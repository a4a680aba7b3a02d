//! The room against real stores: two banks, and a coordinator's log beside them.

mod alone;
mod bank;
mod deaths;
mod embedded;
mod hands;
mod ledger;
mod takeover;
mod transfers;
mod turns;
mod web;
