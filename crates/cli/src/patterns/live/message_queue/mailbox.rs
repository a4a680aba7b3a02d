//! Where the work has its effect: a box of mails outside of the node, which knows by its key what it took already.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    demo::web::{self, Answer, Asked},
    exit::Failure,
};

/// How long it takes to take a mail.
const WORK: Duration = Duration::from_millis(30);

/// A mail, as workers hand it in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Mail {
    pub(super) id: String,
    pub(super) worker: usize,
    pub(super) data: Data,
}

/// What it says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Data {
    customer: u32,
    nth: u32,
    to: String,
}

/// A mail that was taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) at: Mono,
    customer: u32,
    nth: u32,
}

/// What came.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    keys: BTreeSet<String>,
    /// Mails in the box, in the order in which they came.
    pub(super) mails: Vec<Taken>,
    /// Mails that were in it already.
    pub(super) repeats: Vec<(Mono, String)>,
    /// Mails without an address.
    pub(super) refused: Vec<Mono>,
    /// Whose worker has handed in the mail that is not answered.
    pub(super) struck: Option<usize>,
}

impl Seen {
    /// Whether this customer's mails are there, `count` of them in order.
    pub(super) fn is_in_order(&self, customer: u32, count: u32) -> bool {
        self.mails.iter().filter(|mail| mail.customer == customer).map(|mail| mail.nth).eq(0..count)
    }
}

/// The box.
pub(super) struct Mailbox {
    env: Env,
    strike: &'static str,
    released: CancellationToken,
    seen: Mutex<Seen>,
}

impl Mailbox {
    /// One that takes the mail `strike` and does not answer until [`Mailbox::let_go`].
    pub(super) fn new(env: &Env, strike: &'static str) -> Self {
        Self { env: env.clone(), strike, released: CancellationToken::new(), seen: Mutex::default() }
    }

    /// Begins to take mails; says where.
    pub(super) async fn serve(self: Arc<Self>, env: &Env) -> Result<String, Failure> {
        let handler: web::Handler = Arc::new(move |asked| {
            let mailbox = self.clone();
            Box::pin(async move { mailbox.answer(&asked).await })
        });
        Ok(format!("http://{}", web::serve(env, handler).await?))
    }

    /// What came so far.
    pub(super) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Nobody waits for that answer any more.
    pub(super) fn let_go(&self) {
        self.released.cancel();
    }

    async fn answer(&self, asked: &Asked) -> Answer {
        let Ok(mail) = serde_json::from_slice::<Mail>(&asked.body) else { return Answer::refused("this is no mail") };
        if asked.method != Method::POST {
            return Answer::not_found();
        }
        self.env.sleep(WORK).await;
        let struck = match self.take(mail) {
            Ok(struck) => struck,
            Err(refused) => return refused,
        };
        if struck {
            self.released.cancelled().await;
        }
        Answer::done(json!({}))
    }

    /// Takes a mail; says whether its worker shall not hear of that.
    fn take(&self, mail: Mail) -> Result<bool, Answer> {
        let (mut seen, at) = (self.lock(), self.env.mono());
        if mail.data.to.is_empty() {
            seen.refused.push(at);
            return Err(Answer::refused("it has no address"));
        }
        if !seen.keys.insert(mail.id.clone()) {
            seen.repeats.push((at, mail.id));
            return Ok(false);
        }
        seen.mails.push(Taken { at, customer: mail.data.customer, nth: mail.data.nth });
        let struck = mail.id == self.strike;
        if struck {
            seen.struck = Some(mail.worker);
        }
        Ok(struck)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
