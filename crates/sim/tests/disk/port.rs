//! The `Disk` port.

use std::{
    io::{ErrorKind, Read, Write as _},
    path::Path,
};

use quorate_runtime::{
    disk::Disk,
    fault::{DiskFaults, disk::Survival},
};
use quorate_sim::disk::{Journal, Model};

use crate::world::world;

fn write(mount: &dyn Disk, path: &str, bytes: &[u8], sync: bool) {
    let mut file = mount.create(path.as_ref()).unwrap();
    file.write_all(bytes).unwrap();
    if sync {
        file.sync().unwrap();
    }
}

#[test]
fn files_do_what_files_do() {
    let world = world(1, Model::default());
    let mount = world.disk.mount();
    let path = Path::new("a/b/file");
    assert_eq!(mount.create(path).err().unwrap().kind(), ErrorKind::NotFound);
    mount.create_dir_all("a/b".as_ref()).unwrap();
    mount.create_dir_all("a/b".as_ref()).unwrap();
    write(&*mount, "a/b/file", b"hello", true);
    assert_eq!((mount.size(path).unwrap(), mount.read(path).unwrap()), (5, b"hello".to_vec()));
    assert_eq!(mount.canonical("a/./x/../b/file".as_ref()).unwrap(), Path::new("/sim/n1/a/b/file"));
    assert_eq!(mount.canonical("/sim/n1/a/b/file".as_ref()).unwrap(), Path::new("/sim/n1/a/b/file"));
    assert_eq!(mount.read("/a/b/file".as_ref()).unwrap(), b"hello", "the host's root is its own");
    mount.rename(path, "a/moved".as_ref()).unwrap();
    assert!(!mount.exists(path).unwrap() && mount.exists("a/moved".as_ref()).unwrap());
    mount.remove("a/moved".as_ref()).unwrap();
    assert_eq!(mount.remove("a/moved".as_ref()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(mount.remove("a".as_ref()).unwrap_err().kind(), ErrorKind::IsADirectory);
    assert_eq!(mount.network_filesystem(path).unwrap(), None);
}

#[test]
fn a_lock_is_held_until_it_is_dropped_or_the_host_dies() {
    let world = world(2, Model::default());
    let mount = world.disk.mount();
    let lock = mount.lock("l".as_ref()).unwrap();
    assert_eq!(mount.lock("l".as_ref()).err().unwrap().kind(), ErrorKind::WouldBlock);
    drop(lock);
    let _stale = mount.lock("l".as_ref()).unwrap();
    world.disk.kill();
    assert!(mount.lock("l".as_ref()).is_err(), "a mount of an earlier life reaches nothing");
    assert!(world.disk.mount().lock("l".as_ref()).is_ok());
}

#[test]
fn what_was_synced_survives_every_power_failure_and_what_was_not_survives_a_kill() {
    for survival in Survival::ALL {
        let world = world(3, Model::default());
        let mount = world.disk.mount();
        write(&*mount, "kept", &[1; 10_000], true);
        write(&*mount, "open", &[2; 10_000], false);
        world.disk.kill();
        let mount = world.disk.mount();
        assert_eq!(mount.read("open".as_ref()).unwrap(), [2; 10_000]);
        world.disk.power_loss(survival, &mut world.rng("power"));
        let mount = world.disk.mount();
        assert_eq!(mount.read("kept".as_ref()).unwrap(), [1; 10_000], "{survival:?}");
        match survival {
            Survival::Nothing => assert!(!mount.exists("open".as_ref()).unwrap()),
            Survival::Everything => assert_eq!(mount.read("open".as_ref()).unwrap(), [2; 10_000]),
            _ => {}
        }
    }
}

#[test]
fn each_way_to_survive_gives_states_of_its_kind() {
    let (mut tails, mut holes, mut torn) = (0, 0, 0);
    for seed in 0..60 {
        for survival in [Survival::Prefix, Survival::Reordered, Survival::Torn] {
            let world = world(seed, Model::default());
            let mount = world.disk.mount();
            let mut file = mount.create("f".as_ref()).unwrap();
            file.sync().unwrap();
            for page in 1..=8 {
                file.write_all(&[page; 4096]).unwrap();
            }
            drop(file);
            world.disk.power_loss(survival, &mut world.rng("power"));
            let bytes = world.disk.mount().read("f".as_ref()).unwrap();
            let pages: Vec<&[u8]> = bytes.chunks(4096).collect();
            let is_whole = |page: &[u8]| page.iter().all(|byte| *byte == page[0]);
            let has_hole = pages.iter().any(|page| page[0] == 0);
            match survival {
                Survival::Prefix => assert!(!has_hole && pages.iter().all(|page| page.len() == 4096 && is_whole(page))),
                Survival::Reordered => assert!(pages.iter().all(|page| is_whole(page))),
                _ => torn += usize::from(pages.iter().any(|page| !is_whole(page))),
            }
            tails += usize::from(survival == Survival::Prefix && (1..8).contains(&pages.len()));
            holes += usize::from(survival == Survival::Reordered && has_hole);
        }
    }
    assert!(tails > 5 && holes > 5 && torn > 5, "tails {tails}, holes {holes}, torn {torn}");
}

#[test]
fn only_the_strict_journal_loses_the_name_of_a_file_that_was_synced() {
    for (journal, is_there) in [(Journal::Shared, true), (Journal::Strict, false)] {
        let world = world(4, Model { journal, ..Model::default() });
        let mount = world.disk.mount();
        write(&*mount, "new", b"bytes", true);
        world.disk.power_loss(Survival::Nothing, &mut world.rng("power"));
        assert_eq!(world.disk.mount().exists("new".as_ref()).unwrap(), is_there, "{journal:?}");
        let mount = world.disk.mount();
        write(&*mount, "new.partial", b"bytes", true);
        mount.rename("new.partial".as_ref(), "renamed".as_ref()).unwrap();
        world.disk.power_loss(Survival::Nothing, &mut world.rng("power"));
        assert_eq!(world.disk.mount().read("renamed".as_ref()).unwrap(), b"bytes", "{journal:?}");
    }
}

#[test]
fn a_short_read_returns_something_and_whoever_reads_on_gets_everything() {
    let world = world(5, Model::default());
    let mount = world.disk.mount();
    let bytes: Vec<u8> = (0..20_000_u32).map(|number| number as u8).collect();
    write(&*mount, "f", &bytes, true);
    world.disk.set_faults(DiskFaults { short_reads: 0.9, ..DiskFaults::default() }).unwrap();
    let mut back = Vec::new();
    mount.open("f".as_ref()).unwrap().read_to_end(&mut back).unwrap();
    assert!(back == bytes && mount.read("f".as_ref()).unwrap() == bytes);
    assert!(world.disk.counts().short_reads > 3);
}

#[test]
fn after_a_failed_sync_no_later_one_makes_the_bytes_durable() {
    let mut lost = 0;
    for seed in 0..20 {
        let world = world(seed, Model::default());
        let mount = world.disk.mount();
        let mut file = mount.create("f".as_ref()).unwrap();
        file.write_all(&[7; 4096]).unwrap();
        world.disk.set_faults(DiskFaults { sync_errors: 1.0, ..DiskFaults::default() }).unwrap();
        assert!(file.sync().is_err());
        world.disk.set_faults(DiskFaults::default()).unwrap();
        file.sync().unwrap();
        assert_eq!(mount.read("f".as_ref()).unwrap(), [7; 4096], "readers still see it");
        world.disk.power_loss(Survival::Everything, &mut world.rng("power"));
        lost += usize::from(world.disk.mount().read("f".as_ref()).unwrap() != [7; 4096]);
    }
    assert!((1..20).contains(&lost), "lost {lost} of 20");
}

#[test]
fn what_a_failed_sync_left_behind_is_durable_once_it_is_written_again() {
    for seed in 0..20 {
        let world = world(seed, Model::default());
        let mount = world.disk.mount();
        write(&*mount, "file", &[1; 20_000], true);
        world.disk.set_faults(DiskFaults { sync_errors: 1.0, ..DiskFaults::default() }).unwrap();
        let mut file = mount.create("file".as_ref()).unwrap();
        file.write_all(&[2; 20_000]).unwrap();
        file.sync().unwrap_err();
        world.disk.set_faults(DiskFaults::default()).unwrap();
        file.sync().unwrap();
        mount.rewrite("file".as_ref()).unwrap();
        world.disk.power_loss(Survival::Nothing, &mut world.rng("power"));
        assert_eq!(world.disk.mount().read("file".as_ref()).unwrap(), [2; 20_000], "seed {seed}");
    }
}
