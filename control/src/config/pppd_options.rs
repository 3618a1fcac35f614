//! pppd's options files and command words, in order, into one set of values (pppd(8), OPTIONS).
//!
//! Later words win over earlier ones, as in pppd. Every value remembers where it came from, for
//! `dump` and for errors.

use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use crate::proto::auth::{AuthMethods, Secret};

use super::error::{ConfigError, Place, nearest};
use super::option_table::{self, Include, OptionSpec, Setter, Takes, Treatment, Value};
use super::words::{Word, Words};
use super::{PPP_DIR, source};

/// `file` and `call` within each other.
pub const DEPTH_MAX: usize = 16;
/// Words of all files together; it bounds files that include each other many times.
const WORDS_MAX: usize = 100_000;

/// When the process leaves the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detach {
    /// As soon as the options are read (pppd's default).
    #[default]
    AtOnce,
    /// `updetach`: when the tunnel is up.
    WhenUp,
    /// `nodetach`.
    Never,
}

/// Whether the default route goes through the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultRoute {
    /// `defaultroute`.
    pub wanted: bool,
    /// `replacedefaultroute`: even where there is one already.
    pub replace: bool,
    /// `defaultroute-metric`.
    pub metric: Option<u32>,
}

/// Scripts that run as the tunnel comes and goes; `None` is pppd's place for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scripts {
    /// `ip-pre-up-script`.
    pub ip_pre_up: Option<PathBuf>,
    /// `ip-up-script`.
    pub ip_up: Option<PathBuf>,
    /// `ip-down-script`.
    pub ip_down: Option<PathBuf>,
    /// `auth-up-script`.
    pub auth_up: Option<PathBuf>,
    /// `auth-down-script`.
    pub auth_down: Option<PathBuf>,
}

/// MPPE as the options ask for it: key lengths that are required, and the modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppeOptions {
    /// `require-mppe-40`.
    pub bits_40: bool,
    /// `require-mppe-56` (a dialect).
    pub bits_56: bool,
    /// `require-mppe-128`.
    pub bits_128: bool,
    /// `mppe-stateful`.
    pub stateful: bool,
    /// The dialects' `mppe-128` or `mppe no56` without `required`: encrypt if the peer can.
    pub optional: bool,
}

impl MppeOptions {
    /// Any key length at all.
    #[must_use]
    pub const fn wanted(&self) -> bool {
        self.bits_40 || self.bits_56 || self.bits_128
    }
}

/// What the `pptp` program takes on its command line (pptp(8)), from a `pty` option or from flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PptpOptions {
    /// `--phone`: goes into the Outgoing-Call-Request.
    pub phone: String,
    /// `--localbind`: our outer address.
    pub local_bind: Option<Ipv4Addr>,
    /// `--rtmark`: `SO_MARK` of both sockets.
    pub mark: Option<u32>,
    /// `--timeout`: how long a hole in the sequence may hold later packets back.
    pub reorder_timeout_ms: u32,
    /// Not `--nobuffer`.
    pub reorder: bool,
    /// `--idle-wait`: silence before a control Echo-Request.
    pub idle_wait_ms: u64,
    /// `--max-echo-wait`: from an Echo-Request to giving up.
    pub max_echo_wait_ms: u64,
    /// `--missing-window`: the largest believable jump of sequence numbers.
    pub missing_window: Option<u32>,
    /// `--client-hostname`.
    pub host_name: Option<String>,
    /// `--logstring`.
    pub log_name: Option<String>,
    /// Not `--nohostroute`: a host route keeps the outer packets out of the tunnel.
    pub host_route: bool,
}

impl Default for PptpOptions {
    fn default() -> Self {
        Self {
            phone: String::new(),
            local_bind: None,
            mark: None,
            reorder_timeout_ms: 300,
            reorder: true,
            idle_wait_ms: 60_000,
            max_echo_wait_ms: 60_000,
            missing_window: None,
            host_name: None,
            log_name: None,
            host_route: true,
        }
    }
}

/// An option that a source has set, for `dump` and `check`.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The row of the table.
    pub spec: &'static OptionSpec,
    /// The argument as `dump` shows it; empty for none, `??????` for a secret.
    pub shown: String,
    /// Where it came from.
    pub place: Place,
}

/// All values, with pppd's defaults.
#[derive(Clone, Debug)]
pub struct PppdOptions {
    /// `name`.
    pub name: Option<String>,
    /// `user`: our name towards the peer, when it is another than `name`.
    pub user: Option<String>,
    /// `password`.
    pub password: Option<Secret>,
    /// `remotename`.
    pub remote_name: Option<String>,
    /// `usehostname`: the host's name is our name, whatever `name` says.
    pub use_host_name: bool,
    /// `domain`: appended to the host's name.
    pub domain: Option<String>,
    /// `auth` (true) or `noauth` (false).
    pub auth: Option<bool>,
    /// `require-*`.
    pub require: AuthMethods,
    /// `refuse-*`.
    pub refuse: AuthMethods,
    /// `chap-secrets`.
    pub chap_secrets: Option<PathBuf>,
    /// `pap-secrets`.
    pub pap_secrets: Option<PathBuf>,
    /// `hide-password`: not in logs of PAP (the default).
    pub hide_password: bool,
    /// MPPE.
    pub mppe: MppeOptions,
    /// `noccp`.
    pub no_ccp: bool,
    /// `mru`.
    pub mru: Option<u16>,
    /// `mtu`.
    pub mtu: Option<u16>,
    /// `asyncmap`; `None` is `default-asyncmap`: not negotiated.
    pub accm: Option<u32>,
    /// Not `nopcomp`.
    pub pfc: bool,
    /// Not `noaccomp`.
    pub acfc: bool,
    /// Not `nomagic`.
    pub magic: bool,
    /// `lcp-restart`.
    pub restart_s: u32,
    /// `lcp-max-configure`.
    pub max_configure: u32,
    /// `lcp-max-terminate`.
    pub max_terminate: u32,
    /// `lcp-max-failure`.
    pub max_failure: u32,
    /// `lcp-echo-interval`; 0 sends none.
    pub echo_interval_s: u32,
    /// `lcp-echo-failure`; 0 never gives up.
    pub echo_failure: u32,
    /// `chap-timeout`.
    pub auth_timeout_s: u32,
    /// `local` of `local:remote`.
    pub local_address: Option<Ipv4Addr>,
    /// `remote` of `local:remote`.
    pub remote_address: Option<Ipv4Addr>,
    /// `noipdefault`.
    pub no_ip_default: bool,
    /// `ipcp-accept-local`.
    pub accept_local: bool,
    /// `ipcp-accept-remote`.
    pub accept_remote: bool,
    /// `usepeerdns`.
    pub use_peer_dns: bool,
    /// `usepeerwins`.
    pub use_peer_wins: bool,
    /// `noresolvconf`: names servers in the environment of scripts only.
    pub no_resolv_conf: bool,
    /// `ms-dns`, in order; pppd takes two.
    pub ms_dns: Vec<Ipv4Addr>,
    /// `ms-wins`, in order; pppd takes two.
    pub ms_wins: Vec<Ipv4Addr>,
    /// `defaultroute` and what belongs to it.
    pub default_route: DefaultRoute,
    /// `proxyarp`.
    pub proxy_arp: bool,
    /// `ipparam`.
    pub ipparam: Option<String>,
    /// How often `debug` stands there.
    pub debug: u32,
    /// `logfd`; `None` is `nolog`.
    pub log_fd: Option<i32>,
    /// `logfile`.
    pub log_file: Option<PathBuf>,
    /// `lock`.
    pub lock: bool,
    /// `dump`.
    pub dump: bool,
    /// `dryrun`.
    pub dry_run: bool,
    /// `nodetach`, `updetach`.
    pub detach: Detach,
    /// `persist`.
    pub persist: bool,
    /// `maxfail`; 0 is no limit.
    pub max_fail: u32,
    /// `holdoff`.
    pub holdoff_s: u32,
    /// `idle`; 0 is no limit.
    pub idle_s: u32,
    /// `maxconnect`; 0 is no limit.
    pub max_connect_s: u32,
    /// `unit`: the number in `pppN`.
    pub unit: Option<u32>,
    /// `ifname`.
    pub interface: Option<String>,
    /// `linkname`.
    pub link_name: Option<String>,
    /// `set NAME=VALUE` for scripts.
    pub environment: Vec<(String, String)>,
    /// `*-script`.
    pub scripts: Scripts,
    /// Server of `pty "pptp SERVER ..."` or `pptp_server SERVER`.
    pub server: Option<String>,
    /// Options of the `pptp` in `pty`.
    pub pptp: PptpOptions,
    /// What was set, in order.
    pub settings: Vec<Setting>,
}

impl Default for PppdOptions {
    fn default() -> Self {
        Self {
            name: None,
            user: None,
            password: None,
            remote_name: None,
            use_host_name: false,
            domain: None,
            auth: None,
            require: AuthMethods::NONE,
            refuse: AuthMethods::NONE,
            chap_secrets: None,
            pap_secrets: None,
            hide_password: true,
            mppe: MppeOptions::default(),
            no_ccp: false,
            mru: None,
            mtu: None,
            accm: Some(0),
            pfc: true,
            acfc: true,
            magic: true,
            restart_s: 3,
            max_configure: 10,
            max_terminate: 2,
            max_failure: 10,
            echo_interval_s: 0,
            echo_failure: 0,
            auth_timeout_s: 60,
            local_address: None,
            remote_address: None,
            no_ip_default: false,
            accept_local: false,
            accept_remote: false,
            use_peer_dns: false,
            use_peer_wins: false,
            no_resolv_conf: false,
            ms_dns: Vec::new(),
            ms_wins: Vec::new(),
            default_route: DefaultRoute::default(),
            proxy_arp: false,
            ipparam: None,
            debug: 0,
            log_fd: Some(1),
            log_file: None,
            lock: false,
            dump: false,
            dry_run: false,
            detach: Detach::default(),
            persist: false,
            max_fail: 10,
            holdoff_s: 30,
            idle_s: 0,
            max_connect_s: 0,
            unit: None,
            interface: None,
            link_name: None,
            environment: Vec::new(),
            scripts: Scripts::default(),
            server: None,
            pptp: PptpOptions::default(),
            settings: Vec::new(),
        }
    }
}

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

    /// Ends reading with `error`, or keeps it when all are wanted.
    fn report(&mut self, error: ConfigError) -> Result<(), ConfigError> {
        match &mut self.problems {
            Some(problems) => {
                problems.push(error);
                Ok(())
            }
            None => Err(error),
        }
    }
}

/// Where options come from: a file, or a list of words.
trait WordSource {
    fn next(&mut self) -> Result<Option<(Vec<u8>, Place)>, ConfigError>;
}

impl WordSource for Words<'_> {
    fn next(&mut self) -> Result<Option<(Vec<u8>, Place)>, ConfigError> {
        let word = self.next_word()?;
        Ok(word.map(|word: Word| (word.as_bytes().to_vec(), self.place(word.line))))
    }
}

struct CommandLine<'a>(std::slice::Iter<'a, String>);

impl WordSource for CommandLine<'_> {
    fn next(&mut self) -> Result<Option<(Vec<u8>, Place)>, ConfigError> {
        let word = self.0.next();
        Ok(word.map(|word| (word.clone().into_bytes(), Place::command_line())))
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
        let place = Place::command_line();
        self.include(&place, Include::File, path, &mut Nesting::new(dir))
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
        while let Some((name, place)) = words.next()? {
            let name = String::from_utf8_lossy(&name).into_owned();
            nesting.words_left = nesting.words_left.saturating_sub(1);
            if nesting.words_left == 0 {
                return Err(ConfigError::Conflict(format!(
                    "{place}the options files have more than {WORDS_MAX} options together"
                )));
            }
            let spec = option_table::find(&name).or_else(|| option_table::find_addresses(&name));
            let Some(spec) = spec else {
                nesting.report(unknown(&place, name))?;
                continue;
            };
            let argument = match spec.takes {
                // The word `local:remote` is its own argument.
                Takes::Nothing if spec.name.is_empty() => Some(name.clone().into_bytes()),
                Takes::Nothing => None,
                _ => match words.next()? {
                    Some((argument, _)) => Some(argument),
                    None => {
                        return nesting.report(ConfigError::TooFewParameters { place, name });
                    }
                },
            };
            if let Err(error) = self.set(spec, argument.unwrap_or_default(), place, nesting) {
                nesting.report(error)?;
            }
        }
        Ok(())
    }

    /// One option with its argument.
    fn set(
        &mut self,
        spec: &'static OptionSpec,
        argument: Vec<u8>,
        place: Place,
        nesting: &mut Nesting<'_>,
    ) -> Result<(), ConfigError> {
        let argument = zeroize::Zeroizing::new(argument);
        let text = zeroize::Zeroizing::new(String::from_utf8_lossy(&argument).into_owned());
        let bad = |why: String| ConfigError::BadValue {
            place: place.clone(),
            why,
        };
        let value = check(spec, &argument, &text).map_err(bad)?;
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

    /// Our name for authentication: `user`, else `name`, else the host's.
    #[must_use]
    pub fn our_name(&self, host_name: &str) -> String {
        let host_name = match &self.domain {
            Some(domain) if !domain.is_empty() && !host_name.contains('.') => {
                format!("{host_name}.{}", domain.trim_start_matches('.'))
            }
            _ => host_name.to_owned(),
        };
        let name = self.name.as_ref().filter(|_| !self.use_host_name);
        let given = self.user.as_ref().or(name);
        given.cloned().unwrap_or(host_name)
    }

    /// Methods that the peer may prove itself with; none is `noauth`.
    #[must_use]
    pub fn require_methods(&self) -> AuthMethods {
        match self.auth {
            Some(false) => AuthMethods::NONE,
            Some(true) if self.require == AuthMethods::NONE => AuthMethods::ALL,
            _ => self.require,
        }
    }

    /// Methods that we prove ourselves with.
    #[must_use]
    pub const fn allowed_methods(&self) -> AuthMethods {
        AuthMethods {
            mschap_v2: !self.refuse.mschap_v2,
            mschap_v1: !self.refuse.mschap_v1,
            chap_md5: !self.refuse.chap_md5,
            pap: !self.refuse.pap,
        }
    }

    /// Where the log goes.
    #[must_use]
    pub fn log(&self) -> super::client::LogConfig {
        super::client::LogConfig {
            fd: self.log_fd,
            file: self.log_file.clone(),
            debug: self.debug > 0,
        }
    }

    /// What pppd's `dump` prints: `pppd options in effect:`, then the option of each group that
    /// was set last, in the table's order.
    #[must_use]
    pub fn dump_text(&self) -> String {
        let mut text = String::from("pppd options in effect:\n");
        for group in option_table::rows().filter(|row| row.group == row.name) {
            let mut settings = self
                .settings
                .iter()
                .filter(|setting| setting.spec.group == group.name);
            let listed = matches!(group.name, "ms-dns" | "ms-wins" | "set" | "plugin");
            if listed {
                settings.for_each(|setting| push_line(&mut text, setting));
            } else if let Some(last) = settings.next_back() {
                push_line(&mut text, last);
            }
        }
        text
    }
}

fn push_line(text: &mut String, setting: &Setting) {
    let gap = if setting.spec.name.is_empty() || setting.shown.is_empty() {
        ""
    } else {
        " "
    };
    let (name, shown, source) = (setting.spec.name, &setting.shown, setting.place.source());
    text.push_str(&format!("{name}{gap}{shown}\t\t# (from {source})\n"));
}

fn unknown(place: &Place, name: String) -> ConfigError {
    ConfigError::UnknownOption {
        place: place.clone(),
        suggestion: nearest(&name, option_table::rows().map(|row| row.name)),
        name: name.chars().filter(|c| !c.is_control()).take(80).collect(),
    }
}

/// Paths under `/etc/ppp` lie in `dir`, since `dir` stands for it.
fn locate(dir: &Path, path: &Path) -> PathBuf {
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

/// The argument in the words of `dump`: `%q` escapes quotes and backslashes, numbers are decimal.
fn shown(spec: &OptionSpec, value: &Value<'_>) -> String {
    match spec.takes {
        Takes::Nothing if spec.name.is_empty() => value.text.to_owned(),
        Takes::Nothing => String::new(),
        Takes::Secret => "??????".to_owned(),
        Takes::Number(..) => value.number.to_string(),
        Takes::Hex => format!("{:x}", value.number),
        Takes::Address => value.address.to_string(),
        Takes::Text => value
            .text
            .chars()
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                c if c.is_control() => c.escape_default().collect(),
                c => vec![c],
            })
            .collect(),
    }
}
