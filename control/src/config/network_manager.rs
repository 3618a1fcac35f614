//! NetworkManager's connections as they lie in /etc/NetworkManager/system-connections (keyfiles of
//! nm-settings-keyfile(5)), those of its PPTP plugin: what becomes of each key, and the same in
//! pppd's words.

use std::net::Ipv4Addr;
use std::path::Path;

use dataplane::prefix::mask;
use zeroize::Zeroizing;

use super::check::{Finding, Verdict};
use super::error::{ConfigError, Place};
use super::peers;
use super::source;
use crate::proto::auth::Secret;

/// The plugin whose connections are read.
const SERVICE: &str = "org.freedesktop.NetworkManager.pptp";
/// What NetworkManager's plugin always says to pppd, as far as it matters here.
const ALWAYS: [&str; 3] = ["lock", "noauth", "noipdefault"];
/// Keys of `[vpn]` that are switches, and pppd's word for each.
const SWITCHES: [(&str, &str); 13] = [
    ("refuse-eap", "refuse-eap"),
    ("refuse-pap", "refuse-pap"),
    ("refuse-chap", "refuse-chap"),
    ("refuse-mschap", "refuse-mschap"),
    ("refuse-mschapv2", "refuse-mschap-v2"),
    ("require-mppe", "require-mppe"),
    ("require-mppe-40", "require-mppe-40"),
    ("require-mppe-128", "require-mppe-128"),
    ("mppe-stateful", "mppe-stateful"),
    ("nobsdcomp", "nobsdcomp"),
    ("nodeflate", "nodeflate"),
    ("no-vj-comp", "novj"),
    ("persistent", "persist"),
];
/// Keys of `[vpn]` that are numbers, and pppd's options of the same name.
const NUMBERS: [&str; 5] = [
    "lcp-echo-failure",
    "lcp-echo-interval",
    "unit",
    "mtu",
    "mru",
];

/// A connection of the PPTP plugin.
#[derive(Debug)]
pub struct Connection {
    /// `id`, as far as it can be a tunnel's name.
    pub name: String,
    /// `gateway`.
    pub server: String,
    /// `domain` and `user`.
    pub user: String,
    /// `password`, where the file has it.
    pub password: Option<Secret>,
    /// pppd's options, each with its argument.
    pub options: Vec<(String, Option<String>)>,
    /// In the words of route(8).
    pub routes: Vec<String>,
    /// What becomes of each key.
    pub findings: Vec<Finding>,
}

/// One line of the file. Its value may be a secret.
struct Entry {
    section: String,
    key: String,
    value: Zeroizing<String>,
    line: u32,
}

/// Whether this is a keyfile, and no file of pppd's: it begins with a section.
#[must_use]
pub fn is_keyfile(text: &[u8]) -> bool {
    let mut lines = text
        .split(|&c| c == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#") && !line.starts_with(b";"));
    lines
        .next()
        .is_some_and(|line| line.starts_with(b"[") && line.ends_with(b"]"))
}

/// Reads the file `path`.
///
/// # Errors
/// It cannot be read, or is no connection of the PPTP plugin.
pub fn read(path: &Path) -> Result<Connection, ConfigError> {
    let text = source::read("connection", path, &Place::command_line())?;
    parse(&path.to_string_lossy(), &text)
}

/// Reads the text of the file called `file`.
///
/// # Errors
/// It is no connection of the PPTP plugin.
pub fn parse(file: &str, text: &[u8]) -> Result<Connection, ConfigError> {
    let place = Place {
        file: Some(file.into()),
        line: 0,
    };
    let wrong = |why: &str| ConfigError::BadValue {
        place: place.clone(),
        why: why.to_owned(),
    };
    let entries = entries(text);
    let find = |section: &str, key: &str| {
        let mut found = entries
            .iter()
            .filter(|it| it.section == section && it.key == key);
        found.next_back().map(|entry| entry.value.as_str())
    };
    if find("connection", "type") != Some("vpn") || find("vpn", "service-type") != Some(SERVICE) {
        return Err(wrong(
            "this is no PPTP connection of NetworkManager: it has not both type=vpn and \
             service-type=org.freedesktop.NetworkManager.pptp",
        ));
    }
    let server = find("vpn", "gateway").ok_or_else(|| wrong("it names no gateway"))?;
    let user = find("vpn", "user").unwrap_or_default();
    let user = match find("vpn", "domain").filter(|domain| !domain.is_empty()) {
        Some(domain) => format!("{domain}\\{user}"),
        None => user.to_owned(),
    };
    let mut connection = Connection {
        name: tunnel_name(find("connection", "id").unwrap_or(server)),
        server: server.to_owned(),
        user,
        password: find("vpn-secrets", "password")
            .map(|password| Secret::new(password.as_bytes().to_vec())),
        options: Vec::new(),
        routes: Vec::new(),
        findings: Vec::new(),
    };
    for word in ALWAYS {
        connection.say(word, None);
    }
    let is_set = |section, key| find(section, key) == Some("true");
    if !is_set("ipv4", "ignore-auto-dns") {
        connection.say("usepeerdns", None);
    }
    if !is_set("ipv4", "never-default") {
        connection.say("defaultroute", None);
        connection.say("replacedefaultroute", None);
    }
    for entry in &entries {
        let finding = connection.take(entry, &place);
        connection.findings.push(finding);
    }
    Ok(connection)
}

impl Connection {
    /// PAP may be asked for as well, so its secrets file needs the password, too.
    #[must_use]
    pub fn may_use_pap(&self) -> bool {
        let says = |word: &str| self.options.iter().any(|(option, _)| option == word);
        let has_mppe = self
            .options
            .iter()
            .any(|(option, _)| option.starts_with("require-mppe"));
        !says("refuse-pap") && !has_mppe
    }

    fn say(&mut self, option: &str, argument: Option<&str>) {
        self.options
            .push((option.to_owned(), argument.map(ToOwned::to_owned)));
    }

    /// Takes one key over, and says what became of it.
    fn take(&mut self, entry: &Entry, file: &Place) -> Finding {
        let taken = match entry.section.as_str() {
            "connection" => Ok(of_connection(&entry.key)),
            "vpn" => self.take_vpn(&entry.key, &entry.value),
            "vpn-secrets" if entry.key == "password" => Ok(""),
            "ipv4" => self.take_ipv4(&entry.key, &entry.value),
            "ipv6" => {
                if entry.key == "method" && matches!(entry.value.as_str(), "ignore" | "disabled") {
                    self.say("noipv6", None);
                    Ok("")
                } else {
                    Ok("PPTP brings link-local addresses of IPv6 only")
                }
            }
            _ => Ok("it is NetworkManager's own"),
        };
        let (verdict, reason) = match taken {
            Ok("") => (Verdict::Honoured, String::new()),
            Ok(why) => (Verdict::Harmless, why.to_owned()),
            Err(why) => (Verdict::Refused, why),
        };
        let is_secret = entry.section == "vpn-secrets";
        Finding {
            option: format!("{}.{}", entry.section, entry.key),
            value: if is_secret {
                "??????".to_owned()
            } else {
                entry.value.to_string()
            },
            verdict,
            reason,
            place: Place {
                file: file.file.clone(),
                line: entry.line,
            },
        }
    }

    /// `Ok` with a reason is harmless, without one honoured.
    fn take_vpn(&mut self, key: &str, value: &str) -> Result<&'static str, String> {
        if let Some((_, word)) = SWITCHES.iter().find(|(name, _)| *name == key) {
            return match value {
                "yes" | "true" => {
                    self.say(word, None);
                    Ok("")
                }
                "no" | "false" => Ok("it is off by default"),
                other => Err(format!("it is yes or no, not '{}'", shown(other))),
            };
        }
        if NUMBERS.contains(&key) {
            if value.parse::<u32>().is_err() {
                return Err(format!("it is a number, not '{}'", shown(value)));
            }
            self.say(key, Some(value));
            return Ok("");
        }
        match key {
            "gateway" | "user" | "domain" => Ok(""),
            "service-type" => Ok("it says that this is PPTP"),
            "timeout" => Ok("how long a tunnel may take to come up is fixed"),
            "password-flags" => match value.parse::<u32>() {
                Ok(0) => Ok(""),
                Ok(flags) if flags & 1 != 0 => {
                    Ok("the password is in a person's keyring: add it with pptp-fast secret add")
                }
                Ok(flags) if flags & 2 != 0 => {
                    Ok("the password is not saved: give it with up --password-file")
                }
                Ok(_) => Ok("a server without passwords needs none"),
                Err(_) => Err(format!("it is a number, not '{}'", shown(value))),
            },
            _ => Err("it is no option of NetworkManager's PPTP plugin".to_owned()),
        }
    }

    fn take_ipv4(&mut self, key: &str, value: &str) -> Result<&'static str, String> {
        let is_route = key
            .strip_prefix("route")
            .is_some_and(|number| number.parse::<u32>().is_ok());
        match key {
            "method" if value == "auto" => Ok(""),
            "method" => Err("the server gives the addresses: only auto is possible".to_owned()),
            "never-default" | "ignore-auto-dns" => Ok(""),
            "route-metric" => match value.parse::<i64>() {
                Ok(-1) => Ok("-1 leaves it open"),
                Ok(metric @ 0..=0xFFFF_FFFF) => {
                    self.say("defaultroute-metric", Some(&metric.to_string()));
                    Ok("")
                }
                _ => Err(format!("it is a number, not '{}'", shown(value))),
            },
            "dns" | "dns-search" if value.is_empty() => Ok("it is empty"),
            "dns" | "dns-search" => {
                Err("set it for the time of a tunnel: pptp-fast dns set".to_owned())
            }
            _ if is_route => {
                let route = route(value)?;
                self.routes.push(route);
                Ok("")
            }
            _ if key.starts_with("route") && key.ends_with("_options") => {
                Err("options of a route are not done here".to_owned())
            }
            _ if key.starts_with("address") => Err("the server gives the addresses".to_owned()),
            _ => Ok("it is NetworkManager's own"),
        }
    }
}

fn of_connection(key: &str) -> &'static str {
    match key {
        "id" => "",
        "type" => "it says that this is a VPN",
        "autoconnect" => "who starts tunnels at boot is for the init system to say",
        "permissions" => "who may start the tunnel is for sudo to say",
        _ => "it is NetworkManager's own",
    }
}

/// `NETWORK/PREFIX[,GATEWAY[,METRIC]]` in route(8)'s words. A gateway behind the tunnel is of no
/// use: there is one other end.
fn route(value: &str) -> Result<String, String> {
    let wrong = || format!("'{}' is no route such as 10.0.0.0/8", shown(value));
    let mut fields = value.split(',').map(str::trim);
    let target = fields.next().unwrap_or_default();
    let (network, prefix) = target.split_once('/').unwrap_or((target, "32"));
    let network: Ipv4Addr = network.parse().map_err(|_| wrong())?;
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    let metric = fields.nth(1).filter(|metric| !metric.is_empty());
    let metric = match metric.map(str::parse::<u32>) {
        Some(Ok(metric)) if metric > 0 => format!(" metric {metric}"),
        Some(Err(_)) => return Err(wrong()),
        _ => String::new(),
    };
    // What stands behind the prefix is no part of the network.
    if prefix > 32 {
        return Err(wrong());
    }
    let network = Ipv4Addr::from_bits(network.to_bits() & mask(prefix));
    Ok(format!("add -net {network}/{prefix}{metric} TUNNEL_DEV"))
}

/// Lines `key=value` below `[section]`, with GLib's escapes undone.
fn entries(text: &[u8]) -> Vec<Entry> {
    let text = Zeroizing::new(String::from_utf8_lossy(text).into_owned());
    let mut section = String::new();
    let mut entries = Vec::new();
    for (number, line) in (1_u32..).zip(text.lines()) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=')
            && !line.starts_with(['#', ';'])
        {
            entries.push(Entry {
                section: section.clone(),
                key: key.trim_end().to_owned(),
                value: unescape(value.trim_start()),
                line: number,
            });
        }
    }
    entries
}

fn unescape(value: &str) -> Zeroizing<String> {
    // Room from the start, so that no half-grown copy stays behind in the heap.
    let mut plain = Zeroizing::new(String::with_capacity(value.len()));
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        plain.push(match (c, c == '\\') {
            (c, false) => c,
            (_, true) => match chars.next() {
                Some('s') => ' ',
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some(other) => other,
                None => '\\',
            },
        });
    }
    plain
}

/// The name, with a dash for what a tunnel's name must not have.
fn tunnel_name(id: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '@' | '_' | '.');
    let name: String = id
        .trim()
        .chars()
        .take(100)
        .map(|c| if fits(c) { c } else { '-' })
        .collect();
    let name = name.trim_start_matches('.');
    match peers::check_name(name) {
        Ok(()) => name.to_owned(),
        Err(_) => "imported".to_owned(),
    }
}

fn shown(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OFFICE: &str = "\
[connection]
id=Head office
uuid=0d8d6cd4-8c4e-4a1c-a4be-6ae7c9a2a5c1
type=vpn
autoconnect=false
permissions=

[vpn]
domain=OFFICE
gateway=vpn.example.net
lcp-echo-failure=5
lcp-echo-interval=30
mppe-stateful=no
password-flags=0
refuse-chap=yes
refuse-eap=yes
refuse-mschap=yes
refuse-pap=yes
require-mppe-128=yes
user=mia
service-type=org.freedesktop.NetworkManager.pptp

[vpn-secrets]
password=mia\\s123\\\\

[ipv4]
dns=10.0.0.1;
method=auto
never-default=true
route1=10.1.2.0/16,0.0.0.0,20
route2=192.0.2.7/32

[ipv6]
method=ignore

[proxy]
";

    fn office() -> Connection {
        parse("office.nmconnection", OFFICE.as_bytes()).unwrap()
    }

    fn verdict(connection: &Connection, option: &str) -> (Verdict, String) {
        let found = connection.findings.iter().find(|it| it.option == option);
        let found = found.unwrap_or_else(|| panic!("nothing is said of {option}"));
        (found.verdict, found.reason.clone())
    }

    #[test]
    fn a_connection_is_said_in_pppds_words() {
        let office = office();
        assert_eq!(office.name, "Head-office");
        assert_eq!(office.server, "vpn.example.net");
        assert_eq!(office.user, "OFFICE\\mia");
        assert_eq!(office.password, Some(Secret::new(b"mia 123\\".to_vec())));
        let options: Vec<String> = office
            .options
            .iter()
            .map(|(option, argument)| match argument {
                Some(argument) => format!("{option} {argument}"),
                None => option.clone(),
            })
            .collect();
        assert_eq!(
            options,
            [
                "lock",
                "noauth",
                "noipdefault",
                "usepeerdns",
                "lcp-echo-failure 5",
                "lcp-echo-interval 30",
                "refuse-chap",
                "refuse-eap",
                "refuse-mschap",
                "refuse-pap",
                "require-mppe-128",
                "noipv6",
            ]
        );
        assert_eq!(
            office.routes,
            [
                "add -net 10.1.0.0/16 metric 20 TUNNEL_DEV",
                "add -net 192.0.2.7/32 TUNNEL_DEV"
            ]
        );
        assert!(!office.may_use_pap());
    }

    #[test]
    fn every_key_has_a_verdict_and_the_password_is_not_shown() {
        let office = office();
        let lines = OFFICE.lines().filter(|line| line.contains('=')).count();
        assert_eq!(office.findings.len(), lines);
        assert!(!format!("{office:?}").contains("mia 123"), "{office:?}");
        for (option, expected) in [
            ("vpn.gateway", Verdict::Honoured),
            ("vpn.mppe-stateful", Verdict::Harmless),
            ("vpn.password-flags", Verdict::Honoured),
            ("vpn-secrets.password", Verdict::Honoured),
            ("connection.autoconnect", Verdict::Harmless),
            ("ipv4.never-default", Verdict::Honoured),
            ("ipv4.route2", Verdict::Honoured),
            ("ipv4.dns", Verdict::Refused),
        ] {
            assert_eq!(verdict(&office, option).0, expected, "{option}");
        }
        let place = &office.findings[0].place;
        assert_eq!((place.source(), place.line), ("office.nmconnection", 2));
    }

    #[test]
    fn flags_say_where_a_password_is_that_is_not_in_the_file() {
        for (flags, words) in [("1", "keyring"), ("2", "not saved"), ("4", "needs none")] {
            let text = OFFICE.replace("password-flags=0", &format!("password-flags={flags}"));
            let connection = parse("f", text.as_bytes()).unwrap();
            let (verdict, reason) = verdict(&connection, "vpn.password-flags");
            assert_eq!(verdict, Verdict::Harmless);
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (from, to, option) in [
            ("method=auto", "method=manual", "ipv4.method"),
            ("route2=192.0.2.7/32", "route2=example/32", "ipv4.route2"),
            ("route2=192.0.2.7/32", "route2=192.0.2.7/33", "ipv4.route2"),
            ("route2=", "route2_options=", "ipv4.route2_options"),
            ("refuse-eap=yes", "refuse-eap=maybe", "vpn.refuse-eap"),
            (
                "lcp-echo-failure=5",
                "lcp-echo-failure=x",
                "vpn.lcp-echo-failure",
            ),
            ("refuse-pap=yes", "machine-auth=yes", "vpn.machine-auth"),
        ] {
            let connection = parse("f", OFFICE.replace(from, to).as_bytes()).unwrap();
            assert_eq!(verdict(&connection, option).0, Verdict::Refused, "{to}");
        }
    }

    #[test]
    fn other_files_are_no_connections_of_the_plugin() {
        assert!(is_keyfile(OFFICE.as_bytes()));
        assert!(is_keyfile(b"# NetworkManager\n\n[connection]\n"));
        assert!(!is_keyfile(b"name mia\n[connection]\n"));
        assert!(!is_keyfile(b""));
        for text in [
            OFFICE.replace("type=vpn", "type=wifi"),
            OFFICE.replace(".pptp", ".openvpn"),
            OFFICE.replace("gateway=", "no-gateway="),
            String::new(),
        ] {
            assert!(parse("f", text.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_tunnel_is_called_what_it_may_be() {
        for (id, name) in [
            ("office", "office"),
            ("VPN (work)", "VPN--work-"),
            ("../../etc", "-..-etc"),
            ("", "imported"),
            ("Büro", "B-ro"),
        ] {
            assert_eq!(tunnel_name(id), name);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text: Vec<u8>) {
            let head = b"[connection]\ntype=vpn\n[vpn]\nservice-type=org.freedesktop.NetworkManager.pptp\n\
                gateway=g\n[ipv4]\nroute1=";
            let _ = parse("f", &text);
            let connection = parse("f", &[&head[..], &text].concat());
            prop_assert!(connection.is_ok());
        }
    }
}
