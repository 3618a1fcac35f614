//! `plog [arguments of tail]`: the last lines of pppd's log, wherever it goes.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cli::fail;

/// Programs whose lines in the system's log are shown.
const PROGRAMS: [&str; 6] = [
    "pppd[",
    "chat[",
    "pptp[",
    "pptp-fast[",
    "pptpd[",
    "pptp-fast: ",
];

/// It is there when systemd's journal is.
const JOURNAL: &str = "/run/systemd/journal";

pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    match find(Path::new("/var/log")) {
        Some(Log::Own(path)) => {
            let error = Command::new("tail").args(arguments).arg(path).exec();
            fail(format_args!("cannot run tail: {error}"), 1)
        }
        Some(Log::Shared(path)) => filtered(&arguments, &path),
        // Where nobody writes the system's log into files, the journal has it.
        None if Path::new(JOURNAL).is_dir() => {
            let error = journal(&arguments).exec();
            fail(format_args!("cannot run journalctl: {error}"), 1)
        }
        None => fail(
            "there is no log: put `logfile /var/log/ppp.log` into /etc/ppp/options.pptp",
            1,
        ),
    }
}

/// As many lines as tail(1) shows, if nothing else is wanted; -f and -n mean the same to both.
fn journal(arguments: &[OsString]) -> Command {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--lines=10"]);
    for program in PROGRAMS {
        if let Some(name) = program.strip_suffix('[') {
            command.args(["-t", name]);
        }
    }
    command.args(arguments);
    command
}

#[derive(Debug, PartialEq, Eq)]
enum Log {
    /// Nothing else is in it.
    Own(PathBuf),
    /// The system's.
    Shared(PathBuf),
}

/// pppd's own log when there is something in it, else the system's.
fn find(directory: &Path) -> Option<Log> {
    let filled = |name: &str| {
        let path = directory.join(name);
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.len() > 0)
            .then_some(path)
    };
    if let Some(path) = filled("ppp.log") {
        return Some(Log::Own(path));
    }
    ["syslog", "messages"]
        .into_iter()
        .find_map(filled)
        .map(Log::Shared)
}

/// Passes on the lines of `tail` that are about tunnels.
fn filtered(arguments: &[OsString], path: &Path) -> ExitCode {
    let tail = Command::new("tail")
        .args(arguments)
        .arg(path)
        .stdout(Stdio::piped())
        .spawn();
    let mut tail = match tail {
        Ok(tail) => tail,
        Err(error) => return fail(format_args!("cannot run tail: {error}"), 1),
    };
    if let Some(output) = tail.stdout.take() {
        let mut lines = std::io::BufReader::new(output);
        let mut line = Vec::new();
        while std::io::BufRead::read_until(&mut lines, b'\n', &mut line).is_ok_and(|n| n > 0) {
            if is_about_tunnels(&line)
                && std::io::Write::write_all(&mut std::io::stdout(), &line).is_err()
            {
                break;
            }
            line.clear();
        }
    }
    let _ = tail.kill();
    let _ = tail.wait();
    ExitCode::SUCCESS
}

fn is_about_tunnels(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    PROGRAMS
        .iter()
        .any(|program| line.contains(&format!(" {program}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_log_counts_before_the_systems_if_there_is_anything_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert_eq!(find(dir.path()), None);
        std::fs::write(path("messages"), "x\n").unwrap();
        std::fs::write(path("ppp.log"), "").unwrap();
        assert_eq!(find(dir.path()), Some(Log::Shared(path("messages"))));
        std::fs::write(path("ppp.log"), "x\n").unwrap();
        assert_eq!(find(dir.path()), Some(Log::Own(path("ppp.log"))));
    }

    #[test]
    fn the_journal_is_asked_for_the_same_programs() {
        let command = journal(&["-n".into(), "50".into()]);
        let words: Vec<_> = command.get_args().filter_map(|it| it.to_str()).collect();
        let words = words.join(" ");
        assert!(
            words.contains("-t pppd -t chat -t pptp -t pptp-fast -t pptpd -n 50"),
            "{words}"
        );
    }

    #[test]
    fn lines_of_other_programs_are_not_shown() {
        assert!(is_about_tunnels(b"Nov 22 host pppd[12]: Connect: ppp0\n"));
        assert!(!is_about_tunnels(b"Nov 22 host sshd[12]: pppd\n"));
    }
}
