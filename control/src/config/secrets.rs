//! chap-secrets and pap-secrets (pppd(8), AUTHENTICATION): `client server secret [addresses]`.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::proto::auth::{Secret, Secrets};

use super::error::{ConfigError, Place};
use super::source;
use super::words::{Word, Words};

/// What follows the secret on its line: which addresses its owner may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRule {
    /// `*`: any.
    Any,
    /// `-`: none.
    None,
    /// `a.b.c.d`: this one; the first of this kind is given to its owner.
    One(Ipv4Addr),
    /// `a.b.c.d/n`: this network.
    Network(Ipv4Addr, u8),
    /// `!a.b.c.d` or `!a.b.c.d/n`: not this one, even if a later rule has it.
    Not(Ipv4Addr, u8),
}

impl AddressRule {
    /// Whether the rule says something about `address`, and what.
    fn verdict(self, address: Ipv4Addr) -> Option<bool> {
        let within = |network: Ipv4Addr, prefix: u8| {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            (u32::from(address) ^ u32::from(network)) & mask == 0
        };
        match self {
            Self::Any => Some(true),
            Self::None => Some(false),
            Self::One(one) => (one == address).then_some(true),
            Self::Network(network, prefix) => within(network, prefix).then_some(true),
            Self::Not(network, prefix) => within(network, prefix).then_some(false),
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word {
            "*" => return Some(Self::Any),
            "-" => return Some(Self::None),
            _ => {}
        }
        let (not, rest) = word
            .strip_prefix('!')
            .map_or((false, word), |rest| (true, rest));
        let (address, prefix) = rest.split_once('/').unwrap_or((rest, "32"));
        // `a/n+` (pppd picks the unit's own address out of the network) still allows the network.
        let prefix: u8 = prefix.strip_suffix('+').unwrap_or(prefix).parse().ok()?;
        let address = address.parse().ok().filter(|_| prefix <= 32)?;
        Some(match (not, prefix) {
            (true, _) => Self::Not(address, prefix),
            (false, 32) => Self::One(address),
            (false, _) => Self::Network(address, prefix),
        })
    }
}

/// One line. `Debug` does not show the secret.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who is to be authenticated; `*` is anyone.
    pub client: String,
    /// To whom; `*` is anyone.
    pub server: String,
    /// What proves it.
    pub secret: Secret,
    /// Addresses that the client may have; none at all when the line has none (pppd's rule).
    pub addresses: Vec<AddressRule>,
    /// Line, counted from 1.
    pub line: u32,
}

impl Entry {
    /// The address that belongs to this client: the first single one that its line names.
    #[must_use]
    pub fn fixed_address(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|rule| match rule {
            AddressRule::One(address) => Some(*address),
            _ => None,
        })
    }

    /// The client may have `address`. The first rule that says something about it counts.
    #[must_use]
    pub fn allows(&self, address: Ipv4Addr) -> bool {
        self.addresses
            .iter()
            .find_map(|rule| rule.verdict(address))
            .unwrap_or(false)
    }

    /// How exactly the line names this pair; `None` when it does not. A named server counts more
    /// than a named client, as in pppd.
    fn rank(&self, client: &str, server: &str) -> Option<u8> {
        let of = |pattern: &str, name: &str, weight: u8| match pattern {
            _ if pattern == name => Some(if name == "*" { 0 } else { weight }),
            "*" => Some(0),
            _ => None,
        };
        Some(of(&self.client, client, 1)? + of(&self.server, server, 2)?)
    }
}

/// One secrets file.
#[derive(Clone, Debug, Default)]
pub struct SecretsTable {
    entries: Vec<Entry>,
    /// What a person should know: lines that are not understood. Never shows a secret.
    pub warnings: Vec<String>,
}

/// Warnings kept of one file.
const WARNINGS_MAX: usize = 20;

impl SecretsTable {
    /// Reads the text of a secrets file. A secret `@/path` is the first word of that file.
    ///
    /// # Errors
    /// A word that never ends, with its line. Lines with less than three words become warnings.
    pub fn parse(file: &str, text: &[u8]) -> Result<Self, ConfigError> {
        let mut words = Words::new(file, text);
        let mut table = Self::default();
        let mut line: Vec<Word> = Vec::new();
        loop {
            let word = words.next_word()?;
            if word.as_ref().is_none_or(|word| word.starts_line) {
                let place = words.place(line.first().map_or(0, |word| word.line));
                table.add_line(&line, &place);
                line.clear();
            }
            let Some(word) = word else {
                return Ok(table);
            };
            line.push(word);
        }
    }

    fn add_line(&mut self, words: &[Word], place: &Place) {
        let [client, server, secret, rest @ ..] = words else {
            if !words.is_empty() {
                self.warn(format!(
                    "{place}a line needs `client server secret [addresses]`; it is passed over"
                ));
            }
            return;
        };
        let secret = match secret.as_bytes() {
            [b'@', b'/', ..] => match secret_from_file(secret, place) {
                Ok(secret) => secret,
                Err(error) => return self.warn(error.to_string()),
            },
            octets => Secret::new(octets.to_vec()),
        };
        // What comes after `--` are options for pppd.
        let rest = rest.iter().take_while(|word| word.as_bytes() != b"--");
        let mut addresses = Vec::new();
        for word in rest {
            match AddressRule::parse(&word.to_text()) {
                Some(rule) => addresses.push(rule),
                None => self.warn(format!(
                    "{place}one of the words after the secret is not an address such as \
                     10.0.0.5, 10.0.0.0/24, !10.0.0.1, * or -; it allows nothing. A secret with \
                     a space or # in it needs quotes"
                )),
            }
        }
        self.entries.push(Entry {
            client: client.to_text(),
            server: server.to_text(),
            secret,
            addresses,
            line: place.line,
        });
    }

    fn warn(&mut self, warning: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(warning);
        }
    }

    /// The line with the fewest wildcards for this pair; among equals the first.
    #[must_use]
    pub fn find(&self, client: &str, server: &str) -> Option<&Entry> {
        let mut best: Option<(u8, &Entry)> = None;
        for entry in &self.entries {
            if let Some(rank) = entry.rank(client, server)
                && best.is_none_or(|(best_rank, _)| rank > best_rank)
            {
                best = Some((rank, entry));
            }
        }
        best.map(|(_, entry)| entry)
    }

    /// Every line in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

fn secret_from_file(word: &Word, place: &Place) -> Result<Secret, ConfigError> {
    let path = word.to_text();
    let path = Path::new(path.trim_start_matches('@'));
    let text = source::read("secret file", path, place)?;
    let first = Words::new(&path.to_string_lossy(), &text).next_word()?;
    Ok(Secret::new(
        first.map_or_else(Vec::new, |word| word.as_bytes().to_vec()),
    ))
}

/// Both files of a directory, read once.
#[derive(Clone, Debug, Default)]
pub struct FileSecrets {
    /// chap-secrets.
    pub chap: SecretsTable,
    /// pap-secrets.
    pub pap: SecretsTable,
    chap_path: PathBuf,
    pap_path: PathBuf,
}

impl FileSecrets {
    /// Reads `chap-secrets` and `pap-secrets` in `dir`. A file that is not there is empty.
    ///
    /// # Errors
    /// A file that is there and cannot be read, or a word in it that never ends.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        Self::read_files(&dir.join("chap-secrets"), &dir.join("pap-secrets"))
    }

    /// Reads these files. A file that is not there is empty.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_files(chap: &Path, pap: &Path) -> Result<Self, ConfigError> {
        Ok(Self {
            chap: read_table(chap)?,
            pap: read_table(pap)?,
            chap_path: chap.to_owned(),
            pap_path: pap.to_owned(),
        })
    }

    /// The table for CHAP, or that for PAP.
    #[must_use]
    pub const fn table(&self, pap: bool) -> &SecretsTable {
        if pap { &self.pap } else { &self.chap }
    }

    /// The line that proves `client` to `server`.
    #[must_use]
    pub fn entry(&self, client: &str, server: &str, pap: bool) -> Option<&Entry> {
        self.table(pap).find(client, server)
    }

    /// What a person should know of both files, in order: who can read them, odd lines.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        let both = self.chap.warnings.iter().chain(&self.pap.warnings);
        both.map(String::as_str)
    }
}

fn read_table(path: &Path) -> Result<SecretsTable, ConfigError> {
    let Some(text) = source::read_if_exists("secret file", path)? else {
        return Ok(SecretsTable::default());
    };
    let mut table = SecretsTable::parse(&path.to_string_lossy(), &text)?;
    if let Some(warning) = permissions_warning(path) {
        table.warnings.insert(0, warning);
    }
    Ok(table)
}

/// Says that others than the owner may read or change a secrets file, and how to end that.
fn permissions_warning(path: &Path) -> Option<String> {
    let mode = path.metadata().ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        format!(
            "Warning - secret file {0} has world and/or group access; `chmod 600 {0}` ends that",
            path.display()
        )
    })
}

impl Secrets for FileSecrets {
    fn find(&self, client: &str, server: &str, pap: bool) -> Option<Secret> {
        self.entry(client, server, pap)
            .map(|entry| entry.secret.clone())
    }

    fn origin(&self, pap: bool) -> String {
        let path = if pap { &self.pap_path } else { &self.chap_path };
        path.display().to_string()
    }
}

/// The one secret that a flag or the `password` option gives.
#[derive(Clone, Debug)]
pub struct FlagSecret {
    /// Whose.
    pub client: String,
    /// What proves it, to any server.
    pub secret: Secret,
}

impl Secrets for FlagSecret {
    fn find(&self, client: &str, _server: &str, _pap: bool) -> Option<Secret> {
        (client == self.client).then(|| self.secret.clone())
    }

    fn origin(&self, _pap: bool) -> String {
        "the password given for this tunnel".to_owned()
    }
}
