//! The product as a simulated host: `node::serve`, as the binary runs it.

use std::{error::Error, net::SocketAddr};

use quorate_node::config::{Config, Settings};
use quorate_runtime::Env;
use quorate_sim::{HostId, Sim};

/// The port that nodes listen on.
const PORT: u16 = 7400;

/// Adds a node that keeps everything in its own folder. Returns where it is reached.
pub(crate) fn add(sim: &mut Sim, name: &str) -> (HostId, SocketAddr) {
    let host = sim.server(name, run);
    (host, sim.address(host, PORT))
}

async fn run(env: Env) -> Result<(), String> {
    let listen = SocketAddr::from(([0, 0, 0, 0], PORT));
    let settings = Settings { data: "quorate-data".into(), listen, allow_remote: true, ..Settings::default() };
    let config = Config::try_from(settings).map_err(|wrong| told(&wrong))?;
    quorate_node::serve(config, env).await.map_err(|failed| told(&failed))
}

/// An error with its causes.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
