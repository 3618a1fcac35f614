//! Two network namespaces joined by a pair of interfaces, and our program run inside them.
//!
//! Needs root and `ip` (iproute2). The namespaces are named after the process and a counter, and
//! are deleted with everything in them when the `Lab` is dropped, also when a test fails.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Outer address of the client's namespace.
pub const CLIENT: &str = "10.77.0.2";
/// Outer address of the server's namespace.
pub const SERVER: &str = "10.77.0.1";

/// Why end-to-end tests cannot run here, or `None`. On CI the caller must fail instead of skipping.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("making network namespaces needs root".to_owned());
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Some("`ip` is missing: install iproute2".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("/dev/net/tun is missing".to_owned());
    }
    None
}

/// True when the test may go on. Prints why not, and on CI (`CI=true`) fails.
///
/// # Panics
/// On CI, when end-to-end tests cannot run.
#[must_use]
pub fn ready() -> bool {
    obstacle().is_none_or(|obstacle| skip(&obstacle))
}

/// Prints why a test is skipped, and is false.
///
/// # Panics
/// On CI, where nothing is skipped.
pub(crate) fn skip(obstacle: &str) -> bool {
    assert!(
        std::env::var_os("CI").is_none(),
        "nothing is skipped on CI, but {obstacle}"
    );
    println!("skipped: {obstacle}");
    false
}

/// Looks again and again whether something has come true.
///
/// # Panics
/// When it has not within `seconds`, with `what` was waited for.
#[track_caller]
pub fn wait_until(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The `pptp-fast` binary, built once for this test run.
///
/// # Panics
/// When it does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            // A test beside it has cargo take the features that `cargo test --workspace` takes, and
            // so what is compiled already.
            .args(["build", "--workspace", "--bin", "pptp-fast"])
            .args(["--test", "golden", "--message-format", "json"])
            .current_dir(workspace)
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(built.status.success(), "pptp-fast does not build");
        let messages = String::from_utf8_lossy(&built.stdout);
        messages
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "pptp-fast")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the executable")
    })
}

/// Two namespaces, a directory for configuration and one for run files.
#[derive(Debug)]
pub struct Lab {
    client: String,
    server: String,
    /// The client has an /etc and a /var/log of its own.
    has_etc: bool,
    /// Configuration and run files; removed with the lab.
    pub dir: TempDir,
}

/// Which of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// 10.77.0.2.
    Client,
    /// 10.77.0.1.
    Server,
}

impl Lab {
    /// Makes both namespaces and the network between them.
    ///
    /// # Panics
    /// When the system refuses.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("pf-{}-{number}-{end}", std::process::id());
        let lab = Self {
            client: name("c"),
            server: name("s"),
            has_etc: false,
            dir: TempDir::new().expect("a temporary directory"),
        };
        ip(&["netns", "add", &lab.client]);
        ip(&["netns", "add", &lab.server]);
        lab.join("outer", [CLIENT, SERVER]);
        for namespace in [&lab.client, &lab.server] {
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        lab
    }

    /// Joins both namespaces by a pair of interfaces of this name, with an address of the client
    /// and one of the server, /24 each.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn join(&self, name: &str, addresses: [&str; 2]) {
        let (client, server) = (&self.client, &self.server);
        let add = format!("-n {client} link add {name} type veth peer name {name} netns {server}");
        ip(&add.split(' ').collect::<Vec<_>>());
        for (namespace, address) in [client, server].into_iter().zip(addresses) {
            let add = format!("-n {namespace} address add {address}/24 dev {name}");
            ip(&add.split(' ').collect::<Vec<_>>());
            ip(&["-n", namespace, "link", "set", name, "up"]);
        }
    }

    /// Gives the client a /etc of its own, with this /etc/resolv.conf, and a /var/log: from now on
    /// everything on its side sees them in place of this machine's. They are `etc` and `log` below
    /// the lab's directory, and /etc/ppp is `ppp`.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn give_etc(&mut self, resolv_conf: &str) {
        self.has_etc = true;
        self.write("etc/resolv.conf", resolv_conf);
        self.write("etc/hosts", "127.0.0.1 localhost\n10.77.0.1 zidler.test\n");
        self.write("etc/nsswitch.conf", "hosts: files\npasswd: files\n");
        self.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        let ppp = self.dir.path().join("ppp");
        for directory in [&ppp, &self.dir.path().join("log")] {
            std::fs::create_dir_all(directory).expect("a directory");
        }
        std::os::unix::fs::symlink(&ppp, self.dir.path().join("etc/ppp")).expect("a link");
    }

    /// Runs `ip` on one side, with these words.
    ///
    /// # Panics
    /// When `ip` refuses.
    pub fn ip(&self, side: Side, words: &str) {
        let mut arguments = vec!["-n", self.namespace(side)];
        arguments.extend(words.split(' '));
        ip(&arguments);
    }

    /// A command that runs inside one namespace, with run files apart for each side.
    #[must_use]
    pub fn command(&self, side: Side, program: impl AsRef<OsStr>) -> Command {
        let namespace = self.namespace(side);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]);
        if self.has_etc && side == Side::Client {
            // `ip netns exec` has made a mount namespace that this machine sees nothing of.
            let bind =
                "mount --bind \"$0/etc\" /etc && mount --bind \"$0/log\" /var/log && exec \"$@\"";
            command.args(["sh", "-c", bind]).arg(self.dir.path());
        }
        command.arg(program);
        command.env(
            "PPTP_FAST_RUN_DIR",
            self.dir.path().join(format!("run-{side:?}")),
        );
        command.env("PPTP_FAST_STATE_DIR", self.dir.path().join("state"));
        command.env("PPPDIR", self.dir.path().join("ppp"));
        command.env_remove("PPTP_FAST_BACKGROUND");
        command
    }

    /// Runs `work` in a thread of this process that lives in one namespace.
    ///
    /// # Panics
    /// The thread does, when the namespace cannot be entered.
    pub fn in_namespace<T: Send + 'static>(
        &self,
        side: Side,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = Path::new("/run/netns").join(self.namespace(side));
        std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).expect("the namespace has a file");
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("may enter");
            work()
        })
    }

    /// Runs our program to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, side: Side, arguments: &[&str]) -> Output {
        self.command(side, binary())
            .args(arguments)
            .output()
            .expect("the program starts")
    }

    /// Starts our program; its output is read line by line.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, side: Side, arguments: &[&str]) -> Running {
        let mut command = self.command(side, binary());
        Running::start(command.args(arguments))
    }

    /// Writes a file below the lab's directory.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        path
    }

    /// Writes a script that everyone may run.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn write_script(&self, path: &str, text: &str) {
        let path = self.write(path, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Network interfaces of one side.
    ///
    /// # Panics
    /// When `ip` fails.
    #[must_use]
    pub fn interfaces(&self, side: Side) -> Vec<String> {
        let listed = Command::new("ip")
            .args(["-n", self.namespace(side), "-json", "link"])
            .output()
            .expect("ip runs");
        let links: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        let names = links.as_array().into_iter().flatten();
        names
            .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
            .collect()
    }

    /// Routes of one side, a line each.
    ///
    /// # Panics
    /// When `ip` fails.
    #[must_use]
    pub fn routes(&self, side: Side) -> String {
        let listed = Command::new("ip")
            .args(["-n", self.namespace(side), "route"])
            .output()
            .expect("ip runs");
        String::from_utf8_lossy(&listed.stdout).into_owned()
    }

    fn namespace(&self, side: Side) -> &str {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("ip runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ip {}: {words}",
        arguments.join(" ")
    );
}

/// A process whose lines are awaited; killed when dropped.
#[derive(Debug)]
pub struct Running {
    process: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Starts `command` with both outputs read.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            process
                .stdout
                .take()
                .map(|output| Box::new(output) as Box<dyn Read + Send>),
            process
                .stderr
                .take()
                .map(|output| Box::new(output) as Box<dyn Read + Send>),
        ];
        for output in outputs.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            process,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that contains `text`, and returns it.
    ///
    /// # Panics
    /// With everything that was printed, when it does not come within `seconds`.
    pub fn wait_for(&mut self, text: &str, seconds: u64) -> String {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Ok(line) = self.lines.recv_timeout(left) else {
                break;
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!(
            "no line with \"{text}\" within {seconds} s; printed:\n{}",
            self.seen.join("\n")
        );
    }

    /// Waits for the end; the exit status and everything that was printed.
    ///
    /// # Panics
    /// When it does not end within `seconds`.
    pub fn wait(&mut self, seconds: u64) -> (i32, String) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let status = loop {
            if let Some(status) = self.process.try_wait().expect("a process of ours") {
                break status;
            }
            let printed = self.seen.join("\n");
            assert!(
                Instant::now() < deadline,
                "still running after {seconds} s:\n{printed}"
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
            self.seen.push(line);
        }
        (status.code().unwrap_or(-1), self.seen.join("\n"))
    }

    /// Its process ID: that of the program itself, which `ip` has become.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
