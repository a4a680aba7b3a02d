//! Who enters, who waits, and who is sent away: the rules of a bulkhead, without clock, lock or calls.
//!
//! * Whoever may enter does. Otherwise it waits, if it wants to and there is room; the first to enter is who matters most, and
//!   among those who matter as much, who came first.
//! * A full queue sends away who matters least, and among those who came last: it has waited for nothing yet.
//! * Whoever has waited too long, or whose deadline has passed, is sent away and never enters.
//! * A tenant at its share is passed over, by its own calls only.
//!
//! How many are under way is not the machine's to know, for most calls come and go without it: whoever counts them says so
//! before every input.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use quorate_foundations::{machine::Machine, name::Name, time::Mono};

use super::config::{Ask, Config, Limit, Priority};

/// Why a call found no place. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({in_flight} of {limit} under way)")]
pub struct Rejected {
    /// Why.
    pub why: Why,
    /// How many calls may be under way at once.
    pub limit: u32,
    /// How many were.
    pub in_flight: u32,
}

/// Why a call found no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// No place is free, and it doesn't want to wait, or nobody may.
    #[error("no place is free")]
    Full,
    /// As many wait as may, and none of them matters less.
    #[error("no place is free, and the queue is full")]
    QueueFull,
    /// It waited, and made room for one that matters more.
    #[error("a call that matters more took its place in the queue")]
    Shed,
    /// It has waited for as long as anybody may.
    #[error("no place became free in time")]
    MaxWait,
    /// Its deadline has passed, before it came or while it waited.
    #[error("its deadline passed before a place was free")]
    Deadline,
    /// Its tenant uses as much as one tenant may.
    #[error("its tenant's share is in use")]
    TenantShare,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Full, Self::QueueFull, Self::Shed, Self::MaxWait, Self::Deadline, Self::TenantShare];

    /// A word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::QueueFull => "queue_full",
            Self::Shed => "shed",
            Self::MaxWait => "max_wait",
            Self::Deadline => "deadline",
            Self::TenantShare => "tenant_share",
        }
    }
}

/// A place in the queue: first who matters most, then who came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(Reverse<Priority>, u64);

/// What can happen at the door.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A call comes.
    Arrive {
        /// What it is.
        ask: Ask,
        /// Whether it would wait.
        waits: bool,
    },
    /// One that waits goes away by itself.
    Leave(Ticket),
    /// One that was under way has ended; the count is told without it already.
    Release(Option<Name>),
    /// Other rules hold.
    Configure(Box<Config>),
    /// So many may be under way from now on.
    Limit(u32),
}

/// What should happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The call that came enters.
    Enter,
    /// It waits.
    Wait {
        /// Its place.
        ticket: Ticket,
        /// When it is sent away.
        ends: Mono,
    },
    /// It is refused.
    Refuse(Rejected),
    /// One that waited enters.
    Admit(Ticket),
    /// One that waited is sent away.
    Dismiss(Ticket, Rejected),
}

/// The door of one bulkhead and those who wait before it.
#[derive(Clone, Debug)]
pub struct Door {
    config: Config,
    limit: u32,
    in_flight: u32,
    waiting: BTreeMap<Ticket, Waiter>,
    /// The same by tenant, so that nobody has to be looked at who may not enter.
    lines: BTreeMap<Option<Name>, Line>,
    /// The first of each line whose tenant is below its share.
    heads: BTreeMap<Ticket, Option<Name>>,
    /// When each one's time is up.
    ends: BTreeSet<(Mono, Ticket)>,
    tenants: BTreeMap<Name, Tenant>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Waiter {
    tenant: Option<Name>,
    ends: Mono,
    why: Why,
}

/// Those of one tenant, or of nobody's, who wait.
#[derive(Clone, Debug, Default)]
struct Line {
    tickets: BTreeSet<Ticket>,
    /// The one among the heads.
    head: Option<Ticket>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tenant {
    in_flight: u32,
    waiting: u32,
}

impl Door {
    /// A door nobody has come to.
    pub fn new(config: Config) -> Self {
        let limit = match config.limit {
            Limit::Fixed(limit) => limit.get(),
            Limit::Adaptive(adaptive) => adaptive.initial.get(),
        };
        let (waiting, lines, heads, ends, tenants) = Default::default();
        Self { config, limit, in_flight: 0, waiting, lines, heads, ends, tenants, next: 0 }
    }

    /// Tells how many are under way. Comes before every other input.
    pub fn told(&mut self, in_flight: u32) {
        self.in_flight = in_flight;
    }

    /// How many may be under way.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether anybody is counted as a tenant's: also those who came while tenants were told apart, until they leave.
    pub fn tells_tenants(&self) -> bool {
        self.config.tenant_share.is_some() || !self.tenants.is_empty()
    }

    /// Its rules.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Up to how many under way a call of this priority enters.
    pub fn room(&self, priority: Priority) -> u32 {
        part(
            self.limit,
            match priority {
                Priority::Background => self.config.shares.background,
                Priority::Normal => self.config.shares.normal,
                Priority::Critical => 1.0,
            },
        )
    }

    fn arrive(&mut self, now: Mono, ask: Ask, waits: bool, effects: &mut Vec<Effect>) {
        self.tick(now, effects);
        let tenant = self.tenant_of(ask.tenant.as_ref());
        let effect = if ask.deadline.has_passed(now) {
            Effect::Refuse(self.rejected(Why::Deadline))
        } else if self.may_enter(ask.priority, tenant.as_ref()) {
            // Whoever waits still was passed over: none of them may enter.
            self.enter(tenant);
            Effect::Enter
        } else {
            match self.may_wait(ask.priority, tenant.as_ref(), waits) {
                Ok(shed) => {
                    if let Some(shed) = shed {
                        self.forget(shed);
                        effects.push(Effect::Dismiss(shed, self.rejected(Why::Shed)));
                    }
                    self.wait(now, &ask, tenant)
                }
                Err(why) => Effect::Refuse(self.rejected(why)),
            }
        };
        effects.push(effect);
    }

    /// Who is told apart as a tenant.
    fn tenant_of(&self, tenant: Option<&Name>) -> Option<Name> {
        self.config.tenant_share.and(tenant.cloned())
    }

    fn may_enter(&self, priority: Priority, tenant: Option<&Name>) -> bool {
        self.in_flight < self.room(priority) && !self.at_share(tenant)
    }

    fn at_share(&self, tenant: Option<&Name>) -> bool {
        let (Some(tenant), Some(share)) = (tenant, self.config.tenant_share) else { return false };
        let share = part(self.limit, share);
        self.tenants.get(tenant).is_some_and(|tenant| tenant.in_flight >= share)
    }

    /// Whether a call that may not enter may wait, and who has to go for it.
    fn may_wait(&self, priority: Priority, tenant: Option<&Name>, waits: bool) -> Result<Option<Ticket>, Why> {
        let length = self.config.queue.length;
        if !waits || length == 0 {
            return Err(if self.at_share(tenant) { Why::TenantShare } else { Why::Full });
        }
        let share = part(length, self.config.tenant_share.unwrap_or(1.0));
        if tenant.and_then(|tenant| self.tenants.get(tenant)).is_some_and(|tenant| tenant.waiting >= share) {
            return Err(Why::TenantShare);
        }
        if self.waiting.len() < length as usize {
            return Ok(None);
        }
        // The last one matters least, and came last among those.
        let last = self.waiting.last_key_value().map(|(ticket, _)| *ticket);
        last.filter(|Ticket(Reverse(last), _)| *last < priority).map(Some).ok_or(Why::QueueFull)
    }

    fn wait(&mut self, now: Mono, ask: &Ask, tenant: Option<Name>) -> Effect {
        let ticket = Ticket(Reverse(ask.priority), self.next);
        self.next += 1;
        let patience = now + self.config.queue.max_wait;
        let (ends, why) = match ask.deadline.moment() {
            Some(deadline) if deadline <= patience => (deadline, Why::Deadline),
            Some(_) | None => (patience, Why::MaxWait),
        };
        if let Some(tenant) = &tenant {
            self.tenants.entry(tenant.clone()).or_default().waiting += 1;
        }
        self.lines.entry(tenant.clone()).or_default().tickets.insert(ticket);
        self.look(tenant.as_ref());
        self.waiting.insert(ticket, Waiter { tenant, ends, why });
        self.ends.insert((ends, ticket));
        Effect::Wait { ticket, ends }
    }

    fn enter(&mut self, tenant: Option<Name>) {
        self.in_flight += 1;
        if let Some(tenant) = tenant {
            self.tenants.entry(tenant.clone()).or_default().in_flight += 1;
            self.look(Some(&tenant));
        }
    }

    fn forget(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiting.remove(&ticket)?;
        self.ends.remove(&(waiter.ends, ticket));
        if let Some(line) = self.lines.get_mut(&waiter.tenant) {
            line.tickets.remove(&ticket);
        }
        self.settle_tenant(waiter.tenant.as_ref(), |tenant| tenant.waiting = tenant.waiting.saturating_sub(1));
        self.look(waiter.tenant.as_ref());
        Some(waiter)
    }

    /// Changes what is known of a tenant, and forgets it when that is nothing.
    fn settle_tenant(&mut self, name: Option<&Name>, change: impl FnOnce(&mut Tenant)) {
        let Some(name) = name else { return };
        if let Some(tenant) = self.tenants.get_mut(name) {
            change(tenant);
            if (tenant.in_flight, tenant.waiting) == (0, 0) {
                self.tenants.remove(name);
            }
        }
    }

    /// Finds out who is the first of a line, and whether it may enter as far as its tenant goes.
    fn look(&mut self, tenant: Option<&Name>) {
        let (line, at_share) = (tenant.cloned(), self.at_share(tenant));
        let Some(known) = self.lines.get_mut(&line) else { return };
        let head = known.tickets.first().copied().filter(|_| !at_share);
        let is_over = known.tickets.is_empty();
        if let Some(before) = std::mem::replace(&mut known.head, head) {
            self.heads.remove(&before);
        }
        if is_over {
            self.lines.remove(&line);
        }
        if let Some(head) = head {
            self.heads.insert(head, line);
        }
    }

    fn look_at_all(&mut self) {
        let lines: Vec<Option<Name>> = self.lines.keys().cloned().collect();
        lines.iter().for_each(|line| self.look(line.as_ref()));
    }

    /// Lets enter whoever may.
    fn admit(&mut self, effects: &mut Vec<Effect>) {
        while let Some((&ticket, _)) = self.heads.first_key_value() {
            let Ticket(Reverse(priority), _) = ticket;
            // Whoever matters less has no more room.
            if self.in_flight >= self.room(priority) {
                return;
            }
            let waiter = self.forget(ticket);
            self.enter(waiter.and_then(|waiter| waiter.tenant));
            effects.push(Effect::Admit(ticket));
        }
    }

    fn rejected(&self, why: Why) -> Rejected {
        Rejected { why, limit: self.limit, in_flight: self.in_flight }
    }
}

/// A part of `whole`, rounded down, and at least one.
fn part(whole: u32, share: f64) -> u32 {
    ((f64::from(whole) * share) as u32).max(1)
}

impl Machine for Door {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Mono, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Arrive { ask, waits } => return self.arrive(now, ask, waits, effects),
            Input::Leave(ticket) => drop(self.forget(ticket)),
            Input::Release(tenant) => {
                self.settle_tenant(tenant.as_ref(), |tenant| tenant.in_flight = tenant.in_flight.saturating_sub(1));
                self.look(tenant.as_ref());
            }
            Input::Configure(config) => {
                self.limit = match config.limit {
                    Limit::Fixed(limit) => limit.get(),
                    Limit::Adaptive(adaptive) => self.limit.clamp(adaptive.min.get(), adaptive.max.get()),
                };
                // Whoever is counted as a tenant's stays so until it leaves, also if nobody else is told apart meanwhile.
                self.config = *config;
                self.look_at_all();
            }
            Input::Limit(limit) => {
                self.limit = limit;
                self.look_at_all();
            }
        }
        self.tick(now, effects);
    }

    fn tick(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        while let Some((_, ticket)) = self.ends.first().copied().filter(|(ends, _)| *ends <= now) {
            if let Some(waiter) = self.forget(ticket) {
                effects.push(Effect::Dismiss(ticket, self.rejected(waiter.why)));
            }
        }
        self.admit(effects);
    }

    fn wake_at(&self) -> Option<Mono> {
        self.ends.first().map(|(ends, _)| *ends)
    }
}

#[cfg(test)]
mod tests;
