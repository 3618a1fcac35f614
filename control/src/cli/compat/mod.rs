//! The old names of what this program does, as links to it: `argv[0]` decides.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

mod plog;
mod poff;
mod pon;
mod pptp_command;
mod pptpsetup;

/// An old name, and what stands behind it.
struct OldName {
    name: &'static str,
    run: fn(Vec<OsString>) -> ExitCode,
}

const OLD_NAMES: [OldName; 5] = [
    OldName {
        name: "pptp-command",
        run: pptp_command::main,
    },
    OldName {
        name: "pptpsetup",
        run: pptpsetup::main,
    },
    OldName {
        name: "pon",
        run: pon::main,
    },
    OldName {
        name: "poff",
        run: poff::main,
    },
    OldName {
        name: "plog",
        run: plog::main,
    },
];

/// The old names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OLD_NAMES.iter().map(|old| old.name)
}

/// Does what the process's old name says; `None` when it was called by its own.
pub(super) fn main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let called = arguments.next()?;
    let called = Path::new(&called).file_name()?;
    let old = OLD_NAMES.iter().find(|old| called == old.name)?;
    Some((old.run)(arguments.collect()))
}

/// Arguments as text; what is not UTF-8 is replaced, and then names nothing that there is.
fn texts(arguments: Vec<OsString>) -> Vec<String> {
    arguments
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}
