//! Making a connection: a question and an answer that each take their time, and may each be lost.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{HostNet, Presence, address_of, host_at, pipe::Connection, stream::SimStream};
use crate::{executor::lock, host::HostId};

/// How long a dialler waits for an answer before it asks again; then twice as long, and so on, as Linux does.
const RETRY: Duration = Duration::from_secs(1);
/// How often it asks.
const ATTEMPTS: u32 = 7;

/// What became of one question.
enum Answer {
    Accepted(SimStream),
    Refused,
    /// Lost on its way, or nobody is there to answer.
    Silence,
}

pub(super) async fn dial(net: &HostNet, to: SocketAddr) -> io::Result<SimStream> {
    let Some(host) = host_at(to.ip(), net.host) else { return Err(io::ErrorKind::HostUnreachable.into()) };
    for attempt in 0..ATTEMPTS {
        travel(net, net.host, host).await;
        match ask(net, host, to.port()) {
            Answer::Silence => pass(net, RETRY * 2_u32.pow(attempt)).await,
            answer => {
                travel(net, host, net.host).await;
                return match answer {
                    Answer::Accepted(stream) => Ok(stream),
                    Answer::Refused | Answer::Silence => Err(io::ErrorKind::ConnectionRefused.into()),
                };
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The question is at `host`.
fn ask(net: &HostNet, host: HostId, port: u16) -> Answer {
    let now = net.net.executor.now();
    let mut state = net.net.state();
    let lost = state.is_cut(net.host, host, now) || state.is_cut(host, net.host, now) || state.is_deaf(host, now);
    state.struck.connects_unanswered += u64::from(lost);
    if lost || state.presence(host) == Presence::Off {
        return Answer::Silence;
    }
    let Some(backlog) = state.listeners.get(&(host, port)).cloned() else { return Answer::Refused };
    let connection = Arc::new(Mutex::new(Connection::new(net.host, host)));
    state.next += 1;
    let nth = state.next;
    state.connections.insert(nth, Arc::downgrade(&connection));
    let from = SocketAddr::new(address_of(net.host), state.free_port(net.host));
    drop(state);
    net.net.trace.note(now, host, "dialled", u64::from(port));
    lock(&backlog).push(SimStream::new(&net.net, host, connection.clone(), 1), from);
    Answer::Accepted(SimStream::new(&net.net, net.host, connection, 0))
}

async fn travel(net: &HostNet, from: HostId, to: HostId) {
    let now = net.net.executor.now();
    let latency = net.net.state().latency(from, to, now);
    net.net.executor.sleep_until(now + latency).await;
}

async fn pass(net: &HostNet, span: Duration) {
    let due = net.net.in_future(span);
    net.net.executor.sleep_until(due).await;
}
