//! Passwords, which never stand on a command line: other users can read those.

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use inquire::{Password, PasswordDisplayMode};
use zeroize::Zeroizing;

use crate::config::words::WORD_BYTES_MAX;
use crate::proto::auth::Secret;

/// The first line of a file; `-` is standard input.
pub(super) fn from_file(path: &Path) -> Result<Secret, String> {
    let text = match path.as_os_str() == "-" {
        true => first_line(std::io::stdin().lock()),
        false => {
            std::fs::File::open(path).and_then(|file| first_line(std::io::BufReader::new(file)))
        }
    };
    let text =
        text.map_err(|error| format!("cannot read the password file {}: {error}", path.display()))?;
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(format!(
            "the first line of {} is empty: put the password there",
            path.display()
        ));
    }
    Ok(Secret::new(line.to_vec()))
}

fn first_line(input: impl BufRead) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // Room from the start, so that no half-grown copy stays behind in the heap.
    let mut line = Zeroizing::new(Vec::with_capacity(WORD_BYTES_MAX + 2));
    input
        .take(WORD_BYTES_MAX as u64 + 2)
        .read_until(b'\n', &mut line)?;
    Ok(line)
}

/// From `file`, when one is given; else asked for, twice, without showing it.
pub(super) fn from_file_or_terminal(file: Option<&Path>, prompt: &str) -> Result<Secret, String> {
    if let Some(path) = file {
        return from_file(path);
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            "there is nobody to ask for the password: name a file with --password-file, \
                    or - for standard input"
                .to_owned(),
        );
    }
    let asked = Password::new(prompt)
        .with_display_mode(PasswordDisplayMode::Masked)
        .with_custom_confirmation_message("The same again:")
        .prompt();
    let password = asked.map_err(|error| format!("no password: {error}"))?;
    Ok(Secret::new(password.into_bytes()))
}
