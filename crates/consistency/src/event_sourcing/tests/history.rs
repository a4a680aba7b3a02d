//! Claims about the past.

use proptest::prelude::*;
use quorate_data::{
    event::{Position, Version},
    store::Retire,
};
use quorate_foundations::time::Wall;
use serde_json::json;

use super::bank::{Bank, Command, accounts, run, store};
use crate::event_sourcing::{Aggregate, Change, Metadata, Moment, TimeTravelError};

fn at(second: i64) -> Wall {
    Wall::from_unix_nanos(second * 1_000_000_000)
}

#[test]
fn a_state_is_shown_as_of_a_version_a_position_and_now() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        for cents in [1, 10, 100] {
            accounts.handle("a", Command::Deposit(cents), Metadata::default()).await.unwrap();
            accounts.handle("b", Command::Deposit(cents), Metadata::default()).await.unwrap();
        }
        let balance = async |moment| accounts.at("a", moment).await.unwrap().state.balance;
        let mut versions = vec![];
        for version in 0..=3 {
            versions.push(balance(Moment::Version(Version::new(version))).await);
        }
        assert_eq!(versions, [0, 1, 11, 111]);
        let mut positions = vec![];
        for position in 0..=6 {
            positions.push(balance(Moment::Position(Position::new(position))).await);
        }
        assert_eq!(positions, [0, 1, 1, 11, 11, 111, 111]);
        assert_eq!(balance(Moment::Now).await, 111);
    });
}

#[test]
fn a_moment_that_is_not_there_is_an_error_that_says_what_is() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        for _ in 0..3 {
            accounts.handle("a", Command::Deposit(1), Metadata::default()).await.unwrap();
        }
        let ahead = accounts.at("a", Moment::Version(Version::new(4))).await.unwrap_err();
        assert!(matches!(ahead, TimeTravelError::VersionAhead { head, .. } if head == Version::new(3)), "{ahead:?}");
        let ahead = accounts.at("a", Moment::Position(Position::new(4))).await.unwrap_err();
        assert!(matches!(ahead, TimeTravelError::PositionAhead { head, .. } if head == Position::new(3)), "{ahead:?}");

        let stream = Bank::stream("a").unwrap();
        store.retire(stream, Retire::Truncate { before: Version::new(3) }).await.unwrap();
        let gone = accounts.at("a", Moment::Version(Version::new(2))).await.unwrap_err();
        assert!(matches!(gone, TimeTravelError::Truncated { first, .. } if first == Version::new(3)), "{gone:?}");
        for before in [Moment::Position(Position::new(2)), Moment::Time(at(0)), Moment::RecordedTime(at(0))] {
            let gone = accounts.at("a", before).await.unwrap_err();
            assert!(matches!(gone, TimeTravelError::Truncated { asked, .. } if asked == before), "{gone:?}");
        }
        assert_eq!(accounts.at("a", Moment::Position(Position::new(3))).await.unwrap().state.balance, 1);
        assert_eq!(accounts.at("a", Moment::Now).await.unwrap().state.balance, 1);
    });
}

#[test]
fn what_had_happened_and_what_was_known_are_two_different_pasts() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        // Told in another order than it happened.
        for (second, cents) in [(30, 1), (10, 10), (20, 100)] {
            let metadata = Metadata::default().happened_at(at(second).into());
            accounts.handle("a", Command::Deposit(cents), metadata).await.unwrap();
        }
        let mut balances = vec![];
        for second in [5, 10, 25, 30] {
            balances.push(accounts.at("a", Moment::Time(at(second))).await.unwrap().state.balance);
        }
        assert_eq!(balances, [0, 10, 110, 111]);
        let known = accounts.at("a", Moment::RecordedTime(at(30))).await.unwrap();
        assert_eq!(known.state.balance, 0, "in the seventies nobody had heard of it");
        let now = Moment::RecordedTime(store.env().wall());
        assert_eq!(accounts.at("a", now).await.unwrap().state.balance, 111);
    });
}

#[test]
fn the_difference_between_two_moments_names_the_places() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let accounts = accounts(&store).await;
        accounts.handle("a", Command::Deposit(50), Metadata::default()).await.unwrap();
        accounts.handle("a", Command::Buy("tea/milk", 20), Metadata::default()).await.unwrap();
        let first = Moment::Version(Version::new(1));
        let changes = accounts.difference("a", first, Moment::Now).await.unwrap();
        let change = |pointer: &str, before, after| Change { pointer: pointer.into(), before, after };
        assert_eq!(
            changes,
            [change("/balance", Some(json!(50)), Some(json!(30))), change("/notes/tea~1milk", None, Some(json!(1))),]
        );
        assert!(accounts.difference("a", first, first).await.unwrap().is_empty());
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_state_at_a_time_is_the_fold_of_the_events_up_to_then_in_the_order_of_the_stream(
        told in prop::collection::vec((0_i64..20, 1_u64..100), 0..12),
        asked in 0_i64..20,
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let store = store(folder.path()).await;
            let accounts = accounts(&store).await;
            for (second, cents) in &told {
                let metadata = Metadata::default().happened_at(at(*second).into());
                accounts.handle("a", Command::Deposit(*cents), metadata).await.unwrap();
            }
            let expected: u64 = told.iter().filter(|(second, _)| *second <= asked).map(|(_, cents)| cents).sum();
            prop_assert_eq!(accounts.at("a", Moment::Time(at(asked))).await.unwrap().state.balance, expected);
            Ok(())
        })?;
    }
}
