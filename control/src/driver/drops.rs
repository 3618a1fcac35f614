//! Packets that were dropped, by reason: what `status --json` shows as `drops`.
//!
//! Reasons of the data plane have the names of its counters (`DropReason::name`). Beside them:
//!
//! | name | what was dropped |
//! | --- | --- |
//! | `receive_queue` | GRE packets by the kernel, before a worker that did not keep up |
//! | `tun_queue` | IP packets by the kernel, which a worker did not read fast enough from TUN |
//! | `send_refused` | GRE packets that the kernel did not take |
//! | `tun_refused` | IP packets that the kernel did not take from TUN: the device is down |
//! | `tun_unreadable` | packets read from TUN that are none |
//! | `control_frames` | PPP control frames, of which a session got too many |

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::counters::{DropReason, WorkerCounters};
use dataplane::io::IoCounters;

use super::workers::Workers;

/// Packets dropped for each reason, but for reasons without any.
pub type Drops = BTreeMap<String, u64>;

/// What the workers have dropped, and the kernel on both sides of them; `interfaces` are the names
/// of their TUN devices.
pub(crate) fn count<'a>(workers: &Workers, interfaces: impl Iterator<Item = &'a str>) -> Drops {
    let mut drops = Drops::new();
    let workers: Vec<_> = workers.counters().collect();
    each(workers.iter(), interfaces, &mut |name, count| {
        if count > 0 {
            *drops.entry(name.to_owned()).or_default() += count;
        }
    });
    drops
}

/// The same, handed to `add` bit by bit: a reason may come several times.
pub(crate) fn each<'a, 'b>(
    workers: impl Iterator<Item = &'a (Arc<WorkerCounters>, Arc<IoCounters>)>,
    interfaces: impl Iterator<Item = &'b str>,
    add: &mut impl FnMut(&'static str, u64),
) {
    for (worker, io) in workers {
        for reason in DropReason::ALL {
            add(reason.name(), worker.dropped(reason));
        }
        add("receive_queue", io.receive_dropped.get());
        add("send_refused", io.send_failed.get());
        add("tun_refused", io.write_failed.get());
        add("tun_unreadable", io.split_failed.get());
        add("control_frames", io.punts_dropped.get());
    }
    // Without it, the count is not known; the rest of the status is.
    let dev = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    for interface in interfaces {
        add("tun_queue", tun_queue(&dev, interface).unwrap_or(0));
    }
}

/// What the kernel was to send through an interface and dropped: in `/proc/net/dev`, eight columns
/// are about what was received, and the fourth of those behind them is this (proc_net(5)).
fn tun_queue(dev: &str, interface: &str) -> Option<u64> {
    let lines = dev.lines().filter_map(|line| line.split_once(':'));
    let (_, counters) = lines
        .into_iter()
        .find(|(name, _)| name.trim() == interface)?;
    counters.split_whitespace().nth(8 + 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_those_of_the_interface_and_of_its_way_out() {
        let dev = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame\n\
            ppp0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n   ppp1:0 0 0 7 0 0 0 0 0 0 0 8 0 0 0 0\n";
        assert_eq!(tun_queue(dev, "ppp0"), Some(12));
        assert_eq!(tun_queue(dev, "ppp1"), Some(8));
        assert_eq!(tun_queue(dev, "ppp"), None);
    }
}
