//! Going to the background: a child of our own does the work, the parent shows what it says until
//! the tunnel stands, and then leaves.
//!
//! A process with threads and an io_uring cannot fork, so the parent starts the same program again
//! (`/proc/self/exe`) before it has either.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// Set for the child.
const CHILD_MARK: &str = "PPTP_FAST_BACKGROUND";
/// Its value for a process that only starts the child and goes.
const BETWEEN: &str = "between";
/// The child's last line on standard output when the tunnel stands.
const READY: &str = "\u{1}ready";

/// Whether this process is the child that was started by `run_in_background`.
#[must_use]
pub fn is_child() -> bool {
    std::env::var_os(CHILD_MARK).is_some()
}

/// Starts this program again with the same arguments, passes on what it prints, and returns when
/// it is ready (0) or has ended (its exit status).
///
/// # Errors
/// When the program cannot be started.
pub fn run_in_background() -> std::io::Result<ExitCode> {
    let mut child = this_program_again("1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            if line.trim_ascii_end() == READY.as_bytes() {
                return Ok(ExitCode::SUCCESS);
            }
            let _ = std::io::stdout().write_all(&line);
            line.clear();
        }
    }
    let status = child.wait()?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, Into::into))
}

/// Goes to the background, on the same terminal or log, as a child of process 1. In the process
/// that was called, and in the one between them: its exit status, 0 when the last one is ready, 1
/// when it has ended and said why. `None` in the last one, which does the work.
///
/// systemd supervises only its own children, and looks when it hears of a new main process: the
/// parent must have gone by then.
///
/// # Errors
/// When the program cannot be started.
pub fn run_beside() -> Option<std::io::Result<ExitCode>> {
    match std::env::var_os(CHILD_MARK) {
        None => Some(wait_for_grandchild()),
        Some(mark) if mark == BETWEEN => {
            let last = this_program_again("1").spawn();
            Some(last.map(|_| ExitCode::SUCCESS))
        }
        Some(_) => None,
    }
}

fn wait_for_grandchild() -> std::io::Result<ExitCode> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let mut between = this_program_again(BETWEEN)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()?;
    between.wait()?;
    let mut word = String::new();
    let _ = BufReader::new(ours).read_line(&mut word);
    Ok(if word == READY {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn this_program_again(mark: &str) -> Command {
    let mut program = Command::new("/proc/self/exe");
    program.args(std::env::args_os().skip(1));
    program.env(CHILD_MARK, mark);
    program
}

/// In the last process of `run_beside`: tells the parent that it is ready.
pub fn report_ready_beside() {
    let stdin = std::io::stdin();
    let _ = nix::unistd::write(&stdin, READY.as_bytes());
    if let Ok(null) = nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
        let _ = nix::unistd::dup2_stdin(&null);
    }
}

/// In the child: leaves the terminal's session, so that closing it does not end the tunnel.
pub fn start_session() {
    let _ = nix::unistd::setsid();
}

/// In the child: tells the parent that the tunnel stands, and lets go of its terminal.
pub fn report_ready() {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{READY}");
    let _ = stdout.flush();
    drop(stdout);
    if let Ok(null) = nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}
