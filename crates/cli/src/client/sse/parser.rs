//! Server-sent events from bytes, however they are cut.

use bytes::{Buf, BytesMut};

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its kind; empty for plain messages.
    pub(crate) event: String,
    /// Its data.
    pub(crate) data: String,
}

/// The longest message, in bytes: an event's data comes in one line.
const MAX_MESSAGE: usize = 64 << 20;

/// Turns bytes into messages.
#[derive(Default)]
pub(crate) struct Parser {
    buffer: BytesMut,
    searched: usize,
    /// The id of the last whole message; comments may carry one, too.
    last_id: Option<String>,
    id: Option<String>,
    event: String,
    data: String,
}

impl Parser {
    /// One that goes on behind the message with the id `last_id`.
    pub(crate) fn behind(last_id: Option<String>) -> Self {
        Self { last_id, ..Self::default() }
    }

    /// The id of the last whole message.
    pub(crate) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Takes bytes; `false` when a message is longer than any the node writes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() + self.data.len() <= MAX_MESSAGE
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Option<Told> {
        while let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            let line = String::from_utf8_lossy(&line);
            if let Some(told) = self.line(line.trim_end_matches('\r')) {
                return Some(told);
            }
        }
        self.searched = self.buffer.len();
        None
    }

    fn line(&mut self, line: &str) -> Option<Told> {
        if line.is_empty() {
            self.last_id = self.id.take().or_else(|| self.last_id.take());
            let told = Told { event: std::mem::take(&mut self.event), data: std::mem::take(&mut self.data) };
            return (told != Told::default()).then_some(told);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event),
            "data" if self.data.is_empty() => value.clone_into(&mut self.data),
            "data" => {
                self.data.push('\n');
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Parser, Told};

    fn told(event: &str, data: &str) -> Told {
        Told { event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn messages_are_the_same_however_the_bytes_are_cut() {
        let text = ": hello\r\n\nid: 4\nevent: event\ndata: {\"a\":1}\n\nid: 5\ndata: x\ndata:y\n\nevent: caught-up\ndata: {}\n\n";
        let expected = [told("event", "{\"a\":1}"), told("", "x\ny"), told("caught-up", "{}")];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut seen = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                assert!(parser.feed(chunk));
                seen.extend(std::iter::from_fn(|| parser.next()));
            }
            assert_eq!(seen, expected, "cut every {size} bytes");
            assert_eq!(parser.last_id.as_deref(), Some("5"));
        }
    }

    #[test]
    fn a_message_that_was_cut_off_is_not_told() {
        let mut parser = Parser::default();
        parser.feed(b": heartbeat\nid: 8\n\nid: 9\ndata: half");
        assert_eq!((parser.next(), parser.last_id.as_deref()), (None, Some("8")));
    }
}
