//! Who waits for connections.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
};

use quorate_runtime::{
    BoxFuture,
    net::{Io, Listener},
};

use super::{HostNet, address_of, stream::SimStream};
use crate::executor::lock;

/// Connections that were made and not accepted yet.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: VecDeque<(SimStream, SocketAddr)>,
    acceptor: Option<Waker>,
}

impl Backlog {
    pub(super) fn push(&mut self, stream: SimStream, from: SocketAddr) {
        self.waiting.push_back((stream, from));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.wake();
        }
    }
}

pub(super) fn listen(net: &HostNet, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
    let own = at.ip().is_loopback() || at.ip().is_unspecified() || at.ip() == address_of(net.host);
    if !own {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let mut state = net.net.state();
    let port = if at.port() == 0 { state.free_port(net.host) } else { at.port() };
    if state.listeners.contains_key(&(net.host, port)) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let backlog = Arc::<Mutex<Backlog>>::default();
    state.listeners.insert((net.host, port), backlog.clone());
    let address = SocketAddr::new(if at.ip().is_unspecified() { address_of(net.host) } else { at.ip() }, port);
    Ok(Box::new(SimListener { net: net.clone(), address, backlog }))
}

struct SimListener {
    net: HostNet,
    address: SocketAddr,
    backlog: Arc<Mutex<Backlog>>,
}

impl Listener for SimListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Io>, SocketAddr)>> {
        Box::pin(poll_fn(|context| {
            let mut backlog = lock(&self.backlog);
            match backlog.waiting.pop_front() {
                Some((stream, from)) => Poll::Ready(Ok((Box::new(stream) as Box<dyn Io>, from))),
                None => {
                    backlog.acceptor = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let removed = {
            let mut state = self.net.net.state();
            let key = (self.net.host, self.address.port());
            let own = state.listeners.get(&key).is_some_and(|known| Arc::ptr_eq(known, &self.backlog));
            own.then(|| state.listeners.remove(&key))
        };
        drop(removed);
        // Whoever waits in the line is told; streams lock the network when they go.
        let waiting = std::mem::take(&mut lock(&self.backlog).waiting);
        drop(waiting);
    }
}
