//! Claims about decisions whose boundary is a query, on the classic example: students enrol in courses.

use std::{collections::BTreeSet, num::NonZeroU32};

use futures_util::future::join_all;
use proptest::prelude::*;
use quorate_data::{
    event::{NewEvent, Version},
    schema::{
        SchemaVersion,
        upcast::{Upcasters, Versioned},
    },
    store::{AppendBatch, ExpectedVersion, Query, QueryItem, ReadLog, Retire, Store},
};
use quorate_foundations::name::{Name, NameError};
use serde::{Deserialize, Serialize};

use super::bank::{run, store};
use crate::{
    event_sourcing::{
        Config, Decided, Decider, Decisions, DynamicBoundary, ForgottenEvents, HandleError, LoadError, Metadata,
    },
    event_types,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Opened { course: u8, seats: u32 },
    Enrolled { course: u8, student: u8 },
    Greeted { student: u8 },
}

event_types! {
    Event {
        Opened { course } = "course.opened" version 1 tags ["course:{course}"],
        Enrolled { course, student } = "course.enrolled" version 1 tags ["course:{course}", "student:{student}"],
        Greeted { student } = "student.greeted" version 1 tags ["student:{student}"],
    }
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Open { course: u8, seats: u32 },
    Enrol { course: u8, student: u8 },
}

/// What matters for one course and one student.
#[derive(Clone, Debug, Default, PartialEq)]
struct Enrolments {
    seats: Option<u32>,
    enrolled: BTreeSet<(u8, u8)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Refusal {
    NoSuchCourse,
    AlreadyOpen,
    AlreadyEnrolled,
    Full,
    TooManyCourses,
}

struct School;

const COURSES_PER_STUDENT: usize = 3;

impl Decider for School {
    type Command = Command;
    type Event = Event;
    type State = Enrolments;
    type Rejection = Refusal;

    fn decide(&self, state: &Enrolments, command: &Command) -> Result<Vec<Event>, Refusal> {
        match *command {
            Command::Open { .. } if state.seats.is_some() => Err(Refusal::AlreadyOpen),
            Command::Open { course, seats } => Ok(vec![Event::Opened { course, seats }]),
            Command::Enrol { course, student } => {
                let in_course = state.enrolled.iter().filter(|(c, _)| *c == course).count();
                let of_student = state.enrolled.iter().filter(|(_, s)| *s == student).count();
                let seats = state.seats.ok_or(Refusal::NoSuchCourse)? as usize;
                if state.enrolled.contains(&(course, student)) {
                    Err(Refusal::AlreadyEnrolled)
                } else if in_course >= seats {
                    Err(Refusal::Full)
                } else if of_student >= COURSES_PER_STUDENT {
                    Err(Refusal::TooManyCourses)
                } else {
                    Ok(vec![Event::Greeted { student }, Event::Enrolled { course, student }])
                }
            }
        }
    }

    fn evolve(mut state: Enrolments, event: &Event) -> Enrolments {
        match *event {
            Event::Opened { seats, .. } => state.seats = Some(seats),
            Event::Enrolled { course, student } => {
                state.enrolled.insert((course, student));
            }
            Event::Greeted { .. } => {}
        }
        state
    }
}

impl DynamicBoundary for School {
    fn boundary(&self, command: &Command) -> Query {
        match command {
            Command::Open { course, .. } => Query::of([QueryItem::tags([format!("course:{course}")])]),
            Command::Enrol { course, student } => Query::of([
                QueryItem::tags([format!("course:{course}")]),
                QueryItem::tags([format!("student:{student}")]),
            ]),
        }
    }

    fn stream(&self, event: &Event) -> Result<Name, NameError> {
        match event {
            Event::Opened { course, .. } | Event::Enrolled { course, .. } => Name::new(format!("course-{course}")),
            Event::Greeted { student } => Name::new(format!("student-{student}")),
        }
    }
}

fn school(store: &Store) -> Decisions<School> {
    let config = Config { attempts: NonZeroU32::new(1_000).unwrap(), ..Config::default() };
    Decisions::open(store, School, config, Upcasters::default()).unwrap()
}

async fn open_courses(school: &Decisions<School>, courses: std::ops::Range<u8>, seats: u32) {
    for course in courses {
        school.handle(Command::Open { course, seats }, Metadata::default()).await.unwrap();
    }
}

/// Everybody's enrolments, from the log.
async fn enrolled(store: &Store) -> Vec<(u8, u8)> {
    let query = Query::of([QueryItem::types(["course.enrolled"])]);
    let page = store.read_log(ReadLog { query, after: Default::default(), limit: 1_000 }).await.unwrap();
    let read = page.events.iter().map(|event| serde_json::from_slice(event.data().unwrap()).unwrap());
    let number = |event: &serde_json::Value, of: &str| u8::try_from(event[of].as_u64().unwrap()).unwrap();
    read.map(|event: serde_json::Value| (number(&event, "course"), number(&event, "student"))).collect()
}

#[test]
fn a_decision_over_two_entities_writes_to_the_streams_of_both() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let school = school(&store);
        open_courses(&school, 1..3, 1).await;
        let done = school.handle(Command::Enrol { course: 1, student: 7 }, Metadata::default()).await.unwrap();
        let versions: Vec<_> = done.versions.iter().map(|(stream, version)| (stream.as_str(), version.get())).collect();
        assert_eq!(versions, [("course-1", 2), ("student-7", 1)]);
        assert_eq!(done.token.append(), store.head().get());
        assert!(done.state.enrolled.contains(&(1, 7)));
        let full = school.handle(Command::Enrol { course: 1, student: 8 }, Metadata::default()).await.unwrap_err();
        assert!(matches!(full, HandleError::Rejected(Refusal::Full)));
    });
}

#[test]
fn overlapping_decisions_are_decided_anew_and_others_do_not_wait() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let (school, other) = (school(&store), school(&store));
        open_courses(&school, 0..10, 5).await;
        let enrol = |school: &Decisions<School>, course, student| {
            let school = school.clone();
            async move { school.handle(Command::Enrol { course, student }, Metadata::default()).await }
        };
        let apart: Vec<_> = join_all((0..10).map(|n| enrol(&school, n, n))).await;
        assert!(apart.iter().all(Result::is_ok));
        assert_eq!(school.statistics().conflicts, 0);

        let together = join_all((20..40).map(|student| enrol(&other, 3, student))).await;
        assert_eq!(together.iter().filter(|answer| answer.is_ok()).count(), 4);
        assert!(other.statistics().conflicts > 0);
    });
}

#[test]
fn a_repeated_decision_is_answered_as_the_first_time() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let school = school(&store);
        open_courses(&school, 1..2, 2).await;
        let enrol = || school.handle(Command::Enrol { course: 1, student: 7 }, Metadata::command("c"));
        let first: Decided<School> = enrol().await.unwrap();
        school.handle(Command::Enrol { course: 1, student: 8 }, Metadata::default()).await.unwrap();
        let head = store.head();
        let again = enrol().await.unwrap();
        assert!(!first.repeated && again.repeated);
        assert_eq!((again.events, again.versions, again.state), (first.events, first.versions, first.state));
        assert_eq!((again.token, store.head()), (first.token, head));

        let twins =
            join_all((0..6).map(|_| school.handle(Command::Open { course: 9, seats: 1 }, Metadata::command("twin"))));
        let twins: Vec<_> = twins.await.into_iter().map(Result::unwrap).collect();
        assert_eq!(twins.iter().filter(|twin| !twin.repeated).count(), 1);
        assert!(twins.iter().all(|twin| twin.events == [Event::Opened { course: 9, seats: 1 }]));
    });
}

#[test]
fn events_of_others_that_carry_the_same_tags_are_left_out_of_the_boundary() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let school = school(&store);
        open_courses(&school, 1..2, 2).await;
        let foreign = NewEvent::new("1", "/canteen", "lunch.eaten").tagged("student:7 course:1".parse().unwrap());
        let stream = "lunch-7".parse().unwrap();
        store.append(AppendBatch::to(stream, ExpectedVersion::Any, vec![foreign])).await.unwrap();
        let done = school.handle(Command::Enrol { course: 1, student: 7 }, Metadata::default()).await.unwrap();
        assert_eq!(done.versions[0].1, Version::new(2));
    });
}

#[test]
fn a_boundary_that_cannot_be_asked_for_is_an_error() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        struct Blank;
        impl Decider for Blank {
            type Command = ();
            type Event = Event;
            type State = ();
            type Rejection = ();
            fn decide(&self, (): &(), (): &()) -> Result<Vec<Event>, ()> {
                Ok(vec![])
            }
            fn evolve((): (), _: &Event) {}
        }
        impl DynamicBoundary for Blank {
            fn boundary(&self, (): &()) -> Query {
                Query::of([QueryItem::tags(["two words"])])
            }
            fn stream(&self, _: &Event) -> Result<Name, NameError> {
                Name::new("x")
            }
        }
        let blank = Decisions::open(&store, Blank, Config::default(), Upcasters::default()).unwrap();
        assert!(matches!(blank.handle((), Metadata::default()).await, Err(HandleError::Boundary(_))));
    });
}

/// The school, looking at nothing but whether a course was opened.
struct Doorkeeper;

impl Decider for Doorkeeper {
    type Command = u8;
    type Event = Event;
    type State = bool;
    type Rejection = ();

    fn decide(&self, open: &bool, course: &u8) -> Result<Vec<Event>, ()> {
        if *open { Err(()) } else { Ok(vec![Event::Opened { course: *course, seats: 1 }]) }
    }

    fn evolve(open: bool, event: &Event) -> bool {
        open || matches!(event, Event::Opened { .. })
    }
}

impl DynamicBoundary for Doorkeeper {
    fn boundary(&self, course: &u8) -> Query {
        Query::of([QueryItem::types(["course.opened"]).tagged([format!("course:{course}")])])
    }

    fn stream(&self, _: &Event) -> Result<Name, NameError> {
        Name::new("doors")
    }
}

#[test]
fn a_boundary_that_names_types_holds_the_events_that_upcasters_turn_into_them() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let chain = Upcasters::builder()
            .latest("course.opened", 1)
            .split(("course.founded", 1), &[("course.begun", 1)], |data| {
                Ok(vec![Versioned { event_type: "course.begun".parse()?, version: SchemaVersion::FIRST, data }])
            })
            .split(("course.begun", 1), &[("course.opened", 1)], |data| {
                Ok(vec![Versioned { event_type: "course.opened".parse()?, version: SchemaVersion::FIRST, data }])
            });
        let chain = chain.build().unwrap();
        let doors = Decisions::open(&store, Doorkeeper, Config::default(), chain).unwrap();
        for (kind, course) in [("course.founded", 1), ("course.begun", 2)] {
            let data = format!(r#"{{"course":{course},"seats":1}}"#);
            let old = NewEvent::new(kind, "/old", kind).json(data.into_bytes());
            let old = old.tagged(format!("course:{course}").parse().unwrap());
            store.append(AppendBatch::to("doors".parse().unwrap(), ExpectedVersion::Any, vec![old])).await.unwrap();
            let twice = doors.handle(course, Metadata::default()).await;
            assert!(matches!(twice, Err(HandleError::Rejected(()))), "{kind}");
        }
        assert!(doors.handle(3, Metadata::default()).await.is_ok());
    });
}

#[test]
fn a_boundary_of_which_something_was_truncated_decides_nothing_unless_told_to() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let doors = |forgotten_events| {
            let config = Config { forgotten_events, ..Config::default() };
            Decisions::open(&store, Doorkeeper, config, Upcasters::default()).unwrap()
        };
        let (strict, lenient) = (doors(ForgottenEvents::Refuse), doors(ForgottenEvents::Skip));
        strict.handle(1, Metadata::default()).await.unwrap();
        strict.handle(2, Metadata::default()).await.unwrap();
        let what = Retire::Truncate { before: Version::new(2) };
        store.retire("doors".parse().unwrap(), what).await.unwrap();
        let refused = strict.handle(1, Metadata::default()).await.unwrap_err();
        let HandleError::Load(LoadError::Forgotten { stream, version, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((stream.as_str(), version), ("doors", Version::new(1)));
        assert!(strict.handle(3, Metadata::default()).await.is_ok(), "another boundary");
        assert!(lenient.handle(1, Metadata::default()).await.is_ok(), "the name is free again");
        assert_eq!(lenient.statistics().forgotten_events, 1);
    });
}

#[test]
fn another_decision_under_the_same_command_id_is_refused_where_there_is_a_digest() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let school = school(&store);
        let open = |seats| {
            let metadata = Metadata::command("c").asking(&("open", 1, seats)).unwrap();
            school.handle(Command::Open { course: 1, seats }, metadata)
        };
        open(1).await.unwrap();
        assert!(open(1).await.unwrap().repeated);
        let refused = open(2).await.unwrap_err();
        assert!(
            matches!(refused, HandleError::CommandIdReused { ref stream, .. } if stream.as_str() == "course-1"),
            "{refused:?}"
        );
        assert_eq!(store.head().get(), 1);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn no_rule_across_courses_and_students_is_ever_broken(
        wishes in prop::collection::vec((0_u8..5, 0_u8..4), 1..30),
        seats in 1_u32..4,
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let store = store(folder.path()).await;
            let school = school(&store);
            open_courses(&school, 0..5, seats).await;
            let answers = join_all(wishes.iter().map(|&(course, student)| {
                school.handle(Command::Enrol { course, student }, Metadata::default())
            })).await;
            let enrolled = enrolled(&store).await;
            prop_assert_eq!(enrolled.len(), answers.iter().filter(|answer| answer.is_ok()).count());
            prop_assert_eq!(enrolled.iter().collect::<BTreeSet<_>>().len(), enrolled.len());
            for n in 0..5 {
                prop_assert!(enrolled.iter().filter(|(course, _)| *course == n).count() <= seats as usize);
                prop_assert!(enrolled.iter().filter(|(_, student)| *student == n).count() <= COURSES_PER_STUDENT);
            }
            Ok(())
        })?;
    }
}
