//! Encrypted connections and Unix sockets: what is asked for is what there is, and else it is said what is wrong.

use std::path::Path;

use quorate_data::{
    event::Position,
    store::{
        OpenError, Query, ReadLog, Store, StoreError,
        postgres::{self, doctor},
    },
};

use crate::{
    certificates::{Authority, Shown, file},
    server::{self, Own},
    shared::{batch, env, event},
};

const GOOD: (i32, i32) = (2000, 4000);

/// Who may come: `quorate` anyhow, `proved` with a password and encrypted, `shown` with a certificate.
const MAY_COME: &str = "host all quorate 127.0.0.1/32 trust
hostssl all proved 127.0.0.1/32 scram-sha-256
hostssl all shown 127.0.0.1/32 trust clientcert=verify-ca
";

/// A server that shows `shown`, and knows the clients of `authority`.
fn server_with(shown: &Shown, authority: &Authority) -> Option<Own> {
    Own::with_files(
        "-c ssl=on -c ssl_cert_file=FOLDER/server.pem -c ssl_key_file=FOLDER/server.key -c ssl_ca_file=FOLDER/ca.pem",
        &[
            ("server.pem", &shown.certificate),
            ("server.key", &shown.key),
            ("ca.pem", &authority.certificate),
            ("data/pg_hba.conf", MAY_COME),
        ],
    )
}

/// Its address by its name.
fn by_name(own: &Own) -> String {
    own.address().replace("127.0.0.1", "localhost")
}

/// Whether the server at `address` says that the connection is encrypted.
async fn is_encrypted(address: &str) -> Result<bool, StoreError> {
    let client = postgres::connect(&env(), &address.parse().unwrap()).await?;
    let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    Ok(client.query_typed_one(ssl, &[]).await.unwrap().get(0))
}

/// Why there is no connection to `address`.
async fn refused(address: &str) -> String {
    match is_encrypted(address).await {
        Err(StoreError::Unreachable { what }) => what,
        other => panic!("{address}: {other:?}"),
    }
}

/// How many events the log has.
async fn events(store: &Store) -> usize {
    let read = ReadLog { query: Query::EVERYTHING, after: Position::new(0), limit: 100 };
    store.read_log(read).await.unwrap().events.len()
}

fn with(address: &str, mode: &str, authority: &Path) -> String {
    format!("{address}?sslmode={mode}&sslrootcert={}", authority.display())
}

#[tokio::test]
async fn each_mode_connects_to_whom_it_trusts_and_to_nobody_else() {
    let (authority, other, folder) = (Authority::new("db"), Authority::new("other"), tempfile::tempdir().unwrap());
    let Some(own) = server_with(&authority.issue("localhost", GOOD), &authority) else { return };
    let ours = file(folder.path(), "ca.pem", &authority.certificate);
    let theirs = file(folder.path(), "other.pem", &other.certificate);
    let (number, name) = (own.address(), by_name(&own));

    assert!(is_encrypted(&number).await.unwrap(), "prefer is the default, and the server encrypts");
    assert!(!is_encrypted(&format!("{number}?sslmode=disable")).await.unwrap());
    assert!(is_encrypted(&format!("{number}?sslmode=require")).await.unwrap());
    assert!(is_encrypted(&with(&number, "require", &ours)).await.unwrap());
    assert!(is_encrypted(&with(&number, "verify-ca", &ours)).await.unwrap());
    assert!(is_encrypted(&with(&name, "verify-full", &ours)).await.unwrap());

    let told = refused(&with(&number, "verify-full", &ours)).await;
    assert!(told.contains("is not for `127.0.0.1` but for ") && told.contains("localhost"), "{told}");
    for mode in ["require", "verify-ca", "verify-full"] {
        let told = refused(&with(&name, mode, &theirs)).await;
        assert!(told.contains("issued by nobody who is trusted"), "{mode}: {told}");
    }
    let told = refused(&with(&name, "verify-full", &folder.path().join("gone.pem"))).await;
    assert!(told.contains("sslrootcert: ") && told.contains("gone.pem cannot be read"), "{told}");
    let told = refused(&with(&name, "verify-full", &file(folder.path(), "empty.pem", "nothing"))).await;
    assert!(told.contains("empty.pem holds no certificates"), "{told}");
}

#[tokio::test]
async fn a_certificate_that_is_out_of_date_or_an_authoritys_own_is_named_as_such() {
    let (authority, folder) = (Authority::new("db"), tempfile::tempdir().unwrap());
    let ours = file(folder.path(), "ca.pem", &authority.certificate);
    for (years, why) in [((2000, 2001), "has expired"), ((3000, 3001), "not valid yet")] {
        let Some(own) = server_with(&authority.issue("localhost", years), &authority) else { return };
        for mode in ["verify-ca", "verify-full"] {
            let told = refused(&with(&by_name(&own), mode, &ours)).await;
            assert!(told.contains(why), "{mode}: {told}");
        }
        assert!(is_encrypted(&own.address()).await.unwrap(), "prefer trusts anybody");
    }
    let Some(own) = server_with(&authority.itself(), &authority) else { return };
    let told = refused(&with(&by_name(&own), "verify-ca", &ours)).await;
    assert!(told.contains("that of an authority"), "{told}");
}

#[tokio::test]
async fn a_server_without_tls_is_spoken_to_in_the_clear_only_by_whoever_allows_it() {
    let Some(address) = server::address() else { return };
    assert!(!is_encrypted(&address).await.unwrap(), "prefer takes what there is");
    for mode in ["require", "verify-full"] {
        let told = refused(&format!("{address}?sslmode={mode}")).await;
        assert!(told.contains("server does not support TLS"), "{mode}: {told}");
    }
}

#[tokio::test]
async fn a_client_shows_the_certificate_that_it_is_told_to() {
    let (authority, other, folder) = (Authority::new("db"), Authority::new("other"), tempfile::tempdir().unwrap());
    let Some(own) = server_with(&authority.issue("localhost", GOOD), &authority) else { return };
    own.say(&own.address(), &["CREATE ROLE shown LOGIN"]);
    let address = own.address().replace("quorate@", "shown@");
    let mine = |of: &Authority, name: &str| {
        let shown = of.issue(name, GOOD);
        let certificate = file(folder.path(), &format!("{name}.pem"), &shown.certificate);
        let key = file(folder.path(), &format!("{name}.key"), &shown.key);
        format!("{address}?sslmode=require&sslcert={}&sslkey={}", certificate.display(), key.display())
    };
    assert!(is_encrypted(&mine(&authority, "mine")).await.unwrap());
    let told = refused(&mine(&other, "theirs")).await;
    assert!(told.contains("UnknownCA"), "{told}");
    let told = is_encrypted(&format!("{address}?sslmode=require")).await.unwrap_err();
    assert!(format!("{told:?}").contains("certificate"), "{told:?}");
    let mixed = mine(&authority, "mine").replace("mine.key", "theirs.key");
    let told = refused(&mixed).await;
    assert!(told.contains("cannot be used together"), "{told}");
}

/// RFC 5929, section 4.1, with SCRAM-SHA-256-PLUS.
#[tokio::test]
async fn a_password_is_proved_beside_the_certificate_that_the_server_showed() {
    let authority = Authority::new("db");
    let Some(own) = server_with(&authority.issue("localhost", GOOD), &authority) else { return };
    own.say(&own.address(), &["CREATE ROLE proved LOGIN PASSWORD 'known'"]);
    let address = own.address().replace("quorate@", "proved:known@");
    assert!(is_encrypted(&format!("{address}?sslmode=require&channel_binding=require")).await.unwrap());
    assert!(is_encrypted(&address.replace("known", "guessed")).await.is_err());
}

#[tokio::test]
async fn every_connection_of_a_store_is_encrypted_and_so_is_the_doctors() {
    let (authority, folder) = (Authority::new("db"), tempfile::tempdir().unwrap());
    let Some(own) = server_with(&authority.issue("localhost", GOOD), &authority) else { return };
    let ours = file(folder.path(), "ca.pem", &authority.certificate);
    let address = format!("{}&application_name=encrypted", with(&by_name(&own), "verify-full", &ours));
    let config = || postgres::Config::at(&address).unwrap();
    let store = postgres::open(&env(), config()).await.unwrap();
    for n in 0..5 {
        store.append(batch("order-1", vec![event(n)])).await.unwrap();
    }
    assert_eq!(events(&store).await, 5);
    let beside = postgres::connect(&env(), &own.address().parse().unwrap()).await.unwrap();
    let connections = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'encrypted'";
    let row = beside.query_typed_one(connections, &[]).await.unwrap();
    let (all, encrypted): (i64, i64) = (row.get(0), row.get(1));
    assert!(all >= 2 && all == encrypted, "{encrypted} of {all}");
    store.close().await.unwrap();

    doctor::examine(&env(), &config(), doctor::Thresholds::default()).await.unwrap();
    let wrong = postgres::Config::at(&with(&own.address(), "verify-full", &ours)).unwrap();
    let told = doctor::examine(&env(), &wrong, doctor::Thresholds::default()).await.unwrap_err();
    assert!(matches!(&told, StoreError::Unreachable { what } if what.contains("is not for")), "{told:?}");
    let told = postgres::open(&env(), wrong).await.err().unwrap();
    assert!(
        matches!(&told, OpenError::Store(StoreError::Unreachable { what }) if what.contains("is not for")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_store_is_reached_through_a_unix_socket() {
    let Some(own) = Own::new("-c unix_socket_directories=FOLDER") else { return };
    // As libpq: nothing is encrypted there, whatever is asked for.
    let address = format!("{}&sslmode=verify-full", own.socket());
    let store = postgres::open(&env(), postgres::Config::at(&address).unwrap()).await.unwrap();
    store.append(batch("order-1", vec![event(1)])).await.unwrap();
    assert_eq!(events(&store).await, 1);
    let beside = postgres::connect(&env(), &own.address().parse().unwrap()).await.unwrap();
    let by_tcp = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'quorate' AND client_addr IS NOT NULL
        AND pid <> pg_backend_pid()";
    assert_eq!(beside.query_typed_one(by_tcp, &[]).await.unwrap().get::<_, i64>(0), 0);
    store.close().await.unwrap();
    let nowhere = address.replace("host=/", "host=/nowhere/");
    let told = refused(&nowhere).await;
    assert!(told.starts_with("/nowhere/"), "{told}");
}
