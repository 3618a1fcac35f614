//! What an examination has found, phase by phase, and the verdict over it.

use serde_json::{Map, Value, json};

/// The way from a name to packets in a tunnel, in the order in which it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The server's name has an address.
    Name,
    /// There is a way to it, and no rule of this host's firewall stands in it.
    Route,
    /// A TCP connection.
    Tcp,
    /// Start-Control-Connection.
    Control,
    /// Outgoing-Call.
    Call,
    /// GRE, out and back.
    Gre,
    /// LCP.
    Lcp,
    /// Who we are.
    Authentication,
    /// CCP and MPPE.
    Encryption,
    /// IPCP.
    Addresses,
    /// Round trip and loss inside the tunnel.
    RoundTrip,
    /// How large packets may be.
    PathMtu,
    /// The name servers that the server names.
    Dns,
}

impl Phase {
    /// In order.
    pub const ALL: [Self; 13] = [
        Self::Name,
        Self::Route,
        Self::Tcp,
        Self::Control,
        Self::Call,
        Self::Gre,
        Self::Lcp,
        Self::Authentication,
        Self::Encryption,
        Self::Addresses,
        Self::RoundTrip,
        Self::PathMtu,
        Self::Dns,
    ];

    /// In JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Route => "route",
            Self::Tcp => "tcp",
            Self::Control => "control",
            Self::Call => "call",
            Self::Gre => "gre",
            Self::Lcp => "lcp",
            Self::Authentication => "authentication",
            Self::Encryption => "mppe",
            Self::Addresses => "addresses",
            Self::RoundTrip => "round_trip",
            Self::PathMtu => "path_mtu",
            Self::Dns => "dns",
        }
    }

    /// For a person.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Gre => "GRE",
            Self::Lcp => "LCP",
            Self::Encryption => "MPPE",
            Self::RoundTrip => "round trip",
            Self::PathMtu => "path MTU",
            Self::Dns => "DNS",
            other => other.name(),
        }
    }

    /// What `up` would end with, were this phase the last (pppd's exit status).
    const fn exit_status(self) -> u8 {
        match self {
            Self::Name | Self::Route | Self::Tcp | Self::Control | Self::Call => 16,
            Self::Authentication => 19,
            _ => 10,
        }
    }
}

/// How a phase has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Well.
    Ok,
    /// A tunnel comes up, but not a good one.
    Warning,
    /// There is no tunnel for this reason.
    Failed,
    /// It was not, or could not be, looked into.
    Skipped,
}

impl Status {
    /// In JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One phase.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub phase: Phase,
    /// How it has gone.
    pub status: Status,
    /// In one line.
    pub summary: String,
    /// What went out, a line each.
    pub sent: Vec<String>,
    /// What came back, a line each.
    pub received: Vec<String>,
    /// The likely cause, when it has not gone well.
    pub cause: Option<String>,
    /// What to do, a sentence or a command each.
    pub remedies: Vec<Remedy>,
    /// Measurements, for JSON.
    pub figures: Map<String, Value>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// In words.
    Advice(String),
    /// On this host, as it stands.
    Command(String),
    /// On the server, or on a router on the way.
    Elsewhere(String),
}

impl Finding {
    /// A phase that has gone so.
    #[must_use]
    pub fn new(phase: Phase, status: Status, summary: impl Into<String>) -> Self {
        Self {
            phase,
            status,
            summary: summary.into(),
            sent: Vec::new(),
            received: Vec::new(),
            cause: None,
            remedies: Vec::new(),
            figures: Map::new(),
        }
    }

    /// One that went out.
    #[must_use]
    pub fn sent(mut self, line: impl Into<String>) -> Self {
        self.sent.push(line.into());
        self
    }

    /// One that came back.
    #[must_use]
    pub fn received(mut self, line: impl Into<String>) -> Self {
        self.received.push(line.into());
        self
    }

    /// Why.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// A sentence that says what to do.
    #[must_use]
    pub fn advise(mut self, words: impl Into<String>) -> Self {
        self.remedies.push(Remedy::Advice(words.into()));
        self
    }

    /// A command that helps here.
    #[must_use]
    pub fn command(mut self, line: impl Into<String>) -> Self {
        self.remedies.push(Remedy::Command(line.into()));
        self
    }

    /// A command that helps at the other end or between.
    #[must_use]
    pub fn elsewhere(mut self, line: impl Into<String>) -> Self {
        self.remedies.push(Remedy::Elsewhere(line.into()));
        self
    }

    /// A measurement.
    #[must_use]
    pub fn figure(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.figures.insert(name.to_owned(), value.into());
        self
    }

    fn as_json(&self) -> Value {
        let remedy = |remedy: &Remedy| match remedy {
            Remedy::Advice(words) => json!({ "advice": words }),
            Remedy::Command(line) => json!({ "command": line }),
            Remedy::Elsewhere(line) => json!({ "command_elsewhere": line }),
        };
        let mut object = json!({
            "phase": self.phase.name(),
            "status": self.status.name(),
            "summary": self.summary,
            "sent": self.sent,
            "received": self.received,
            "cause": self.cause,
            "remedies": self.remedies.iter().map(remedy).collect::<Vec<_>>(),
        });
        if let Value::Object(fields) = &mut object {
            fields.extend(self.figures.clone());
        }
        object
    }
}

/// How the whole has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A tunnel comes up, and nothing is wrong with it.
    Well,
    /// A tunnel comes up; these phases have something to say.
    Warnings(Vec<Phase>),
    /// It stopped for lack of a password; all before that is well.
    NoPassword,
    /// No tunnel, because of this phase.
    Failed(Phase),
    /// Somebody ended it.
    Interrupted,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Report {
    /// As it was given.
    pub server: String,
    /// Each phase that was reached, in order.
    pub findings: Vec<Finding>,
    /// It stopped where a password was needed.
    pub lacks_password: bool,
    /// Somebody ended it.
    pub is_interrupted: bool,
}

impl Report {
    /// The whole in one word.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let of = |status| {
            let found = self.findings.iter();
            let found = found.filter(move |finding| finding.status == status);
            found.map(|finding| finding.phase).collect::<Vec<_>>()
        };
        if self.is_interrupted {
            return Verdict::Interrupted;
        }
        if let Some(phase) = of(Status::Failed).first() {
            return Verdict::Failed(*phase);
        }
        if self.lacks_password {
            return Verdict::NoPassword;
        }
        match of(Status::Warning) {
            warnings if warnings.is_empty() => Verdict::Well,
            warnings => Verdict::Warnings(warnings),
        }
    }

    /// 0 all well, 1 warnings, 5 interrupted, 7 no password, and what `up` would end with (10, 16,
    /// 19) when there can be no tunnel.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self.verdict() {
            Verdict::Well => 0,
            Verdict::Warnings(_) => 1,
            Verdict::Interrupted => 5,
            Verdict::NoPassword => 7,
            Verdict::Failed(phase) => phase.exit_status(),
        }
    }

    /// The verdict in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self.verdict() {
            Verdict::Well => "all well: a tunnel to this server works".to_owned(),
            Verdict::Warnings(phases) => {
                let titles: Vec<_> = phases.iter().map(|phase| phase.title()).collect();
                format!("a tunnel works, but look at: {}", titles.join(", "))
            }
            Verdict::NoPassword => {
                "well as far as it goes without a password: give one to see the rest".to_owned()
            }
            Verdict::Failed(phase) => {
                let found = self.findings.iter().find(|finding| finding.phase == phase);
                let cause = found.map_or("", |finding| {
                    finding.cause.as_deref().unwrap_or(&finding.summary)
                });
                format!("no tunnel: {} fails. {cause}", phase.title())
            }
            Verdict::Interrupted => "interrupted".to_owned(),
        }
    }

    /// One object.
    #[must_use]
    pub fn as_json(&self) -> Value {
        let word = match self.verdict() {
            Verdict::Well => "well",
            Verdict::Warnings(_) => "warnings",
            Verdict::NoPassword => "no_password",
            Verdict::Failed(_) => "failed",
            Verdict::Interrupted => "interrupted",
        };
        let failed = match self.verdict() {
            Verdict::Failed(phase) => Some(phase.name()),
            _ => None,
        };
        json!({
            "server": self.server,
            "verdict": word,
            "failed_phase": failed,
            "words": self.sentence(),
            "exit_status": self.exit_status(),
            "phases": self.findings.iter().map(Finding::as_json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(statuses: &[(Phase, Status)]) -> Report {
        let finding = |&(phase, status): &(Phase, Status)| Finding::new(phase, status, "words");
        Report {
            server: "vpn.example.net".to_owned(),
            findings: statuses.iter().map(finding).collect(),
            lacks_password: false,
            is_interrupted: false,
        }
    }

    #[test]
    fn the_exit_status_is_that_of_the_first_failure() {
        let well = report(&[(Phase::Name, Status::Ok), (Phase::Dns, Status::Skipped)]);
        assert_eq!(well.exit_status(), 0);
        let warned = report(&[(Phase::PathMtu, Status::Warning)]);
        assert_eq!(warned.exit_status(), 1);
        assert!(warned.sentence().contains("path MTU"));
        let refused = report(&[
            (Phase::Route, Status::Warning),
            (Phase::Authentication, Status::Failed),
        ]);
        assert_eq!(refused.exit_status(), 19);
        assert_eq!(refused.as_json()["failed_phase"], "authentication");
        assert_eq!(report(&[(Phase::Gre, Status::Failed)]).exit_status(), 10);
        assert_eq!(report(&[(Phase::Tcp, Status::Failed)]).exit_status(), 16);
    }

    #[test]
    fn figures_stand_beside_the_words_of_a_phase() {
        let finding = Finding::new(Phase::PathMtu, Status::Warning, "1300 octets")
            .figure("path_mtu", 1300)
            .command("pptp-fast up office --mtu 1256");
        let object = finding.as_json();
        assert_eq!(object["path_mtu"], 1300);
        assert_eq!(
            object["remedies"][0]["command"],
            "pptp-fast up office --mtu 1256"
        );
    }
}
