//! Hedge: ask a second time when the first answer is late, and take whichever comes first.
//!
//! Of a hundred calls to a healthy upstream one or two are slow for no reason that concerns them: a pause, a queue, a disk.
//! Somebody who needs twenty answers for one page meets such a call on every fifth page. A copy sent when the answer is
//! later than usual is late itself only once in a hundred, and costs one call in twenty.
//!
//! *When not to use it*: for anything that isn't repeatable (it is refused); against an upstream that is slow because it has too
//! much to do (copies are more to do: the budget bounds them, nothing makes them good); instead of retries, which answer
//! failure rather than lateness.
//!
//! # What holds
//! * **What isn't repeatable is never copied.**
//! * **Copies stay within the budget** of the dependency, the same that retries draw on; when it is spent, the call goes on with
//!   what is under way.
//! * **Losers end with the answer**: they are dropped before the caller has it. Over HTTP/2 that resets their stream and keeps
//!   the connection.
//! * **No copy is sent that could only end after the deadline**, none before the answer is late, and none while too little is
//!   known of the calls to say what late is.
//! * **One answer.** A failure doesn't win against a copy that is under way.
//!
//! # Example
//! ```
//! use quorate_resilience::{
//!     deadline::Deadline,
//!     hedge::{After, Config, Plan, race},
//!     dice::Dice,
//!     retry::{self, BudgetConfig, Repeatable, Retries},
//!     timeout::Timers,
//! };
//! use quorate_runtime::Env;
//! use std::{num::NonZeroU32, time::Duration};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let env = Env::real();
//! let timers = Timers::new(&env);
//! let retries = Retries::new(retry::Config::default(), BudgetConfig::default(), Dice::seeded(7));
//! let config = Config { after: After::Fixed(Duration::from_millis(20)), extra: NonZeroU32::MIN };
//! let plan = Plan {
//!     config, delay: config.delay(|_| None), repeatable: Repeatable::Idempotent, deadline: Deadline::NEVER,
//! };
//! // The first call hangs; its copy answers at once.
//! let call = async |copy: u32| match copy {
//!     0 => std::future::pending().await,
//!     _ => "answer",
//! };
//! let won = race(&timers, env.mono(), plan, |now| retries.charge(now), call, |_| true).await;
//! assert_eq!((won.answer, won.copy, won.sent), ("answer", 1, 2));
//! # });
//! ```
//!
//! Source: Dean and Barroso, "The Tail at Scale" (CACM 2013), "Hedged requests"; failsafe-go's issues 139 and 141 about
//! budgets and hedges.

pub mod machine;
mod race;

pub use machine::{After, Config, ConfigError, Copies};
pub use race::{Plan, Won, race};
