//! Child processes that write to a log, end when they are told to, and never outlive this program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const POLL: Duration = Duration::from_millis(20);
/// A tunnel has this long to say goodbye before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A command that the kernel kills when this program dies, however it dies.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running child and the file that its output goes to. Dropping it ends it.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; both its outputs go to the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the output contains `text`; an error if the process ends or `limit` passes.
    pub(crate) fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.wait_until(limit, &format!("the line '{text}'"), |output| {
            output.contains(text)
        })
    }

    /// Waits until `good` says yes to the output so far; `what` tells a person what is awaited.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        what: &str,
        mut good: impl FnMut(&str) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !good(&self.output()) {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended ({status}) before {what}: {}", self.last_lines());
            }
            if Instant::now() > deadline {
                bail!("{what} did not come in {limit:?}: {}", self.last_lines());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits for the process to end by itself and kills it after `limit`.
    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("still running after {limit:?}: {}", self.last_lines());
            }
            thread::sleep(POLL);
        }
    }

    /// An error when the process, which should be running, has ended.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("ended by itself ({status}): {}", self.last_lines()),
            None => Ok(()),
        }
    }

    fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn last_lines(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().filter(|line| !line.is_empty()).collect();
        let last = lines.len().saturating_sub(3);
        format!(
            "{} (all: {})",
            lines[last..].join(" | "),
            self.log.display()
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // An error means that it has just ended.
        let _ = kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGTERM,
        );
        if self.wait(STOP_LIMIT).is_err() {
            eprintln!("  had to be killed: {}", self.log.display());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs `command` to its end and returns its standard output; an error if it fails or is not done
/// within `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    // Reading happens beside the waiting, or a long output would block the child.
    let watch = thread::spawn({
        let stdout = child.stdout.take();
        move || stdout.map(std::io::read_to_string)
    });
    let errors = thread::spawn({
        let stderr = child.stderr.take();
        move || stderr.map(std::io::read_to_string)
    });
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = kill(pid, Signal::SIGKILL);
            child.wait()?;
            bail!("{command:?} was not done in {limit:?}");
        }
        thread::sleep(POLL);
    };
    let read = |thread: thread::JoinHandle<Option<std::io::Result<String>>>| {
        thread
            .join()
            .ok()
            .flatten()
            .transpose()
            .map(Option::unwrap_or_default)
    };
    let output = read(watch)?;
    let errors = read(errors)?;
    if !status.success() {
        let said = if errors.trim().is_empty() {
            &output
        } else {
            &errors
        };
        bail!("{command:?} failed ({status}): {}", said.trim());
    }
    Ok(output)
}

/// Runs a short command.
pub(crate) fn quick(command: &mut Command) -> Result<String> {
    run(command, Duration::from_secs(20))
}

/// The file of a program: from `folder` if it is there, else from the search path, to which the
/// system's own folders belong here.
pub(crate) fn find(program: &str, folder: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::iter::once(folder.to_owned())
        .chain(std::env::split_paths(&path))
        .chain(system)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("no program {program}"))
}

/// A text without the names of the folders that lead to this project.
pub(crate) fn from_here(text: &str) -> String {
    match std::env::current_dir() {
        Ok(here) => text.replace(&format!("{}/", here.display()), ""),
        Err(_) => text.to_owned(),
    }
}
