//! Lines gathered into batches, each for one lane.
//!
//! A stream always goes down the same lane, and a lane sends one batch after the other: so however many requests are
//! under way, no stream is reordered. In the log's order there is one lane, and a batch ends where its streams would have
//! to be shuffled to fit into one append.

use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::line::Line;

/// How lines become batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering {
    /// How many batches may be under way at once.
    pub(crate) lanes: usize,
    /// Events in a batch at most.
    pub(crate) events: usize,
    /// Bytes in a batch, about.
    pub(crate) bytes: usize,
    /// Whether the log shall have the order of the input, and not only each stream.
    pub(crate) in_order: bool,
}

/// Gathers lines into batches.
pub(crate) struct Gatherer {
    gathering: Gathering,
    lanes: Vec<Gathered>,
}

#[derive(Default)]
struct Gathered {
    lines: Vec<Line>,
    bytes: usize,
    /// Streams whose run of lines in this batch is over.
    passed: HashMap<String, (), FixedState>,
}

impl Gatherer {
    /// Nothing gathered yet.
    pub(crate) fn new(gathering: Gathering) -> Self {
        let lanes = if gathering.in_order { 1 } else { gathering.lanes };
        Self { gathering, lanes: (0..lanes).map(|_| Gathered::default()).collect() }
    }

    /// How many lanes there are.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Takes a line. Returns the batch that is complete without it, with its lane.
    pub(crate) fn take(&mut self, line: Line) -> Option<(usize, Vec<Line>)> {
        let lane = self.lane(&line.stream);
        let gathered = &mut self.lanes[lane];
        let full = gathered.lines.len() >= self.gathering.events
            || (!gathered.lines.is_empty() && gathered.bytes + line.event.len() > self.gathering.bytes);
        let complete = (full || (self.gathering.in_order && gathered.comes_back(&line))).then(|| gathered.empty());
        gathered.push(line, self.gathering.in_order);
        complete.map(|lines| (lane, lines))
    }

    /// What is left, with its lanes.
    pub(crate) fn rest(&mut self) -> Vec<(usize, Vec<Line>)> {
        let rest = self.lanes.iter_mut().map(Gathered::empty).enumerate();
        rest.filter(|(_, lines)| !lines.is_empty()).collect()
    }

    fn lane(&self, stream: &str) -> usize {
        // The same from run to run: a repeated import then finds what is known at the front of each lane.
        let hash = FixedState::with_seed(0).hash_one(stream);
        (hash % self.lanes.len() as u64) as usize
    }
}

impl Gathered {
    fn comes_back(&self, line: &Line) -> bool {
        let goes_on = self.lines.last().is_some_and(|last| last.stream == line.stream);
        !goes_on && self.passed.contains_key(&line.stream)
    }

    fn push(&mut self, line: Line, remember: bool) {
        if remember && !self.passed.contains_key(&line.stream) {
            self.passed.insert(line.stream.clone(), ());
        }
        self.bytes += line.event.len();
        self.lines.push(line);
    }

    fn empty(&mut self) -> Vec<Line> {
        std::mem::take(self).lines
    }
}

/// The body of `POST /v1/events` for `lines`, in the order in which their streams first appear.
pub(crate) fn body(lines: &[Line]) -> String {
    let mut body = String::with_capacity(lines.iter().map(|line| line.event.len() + 48).sum());
    body.push_str("{\"streams\":[");
    for (n, (stream, events)) in by_stream(lines).into_iter().enumerate() {
        body.push_str(if n == 0 { "{\"stream\":" } else { ",{\"stream\":" });
        body.push_str(&serde_json::Value::from(stream).to_string());
        for (n, line) in events.into_iter().enumerate() {
            body.push_str(if n == 0 { ",\"events\":[" } else { "," });
            body.push_str(&lines[line].event);
        }
        body.push_str("]}");
    }
    body.push_str("]}");
    body
}

/// The place among `lines` of event `index` of the `part`-th stream, or of the stream called so.
pub(crate) fn place(lines: &[Line], part: Option<usize>, stream: Option<&str>, index: usize) -> Option<usize> {
    let streams = by_stream(lines);
    let events = match (part, stream) {
        (Some(part), _) => &streams.get(part)?.1,
        (None, Some(stream)) => &streams.iter().find(|(name, _)| *name == stream)?.1,
        (None, None) if streams.len() == 1 => &streams[0].1,
        (None, None) => return None,
    };
    events.get(index).copied()
}

fn by_stream(lines: &[Line]) -> Vec<(&str, Vec<usize>)> {
    let mut streams: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut places: HashMap<&str, usize, FixedState> = HashMap::with_hasher(FixedState::with_seed(0));
    for (n, line) in lines.iter().enumerate() {
        let place = *places.entry(&line.stream).or_insert_with(|| {
            streams.push((&line.stream, Vec::new()));
            streams.len() - 1
        });
        streams[place].1.push(n);
    }
    streams
}

#[cfg(test)]
mod tests {
    use super::{Gatherer, Gathering, Line, body, place};

    fn line(number: u64, stream: &str) -> Line {
        Line { number, stream: stream.to_owned(), event: format!("[{number}]"), astray: false }
    }

    fn gather(gathering: Gathering, streams: &str) -> Vec<(usize, Vec<u64>)> {
        let mut gatherer = Gatherer::new(gathering);
        let lines = streams.split(' ').zip(1..).map(|(stream, number)| line(number, stream));
        let mut batches: Vec<_> = lines.filter_map(|line| gatherer.take(line)).collect();
        batches.extend(gatherer.rest());
        let numbers = |lines: Vec<Line>| lines.iter().map(|line| line.number).collect();
        batches.into_iter().map(|(lane, lines)| (lane, numbers(lines))).collect()
    }

    #[test]
    fn a_stream_keeps_its_lane_and_its_order() {
        let gathering = Gathering { lanes: 3, events: 2, bytes: 1_000, in_order: false };
        let batches = gather(gathering, "a b c d a b c d a b c d");
        for stream in 1..=4 {
            let of_stream = |number: &u64| number % 4 == stream % 4;
            let seen: Vec<_> = batches.iter().filter(|(_, lines)| lines.iter().any(of_stream)).collect();
            assert!(seen.iter().all(|(lane, _)| *lane == seen[0].0), "{batches:?}");
            let numbers: Vec<u64> = seen.iter().flat_map(|(_, lines)| lines).copied().filter(of_stream).collect();
            assert_eq!(numbers, [stream, stream + 4, stream + 8]);
        }
        assert!(batches.iter().all(|(_, lines)| lines.len() <= 2));
    }

    #[test]
    fn in_the_logs_order_a_batch_ends_where_a_stream_comes_back() {
        let gathering = Gathering { lanes: 3, events: 4, bytes: 1_000, in_order: true };
        let batches = gather(gathering, "a a b a c c c c c");
        let expected: [(usize, Vec<u64>); 3] = [(0, vec![1, 2, 3]), (0, vec![4, 5, 6, 7]), (0, vec![8, 9])];
        assert_eq!(batches, expected);
    }

    #[test]
    fn a_batch_stays_near_its_size() {
        let gathering = Gathering { lanes: 1, events: 100, bytes: 7, in_order: false };
        assert_eq!(gather(gathering, "a a a"), [(0, vec![1, 2]), (0, vec![3])]);
    }

    #[test]
    fn what_the_node_calls_an_event_leads_back_to_its_line() {
        let lines = [line(1, "a"), line(2, "b"), line(3, "a"), line(4, "b\"")];
        let expected = r#"{"streams":[{"stream":"a","events":[[1],[3]]},{"stream":"b","events":[[2]]},{"stream":"b\"","events":[[4]]}]}"#;
        assert_eq!(body(&lines), expected);
        assert_eq!(place(&lines, Some(0), None, 1), Some(2));
        assert_eq!(place(&lines, None, Some("b"), 0), Some(1));
        assert_eq!(place(&lines, None, None, 0), None);
        assert_eq!(place(&lines, Some(9), None, 0), None);
    }
}
