//! Options files and command words, in order, into values; `file` and `call` within bounds.

use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use zeroize::Zeroizing;

use super::dump::{HIDDEN, shown};
use super::{PppdOptions, Setting};
use crate::config::error::{ConfigError, Place, nearest};
use crate::config::option_table::{self, Include, OptionSpec, Setter, Takes, Treatment, Value};
use crate::config::words::Words;
use crate::config::{PPP_DIR, source};

/// `file` and `call` within each other.
pub const DEPTH_MAX: usize = 16;
/// Words of all files together; it bounds files that include each other many times.
const WORDS_MAX: usize = 100_000;
/// Problems that `check` gathers before it stops.
const PROBLEMS_MAX: usize = 200;

/// Bounds on files within files.
struct Nesting<'a> {
    /// What pppd knows as `/etc/ppp`.
    dir: &'a Path,
    depth: usize,
    words_left: usize,
    /// Errors of single options are kept here, and reading goes on (`check`).
    problems: Option<&'a mut Vec<ConfigError>>,
}

impl<'a> Nesting<'a> {
    const fn new(dir: &'a Path) -> Self {
        Self {
            dir,
            depth: 0,
            words_left: WORDS_MAX,
            problems: None,
        }
    }

    /// Bounds the work that files which include each other can cause.
    fn count_word(&mut self, place: &Place) -> Result<(), ConfigError> {
        self.words_left = self.words_left.checked_sub(1).ok_or_else(|| {
            ConfigError::Conflict(format!(
                "{place}the options files have more than {WORDS_MAX} options together"
            ))
        })?;
        Ok(())
    }

    /// Ends reading with `error`, or keeps it when all are wanted.
    fn report(&mut self, error: ConfigError) -> Result<(), ConfigError> {
        match &mut self.problems {
            Some(problems) if problems.len() < PROBLEMS_MAX => {
                problems.push(error);
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// A word on its way to become an option or an argument.
struct Next {
    octets: Zeroizing<Vec<u8>>,
    place: Place,
    starts_line: bool,
}

/// Where options come from: a file, or a list of words.
trait WordSource {
    fn next(&mut self) -> Result<Option<Next>, ConfigError>;
}

impl WordSource for Words<'_> {
    fn next(&mut self) -> Result<Option<Next>, ConfigError> {
        Ok(self.next_word()?.map(|word| Next {
            place: self.place(word.line),
            starts_line: word.starts_line,
            octets: word.into_bytes(),
        }))
    }
}

struct CommandLine<'a>(std::slice::Iter<'a, String>);

impl WordSource for CommandLine<'_> {
    fn next(&mut self) -> Result<Option<Next>, ConfigError> {
        Ok(self.0.next().map(|word| Next {
            octets: Zeroizing::new(word.clone().into_bytes()),
            place: Place::command_line(),
            starts_line: false,
        }))
    }
}

impl PppdOptions {
    /// Reads `dir`/options, if it is there.
    ///
    /// # Errors
    /// What is wrong in it or in what it includes, with file and line.
    pub fn read_system_file(&mut self, dir: &Path) -> Result<(), ConfigError> {
        let path = dir.join("options");
        match source::read_if_exists("options file", &path)? {
            Some(text) => self.read_text(dir, &path.to_string_lossy(), &text),
            None => Ok(()),
        }
    }

    /// Reads an options file, which must be there. Paths under `/etc/ppp` are looked up in `dir`.
    ///
    /// # Errors
    /// As [`read_system_file`](Self::read_system_file).
    pub fn read_file(&mut self, dir: &Path, path: &Path) -> Result<(), ConfigError> {
        self.read_file_named_at(dir, path, &Place::command_line())
    }

    /// The same for a file that another file names, which errors say.
    ///
    /// # Errors
    /// As [`read_system_file`](Self::read_system_file).
    pub(in crate::config) fn read_file_named_at(
        &mut self,
        dir: &Path,
        path: &Path,
        place: &Place,
    ) -> Result<(), ConfigError> {
        self.include(place, Include::File, path, &mut Nesting::new(dir))
    }

    /// Reads `dir`/peers/`name`, as `call` does.
    ///
    /// # Errors
    /// As [`read_system_file`](Self::read_system_file).
    pub fn read_peer(&mut self, dir: &Path, name: &str) -> Result<(), ConfigError> {
        let place = Place::command_line();
        self.include(
            &place,
            Include::Peer,
            Path::new(name),
            &mut Nesting::new(dir),
        )
    }

    /// Reads the text of an options file that is called `file` in errors.
    ///
    /// # Errors
    /// As [`read_system_file`](Self::read_system_file).
    pub fn read_text(&mut self, dir: &Path, file: &str, text: &[u8]) -> Result<(), ConfigError> {
        self.read_all(&mut Words::new(file, text), &mut Nesting::new(dir))
    }

    /// As [`read_text`](Self::read_text), but goes on after an option that is wrong, and gives
    /// every problem: for `check`.
    pub fn check_text(&mut self, dir: &Path, file: &str, text: &[u8]) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut nesting = Nesting::new(dir);
        nesting.problems = Some(&mut problems);
        let end = self.read_all(&mut Words::new(file, text), &mut nesting);
        problems.extend(end.err());
        problems
    }

    /// As [`read_file`](Self::read_file), but gives every problem: for `check`. What is honoured
    /// and what is harmless is in `settings` afterwards.
    pub fn check_file(&mut self, dir: &Path, path: &Path) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut nesting = Nesting::new(dir);
        nesting.problems = Some(&mut problems);
        let end = self.include(&Place::command_line(), Include::File, path, &mut nesting);
        problems.extend(end.err());
        problems
    }

    /// Reads words of a command line.
    ///
    /// # Errors
    /// As [`read_system_file`](Self::read_system_file).
    pub fn read_words(&mut self, dir: &Path, words: &[String]) -> Result<(), ConfigError> {
        self.read_all(&mut CommandLine(words.iter()), &mut Nesting::new(dir))
    }

    fn read_all(
        &mut self,
        words: &mut dyn WordSource,
        nesting: &mut Nesting<'_>,
    ) -> Result<(), ConfigError> {
        let mut after_secret = false;
        while let Some(word) = words.next()? {
            nesting.count_word(&word.place)?;
            let name = String::from_utf8_lossy(&word.octets).into_owned();
            // It may be the rest of a password: then it must not be shown.
            let hidden = after_secret && !word.starts_line;
            let spec = option_table::find(&name);
            let spec = spec.or_else(|| option_table::find_wild(&name, hidden));
            let Some(spec) = spec else {
                nesting.report(unknown(word.place, name, hidden))?;
                continue;
            };
            let place = word.place;
            let argument = match spec.takes {
                // A word such as `local:remote` is its own argument.
                Takes::Nothing if spec.wild => word.octets,
                Takes::Nothing => Zeroizing::default(),
                _ => match words.next()? {
                    Some(argument) => argument.octets,
                    None => {
                        return nesting.report(ConfigError::TooFewParameters { place, name });
                    }
                },
            };
            let is_hidden = hidden && spec.wild;
            after_secret = spec.takes == Takes::Secret || is_hidden;
            let count = self.settings.len();
            if let Err(error) = self.set(spec, &argument, place, nesting) {
                nesting.report(error)?;
            }
            if is_hidden {
                let rest = self.settings.iter_mut().skip(count);
                rest.for_each(|setting| HIDDEN.clone_into(&mut setting.shown));
            }
        }
        Ok(())
    }

    /// One option with its argument.
    fn set(
        &mut self,
        spec: &'static OptionSpec,
        argument: &[u8],
        place: Place,
        nesting: &mut Nesting<'_>,
    ) -> Result<(), ConfigError> {
        let text = Zeroizing::new(String::from_utf8_lossy(argument).into_owned());
        let bad = |why: String| ConfigError::BadValue {
            place: place.clone(),
            why,
        };
        let value = check(spec, argument, &text).map_err(bad)?;
        let setting = Setting {
            spec,
            shown: shown(spec, &value),
            place: place.clone(),
        };
        match spec.treatment {
            Treatment::Honoured(Setter::Plain(set)) => set(self, &value),
            Treatment::Honoured(Setter::Checked(set)) => set(self, &value).map_err(bad)?,
            Treatment::Honoured(Setter::Include(include)) => {
                return self.include(&place, include, Path::new(text.as_str()), nesting);
            }
            Treatment::Harmless(_) => {}
            Treatment::Refused(reason) => {
                self.settings.push(setting);
                return Err(ConfigError::Refused {
                    place,
                    name: spec.name.to_owned(),
                    reason: reason.to_owned(),
                });
            }
        }
        self.settings.push(setting);
        Ok(())
    }

    fn include(
        &mut self,
        place: &Place,
        include: Include,
        path: &Path,
        nesting: &mut Nesting<'_>,
    ) -> Result<(), ConfigError> {
        if nesting.depth >= DEPTH_MAX {
            return Err(ConfigError::TooDeep {
                place: place.clone(),
                depth_max: DEPTH_MAX,
            });
        }
        let path = match include {
            Include::File => locate(nesting.dir, path),
            Include::Peer => nesting.dir.join("peers").join(peer_name(place, path)?),
        };
        let text = source::read("options file", &path, place)?;
        nesting.depth += 1;
        let result = self.read_all(&mut Words::new(&path.to_string_lossy(), &text), nesting);
        nesting.depth -= 1;
        result
    }
}

fn unknown(place: Place, name: String, hidden: bool) -> ConfigError {
    if hidden {
        return ConfigError::BadValue {
            place,
            why: "unrecognized option behind a password: a password with a space or # in it needs \
                  quotes"
                .to_owned(),
        };
    }
    let names = option_table::rows().filter(|row| !row.wild);
    ConfigError::UnknownOption {
        place,
        suggestion: nearest(&name, names.map(|row| row.name)),
        name: name.chars().filter(|c| !c.is_control()).take(80).collect(),
    }
}

/// Paths under `/etc/ppp` lie in `dir`, since `dir` stands for it.
pub(in crate::config) fn locate(dir: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(PPP_DIR) {
        Ok(rest) => dir.join(rest),
        Err(_) => path.to_owned(),
    }
}

/// pppd's rule for `call`: not empty, not absolute, no `..`.
fn peer_name<'a>(place: &Place, path: &'a Path) -> Result<&'a Path, ConfigError> {
    let plain = |component: Component<'_>| matches!(component, Component::Normal(_));
    if path.as_os_str().is_empty() || !path.components().all(plain) {
        return Err(ConfigError::BadValue {
            place: place.clone(),
            why: "call option value may not contain .. or start with /".to_owned(),
        });
    }
    Ok(path)
}

/// An argument against what the option takes; the error is in pppd's words.
fn check<'a>(spec: &OptionSpec, octets: &'a [u8], text: &'a str) -> Result<Value<'a>, String> {
    let mut value = Value {
        text,
        octets,
        number: 0,
        address: Ipv4Addr::UNSPECIFIED,
    };
    let name = spec.name;
    let quoted: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
    let not_a_number = || format!("invalid numeric parameter '{quoted}' for {name} option");
    match spec.takes {
        Takes::Nothing | Takes::Text | Takes::Secret => {}
        Takes::Number(low, high) => {
            value.number = parse_number(text).ok_or_else(not_a_number)?;
            if !(low..=high).contains(&value.number) {
                return Err(if high >= i64::from(i32::MAX) {
                    format!("{name} value must be >= {low}, not {quoted}")
                } else {
                    format!("{name} value must be between {low} and {high}, not {quoted}")
                });
            }
        }
        Takes::Hex => {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            let number = u32::from_str_radix(digits, 16).ok();
            value.number = number
                .filter(|_| !digits.starts_with('+'))
                .ok_or_else(not_a_number)?
                .into();
        }
        Takes::Address => {
            value.address = text
                .parse()
                .map_err(|_| format!("invalid address parameter '{quoted}' for {name} option"))?;
        }
    }
    Ok(value)
}

/// C's `strtol` with base 0, without trailing characters.
fn parse_number(text: &str) -> Option<i64> {
    let (negative, digits) = text
        .strip_prefix('-')
        .map_or((false, text), |rest| (true, rest));
    let (digits, base) = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_digit(base)) {
        return None;
    }
    let number = i64::from_str_radix(digits, base).ok()?;
    Some(if negative { -number } else { number })
}
