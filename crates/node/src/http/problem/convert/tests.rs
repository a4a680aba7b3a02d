use std::sync::Arc;

use quorate_data::store::StoreError;

use crate::http::problem::Problem;

/// Status, code, outcome and retry of what the border makes of `error`.
fn told(error: StoreError) -> (u16, String, String, String) {
    let document = Problem::from(error).document();
    let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    let code = text("type").rsplit('/').next().unwrap_or_default().to_owned();
    (document["status"].as_u64().unwrap() as u16, code, text("outcome"), text("retry"))
}

fn expected(status: u16, code: &str, outcome: &str, retry: &str) -> (u16, String, String, String) {
    (status, code.to_owned(), outcome.to_owned(), retry.to_owned())
}

#[test]
fn events_that_are_forgotten_and_not_wiped_are_told_as_a_part_with_what_is_in_the_way() {
    let not_wiped = |cause| StoreError::NotWiped { stream: "s".into(), cause: Arc::new(cause) };
    let rotted = || StoreError::Corrupt { place: "page 7 of the file".to_owned(), what: "it rotted".to_owned() };
    assert_eq!(told(not_wiped(StoreError::DiskFull)), expected(507, "disk-full", "partial", "after"));
    assert_eq!(told(not_wiped(rotted())), expected(500, "store-corrupt", "partial", "never"));
    let partly = |cause| StoreError::PartlyForgotten { streams: 2, events: 9, cause: Arc::new(cause) };
    assert_eq!(told(partly(StoreError::DiskFull)), expected(507, "disk-full", "partial", "after"));
    assert_eq!(told(partly(rotted())), expected(500, "store-corrupt", "partial", "never"));
    assert_eq!(told(StoreError::DiskFull), expected(507, "disk-full", "unchanged", "after"));
}

#[test]
fn a_store_that_is_stuck_tells_what_it_is_stuck_on_and_that_nothing_was_written() {
    let rotted = StoreError::Corrupt { place: "page 7 of the file".to_owned(), what: "it rotted".to_owned() };
    let stuck = StoreError::Stuck { what: "the index cannot be written", cause: Arc::new(rotted) };
    assert_eq!(told(stuck.clone()), expected(500, "store-corrupt", "unchanged", "never"));
    let detail = Problem::from(stuck).document()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("page 7") && detail.contains("nothing was written"), "{detail}");
}
