//! A store that is right, and clients that use it: seeded histories with which checkers are tested.
//!
//! The store does one thing after the other. A client's operation takes effect at an instant between its invocation and
//! its answer; some answers are lost, and some of those operations take effect only much later.

use std::collections::BTreeMap;

use quorate_foundations::time::Mono;

use super::{
    api::{Append, Call, Condition, Expected, History, LoggedEvent, Part, Query, Read, Reply, SentEvent},
    history::{ClientId, OpId},
};

/// Numbers from a seed (splitmix64; Steele et al., 2014).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'s, T>(&mut self, of: &'s [T]) -> Option<&'s T> {
        let index = self.below(of.len() as u64) as usize;
        of.get(index)
    }
}

/// How large a world is.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) operations: usize,
    pub(super) streams: u64,
    pub(super) clients: usize,
    pub(super) unknown_percent: u64,
    /// About how many events a read returns at most.
    pub(super) page: u64,
}

impl Size {
    pub(super) const SMALL: Self = Self { operations: 300, streams: 3, clients: 4, unknown_percent: 8, page: 10_000 };
    pub(super) const LARGE: Self = Self { operations: 10_000, streams: 20, clients: 8, unknown_percent: 5, page: 40 };
}

/// What a world leaves behind.
#[derive(Clone)]
pub(super) struct World {
    pub(super) history: History,
    pub(super) log: Vec<LoggedEvent>,
}

/// The right store.
#[derive(Default)]
struct Store {
    log: Vec<LoggedEvent>,
    streams: BTreeMap<String, Vec<LoggedEvent>>,
    kept: BTreeMap<String, (Append, Reply)>,
}

impl Store {
    fn of_stream(&self, stream: &str) -> &[LoggedEvent] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }

    fn version(&self, stream: &str) -> u64 {
        self.of_stream(stream).len() as u64
    }

    fn call(&mut self, call: &Call) -> Reply {
        match call {
            Call::Read(read) => self.read(read),
            Call::Append(append) => self.once(append),
        }
    }

    fn once(&mut self, append: &Append) -> Reply {
        let Some(key) = &append.key else { return self.append(append) };
        match self.kept.get(key) {
            Some((first, reply)) if first == append => reply.clone(),
            Some(_) => Reply::KeyReused,
            None => {
                let reply = self.append(append);
                self.kept.insert(key.clone(), (append.clone(), reply.clone()));
                reply
            }
        }
    }

    fn append(&mut self, append: &Append) -> Reply {
        let known: Vec<_> = append
            .events()
            .filter_map(|(stream, event)| {
                Some((self.of_stream(stream).iter().find(|logged| logged.event.id == event.id)?.clone(), event))
            })
            .collect();
        if known.iter().any(|(logged, event)| logged.event != **event) {
            return Reply::IdConflict;
        }
        let total = append.events().count();
        if known.len() == total {
            let newest = |part: &Part| {
                let versions = known.iter().filter(|(logged, _)| logged.stream == part.stream);
                versions.map(|(logged, _)| logged.version).max().unwrap_or(0)
            };
            let versions = append.parts.iter().map(newest).collect();
            let token = known.iter().map(|(logged, _)| logged.position).max().map(token);
            return Reply::Appended { versions, token };
        }
        if !known.is_empty() {
            return Reply::IdConflict;
        }
        for Part { stream, expected, .. } in &append.parts {
            let actual = self.version(stream);
            if !expected.accepts(actual) {
                return Reply::WrongVersion { actual: Some(actual) };
            }
        }
        let matched = |Condition { fails_if_match, after }: &Condition| {
            self.log.iter().any(|logged| logged.position > *after && fails_if_match.matches(&logged.event))
        };
        if append.conditions.iter().any(matched) {
            return Reply::ConditionFailed;
        }
        for (stream, event) in append.events() {
            let (position, version) = (self.log.len() as u64 + 1, self.version(stream) + 1);
            let logged = LoggedEvent { position, stream: stream.to_owned(), version, event: event.clone() };
            self.streams.entry(stream.to_owned()).or_default().push(logged.clone());
            self.log.push(logged);
        }
        let versions = append.parts.iter().map(|part| self.version(&part.stream)).collect();
        Reply::Appended { versions, token: Some(token(self.log.len() as u64)) }
    }

    fn read(&self, read: &Read) -> Reply {
        let all = read.stream.as_ref().map_or(self.log.as_slice(), |stream| self.of_stream(stream));
        let events = all.iter().skip(read.after as usize).take(read.limit as usize).cloned().collect();
        Reply::Events { events, token: Some(token(self.log.len() as u64)) }
    }
}

fn token(position: u64) -> String {
    format!("epoch-1/{position}")
}

struct InFlight {
    id: OpId,
    call: Call,
    reply: Option<Reply>,
}

struct Client {
    id: ClientId,
    in_flight: Option<InFlight>,
    token: Option<String>,
    /// An append that was not answered and may be sent again.
    unanswered: Option<Append>,
}

struct Run {
    dice: Dice,
    size: Size,
    store: Store,
    history: History,
    clients: Vec<Client>,
    zombies: Vec<Call>,
    ids: u64,
    now: u64,
}

/// A world of which every claim holds.
pub(super) fn world(seed: u64, size: Size) -> World {
    let client = |n| Client { id: ClientId(n), in_flight: None, token: None, unanswered: None };
    let mut run = Run {
        dice: Dice::new(seed),
        size,
        store: Store::default(),
        history: History::new(),
        clients: (0..size.clients as u32).map(client).collect(),
        zombies: Vec::new(),
        ids: 0,
        now: 0,
    };
    while run.history.operations().len() < size.operations {
        run.turn();
    }
    run.finish()
}

impl Run {
    fn at(&mut self) -> Mono {
        self.now += self.dice.below(2_000_000);
        Mono::from_nanos(self.now)
    }

    fn turn(&mut self) {
        if self.dice.percent(20) && !self.zombies.is_empty() {
            let call = self.zombies.remove(self.dice.below(self.zombies.len() as u64) as usize);
            self.store.call(&call);
        }
        let turn = self.dice.below(self.clients.len() as u64) as usize;
        match self.clients[turn].in_flight.take() {
            None => self.invoke(turn),
            Some(in_flight) if in_flight.reply.is_some() => self.complete(turn, in_flight),
            Some(in_flight) => self.carry_out(turn, in_flight),
        }
    }

    fn invoke(&mut self, turn: usize) {
        let call = self.next_call(turn);
        let at = self.at();
        let client = &mut self.clients[turn];
        let id = self.history.invoke(client.id, call.clone(), at);
        client.in_flight = Some(InFlight { id, call, reply: None });
    }

    fn carry_out(&mut self, turn: usize, mut in_flight: InFlight) {
        if self.dice.percent(self.size.unknown_percent / 2) {
            let at = self.at();
            self.history.unknown(in_flight.id, "timeout", at);
            self.give_up(turn, &in_flight.call);
            self.zombies.push(in_flight.call);
        } else if self.dice.percent(2) {
            let at = self.at();
            self.history.failed(in_flight.id, "connection refused", at);
        } else {
            in_flight.reply = Some(self.store.call(&in_flight.call));
            self.clients[turn].in_flight = Some(in_flight);
        }
    }

    fn complete(&mut self, turn: usize, in_flight: InFlight) {
        let at = self.at();
        if self.dice.percent(self.size.unknown_percent / 2) {
            self.history.unknown(in_flight.id, "connection lost", at);
            return self.give_up(turn, &in_flight.call);
        }
        let Some(reply) = in_flight.reply else { return };
        if let Reply::Appended { token, .. } | Reply::Events { token, .. } = &reply {
            self.clients[turn].token.clone_from(token);
        }
        self.history.ok(in_flight.id, reply, at);
    }

    fn give_up(&mut self, turn: usize, call: &Call) {
        if let Call::Append(append) = call {
            self.clients[turn].unanswered = Some(append.clone());
        }
    }

    fn next_call(&mut self, turn: usize) -> Call {
        if self.dice.percent(50)
            && let Some(append) = self.clients[turn].unanswered.take()
        {
            return Call::Append(append);
        }
        if self.dice.percent(40) {
            return Call::Read(self.next_read(turn));
        }
        Call::Append(self.next_append())
    }

    fn next_read(&mut self, turn: usize) -> Read {
        let stream = self.stream();
        let page = self.size.page;
        let mut read = if self.dice.percent(60) { Read::stream(&*stream, 0, page) } else { Read::log(0, page) };
        let end = if read.stream.is_some() { self.store.version(&stream) } else { self.store.log.len() as u64 };
        if self.dice.percent(40) {
            read.after = self.dice.below(end + 1);
            read.limit = 1 + self.dice.below(20);
        } else if end > page {
            read.after = end - self.dice.below(page);
        }
        read.token = self.clients[turn].token.clone().filter(|_| self.dice.percent(50));
        read
    }

    fn next_append(&mut self) -> Append {
        let stream = self.stream();
        let version = self.store.version(&stream);
        let expected = match self.dice.below(10) {
            0..4 => Expected::Any,
            4..8 => Expected::Exact(version.saturating_sub(self.dice.below(10) / 9)),
            8 => Expected::StreamExists,
            _ => Expected::NoStream,
        };
        let events = (0..1 + self.dice.below(3)).map(|_| self.event()).collect();
        let mut append = Append::to(stream, expected, events);
        if self.dice.percent(10) {
            let (stream, events) = (format!("also-{}", self.dice.below(2)), vec![self.event()]);
            append.parts.push(Part { stream, expected: Expected::Any, events });
        }
        if self.dice.percent(15) {
            let tag = format!("seat:{}", self.dice.below(4));
            append.parts[0].events[0].tags.push(tag.clone());
            let after = (self.store.log.len() as u64).saturating_sub(self.dice.below(6));
            append = append.unless(Query::tagged([&tag]), after);
        }
        if self.dice.percent(25) {
            let key = format!("key-{}", self.ids);
            append = append.with_key(key);
        }
        append
    }

    fn stream(&mut self) -> String {
        format!("order-{}", self.dice.below(self.size.streams))
    }

    fn event(&mut self) -> SentEvent {
        self.ids += 1;
        SentEvent::new(format!("e{}", self.ids), self.ids)
    }

    /// Everybody gets an answer, what still wanders about arrives, and one client reads everything.
    fn finish(mut self) -> World {
        for turn in 0..self.clients.len() {
            while let Some(in_flight) = self.clients[turn].in_flight.take() {
                if in_flight.reply.is_some() {
                    self.complete(turn, in_flight);
                } else {
                    self.carry_out(turn, in_flight);
                }
            }
        }
        for call in std::mem::take(&mut self.zombies) {
            self.store.call(&call);
        }
        let client = ClientId(self.clients.len() as u32);
        let mut streams: Vec<&str> = self.store.log.iter().map(|logged| logged.stream.as_str()).collect();
        streams.sort_unstable();
        streams.dedup();
        let reads: Vec<Read> = streams.into_iter().map(|stream| Read::stream(stream, 0, 100_000)).collect();
        for read in reads.into_iter().chain([Read::log(0, 100_000)]) {
            let at = self.at();
            let id = self.history.invoke(client, Call::Read(read.clone()), at);
            let reply = self.store.read(&read);
            let at = self.at();
            self.history.ok(id, reply, at);
        }
        World { history: self.history, log: self.store.log }
    }
}
