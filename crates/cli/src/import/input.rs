//! The input of an import: a file or standard input, plain or gzip, line by line.

use std::{
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;
use quorate_runtime::disk::Disk;

/// The longest line in bytes. An event's data is a mebibyte at most by default; escapes may make six of each byte.
pub(crate) const MAX_LINE: usize = 16 << 20;

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// The first bytes of every gzip file (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Lines of an input that may be compressed.
pub(crate) struct Input {
    reader: Box<dyn BufRead + Send>,
    number: u64,
}

/// How far an input has been read, and how far it goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach {
    /// Bytes read so far, before decompression.
    pub(crate) read: Arc<AtomicU64>,
    /// Bytes there are; `None` where nobody knows.
    pub(crate) size: Option<u64>,
}

/// One line as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read1 {
    /// A line, and which it is, counted from 1.
    Line(u64, Vec<u8>),
    /// A line that is longer than any event may be; it was passed over.
    TooLong(u64),
    /// There are no more.
    End,
}

impl Input {
    /// The file at `path`; `-` is standard input.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> io::Result<(Self, Reach)> {
        if path == Path::new("-") {
            let reach = Reach::default();
            return Ok((Self::of(Box::new(io::stdin()), &reach)?, reach));
        }
        let reach = Reach { size: Some(disk.size(path)?), ..Reach::default() };
        Ok((Self::of(disk.open(path)?, &reach)?, reach))
    }

    fn of(from: Box<dyn Read + Send>, reach: &Reach) -> io::Result<Self> {
        let counted = Counted { from, read: reach.read.clone() };
        let mut raw = BufReader::with_capacity(BUFFER, Peeked::new(counted)?);
        let reader: Box<dyn BufRead + Send> = if raw.get_ref().first == GZIP {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw)))
        } else {
            raw.fill_buf()?;
            Box::new(raw)
        };
        Ok(Self { reader, number: 0 })
    }

    /// The next line, without its end; a byte order mark before the first is passed over.
    pub(crate) fn next(&mut self) -> io::Result<Read1> {
        let mut line = Vec::with_capacity(512);
        let limit = MAX_LINE as u64 + 1;
        let count = self.reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(Read1::End);
        }
        self.number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if count as u64 == limit {
            self.reader.skip_until(b'\n')?;
            return Ok(Read1::TooLong(self.number));
        }
        if self.number == 1 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        Ok(Read1::Line(self.number, line))
    }

    /// The number of the line read last.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

/// Counts what passes.
struct Counted {
    from: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A reader whose first two bytes are known: a pipe may hand them over one by one.
struct Peeked<R> {
    first: Vec<u8>,
    given: usize,
    rest: R,
}

impl<R: Read> Peeked<R> {
    fn new(mut rest: R) -> io::Result<Self> {
        let mut first = Vec::with_capacity(GZIP.len());
        rest.by_ref().take(GZIP.len() as u64).read_to_end(&mut first)?;
        Ok(Self { first, given: 0, rest })
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given < self.first.len() {
            let count = (&self.first[self.given..]).read(buffer)?;
            self.given += count;
            return Ok(count);
        }
        self.rest.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write as _};

    use flate2::{Compression, write::GzEncoder};

    use super::{Input, MAX_LINE, Reach, Read1};

    /// Hands over one byte at a time, as a slow pipe does.
    struct Trickle(io::Cursor<Vec<u8>>);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let one = buffer.len().min(1);
            self.0.read(&mut buffer[..one])
        }
    }

    fn lines(bytes: &[u8]) -> io::Result<Vec<Read1>> {
        let mut input = Input::of(Box::new(Trickle(io::Cursor::new(bytes.to_vec()))), &Reach::default())?;
        let mut lines = Vec::new();
        loop {
            match input.next()? {
                Read1::End => return Ok(lines),
                line => lines.push(line),
            }
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_compressed_input_have_the_same_lines() {
        let text = "\u{feff}one\ntwo\r\n\nlast";
        let expected = [(1, "one"), (2, "two\r"), (3, ""), (4, "last")];
        let expected: Vec<Read1> = expected.map(|(n, text)| Read1::Line(n, text.into())).into();
        assert_eq!(lines(text.as_bytes()).unwrap(), expected);
        assert_eq!(lines(&gzip(text.as_bytes())).unwrap(), expected);
        let members = [gzip(&text.as_bytes()[..6]), gzip(&text.as_bytes()[6..])].concat();
        assert_eq!(lines(&members).unwrap(), expected, "gzip members one after the other");
    }

    #[test]
    fn compressed_input_that_was_cut_off_is_an_error_behind_its_lines() {
        let whole = gzip("line\n".repeat(1_000).as_bytes());
        assert!(lines(&whole[..whole.len() - 9]).is_err());
        assert_eq!(lines(b"").unwrap(), []);
        assert_eq!(lines(b"\x1f").unwrap(), [Read1::Line(1, vec![0x1f])]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory_without_end() {
        let mut text = vec![b'x'; MAX_LINE + 10];
        text.extend_from_slice(b"\nshort\n");
        let mut input = Input::of(Box::new(io::Cursor::new(text)), &Reach::default()).unwrap();
        assert_eq!(input.next().unwrap(), Read1::TooLong(1));
        assert_eq!(input.next().unwrap(), Read1::Line(2, b"short".to_vec()));
    }
}
