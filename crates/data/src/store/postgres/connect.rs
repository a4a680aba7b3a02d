//! Connections: through the ports of [`Env`], bounded, and given back only if nothing is left on them.

use std::{
    future::poll_fn,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_runtime::{Env, net::Io};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{
    AsyncMessage, Client, Config, NoTls,
    config::{Host, SslMode},
};

use super::fault::Fault;
use crate::store::OpenError;

/// How long a connection may take to come about.
const DIALLING: Duration = Duration::from_secs(5);

/// Reads an address.
pub(super) fn server(address: &str) -> Result<Config, OpenError> {
    let wrong = |what: &str| OpenError::Address { what: what.to_owned() };
    if !["postgres://", "postgresql://"].iter().any(|scheme| address.starts_with(scheme)) {
        return Err(wrong("it begins with postgres://"));
    }
    // Where an address is parted is not said twice: what one reader takes for a password another shows as a host.
    if address.matches('@').count() > 1 {
        return Err(wrong("an @ in a user's name, a password or a parameter is written %40"));
    }
    let mut server: Config = address.parse().map_err(|_| wrong("it is postgres://user:password@host:port/database"))?;
    if server.get_ssl_mode() == SslMode::Require {
        return Err(wrong("sslmode=require: TLS is not supported yet, so that nothing would be encrypted"));
    }
    if server.get_hosts().iter().any(|host| !matches!(host, Host::Tcp(_))) || server.get_hosts().is_empty() {
        return Err(wrong("it names a host that is reached by TCP; Unix sockets are not supported yet"));
    }
    if server.get_user().is_none() {
        return Err(wrong("it names a user"));
    }
    if server.get_application_name().is_none() {
        server.application_name("quorate");
    }
    server.ssl_mode(SslMode::Disable);
    Ok(server)
}

/// Opens connections.
pub(super) struct Connector {
    env: Env,
    server: Config,
}

impl Connector {
    pub(super) fn new(env: &Env, server: Config) -> Self {
        Self { env: env.clone(), server }
    }

    /// A new connection to the first host that is a primary, or to the first standby if none is.
    pub(super) async fn connect(&self) -> Result<Client, Fault> {
        Ok(self.reach(None).await?.client)
    }

    /// The same; whatever the server tells unasked wakes `told`, and so does the connection's end.
    pub(super) async fn listen(&self, told: Arc<Notify>) -> Result<Client, Fault> {
        Ok(self.reach(Some(told)).await?.client)
    }

    async fn reach(&self, told: Option<Arc<Notify>>) -> Result<Reached, Fault> {
        let mut last = Fault::Lost("no host is named".to_owned());
        let mut standby = None;
        for (n, host) in self.server.get_hosts().iter().enumerate() {
            let Host::Tcp(host) = host else { continue };
            let ports = self.server.get_ports();
            let port = ports.get(n).or(ports.first()).copied().unwrap_or(5432);
            match self.env.timeout(DIALLING, self.ask(host, port, told.clone())).await {
                Some(Ok(reached)) if reached.is_makeshift => standby = standby.or(Some(reached)),
                Some(Ok(reached)) => return Ok(reached),
                Some(Err(fault)) => last = fault,
                None => last = Fault::Lost(format!("{host}:{port} did not answer within {DIALLING:?}")),
            }
        }
        standby.ok_or(last)
    }

    /// A connection, and whether there may be a better one: only where there is a choice.
    async fn ask(&self, host: &str, port: u16, told: Option<Arc<Notify>>) -> Result<Reached, Fault> {
        let client = self.dial(host, port, told).await?;
        let is_makeshift = self.server.get_hosts().len() > 1
            && client.query_typed_one("SELECT pg_is_in_recovery()", &[]).await?.try_get(0)?;
        Ok(Reached { client, is_makeshift })
    }

    async fn dial(&self, host: &str, port: u16, told: Option<Arc<Notify>>) -> Result<Client, Fault> {
        let lost = |cause: std::io::Error| Fault::Lost(format!("{host}:{port}: {cause}"));
        let addresses = self.env.net().resolve(host, port).await.map_err(lost)?;
        let mut last = Fault::Lost(format!("{host} has no address"));
        for address in addresses {
            match self.env.net().connect(address).await {
                Ok(io) => return self.shake_hands(io, told).await,
                Err(cause) => last = lost(cause),
            }
        }
        Err(last)
    }

    async fn shake_hands(&self, io: Box<dyn Io>, told: Option<Arc<Notify>>) -> Result<Client, Fault> {
        let (client, mut connection) = self.server.connect_raw(io, NoTls).await?;
        self.env.tasks().spawn("store/connection", async move {
            // What ends a connection is told to whoever waits for an answer on it.
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if matches!(message, AsyncMessage::Notification(_)) {
                    told.iter().for_each(|told| told.notify_one());
                }
            }
            told.iter().for_each(|told| told.notify_one());
        });
        Ok(client)
    }
}

/// A new connection.
struct Reached {
    client: Client,
    /// It is to a standby although several hosts are named: none of them was a primary just now.
    is_makeshift: bool,
}

/// A bounded number of connections.
pub(super) struct Pool {
    connector: Connector,
    idle: Mutex<Vec<Client>>,
    permits: Arc<Semaphore>,
    /// How many there are at most.
    pub(super) connections: usize,
}

impl Pool {
    pub(super) fn new(connector: Connector, connections: usize) -> Arc<Self> {
        Arc::new(Self {
            connector,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(connections)),
            connections,
        })
    }

    /// A connection of one's own, once there is one.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, Fault> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Fault::Lost("the store is closed".to_owned()))?;
        let idle = std::iter::from_fn(|| self.idle().pop()).find(|client| !client.is_closed());
        let Reached { client, is_makeshift } = match idle {
            Some(client) => Reached { client, is_makeshift: false },
            None => self.connector.reach(None).await?,
        };
        Ok(Lease { client: Some(client), is_makeshift, pool: self.clone(), _permit: permit })
    }

    /// Ends every connection that nobody uses.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is in use. Unless it is [kept](Self::keep) it ends with this: so does what was begun on it.
pub(super) struct Lease {
    client: Option<Client>,
    /// Whoever comes next looks for a primary again.
    is_makeshift: bool,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Gives it back for others: no transaction is open on it.
    pub(super) fn keep(mut self) {
        if let Some(client) = self.client.take().filter(|client| !self.is_makeshift && !client.is_closed()) {
            self.pool.idle().push(client);
        }
    }

    /// Takes back what was begun on it; a connection on which that fails ends, and the transaction with it.
    pub(super) async fn roll_back(self) {
        if self.batch_execute("ROLLBACK").await.is_ok() {
            self.keep();
        }
    }
}

impl Deref for Lease {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().unwrap_or_else(|| unreachable!("it is taken when the lease ends"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_asks_for_more_than_there_is_is_refused() {
        assert!(server("postgres://u:p@localhost:5432/db").is_ok());
        assert!(server("postgresql://u@[::1]/db?application_name=mine").is_ok());
        for wrong in [
            "",
            "mysql://u@h/db",
            "host=localhost user=u",
            "postgres://u@h/db?sslmode=require",
            "postgres://u:se@cret@h/db",
            "postgres://u@h/db?password=se@cret",
            "postgres://u@%2Fvar%2Frun/db",
            "postgres:///db",
            "postgres://localhost/db",
            "postgres://u@h:port/db",
        ] {
            assert!(matches!(server(wrong), Err(OpenError::Address { .. })), "{wrong}");
        }
        let config = super::super::Config::at("postgres://u:secret@h/db").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        assert_eq!(config.address.to_string(), "h:5432/db");
        let address = "postgres://u:secret@one:1,two:2".parse::<super::super::Address>().unwrap();
        assert_eq!(address.to_string(), "one:1,two:2/u");
    }
}
