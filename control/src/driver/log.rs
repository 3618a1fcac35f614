//! Where log lines go: syslog or systemd's journal, pppd's `logfd` and `logfile`.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::rc::Rc;

use serde_json::{Map, Value};

mod journal;
mod json;

pub use journal::{Journal, stderr_prefix};
pub(crate) use json::Facts;

/// A sink of log lines, shared by all who hold a clone. A line that cannot be written is lost,
/// never an error: a full disk or a closed pipe must not end a tunnel.
#[derive(Clone, Debug, Default)]
pub struct Log(Rc<RefCell<Sinks>>);

#[derive(Debug, Default)]
struct Sinks {
    terminal: Option<Terminal>,
    file: Option<File>,
    syslog: Option<UnixDatagram>,
    /// Lines are JSON objects.
    objects: Option<json::Sessions>,
    journal: Option<Journal>,
}

/// Where syslogd listens.
const SYSLOG: &str = "/dev/log";
/// LOG_DAEMON (RFC 3164 4.1.1), as pppd's lines have it.
const FACILITY: u8 = 3;

/// How much a line matters (RFC 3164 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Something has failed for good.
    Error = 3,
    /// Something has failed, and the tunnel goes on.
    Warning = 4,
    /// What happens in the life of a tunnel.
    Info = 6,
    /// Packets of a negotiation.
    Debug = 7,
}

/// Which of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Log {
    /// Lines go to `terminal`, or nowhere.
    #[must_use]
    pub fn new(terminal: Option<Terminal>) -> Self {
        Self(Rc::new(RefCell::new(Sinks {
            terminal,
            ..Sinks::default()
        })))
    }

    /// Lines go to syslog, too, where there is one: as pppd's do.
    #[must_use]
    pub fn with_syslog(self) -> Self {
        self.with_syslog_at(Path::new(SYSLOG))
    }

    fn with_syslog_at(self, path: &Path) -> Self {
        let connected = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(path)?;
            // A syslogd that hangs must not hang the tunnel.
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        self.0.borrow_mut().syslog = connected.ok();
        self
    }

    /// Lines go to `path`, too: appended, and readable only by the owner when new.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn with_file(self, path: &Path) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(path)?;
        self.0.borrow_mut().file = Some(file);
        Ok(self)
    }

    /// Lines are JSON objects from now on: see `log/json.rs`.
    #[must_use]
    pub fn with_json(self) -> Self {
        self.0.borrow_mut().objects = Some(json::Sessions::default());
        self
    }

    /// Whether lines are JSON objects.
    pub(crate) fn is_json(&self) -> bool {
        self.0.borrow().objects.is_some()
    }

    /// Takes note of what is known of a session, for lines about it.
    pub(crate) fn know(&self, call_id: u16, change: impl FnOnce(&mut Facts)) {
        if let Some(sessions) = &mut self.0.borrow_mut().objects {
            change(sessions.facts.entry(call_id).or_default());
        }
    }

    /// Forgets a session.
    pub(crate) fn forget(&self, call_id: u16) {
        if let Some(sessions) = &mut self.0.borrow_mut().objects {
            sessions.facts.remove(&call_id);
        }
    }

    /// Writes down what has happened to a session, where lines are JSON objects.
    pub(crate) fn event(&self, call_id: u16, event: &str, details: Map<String, Value>) {
        self.object(Some(call_id), event, None, details);
    }

    /// Writes one line about a session: `prefix` and `text`, or an object with its facts.
    pub(crate) fn session_line(&self, call_id: u16, event: &str, prefix: &str, text: &str) {
        if !self.object(Some(call_id), event, Some(text), Map::new()) {
            self.write(Priority::Info, &format!("{prefix} {text}"));
        }
    }

    /// Writes one line about a packet of a session.
    pub(crate) fn packet_line(&self, call_id: u16, prefix: &str, text: &str) {
        if !self.object(Some(call_id), "packet", Some(text), Map::new()) {
            self.write(Priority::Debug, &format!("{prefix} {text}"));
        }
    }

    /// Lines go to the journal in its own words, too: with priorities.
    #[must_use]
    pub fn with_journal(self, journal: Journal) -> Self {
        self.0.borrow_mut().journal = Some(journal);
        self
    }

    /// Writes one line.
    pub fn line(&self, text: &str) {
        self.say(Priority::Info, "log", text);
    }

    /// Writes one line about what has failed.
    pub fn warning(&self, text: &str) {
        self.say(Priority::Warning, "warning", text);
    }

    /// Writes one line about a packet.
    pub fn debug(&self, text: &str) {
        self.say(Priority::Debug, "packet", text);
    }

    fn say(&self, priority: Priority, event: &str, text: &str) {
        if !self.object(None, event, Some(text), Map::new()) {
            self.write(priority, text);
        }
    }

    /// False when lines are no objects.
    fn object(
        &self,
        call_id: Option<u16>,
        event: &str,
        message: Option<&str>,
        details: Map<String, Value>,
    ) -> bool {
        let entry_of = |sinks: &Sinks| {
            let sessions = sinks.objects.as_ref()?;
            Some(sessions.entry(call_id, event, message, details))
        };
        let entry = entry_of(&self.0.borrow());
        if let Some(entry) = &entry {
            self.write(Priority::Info, entry);
        }
        entry.is_some()
    }

    fn write(&self, priority: Priority, text: &str) {
        let mut line = String::with_capacity(text.len() + 1);
        line.push_str(text);
        line.push('\n');
        let bytes = line.as_bytes();
        let sinks = &mut *self.0.borrow_mut();
        match sinks.terminal {
            Some(Terminal::Stdout) => drop(std::io::stdout().lock().write_all(bytes)),
            Some(Terminal::Stderr) => drop(std::io::stderr().lock().write_all(bytes)),
            None => {}
        }
        if let Some(file) = &mut sinks.file {
            drop(file.write_all(bytes));
        }
        if let Some(syslog) = &sinks.syslog {
            let pid = std::process::id();
            let priority = FACILITY << 3 | priority as u8;
            let entry = format!("<{priority}>pptp-fast[{pid}]: {text}");
            drop(syslog.send(entry.as_bytes()));
        }
        if let Some(journal) = &sinks.journal {
            journal.send(priority, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reaches_every_sink() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("log"), dir.path().join("file"));
        let syslogd = UnixDatagram::bind(&socket).unwrap();
        let log = Log::new(None).with_syslog_at(&socket);
        let log = log.with_file(&file).unwrap();
        log.line("local  IP address 10.0.0.1");
        let mut entry = [0; 200];
        let len = syslogd.recv(&mut entry).unwrap();
        let expected = format!(
            "<30>pptp-fast[{}]: local  IP address 10.0.0.1",
            std::process::id()
        );
        assert_eq!(entry[..len], *expected.as_bytes());
        let lines = std::fs::read_to_string(&file).unwrap();
        assert_eq!(lines, "local  IP address 10.0.0.1\n");
    }

    #[test]
    fn a_sink_that_is_gone_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("log");
        let absent = Log::new(None).with_syslog_at(&socket);
        absent.line("nobody hears this");
        let syslogd = UnixDatagram::bind(&socket).unwrap();
        let log = Log::new(None).with_syslog_at(&socket);
        drop(syslogd);
        log.line("nor this");
    }
}
