//! chap-secrets and pap-secrets (pppd(8), AUTHENTICATION): `client server secret [addresses]`.
//!
//! The fifth column may be a rate limit, as in accel-ppp: `mia * secret * 2000/512`. In place of a
//! password there may be its NT hash; see `nt_hashes`.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::prefix::covers;

use crate::proto::auth::{Secret, Secrets};

use super::error::{ConfigError, Place};
use super::nt_hashes::{self, Account};
use super::rates::RateLimit;
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
        match self {
            Self::Any => Some(true),
            Self::None => Some(false),
            Self::One(one) => (one == address).then_some(true),
            Self::Network(network, prefix) => covers((network, prefix), address).then_some(true),
            Self::Not(network, prefix) => covers((network, prefix), address).then_some(false),
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
    /// How fast the client may be (the fifth column).
    pub rates: Option<RateLimit>,
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
    /// Client -> indices in `entries`, ascending; a server may have very many users.
    by_client: HashMap<String, Vec<usize>>,
    /// What a person should know: lines that are not understood. Never shows a secret.
    pub warnings: Vec<String>,
    /// The first of them that is passed over as a whole.
    passed_over: Option<String>,
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
                self.pass_over(format!(
                    "{place}a line needs `client server secret [addresses]`; it is passed over"
                ));
            }
            return;
        };
        let client = client.to_text();
        let secrets = match secret.as_bytes() {
            [b'@', b'/', ..] => {
                secret_from_file(secret, place).map(|secret| vec![(client, secret)])
            }
            [b'&', b'/', ..] => accounts_of(&client, secret, place),
            octets => secret_of(octets, place).map(|secret| vec![(client, secret)]),
        };
        let secrets = match secrets {
            Ok(secrets) => secrets,
            Err(error) => return self.pass_over(error.to_string()),
        };
        // What comes after `--` are options for pppd.
        let rest = rest.iter().take_while(|word| word.as_bytes() != b"--");
        let (mut addresses, mut rates) = (Vec::new(), None);
        for (column, word) in (4..).zip(rest) {
            let word = word.to_text();
            let rate = || RateLimit::parse_down_up(&word).ok();
            if let Some(rule) = AddressRule::parse(&word) {
                addresses.push(rule);
            } else if column == 5
                && let Some(limit) = rate()
            {
                rates = Some(limit);
            } else {
                self.warn(format!(
                    "{place}one of the words after the secret is not an address such as \
                     10.0.0.5, 10.0.0.0/24, !10.0.0.1, * or -, nor a rate limit such as 2000/512 \
                     behind an address; it allows nothing. A secret with a space or # in it needs \
                     quotes"
                ));
            }
        }
        let server = server.to_text();
        for (client, secret) in secrets {
            let indices = self.by_client.entry(client.clone()).or_default();
            indices.push(self.entries.len());
            self.entries.push(Entry {
                client,
                server: server.clone(),
                secret,
                addresses: addresses.clone(),
                rates,
                line: place.line,
            });
        }
    }

    fn pass_over(&mut self, why: String) {
        self.passed_over.get_or_insert_with(|| why.clone());
        self.warn(why);
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
        let of = |client: &str| self.by_client.get(client).map_or(&[][..], Vec::as_slice);
        // A line for this client never has the same rank as one for all clients.
        for entry in of(client)
            .iter()
            .chain(of("*"))
            .filter_map(|&i| self.entries.get(i))
        {
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

/// A password, or its NT hash.
fn secret_of(octets: &[u8], place: &Place) -> Result<Secret, ConfigError> {
    nt_hashes::marked(octets).map_or_else(
        || Ok(Secret::new(octets.to_vec())),
        |hash| {
            hash.map(Secret::from_nt_hash)
                .ok_or_else(|| ConfigError::BadValue {
                    place: place.clone(),
                    why: "an NT hash has 32 hexadecimal digits; the line is passed over".to_owned(),
                })
        },
    )
}

/// `&/etc/samba/smbpasswd`: the account of this client there, or for `*` all of them.
fn accounts_of(
    client: &str,
    word: &Word,
    place: &Place,
) -> Result<Vec<(String, Secret)>, ConfigError> {
    let path = word.to_text();
    let path = Path::new(path.trim_start_matches('&'));
    let text = source::read("secret file", path, place)?;
    let accounts = nt_hashes::accounts(&text);
    let of_line = accounts.filter(|account| client == "*" || account.name == client);
    Ok(of_line
        .map(|Account { name, hash }| (name, Secret::from_nt_hash(hash)))
        .collect())
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

    /// From now on a secret of 32 hexadecimal digits is an NT hash, as with accel-ppp's
    /// `encrypted`.
    pub fn take_digits_for_hashes(&mut self) {
        for table in [&mut self.chap, &mut self.pap] {
            for entry in &mut table.entries {
                if let Some(hash) = nt_hashes::from_digits(entry.secret.as_bytes()) {
                    entry.secret = Secret::from_nt_hash(hash);
                }
            }
        }
    }

    /// Why these files should not take the place of others: a line that is passed over, or a file
    /// that has gone.
    #[must_use]
    pub fn objection_after(&self, before: &Self) -> Option<String> {
        let passed_over = |table: &SecretsTable| table.passed_over.clone();
        let has_gone = |path: &Path, table: &SecretsTable| {
            let has_gone = !table.entries.is_empty() && !path.exists();
            has_gone.then(|| format!("the file {} is not there any more", path.display()))
        };
        passed_over(&self.chap)
            .or_else(|| passed_over(&self.pap))
            .or_else(|| has_gone(&self.chap_path, &before.chap))
            .or_else(|| has_gone(&self.pap_path, &before.pap))
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

    /// Secrets in both files.
    #[must_use]
    pub fn count(&self) -> usize {
        self.chap.entries.len() + self.pap.entries.len()
    }

    /// Addresses that belong to one client by its line.
    pub fn fixed_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let entries = self.chap.entries.iter().chain(&self.pap.entries);
        let of_one = entries.filter(|entry| entry.client != "*");
        of_one
            .flat_map(|entry| &entry.addresses)
            .filter_map(|rule| match rule {
                AddressRule::One(address) => Some(*address),
                _ => None,
            })
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

/// These secrets, and what is to take the place of an expired one.
#[derive(Debug)]
struct WithNewPassword {
    secrets: Arc<dyn Secrets>,
    new: Secret,
    /// The old one is worth nothing any more: trying it again and again would lock the account.
    is_changed: AtomicBool,
}

impl Secrets for WithNewPassword {
    fn find(&self, client: &str, server: &str, pap: bool) -> Option<Secret> {
        let old = self.secrets.find(client, server, pap)?;
        let is_changed = self.is_changed.load(Ordering::Relaxed);
        Some(if is_changed { self.new.clone() } else { old })
    }

    fn origin(&self, pap: bool) -> String {
        self.secrets.origin(pap)
    }

    fn password_changed(&self) {
        self.is_changed.store(true, Ordering::Relaxed);
    }

    fn new_password(&self) -> Option<Secret> {
        Some(self.new.clone())
    }
}

pub(super) fn with_new_password(secrets: Arc<dyn Secrets>, new: Secret) -> Arc<dyn Secrets> {
    Arc::new(WithNewPassword {
        secrets,
        new,
        is_changed: AtomicBool::new(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::fs;

    fn table(text: &str) -> SecretsTable {
        SecretsTable::parse("/etc/ppp/chap-secrets", text.as_bytes()).unwrap()
    }

    fn secret(table: &SecretsTable, client: &str, server: &str) -> Option<String> {
        let entry = table.find(client, server)?;
        Some(String::from_utf8_lossy(entry.secret.as_bytes()).into_owned())
    }

    #[test]
    fn the_pair_of_lines_that_pptp_command_writes_is_found() {
        let table = table("mia\tzidler\tmia123\nzidler\tmia\tmia123\n");
        assert_eq!(secret(&table, "mia", "zidler").as_deref(), Some("mia123"));
        assert_eq!(secret(&table, "zidler", "mia").as_deref(), Some("mia123"));
        assert_eq!(secret(&table, "mia", "other"), None);
    }

    #[test]
    fn the_line_that_pptpsetup_writes_is_found() {
        let table = table("# added by pptpsetup for work\nOFFICE\\\\mia work \"my secret #1\" *\n");
        assert_eq!(
            secret(&table, "OFFICE\\mia", "work").as_deref(),
            Some("my secret #1")
        );
    }

    #[test]
    fn the_fewest_wildcards_win_wherever_they_stand() {
        let table =
            table("* * both\nmia * server\n* zidler client\nmia zidler none\nmia zidler later\n");
        assert_eq!(secret(&table, "mia", "zidler").as_deref(), Some("none"));
        assert_eq!(secret(&table, "bob", "zidler").as_deref(), Some("client"));
        assert_eq!(secret(&table, "mia", "other").as_deref(), Some("server"));
        assert_eq!(secret(&table, "bob", "other").as_deref(), Some("both"));
    }

    #[test]
    fn case_counts() {
        assert_eq!(secret(&table("Mia zidler x"), "mia", "zidler"), None);
    }

    #[test]
    fn addresses_allow_and_deny_in_their_order() {
        let table = table(
            "mia * x !10.0.0.1 10.0.0.0/24 192.168.1.7 192.168.1.8\nbob * x\n\
             ann * x *\neve * x -\n",
        );
        let mia = table.find("mia", "z").unwrap();
        assert_eq!(mia.fixed_address(), Some(Ipv4Addr::new(192, 168, 1, 7)));
        for (address, allowed) in [
            ([10, 0, 0, 1], false),
            ([10, 0, 0, 2], true),
            ([10, 0, 1, 2], false),
            ([192, 168, 1, 8], true),
        ] {
            assert_eq!(mia.allows(address.into()), allowed, "{address:?}");
        }
        let any = Ipv4Addr::new(1, 2, 3, 4);
        assert!(
            !table.find("bob", "z").unwrap().allows(any),
            "three words allow no address"
        );
        assert!(table.find("ann", "z").unwrap().allows(any));
        assert!(!table.find("eve", "z").unwrap().allows(any));
        assert_eq!(table.find("ann", "z").unwrap().fixed_address(), None);
    }

    #[test]
    fn a_network_of_zero_bits_is_everything() {
        assert!(
            AddressRule::parse("0.0.0.0/0")
                .unwrap()
                .verdict(Ipv4Addr::BROADCAST)
                .unwrap()
        );
        assert_eq!(AddressRule::parse("10.0.0.0/33"), None);
        assert_eq!(AddressRule::parse("host.example"), None);
        assert_eq!(
            AddressRule::parse("10.0.0.0/8+"),
            Some(AddressRule::Network(Ipv4Addr::new(10, 0, 0, 0), 8))
        );
    }

    #[test]
    fn lines_with_too_few_words_warn_with_their_line_and_without_the_secret() {
        let table = table("mia zidler mia123\nbob topsecret\nann z s3cret nonsense\n");
        assert_eq!(table.entries().len(), 2);
        assert!(table.warnings[0].contains("line 2"), "{:?}", table.warnings);
        assert!(table.warnings[1].contains("line 3"), "{:?}", table.warnings);
        let all = format!("{table:?}");
        for secret in ["mia123", "topsecret", "s3cret", "nonsense"] {
            assert!(!all.contains(secret), "{all}");
        }
    }

    #[test]
    fn options_behind_two_dashes_are_no_addresses() {
        let table = table("mia z x 10.0.0.5 -- mtu 1400\n");
        assert_eq!(table.entries()[0].addresses.len(), 1);
        assert!(table.warnings.is_empty());
    }

    #[test]
    fn odd_encodings_and_line_ends_are_read() {
        let text = b"\xEF\xBB\xBFmia\tz\tp\xE9\t*\r\nbob z \"\" 10.0.0.1";
        let table = SecretsTable::parse("f", text).unwrap();
        assert_eq!(table.find("mia", "z").unwrap().secret.as_bytes(), b"p\xE9");
        assert_eq!(table.find("bob", "z").unwrap().secret.as_bytes(), b"");
        assert!(table.warnings.is_empty(), "{:?}", table.warnings);
    }

    #[test]
    fn an_nt_hash_can_stand_in_place_of_a_password() {
        // RFC 2759 9.2.
        let digits = "44ebba8d5312b8d611474411f56989ae";
        let hash = Secret::from_nt_hash(hex::decode(digits).unwrap().try_into().unwrap());
        let text = format!(
            "a * nthash:{digits} 10.0.0.1\nb * {{nt}}{digits}\nc * {{x-nthash}}{digits}\n\
             d * {digits}\ne * nthash:{digits}00\nf * {{NTHASH}}{digits}\n"
        );
        let table = table(&text);
        let secret_of = |client: &str| table.find(client, "z").map(|entry| &entry.secret);
        for client in ["a", "b", "c", "f"] {
            assert_eq!(secret_of(client), Some(&hash), "{client}");
        }
        assert_eq!(
            secret_of("d").map(Secret::as_bytes),
            Some(digits.as_bytes())
        );
        assert_eq!(secret_of("e"), None);
        assert!(
            table.warnings[0].contains("line 5: an NT hash has 32"),
            "{:?}",
            table.warnings
        );
        let mut secrets = FileSecrets {
            chap: table,
            ..FileSecrets::default()
        };
        secrets.take_digits_for_hashes();
        assert_eq!(secrets.find("d", "z", false), Some(hash));
    }

    #[test]
    fn the_accounts_of_samba_are_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("smbpasswd");
        let (lm, nt) = ("X".repeat(32), "44EBBA8D5312B8D611474411F56989AE");
        let account = |name: &str, nt: &str, flags: &str| {
            format!("{name}:1000:{lm}:{nt}:[{flags:<11}]:LCT-5F3E2D1C:\n")
        };
        let text = [
            "# smbpasswd\n".to_owned(),
            account("mia", nt, "U"),
            account("gone", nt, "UD"),
            account("open", "NO PASSWORDXXXXXXXXXXXXXXXXXXXXX", "UN"),
        ];
        fs::write(&path, text.concat()).unwrap();
        let table = table(&format!(
            "* * &{0} *\nbob z &{0}\nmia z &{0} 10.0.0.9\n",
            path.display()
        ));
        let mia = table.find("mia", "other").unwrap();
        assert!(mia.secret.is_nt_hash() && mia.fixed_address().is_none());
        let fixed = table.find("mia", "z").and_then(Entry::fixed_address);
        assert_eq!(fixed, Some(Ipv4Addr::new(10, 0, 0, 9)));
        for client in ["gone", "open", "bob", "*"] {
            assert!(table.find(client, "z").is_none(), "{client}");
        }
    }

    #[test]
    fn files_that_lost_something_do_not_take_the_place_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap-secrets");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            FileSecrets::read(dir.path()).unwrap()
        };
        let before = read("mia z x *\n");
        assert_eq!(read("bob z y *\n").objection_after(&before), None);
        let objection = read("bob z y *\nmia z\n").objection_after(&before).unwrap();
        assert!(objection.contains("line 2"), "{objection}");
        fs::remove_file(&path).unwrap();
        let gone = FileSecrets::read(dir.path()).unwrap();
        let objection = gone.objection_after(&before).unwrap();
        assert!(objection.contains("not there any more"), "{objection}");
        assert_eq!(gone.objection_after(&gone), None);
    }

    #[test]
    fn a_secret_can_stand_in_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mia.secret");
        fs::write(&path, "mia123\n").unwrap();
        let text = format!("mia z @{0}\nbob z @{0}.none\neve z @mia\n", path.display());
        let table = table(&text);
        assert_eq!(secret(&table, "mia", "z").as_deref(), Some("mia123"));
        assert_eq!(secret(&table, "bob", "z"), None);
        assert_eq!(secret(&table, "eve", "z").as_deref(), Some("@mia"));
        assert!(
            table.warnings[0].contains("line 2: Can't open secret file"),
            "{:?}",
            table.warnings
        );
    }

    #[test]
    fn a_file_that_others_can_read_warns_and_a_missing_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap-secrets");
        fs::write(&path, "mia zidler mia123\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let secrets = FileSecrets::read(dir.path()).unwrap();
        let warnings: Vec<_> = secrets.warnings().collect();
        assert!(
            warnings[0].contains("has world and/or group access"),
            "{warnings:?}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let secrets = FileSecrets::read(dir.path()).unwrap();
        assert_eq!(secrets.warnings().count(), 0);
        assert_eq!(
            secrets.find("mia", "zidler", false),
            Some(Secret::new(b"mia123".to_vec()))
        );
        assert_eq!(secrets.find("mia", "zidler", true), None);
        assert_eq!(secrets.origin(false), path.display().to_string());
    }

    #[test]
    fn the_secret_of_a_flag_belongs_to_one_client_and_any_server() {
        let secret = FlagSecret {
            client: "mia".to_owned(),
            secret: Secret::new(b"mia123".to_vec()),
        };
        assert!(secret.find("mia", "anything", false).is_some());
        assert!(secret.find("bob", "anything", false).is_none());
        assert!(!format!("{secret:?}").contains("mia123"));
    }

    proptest! {
        #[test]
        fn any_octets_end_in_a_table_or_an_error(text in vec(any::<u8>(), 0..300)) {
            if let Ok(table) = SecretsTable::parse("f", &text) {
                prop_assert!(table.warnings.len() <= WARNINGS_MAX);
                let _ = table.find("mia", "zidler");
            }
        }
    }
}
