//! Processor time and memory, as the kernel counts them.
//!
//! # Source
//! proc(5): `/proc/self/stat`, `/proc/self/statm`, `/proc/stat`, `/proc/meminfo`. Elsewhere than on Linux the numbers
//! are absent rather than wrong.
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{fs, io, time::Duration};

/// Ticks of a second in `/proc`: 100 in every Linux that Rust runs on (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;
/// Of x86-64 and of the aarch64 kernels of the distributions; only used where the kernel counts in pages.
const PAGE_BYTES: u64 = 4096;

/// What this process uses now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Start, in seconds since 1970.
    pub start_seconds: f64,
    /// Open file descriptors.
    pub open_fds: usize,
}

/// What the machine has and uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Memory, in bytes.
    pub memory_total_bytes: u64,
    /// Memory that is not available for new programs, in bytes.
    pub memory_used_bytes: u64,
    /// Time all processors were busy since boot, and all time, in ticks.
    pub cpu_ticks: (u64, u64),
}

/// Lets this process open as many files as it may have at all; a shell gives programs fewer, for the sake of old ones that
/// cannot count further than 1024. How many there may be now.
///
/// # Errors
/// The system's.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Reads this process's usage; `None` where the kernel does not tell.
pub fn usage() -> Option<Usage> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let (ticks, started) = parse_stat(&stat)?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let boot: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 and ticks fit a double for ever")]
    let start_seconds = boot as f64 + started as f64 / TICKS_PER_SECOND as f64;
    Some(Usage {
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        resident_bytes: pages * PAGE_BYTES,
        start_seconds,
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
    })
}

/// Reads the machine's; `None` where the kernel does not tell.
pub fn machine() -> Option<Machine> {
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let total = kibibytes(&memory, "MemTotal:")?;
    let available = kibibytes(&memory, "MemAvailable:")?;
    Some(Machine {
        memory_total_bytes: total,
        memory_used_bytes: total.saturating_sub(available),
        cpu_ticks: cpu_ticks(stat.lines().next()?)?,
    })
}

/// User plus system ticks, and the start in ticks since boot: fields 14, 15 and 22, counted after the command's name,
/// which may hold spaces and brackets itself.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let started: u64 = fields.nth(6)?.parse().ok()?;
    Some((user + system, started))
}

fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Busy and all ticks of the line `cpu user nice system idle iowait ...`.
fn cpu_ticks(line: &str) -> Option<(u64, u64)> {
    let numbers: Vec<u64> =
        line.split_whitespace().skip(1).map_while(|field| field.parse().ok()).take(8).collect();
    let all: u64 = numbers.iter().sum();
    let idle = numbers.get(3)? + numbers.get(4)?;
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_as_may_be_can_be_opened() {
        let most = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), most);
    }

    #[test]
    fn a_command_with_brackets_in_its_name_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 4 0 12345 1000000 500 1 1";
        assert_eq!(parse_stat(stat), Some((200, 12345)));
    }

    #[test]
    fn idle_and_waiting_are_not_busy() {
        assert_eq!(cpu_ticks("cpu  10 0 5 80 5 0 0 0 0 0"), Some((15, 100)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_descriptors() {
        let usage = usage().unwrap();
        assert!(usage.resident_bytes > 0 && usage.open_fds >= 3 && usage.start_seconds > 1e9);
        let machine = machine().unwrap();
        assert!(machine.memory_used_bytes < machine.memory_total_bytes);
    }
}
