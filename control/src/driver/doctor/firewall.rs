//! Rules of this host's own firewall that concern PPTP, as far as they can be read: with `nft`, or
//! `iptables-save` where there is no nftables.

use std::time::Duration;

/// For a program that lists rules.
const LIMIT: Duration = Duration::from_secs(3);

/// A rule that stops packets of PPTP, or a chain that does so by its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) stops: Stops,
    pub(super) way: Way,
    /// As the program shows it, with its place.
    pub(super) rule: String,
    /// What takes it away.
    pub(super) command: String,
}

/// What is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stops {
    Gre,
    Tcp,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

impl Obstacle {
    pub(super) const fn words(&self) -> &'static str {
        match (self.stops, self.way) {
            (Stops::Gre, Way::Out) => "stops GRE that leaves",
            (Stops::Gre, Way::In) => "stops GRE that arrives",
            (Stops::Tcp, Way::Out) => "stops TCP to the server",
            (Stops::Tcp, Way::In) => "stops what the server answers over TCP",
        }
    }
}

/// Every obstacle that was found; `None` when no rules can be read.
pub(super) async fn read(port: u16) -> Option<Vec<Obstacle>> {
    if let Some(listed) = output("nft", &["-a", "list", "ruleset"]).await {
        return Some(of_nft(&listed, port));
    }
    let listed = output("iptables-save", &["-t", "filter"]).await?;
    Some(of_iptables(&listed, port))
}

async fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env("PATH", path);
    command
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let ran = tokio::time::timeout(LIMIT, command.output()).await.ok()?;
    let output = ran.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the verdict of a rule ends a packet.
fn is_stop(words: &[&str]) -> bool {
    words
        .iter()
        .any(|word| matches!(*word, "drop" | "reject" | "DROP" | "REJECT"))
}

/// What the rule is about: GRE, or the server's port. An address that it is limited to is not
/// looked at, so this is a suspicion until packets are missing.
fn subject(words: &[&str], port: u16) -> Option<Stops> {
    let port = port.to_string();
    let names_gre = words.windows(2).any(|pair| {
        let is_protocol = matches!(pair[0], "protocol" | "l4proto" | "-p" | "nexthdr");
        is_protocol && matches!(pair[1].trim_matches('"'), "gre" | "47")
    });
    let names_port = words.windows(2).any(|pair| {
        let is_port = matches!(pair[0], "dport" | "sport" | "--dport" | "--sport");
        let is_pptp = pair[1] == port || pair[1] == "pptp" && port == "1723";
        is_port && is_pptp
    });
    match (names_gre, names_port) {
        (true, _) => Some(Stops::Gre),
        (_, true) => Some(Stops::Tcp),
        _ => None,
    }
}

/// The chain that is being read.
#[derive(Default)]
struct Chain {
    name: String,
    way: Option<Way>,
    drops_by_policy: bool,
    lets_gre_pass: bool,
}

fn of_nft(listed: &str, port: u16) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut table = String::new();
    let mut chain = Chain::default();
    for line in listed.lines() {
        let (rule, handle) = line.split_once("# handle").unwrap_or((line, ""));
        let (rule, handle) = (rule.trim(), handle.trim());
        let words: Vec<&str> = rule.split_whitespace().collect();
        match words[..] {
            ["table", family, name, ..] => table = format!("{family} {name}"),
            ["chain", name, ..] => {
                chain = Chain {
                    name: name.to_owned(),
                    ..Chain::default()
                };
            }
            ["type", ..] => {
                chain.way = match words.iter().skip_while(|word| **word != "hook").nth(1) {
                    Some(&"output") => Some(Way::Out),
                    Some(&"input") => Some(Way::In),
                    _ => None,
                };
                chain.drops_by_policy = rule.contains("policy drop");
            }
            ["}"] => {
                found.extend(policy_of(&chain, &table));
                chain = Chain::default();
            }
            _ => {
                chain.lets_gre_pass |= lets_gre_pass(&words, port);
                if let (Some(way), Some(stops)) = (chain.way, subject(&words, port))
                    && is_stop(&words)
                {
                    let name = &chain.name;
                    found.push(Obstacle {
                        stops,
                        way,
                        rule: format!("{table} {name}: {rule}"),
                        command: format!("nft delete rule {table} {name} handle {handle}"),
                    });
                }
            }
        }
    }
    found
}

/// A rule that accepts GRE, or everything, or leads to a chain that is not looked into.
fn lets_gre_pass(words: &[&str], port: u16) -> bool {
    let is_accepting = words.contains(&"accept") || words.contains(&"ACCEPT");
    let is_open = matches!(words, ["accept"] | ["counter", .., "accept"]);
    let leads_on = words.contains(&"jump") || words.contains(&"goto");
    is_accepting && (is_open || subject(words, port) == Some(Stops::Gre)) || leads_on
}

fn policy_of(chain: &Chain, table: &str) -> Option<Obstacle> {
    let way = chain
        .way
        .filter(|_| chain.drops_by_policy && !chain.lets_gre_pass)?;
    let name = &chain.name;
    Some(Obstacle {
        stops: Stops::Gre,
        way,
        rule: format!("{table} {name}: policy drop, and no rule that accepts GRE"),
        command: format!("nft insert rule {table} {name} meta l4proto gre accept"),
    })
}

fn of_iptables(listed: &str, port: u16) -> Vec<Obstacle> {
    let way_of = |chain: &str| match chain {
        "INPUT" => Some(Way::In),
        "OUTPUT" => Some(Way::Out),
        _ => None,
    };
    let mut found = Vec::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["-A", chain, ref rest @ ..] = words[..] else {
            continue;
        };
        let (Some(way), Some(stops)) = (way_of(chain), subject(rest, port)) else {
            continue;
        };
        if is_stop(rest) {
            found.push(Obstacle {
                stops,
                way,
                rule: line.to_owned(),
                command: format!("iptables -D {chain} {}", rest.join(" ")),
            });
        }
    }
    for line in listed.lines() {
        let Some((chain, "DROP")) = line
            .strip_prefix(':')
            .and_then(|line| line.split_once(' '))
            .map(|(chain, rest)| (chain, rest.split(' ').next().unwrap_or("")))
        else {
            continue;
        };
        let prefix = format!("-A {chain} ");
        let passes = listed.lines().any(|line| {
            let rule = line.strip_prefix(&prefix).unwrap_or("");
            let words: Vec<&str> = rule.split_whitespace().collect();
            words == ["-j", "ACCEPT"] || lets_gre_pass(&words, port)
        });
        if let (Some(way), false) = (way_of(chain), passes) {
            found.push(Obstacle {
                stops: Stops::Gre,
                way,
                rule: format!("{chain}: policy DROP, and no rule that accepts GRE"),
                command: format!("iptables -I {chain} -p gre -j ACCEPT"),
            });
        }
    }
    found
}

/// The kernel's helper for PPTP through NAT, where this host tracks connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Helper {
    /// `nf_conntrack` is there: connections may be tracked, and addresses translated, here.
    pub(super) tracks: bool,
    /// `nf_nat_pptp` or `nf_conntrack_pptp` is there.
    pub(super) knows_pptp: bool,
}

impl Helper {
    pub(super) fn read() -> Self {
        let exists = |module: &str| std::path::Path::new("/sys/module").join(module).exists();
        let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
        let is_loaded = |module: &str| {
            let named = |line: &str| line.split(' ').next() == Some(module);
            modules.lines().any(named) || exists(module)
        };
        Self {
            tracks: is_loaded("nf_conntrack"),
            knows_pptp: is_loaded("nf_nat_pptp") || is_loaded("nf_conntrack_pptp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFT: &str = r#"table inet filter { # handle 3
	chain output { # handle 1
		type filter hook output priority filter; policy accept;
		ip daddr 10.0.0.1 tcp dport 1723 reject with tcp reset # handle 4
		meta l4proto gre counter packets 0 bytes 0 drop # handle 7
		tcp dport 22 drop # handle 8
	}
	chain input { # handle 2
		type filter hook input priority filter; policy drop;
		ct state established,related accept # handle 9
	}
	chain other { # handle 5
		ip protocol gre drop # handle 6
	}
}
"#;

    #[test]
    fn rules_of_nftables_that_stop_pptp_are_found_with_what_removes_them() {
        let found = of_nft(NFT, 1723);
        let said: Vec<_> = found
            .iter()
            .map(|it| (it.stops, it.way, it.command.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (
                    Stops::Tcp,
                    Way::Out,
                    "nft delete rule inet filter output handle 4"
                ),
                (
                    Stops::Gre,
                    Way::Out,
                    "nft delete rule inet filter output handle 7"
                ),
                (
                    Stops::Gre,
                    Way::In,
                    "nft insert rule inet filter input meta l4proto gre accept"
                ),
            ]
        );
    }

    #[test]
    fn a_policy_is_no_obstacle_where_gre_is_accepted() {
        let open = NFT.replace(
            "ct state established,related accept",
            "ip protocol 47 accept",
        );
        assert!(of_nft(&open, 1723).iter().all(|it| it.way == Way::Out));
    }

    #[test]
    fn rules_of_iptables_are_found_too() {
        let listed = "*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
            -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
            -A OUTPUT -p tcp -m tcp --dport 1723 -j DROP\n-A OUTPUT -p gre -j REJECT\nCOMMIT\n";
        let found = of_iptables(listed, 1723);
        let said: Vec<_> = found.iter().map(|it| it.command.as_str()).collect();
        assert_eq!(
            said,
            [
                "iptables -D OUTPUT -p tcp -m tcp --dport 1723 -j DROP",
                "iptables -D OUTPUT -p gre -j REJECT",
                "iptables -I INPUT -p gre -j ACCEPT",
            ]
        );
    }
}
