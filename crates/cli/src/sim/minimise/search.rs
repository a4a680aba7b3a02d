//! Delta debugging: less and less of a world, as long as it still fails.
//!
//! Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002).

/// What there is in a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Faults, by their places in the plan.
    pub(super) faults: Vec<usize>,
    /// Clients that do something.
    pub(super) clients: Vec<String>,
    /// The most rounds of work that each does; `None`: as many as it likes.
    pub(super) rounds: Option<u64>,
}

/// The least with which `fails` still says so: not one fault, client or round can be left out of it alone. The whole world did
/// `most_rounds` of work.
///
/// Clients go first, and then rounds: each attempt after that takes less time.
pub(super) async fn least<E>(
    all: Kept,
    most_rounds: u64,
    mut fails: impl AsyncFnMut(&Kept) -> Result<bool, E>,
) -> Result<Kept, E> {
    let mut kept = all;
    loop {
        let before = kept.clone();
        let of = kept.clone();
        kept.clients = fewest(kept.clients, async |clients| {
            let less = Kept { clients: clients.to_vec(), ..of.clone() };
            fails(&less).await
        })
        .await?;
        let of = kept.clone();
        kept.rounds = fewest_rounds(kept.rounds, most_rounds, async |rounds| {
            let less = Kept { rounds: Some(rounds), ..of.clone() };
            fails(&less).await
        })
        .await?;
        let of = kept.clone();
        kept.faults = fewest(kept.faults, async |faults| {
            let less = Kept { faults: faults.to_vec(), ..of.clone() };
            fails(&less).await
        })
        .await?;
        if kept == before {
            return Ok(kept);
        }
    }
}

/// Leaves out halves first, then smaller pieces.
async fn fewest<T: Clone, E>(all: Vec<T>, mut fails: impl AsyncFnMut(&[T]) -> Result<bool, E>) -> Result<Vec<T>, E> {
    let (mut kept, mut piece) = (all, usize::MAX);
    loop {
        piece = piece.min(kept.len()).div_ceil(2).max(1);
        let (mut smaller, mut at) = (false, 0);
        while at < kept.len() {
            let end = (at + piece).min(kept.len());
            let less = [&kept[..at], &kept[end..]].concat();
            if fails(&less).await? {
                (kept, smaller) = (less, true);
            } else {
                at = end;
            }
        }
        if piece == 1 && !smaller {
            return Ok(kept);
        }
    }
}

/// Halves the number first, then takes smaller steps down.
async fn fewest_rounds<E>(
    known: Option<u64>,
    most: u64,
    mut fails: impl AsyncFnMut(u64) -> Result<bool, E>,
) -> Result<Option<u64>, E> {
    let mut rounds = match known {
        Some(rounds) => rounds,
        // To allow as many as were done leaves nothing out.
        None if fails(most).await? => most,
        None => return Ok(None),
    };
    let mut step = rounds.div_ceil(2);
    while step > 0 {
        while step <= rounds && fails(rounds - step).await? {
            rounds -= step;
        }
        step /= 2;
    }
    Ok(Some(rounds))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn world(faults: usize, clients: &[&str]) -> Kept {
        let clients = clients.iter().map(|name| (*name).to_owned()).collect();
        Kept { faults: (0..faults).collect(), clients, rounds: None }
    }

    async fn search(all: Kept, is_bad: impl Fn(&Kept) -> bool) -> (Kept, usize) {
        let mut attempts = 0;
        let found = least(all, 40, async |kept: &Kept| {
            attempts += 1;
            Ok::<_, Infallible>(is_bad(kept))
        });
        let Ok(kept) = found.await;
        (kept, attempts)
    }

    #[tokio::test]
    async fn what_does_not_matter_is_left_out() {
        let has = |kept: &Kept, name: &str| kept.clients.iter().any(|client| client == name);
        let is_bad = |kept: &Kept| {
            let enough = kept.rounds.is_none_or(|rounds| rounds >= 7);
            kept.faults.contains(&3) && kept.faults.contains(&28) && has(kept, "b") && has(kept, "d") && enough
        };
        let (kept, attempts) = search(world(30, &["a", "b", "c", "d"]), is_bad).await;
        assert_eq!(kept, Kept { faults: vec![3, 28], rounds: Some(7), ..world(0, &["b", "d"]) });
        assert!(attempts < 100, "{attempts}");
    }

    #[tokio::test]
    async fn no_more_rounds_are_tried_than_were_done() {
        let tried = std::cell::RefCell::new(Vec::new());
        let is_bad = |kept: &Kept| {
            tried.borrow_mut().extend(kept.rounds);
            kept.rounds.is_none_or(|rounds| rounds >= 33)
        };
        assert_eq!(search(world(0, &[]), is_bad).await.0.rounds, Some(33));
        assert_eq!(tried.borrow()[..3], [40, 20, 30]);
    }

    #[tokio::test]
    async fn what_fails_by_itself_needs_nothing() {
        let (kept, _) = search(world(30, &["a", "b"]), |_| true).await;
        assert_eq!(kept, Kept { rounds: Some(0), ..world(0, &[]) });
    }

    #[tokio::test]
    async fn what_fails_only_as_a_whole_is_left_whole() {
        let whole = world(9, &["a", "b", "c"]);
        let (kept, _) = search(whole.clone(), |kept| *kept == whole).await;
        assert_eq!(kept, whole);
    }

    #[tokio::test]
    async fn nothing_can_be_left_out_of_it_alone() {
        // Either of two faults is needed only where the other is there.
        let is_bad = |kept: &Kept| kept.faults.contains(&1) == kept.faults.contains(&2) && kept.faults.contains(&5);
        let (kept, _) = search(world(8, &[]), is_bad).await;
        assert_eq!(kept.faults, [5]);
    }
}
