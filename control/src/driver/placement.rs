//! Where a worker runs that is not pinned: it is moved when it has to wait for its processor while
//! another one rests.
//!
//! The kernel's balancer sees to that as well, but not between busy threads that never sleep, and
//! of which one is pinned: a tunnel whose worker shared a processor with another end's kept half
//! its speed for as long as the load lasted. See proc(5) for the numbers, sched(7) for the rules.

use std::time::{Duration, Instant};

use dataplane::sys::affinity::{move_thread, processors_of};
use nix::unistd::Pid;

/// Between two looks at a worker that has work.
const LOOK_BUSY: Duration = Duration::from_millis(100);
/// At one that has none.
const LOOK_IDLE: Duration = Duration::from_millis(500);
/// After a move, so that two processors which are both half free do not pass it to and fro.
const AFTER_MOVE: Duration = Duration::from_secs(1);
/// A worker that wants less than this share of a processor is not worth a move.
const WANTED_MIN: f64 = 0.5;
/// It may wait for this share of the time: others have to run as well.
const WAITED_MAX: f64 = 0.1;
/// A processor rests when it has this share of its time for us.
const RESTS_MIN: f64 = 0.3;
/// The unit of /proc/stat.
const TICK_MS: u64 = 10;

/// Times since the start, at one moment.
#[derive(Clone, Debug)]
struct Times {
    at: Instant,
    /// That the thread ran.
    ran: Duration,
    /// That it could have run, but others did.
    waited: Duration,
    /// That each processor, counted from 0, was idle or with who gives way to us.
    rested: Vec<Duration>,
}

/// Looks after this thread until it is gone.
pub(super) async fn watch(thread: Pid) {
    if processors_of(thread).len() < 2 {
        return;
    }
    let Some(mut before) = look(thread) else {
        return;
    };
    let mut pause = LOOK_IDLE;
    loop {
        tokio::time::sleep(pause).await;
        let Some(now) = look(thread) else { return };
        pause = match share(before.ran, now.ran, &before, &now) < WANTED_MIN / 2.0 {
            true => LOOK_IDLE,
            false => LOOK_BUSY,
        };
        if let Some(cpu) = better_processor(&before, &now, &processors_of(thread))
            && move_thread(thread, cpu).is_ok()
        {
            pause = AFTER_MOVE;
        }
        before = now;
    }
}

/// Where the thread should run instead, of these processors.
fn better_processor(before: &Times, now: &Times, permitted: &[usize]) -> Option<usize> {
    let waited = share(before.waited, now.waited, before, now);
    let wanted = waited + share(before.ran, now.ran, before, now);
    if waited <= WAITED_MAX || wanted < WANTED_MIN {
        return None;
    }
    let rested = |cpu: usize| {
        let (from, to) = (before.rested.get(cpu)?, now.rested.get(cpu)?);
        Some((cpu, share(*from, *to, before, now)))
    };
    let candidates = permitted.iter().filter_map(|cpu| rested(*cpu));
    let best = candidates.max_by(|(_, one), (_, other)| one.total_cmp(other));
    best.filter(|(_, rested)| *rested >= RESTS_MIN)
        .map(|(cpu, _)| cpu)
}

fn share(from: Duration, to: Duration, before: &Times, now: &Times) -> f64 {
    let span = now.at.saturating_duration_since(before.at).as_secs_f64();
    to.saturating_sub(from).as_secs_f64() / span.max(1e-6)
}

/// `None` when the thread is gone, or the kernel does not count.
fn look(thread: Pid) -> Option<Times> {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let (ran, waited) = thread_times(&std::fs::read_to_string(path).ok()?)?;
    Some(Times {
        at: Instant::now(),
        ran,
        waited,
        rested: rested(&std::fs::read_to_string("/proc/stat").ok()?),
    })
}

/// Of `schedstat`: nanoseconds that it ran, and waited to run.
fn thread_times(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut numbers = schedstat.split_ascii_whitespace();
    let mut next = || Some(Duration::from_nanos(numbers.next()?.parse().ok()?));
    Some((next()?, next()?))
}

/// Of `/proc/stat`: the lines `cpuN user nice system idle iowait ...`, by N.
fn rested(stat: &str) -> Vec<Duration> {
    let mut all = Vec::new();
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().and_then(|name| name.strip_prefix("cpu"));
        let Some(cpu) = name.and_then(|number| number.parse::<usize>().ok()) else {
            continue;
        };
        let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        let [_, nice, _, idle, iowait, ..] = ticks[..] else {
            continue;
        };
        // Processors that are off have no line.
        all.resize(all.len().max(cpu + 1), Duration::ZERO);
        all[cpu] = Duration::from_millis(TICK_MS * (nice + idle + iowait));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// 100 ms in which the thread ran and waited for so long, and each processor rested.
    fn choice(ran: u64, waited: u64, rested: [u64; 2], permitted: &[usize]) -> Option<usize> {
        let before = Times {
            at: Instant::now(),
            ran: ms(7),
            waited: ms(9),
            rested: vec![ms(1_000), ms(2_000)],
        };
        let now = Times {
            at: before.at + ms(100),
            ran: before.ran + ms(ran),
            waited: before.waited + ms(waited),
            rested: vec![ms(1_000 + rested[0]), ms(2_000 + rested[1])],
        };
        better_processor(&before, &now, permitted)
    }

    #[test]
    fn a_worker_that_waits_goes_where_a_processor_rests() {
        assert_eq!(choice(50, 50, [70, 0], &[0, 1]), Some(0));
        assert_eq!(choice(50, 50, [20, 60], &[0, 1]), Some(1));
    }

    #[test]
    fn it_stays_without_need_or_room_or_permission() {
        assert_eq!(choice(95, 5, [70, 0], &[0, 1]), None, "it hardly waits");
        assert_eq!(choice(10, 20, [70, 0], &[0, 1]), None, "it wants little");
        assert_eq!(choice(50, 50, [20, 0], &[0, 1]), None, "both are busy");
        assert_eq!(choice(50, 50, [70, 0], &[1]), None, "it may not go there");
        assert_eq!(choice(50, 50, [70, 0], &[1, 7]), None, "7 does not exist");
    }

    #[test]
    fn the_kernels_numbers_are_read() {
        let times = thread_times("5000000 3000000 12\n");
        assert_eq!(times, Some((ms(5), ms(3))));
        assert_eq!(thread_times(""), None);
        let stat = "cpu  9 9 9 9 9 0\ncpu0 1 2 3 4 5 6 7\ncpu2 0 0 0 7 0 0\nintr 5\n";
        assert_eq!(rested(stat), [ms(110), ms(0), ms(70)]);
    }

    #[test]
    fn the_calling_thread_can_be_looked_at() {
        let times = look(nix::unistd::gettid()).unwrap();
        assert!(!times.rested.is_empty());
        assert!(look(Pid::from_raw(i32::MAX)).is_none());
    }
}
