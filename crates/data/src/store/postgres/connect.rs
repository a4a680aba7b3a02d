//! Connections: through the ports of [`Env`], bounded, and given back only if nothing is left on them.

use std::{
    future::poll_fn,
    io,
    ops::Deref,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_runtime::{Env, net::Io};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{
    AsyncMessage, Client, Config, NoTls,
    config::{Host, SslMode, SslNegotiation},
    tls::{TlsConnect, TlsStream},
};

use super::{
    address::Server,
    fault::Fault,
    tls::{Encrypting, Wire},
};

/// How long a connection may take to come about.
const DIALLING: Duration = Duration::from_secs(5);

/// Opens connections.
pub(super) struct Connector {
    env: Env,
    server: Server,
}

impl Connector {
    pub(super) fn new(env: &Env, server: Server) -> Self {
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
        for (n, host) in self.server.config.get_hosts().iter().enumerate() {
            let port = self.server.port(n);
            match self.env.timeout(DIALLING, self.ask(host, port, told.clone())).await {
                Some(Ok(reached)) if reached.is_makeshift => standby = standby.or(Some(reached)),
                Some(Ok(reached)) => return Ok(reached),
                Some(Err(fault)) => last = fault,
                None => last = Fault::Lost(format!("{} did not answer within {DIALLING:?}", called(host, port))),
            }
        }
        standby.ok_or(last)
    }

    /// A connection, and whether there may be a better one: only where there is a choice.
    async fn ask(&self, host: &Host, port: u16, told: Option<Arc<Notify>>) -> Result<Reached, Fault> {
        let lost = |what: String| Fault::Lost(format!("{}: {what}", called(host, port)));
        let client = match host {
            Host::Tcp(name) => self.dial(name, port, told).await,
            Host::Unix(folder) => self.dial_socket(folder, port, told).await,
        };
        let client = client.map_err(|fault| if let Fault::Lost(what) = fault { lost(what) } else { fault })?;
        let is_makeshift = self.server.config.get_hosts().len() > 1
            && client.query_typed_one("SELECT pg_is_in_recovery()", &[]).await?.try_get(0)?;
        Ok(Reached { client, is_makeshift })
    }

    async fn dial(&self, host: &str, port: u16, told: Option<Arc<Notify>>) -> Result<Client, Fault> {
        let lost = |cause: io::Error| Fault::Lost(cause.to_string());
        let Server { config, encryption } = &self.server;
        // Before anything is dialled: what is wrong here needs no server to tell.
        let encrypting = match encryption.mode {
            SslMode::Disable => None,
            _ => {
                let is_direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
                Some(Encrypting::with(&self.env, encryption, host, is_direct).await.map_err(Fault::Lost)?)
            }
        };
        let io = self.dial_any(host, port).await.map_err(lost)?;
        let mut config = config.clone();
        config.ssl_mode(encryption.mode);
        match encrypting {
            Some(tls) => self.shake_hands(&config, io, tls, told).await,
            None => self.shake_hands(&config, io, NoTls, told).await,
        }
    }

    /// A connection to the first address of `host` that takes one.
    async fn dial_any(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        let mut last = io::Error::other("it has no address");
        for address in self.env.net().resolve(host, port).await? {
            match self.env.net().connect(address).await {
                Ok(io) => return Ok(io),
                Err(cause) => last = cause,
            }
        }
        Err(last)
    }

    /// Through the socket of this machine's server that listens on `port`: nobody reads along there, so nothing is encrypted.
    async fn dial_socket(&self, folder: &Path, port: u16, told: Option<Arc<Notify>>) -> Result<Client, Fault> {
        let socket = folder.join(format!(".s.PGSQL.{port}"));
        let io = self.env.net().connect_local(&socket).await.map_err(|cause| Fault::Lost(cause.to_string()))?;
        let mut config = self.server.config.clone();
        config.ssl_mode(SslMode::Disable);
        self.shake_hands(&config, io, NoTls, told).await
    }

    async fn shake_hands<T, S>(
        &self,
        config: &Config,
        io: Box<dyn Io>,
        tls: T,
        told: Option<Arc<Notify>>,
    ) -> Result<Client, Fault>
    where
        T: TlsConnect<Wire, Stream = S>,
        S: TlsStream + Unpin + Send + 'static,
    {
        let (client, mut connection) = config.connect_raw(Wire::from(io), tls).await?;
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

/// A host as people write it.
pub(super) fn called(host: &Host, port: u16) -> String {
    match host {
        Host::Tcp(name) => format!("{name}:{port}"),
        Host::Unix(folder) => format!("{}:{port}", folder.display()),
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
