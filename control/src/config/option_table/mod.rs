//! Every option of pppd's current source and of the dialects that people have in their files:
//! what it takes, and what we do with it. One row an option, in the order of pppd's `dump`.

mod auth;
mod channel;
mod general;
mod link;
mod network;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use super::pppd_options::PppdOptions;

/// What an option takes behind its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// One word.
    Text,
    /// One word that `dump` and errors never show.
    Secret,
    /// A decimal, `0x` or octal number within these bounds.
    Number(i64, i64),
    /// A hexadecimal number of 32 bits.
    Hex,
    /// A dotted IPv4 address.
    Address,
}

/// An argument, checked against [`Takes`]: only the fields that belong to it say something.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// As it stands there; what is not UTF-8 is replaced.
    pub text: &'a str,
    /// As it stands there.
    pub octets: &'a [u8],
    /// Of `Number` and `Hex`.
    pub number: i64,
    /// Of `Address`.
    pub address: Ipv4Addr,
}

impl Value<'_> {
    /// The number where the bounds of the option make it fit; else the nearest that does.
    #[must_use]
    pub fn u32(&self) -> u32 {
        u32::try_from(self.number.max(0)).unwrap_or(u32::MAX)
    }

    /// As [`u32`](Self::u32).
    #[must_use]
    pub fn u16(&self) -> u16 {
        u16::try_from(self.number.max(0)).unwrap_or(u16::MAX)
    }
}

/// How an option changes the values.
#[derive(Clone, Copy, Debug)]
pub enum Setter {
    /// Any argument that the table lets pass will do.
    Plain(fn(&mut PppdOptions, &Value<'_>)),
    /// The argument has a grammar of its own; the error is words for a person.
    Checked(fn(&mut PppdOptions, &Value<'_>) -> Result<(), String>),
    /// Another file takes the option's place.
    Include(Include),
}

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// `file F`.
    File,
    /// `call NAME`: `peers/NAME`.
    Peer,
}

/// What we do with an option.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// It does what pppd's manual says.
    Honoured(Setter),
    /// It is accepted and changes nothing, for this reason.
    Harmless(&'static str),
    /// A configuration with it is refused, for this reason.
    Refused(&'static str),
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// As it is written.
    pub name: &'static str,
    /// The option whose value it also sets (`dump` shows the last of those); often itself.
    pub group: &'static str,
    /// There is no such word: `name` describes the words that are meant (`local:remote`).
    pub wild: bool,
    /// Its argument.
    pub takes: Takes,
    /// What we do with it.
    pub treatment: Treatment,
}

impl OptionSpec {
    const fn new(name: &'static str, takes: Takes, treatment: Treatment) -> Self {
        Self {
            name,
            group: name,
            wild: false,
            takes,
            treatment,
        }
    }

    /// The row is another way to set what `group` sets.
    const fn in_group(mut self, group: &'static str) -> Self {
        self.group = group;
        self
    }
}

/// A row without an argument.
const fn flag(name: &'static str, set: fn(&mut PppdOptions, &Value<'_>)) -> OptionSpec {
    value(name, Takes::Nothing, set)
}

/// A row with an argument.
const fn value(
    name: &'static str,
    takes: Takes,
    set: fn(&mut PppdOptions, &Value<'_>),
) -> OptionSpec {
    OptionSpec::new(name, takes, Treatment::Honoured(Setter::Plain(set)))
}

/// A row whose argument has a grammar of its own.
const fn checked(
    name: &'static str,
    set: fn(&mut PppdOptions, &Value<'_>) -> Result<(), String>,
) -> OptionSpec {
    OptionSpec::new(name, Takes::Text, Treatment::Honoured(Setter::Checked(set)))
}

/// A row that changes nothing.
const fn harmless(name: &'static str, takes: Takes, reason: &'static str) -> OptionSpec {
    OptionSpec::new(name, takes, Treatment::Harmless(reason))
}

/// A row that we cannot honour.
const fn refused(name: &'static str, takes: Takes, reason: &'static str) -> OptionSpec {
    OptionSpec::new(name, takes, Treatment::Refused(reason))
}

/// A row for words that are their own argument.
const fn wild(name: &'static str, treatment: Treatment) -> OptionSpec {
    OptionSpec {
        wild: true,
        ..OptionSpec::new(name, Takes::Nothing, treatment)
    }
}

/// Any count or time.
const COUNT: Takes = Takes::Number(0, i32::MAX as i64);

/// All rows, in the order in which `dump` prints them.
pub fn rows() -> impl Iterator<Item = &'static OptionSpec> {
    [
        general::ROWS,
        auth::ROWS,
        channel::ROWS,
        link::ROWS,
        network::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// The row of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static OptionSpec> {
    rows().find(|row| row.name == name && !row.wild)
}

/// The row of a word that is its own argument: `local:remote`, a speed, a device. What may be a
/// part of a password must not be looked up as the name of a host.
#[must_use]
pub fn find_wild(word: &str, may_be_secret: bool) -> Option<&'static OptionSpec> {
    if network::is_pair(word, may_be_secret) {
        return Some(&network::ADDRESSES);
    }
    if !word.is_empty() && word.bytes().all(|c| c.is_ascii_digit()) {
        return Some(&channel::SPEED);
    }
    word.starts_with('/').then_some(&channel::DEVICE)
}
