//! Redis Streams: a stream with one consumer group, spoken to in RESP 2.

use quorate_runtime::BoxFuture;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::{super::BATCH, Broker, LULL, Lane};

const GROUP: &str = "workers";
/// What an answer may be deep: lists of lists of lists of fields.
const DEPTH: usize = 8;
/// What one text of an answer may be long, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// A server.
pub(super) struct Redis {
    address: String,
}

struct Client {
    stream: BufReader<TcpStream>,
    queue: String,
    held: Vec<Vec<u8>>,
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Text(Vec<u8>),
    Nothing,
    Many(Vec<Answer>),
}

impl Redis {
    pub(super) async fn connect(url: &str) -> Result<Self, String> {
        let address = url.strip_prefix("redis://").unwrap_or(url).trim_end_matches('/').to_owned();
        let redis = Self { address };
        redis.client("").await?.call(&[b"PING"]).await?;
        Ok(redis)
    }

    async fn client(&self, queue: &str) -> Result<Client, String> {
        let stream = TcpStream::connect(&self.address).await.map_err(|cause| cause.to_string())?;
        stream.set_nodelay(true).map_err(|cause| cause.to_string())?;
        Ok(Client { stream: BufReader::new(stream), queue: queue.to_owned(), held: Vec::new() })
    }
}

impl Broker for Redis {
    fn begin<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let group: [&[u8]; 6] = [b"XGROUP", b"CREATE", queue.as_bytes(), GROUP.as_bytes(), b"0", b"MKSTREAM"];
            self.client(queue).await?.call(&group).await.map(|_| ())
        })
    }

    fn lane<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Box<dyn Lane>, String>> {
        Box::pin(async move { Ok(Box::new(self.client(queue).await?) as Box<dyn Lane>) })
    }

    fn end<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.client(queue).await?.call(&[b"DEL", queue.as_bytes()]).await.map(|_| ()) })
    }
}

impl Client {
    async fn call(&mut self, words: &[&[u8]]) -> Result<Answer, String> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).await.map_err(|cause| cause.to_string())?;
        answer(&mut self.stream, DEPTH).await
    }
}

/// Reads one answer, of at most `depth` lists within each other.
fn answer<R>(from: &mut R, depth: usize) -> BoxFuture<'_, Result<Answer, String>>
where
    R: tokio::io::AsyncBufRead + Unpin + Send,
{
    Box::pin(async move {
        let mut line = String::new();
        from.read_line(&mut line).await.map_err(|cause| cause.to_string())?;
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or("the server closed the connection")?;
        let length = || rest.parse::<i64>().map_err(|_| format!("no length: {line}"));
        match kind {
            "+" | ":" => Ok(Answer::Text(rest.as_bytes().to_vec())),
            "-" => Err(rest.to_owned()),
            "$" => {
                let Ok(length) = usize::try_from(length()?) else { return Ok(Answer::Nothing) };
                if length > MAX_TEXT {
                    return Err(format!("a text of {length} bytes, of at most {MAX_TEXT}"));
                }
                let mut text = vec![0; length + 2];
                from.read_exact(&mut text).await.map_err(|cause| cause.to_string())?;
                text.truncate(length);
                Ok(Answer::Text(text))
            }
            "*" if depth > 0 => {
                let Ok(length) = usize::try_from(length()?) else { return Ok(Answer::Nothing) };
                let mut many = Vec::new();
                for _ in 0..length {
                    many.push(answer(from, depth - 1).await?);
                }
                Ok(Answer::Many(many))
            }
            _ => Err(format!("what is that? {line}")),
        }
    })
}

impl Answer {
    fn items(&self) -> &[Self] {
        if let Self::Many(items) = self { items } else { &[] }
    }

    fn text(&self) -> &[u8] {
        if let Self::Text(text) = self { text } else { &[] }
    }
}

impl Lane for Client {
    fn send<'a>(&'a mut self, body: &'a [u8]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let queue = self.queue.clone();
            self.call(&[b"XADD", queue.as_bytes(), b"*", b"body", body]).await.map(|_| ())
        })
    }

    fn receive(&mut self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, String>> {
        Box::pin(async move {
            let (queue, many, lull) = (self.queue.clone(), BATCH.to_string(), LULL.as_millis().to_string());
            let asked: [&[u8]; 11] = [
                b"XREADGROUP",
                b"GROUP",
                GROUP.as_bytes(),
                b"one",
                b"COUNT",
                many.as_bytes(),
                b"BLOCK",
                lull.as_bytes(),
                b"STREAMS",
                queue.as_bytes(),
                b">",
            ];
            let got = self.call(&asked).await?;
            // One stream: its name, and entries of an id and fields with their values.
            let entries = got.items().first().and_then(|stream| stream.items().get(1)).map_or(&[][..], Answer::items);
            self.held = entries.iter().filter_map(|entry| entry.items().first()).map(|id| id.text().to_vec()).collect();
            let body = |entry: &Answer| entry.items().get(1)?.items().get(1).map(|body| body.text().to_vec());
            Ok(entries.iter().filter_map(body).collect())
        })
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let (queue, held) = (self.queue.clone(), std::mem::take(&mut self.held));
            let mut words: Vec<&[u8]> = vec![b"XACK", queue.as_bytes(), GROUP.as_bytes()];
            words.extend(held.iter().map(Vec::as_slice));
            self.call(&words).await.map(|_| ())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, answer};

    #[tokio::test]
    async fn answers_are_read_to_their_end_and_errors_are_errors() {
        let text = |text: &str| Answer::Text(text.as_bytes().to_vec());
        let mut bytes = &b"*2\r\n$3\r\na\r\n\r\n*2\r\n:7\r\n$-1\r\n+OK\r\n"[..];
        let read = answer(&mut bytes, 4).await.unwrap();
        assert_eq!(read, Answer::Many(vec![text("a\r\n"), Answer::Many(vec![text("7"), Answer::Nothing])]));
        assert_eq!(answer(&mut bytes, 4).await.unwrap(), text("OK"));
        assert_eq!(answer(&mut &b"-ERR no\r\n"[..], 4).await.unwrap_err(), "ERR no");
        assert!(answer(&mut &b"*1\r\n*1\r\n*1\r\n+a\r\n"[..], 2).await.is_err(), "too deep");
        assert!(answer(&mut &b""[..], 2).await.is_err(), "closed");
        assert!(answer(&mut &b"$9223372036854775807\r\n"[..], 2).await.is_err(), "too long");
    }
}
