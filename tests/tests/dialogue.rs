//! pptp-command's dialogue: typed by a script, as old scripts and expect files do, and at a
//! terminal with arrow keys.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use sim::lab::binary;
use tempfile::TempDir;

const PASSWORD: &str = "mia123";
const ROUTE: &str = "add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV";

/// An empty directory in the place of /etc.
struct Etc(TempDir);

impl Etc {
    fn new() -> Self {
        let etc = Self(TempDir::new().expect("a temporary directory"));
        for name in ["pptp-command", "pptpsetup", "pon", "poff"] {
            symlink(binary(), etc.0.path().join(name)).expect("a link");
        }
        fs::write(etc.0.path().join("resolv.conf"), "nameserver 192.0.2.1\n").expect("a file");
        etc
    }

    /// Our program by one of its names.
    fn command(&self, name: &str) -> Command {
        let path = match name {
            "pptp-fast" => binary().to_owned(),
            name => self.0.path().join(name),
        };
        let mut command = Command::new(path);
        command.env("PPPDIR", self.0.path().join("ppp"));
        command.env("PPTPDIR", self.0.path().join("pptp.d"));
        command.env("PPTP_FAST_RUN_DIR", self.0.path().join("run"));
        command.env("PPTP_FAST_RESOLV_CONF", self.0.path().join("resolv.conf"));
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        command
    }

    fn run(&self, name: &str, arguments: &[&str], typed: &str) -> Output {
        let mut command = self.command(name);
        command.args(arguments).stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut input = child.stdin.take().expect("an input");
        // A program that has read enough may close it.
        let _ = input.write_all(typed.as_bytes());
        drop(input);
        child.wait_with_output().expect("it ends")
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).expect("a file")
    }

    fn mode(&self, path: &str) -> u32 {
        let meta = self.0.path().join(path).metadata().expect("a file");
        meta.permissions().mode() & 0o777
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// What a person types who follows the how-to.
fn how_to_answers() -> String {
    let secret = ["1", "2", "mia", "zidler", PASSWORD, "1", "4"];
    let tunnel = [
        "4",
        "1",
        "test2",
        "zidler.ece.uic.edu",
        ROUTE,
        "",
        "mia",
        "zidler",
    ];
    let rest = ["3", "7", "1", "8", ""];
    [&secret[..], &tunnel, &rest].concat().join("\n")
}

#[track_caller]
fn assert_files_of_the_how_to(etc: &Etc) {
    assert_eq!(
        etc.read("ppp/chap-secrets"),
        "mia\tzidler\tmia123\nzidler\tmia\tmia123\n"
    );
    let peer = etc.read("ppp/peers/test2");
    let options: Vec<_> = peer
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let file = format!("file {}", etc.0.path().join("ppp/options.pptp").display());
    assert_eq!(
        options,
        ["name mia", "remotename zidler", "ipparam test2", &file]
    );
    assert!(
        peer.contains("# PPTP Tunnel configuration for tunnel test2\n"),
        "{peer}"
    );
    assert!(peer.contains("# Server IP: zidler.ece.uic.edu\n"), "{peer}");
    assert!(peer.contains(&format!("# Route: {ROUTE}\n")), "{peer}");
    let common = etc.read("ppp/options.pptp");
    let options: Vec<_> = common.lines().collect();
    for option in [
        "lock",
        "dump",
        "logfd 2",
        "debug",
        "noauth",
        "require-mppe-128",
        "novj",
        "novjccomp",
        "nopcomp",
        "noaccomp",
        "nobsdcomp",
        "nodeflate",
    ] {
        assert!(options.contains(&option), "{option} is missing in {common}");
    }
    for path in ["ppp/chap-secrets", "ppp/peers/test2", "ppp/options.pptp"] {
        assert_eq!(etc.mode(path), 0o600, "{path}");
    }
}

#[test]
fn a_script_that_types_the_how_to_gets_its_files() {
    for (name, arguments) in [("pptp-command", ["setup"]), ("pptp-fast", ["setup"])] {
        let etc = Etc::new();
        let output = etc.run(name, &arguments, &how_to_answers());
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{shown}");
        assert_files_of_the_how_to(&etc);
        for prompt in [
            "1.) Manage CHAP secrets\n2.) Manage PAP secrets\n3.) List PPTP Tunnels\n\
             4.) Add a NEW PPTP Tunnel\n5.) Delete a PPTP Tunnel\n6.) Configure resolv.conf\n\
             7.) Select a default tunnel\n8.) Quit\n?: ",
            "1.) List CHAP secrets\n2.) Add a New CHAP secret\n3.) Delete a CHAP secret\n4.) Quit\n",
            "Local Name: ",
            "Remote Name [PPTP]: ",
            "Password: ",
            "Adding secret mia zidler *****",
            "Which configuration would you like to use?: ",
            "Tunnel Name: ",
            "Server IP: ",
            "route: ",
            "Adding test2 - zidler.ece.uic.edu - mia - zidler\nAdded tunnel test2\n",
            "Current Tunnels:\ntest2\n",
            "Which tunnel do you want to be the default?: ",
        ] {
            assert!(shown.contains(prompt), "{prompt:?} is missing in {shown}");
        }
        assert!(
            !shown.contains(PASSWORD) && !shown.contains('\u{1b}'),
            "{shown}"
        );
        let checked = etc.run("pptp-fast", &["check", "test2", "--json"], "");
        let report: serde_json::Value = serde_json::from_slice(&checked.stdout).expect("JSON");
        assert_eq!(report["refused"], false, "{report}");
        assert_eq!(report["warnings"], serde_json::json!([]), "{report}");
    }
}

#[test]
fn the_dialogue_takes_back_what_it_has_made() {
    let etc = Etc::new();
    etc.run("pptp-command", &["setup"], &how_to_answers());
    let delete = "1\n3\n1\nwrong\n3\n2\nmia123\n1\n4\n5\n1\n3\n8\n";
    let output = etc.run("pptp-command", &["setup"], delete);
    let shown = text(&output.stdout);
    for words in [
        "Deleted 0 entries. Perhaps you mistyped the password?\n",
        "Deleted 2 entries.\n",
        "Current CHAP secrets:\n\tNone.\n",
        "Removed tunnel test2\n",
        "Current Tunnels:\n\tNone.\n",
    ] {
        assert!(shown.contains(words), "{words:?} is missing in {shown}");
    }
    assert_eq!(etc.read("ppp/chap-secrets"), "");
    assert!(
        etc.0
            .path()
            .join("ppp/peers/__default")
            .symlink_metadata()
            .is_err()
    );
}

#[test]
fn offered_tunnels_and_name_servers_are_chosen_by_number() {
    let etc = Etc::new();
    fs::create_dir(etc.0.path().join("pptp.d")).expect("a directory");
    let site = format!("lab 10.0.0.5\n{ROUTE}\n\nnameservers\ncorp:corp.example:10.0.0.1\n");
    fs::write(etc.0.path().join("pptp.d/site"), site).expect("a file");
    let typed = "4\n1\nmia\n\n6\ny\n1\n8\n";
    let output = etc.run("pptp-command", &["setup"], typed);
    let shown = text(&output.stdout);
    assert!(shown.contains("1.) site-lab\n2.) Other\n"), "{shown}");
    assert!(
        etc.read("ppp/peers/site-lab").contains("remotename PPTP\n"),
        "{shown}"
    );
    assert_eq!(
        etc.read("resolv.conf.pptp"),
        "search corp.example\nnameserver 10.0.0.1\n"
    );
    assert_eq!(etc.read("resolv.conf"), "nameserver 192.0.2.1\n");
    assert_eq!(etc.mode("resolv.conf"), 0o644);
    etc.run("pptp-command", &["setup"], "6\nn\ny\ny\n8\n");
    let meta = etc
        .0
        .path()
        .join("resolv.conf")
        .symlink_metadata()
        .expect("a file");
    assert!(meta.is_file());
    assert!(!etc.0.path().join("resolv.conf.pptp").exists());
}

#[test]
fn input_that_ends_ends_the_dialogue() {
    let etc = Etc::new();
    for typed in ["", "1\n", "1\n2\nmia\n", "4\n1\ntest2\n"] {
        let output = etc.run("pptp-command", &["setup"], typed);
        assert!(output.status.success(), "{typed:?}: {output:?}");
    }
    assert!(!etc.0.path().join("ppp/chap-secrets").exists());
}

#[test]
fn every_step_is_a_command() {
    let etc = Etc::new();
    let ours = |arguments: &[&str], typed: &str| {
        let output = etc.run("pptp-fast", arguments, typed);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text(&output.stdout)
    };
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&ours(arguments, "")).expect("JSON")
    };
    ours(
        &["secret", "add", "mia", "zidler", "--password-file", "-"],
        "mia123\n",
    );
    let server = ["--server", "zidler.ece.uic.edu"];
    let names = [
        "--user",
        "mia",
        "--remotename",
        "zidler",
        "--route",
        ROUTE,
        "--default",
    ];
    ours(
        &[&["tunnel", "add", "test2"], &server[..], &names].concat(),
        "",
    );
    assert_files_of_the_how_to(&etc);
    let tunnels = json(&["tunnel", "list", "--json"]);
    assert_eq!(tunnels[0]["name"], "test2");
    assert_eq!(tunnels[0]["default"], true);
    assert_eq!(
        json(&["tunnel", "show", "test2", "--json"])["local_name"],
        "mia"
    );
    let secrets = ours(&["secret", "list", "--json"], "");
    assert!(
        secrets.contains("\"client\":\"mia\"") && !secrets.contains(PASSWORD),
        "{secrets}"
    );
    assert!(!ours(&["secret", "list"], "").contains(PASSWORD));
    ours(
        &[
            "dns",
            "set",
            "--nameserver",
            "10.0.0.1",
            "--search",
            "corp.example",
        ],
        "",
    );
    assert_eq!(
        json(&["dns", "show", "--json"])["with_tunnel"]["nameservers"][0],
        "10.0.0.1"
    );
    ours(&["dns", "restore"], "");
    ours(&["secret", "delete", "zidler", "mia"], "");
    ours(&["tunnel", "delete", "test2"], "");
    assert_eq!(json(&["tunnel", "list", "--json"]), serde_json::json!([]));
    assert_eq!(json(&["secret", "list", "--json"]), serde_json::json!([]));
}

/// Our program at a terminal of 100 columns.
struct Terminal {
    program: Child,
    keys: fs::File,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Terminal {
    fn start(command: &mut Command) -> Self {
        let size = Winsize {
            ws_row: 40,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("a terminal");
        let end = |end: &OwnedFd| Stdio::from(end.try_clone().expect("a descriptor"));
        let program = command
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .stderr(end(&pty.slave))
            .spawn()
            .expect("the program starts");
        let keys = fs::File::from(pty.master);
        let mut screen = keys.try_clone().expect("a descriptor");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len) = screen.read(&mut piece) {
                if len == 0 || sender.send(piece[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            program,
            keys,
            output,
            seen: Vec::new(),
        }
    }

    /// Waits until `words` have been shown since the last answer.
    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while !text(&self.seen).contains(words) {
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(piece) => self.seen.extend(piece),
                Err(_) => panic!("no {words:?} in {:?}", text(&self.seen)),
            }
        }
    }

    /// Waits for a question, and types `keys`.
    #[track_caller]
    fn answer(&mut self, question: &str, keys: &str) {
        self.wait_for(question);
        self.seen.clear();
        self.keys.write_all(keys.as_bytes()).expect("it listens");
    }

    /// Everything shown until the program has ended, and its exit status.
    fn end(mut self) -> (String, Option<i32>) {
        let status = self.program.wait().expect("it ends");
        while let Ok(piece) = self.output.recv_timeout(Duration::from_millis(200)) {
            self.seen.extend(piece);
        }
        (text(&self.seen), status.code())
    }
}

/// A test that fails leaves no dialogue behind that nobody answers.
impl Drop for Terminal {
    fn drop(&mut self) {
        // When it has ended already there is nothing to do.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

const DOWN: &str = "\u{1b}[B";
const MENU: &str = "What task would you like to do?";

#[test]
fn a_person_sets_up_a_tunnel_with_arrow_keys_and_completion() {
    let etc = Etc::new();
    etc.run(
        "pptp-fast",
        &["secret", "add", "mia", "zidler", "--password-file", "-"],
        "mia123\n",
    );
    let mut terminal = Terminal::start(etc.command("pptp-fast").arg("setup"));
    // Five down from `Start a tunnel`.
    terminal.answer("Quit", &format!("{}\r", DOWN.repeat(5)));
    terminal.answer("Tunnel Name:", "test2\r");
    terminal.answer("Server IP:", "zidler.ece.uic.edu\r");
    terminal.answer("route:", &format!("{ROUTE}\r"));
    terminal.answer("route:", "\r");
    // Tab completes names that have a secret.
    terminal.answer("Local Name:", "mi\t\r");
    terminal.answer("Remote Name:", "zid\t\r");
    terminal.wait_for("pptp-fast up test2");
    terminal.answer(MENU, "Quit\r");
    let (_, status) = terminal.end();
    assert_eq!(status, Some(0));
    assert_files_of_the_how_to(&etc);
}

#[test]
fn colours_are_for_terminals_and_for_who_wants_them() {
    let etc = Etc::new();
    for (no_color, coloured) in [(None, true), (Some("1"), false)] {
        let mut command = etc.command("pptp-fast");
        command.arg("setup");
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        let mut terminal = Terminal::start(&mut command);
        terminal.wait_for("Quit");
        terminal.keys.write_all(b"\x1b").expect("it listens");
        let (shown, status) = terminal.end();
        assert_eq!(status, Some(0), "Escape leaves");
        assert_eq!(shown.contains("\u{1b}[38;"), coloured);
    }
}

#[test]
fn check_has_colours_on_a_terminal_only() {
    let etc = Etc::new();
    let file = etc.0.path().join("options");
    fs::write(&file, "require-mppe-128\nlocal\nconnect chat\n").expect("a file");
    let file = file.display().to_string();
    let piped = etc.run("pptp-fast", &["check", &file], "");
    assert!(!text(&piped.stdout).contains('\u{1b}'), "{piped:?}");
    let words = [
        ("honoured", "\u{1b}[32mhonoured"),
        ("harmless", "\u{1b}[33mharmless"),
        ("refused ", "\u{1b}[1;31mrefused "),
    ];
    for no_color in ["", "1"] {
        let mut command = etc.command("pptp-fast");
        let mut terminal =
            Terminal::start(command.args(["check", &file]).env("NO_COLOR", no_color));
        terminal.wait_for(" refused\r\n");
        let (shown, status) = terminal.end();
        assert_eq!(status, Some(1), "{shown}");
        for (plain, coloured) in words {
            let is_plain = !no_color.is_empty();
            assert!(
                shown.contains(if is_plain { plain } else { coloured }),
                "{shown}"
            );
            assert!(!(is_plain && shown.contains('\u{1b}')), "{shown}");
        }
    }
}

#[test]
fn pptp_command_asks_by_numbers_at_a_terminal_too_and_shows_no_password() {
    let etc = Etc::new();
    let mut terminal = Terminal::start(&mut etc.command("pptp-command"));
    terminal.answer("4.) quit\r\nWhat task would you like to do?: ", "3\r");
    terminal.answer("8.) Quit\r\n?: ", "1\r");
    terminal.answer("4.) Quit\r\n?: ", "2\r");
    terminal.answer("Local Name: ", "mia\r");
    terminal.answer("Remote Name [PPTP]: ", "zidler\r");
    terminal.answer("Password: ", "mia123\r");
    terminal.wait_for("Adding secret mia zidler *****");
    assert!(
        !text(&terminal.seen).contains(PASSWORD),
        "the password is shown"
    );
    terminal.answer("4.) Quit\r\n?: ", "q\r");
    terminal.answer("8.) Quit\r\n?: ", "q\r");
    let (_, status) = terminal.end();
    assert_eq!(status, Some(0));
    assert!(
        etc.read("ppp/chap-secrets")
            .starts_with("mia\tzidler\tmia123\n")
    );
}

#[test]
fn links_for_the_old_names_do_not_replace_other_programs() {
    let etc = Etc::new();
    let directory = TempDir::new().expect("a directory");
    let pon = directory.path().join("pon");
    fs::write(&pon, "#!/bin/sh\n").expect("a file");
    let install = |force: &[&str]| {
        let directory = directory.path().display().to_string();
        etc.run(
            "pptp-fast",
            &[&["install-links", &directory], force].concat(),
            "",
        )
    };
    let output = install(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("is another program's"),
        "{output:?}"
    );
    assert!(pon.symlink_metadata().expect("a file").is_file());
    assert!(install(&["--force"]).status.success());
    for name in ["pptp-command", "pptpsetup", "pon", "poff", "plog"] {
        let program = fs::canonicalize(directory.path().join(name)).expect("a link");
        assert_eq!(
            program,
            fs::canonicalize(Path::new(binary())).expect("a file"),
            "{name}"
        );
    }
}
