//! Decoders as plain functions of bytes, for the fuzzer in `fuzz/`, which takes this file in, and the test that replays its
//! corpus.
//!
//! Each says whether it took the bytes for what they claim to be, and panics where that would break a promise.

use crate::{
    client::sse::parser::Parser,
    import::line::{Line, StreamFrom},
};

/// A line of an import.
pub(crate) fn import_line(bytes: &[u8]) -> bool {
    let from = StreamFrom("subject".to_owned());
    match Line::parse(7, bytes, &from) {
        Ok(line) => {
            assert_eq!(line.number, 7, "a line knows which it is");
            assert!((1..=512).contains(&line.stream.len()), "a stream's name keeps its limits");
            let again = Line::parse(7, line.event.as_bytes(), &from).map(|again| (again.stream, again.event));
            assert_eq!(again.as_ref(), Ok(&(line.stream, line.event)), "what is sent is what was read");
            true
        }
        Err(bad) => {
            assert!(bad.number == 7 && !bad.why.is_empty(), "a bad line says which it is, and why");
            assert!(bad.column.is_none_or(|column| (1..=bytes.len() + 1).contains(&column)), "a column is in the line");
            false
        }
    }
}

/// Server-sent events. They are the same however they are cut, and the last id is that of a whole message.
pub(crate) fn sse(bytes: &[u8]) -> bool {
    let told = |size: usize| {
        let (mut parser, mut told) = (Parser::default(), Vec::new());
        for piece in bytes.chunks(size.max(1)) {
            assert!(parser.feed(piece), "a short message is not too long");
            told.extend(std::iter::from_fn(|| parser.next()));
        }
        (told, parser.last_id().map(ToOwned::to_owned))
    };
    let whole = told(bytes.len());
    for size in [1, 2, 7] {
        assert_eq!(told(size), whole, "cut every {size} bytes");
    }
    !whole.0.is_empty()
}

#[cfg(test)]
mod tests {
    use quorate_node::fuzzing::{Target, exercise};

    const TARGETS: [(&str, Target); 2] = [("import_line", super::import_line), ("sse", super::sse)];

    #[test]
    fn every_decoder_takes_and_refuses_what_its_corpus_says() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, target) in TARGETS {
            let seed = |entry: std::io::Result<std::fs::DirEntry>| {
                let path = entry.unwrap().path();
                #[expect(clippy::disallowed_methods, reason = "the corpus is read where it lies in the tree")]
                let bytes = std::fs::read(&path).unwrap();
                (path.file_name().unwrap().to_string_lossy().into_owned(), bytes)
            };
            let folder = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|cause| panic!("{name}: {cause}"));
            let wrong = exercise(target, folder.map(seed).collect());
            assert!(wrong.is_empty(), "{name}: {wrong:?}");
        }
    }
}
