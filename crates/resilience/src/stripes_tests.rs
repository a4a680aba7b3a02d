//! The counter on real threads.

use crate::{
    stripes::{Lane, Stripes},
    sync::{OWNED, lane},
};

#[test]
fn nothing_is_lost_when_more_threads_count_than_there_are_owned_lanes() {
    let stripes = Stripes::new();
    std::thread::scope(|scope| {
        for _ in 0..OWNED + 5 {
            scope.spawn(|| (0..1_000).for_each(|_| stripes.raise(lane())));
        }
    });
    assert_eq!(stripes.sum(), 1_000 * (OWNED as u64 + 5));
}

#[test]
fn a_lane_is_owned_again_once_its_thread_has_ended() {
    let claim = || std::thread::scope(|scope| scope.spawn(lane).join().unwrap());
    let lanes: Vec<Lane> = (0..3 * OWNED).map(|_| claim()).collect();
    assert!(lanes.iter().filter(|lane| lane.is_owned()).count() > OWNED, "lanes come back");
}
