//! Payments: customers' accounts, and a clearing account whose contents are moved to the merchant's bank by two-phase commit.

use std::{num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use quorate_consistency::two_phase_commit::{
    Config, Coordinator, Embedded, SqlResource, SqlWork, Statement, Transaction,
};
use quorate_data::{
    event::NewEvent,
    store::{DynTx, ExpectedVersion, Store, sqlite},
};
use quorate_resilience::{
    circuit_breaker, client,
    http::Http,
    retry,
    stack::Stack,
    timeout::{self, Timers},
};
use quorate_runtime::{BoxFuture, Env};
use serde_json::json;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::{Books, Service, Settings, Told, Wrong, failed, tell};
use crate::{
    demo::plan::{CUSTOMERS, Order, purse},
    exit::Failure,
};

/// How often what was cleared goes to the merchant.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// Asks the provider whether an order may be charged.
type Authorise = Arc<dyn Fn(Request<Full<Bytes>>) -> BoxFuture<'static, Result<StatusCode, String>> + Send + Sync>;

struct Payments {
    /// The merchant's bank: a store of its own.
    bank: Store,
    /// Where transfers to it are decided.
    transfers: Store,
    authorise: Authorise,
    provider: String,
    /// The bug of the museum: a charge that comes twice is made twice.
    forgetful: bool,
}

pub(super) async fn open(env: &Env, settings: &Settings) -> Result<Arc<dyn Service>, Failure> {
    let at_least = |n: u32| NonZeroU32::new(n).ok_or_else(|| failed("nothing is not enough"));
    let open = circuit_breaker::Open { min: Duration::from_millis(300), max: Duration::from_secs(1), jitter: 0.2 };
    let breaker = circuit_breaker::Config { consecutive: Some(at_least(5)?), open, ..Default::default() };
    let times = timeout::Config {
        total: Some(Duration::from_millis(800)),
        attempt: Some(Duration::from_millis(300)),
        ..Default::default()
    };
    let stack = Stack::builder("payment-provider".parse().map_err(failed)?)
        .timeouts(times)
        .retry(retry::Config { attempts: at_least(2)?, ..Default::default() }, retry::BudgetConfig::default())
        .breaker(breaker)
        .build(&Timers::new(env), Http::default().failing_as(client::Client::judge))
        .map_err(failed)?;
    let provider = stack.layer(client::Client::new(env, client::Config::default()));
    let authorise: Authorise = Arc::new(move |request| {
        let mut provider = provider.clone();
        Box::pin(async move {
            provider.call(request).await.map(|answer| answer.status()).map_err(|cause| cause.to_string())
        })
    });
    let provider = format!("http://{}/authorisations", settings.provider);
    let transfers = open_beside(env, &settings.folder, "transfers.db").await?;
    let bank = bank(env, &settings.folder).await?;
    let forgetful = cfg!(feature = "museum") && settings.forgetful;
    Ok(Arc::new(Payments { bank, transfers, authorise, provider, forgetful }))
}

impl Payments {
    async fn charge(&self, tx: &mut DynTx, order: &Order) -> Result<(), Wrong> {
        let sql = "UPDATE account SET cents = cents - $1 WHERE customer = $2 AND cents >= $1";
        if tx.execute(sql, &[order.cents.into(), (&*order.customer).into()]).await? == 0 {
            return Err(Wrong::Refused("there is not enough money"));
        }
        tx.execute("UPDATE clearing SET total = total + $1, free = free + $1", &[order.cents.into()]).await?;
        let sql = if self.forgetful {
            "INSERT INTO charge (order_id, customer, cents) VALUES ($1, $2, $3) ON CONFLICT (order_id) DO UPDATE SET cents = charge.cents + excluded.cents"
        } else {
            "INSERT INTO charge (order_id, customer, cents) VALUES ($1, $2, $3)"
        };
        tx.execute(sql, &[(&*order.id).into(), (&*order.customer).into(), order.cents.into()]).await?;
        Ok(())
    }

    async fn refund(&self, tx: &mut DynTx, order: &Order) -> Result<(), Wrong> {
        if tx.execute("DELETE FROM charge WHERE order_id = $1", &[(&*order.id).into()]).await? == 0 {
            return Ok(());
        }
        tx.execute("UPDATE clearing SET total = total - $1, free = free - $1", &[order.cents.into()]).await?;
        let sql = "UPDATE account SET cents = cents + $1 WHERE customer = $2";
        tx.execute(sql, &[order.cents.into(), (&*order.customer).into()]).await?;
        Ok(())
    }
}

impl Service for Payments {
    fn tables(&self) -> Vec<String> {
        let mut tables: Vec<String> = [
            "CREATE TABLE IF NOT EXISTS account (customer TEXT PRIMARY KEY, cents BIGINT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS charge (order_id TEXT PRIMARY KEY, customer TEXT NOT NULL, cents BIGINT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS clearing (id BIGINT PRIMARY KEY, total BIGINT NOT NULL, free BIGINT NOT NULL, settled BIGINT NOT NULL)",
            "INSERT INTO clearing VALUES (1, 0, 0, 0) ON CONFLICT (id) DO NOTHING",
        ]
        .map(str::to_owned)
        .into();
        tables.extend(
            (0..CUSTOMERS).map(|n| {
                format!("INSERT INTO account VALUES ('c{n}', {}) ON CONFLICT (customer) DO NOTHING", purse(n))
            }),
        );
        tables
    }

    fn told(&self) -> Vec<Told> {
        vec![
            ("shipping", None, &["payment.taken"]),
            ("inventory", None, &["payment.refused", "payment.returned"]),
            ("orders", None, &["payment.refused", "payment.returned"]),
        ]
    }

    fn forgets(&self, path: &str) -> bool {
        self.forgetful && path == "/charges"
    }

    fn before<'s>(&'s self, path: &'s str, order: &'s Order) -> BoxFuture<'s, Result<(), String>> {
        Box::pin(async move {
            if !["/charges", "stock.reserved"].contains(&path) {
                return Ok(());
            }
            let body = json!({ "order": order.id, "cents": order.cents }).to_string();
            let request = Request::post(&self.provider).header("idempotency-key", &order.id).body(Full::from(body));
            let status = (self.authorise)(request.map_err(|cause| cause.to_string())?).await?;
            if status.is_success() { Ok(()) } else { Err(format!("the payment provider answered {status}")) }
        })
    }

    fn asked<'t>(&'t self, tx: &'t mut DynTx, path: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            match path {
                "/charges" => self.charge(tx, order).await,
                "/refunds" => self.refund(tx, order).await,
                _ => Err(Wrong::Refused("this is not what payments are for")),
            }
        })
    }

    fn heard<'t>(&'t self, tx: &'t mut DynTx, kind: &'t str, order: &'t Order) -> BoxFuture<'t, Result<(), Wrong>> {
        Box::pin(async move {
            if kind == "parcel.refused" {
                self.refund(tx, order).await?;
                return tell(tx, "payments", "payment.returned", order).await;
            }
            match self.charge(tx, order).await {
                Ok(()) => tell(tx, "payments", "payment.taken", order).await,
                Err(Wrong::Refused(_)) => tell(tx, "payments", "payment.refused", order).await,
                failed => failed,
            }
        })
    }

    fn sums(&self) -> &'static str {
        "SELECT (SELECT sum(cents) FROM account) + total + settled AS cents, settled, (SELECT min(cents) FROM account) AS least FROM clearing"
    }

    fn books(&self) -> Books {
        &[
            ("accounts", "customer, cents FROM account"),
            ("charges", "order_id, customer, cents FROM charge"),
            ("clearing", "total, free, settled FROM clearing"),
        ]
    }

    fn beside(&self) -> Option<(&Store, Books)> {
        Some((&self.bank, &[("merchant", "cents FROM merchant")]))
    }

    /// Moves what was cleared to the merchant's bank, again and again: both stores change, or neither, whoever is killed when.
    fn begin<'s>(&'s self, env: &'s Env, store: &'s Store) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async move {
            let config = Config { sweep: Duration::from_secs(1), ..Config::default() };
            let coordinator = Coordinator::open(&self.transfers, config).await.map_err(failed)?;
            for (name, store) in [("clearing", store), ("merchant", &self.bank)] {
                let participant = Embedded::open(store, &name.parse().map_err(failed)?, Arc::new(SqlResource)).await;
                let participant = Arc::new(participant.map_err(failed)?);
                coordinator.register(name.parse().map_err(failed)?, participant).map_err(failed)?;
            }
            env.tasks().spawn("demo-settle", settle(env.clone(), store.clone(), coordinator));
            Ok(())
        })
    }
}

async fn settle(env: Env, store: Store, coordinator: Coordinator) {
    for n in 0_u64.. {
        tokio::select! {
            () = env.tasks().stop().cancelled() => return,
            () = env.sleep(SETTLE_EVERY) => {}
        }
        // What fails now is tried with the next sum.
        let free = store.query("SELECT free FROM clearing", vec![]).await.ok();
        let cents = free.and_then(|rows| rows.first()?.at(0).as_i64()).unwrap_or(0);
        let id = format!("{}-{n}", env.wall().unix_nanos());
        if cents > 0
            && let Ok(transfer) = transfer(cents, &id)
        {
            let _receipt = coordinator.run(transfer).await;
        }
    }
}

async fn bank(env: &Env, folder: &Path) -> Result<Store, Failure> {
    let bank = open_beside(env, folder, "merchant.db").await?;
    let made = bank.transact(|tx| {
        Box::pin(async move {
            tx.execute("CREATE TABLE IF NOT EXISTS merchant (id BIGINT PRIMARY KEY, cents BIGINT NOT NULL)", &[])
                .await?;
            tx.execute("INSERT INTO merchant VALUES (1, 0) ON CONFLICT (id) DO NOTHING", &[]).await
        })
    });
    made.await.map_err(failed)?;
    Ok(bank)
}

async fn open_beside(env: &Env, folder: &Path, file: &str) -> Result<Store, Failure> {
    sqlite::open(env, sqlite::Config::at(folder.join(file))).await.map_err(failed)
}

fn transfer(cents: i64, id: &str) -> Result<Transaction, Failure> {
    let statement = |sql: &str| Statement::of(sql).with(cents).changing(1);
    let takes = SqlWork::default()
        .prepare(statement("UPDATE clearing SET free = free - $1 WHERE free >= $1"))
        .commit(statement("UPDATE clearing SET total = total - $1, settled = settled + $1"))
        .abort(statement("UPDATE clearing SET free = free + $1"));
    let gives = SqlWork::default()
        .prepare(Statement::of("UPDATE merchant SET cents = cents").changing(1))
        .commit(statement("UPDATE merchant SET cents = cents + $1"));
    let moved = NewEvent::new(id, "/payments", "money.settled").json(json!({ "cents": cents }).to_string());
    Ok(Transaction::new()
        .with("clearing".parse().map_err(failed)?, takes.work().map_err(failed)?)
        .with("merchant".parse().map_err(failed)?, gives.work().map_err(failed)?)
        .append("settlements".parse().map_err(failed)?, ExpectedVersion::Any, vec![moved]))
}
