//! `pptp-fast doctor`: why a tunnel does not come up, and what to do about it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{fail, host_name, password, ppp_directory, print_line, warn};
use crate::config::client::{ClientConfig, Flags};
use crate::config::peers;
use crate::driver::doctor::{self, Finding, Options, Phase, Progress, Remedy, Report, Status};
use crate::driver::runtime;

/// Where no terminal says how wide it is, and the most that is easy to read.
const WIDTH_DEFAULT: usize = 100;
const WIDTH_MAX: usize = 120;
const WIDTH_MIN: usize = 60;
/// Columns in front of what is said about a phase.
const INDENT: usize = 25;

/// Find out why a tunnel does not come up, and say what to do.
///
/// Goes the way to a tunnel step by step: name, route, TCP port 1723, control connection, call,
/// GRE out and back, LCP, authentication, encryption, addresses; then round trip and loss, path
/// MTU and name servers inside it. Shows what was sent and what came back, names the likely cause
/// of what is wrong, and the command that puts it right.
///
/// This host gets no interface, address or route, and a tunnel that runs is not touched. (A server
/// that lets each user in only once may end it, though.)
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    pptp-fast doctor vpn.example.net --user mia --password-file mia.password\n  \
    pptp-fast doctor office                (a tunnel of /etc/ppp/peers, with its options)\n  \
    pptp-fast doctor 192.0.2.1             (as far as it goes without a password)\n  \
    pptp-fast doctor office --json | jq '.phases[] | select(.status != \"ok\")'\n\n\
    The exit status is 0 all well, 1 a tunnel comes up but look at the warnings, 7 well as far as \
    it goes without a password, and where none comes up that of `up`: 10 GRE, negotiation or \
    encryption, 16 no connection, 19 wrong name or password. 2 options, 3 not root, 4 kernel, \
    5 interrupted.")]
pub(super) struct Doctor {
    /// Address or name of the server, HOST or HOST:PORT; or the name of a tunnel.
    server: String,
    /// Our name towards the server.
    #[arg(long, short)]
    user: Option<String>,
    /// File whose first line is the password, - for standard input; without it, chap-secrets is
    /// asked.
    #[arg(long, short)]
    password_file: Option<PathBuf>,
    /// One JSON object, and nothing else.
    #[arg(long)]
    json: bool,
    /// One line a phase, without what was sent and received.
    #[arg(long, short, conflicts_with = "json")]
    brief: bool,
    /// Seconds that the server has for each answer.
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
        value_parser = clap::value_parser!(u16).range(1..=300))]
    timeout: u16,
    /// Require encryption with 128-bit keys (without a peers file: the default).
    #[arg(long)]
    require_mppe_128: bool,
    /// Require encryption with 40-bit keys.
    #[arg(long)]
    require_mppe_40: bool,
    /// Require encryption, whatever the key length.
    #[arg(long)]
    require_mppe: bool,
    /// Do without encryption.
    #[arg(long, conflicts_with_all = ["require_mppe", "require_mppe_40", "require_mppe_128"])]
    no_mppe: bool,
    /// Let the server have stateful encryption.
    #[arg(long)]
    mppe_stateful: bool,
    /// Largest packet that is to go into the tunnel, octets.
    #[arg(long)]
    mtu: Option<u16>,
    /// Our outer address, when it must be a particular one.
    #[arg(long, visible_alias = "bind")]
    localbind: Option<Ipv4Addr>,
    /// Further options in pppd's words, as in a peers file.
    #[arg(last = true, value_name = "PPPD OPTIONS")]
    options: Vec<String>,
}

impl Doctor {
    pub(super) fn run(&self) -> ExitCode {
        let config = match self.configuration() {
            Ok(config) => config,
            Err((message, status)) => return fail(message, status),
        };
        for warning in &config.warnings {
            warn(warning);
        }
        let options = Options {
            timeout: Duration::from_secs(u64::from(self.timeout)),
            has_password: self.password_file.is_some() || config.call_file.is_some(),
        };
        let mut page = Page::new(self.json, self.brief);
        page.head(&config);
        let mut tell = |progress: Progress<'_>| page.show(&progress);
        let examined = runtime::block_on(doctor::examine(&config, options, &mut tell));
        match examined {
            Ok(Ok(report)) => {
                page.end(&report);
                ExitCode::from(report.exit_status())
            }
            Ok(Err(error)) => {
                page.clear();
                fail(&error, error.exit_status())
            }
            Err(error) => fail(error, 4),
        }
    }

    fn configuration(&self) -> Result<ClientConfig, (String, u8)> {
        let directory = ppp_directory();
        let is_tunnel = peers::check_name(&self.server).is_ok()
            && peers::path(&directory, &self.server).is_file();
        let password = match &self.password_file {
            Some(file) => Some(password::from_file(file).map_err(|message| (message, 2))?),
            None => None,
        };
        let flags = Flags {
            server: (!is_tunnel).then(|| self.server.clone()),
            user: self.user.clone(),
            password,
            require_mppe: self.require_mppe,
            require_mppe_40: self.require_mppe_40,
            require_mppe_128: self.require_mppe_128,
            no_mppe: self.no_mppe,
            mppe_stateful: self.mppe_stateful,
            mtu: self.mtu,
            local_bind: self.localbind,
            options: self.options.clone(),
            ..Flags::default()
        };
        let config = match is_tunnel {
            true => ClientConfig::from_peer(&directory, &self.server, &flags, &host_name()),
            false => ClientConfig::from_flags(&directory, &flags, &host_name()),
        };
        config.map_err(|error| (error.to_string(), error.exit_status()))
    }
}

/// Where the findings appear, as they come.
struct Page {
    json: bool,
    brief: bool,
    is_terminal: bool,
    has_colours: bool,
    width: usize,
    /// What stands in the line that is written over.
    busy: String,
}

impl Page {
    fn new(json: bool, brief: bool) -> Self {
        let is_terminal = std::io::stdout().is_terminal() && !json;
        let forbids = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Self {
            json,
            brief,
            is_terminal,
            has_colours: is_terminal && !forbids && !is_dumb,
            width: width.unwrap_or(WIDTH_DEFAULT).clamp(WIDTH_MIN, WIDTH_MAX),
            busy: String::new(),
        }
    }

    fn head(&self, config: &ClientConfig) {
        if self.json {
            return;
        }
        let of = match &config.call_file {
            Some(name) => format!("tunnel {name}, server {}", config.server),
            None => format!("server {}", config.server),
        };
        print_line(format_args!("{of}, TCP port {}\n", config.port));
    }

    fn show(&mut self, progress: &Progress<'_>) {
        match progress {
            _ if self.json => {}
            Progress::Busy(phase, elapsed) => self.show_busy(*phase, *elapsed),
            Progress::Done(finding) => {
                self.clear();
                print_line(self.finding(finding));
            }
        }
    }

    fn show_busy(&mut self, phase: Phase, elapsed: Duration) {
        if !self.is_terminal {
            return;
        }
        let seconds = match elapsed.as_secs() {
            0 => String::new(),
            seconds => format!("{seconds} s"),
        };
        let line = format!("  {:<8}{:<15}{seconds}", "...", phase.title());
        if line != self.busy {
            let mut stdout = std::io::stdout();
            let _ = write!(stdout, "\r\x1b[K{}", self.paint("2", &line));
            let _ = stdout.flush();
            self.busy = line;
        }
    }

    /// Takes away what is only for the moment.
    fn clear(&mut self) {
        if !self.busy.is_empty() {
            let _ = write!(std::io::stdout(), "\r\x1b[K");
            self.busy.clear();
        }
    }

    fn end(&mut self, report: &Report) {
        self.clear();
        if self.json {
            print_line(report.as_json());
            return;
        }
        let words = format!("Verdict: {}", report.sentence());
        let colour = match report.exit_status() {
            0 => "1;32",
            1 | 7 => "1;33",
            _ => "1;31",
        };
        let lines = wrap(&words, self.width);
        let lines: Vec<_> = lines.iter().map(|line| self.paint(colour, line)).collect();
        print_line(format_args!("\n{}", lines.join("\n")));
    }

    fn finding(&self, finding: &Finding) -> String {
        let (word, colour) = match finding.status {
            Status::Ok => ("ok", "32"),
            Status::Warning => ("WARNING", "1;33"),
            Status::Failed => ("FAILED", "1;31"),
            Status::Skipped => ("--", "33"),
        };
        let word = self.paint(colour, &format!("{word:<8}"));
        let mut text = format!("  {word}{:<15}", finding.phase.title());
        let room = self.width - INDENT;
        text.push_str(&wrap(&finding.summary, room).join(&format!("\n{:INDENT$}", "")));
        if !self.brief {
            for (mark, lines) in [("> ", &finding.sent), ("< ", &finding.received)] {
                for line in lines {
                    self.note(&mut text, mark, line, "2");
                }
            }
        }
        if let Some(cause) = &finding.cause {
            self.note(&mut text, "cause  ", cause, "1");
        }
        for remedy in &finding.remedies {
            match remedy {
                Remedy::Advice(words) => self.note(&mut text, "try    ", words, ""),
                // A command is copied, so it stays in one line.
                Remedy::Command(line) => self.command(&mut text, "here   ", line),
                Remedy::Elsewhere(line) => self.command(&mut text, "there  ", line),
            }
        }
        text
    }

    fn note(&self, text: &mut String, mark: &str, words: &str, colour: &str) {
        let room = self.width.saturating_sub(INDENT + mark.len());
        let hang = mark.len();
        for (number, line) in wrap(words, room).iter().enumerate() {
            let mark = if number == 0 { mark } else { "" };
            let line = self.paint(colour, line);
            let _ = write!(text, "\n{:INDENT$}{mark:hang$}{line}", "");
        }
    }

    fn command(&self, text: &mut String, mark: &str, line: &str) {
        let _ = write!(text, "\n{:INDENT$}{mark}{}", "", self.paint("36", line));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        match self.has_colours && !colour.is_empty() {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// `words` in lines of at most so many characters; a word that is longer has its own.
fn wrap(words: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        let is_first = line.is_empty();
        if !is_first && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
            continue;
        }
        if !is_first {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_none_is_lost() {
        let words = "a tunnel to this server works";
        let lines = wrap(words, 12);
        assert!(lines.iter().all(|line| line.len() <= 12), "{lines:?}");
        assert_eq!(lines.join(" "), words);
        assert_eq!(wrap("unbreakable", 4), ["unbreakable"]);
    }
}
