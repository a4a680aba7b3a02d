//! Where a charge has its effect: a till outside of the node, which takes whatever it is given. Were one handed in twice, it would show.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::Method;
use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::charge::{Charge, Course};
use crate::{
    demo::web::{self, Answer, Asked},
    exit::Failure,
};

/// A charge, as a responder hands it in.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HandedIn {
    pub(super) responder: usize,
    pub(super) charge: Charge,
}

/// What a responder says of a charge: that it was told to stop, or what the node said to its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) id: String,
    pub(super) what: String,
}

/// A responder was told that nobody waits any more.
pub(super) const STOPPED: &str = "stopped";

/// A charge that was made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) at: Mono,
    pub(super) responder: usize,
    pub(super) charge: Charge,
}

/// What responders did.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    /// In the order in which they were made.
    pub(super) made: Vec<Made>,
    /// By the charge's id.
    pub(super) notes: BTreeMap<String, Vec<(Mono, String)>>,
}

impl Books {
    /// How often a charge was made.
    pub(super) fn times(&self, id: &str) -> usize {
        self.made.iter().filter(|made| made.charge.id == id).count()
    }

    /// When it was made first, and by whom.
    pub(super) fn find(&self, id: &str) -> Option<&Made> {
        self.made.iter().find(|made| made.charge.id == id)
    }

    /// When a responder noted this of a charge.
    pub(super) fn noted(&self, id: &str, what: &str) -> Option<Mono> {
        self.notes.get(id)?.iter().find(|(_, noted)| noted == what).map(|(at, _)| *at)
    }

    /// How many of that course were made.
    pub(super) fn of(&self, course: Course) -> usize {
        self.made.iter().filter(|made| made.charge.course == course).count()
    }
}

/// The till.
pub(super) struct Till {
    env: Env,
    /// Nobody is left who would hear of the charge that is struck.
    struck: CancellationToken,
    /// Those that are held are answered from here on.
    held: CancellationToken,
    books: Mutex<Books>,
}

impl Till {
    pub(super) fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            struck: CancellationToken::new(),
            held: CancellationToken::new(),
            books: Mutex::default(),
        }
    }

    /// Begins to take charges; says where.
    pub(super) async fn serve(self: Arc<Self>, env: &Env) -> Result<String, Failure> {
        let handler: web::Handler = Arc::new(move |asked| {
            let till = self.clone();
            Box::pin(async move { till.answer(&asked).await })
        });
        Ok(format!("http://{}", web::serve(env, handler).await?))
    }

    /// What was done so far.
    pub(super) fn books(&self) -> Books {
        self.lock().clone()
    }

    /// Lets the charge go whose responder is gone.
    pub(super) fn let_go(&self) {
        self.struck.cancel();
    }

    /// Answers those that were held.
    pub(super) fn release(&self) {
        self.held.cancel();
    }

    async fn answer(&self, asked: &Asked) -> Answer {
        match (&asked.method, &*asked.path) {
            (&Method::POST, "/charges") => match serde_json::from_slice(&asked.body) {
                Ok(handed_in) => self.take(handed_in).await,
                Err(_) => Answer::refused("this is no charge"),
            },
            (&Method::POST, "/notes") => match serde_json::from_slice::<Note>(&asked.body) {
                Ok(Note { id, what }) => {
                    self.lock().notes.entry(id).or_default().push((self.env.mono(), what));
                    Answer::done(json!({}))
                }
                Err(_) => Answer::refused("this is no note"),
            },
            _ => Answer::not_found(),
        }
    }

    async fn take(&self, HandedIn { responder, charge }: HandedIn) -> Answer {
        let course = charge.course;
        self.lock().made.push(Made { at: self.env.mono(), responder, charge });
        match course {
            Course::Struck => self.struck.cancelled().await,
            Course::Held => self.held.cancelled().await,
            Course::Plain | Course::Slow => {}
        }
        Answer::done(json!({}))
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
