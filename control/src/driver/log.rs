//! Where log lines go: pppd's `logfd` and `logfile`.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

/// A sink of log lines, shared by all who hold a clone. A line that cannot be written is lost,
/// never an error: a full disk or a closed pipe must not end a tunnel.
#[derive(Clone, Debug, Default)]
pub struct Log(Rc<RefCell<Sinks>>);

#[derive(Debug, Default)]
struct Sinks {
    terminal: Option<Terminal>,
    file: Option<File>,
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
            file: None,
        })))
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

    /// Writes one line.
    pub fn line(&self, text: &str) {
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
    }
}
