//! PPP: LCP, authentication, CCP with MPPE, IPCP (RFC 1661, 1994, 2433, 2759, 3078, 1332).

use super::super::super::engine::Direction::{self, Rcvd, Sent};
use super::super::report::{Finding, Phase, Status};
use super::Case;
use crate::proto::auth::AuthMethod;
use crate::proto::ending::Ending;
use crate::wire::ccp::{CcpOption, MppeBits};
use crate::wire::chap::ChapPacket;
use crate::wire::cp::{Code, ConfigOption};
use crate::wire::lcp::{AuthProtocol, LcpOption};
use crate::wire::pap::PapPacket;
use crate::wire::ppp::Protocol;

impl Case<'_> {
    fn of_protocols(
        &self,
        phase: Phase,
        ending: Option<&Ending>,
        protocols: &[Protocol],
    ) -> Finding {
        let status = ending.map_or(Status::Ok, |_| Status::Failed);
        let mut finding = Finding::new(phase, status, "");
        finding.sent = self.observed.lines(Sent, protocols);
        finding.received = self.observed.lines(Rcvd, protocols);
        finding
    }

    /// What was asked, and what the other end refused of it, each in pppd's words.
    fn wishes<O: ConfigOption + std::fmt::Display>(
        &self,
        asker: Direction,
        protocol: Protocol,
    ) -> (Vec<String>, Vec<String>) {
        let other = match asker {
            Sent => Rcvd,
            Rcvd => Sent,
        };
        let words = |direction, code| {
            let options: Vec<O> = self.observed.options(direction, protocol, code);
            let mut words: Vec<String> = options.iter().map(ToString::to_string).collect();
            words.sort();
            words.dedup();
            words
        };
        let asked = words(asker, Code::CONFIGURE_REQUEST);
        let mut refused = words(other, Code::CONFIGURE_REJECT);
        refused.extend(words(other, Code::CONFIGURE_NAK));
        (asked, refused)
    }

    pub(super) fn lcp(&self, ending: Option<&Ending>) -> Finding {
        let mut finding = self.of_protocols(Phase::Lcp, ending, &[Protocol::LCP]);
        let (we_asked, they_refused) = self.wishes::<LcpOption>(Sent, Protocol::LCP);
        let (they_asked, we_refused) = self.wishes::<LcpOption>(Rcvd, Protocol::LCP);
        finding.summary = match (they_refused.is_empty(), we_refused.is_empty()) {
            (true, true) => "both sides agree".to_owned(),
            (false, true) => format!("agreed; they did not take {}", they_refused.join(" ")),
            (true, false) => format!("agreed; we did not take {}", we_refused.join(" ")),
            (false, false) => format!(
                "agreed; they did not take {}, nor we {}",
                they_refused.join(" "),
                we_refused.join(" ")
            ),
        };
        if let Some(method) = self.asked_method() {
            let method = method_in_words(&method);
            finding
                .summary
                .push_str(&format!("; they ask for {method}"));
        }
        finding = finding
            .figure("we_asked", we_asked)
            .figure("they_refused", they_refused)
            .figure("they_asked", they_asked)
            .figure("we_refused", we_refused);
        let Some(ending) = ending else {
            return finding;
        };
        finding.summary = "no agreement".to_owned();
        match ending {
            Ending::PeerIncompatible(why) => {
                finding.summary = "no way to prove who we are that both sides take".to_owned();
                let demanded = why.contains("demands");
                let finding = finding.because(why);
                match demanded {
                    true => self
                        .with_allowed_methods(finding)
                        .elsewhere("require-mschap-v2  (in the server's pppd options)"),
                    false => finding,
                }
            }
            Ending::LoopedBack => finding
                .because("our own packets come back: something on the way reflects GRE")
                .advise("check the address of the server: it may be one of this host's own"),
            Ending::PeerAuthFailed(why) => finding
                .because(format!("we ask the server to prove who it is, and {why}"))
                .advise("servers seldom can: put `noauth` into the peers file"),
            Ending::NegotiationFailed(_) => finding
                .because(
                    "GRE came back once, and then the server did not answer LCP any more, or \
                     never agreed",
                )
                .elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50"),
            Ending::PeerRequest(why) => finding
                .because(format!("the server gives up: {why}"))
                .elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50"),
            _ => finding,
        }
    }

    fn with_allowed_methods(&self, finding: Finding) -> Finding {
        let allowed = self.config.link.allow;
        let methods = [
            (allowed.eap, "refuse-eap"),
            (allowed.mschap_v2, "refuse-mschap-v2"),
            (allowed.mschap_v1, "refuse-mschap"),
            (allowed.chap_md5, "refuse-chap"),
            (allowed.pap, "refuse-pap"),
        ];
        let refused = methods.iter().filter(|(is_allowed, _)| !is_allowed);
        let options: Vec<_> = refused.map(|(_, option)| format!("`{option}`")).collect();
        match options.is_empty() {
            true => finding,
            false => finding.advise(format!("take away the option {}", options.join(" or "))),
        }
    }

    /// How the server wants us to prove who we are.
    fn asked_method(&self) -> Option<AuthProtocol> {
        let options: Vec<LcpOption> =
            self.observed
                .options(Rcvd, Protocol::LCP, Code::CONFIGURE_REQUEST);
        options.into_iter().rev().find_map(|option| match option {
            LcpOption::Auth(method) => Some(method),
            _ => None,
        })
    }

    pub(super) fn authentication(&self, ending: Option<&Ending>) -> Finding {
        const PROTOCOLS: [Protocol; 3] = [Protocol::CHAP, Protocol::PAP, Protocol::EAP];
        let mut finding = self.of_protocols(Phase::Authentication, ending, &PROTOCOLS);
        let name = &self.config.link.name;
        let asked = self.asked_method();
        let method = asked.as_ref().map(method_in_words);
        let method = method.unwrap_or_else(|| "nothing".to_owned());
        finding = finding
            .figure("method", method.clone())
            .figure("user", name.clone());
        let Some(ending) = ending else {
            finding.summary = match asked {
                None => "the server does not ask who we are".to_owned(),
                Some(_) => format!("{method} as \"{name}\": accepted"),
            };
            return finding;
        };
        let refusal = self.refusal();
        if let Some(code) = refusal.as_deref().and_then(error_code) {
            finding = finding.figure("error_code", code);
        }
        finding.summary = format!("{method} as \"{name}\": not accepted");
        match ending {
            Ending::NoSecret { .. } if !self.has_password => self.stopped(finding, &method),
            Ending::NoSecret {
                client,
                server,
                file,
            } => {
                finding.summary = format!("{method} as \"{name}\": no password here");
                finding
                    .because(format!(
                        "{file} has no line for \"{client}\" and \"{server}\""
                    ))
                    .command(format!("pptp-fast secret add '{client}' '{server}'"))
            }
            Ending::PeerAuthFailed(why) => {
                finding.summary = format!("{method}: the server does not prove who it is");
                finding.because(why).advise(
                    "do not use this server until its administrator has confirmed its address: it \
                     accepts anybody, to hear what comes",
                )
            }
            Ending::AuthFailed(_)
            | Ending::PasswordExpired { .. }
            | Ending::PasswordNotChanged(_) => self.not_accepted(finding, refusal.as_deref()),
            Ending::PeerRequest(_) | Ending::ControlLost(_) if self.was_answered() => {
                self.not_accepted(finding, refusal.as_deref())
            }
            Ending::PeerRequest(_) | Ending::ControlLost(_) | Ending::NegotiationFailed(_) => {
                finding.summary = format!("{method} as \"{name}\": no answer");
                finding
                    .because(
                        "the server asked who we are and did not decide: it does not reach its own \
                         user database (RADIUS, Active Directory, winbind)",
                    )
                    .elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50")
            }
            _ => finding,
        }
    }

    fn stopped(&self, mut finding: Finding, method: &str) -> Finding {
        finding.status = Status::Skipped;
        finding.summary = format!("the server asks for {method}, and no password was given");
        finding
            .because("without user name and password the examination stops here")
            .command(format!(
                "pptp-fast doctor {} --user NAME --password-file FILE",
                self.config.server
            ))
    }

    fn was_answered(&self) -> bool {
        self.refusal().is_some()
    }

    /// What the server said against us.
    fn refusal(&self) -> Option<String> {
        let chap = self.observed.payloads(Rcvd, Protocol::CHAP);
        let eap = self.observed.payloads(Rcvd, Protocol::EAP);
        let pap = self.observed.payloads(Rcvd, Protocol::PAP);
        let of_chap = chap
            .iter()
            .filter_map(|payload| match ChapPacket::parse(payload) {
                Ok(ChapPacket::Failure { message, .. }) => Some(message),
                _ => None,
            });
        let of_pap = pap
            .iter()
            .filter_map(|payload| match PapPacket::parse(payload) {
                Ok(PapPacket::AuthenticateNak { message, .. }) => Some(message),
                _ => None,
            });
        // EAP-MSCHAPv2 carries the same words.
        let of_eap = eap.iter().filter_map(|payload| {
            let at = payload.windows(2).position(|pair| pair == b"E=")?;
            payload.get(at..)
        });
        let message = of_chap.chain(of_pap).chain(of_eap).last()?;
        Some(message.escape_ascii().to_string())
    }

    fn not_accepted(&self, finding: Finding, refusal: Option<&str>) -> Finding {
        let name = &self.config.link.name;
        let code = refusal.and_then(error_code);
        let mut finding = finding;
        if let Some(words) = refusal.and_then(failure_text) {
            finding.summary.push_str(&format!(" (\"{words}\")"));
        }
        match code {
            Some(646) => finding
                .because(format!("E=646: \"{name}\" may not log on at this hour"))
                .advise("try at another time, or have the account's logon hours extended"),
            Some(647) => finding
                .because(format!("E=647: the account \"{name}\" is disabled"))
                .advise("have the administrator enable the account"),
            Some(648) => {
                let finding =
                    finding.because(format!("E=648: the password of \"{name}\" has expired"));
                finding.command(format!("{} --new-password-file FILE", self.up()))
            }
            Some(649) => finding
                .because(format!("E=649: \"{name}\" has no permission to dial in"))
                .elsewhere(
                    "Active Directory: the user's Dial-in tab, Network Access Permission, Allow \
                     access; or an NPS policy that grants it",
                ),
            Some(709) => finding
                .because("E=709: the server does not take the new password")
                .advise("choose one that its rules allow: longer, of other characters, never used"),
            Some(691) => self.wrong_password(finding, "E=691"),
            Some(code) => finding
                .because(format!("the server refuses with Microsoft's error {code}"))
                .elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50"),
            None => self.wrong_password(finding, "the server says so without a code"),
        }
    }

    /// Servers do not tell which of the two it is, so as not to help those who guess.
    fn wrong_password(&self, finding: Finding, said: &str) -> Finding {
        let name = &self.config.link.name;
        let finding = finding.because(format!(
            "{said}: the password is wrong, or there is no user \"{name}\""
        ));
        let finding = match self.config.call_file.is_some() {
            true => finding.command(format!(
                "pptp-fast secret add '{name}'  (asks for it again)"
            )),
            false => finding.advise("check the first line of the password file"),
        };
        let finding = match name.contains('\\') {
            true => finding,
            false => finding.advise(format!(
                "a Windows server may want its domain, too: --user 'DOMAIN\\{name}'"
            )),
        };
        finding.elsewhere(format!(
            "pptp-fast secret list  (is \"{name}\" there, letter for letter?)"
        ))
    }

    /// MPPE bits of both sides, those of the latest packet last.
    fn mppe_bits(&self, direction: Direction, codes: &[Code]) -> Vec<MppeBits> {
        let options = codes.iter().flat_map(|code| {
            self.observed
                .options::<CcpOption>(direction, Protocol::CCP, *code)
        });
        options
            .filter_map(|option| match option {
                CcpOption::Mppe(bits) => Some(bits),
                CcpOption::Other(..) => None,
            })
            .collect()
    }

    pub(super) fn encryption(&self, ending: Option<&Ending>) -> Finding {
        let mut finding = self.of_protocols(Phase::Encryption, ending, &[Protocol::CCP]);
        let words = |direction| {
            let offers = [Code::CONFIGURE_REQUEST, Code::CONFIGURE_NAK];
            let mut offered: Vec<String> = self
                .mppe_bits(direction, &offers)
                .into_iter()
                .map(bits_in_words)
                .collect();
            offered.dedup();
            match offered.is_empty() {
                true => "nothing".to_owned(),
                false => offered.join(", then "),
            }
        };
        let (ours, theirs) = (words(Sent), words(Rcvd));
        finding = finding
            .figure("we_offered", ours.clone())
            .figure("they_offered", theirs.clone());
        let Some(ending) = ending else {
            let cipher = self
                .observed
                .network
                .as_ref()
                .map(|network| network.cipher.clone());
            let cipher = match (&self.observed.cipher, cipher) {
                (Some(words), _) => words.replace(" compression enabled", ""),
                (None, Some(cipher)) if cipher != "none" => cipher,
                _ => "none: packets are not encrypted".to_owned(),
            };
            finding.summary = format!("{cipher}; we offered {ours}; they {theirs}");
            finding = finding.figure("cipher", cipher);
            return finding;
        };
        finding.summary = format!("no agreement: we offer {ours}; they offer {theirs}");
        self.mismatch(finding, ending)
    }

    fn mismatch(&self, finding: Finding, ending: &Ending) -> Finding {
        let theirs = self.mppe_bits(Rcvd, &[Code::CONFIGURE_REQUEST, Code::CONFIGURE_NAK]);
        let theirs = theirs.iter().fold(0, |all, bits| all | bits.0);
        let (has_40, has_56) = (theirs & MppeBits::BITS_40, theirs & MppeBits::BITS_56);
        let has_128 = theirs & MppeBits::BITS_128 != 0;
        let Some(mppe) = &self.config.link.mppe else {
            let strength = if has_128 || theirs == 0 { "128" } else { "40" };
            let finding = finding.because(
                "the server requires encryption (MPPE), and this side has it switched off",
            );
            return match self.peers_file() {
                Some(file) => finding.advise(format!(
                    "in {file}, take `nomppe` and `noccp` away, and put `require-mppe-{strength}`"
                )),
                None => finding.command(format!(
                    "{} --require-mppe-{strength}  (instead of --no-mppe)",
                    self.up()
                )),
            };
        };
        let finding = match ending {
            Ending::MppeRefused { ours, .. } if theirs != 0 => finding.because(format!(
                "{ours}, and the server wants {}",
                bits_in_words(MppeBits(theirs))
            )),
            Ending::MppeRefused { ours, theirs } => finding.because(format!("{ours}; {theirs}")),
            Ending::PeerRequest(why) => finding.because(format!(
                "the server gives up over encryption, and says: \"{why}\""
            )),
            other => finding.because(other.to_string()),
        };
        let keyless =
            matches!(ending, Ending::MppeRefused { theirs, .. } if theirs.contains("keys"));
        if keyless {
            return finding
                .advise("let the server ask for MS-CHAPv2: no other method makes keys")
                .elsewhere("require-mschap-v2  (in the server's pppd options)");
        }
        if has_128 && mppe.allow_128 && !mppe.allow_stateful {
            return self.with_option(finding, "mppe-stateful", "--mppe-stateful");
        }
        if theirs == 0 || self.observed.is_rejected(Protocol::CCP) {
            let finding = finding
                .elsewhere("require-mppe-128  (in the server's pppd options: encrypts)")
                .advise("or do without encryption: everyone on the way can read along then");
            return self.with_option(finding, "nomppe", "--no-mppe");
        }
        match (has_128, has_56 != 0, has_40 != 0) {
            (true, ..) => self.with_option(finding, "require-mppe-128", "--require-mppe-128"),
            (_, _, true) => self
                .with_option(finding, "require-mppe-40", "--require-mppe-40")
                .elsewhere("require-mppe-128  (in the server's pppd options: better)"),
            (_, true, _) => finding.elsewhere(
                "require-mppe-128  (in the server's pppd options: 56 bits alone will not do)",
            ),
            _ => finding,
        }
    }

    pub(super) fn addresses(&self, ending: Option<&Ending>) -> Finding {
        let mut finding = self.of_protocols(Phase::Addresses, ending, &[Protocol::IPCP]);
        if let (None, Some(network)) = (ending, &self.observed.network) {
            let dns: Vec<_> = network
                .dns
                .iter()
                .flatten()
                .map(ToString::to_string)
                .collect();
            let servers = match dns.is_empty() {
                true => "no name servers".to_owned(),
                false => format!("name servers {}", dns.join(" and ")),
            };
            finding.summary = format!(
                "{} here, {} there, {servers}",
                network.local, network.remote
            );
            return finding
                .figure("local_ip", network.local.to_string())
                .figure("peer_ip", network.remote.to_string())
                .figure("dns", dns);
        }
        finding.summary = "no addresses agreed".to_owned();
        match ending {
            Some(Ending::PeerRequest(why)) => finding.because(format!(
                "the server ends the link while addresses are negotiated, and says: \"{why}\": it \
                 may have none left, or not the one that was asked for"
            )),
            Some(Ending::NegotiationFailed(_)) => {
                finding.because("the server does not answer IPCP: it has no address to give")
            }
            Some(other) => finding.because(other.to_string()),
            None => finding,
        }
        .elsewhere("more addresses in `remoteip` (pptpd) or the pool (pptp-fast serve)")
        .advise("ask for no particular address: take `ADDRESS:ADDRESS` out of the options")
    }
}

fn method_in_words(method: &AuthProtocol) -> String {
    AuthMethod::from_protocol(method).map_or_else(|| method.to_string(), |it| it.to_string())
}

/// `E=` of a Microsoft failure message (RFC 2433 5, RFC 2759 6).
fn error_code(message: &str) -> Option<u32> {
    let rest = message.split("E=").nth(1)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// `M=` of such a message, or all of one that has no such fields.
fn failure_text(message: &str) -> Option<&str> {
    let text = match message.split_once("M=") {
        Some((_, text)) => text,
        None if message.contains("E=") => "",
        None => message,
    };
    (!text.is_empty()).then_some(text)
}

/// `128 or 40 bit, stateless`.
fn bits_in_words(bits: MppeBits) -> String {
    let known = [
        (MppeBits::BITS_128, "128"),
        (MppeBits::BITS_56, "56"),
        (MppeBits::BITS_40, "40"),
    ];
    let strengths: Vec<_> = known
        .iter()
        .filter(|(bit, _)| bits.0 & bit != 0)
        .map(|(_, words)| *words)
        .collect();
    let strengths = match strengths.is_empty() {
        true => "no key length".to_owned(),
        false => format!("{} bit", strengths.join(" or ")),
    };
    let mode = if bits.0 & MppeBits::STATELESS != 0 {
        "stateless"
    } else {
        "stateful"
    };
    let compression = if bits.0 & MppeBits::MPPC != 0 {
        ", with MPPC"
    } else {
        ""
    };
    format!("{strengths}, {mode}{compression}")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use dataplane::program::CallId;

    use super::super::super::ear::Heard;
    use super::super::super::firewall::Helper;
    use super::super::super::observe::{Observed, trace_to};
    use super::*;
    use crate::config::client::ClientConfig;
    use crate::wire::ppp::{self, HeaderCompression};

    #[test]
    fn mppe_bits_read_as_words() {
        let all = MppeBits(MppeBits::STATELESS | MppeBits::BITS_128 | MppeBits::BITS_40);
        assert_eq!(bits_in_words(all), "128 or 40 bit, stateless");
        let weak = MppeBits(MppeBits::BITS_40 | MppeBits::MPPC);
        assert_eq!(bits_in_words(weak), "40 bit, stateful, with MPPC");
        assert_eq!(bits_in_words(MppeBits(0)), "no key length, stateful");
    }

    #[test]
    fn the_error_code_of_a_failure_is_found() {
        assert_eq!(error_code("E=691 R=1 C=00 V=3 M=Access denied"), Some(691));
        assert_eq!(error_code("E=709"), Some(709));
        assert_eq!(error_code("Login incorrect"), None);
    }

    /// What is made of a server that answers our MS-CHAPv2 response so.
    fn judged(message: &[u8]) -> Finding {
        let dir = tempfile::tempdir().unwrap();
        let flags = crate::config::client::Flags {
            server: Some("vpn.example.net".to_owned()),
            user: Some("mia".to_owned()),
            ..Default::default()
        };
        let config = ClientConfig::from_flags(dir.path(), &flags, "host").unwrap();
        let failure = ChapPacket::Failure { id: 1, message };
        let frame = ppp::frame(
            Protocol::CHAP,
            &failure.to_bytes(),
            HeaderCompression::default(),
        );
        let (frames, echoes) = Default::default();
        let mut trace = trace_to(&frames, &echoes);
        trace(CallId(1), Rcvd, &frame);
        let observed = Observed::new(frames, echoes);
        let case = Case {
            config: &config,
            has_password: true,
            address: Ipv4Addr::new(203, 0, 113, 5),
            local: Ipv4Addr::new(192, 168, 1, 7),
            is_neighbour: false,
            timeout: Duration::from_secs(10),
            observed: &observed,
            heard: &Heard::default(),
            obstacles: None,
            helper: Helper::default(),
            send_refused: 0,
            worker_received: 1,
        };
        let ending = Ending::AuthFailed("Access denied".to_owned());
        case.judge(Phase::Authentication, Some(&ending))
    }

    #[test]
    fn every_error_code_of_microsoft_has_its_meaning_and_remedy() {
        for (code, meaning, remedy) in [
            (646, "may not log on at this hour", "logon hours"),
            (647, "is disabled", "enable the account"),
            (648, "has expired", "--new-password-file FILE"),
            (649, "no permission to dial in", "Dial-in tab"),
            (
                691,
                "password is wrong, or there is no user \"mia\"",
                "DOMAIN\\mia",
            ),
            (709, "does not take the new password", "its rules allow"),
            (742, "Microsoft's error 742", "journalctl"),
        ] {
            let message = format!("E={code} R=0 C=00 V=3 M=No");
            let finding = judged(message.as_bytes());
            assert_eq!(finding.status, Status::Failed);
            assert_eq!(finding.figures["error_code"], code);
            let cause = finding.cause.unwrap();
            assert!(cause.contains(meaning), "{code}: {cause}");
            let remedies = format!("{:?}", finding.remedies).replace("\\\\", "\\");
            assert!(remedies.contains(remedy), "{code}: {remedies}");
            assert!(finding.summary.contains("(\"No\")"), "{}", finding.summary);
        }
    }
}
