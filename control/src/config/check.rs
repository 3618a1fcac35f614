//! What becomes of every option of a configuration: honoured, harmless, or refused, and why.

use std::path::Path;

use super::ClientConfig;
use super::client::Flags;
use super::error::{ConfigError, Place};
use super::network_manager;
use super::option_table::{self, Treatment};
use super::peers::{self, Peer};
use super::pppd_options::{PppdOptions, Setting};
use super::source;
use super::words::Words;

/// What is done with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does what its manual says.
    Honoured,
    /// It is accepted and changes nothing.
    Harmless,
    /// The tunnel does not come up with it, or it is passed over and would be missed.
    Refused,
}

impl Verdict {
    /// A word for a table.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Harmless => "harmless",
            Self::Refused => "refused",
        }
    }
}

/// One option of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name; empty where a line cannot be read, or the whole is meant.
    pub option: String,
    /// Its argument, `??????` for a secret.
    pub value: String,
    /// What is done with it.
    pub verdict: Verdict,
    /// Why; empty when it is honoured and nothing is to be said.
    pub reason: String,
    /// Where it stands.
    pub place: Place,
}

/// All of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which options are read.
    pub findings: Vec<Finding>,
    /// What a person should know besides: secrets that others can read, a secret that is missing.
    pub warnings: Vec<String>,
}

impl Report {
    /// The tunnel `name` of `dir`/peers, as `up` reads it.
    ///
    /// # Errors
    /// There is no such tunnel.
    pub fn of_peer(dir: &Path, name: &str, host_name: &str) -> Result<Self, ConfigError> {
        let peer = Peer::read(dir, name)?;
        let file = peers::path(dir, name);
        let place = Place {
            file: Some(file.display().to_string().into()),
            line: 0,
        };
        let mut report = Self::default();
        let mut options = PppdOptions::default();
        let system = dir.join("options");
        let mut problems = match system.exists() {
            true => options.check_file(dir, &system),
            false => Vec::new(),
        };
        problems.extend(options.check_file(dir, &file));
        report.add_comments(&peer, &place);
        report.add_options(&options, &problems);
        match ClientConfig::from_peer(dir, name, &Flags::default(), host_name) {
            Ok(config) => {
                report.warnings = config.warnings.clone();
                report.warnings.extend(missing_secret(dir, &config));
            }
            // What the options say together; what they say one by one is told already.
            Err(error) if problems.is_empty() => report.findings.push(problem(&error, &place)),
            Err(_) => {}
        }
        Ok(report)
    }

    /// An options file, or a connection of NetworkManager.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_file(dir: &Path, path: &Path) -> Result<Self, ConfigError> {
        let text = source::read("options file", path, &Place::command_line())?;
        if network_manager::is_keyfile(&text) {
            let connection = network_manager::parse(&path.to_string_lossy(), &text)?;
            return Ok(Self {
                findings: connection.findings,
                warnings: Vec::new(),
            });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let peer = Peer::parse(&name, &path.to_string_lossy(), &text);
        let place = Place {
            file: Some(path.display().to_string().into()),
            line: 0,
        };
        let mut report = Self::default();
        let mut options = PppdOptions::default();
        let problems = options.check_text(dir, &path.to_string_lossy(), &text);
        report.add_comments(&peer, &place);
        report.add_options(&options, &problems);
        Ok(report)
    }

    /// Something is refused.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Refused)
    }

    /// pptp-command's comments, which are options to it.
    fn add_comments(&mut self, peer: &Peer, place: &Place) {
        let honoured = |option: &str, value: &str| Finding {
            option: option.to_owned(),
            value: value.to_owned(),
            verdict: Verdict::Honoured,
            reason: String::new(),
            place: place.clone(),
        };
        if let Some(server) = &peer.server {
            self.findings.push(honoured("# Server IP:", server));
        }
        for route in &peer.routes {
            self.findings.push(honoured("# Route:", &route.text));
        }
        for warning in &peer.warnings {
            self.findings.push(Finding {
                verdict: Verdict::Refused,
                reason: without_place(warning).to_owned(),
                ..honoured("# Route:", "")
            });
        }
    }

    fn add_options(&mut self, options: &PppdOptions, problems: &[ConfigError]) {
        for (index, setting) in options.settings.iter().enumerate() {
            let later = options.settings.get(index + 1..).unwrap_or_default();
            self.findings.push(finding(setting, later));
            if setting.spec.name == "pty" {
                self.add_pptp(options, setting);
            }
        }
        for error in problems {
            if !matches!(error, ConfigError::Refused { .. }) {
                self.findings.push(problem(error, &Place::command_line()));
            }
        }
    }

    /// The options of the `pptp` in a `pty` line, one by one.
    fn add_pptp(&mut self, options: &PppdOptions, pty: &Setting) {
        for word in &options.pptp.given {
            self.findings.push(Finding {
                option: format!("pptp {}", word.name),
                value: word.value.clone(),
                verdict: match word.harmless {
                    Some(_) => Verdict::Harmless,
                    None => Verdict::Honoured,
                },
                reason: word.harmless.unwrap_or_default().to_owned(),
                place: pty.place.clone(),
            });
        }
    }
}

fn finding(setting: &Setting, later: &[Setting]) -> Finding {
    let (verdict, reason) = match setting.spec.treatment {
        Treatment::Honoured(_) => (Verdict::Honoured, overruled(setting, later)),
        Treatment::Harmless(reason) => (Verdict::Harmless, reason.to_owned()),
        Treatment::Refused(reason) => (Verdict::Refused, reason.to_owned()),
    };
    Finding {
        option: match setting.spec.wild {
            true => String::new(),
            false => setting.spec.name.to_owned(),
        },
        value: setting.shown.clone(),
        verdict,
        reason,
        place: setting.place.clone(),
    }
}

/// A later option sets the same. Some add up instead.
fn overruled(setting: &Setting, later: &[Setting]) -> String {
    const ADD_UP: [&str; 8] = [
        "ms-dns", "ms-wins", "set", "unset", "plugin", "debug", "asyncmap", "auth",
    ];
    if ADD_UP.contains(&setting.spec.group) || setting.spec.wild {
        return String::new();
    }
    let same = |other: &&Setting| other.spec.group == setting.spec.group;
    match later.iter().rfind(same) {
        Some(last) if last.place.file == setting.place.file => {
            format!("line {} has the last word", last.place.line)
        }
        Some(last) => format!(
            "line {} of {} has the last word",
            last.place.line,
            last.place.source()
        ),
        None => String::new(),
    }
}

/// An error as a finding; `otherwise` is its place when it names none.
fn problem(error: &ConfigError, otherwise: &Place) -> Finding {
    let (option, place) = match error {
        ConfigError::UnknownOption { place, name, .. }
        | ConfigError::TooFewParameters { place, name }
        | ConfigError::Refused { place, name, .. } => (name.clone(), place),
        ConfigError::BadValue { place, .. } => (option_at(place), place),
        ConfigError::TooDeep { place, .. } | ConfigError::Unreadable { place, .. } => {
            (option_at(place), place)
        }
        _ => (String::new(), otherwise),
    };
    let words = error.to_string();
    let end = format!(" (line {})", place.line);
    Finding {
        option,
        value: String::new(),
        verdict: Verdict::Refused,
        reason: without_place(&words).replacen(&end, "", 1),
        place: place.clone(),
    }
}

/// An error's words without pppd's opening `In file F, line N: `; the place has a column.
fn without_place(words: &str) -> &str {
    match words
        .strip_prefix("In file ")
        .and_then(|rest| rest.split_once(": "))
    {
        Some((_, words)) => words,
        None => words,
    }
}

/// The option that opens the line of `place`. Nothing else that stands there is shown: it may be
/// a secret.
fn option_at(place: &Place) -> String {
    let Some(file) = &place.file else {
        return String::new();
    };
    let Ok(Some(text)) = source::read_if_exists("options file", Path::new(&**file)) else {
        return String::new();
    };
    let mut words = Words::new(file, &text);
    while let Ok(Some(word)) = words.next_word() {
        if word.line == place.line {
            let name = word.to_text();
            return option_table::find(&name).map_or_else(String::new, |_| name);
        }
    }
    String::new()
}

/// The tunnel asks for a secret that no file has.
fn missing_secret(dir: &Path, config: &ClientConfig) -> Option<String> {
    let server = config.link.remote_name.as_deref()?;
    let client = &config.link.name;
    let find = |pap| config.link.secrets.find(client, server, pap).is_some();
    if find(false) || find(true) {
        return None;
    }
    Some(format!(
        "{} has no secret of {client} and {server}. Add it: pptp-fast secret add '{client}' \
         '{server}'",
        dir.join("chap-secrets").display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn of_text(text: &str) -> Report {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("options.pptp");
        fs::write(&path, text).unwrap();
        Report::of_file(dir.path(), &path).unwrap()
    }

    fn rows(report: &Report) -> Vec<(&str, &str, &str, u32)> {
        let row = |finding: &'_ Finding| finding.verdict.word();
        report
            .findings
            .iter()
            .map(|f| (f.option.as_str(), f.value.as_str(), row(f), f.place.line))
            .collect()
    }

    #[test]
    fn every_option_has_a_row_with_its_line() {
        let report = of_text(
            "# Server IP: 10.0.0.5\nlock\nnovj # no\nmppe required,stateless,no40,no56\n\
             plugin pptp.so\npptp_server 10.0.0.5\n10.0.0.1:10.0.0.2\n",
        );
        assert_eq!(
            rows(&report),
            [
                ("# Server IP:", "10.0.0.5", "honoured", 0),
                ("lock", "", "honoured", 2),
                ("novj", "", "harmless", 3),
                ("mppe", "required,stateless,no40,no56", "honoured", 4),
                ("plugin", "pptp.so", "honoured", 5),
                ("pptp_server", "10.0.0.5", "honoured", 6),
                ("", "10.0.0.1:10.0.0.2", "honoured", 7),
            ]
        );
        assert!(!report.refuses());
    }

    #[test]
    fn what_is_refused_has_a_reason_without_the_place() {
        let report = of_text("require-mpe-128\nmtu 5\nconnect chat\nmru");
        let refused: Vec<_> = report
            .findings
            .iter()
            .map(|f| (f.option.as_str(), f.reason.as_str()))
            .collect();
        assert_eq!(
            refused,
            [
                (
                    "connect",
                    "there is no serial line that a script could prepare"
                ),
                (
                    "require-mpe-128",
                    "unrecognized option 'require-mpe-128'. Did you mean 'require-mppe-128'?"
                ),
                ("mtu", "mtu value must be between 128 and 1904, not 5"),
                ("mru", "too few parameters for option 'mru'"),
            ]
        );
        assert!(report.refuses());
    }

    #[test]
    fn the_options_of_pptp_have_rows_of_their_own() {
        let report = of_text(
            "pty \"/usr/sbin/pptp vpn.example --nolaunchpppd --loglevel 0 \
             --logstring nm-pptp-service-1 --phone 55 --timeout=0.5\"\n",
        );
        assert_eq!(
            rows(&report)[1..],
            [
                ("pptp --nolaunchpppd", "", "harmless", 1),
                ("pptp --loglevel", "0", "harmless", 1),
                ("pptp --logstring", "nm-pptp-service-1", "honoured", 1),
                ("pptp --phone", "55", "honoured", 1),
                ("pptp --timeout", "0.5", "honoured", 1),
            ]
        );
    }

    #[test]
    fn an_option_that_a_later_line_overrules_says_so() {
        let report = of_text("mtu 1400\ndebug\ndebug\nmtu 1300\n");
        let reasons: Vec<_> = report.findings.iter().map(|f| f.reason.as_str()).collect();
        assert_eq!(reasons, ["line 4 has the last word", "", "", ""]);
    }

    #[test]
    fn no_secret_is_shown() {
        let report = of_text("password mia123\npassword 'mia123\n");
        assert!(!format!("{report:?}").contains("mia123"), "{report:?}");
        assert!(report.refuses());
    }

    #[test]
    fn a_tunnel_without_a_server_is_refused_and_a_missing_secret_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("peers")).unwrap();
        let path = dir.path().join("peers/test2");
        let options = "# PPTP\nname mia\nremotename zidler\n";
        fs::write(&path, options).unwrap();
        let report = Report::of_peer(dir.path(), "test2", "host").unwrap();
        assert!(report.refuses());
        let last = report.findings.last().unwrap();
        assert!(
            last.reason
                .starts_with("Server Address for test2 not found"),
            "{last:?}"
        );

        fs::write(&path, format!("# Server IP: 10.0.0.5\n{options}")).unwrap();
        fs::write(dir.path().join("options"), "lock\n").unwrap();
        let report = Report::of_peer(dir.path(), "test2", "host").unwrap();
        assert!(!report.refuses());
        assert!(
            report.warnings[0].contains("no secret of mia and zidler"),
            "{report:?}"
        );
        assert!(rows(&report).iter().any(|row| row.0 == "lock"));
    }
}
