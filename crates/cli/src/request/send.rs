//! Asking.

use std::time::Duration;

use clap::Args;
use http::{HeaderName, header::CONTENT_TYPE};
use quorate_resilience::{deadline::Deadline, http::TIMEOUT};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    input,
    output::Out,
    webhook::secret,
};

/// How long behind its deadline the node may take to say what became of it.
const GRACE: Duration = Duration::from_secs(5);

/// What the outcome of a durable request is signed with.
const CALLBACK_SECRET: HeaderName = HeaderName::from_static("quorate-callback-secret");

/// One request.
#[derive(Args, Debug)]
pub(crate) struct Send {
    /// The type
    name: String,
    /// What is asked: a text, `@FILE`, or `-` for standard input
    #[arg(value_name = "TEXT|@FILE|-", default_value = "")]
    body: String,
    /// The body's media type
    #[arg(long, value_name = "TYPE", default_value = JSON)]
    content_type: String,
    /// What a durable request is known by: asked again under it, it is the same one, and is sent again by itself; otherwise the node draws one
    #[arg(long)]
    id: Option<String>,
    /// Who is told the outcome of a durable request, as https://shop.example/told
    #[arg(long, value_name = "URL", requires = "callback_secret_file")]
    callback: Option<String>,
    /// The file that holds what that is signed with (`whsec_` and base64), `-` for standard input
    #[arg(long, value_name = "FILE", requires = "callback")]
    callback_secret_file: Option<String>,
}

impl Send {
    /// Asks, and prints the answer as it was sent.
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let from = if self.body == "-" { Some("-") } else { self.body.strip_prefix('@') };
        let body = match from {
            Some(path) => input::read(path, client.env()).await?,
            None => self.body.as_bytes().to_vec(),
        };
        let target = Target::path(&["v1", "requests", &self.name]).with_some("id", self.id.as_ref());
        let mut call = Call::post(target.with_some("callback", self.callback.as_ref()), JSON, body);
        call = call.header(CONTENT_TYPE, &self.content_type)?;
        if let Some(secret) = secret(client, self.callback_secret_file.as_deref()).await? {
            call = call.header(CALLBACK_SECRET, &secret)?;
        }
        let now = client.env().mono();
        if let Some(left) = Deadline::after(now, client.deadline()).to_wire(now) {
            call = call.header(TIMEOUT, &left)?;
        }
        let answer = if self.id.is_some() {
            client.call(&call.known_again()).await?
        } else {
            // The node itself waits until the deadline, and behind it there is no time for another attempt.
            client.clone().once().waiting(GRACE).call(&call).await?
        };
        let mut out = Out::new();
        out.write(&answer.body)?;
        out.flush()
    }
}
