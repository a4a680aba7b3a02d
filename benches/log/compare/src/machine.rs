//! The machine, in the words a reader needs to compare it with theirs.

use std::{fs, thread};

/// Cores, processor and kernel; what the system doesn't tell is left out.
pub(crate) fn description() -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| processor_in(&text));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|release| release.trim().to_owned());
    let parts = [Some(format!("{cores} cores")), processor, kernel.map(|release| format!("Linux {release}"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn processor_in(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::processor_in;

    #[test]
    fn the_processor_is_named_where_the_system_names_it() {
        assert_eq!(processor_in("processor\t: 0\nmodel name\t: A Chip @ 2 GHz\n").as_deref(), Some("A Chip @ 2 GHz"));
        assert_eq!(processor_in("processor\t: 0\n"), None);
    }
}
