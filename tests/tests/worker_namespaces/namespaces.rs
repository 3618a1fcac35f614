//! Network namespaces for tests: a thread in each, so that nothing touches the host's network.

use std::fs::OpenOptions;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{geteuid, gettid};

/// A network namespace with its loopback up, and a thread that lives in it. It is gone when this
/// is dropped and nobody else has entered it.
pub(crate) struct Namespace {
    path: String,
    jobs: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes one.
    pub(crate) fn new() -> Self {
        let (jobs, to_do) = channel::<Box<dyn FnOnce() + Send>>();
        let (named, name) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("network namespaces have been tried");
            named
                .send(format!(
                    "/proc/{}/task/{}/ns/net",
                    std::process::id(),
                    gettid()
                ))
                .unwrap();
            to_do.into_iter().for_each(|job| job());
        });
        let namespace = Self {
            path: name.recv().unwrap(),
            jobs: Some(jobs),
            thread: Some(thread),
        };
        namespace.ip("link set lo up");
        namespace
    }

    /// Does something in the namespace, always in the same thread, and waits for it. Panics pass
    /// through.
    pub(crate) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = channel();
        let job = std::panic::AssertUnwindSafe(job);
        let job = Box::new(move || {
            let _ = done.send(std::panic::catch_unwind(job));
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        match result.recv().unwrap() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs `ip` with these arguments in the namespace and returns what it prints.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }

    /// Joins two namespaces by a link with the addresses 192.0.2.1 here and 192.0.2.2 there.
    pub(crate) fn join(&self, other: &Self) {
        let peer = &other.path;
        self.ip(&format!(
            "link add wire type veth peer name wire netns {peer}"
        ));
        for (namespace, address) in [(self, "192.0.2.1"), (other, "192.0.2.2")] {
            namespace.ip(&format!("address add {address}/24 dev wire"));
            namespace.ip("link set wire up");
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `ip` with these arguments where the calling thread is.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output();
    let output = output.expect("`ip` has been tried");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether something is true within a second. A descriptor that is closed may live on for a moment
/// in a child process of another test, between its fork and its exec.
pub(crate) fn comes_true(is_true: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !is_true() {
        if begun.elapsed() > Duration::from_secs(1) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Raw sockets in the network namespace of the calling thread.
pub(crate) fn raw_sockets() -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/raw").unwrap();
    // The first line is the heading.
    table.lines().count() - 1
}

/// Whether the test may go on: as root, it may. Otherwise it runs once more as root of a user
/// namespace of its own, in a child process; where that is impossible, it says why.
pub(crate) fn may_run(test: &str) -> bool {
    let missing = ["ip", "unshare"].into_iter().find(|tool| {
        let found = Command::new(tool).arg("--version").output();
        found.is_err()
    });
    if let Some(tool) = missing {
        println!("{test} does nothing: `{tool}` is not installed");
        return false;
    }
    if geteuid().is_root() {
        let tried = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
        let is_allowed = matches!(tried, Ok(Ok(())));
        if !is_allowed {
            println!("{test} does nothing: network namespaces are not permitted here");
        }
        let tun = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun");
        if let Err(error) = &tun {
            println!("{test} does nothing: cannot open /dev/net/tun: {error}");
        }
        return is_allowed && tun.is_ok();
    }
    let as_root = |command: &mut Command| {
        command.args(["--user", "--map-root-user"]);
    };
    let mut trial = Command::new("unshare");
    as_root(&mut trial);
    if !trial
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("{test} does nothing: neither root nor user namespaces are to be had");
        return false;
    }
    let mut again = Command::new("unshare");
    as_root(&mut again);
    again.arg(std::env::current_exe().unwrap());
    let status = again.args([test, "--exact", "--nocapture"]).status();
    assert!(
        status.unwrap().success(),
        "{test} failed in a user namespace"
    );
    false
}
