//! `pptp-fast capture`: the decrypted packets of a client's tunnel; and what `sessions capture` has
//! in common with it.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nix::sys::signal::{SigSet, Signal};

use super::fail;
use crate::driver::admin::records::CaptureWish;
use crate::driver::admin::{Answer, Conversation, Request};
use crate::driver::{capture, run_files};

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Copy the decrypted packets of a tunnel as pcapng; as root.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast capture office | tcpdump -nr -\n  \
    pptp-fast capture office -w office.pcapng --count 1000"
)]
pub(super) struct Capture {
    /// Name of the tunnel.
    name: String,
    #[command(flatten)]
    output: Output,
}

/// Where packets go, and when it ends.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// File to write, or `-` for standard output, which is the default.
    #[arg(short = 'w', long = "write", default_value = "-")]
    file: PathBuf,
    /// End after so many packets.
    #[arg(long)]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
}

impl Capture {
    pub(super) fn run(&self) -> ExitCode {
        self.capture().unwrap_or_else(|message| fail(message, 1))
    }

    fn capture(&self) -> Result<ExitCode, String> {
        self.output.check()?;
        let socket = run_files::tunnel_socket(&self.name);
        let conversation = Conversation::open(&socket, ANSWER_LIMIT);
        let mut conversation = conversation.map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => "packets are shown to root only: use sudo".to_owned(),
            _ => {
                let running = super::down::running();
                format!("tunnel {} is not running{running}", self.name)
            }
        })?;
        match conversation.ask(&Request::Capture(self.output.wish())) {
            Ok(Answer::Refused { why }) => Err(why),
            Ok(_) => self.output.receive(conversation),
            Err(error) => Err(format!("tunnel {} does not answer: {error}", self.name)),
        }
    }
}

impl Output {
    /// Says what a person should do instead of looking at octets.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.is_standard() && io::stdout().is_terminal() {
            return Err(
                "packets are no text: give -w FILE, or a pipe such as | tcpdump -nr -".into(),
            );
        }
        let is_time = |seconds: f64| Duration::try_from_secs_f64(seconds).is_ok();
        if self.duration.is_some_and(|seconds| !is_time(seconds)) {
            return Err("--duration takes seconds, such as 10 or 0.5".to_owned());
        }
        Ok(())
    }

    fn is_standard(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// When it is to end.
    pub(super) fn wish(&self) -> CaptureWish {
        CaptureWish {
            session: None,
            count: self.count,
            duration_ms: self.duration.map(|seconds| (seconds * 1e3) as u64),
        }
    }

    /// Writes what comes until it ends, INT and TERM included: the file is whole then.
    pub(super) fn receive(&self, conversation: Conversation) -> Result<ExitCode, String> {
        let mut sink: Box<dyn Write> = if self.is_standard() {
            Box::new(io::stdout().lock())
        } else {
            let words = |error| format!("cannot write {}: {error}", self.file.display());
            Box::new(File::create(&self.file).map_err(words)?)
        };
        let mut reader = conversation.into_reader();
        let stream = reader.get_ref().try_clone();
        let stream = stream.map_err(|error| error.to_string())?;
        // A session may be silent for long.
        let _ = stream.set_read_timeout(None);
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        let _ = signals.thread_block();
        std::thread::spawn(move || {
            let _ = signals.wait();
            // The other side sees the end, and ends the file.
            let _ = stream.shutdown(Shutdown::Write);
        });
        match capture::pass_on(&mut reader, &mut sink) {
            Ok(_) => Ok(ExitCode::SUCCESS),
            // Whoever read it has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            Err(error) => Err(format!("the capture broke off: {error}")),
        }
    }
}
