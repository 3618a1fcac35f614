//! Figures of a tunnel that stands: round trip and loss, path MTU, name servers.
//!
//! LCP Echo-Requests (RFC 1661 5.8) of any length are answered with as many octets, unencrypted, by
//! every PPP peer; so the outer path is measured without anything at the other end. ICMP and DNS go
//! through the tunnel as a user's packets do.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::judge::up_command;
use super::report::{Finding, Phase, Status};
use super::stack::{self, Reply};
use super::{Came, Examination};
use crate::proto::link::Network;
use crate::wire::cp::{Code, ControlPacket};
use crate::wire::ppp::{HeaderCompression, Protocol, frame};

/// Echoes for round trip and loss.
const ECHOES: u16 = 40;
const ECHO_PAUSE: Duration = Duration::from_millis(40);
/// How long the last may take.
const STRAGGLERS: Duration = Duration::from_millis(1_000);
/// Lost echoes that need no remark: one is chance.
const LOSS_TOLERATED: usize = 1;
/// Octets around the LCP packet: IPv4 (20), GRE with one number (12), PPP (4).
const ECHO_OVERHEAD: usize = 36;
/// Octets around an inner packet: IPv4 (20), GRE with both numbers (16), PPP with MPPE (8).
const OVERHEAD: usize = 44;
/// What every IPv4 path must take.
const PATH_MTU_MIN: usize = 576;
/// Octets between one length that is tried and the next.
const STEP: usize = 4;
const NAME_TRIES: usize = 3;
/// Of a name server, when its host says so.
const NOT_LISTENING: &str = "says that nothing listens on port 53";

impl Examination<'_> {
    /// Everything, once the network stands.
    pub(super) async fn measure(&mut self, network: &Network) {
        self.begin(Phase::RoundTrip);
        let finding = self.round_trip(network).await;
        self.finish(finding);
        if self.is_over() {
            return;
        }
        self.begin(Phase::PathMtu);
        let finding = self.path_mtu(network).await;
        self.finish(finding);
        if self.is_over() {
            return;
        }
        self.begin(Phase::Dns);
        let finding = self.name_servers(network).await;
        self.finish(finding);
    }

    fn send_lcp_echo(&mut self, id: u8, lcp_len: usize) {
        // Magic number 0: a peer that compares it with its own finds no loop.
        let data = vec![0; lcp_len.saturating_sub(4).max(4)];
        let (code, data) = (Code::ECHO_REQUEST, &data[..]);
        let packet = ControlPacket { code, id, data }.to_bytes();
        let frame = frame(Protocol::LCP, &packet, HeaderCompression::default());
        self.inject(Bytes::from(frame.to_vec()));
    }

    async fn round_trip(&mut self, network: &Network) -> Finding {
        let mut lcp = Echoes::default();
        let mut icmp = Echoes::default();
        for number in 0..ECHOES {
            let id = number as u8 | 0x80;
            lcp.sent(number);
            self.send_lcp_echo(id, 64);
            icmp.sent(number);
            let request = stack::echo_request(network.local, network.remote, number, 84);
            self.send_inside(&request).await;
            let until = Instant::now() + ECHO_PAUSE;
            self.collect(until, &mut lcp, &mut icmp).await;
            if self.is_over() {
                break;
            }
        }
        let until = Instant::now() + STRAGGLERS;
        while Instant::now() < until && !self.is_over() && lcp.missing() > 0 {
            let step = until.min(Instant::now() + ECHO_PAUSE);
            self.collect(step, &mut lcp, &mut icmp).await;
        }
        self.loss = lcp.missing() as f64 / lcp.times.len().max(1) as f64;
        self.longest_ms = lcp.round_trips().last().copied().unwrap_or(100.0);
        let is_lossy = lcp.missing() > LOSS_TOLERATED && !lcp.round_trips().is_empty();
        let status = if is_lossy {
            Status::Warning
        } else {
            Status::Ok
        };
        let finding = Finding::new(Phase::RoundTrip, status, lcp.in_words())
            .sent(format!(
                "{ECHOES} LCP Echo-Requests, {ECHOES} ICMP echo requests to {}",
                network.remote
            ))
            .received(format!(
                "{} LCP Echo-Replies, {} ICMP echo replies",
                lcp.came(),
                icmp.came()
            ))
            .figure("lcp_echo", lcp.as_json())
            .figure("icmp_echo", icmp.as_json());
        if !is_lossy {
            return finding;
        }
        let server = self.address;
        finding
            .because(format!(
                "{:.0} % of packets get lost between here and {server}, outside the tunnel: a \
                 weak radio link, a full line, or a policy on the way",
                self.loss * 100.0
            ))
            .command(format!(
                "ping -c 50 -i 0.2 {server}  (is it the same without the tunnel?)"
            ))
            .command(format!("mtr -rwnc 50 {server}  (from which hop on?)"))
            .command(format!(
                "tc -s qdisc show dev {}  (dropped here?)",
                self.way.interface
            ))
    }

    async fn collect(&mut self, until: Instant, lcp: &mut Echoes, icmp: &mut Echoes) {
        while let Some(came) = self.next_answer(until).await {
            match came {
                Came::LcpEcho { id } => lcp.answered(u16::from(id & 0x7F)),
                Came::Inside(Reply::Echo { sequence, .. }) => icmp.answered(sequence),
                Came::Inside(_) => {}
            }
        }
    }

    /// How long to wait for one answer, and how often to try again, on this path.
    fn patience(&self) -> (Duration, usize) {
        let wait_ms = (self.longest_ms * 3.0).clamp(150.0, 2_000.0);
        let tries = match self.loss {
            loss if loss > 0.25 => 6,
            loss if loss > 0.02 => 4,
            _ => 2,
        };
        (Duration::from_millis(wait_ms as u64), tries)
    }

    /// Whether packets of so many octets, outer header included, reach the server unfragmented.
    ///
    /// Only the worker knows whether an acknowledgment goes along, which makes a packet longer by 4
    /// octets: both lengths are tried, and the one counts that left as long as it should. Each
    /// is tried twice: the first of two takes along what was owed, and the second is alone.
    async fn passes(&mut self, outer_len: usize) -> bool {
        let (wait, tries) = self.patience();
        for attempt in 0..tries + 2 {
            self.echo_id = self.echo_id.wrapping_add(1);
            let id = self.echo_id;
            let acknowledgment = 4 * (attempt / 2 % 2);
            self.send_lcp_echo(id, outer_len.saturating_sub(ECHO_OVERHEAD + acknowledgment));
            let until = Instant::now() + wait;
            while let Some(came) = self.next_answer(until).await {
                if came != (Came::LcpEcho { id }) {
                    continue;
                }
                if self.left_with(id) >= outer_len {
                    return true;
                }
                break;
            }
            if self.is_over() {
                return false;
            }
        }
        false
    }

    /// The length with which the echo request left.
    fn left_with(&mut self, id: u8) -> usize {
        self.ear.listen();
        match self.ear.heard.echo_out {
            Some((left, len)) if left == id => len,
            // Where nothing can be overheard, it had the length that it was meant to have.
            _ => usize::MAX,
        }
    }

    /// The longest inner packet that comes back, of those that are tried.
    async fn passes_inside(&mut self, network: &Network, len: usize) -> bool {
        let (wait, tries) = self.patience();
        for _ in 0..tries {
            self.sequence = self.sequence.wrapping_add(1).max(1_000);
            let sequence = self.sequence;
            let request = stack::echo_request(network.local, network.remote, sequence, len);
            self.send_inside(&request).await;
            let until = Instant::now() + wait;
            while let Some(came) = self.next_answer(until).await {
                if came == Came::Inside(Reply::Echo { sequence, len }) {
                    return true;
                }
            }
        }
        false
    }

    async fn path_mtu(&mut self, network: &Network) -> Finding {
        let local = self.way.mtu as usize;
        // A server whose MRU is smaller may not answer more.
        let most = local
            .min(usize::from(self.peer_mru()) + ECHO_OVERHEAD)
            .max(PATH_MTU_MIN);
        let outer = self.search_outer(most).await;
        let Some(outer) = outer else {
            return Finding::new(
                Phase::PathMtu,
                Status::Skipped,
                "cannot be measured: the server does not answer long LCP echoes",
            );
        };
        let inner_most = usize::from(network.mtu).min(outer.saturating_sub(OVERHEAD));
        let inner = match self.passes_inside(network, inner_most).await {
            true => Some(inner_most),
            false => self.search_inner(network, inner_most).await,
        };
        let best = inner.unwrap_or(inner_most).min(inner_most);
        let is_hole = outer + STEP < most;
        let inside = inner.map_or_else(
            || "the server's address does not answer ping".to_owned(),
            |inner| format!("{inner} inside"),
        );
        let status = if usize::from(network.mtu) > best {
            Status::Warning
        } else {
            Status::Ok
        };
        let finding = Finding::new(
            Phase::PathMtu,
            status,
            format!("{outer} octets outside, {inside}; mtu {best}"),
        )
        .sent("LCP and ICMP echo requests of many lengths, with Don't Fragment")
        .figure("outer_mtu", outer)
        .figure("local_mtu", local)
        .figure("inner_mtu", json!(inner))
        .figure("mtu", best);
        let finding = self.errors_about_length().fold(finding, Finding::received);
        match status {
            Status::Warning => self.too_long(finding, (most, outer), best, is_hole),
            _ => finding,
        }
    }

    fn errors_about_length(&self) -> impl Iterator<Item = String> + use<> {
        let errors = self.ear.heard.errors.iter().filter(|it| it.is_too_long());
        let lines: Vec<_> = errors
            .map(|error| match error.mtu {
                Some(mtu) => format!("ICMP {} from {}, mtu {mtu}", error.words(), error.from),
                None => format!("ICMP {} from {}", error.words(), error.from),
            })
            .collect();
        lines.into_iter()
    }

    fn too_long(
        &self,
        finding: Finding,
        (most, outer): (usize, usize),
        best: usize,
        is_hole: bool,
    ) -> Finding {
        let teller = self.errors_about_length().next();
        let cause = match (is_hole, teller) {
            (true, None) => format!(
                "packets above {outer} octets vanish on the way to {}, though this host's link \
                 takes {most}, and no router says so (ICMP is filtered): an MTU hole. Large \
                 packets are cut in two or lost, so that pages hang while pings work",
                self.address
            ),
            (true, Some(_)) => format!(
                "a router on the way takes {outer} octets at most, so that larger packets are cut \
                 in two"
            ),
            (false, _) => format!("the tunnel carries {best} octets at most"),
        };
        let finding = finding.because(cause);
        match &self.config.call_file {
            Some(name) => finding.advise(format!(
                "put the line `mtu {best}` into {}",
                self.config.scripts_dir.join("peers").join(name).display()
            )),
            None => finding.command(format!("{} --mtu {best}", up_command(self.config))),
        }
    }

    /// The largest packet that is answered; `None` when not even small ones are.
    async fn search_outer(&mut self, most: usize) -> Option<usize> {
        if self.passes(most).await {
            return Some(most);
        }
        let mut works = PATH_MTU_MIN;
        if !self.passes(works).await {
            return None;
        }
        let mut fails = most;
        // What a router has said is most likely right.
        if let Some(told) = self.ear.heard.errors.iter().find_map(|error| error.mtu) {
            let told = usize::from(told);
            if (works..fails).contains(&told) && self.passes(told).await {
                works = told;
                if !self.passes(told + STEP).await {
                    return Some(told);
                }
            }
        }
        while fails - works > STEP && !self.is_over() {
            let middle = usize::midpoint(works, fails);
            match self.passes(middle).await {
                true => works = middle,
                false => fails = middle,
            }
        }
        Some(works)
    }

    /// The same inside; `None` when nothing there answers at all.
    async fn search_inner(&mut self, network: &Network, most: usize) -> Option<usize> {
        let mut works = PATH_MTU_MIN.min(most) - OVERHEAD;
        if !self.passes_inside(network, works).await {
            return None;
        }
        let mut fails = most;
        while fails - works > STEP && !self.is_over() {
            let middle = usize::midpoint(works, fails);
            match self.passes_inside(network, middle).await {
                true => works = middle,
                false => fails = middle,
            }
        }
        Some(works)
    }

    async fn name_servers(&mut self, network: &Network) -> Finding {
        let mut servers: Vec<Ipv4Addr> = network.dns.into_iter().flatten().collect();
        servers.dedup();
        if servers.is_empty() {
            let summary = "the server names no name servers";
            return Finding::new(Phase::Dns, Status::Ok, summary);
        }
        let mut lines = Vec::new();
        let mut finding = Finding::new(Phase::Dns, Status::Ok, "");
        let mut dead = Vec::new();
        for (number, server) in servers.iter().enumerate() {
            finding = finding.sent(format!(
                "who serves the root? to {server} through the tunnel"
            ));
            match self
                .ask_name_server(network.local, *server, number as u16)
                .await
            {
                Ok((ms, code)) => {
                    let words = stack::response_code(code);
                    lines.push(format!("{server} answers in {ms:.1} ms ({words})"));
                    finding = finding.received(format!("{server}: {words}"));
                }
                Err(why) => {
                    lines.push(format!("{server} {why}"));
                    dead.push((*server, why));
                }
            }
        }
        finding.summary = lines.join("; ");
        if let Some((server, why)) = dead.first() {
            finding.status = Status::Warning;
            let reason = match *why {
                NOT_LISTENING => "no name server runs there, or it listens to others only",
                _ => "its firewall drops the question, or the server does not forward to it",
            };
            finding = finding
                .because(format!(
                    "{server}, which the server names as name server, {why} when asked through \
                     the tunnel: {reason}"
                ))
                .elsewhere(format!("dig @{server} . NS  (at the server)"));
            if *why != NOT_LISTENING {
                finding = finding.elsewhere("sysctl net.ipv4.ip_forward  (must be 1)");
            }
            finding = finding
                .elsewhere(format!(
                    "take `ms-dns {server}` away, or name one that answers"
                ))
                .advise("or leave `usepeerdns` out, and keep this host's own name servers");
        }
        finding
    }

    async fn ask_name_server(
        &mut self,
        local: Ipv4Addr,
        server: Ipv4Addr,
        number: u16,
    ) -> Result<(f64, u8), &'static str> {
        let (wait, _) = self.patience();
        for attempt in 0..NAME_TRIES {
            let id = 0x5000 + number * 16 + attempt as u16;
            self.send_inside(&stack::name_question(local, server, id))
                .await;
            let asked = Instant::now();
            let until = asked + wait.max(Duration::from_secs(1));
            while let Some(came) = self.next_answer(until).await {
                match came {
                    Came::Inside(Reply::Name {
                        server: from, code, ..
                    }) if from == server => {
                        return Ok((asked.elapsed().as_secs_f64() * 1000.0, code));
                    }
                    Came::Inside(Reply::Unreachable { from, code: 3 }) if from == server => {
                        return Err(NOT_LISTENING);
                    }
                    _ => {}
                }
            }
            if self.is_over() {
                break;
            }
        }
        Err("does not answer")
    }
}

/// Echoes of one kind: when each went, and how long it took.
#[derive(Default)]
struct Echoes {
    times: Vec<(u16, Instant, Option<f64>)>,
}

impl Echoes {
    fn sent(&mut self, number: u16) {
        self.times.push((number, Instant::now(), None));
    }

    fn answered(&mut self, number: u16) {
        let known = self.times.iter_mut().find(|(sent, ..)| *sent == number);
        if let Some((_, at, trip @ None)) = known {
            *trip = Some(at.elapsed().as_secs_f64() * 1000.0);
        }
    }

    fn missing(&self) -> usize {
        self.times.len() - self.came()
    }

    fn came(&self) -> usize {
        self.times
            .iter()
            .filter(|(.., trip)| trip.is_some())
            .count()
    }

    /// Milliseconds, the shortest first.
    fn round_trips(&self) -> Vec<f64> {
        let mut trips: Vec<f64> = self.times.iter().filter_map(|(.., trip)| *trip).collect();
        trips.sort_by(f64::total_cmp);
        trips
    }

    fn in_words(&self) -> String {
        match self.round_trips()[..] {
            [] => "LCP echoes are not answered".to_owned(),
            ref trips => format!(
                "{:.2} ms ({:.2} to {:.2}), {} of {} lost",
                median(trips),
                trips[0],
                trips[trips.len() - 1],
                self.missing(),
                self.times.len()
            ),
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let trips = self.round_trips();
        json!({
            "sent": self.times.len(),
            "received": trips.len(),
            "loss_percent": self.missing() as f64 * 100.0 / self.times.len().max(1) as f64,
            "min_ms": trips.first(),
            "median_ms": (!trips.is_empty()).then(|| median(&trips)),
            "max_ms": trips.last(),
        })
    }
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_is_missing_and_what_comes_twice_counts_once() {
        let mut echoes = Echoes::default();
        for number in 0..4 {
            echoes.sent(number);
        }
        for number in [2, 2, 0, 9] {
            echoes.answered(number);
        }
        assert_eq!((echoes.came(), echoes.missing()), (2, 2));
        assert_eq!(echoes.as_json()["loss_percent"], 50.0);
        assert_eq!(echoes.round_trips().len(), 2);
    }
}
