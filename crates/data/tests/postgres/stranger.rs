//! Somebody else on the same server.
#![allow(clippy::disallowed_methods, reason = "somebody else has a network of their own")]

use tokio_postgres::Client;

/// A connection to `address`: `tokio_postgres` is built without sockets of its own.
pub(crate) async fn stranger(address: &str) -> Client {
    try_stranger(address).await.unwrap()
}

/// The same, or why there is none to be had.
pub(crate) async fn try_stranger(address: &str) -> Result<Client, tokio_postgres::Error> {
    let config: tokio_postgres::Config = address.parse().unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", config.get_ports()[0])).await.unwrap();
    let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}
