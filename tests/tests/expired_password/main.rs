//! A password that has expired is changed on the way (RFC 2759 7), from a file or at a terminal;
//! and whoever has no new one does not try the old one until the account is locked.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use nix::pty::openpty;
use sim::lab::{Lab, Side, ready, wait_until};
use sim::tunnel::{assert_bare, assert_pings, configure, take_down, text};

mod server;

use server::{Account, Server};

const OLD: &str = "mia123";
const NEW: &str = "brandnew";
const PEER: &str = "192.168.254.230";
/// The how-to's without encryption, of which the server of these tests has none.
const OPTIONS: &str = "name mia\nlogfd 2\ndebug\nnoauth\nnomppe\nnoccp\nnoipv6\nholdoff 0\n";

/// A server that says that mia's password has expired, and the client's files with the old one.
fn expired() -> Option<(Lab, Server)> {
    let lab = ready().then(Lab::new)?;
    configure(&lab, "", OPTIONS);
    let account = Account {
        password: OLD,
        has_expired: true,
        acceptable: NEW,
        log_ins: 0,
        wrong_log_ins: 0,
        changes: 0,
    };
    let server = Server::start(&lab, account);
    Some((lab, server))
}

#[track_caller]
fn assert_tells_no_password(log: &str) {
    assert!(!log.contains(OLD) && !log.contains(NEW), "{log}");
}

/// The new password comes from a file; the tunnel stands, and goes on with it when it has to dial
/// again, since the old one is worth nothing any more.
#[test]
fn a_new_password_from_a_file_takes_the_old_ones_place_for_good() {
    let Some((lab, server)) = expired() else {
        return;
    };
    let file = lab
        .write("new-password", &format!("{NEW}\n"))
        .display()
        .to_string();
    let arguments = [
        "up",
        "test2",
        "-f",
        "--persist",
        "--new-password-file",
        &file,
    ];
    let mut client = lab.start(Side::Client, &arguments);
    client.wait_for("rcvd [CHAP Failure id=0x1 \"E=648 R=0", 20);
    client.wait_for("Password changed: put the new one into", 20);
    client.wait_for("Tunnel test2 is active on ppp0", 20);
    assert_pings(&lab, Side::Client, PEER);
    assert_eq!(server.seen(), (1, 0, 1));
    assert_eq!(server.password(), NEW);
    server.hang_up();
    wait_until(
        "it has logged in again, with the right password",
        20,
        || server.seen() == (2, 0, 1),
    );
    wait_until("packets pass again", 20, || {
        sim::tunnel::pings(&lab, Side::Client, PEER).is_ok()
    });
    take_down(&lab);
    let (status, log) = client.wait(15);
    assert_eq!(status, 0, "{log}");
    assert_tells_no_password(&log);
    assert_bare(&lab, Side::Client);
}

/// Neither an expired password nor a new one that is refused is tried again, `persist` or not.
#[test]
fn persist_does_not_try_what_cannot_work() {
    let Some((lab, server)) = expired() else {
        return;
    };
    let simple = lab.write("simple", "simple\n").display().to_string();
    let persist = ["up", "test2", "--persist", "--", "maxfail", "0", "updetach"];
    let up = lab.run(Side::Client, &persist);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(19), "{log}");
    assert!(log.contains("the password of mia has expired"), "{log}");
    assert!(log.contains("--new-password-file FILE"), "{log}");
    assert_eq!(server.seen(), (1, 0, 0), "{log}");
    let file = ["--new-password-file", &simple];
    let up = lab.run(
        Side::Client,
        &[&persist[..3], &file, &persist[3..]].concat(),
    );
    let log = text(&up);
    assert_eq!(up.status.code(), Some(19), "{log}");
    let words = "the password has expired and was not changed: Too simple";
    assert!(log.contains(words), "{log}");
    assert_eq!(server.seen(), (2, 0, 1), "{log}");
    assert_eq!(server.password(), OLD);
    assert_tells_no_password(&log);
    assert_bare(&lab, Side::Client);
}

/// A person is asked for the new password, twice, and it is not shown.
#[test]
fn a_person_is_asked_for_a_new_password_on_the_terminal() {
    let Some((lab, server)) = expired() else {
        return;
    };
    let mut command = lab.command(Side::Client, sim::lab::binary());
    let mut terminal = Terminal::start(command.args(["up", "test2", "-f"]));
    terminal.answer("New password of mia: ", NEW);
    terminal.answer("Once more: ", "something else");
    let (shown, status) = terminal.end();
    assert_eq!(status, Some(19), "{shown}");
    assert!(
        shown.contains("They differ; nothing was changed."),
        "{shown}"
    );
    assert_eq!(server.seen(), (1, 0, 0), "{shown}");

    let mut command = lab.command(Side::Client, sim::lab::binary());
    let mut terminal = Terminal::start(command.args(["up", "test2", "-f"]));
    terminal.answer("New password of mia: ", NEW);
    terminal.answer("Once more: ", NEW);
    terminal.wait_for("Tunnel test2 is active on ppp0");
    assert_pings(&lab, Side::Client, PEER);
    assert_eq!(server.seen(), (3, 0, 1));
    assert_eq!(server.password(), NEW);
    take_down(&lab);
    let (shown, status) = terminal.end();
    assert_eq!(status, Some(0), "{shown}");
    assert_tells_no_password(&shown);
    assert_bare(&lab, Side::Client);
}

/// Our program at a terminal that is its own.
struct Terminal {
    program: Child,
    screen: File,
    shown: Vec<u8>,
}

impl Terminal {
    fn start(command: &Command) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let end = |end: &OwnedFd| Stdio::from(end.try_clone().expect("a descriptor"));
        // A process has /dev/tty only when its session has.
        let mut with_terminal = Command::new("setsid");
        with_terminal.args(["--ctty", "--wait"]);
        with_terminal
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => with_terminal.env(name, value),
                None => with_terminal.env_remove(name),
            };
        }
        let program = with_terminal
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .stderr(end(&pty.slave))
            .spawn()
            .expect("setsid of util-linux");
        Self {
            program,
            screen: File::from(pty.master),
            shown: Vec::new(),
        }
    }

    /// Reads what is shown until `words` have been.
    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&self.shown).contains(words) {
            let len = self.screen.read(&mut piece).unwrap_or(0);
            let shown = String::from_utf8_lossy(&self.shown);
            assert!(len > 0, "no {words:?} in {shown}");
            self.shown.extend(&piece[..len]);
        }
    }

    #[track_caller]
    fn answer(&mut self, question: &str, line: &str) {
        self.wait_for(question);
        let line = format!("{line}\n");
        self.screen.write_all(line.as_bytes()).expect("it listens");
    }

    /// All that was shown, and the exit status.
    fn end(mut self) -> (String, Option<i32>) {
        let mut piece = [0; 4096];
        // The terminal is gone when nobody has it open any more.
        while let Ok(len @ 1..) = self.screen.read(&mut piece) {
            self.shown.extend(&piece[..len]);
        }
        let status = self.program.wait().expect("it ends");
        let shown = String::from_utf8_lossy(&self.shown).into_owned();
        (shown, status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
