//! Customers: they order, and order the same again until they are answered.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quorate_runtime::Env;
use tokio_util::sync::CancellationToken;

use super::{
    plan::{Order, Plan},
    tally::Tally,
};
use crate::client::{Call, Client, JSON};

/// How long a customer waits before asking again.
const ASK_AGAIN: Duration = Duration::from_millis(150);
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// Customers that wait for an answer at once, at most; more come when one was answered.
const MOST: u64 = 200;

/// All customers.
pub(super) struct Customers {
    pub(super) env: Env,
    pub(super) orders: SocketAddr,
    pub(super) tally: Arc<Tally>,
    /// Orders per second.
    pub(super) rate: u64,
}

impl Customers {
    /// Has them order for `span`, and for as long as faults strike.
    pub(super) async fn order(&self, mut plan: Plan, span: Duration, faults_over: &CancellationToken) {
        let (begun, pause) = (self.env.mono(), Duration::from_secs(1) / self.rate.max(1) as u32);
        for n in 0_u32.. {
            let due = begun + pause * n;
            if due >= begun + span && faults_over.is_cancelled() {
                return;
            }
            self.env.sleep_until(due).await;
            let (placed, answered) = self.tally.orders();
            if placed - answered < MOST {
                self.place(plan.order());
            }
        }
    }

    fn place(&self, order: Order) {
        let (env, orders, tally) = (self.env.clone(), self.orders, self.tally.clone());
        tally.placed();
        self.env.tasks().spawn("demo-customer", async move {
            let Ok(server) = format!("http://{orders}").parse() else { return };
            let Ok(body) = serde_json::to_vec(&order) else { return };
            let (client, call) = (Client::new(&env, server, DEADLINE), Call::post("/orders", JSON, body));
            let stop = env.tasks().stop();
            while client.call(&call).await.is_err() {
                if stop.is_cancelled() {
                    return;
                }
                env.sleep(ASK_AGAIN).await;
            }
            tally.taken(order.id);
        });
    }

    /// Waits until every customer was answered, or none was for `patience`.
    pub(super) async fn all_answered(&self, patience: Duration) {
        let (mut before, mut until) = (0, self.env.mono() + patience);
        loop {
            let (placed, answered) = self.tally.orders();
            if answered > before {
                (before, until) = (answered, self.env.mono() + patience);
            }
            if placed == answered {
                return;
            }
            if self.env.mono() >= until {
                let waiting = placed - answered;
                return self.tally.violated(format!("{waiting} customers are not answered"));
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
    }
}
