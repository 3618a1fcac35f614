//! What can be wrong with a configuration: always with the place, and with what to do about it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

/// Where a word stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File name; `None` is the command line.
    pub file: Option<Arc<str>>,
    /// Line, counted from 1; 0 on the command line.
    pub line: u32,
}

impl Place {
    /// The command line.
    #[must_use]
    pub const fn command_line() -> Self {
        Self {
            file: None,
            line: 0,
        }
    }

    /// As `dump` names it: the file, or `command line`.
    #[must_use]
    pub fn source(&self) -> &str {
        self.file.as_deref().unwrap_or("command line")
    }
}

/// pppd's opening words for an error: `In file F, line N: `, or nothing for the command line.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) if self.line > 0 => write!(f, "In file {file}, line {}: ", self.line),
            Some(file) => write!(f, "In file {file}: "),
            None => Ok(()),
        }
    }
}

/// Why a configuration cannot be used. `Display` never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No such option, in pppd's words.
    #[error(
        "{}unrecognized option '{name}'{}{}",
        in_file(.place),
        on_line(.place),
        did_you_mean(.suggestion)
    )]
    UnknownOption {
        /// Where.
        place: Place,
        /// The word.
        name: String,
        /// An option with nearly that name.
        suggestion: Option<String>,
    },
    /// The file, or the command line, ends where the argument should be.
    #[error("{}too few parameters for option '{name}'{}", in_file(.place), on_line(.place))]
    TooFewParameters {
        /// Where the option stands.
        place: Place,
        /// The option.
        name: String,
    },
    /// The argument is not what the option takes.
    #[error("{place}{why}")]
    BadValue {
        /// Where.
        place: Place,
        /// Option, value and what it may be.
        why: String,
    },
    /// The option is known, and what it asks for is not done here.
    #[error("{place}the option '{name}' cannot be honoured: {reason}")]
    Refused {
        /// Where.
        place: Place,
        /// The option.
        name: String,
        /// Why, and what to use instead.
        reason: String,
    },
    /// Options that contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// `file` and `call` in a circle, or nested too deep.
    #[error("{place}options files are nested more than {depth_max} deep: does one name itself?")]
    TooDeep {
        /// Where the last `file` or `call` stands.
        place: Place,
        /// The bound.
        depth_max: usize,
    },
    /// A file cannot be read.
    #[error("{place}Can't open {what} {}: {cause}", path.display())]
    Unreadable {
        /// Where it is named.
        place: Place,
        /// What kind of file.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Operating system's words.
        cause: String,
    },
    /// A tunnel name with other characters than pptp-command allows.
    #[error(
        "'{0}' is no tunnel name: letters, digits and the characters - _ . @ are allowed, \
         and it must not be . or .."
    )]
    BadTunnelName(String),
    /// No file of that name in `peers`.
    #[error(
        "Tunnel configuration for {name} not found in {}. {}{}",
        directory.display(),
        existing(.tunnels),
        did_you_mean(.suggestion)
    )]
    NoTunnel {
        /// What was asked for.
        name: String,
        /// The `peers` directory.
        directory: PathBuf,
        /// What there is, sorted, at most [`super::peers::TUNNELS_SHOWN_MAX`] names.
        tunnels: Vec<String>,
        /// One that is nearly named so.
        suggestion: Option<String>,
    },
    /// Nothing says which server the tunnel goes to.
    #[error(
        "Server Address for {tunnel} not found. Add a line `# Server IP: HOST` to {file}, \
         or give --server HOST"
    )]
    NoServer {
        /// The tunnel.
        tunnel: String,
        /// Its file.
        file: String,
    },
    /// The TOML file is not what the server reads.
    #[error("{place}{why}")]
    Toml {
        /// Where.
        place: Place,
        /// The parser's words.
        why: String,
    },
}

impl ConfigError {
    /// pppd's exit status for it: 2, "an error was detected in processing the options given".
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        2
    }
}

/// pppd's words: `In file F: `, without the line, for messages that people search for.
fn in_file(place: &Place) -> String {
    place
        .file
        .as_ref()
        .map_or_else(String::new, |file| format!("In file {file}: "))
}

fn on_line(place: &Place) -> String {
    if place.line == 0 {
        String::new()
    } else {
        format!(" (line {})", place.line)
    }
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    suggestion
        .as_ref()
        .map_or_else(String::new, |name| format!(". Did you mean '{name}'?"))
}

fn existing(tunnels: &[String]) -> String {
    if tunnels.is_empty() {
        "There are no configured tunnels: add one with 'pptp-fast tunnel add NAME --server SERVER', \
         or with 'up', name the server with --server"
            .to_owned()
    } else {
        format!("There are: {}", tunnels.join(", "))
    }
}

/// The candidate that is at most two edits away from `word`, and less than half of it.
#[must_use]
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    if word.len() > NAME_LEN_MAX {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| {
            (
                edit_distance(word.as_bytes(), candidate.as_bytes()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= 2 && distance * 2 < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// Longer words are not compared with every name that there is.
const NAME_LEN_MAX: usize = 64;

/// Levenshtein's distance, one row at a time.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, to) in row.iter_mut().skip(1).zip(b) {
            let here = (diagonal + usize::from(from != to))
                .min(*cell + 1)
                .min(left + 1);
            diagonal = *cell;
            *cell = here;
            left = here;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_edits() {
        assert_eq!(edit_distance(b"kitten", b"sitting"), 3);
        assert_eq!(edit_distance(b"", b"abc"), 3);
        assert_eq!(edit_distance(b"abc", b""), 3);
        assert_eq!(edit_distance(b"novj", b"novj"), 0);
    }

    #[test]
    fn an_unknown_option_is_reported_in_the_words_of_pppd() {
        let error = ConfigError::UnknownOption {
            place: Place {
                file: Some("/etc/ppp/options.pptp".into()),
                line: 4,
            },
            name: "xyz".to_owned(),
            suggestion: None,
        };
        assert_eq!(
            error.to_string(),
            "In file /etc/ppp/options.pptp: unrecognized option 'xyz' (line 4)"
        );
        assert_eq!(error.exit_status(), 2);
    }

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["novj", "novjccomp", "require-mppe-128"];
        assert_eq!(
            nearest("require-mpe-128", names).as_deref(),
            Some("require-mppe-128")
        );
        assert_eq!(nearest("xyz", names), None);
    }
}
