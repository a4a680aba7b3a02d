//! The coordinator: a node whose store keeps the decisions, in the process that is killed.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use quorate_consistency::two_phase_commit::{Config, Coordinator, Ended, Http};
use quorate_node::{Server, config};
use quorate_resilience::client;
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    failed,
    transfer::{BANKS, Transfer},
};
use crate::{
    demo::web::{self, Answer, Asked},
    exit::Failure,
};

/// A coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::patterns::live) struct Teller {
    /// Where its node's store is.
    pub(super) folder: PathBuf,
    /// Where the banks are.
    pub(super) banks: [SocketAddr; 2],
}

impl Teller {
    /// Opens it; says where its node is, and where transfers are ordered.
    pub(in crate::patterns::live) async fn open(&self, env: &Env) -> Result<[SocketAddr; 2], Failure> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = config::Config { listen, ..config::Config::in_folder(&self.folder) };
        let server = Server::bind(config, env.clone()).await.map_err(failed)?;
        let config = Config {
            // Nothing is decided because somebody was slow: it is killed instead.
            prepare_timeout: Duration::from_secs(60),
            sweep: Duration::from_millis(500),
            pause: Duration::from_millis(10),
            ..Config::default()
        };
        let coordinator = Coordinator::open(server.store(), config).await.map_err(failed)?;
        for (name, place) in BANKS.into_iter().zip(self.banks) {
            let client = client::Client::new(env, client::Config::default());
            let bank = Http::new(client, &format!("http://{place}")).map_err(failed)?;
            coordinator.register(name.parse().map_err(failed)?, Arc::new(bank)).map_err(failed)?;
        }
        server.transactions().attach(&coordinator);
        let node = server.local_addr();
        env.tasks().spawn("patterns-node", async move {
            if let Err(cause) = server.run().await {
                crate::output::complain(&crate::exit::chain(&cause));
            }
        });
        let handler: web::Handler = Arc::new(move |asked| {
            let coordinator = coordinator.clone();
            Box::pin(async move { transfer(&coordinator, &asked).await })
        });
        Ok([node, web::serve(env, handler).await?])
    }
}

async fn transfer(coordinator: &Coordinator, asked: &Asked) -> Answer {
    let Ok(transfer) = serde_json::from_slice::<Transfer>(&asked.body) else {
        return Answer::refused("this is no transfer");
    };
    let transaction = match transfer.transaction() {
        Ok(transaction) => transaction,
        Err(cause) => return Answer::refused(&cause.to_string()),
    };
    match coordinator.run(transaction).await.map(|receipt| receipt.ended) {
        Ok(Ended::Committed) => Answer::done(json!({ "ended": "committed" })),
        Ok(Ended::Aborted { why, .. }) => Answer::done(json!({ "ended": "aborted", "why": why })),
        Ok(Ended::Unknown) => Answer::unknown("nobody knows yet how it ended"),
        Err(cause) => Answer::unknown(cause),
    }
}
