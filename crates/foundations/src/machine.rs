//! The contract of everything that has state over time.
//!
//! A machine takes the time and an input, changes itself, and says what should happen as plain data. It never waits,
//! reads a clock, rolls dice or opens a socket; a shell does those things and decides nothing. The rule can then be
//! read aloud, tested in microseconds, replayed from a journal and shown in the console.

use crate::time::Mono;

/// State over time, as pure transitions.
///
/// # Example
/// ```
/// use quorate_foundations::{machine::Machine, time::Mono};
/// use std::time::Duration;
///
/// /// Says "time is up" once, `after` the first input.
/// struct Alarm { after: Duration, due: Option<Mono> }
/// impl Machine for Alarm {
///     type Input = ();
///     type Effect = &'static str;
///     fn step(&mut self, now: Mono, _: (), _: &mut Vec<Self::Effect>) {
///         self.due.get_or_insert(now + self.after);
///     }
///     fn tick(&mut self, now: Mono, effects: &mut Vec<Self::Effect>) {
///         if self.due.take_if(|due| *due <= now).is_some() {
///             effects.push("time is up");
///         }
///     }
///     fn wake_at(&self) -> Option<Mono> { self.due }
/// }
///
/// let mut alarm = Alarm { after: Duration::from_secs(1), due: None };
/// let mut effects = vec![];
/// alarm.step(Mono::ZERO, (), &mut effects);
/// alarm.tick(alarm.wake_at().unwrap(), &mut effects);
/// assert_eq!(effects, ["time is up"]);
/// ```
pub trait Machine {
    /// What can happen to it. Peers may send anything: bad input is answered with an effect, never a panic.
    type Input;
    /// What should be done about it, in order.
    type Effect;

    /// Takes one input at `now` and pushes what should happen.
    fn step(&mut self, now: Mono, input: Self::Input, effects: &mut Vec<Self::Effect>);

    /// Lets time alone act. Calling it early, late or often is harmless.
    fn tick(&mut self, now: Mono, effects: &mut Vec<Self::Effect>);

    /// When [`tick`](Self::tick) is next due; `None` while nothing is pending.
    fn wake_at(&self) -> Option<Mono>;
}
