//! GRE, out and back (RFC 2637 4): who on the way does not let IP protocol 47 through, and what a
//! NAT makes of it.

use std::net::Ipv4Addr;

use super::super::super::engine::Direction;
use super::super::ear::About;
use super::super::firewall::{Stops, Way};
use super::super::report::{Finding, Phase, Status};
use super::Case;
use crate::proto::ending::Ending;
use crate::wire::ppp::Protocol;

impl Case<'_> {
    pub(super) fn gre(&self, ending: Option<&Ending>) -> Finding {
        let sent = self.observed.count(Direction::Sent);
        let first = self.observed.lines(Direction::Sent, &[Protocol::LCP]);
        let first = first.into_iter().next().unwrap_or_default();
        if ending.is_none() {
            let ms = self.observed.first_answer().unwrap_or_default();
            let answer = self.observed.lines(Direction::Rcvd, &[Protocol::LCP]);
            return Finding::new(Phase::Gre, Status::Ok, "passes both ways")
                .sent(format!("GRE to {}: {first}", self.address))
                .received(format!(
                    "GRE from {}: {}",
                    self.address,
                    answer.into_iter().next().unwrap_or_default()
                ))
                .figure("first_answer_ms", ms.as_secs_f64() * 1000.0);
        }
        let failed = |summary: &str| {
            Finding::new(Phase::Gre, Status::Failed, summary)
                .sent(format!("GRE to {}, {sent} packets: {first}", self.address))
                .figure("gre_sent", sent)
                .figure("gre_left_this_host", self.heard.gre_out)
                .figure("gre_arrived_at_this_host", self.heard.gre_in)
        };
        self.stopped_here(&failed)
            .or_else(|| self.changed_on_the_way(&failed))
            .or_else(|| self.refused_on_the_way(&failed))
            .unwrap_or_else(|| self.silent(&failed))
    }

    /// By this host itself.
    fn stopped_here(&self, failed: &impl Fn(&str) -> Finding) -> Option<Finding> {
        if self.send_refused > 0 && self.heard.gre_out == 0 {
            let finding = failed("this host does not let GRE out").received(format!(
                "the kernel refused {} packets: Operation not permitted",
                self.send_refused
            ));
            return Some(match self.obstacle(Stops::Gre, Way::Out) {
                Some(rule) => finding.because_of(rule),
                None => finding
                    .because(
                        "a rule of this host's firewall drops GRE (protocol 47) on its way out",
                    )
                    .command("nft list ruleset")
                    .command("nft insert rule inet filter output meta l4proto gre accept"),
            });
        }
        if self.heard.gre_in > 0 && self.worker_received == 0 {
            let finding = failed("GRE comes back, and this host drops it").received(format!(
                "GRE from {}, {} packets, before the firewall",
                self.address, self.heard.gre_in
            ));
            return Some(match self.obstacle(Stops::Gre, Way::In) {
                Some(rule) => finding.because_of(rule),
                None => finding
                    .because("a rule of this host's firewall drops GRE (protocol 47) on its way in")
                    .command("nft insert rule inet filter input meta l4proto gre accept")
                    .command(
                        "modprobe nf_conntrack_pptp  (where only established flows may enter)",
                    ),
            });
        }
        None
    }

    /// By a NAT, or by a server with several addresses.
    fn changed_on_the_way(&self, failed: &impl Fn(&str) -> Finding) -> Option<Finding> {
        if let Some(stranger) = self.heard.stranger {
            let finding = failed("GRE comes back from another address")
                .received(format!("GRE from {stranger}, with our call ID"))
                .because(format!(
                    "the server is asked at {}, and answers from {stranger}: it has several \
                     addresses, and its routes choose that one, or a NAT in front of it does not \
                     translate GRE",
                    self.address
                ))
                .figure("answers_from", stranger.to_string());
            let user = &self.config.link.name;
            return Some(
                finding
                    .command(format!("pptp-fast doctor {stranger} --user {user}"))
                    .elsewhere(format!(
                        "let the server listen at {stranger} alone, or send GRE from {}",
                        self.address
                    )),
            );
        }
        let other = self.heard.other_call_id?;
        let ours = self.observed.call_id.map_or(0, |call_id| call_id.0);
        let finding = failed("GRE comes back with another call ID")
            .received(format!("GRE from {}, for call ID {other}", self.address))
            .because(format!(
                "we told the server call ID {ours}, and it sends to {other}: a NAT on the way \
                 changes call IDs in one direction only, because its PPTP helper is broken or \
                 loaded in half"
            ))
            .figure("answers_to_call_id", other);
        Some(self.with_nat_advice(finding))
    }

    /// By someone who says so.
    fn refused_on_the_way(&self, failed: &impl Fn(&str) -> Finding) -> Option<Finding> {
        let error = self.heard.refusal(About::Gre)?;
        let finding = failed(&format!("{} says: {}", error.from, error.words()))
            .received(format!("ICMP {} from {}", error.words(), error.from))
            .figure("icmp_from", error.from.to_string())
            .figure("icmp_type", error.kind)
            .figure("icmp_code", error.code);
        let is_server = error.from == self.address;
        Some(match (error.kind, error.code) {
            (3, 2) if is_server => finding
                .because(
                    "the server takes the call over TCP, and nothing there takes GRE: its PPTP \
                     process has died or may not open a raw socket, or a port forwarding leads \
                     only TCP to the real server",
                )
                .elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50")
                .elsewhere("forward IP protocol 47 as well as TCP port 1723"),
            (3, 2) => finding
                .because(format!(
                    "{} takes GRE for its own and has no use for it: it forwards TCP to the \
                     server, and not GRE",
                    error.from
                ))
                .elsewhere("forward IP protocol 47 as well as TCP port 1723"),
            _ if error.is_prohibition() => {
                let chain = if is_server { "input" } else { "forward" };
                finding
                    .because(format!(
                        "the firewall at {} forbids GRE (protocol 47)",
                        error.from
                    ))
                    .elsewhere(format!(
                        "nft insert rule inet filter {chain} meta l4proto gre accept"
                    ))
            }
            _ => finding
                .because(format!(
                    "{} has no way for GRE packets to {}, though TCP has one",
                    error.from, self.address
                ))
                .command(format!("traceroute -n -P 47 {}", self.address)),
        })
    }

    /// By someone who says nothing.
    fn silent(&self, failed: &impl Fn(&str) -> Finding) -> Finding {
        let came = self.observed.count(Direction::Rcvd);
        if came > 0 {
            let finding = failed("GRE comes, and ours does not arrive there").received(format!(
                "GRE from {}, {came} packets, none of which answers ours",
                self.address
            ));
            return self
                .with_nat_advice(finding.because(format!(
                    "the server's GRE packets (IP protocol 47) arrive here, and ours vanish on the \
                     way to {}: a router, NAT or provider drops them on the way out, or the \
                     server's firewall on the way in",
                    self.address
                )))
                .elsewhere("nft insert rule inet filter input meta l4proto gre accept");
        }
        let finding = failed("nothing comes back")
            .received("nothing")
            .because(format!(
                "TCP works and the call stands, so something between here and {} drops GRE (IP \
             protocol 47), out or back: the provider, a router or NAT without PPTP pass-through, \
             or the server's firewall",
                self.address
            ));
        self.with_nat_advice(finding)
            .elsewhere("nft insert rule inet filter input meta l4proto gre accept  (at the server)")
            .elsewhere(format!(
                "tcpdump -ni any proto 47 and host {}  (at the server: does it arrive?)",
                if self.is_behind_nat() {
                    "CLIENT".to_owned()
                } else {
                    self.local.to_string()
                }
            ))
            .advise("from another network, such as a telephone's: some providers block GRE")
    }

    fn with_nat_advice(&self, finding: Finding) -> Finding {
        // Nothing translates addresses between neighbours.
        if self.is_neighbour {
            return finding;
        }
        let finding = if self.is_behind_nat() {
            finding.advise(format!(
                "this host has the private address {} and is behind NAT: switch on \"PPTP \
                 pass-through\" (also called PPTP ALG) in the router",
                self.local
            ))
        } else {
            finding
        };
        let finding = if self.helper.tracks && !self.helper.knows_pptp {
            finding.advise(
                "this host tracks connections without the helper for PPTP: where it filters by \
                 state or translates addresses itself, `modprobe nf_nat_pptp`",
            )
        } else {
            finding
        };
        finding
            .elsewhere("modprobe nf_nat_pptp  (a Linux router; then assign the helper:)")
            .elsewhere(
                "nft 'add table ip pptp; add ct helper ip pptp pptp { type \"pptp\" protocol tcp; \
                 }; add chain ip pptp pre { type filter hook prerouting priority 0; }; add rule \
                 ip pptp pre tcp dport 1723 ct helper set \"pptp\"'",
            )
    }

    /// A private address here, and a public one there.
    pub(super) fn is_behind_nat(&self) -> bool {
        is_private(self.local) && !is_private(self.address)
    }
}

/// RFC 1918, RFC 6598, and the link-local and loopback networks.
fn is_private(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let is_shared = a == 100 && b & 0xC0 == 64;
    address.is_private() || address.is_link_local() || address.is_loopback() || is_shared
}
