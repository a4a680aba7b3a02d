//! A broker of a test's own behind a line that can be cut, whichever broker it is.

use std::sync::Arc;

use quorate_communication::transports::{
    Transport,
    conformance::{self, Place},
    connect,
};
use quorate_runtime::{BoxFuture, Env};

use super::{proxy::Proxy, server::Server};

/// How a broker is reached at a port of this machine.
pub(crate) type Address = fn(port: u16) -> String;

pub(crate) struct Broker {
    env: Env,
    pub(crate) server: Server,
    proxy: Proxy,
    address: Address,
}

impl Broker {
    pub(crate) async fn behind_a_line(server: Server, address: Address) -> Self {
        let proxy = Proxy::to(server.port()).await;
        Self { env: Env::real(), server, proxy, address }
    }

    /// A client that reaches it over the line.
    pub(crate) fn client(&self) -> Arc<dyn Transport> {
        connect(&self.env, &(self.address)(self.proxy.port).parse().unwrap(), None).unwrap()
    }
}

impl Place for Broker {
    fn env(&self) -> &Env {
        &self.env
    }

    fn transport(&self) -> BoxFuture<'_, Arc<dyn Transport>> {
        Box::pin(std::future::ready(self.client()))
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { tokio::task::block_in_place(|| self.server.kill()) })
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { tokio::task::block_in_place(|| self.server.start()) })
    }

    fn lose_answers(&self) -> bool {
        self.proxy.lose_answers();
        true
    }

    fn mend(&self) {
        self.proxy.mend();
    }
}

/// Tries every claim of transports.
pub(crate) async fn keeps_the_promises(server: Server, address: Address) {
    conformance::all(&Broker::behind_a_line(server, address).await).await;
}
