//! Asking a person for what must not be seen.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};

use nix::sys::termios::{self, LocalFlags, SetArg};
use zeroize::Zeroizing;

use crate::proto::auth::Secret;

/// What may be typed before it is cut.
const LINE_LEN_MAX: usize = 1_024;

/// Asks for a new password, twice, without showing it. `None` without a terminal, when nothing was
/// typed, or when both differ; the last is said.
#[must_use]
pub fn ask_new_password(client: &str) -> Option<Secret> {
    let mut terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .ok()?;
    let first = ask(&mut terminal, &format!("New password of {client}: "))?;
    let second = ask(&mut terminal, "Once more: ")?;
    if first != second {
        let _ = writeln!(terminal, "They differ; nothing was changed.");
        return None;
    }
    (!first.is_empty()).then(|| Secret::new(first.to_vec()))
}

fn ask(terminal: &mut File, prompt: &str) -> Option<Zeroizing<Vec<u8>>> {
    let shown = termios::tcgetattr(&*terminal).ok()?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    hidden.local_flags.insert(LocalFlags::ECHONL);
    termios::tcsetattr(&*terminal, SetArg::TCSAFLUSH, &hidden).ok()?;
    let line = write!(terminal, "{prompt}").and_then(|()| read_line(terminal));
    let restored = termios::tcsetattr(&*terminal, SetArg::TCSAFLUSH, &shown);
    line.ok().filter(|_| restored.is_ok())
}

fn read_line(terminal: &File) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_LEN_MAX));
    // A terminal gives a line at a time, so no octet of the next is lost in the buffer.
    let reader = std::io::Read::take(terminal, LINE_LEN_MAX as u64);
    BufReader::new(reader).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(line)
}
