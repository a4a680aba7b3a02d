//! Documents that declare something, in TOML, YAML or JSON: as bodies bring them, and as they are sent back.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use quorate_foundations::document::Format;

use super::{
    Node,
    body_in::Received,
    cloud_events::essence,
    problem::{Code, Problem},
    reply, request,
};

/// The media type of TOML.
pub(crate) const TOML: &str = "application/toml";

/// The media type of YAML (RFC 9512).
pub(crate) const YAML: &str = "application/yaml";

const FORMS: [(&str, Format); 3] = [(TOML, Format::Toml), (reply::JSON, Format::Json), (YAML, Format::Yaml)];

/// A document as a body brought it.
pub(super) struct Declaration {
    pub(super) format: Format,
    text: String,
    received: Received,
}

impl Declaration {
    /// Receives the document in `body`, of at most `max` bytes. `unreadable`: what it is if it is no text.
    pub(super) async fn receive(
        node: &Node,
        head: &Parts,
        body: Body,
        max: usize,
        unreadable: Code,
    ) -> Result<Self, Problem> {
        let format = format(&head.headers)?;
        let received = node.receive(head, body).await?;
        let bytes = received.bytes.len();
        if bytes > max {
            let detail = format!("a document has at most {max} bytes, this one has {bytes}");
            return Err(Problem::new(Code::TooLarge, detail).with("limit", max));
        }
        let text = std::str::from_utf8(&received.bytes).map_err(|wrong| {
            Problem::new(unreadable, format!("the document is not UTF-8 at byte {}", wrong.valid_up_to()))
        })?;
        Ok(Self { format, text: text.to_owned(), received })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The body as it was received.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.received.bytes
    }
}

/// A document as it was declared.
pub(super) fn sent_back(format: Format, text: String) -> Response<Bytes> {
    let media = FORMS.iter().find(|(_, of)| *of == format).map_or(reply::JSON, |(media, _)| media);
    reply::bytes(StatusCode::OK, media, text.into())
}

fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    let given = request::header(headers, &CONTENT_TYPE)?.unwrap_or_default();
    let found = FORMS.into_iter().find(|(media, _)| essence(given).eq_ignore_ascii_case(media));
    found.map(|(_, format)| format).ok_or_else(|| {
        let (given, json) = (request::short(given), reply::JSON);
        let detail = format!("`content-type: {given}` is none of {TOML}, {YAML} and {json}");
        Problem::new(Code::UnsupportedMediaType, detail)
    })
}
