//! TCP and the control connection: reaching the server, whether it speaks PPTP, whether it takes a
//! call (RFC 2637 2 and 3).

use nix::errno::Errno;

use super::super::ear::About;
use super::super::firewall::{Stops, Way};
use super::super::report::{Finding, Phase, Status};
use super::Case;
use crate::proto::ending::Ending;
use crate::wire::pptp::codes::{ErrorCode, OutgoingCallResult, StartResult};
use crate::wire::pptp::messages::{Message, OutgoingCallReply, StartControlConnectionReply};

/// Version 1.0 (RFC 2637 2.1).
const VERSION: u16 = 0x0100;
/// Characters that are shown of what is not PPTP.
const GREETING_SHOWN: usize = 60;

impl Case<'_> {
    pub(super) fn tcp(&self, ending: Option<&Ending>) -> Finding {
        let syn = format!("SYN to {}", self.endpoint());
        let Some(ending) = ending else {
            let ms = self.observed.connected.unwrap_or_default().as_secs_f64() * 1000.0;
            let summary = format!("port {} is open, {ms:.1} ms", self.config.port);
            return Finding::new(Phase::Tcp, Status::Ok, summary)
                .sent(syn)
                .received("SYN, ACK")
                .figure("connect_ms", ms);
        };
        let cause = match ending {
            Ending::Unreachable { cause, .. } => cause.as_str(),
            _ => "",
        };
        let failed = |summary: String| Finding::new(Phase::Tcp, Status::Failed, summary).sent(&syn);
        let port = self.config.port;
        if let Some(rule) = self.obstacle(Stops::Tcp, Way::Out) {
            return failed(format!("the firewall of this host stops port {port}"))
                .received(cause)
                .because_of(rule);
        }
        let refusal = self.heard.refusal(About::Tcp);
        if let Some(error) = refusal.filter(|error| error.from != self.local) {
            let finding = failed(format!("{} says: {}", error.from, error.words()))
                .received(format!("ICMP {} from {}", error.words(), error.from));
            return if error.is_prohibition() {
                finding
                    .because(format!(
                        "the firewall at {} does not let TCP port {port} through",
                        error.from
                    ))
                    .advise(format!(
                        "let TCP port {port} and GRE (protocol 47) through to {} there",
                        self.address
                    ))
            } else {
                finding
                    .because(format!(
                        "{} has no way to {}: the server is off, or its network is not connected",
                        error.from, self.address
                    ))
                    .command(format!("traceroute -n {}", self.address))
            };
        }
        self.tcp_by_errno(failed, cause)
    }

    fn tcp_by_errno(&self, failed: impl Fn(String) -> Finding, cause: &str) -> Finding {
        let (address, port) = (self.address, self.config.port);
        match errno_of(cause) {
            Some(Errno::ECONNREFUSED) => failed(format!("port {port} refuses connections"))
                .received("RST")
                .because(format!(
                    "{address} is there, and no PPTP server listens on its port {port}, or a \
                     firewall rejects it"
                ))
                .elsewhere(format!("ss -ltn 'sport = :{port}'"))
                .elsewhere("systemctl start pptp-fast-server  (or pptpd)"),
            Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                failed("no way to the server".to_owned())
                    .received(cause)
                    .because(format!(
                        "nobody has the address {address} on this network (no ARP reply), or no \
                         router knows the way to it"
                    ))
                    .command(format!("ip -4 route get {address}; ip neighbour"))
            }
            Some(Errno::EPERM | Errno::EACCES) => failed("this host may not connect".to_owned())
                .received(cause)
                .because("a rule of this host's firewall, or of a security module, forbids it")
                .command("nft list ruleset"),
            _ => {
                let finding = failed(format!("no answer within {} s", self.timeout.as_secs()))
                    .because(format!(
                        "packets to TCP port {port} of {address} vanish: a firewall on the way or \
                         at the server drops them, the server is off, or the address is wrong"
                    ))
                    .command(format!("ping -c 3 {address}"))
                    .command(format!("traceroute -n -T -p {port} {address}"))
                    .elsewhere(format!(
                        "nft insert rule inet filter input tcp dport {port} accept"
                    ));
                match self.obstacle(Stops::Tcp, Way::In) {
                    Some(rule) => finding.because_of(rule),
                    None => finding,
                }
            }
        }
    }

    fn start_reply(&self) -> Option<&StartControlConnectionReply> {
        let mut received = self.observed.control_received.iter();
        received.find_map(|message| match message {
            Message::StartControlConnectionReply(reply) => Some(reply),
            _ => None,
        })
    }

    pub(super) fn control(&self, ending: Option<&Ending>) -> Finding {
        let reply = self.start_reply();
        let summary = reply.map_or_else(
            || "no Start-Control-Connection-Reply".to_owned(),
            |reply| {
                format!(
                    "PPTP {}, host \"{}\", vendor \"{}\", firmware {}",
                    version(reply.version),
                    reply.host_name,
                    reply.vendor_name,
                    reply.firmware_revision
                )
            },
        );
        let status = ending.map_or(Status::Ok, |_| Status::Failed);
        let mut finding = Finding::new(Phase::Control, status, summary);
        finding.sent = self.control_lines(&self.observed.control_sent, &[1, 3]);
        finding.received = self.control_lines(&self.observed.control_received, &[2, 3, 4]);
        if let Some(reply) = reply {
            finding = finding
                .figure("version", version(reply.version))
                .figure("host_name", reply.host_name.to_string())
                .figure("vendor_name", reply.vendor_name.to_string())
                .figure("firmware_revision", reply.firmware_revision)
                .figure("result_code", reply.result.0)
                .figure("error_code", reply.error.0);
        }
        match (ending, reply) {
            (None, _) => finding,
            (Some(_), Some(reply)) if reply.result != StartResult::SUCCESSFUL => {
                start_refused(finding, reply)
            }
            (Some(_), Some(reply)) if reply.version != VERSION => finding
                .because(format!(
                    "the server speaks PPTP {}, and there is no client for another than 1.0",
                    version(reply.version)
                ))
                .advise("bring the server's software up to date"),
            (Some(ending), _) => self.not_pptp(finding, ending),
        }
    }

    /// Something listens on the port, and it does not do what RFC 2637 says.
    fn not_pptp(&self, mut finding: Finding, ending: &Ending) -> Finding {
        let port = self.config.port;
        let greeting = &self.observed.stream;
        let shown = &greeting[..greeting.len().min(GREETING_SHOWN)];
        if !greeting.is_empty() && self.observed.control_received.is_empty() {
            finding = finding.received(format!("\"{}\"", shown.escape_ascii()));
            let speaks = spoken(greeting);
            finding.summary = format!("{speaks} answers, and not PPTP");
            return finding
                .because(format!(
                    "what listens on TCP port {port} of {} is {speaks}, not a PPTP server",
                    self.address
                ))
                .advise("check the server's name, address and port")
                .elsewhere(format!("ss -ltnp 'sport = :{port}'"));
        }
        let was_reset = matches!(&self.observed.disconnected, Some(Some(_)));
        match ending {
            Ending::ControlTimeout(_) => {
                finding.summary = format!("connected, but silent for {} s", self.timeout.as_secs());
                finding
                    .because(format!(
                        "something accepts connections on TCP port {port} and says nothing: \
                         another program, a proxy or firewall that answers for the server, or a \
                         PPTP server that hangs"
                    ))
                    .elsewhere(format!("ss -ltnp 'sport = :{port}'"))
                    .elsewhere("systemctl restart pptp-fast-server  (or pptpd)")
            }
            Ending::ControlLost(words) => {
                let how = if was_reset { "reset" } else { "closed" };
                finding.summary = format!("the connection was {how} at once");
                finding
                    .received(if was_reset { "RST" } else { "FIN" })
                    .because(format!(
                        "the server takes the connection and lets it go ({words}): it does not \
                         accept this address (hosts.allow, a limit of connections), or it has \
                         broken down"
                    ))
                    .elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50")
            }
            _ => finding
                .advise("check the server's name, address and port")
                .elsewhere(format!("ss -ltnp 'sport = :{port}'")),
        }
    }

    pub(super) fn call(&self, ending: Option<&Ending>) -> Finding {
        let mut received = self.observed.control_received.iter();
        let reply = received.find_map(|message| match message {
            Message::OutgoingCallReply(reply) => Some(reply),
            _ => None,
        });
        let ours = self.observed.call_id.map_or(0, |call_id| call_id.0);
        let summary = reply.map_or_else(
            || "no Outgoing-Call-Reply".to_owned(),
            |reply| match reply.result {
                OutgoingCallResult::CONNECTED => format!(
                    "accepted: call ID {ours} here, {} there, window {}",
                    reply.call_id, reply.receive_window
                ),
                result => format!("refused: {result}"),
            },
        );
        let status = ending.map_or(Status::Ok, |_| Status::Failed);
        let mut finding = Finding::new(Phase::Call, status, summary);
        finding.sent = self.control_lines(&self.observed.control_sent, &[7]);
        finding.received = self.control_lines(&self.observed.control_received, &[3, 8, 13]);
        finding = finding.figure("call_id", ours);
        if let Some(reply) = reply {
            finding = finding
                .figure("peer_call_id", reply.call_id)
                .figure("result_code", reply.result.0)
                .figure("error_code", reply.error.0);
        }
        match (ending, reply) {
            (None, _) => finding,
            (Some(_), Some(reply)) => call_refused(finding, reply),
            (Some(_), None) => finding
                .because("the server speaks PPTP, and does not answer the request for a call")
                .elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50"),
        }
    }

    fn control_lines(&self, messages: &[Message], types: &[u16]) -> Vec<String> {
        let of_types = messages
            .iter()
            .filter(|message| types.contains(&message.message_type()));
        of_types.map(ToString::to_string).collect()
    }
}

fn start_refused(finding: Finding, reply: &StartControlConnectionReply) -> Finding {
    let result = reply.result;
    let finding = match reply.result {
        StartResult::GENERAL_ERROR => {
            finding.because(format!("the server refuses: {result}, {}", reply.error))
        }
        _ => finding.because(format!("the server refuses: {result}")),
    };
    match reply.result {
        StartResult::ALREADY_EXISTS => finding
            .advise(
                "end the other tunnel from this address to the server, or wait for its time-out",
            )
            .command("pptp-fast status; pptp-fast down NAME"),
        StartResult::NOT_AUTHORIZED => {
            finding.advise("let the server accept this host's address (its access list)")
        }
        StartResult::VERSION_NOT_SUPPORTED => {
            finding.advise("bring the server's software up to date: version 1.0 is asked for")
        }
        _ if reply.error == ErrorCode::NO_RESOURCE => {
            finding.advise("raise the server's limit of connections (pptpd: `connections`)")
        }
        _ => finding.elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50"),
    }
}

fn call_refused(finding: Finding, reply: &OutgoingCallReply) -> Finding {
    let result = reply.result;
    let is_full = reply.error == ErrorCode::NO_RESOURCE || result == OutgoingCallResult::BUSY;
    let finding = finding.because(match result {
        OutgoingCallResult::GENERAL_ERROR => {
            format!("the server refuses the call: {result}, {}", reply.error)
        }
        _ => format!("the server refuses the call: {result}"),
    });
    if is_full {
        finding.advise(
            "the server has no free session: wait, or raise its limit (pptpd: `connections`, and \
             as many addresses in `remoteip`; pptp-fast serve: `sessions_max`, and its pool)",
        )
    } else if result == OutgoingCallResult::DO_NOT_ACCEPT {
        finding.advise("the server's administrator has closed it to calls: see its settings")
    } else {
        finding.elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50")
    }
}

fn version(version: u16) -> String {
    let [major, minor] = version.to_be_bytes();
    format!("{major}.{minor}")
}

/// Which protocol begins so.
fn spoken(greeting: &[u8]) -> &'static str {
    let begins = |with: &[u8]| greeting.starts_with(with);
    if begins(b"HTTP/") || begins(b"<!") || begins(b"<html") {
        "a web server (HTTP)"
    } else if begins(b"SSH-") {
        "an SSH server"
    } else if begins(b"220 ") || begins(b"220-") {
        "a mail or FTP server"
    } else if begins(&[0x15, 0x03]) || begins(&[0x16, 0x03]) {
        "a TLS server"
    } else {
        "another program"
    }
}

/// The error number that the operating system's words are those of.
fn errno_of(words: &str) -> Option<Errno> {
    [
        Errno::ECONNREFUSED,
        Errno::EHOSTUNREACH,
        Errno::ENETUNREACH,
        Errno::EPERM,
        Errno::EACCES,
        Errno::ECONNRESET,
    ]
    .into_iter()
    .find(|errno| std::io::Error::from(*errno).to_string() == words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_words_are_traced_back_to_their_number() {
        let refused = std::io::Error::from_raw_os_error(Errno::ECONNREFUSED as i32);
        assert_eq!(errno_of(&refused.to_string()), Some(Errno::ECONNREFUSED));
        assert_eq!(errno_of("no answer to the TCP connection request"), None);
    }

    #[test]
    fn what_is_not_pptp_is_named_by_its_greeting() {
        assert!(spoken(b"HTTP/1.1 400 Bad Request").contains("web"));
        assert!(spoken(b"SSH-2.0-OpenSSH_9.6").contains("SSH"));
        assert_eq!(spoken(b"\0\0"), "another program");
    }
}
