//! systemd's journal, spoken to in its own protocol (systemd, "Native Journal Protocol"): entries
//! with a priority and fields, where a stream would give it lines without.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::{FACILITY, Priority, Terminal};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    /// What every entry has, as it is sent.
    fields: Vec<u8>,
}

impl Journal {
    /// The journal, when it is there; every entry says `tunnel` in the field PPTP_TUNNEL.
    ///
    /// # Errors
    /// When there is no journald on this host.
    pub fn open(tunnel: Option<&str>) -> io::Result<Self> {
        Self::open_at(Path::new(SOCKET), tunnel)
    }

    /// As [`Self::open`], when standard output or standard error goes to the journal anyway.
    #[must_use]
    pub fn of_a_service(tunnel: Option<&str>) -> Option<Self> {
        [Terminal::Stdout, Terminal::Stderr]
            .iter()
            .any(|stream| stream.is_the_journal())
            .then(|| Self::open(tunnel).ok())
            .flatten()
    }

    fn open_at(path: &Path, tunnel: Option<&str>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // A journal that hangs must not hang the tunnel.
        socket.set_nonblocking(true)?;
        let mut fields = Vec::new();
        push(&mut fields, "SYSLOG_IDENTIFIER", "pptp-fast");
        push(&mut fields, "SYSLOG_FACILITY", &FACILITY.to_string());
        if let Some(tunnel) = tunnel {
            push(&mut fields, "PPTP_TUNNEL", tunnel);
        }
        Ok(Self { socket, fields })
    }

    /// An entry that cannot be sent is lost.
    pub(super) fn send(&self, priority: Priority, text: &str) {
        let mut entry = self.fields.clone();
        push(&mut entry, "PRIORITY", &(priority as u8).to_string());
        push(&mut entry, "MESSAGE", text);
        drop(self.socket.send(&entry));
    }
}

/// `NAME=value`; a value of several lines has its length in 8 octets, the least first, instead.
fn push(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

impl Terminal {
    /// Whether what is written there goes to the journal: JOURNAL_STREAM names the stream by device
    /// and inode (systemd.exec(5)).
    #[must_use]
    pub fn is_the_journal(self) -> bool {
        let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
            return false;
        };
        let is_it = |fd: &dyn AsFd| is_stream(fd, &stream);
        match self {
            Self::Stdout => is_it(&io::stdout()),
            Self::Stderr => is_it(&io::stderr()),
        }
    }
}

fn is_stream(fd: &dyn AsFd, stream: &str) -> bool {
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    let stat = nix::sys::stat::fstat(fd.as_fd());
    stat.is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

/// What a line on standard error begins with so that the journal knows its priority (sd-daemon(3));
/// nothing when it goes elsewhere.
#[must_use]
pub fn stderr_prefix(priority: Priority) -> String {
    match Terminal::Stderr.is_the_journal() {
        true => format!("<{}>", priority as u8),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_priority_and_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open_at(&path, Some("office")).unwrap();
        journal.send(Priority::Warning, "no answer");
        journal.send(Priority::Info, "two\nlines");
        let mut entry = [0; 500];
        let len = journald.recv(&mut entry).unwrap();
        let text = String::from_utf8_lossy(&entry[..len]);
        assert_eq!(
            text,
            "SYSLOG_IDENTIFIER=pptp-fast\nSYSLOG_FACILITY=3\nPPTP_TUNNEL=office\n\
             PRIORITY=4\nMESSAGE=no answer\n"
        );
        let len = journald.recv(&mut entry).unwrap();
        let framed = b"PRIORITY=6\nMESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\n";
        assert!(entry[..len].ends_with(framed));
    }

    #[test]
    fn a_stream_is_known_by_its_device_and_inode() {
        let (ours, other) = UnixDatagram::pair().unwrap();
        let stat = nix::sys::stat::fstat(&ours).unwrap();
        let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_stream(&ours, &stream));
        assert!(!is_stream(&other, &stream));
        assert!(!is_stream(&ours, "8:x"));
    }
}
