//! Setting a deadline while the driver looks, under every interleaving that loom finds.

use loom::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    thread,
};

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}

#[path = "planned.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, built on loom's atomics")]
#[allow(dead_code, reason = "loom tries a part of it")]
mod planned;

#[path = "driven.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, built on loom's atomics")]
mod driven;

use driven::Driven;
use planned::Planned;
use sync::Ordering;

/// Wheels that hold at most one deadline, as the driver and those who set deadlines use them.
struct Timers {
    planned: Planned,
    wheels: [Mutex<Option<u64>>; 2],
    told: AtomicBool,
}

impl Timers {
    fn arm(&self, wheel: usize, due: u64) {
        *self.wheels[wheel].lock().unwrap() = Some(due);
        if self.planned.is_later_than(due) {
            self.told.store(true, Ordering::Release);
        }
    }

    fn look(&self) -> Option<u64> {
        self.planned.look();
        let next = self.wheels.iter().filter_map(|wheel| *wheel.lock().unwrap()).min();
        self.planned.sleep(next);
        next
    }
}

#[test]
fn a_deadline_that_is_set_while_the_driver_looks_is_seen_or_told() {
    loom::model(|| {
        let wheels = [Some(9), None].map(Mutex::new);
        let timers = Arc::new(Timers { planned: Planned::new(), wheels, told: AtomicBool::new(false) });
        // It had planned to wake at 9, and looks again for some other reason.
        timers.planned.sleep(Some(9));
        let setter = timers.clone();
        let setter = thread::spawn(move || setter.arm(1, 5));
        let planned = timers.look();
        setter.join().unwrap();
        assert!(planned == Some(5) || timers.told.load(Ordering::Acquire), "planned {planned:?}, and not told");
    });
}

#[test]
fn a_deadline_later_than_the_one_the_driver_woke_for_is_seen_or_told_too() {
    loom::model(|| {
        let wheels = [None, Some(9)].map(Mutex::new);
        let timers = Arc::new(Timers { planned: Planned::new(), wheels, told: AtomicBool::new(false) });
        // It woke at 5, whose alarm has rung, and looks for the next.
        timers.planned.sleep(Some(5));
        let setter = timers.clone();
        let setter = thread::spawn(move || setter.arm(0, 7));
        let planned = timers.look();
        setter.join().unwrap();
        assert!(planned == Some(7) || timers.told.load(Ordering::Acquire), "planned {planned:?}, and not told");
    });
}

#[test]
fn who_leaves_telling_the_driver_to_another_is_seen_when_that_one_tells() {
    // Every interleaving takes five minutes, and holds; those with three preemptions a moment.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let wheels = [None, None].map(Mutex::new);
        let timers = Arc::new(Timers { planned: Planned::new(), wheels, told: AtomicBool::new(false) });
        timers.planned.sleep(Some(9));
        // One sets a deadline and removes it at once; the other's is a little later, so that it may leave the telling to the first.
        let brief = timers.clone();
        let brief = thread::spawn(move || {
            brief.arm(0, 5);
            *brief.wheels[0].lock().unwrap() = None;
        });
        let lasting = timers.clone();
        let lasting = thread::spawn(move || lasting.arm(1, 7));
        let mut planned = timers.look();
        brief.join().unwrap();
        lasting.join().unwrap();
        if timers.told.swap(false, Ordering::AcqRel) {
            planned = timers.look();
        }
        assert!(planned.is_some_and(|planned| planned <= 7), "planned {planned:?}, and 7 sleeps on");
    });
}

/// A wheel with at most one alarm, and how many drive it.
struct Wheel {
    driven: Driven,
    alarm: Mutex<bool>,
}

impl Wheel {
    fn driven() -> Arc<Self> {
        let wheel = Self { driven: Driven::new(AtomicBool::new(false)), alarm: Mutex::new(false) };
        assert!(wheel.driven.begins());
        Arc::new(wheel)
    }

    fn is_empty(&self) -> bool {
        !*self.alarm.lock().unwrap()
    }

    /// Sets an alarm, and says whether whoever set it has to drive.
    fn set(&self) -> bool {
        *self.alarm.lock().unwrap() = true;
        !self.driven.is() && self.driven.begins()
    }
}

#[test]
fn an_alarm_that_is_set_while_the_driver_leaves_is_driven_by_one_of_the_two() {
    loom::model(|| {
        let wheel = Wheel::driven();
        let setter = wheel.clone();
        let setter = thread::spawn(move || setter.set());
        let left = wheel.driven.leaves(|| wheel.is_empty());
        let begun = setter.join().unwrap();
        assert_eq!(u32::from(!left) + u32::from(begun), 1, "left: {left}, begun: {begun}");
    });
}

#[test]
fn of_two_who_set_alarms_where_nobody_drives_one_does() {
    loom::model(|| {
        let wheel = Wheel::driven();
        assert!(wheel.driven.leaves(|| wheel.is_empty()));
        let other = wheel.clone();
        let other = thread::spawn(move || other.set());
        assert!(wheel.set() ^ other.join().unwrap());
    });
}

#[test]
fn the_next_alarm_after_a_driver_is_gone_is_driven_by_another() {
    loom::model(|| {
        let wheel = Wheel::driven();
        let other = wheel.clone();
        let other = thread::spawn(move || other.set());
        wheel.driven.is_gone();
        let next = wheel.set();
        let begun = other.join().unwrap();
        assert!(next ^ begun && wheel.driven.is(), "next: {next}, begun: {begun}");
    });
}
