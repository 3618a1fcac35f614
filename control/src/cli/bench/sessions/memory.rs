//! What a process takes, from /proc.

use std::io;

/// One look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Octets of memory that it has to itself, and its share of what it shares (PSS).
    pub proportional_bytes: u64,
    /// Octets of memory that it has mapped in (RSS).
    pub resident_bytes: u64,
    /// Time of processors that it has used, milliseconds.
    pub processor_ms: u64,
}

impl Usage {
    /// Looks at process `pid`.
    ///
    /// # Errors
    /// It is gone, or not ours.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(Self {
            proportional_bytes: kilobytes(&smaps, "Pss:") * 1024,
            resident_bytes: kilobytes(&smaps, "Rss:") * 1024,
            processor_ms: processor_ticks(&stat) * 1000 / ticks_per_second(),
        })
    }
}

fn kilobytes(smaps: &str, name: &str) -> u64 {
    let line = smaps.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// `utime` and `stime` of proc_pid_stat(5): words 14 and 15, of which the second may hold spaces.
fn processor_ticks(stat: &str) -> u64 {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let words = rest.split_whitespace().skip(11).take(2);
    words.filter_map(|word| word.parse::<u64>().ok()).sum()
}

fn ticks_per_second() -> u64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    ticks
        .ok()
        .flatten()
        .and_then(|it| u64::try_from(it).ok())
        .filter(|it| *it > 0)
        .unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_look_at_itself() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 1 << 16);
        assert!(usage.proportional_bytes <= usage.resident_bytes);
    }

    #[test]
    fn names_with_brackets_do_not_shift_the_words() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0";
        assert_eq!(processor_ticks(stat), 42);
    }
}
