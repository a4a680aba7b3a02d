//! The room against real stores: two banks, and a coordinator's log beside them.

mod bank;
mod embedded;
mod hands;
mod takeover;
mod transfers;
mod web;
