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

pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    match find(Path::new("/var/log")) {
        Some(Log::Own(path)) => {
            let error = Command::new("tail").args(arguments).arg(path).exec();
            fail(format_args!("cannot run tail: {error}"), 1)
        }
        Some(Log::Shared(path)) => filtered(&arguments, &path),
        None => fail(
            "there is no log: put `logfile /var/log/ppp.log` into /etc/ppp/options.pptp",
            1,
        ),
    }
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
    fn lines_of_other_programs_are_not_shown() {
        assert!(is_about_tunnels(b"Nov 22 host pppd[12]: Connect: ppp0\n"));
        assert!(!is_about_tunnels(b"Nov 22 host sshd[12]: pppd\n"));
    }
}
