//! pptp-command's route lines: the arguments of route(8), with `TUNNEL_DEV` for the new interface
//! and `DEF_GW` for the default gateway of before.

use std::net::Ipv4Addr;

/// Where packets for the destination go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteVia {
    /// `TUNNEL_DEV`, and what a line without `gw` and `dev` means.
    Tunnel,
    /// `gw DEF_GW`: the default gateway that there was before the tunnel.
    DefaultGateway,
    /// `gw a.b.c.d`.
    Gateway(Ipv4Addr),
    /// `dev NAME`.
    Device(String),
}

/// A route to set when the tunnel is up, and to take away when it is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The line as it stands in the file, for `Route: ... added`.
    pub text: String,
    /// Network or host.
    pub destination: Ipv4Addr,
    /// Bits of the network: 0 for the default route, 32 for a host.
    pub prefix_len: u8,
    /// Where to.
    pub via: RouteVia,
    /// `metric N`.
    pub metric: Option<u32>,
}

impl Route {
    /// Reads `add [-net|-host] DESTINATION [netmask M] [gw G] [metric N] [[dev] D]`.
    ///
    /// # Errors
    /// Words for a person: what is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unsafe_char = |c: char| !(c.is_ascii_alphanumeric() || " \t-._/:".contains(c));
        if text.len() > 200 || text.contains(unsafe_char) {
            return Err(
                "it has characters that no route needs; write it as: add -net 192.168.2.0 \
                 netmask 255.255.255.0 TUNNEL_DEV"
                    .to_owned(),
            );
        }
        let mut words = text.split_ascii_whitespace().peekable();
        if words.next() != Some("add") {
            return Err(format!("'{text}' does not start with `add`"));
        }
        let kind = words.next_if(|word| matches!(*word, "-net" | "-host"));
        let target = words
            .next()
            .ok_or_else(|| format!("'{text}' names no destination"))?;
        let (destination, mut prefix_len) = parse_target(target, kind)?;
        let mut via = RouteVia::Tunnel;
        let mut metric = None;
        while let Some(word) = words.next() {
            let mut argument = || {
                words
                    .next()
                    .ok_or_else(|| format!("'{word}' needs a value"))
            };
            match word {
                "netmask" => prefix_len = Some(parse_mask(argument()?)?),
                "gw" => via = parse_gateway(argument()?)?,
                "metric" => metric = Some(number(argument()?)?),
                "mss" | "window" | "irtt" => drop(number(argument()?)?),
                "dev" => via = device(argument()?, via),
                "reject" | "mod" | "dyn" | "reinstate" => {
                    return Err(format!("'{word}' is not done here"));
                }
                name => via = device(name, via),
            }
        }
        let prefix_len = prefix_len.unwrap_or_else(|| classful_prefix(destination));
        let route = Self {
            text: text.to_owned(),
            destination,
            prefix_len,
            via,
            metric,
        };
        match u32::from(destination)
            .checked_shl(u32::from(prefix_len))
            .unwrap_or(0)
        {
            0 => Ok(route),
            _ => Err(format!(
                "netmask does not match route address {destination}"
            )),
        }
    }
}

/// The destination, with its prefix where the word or `-host` says it.
fn parse_target(target: &str, kind: Option<&str>) -> Result<(Ipv4Addr, Option<u8>), String> {
    if target == "default" {
        return Ok((Ipv4Addr::UNSPECIFIED, Some(0)));
    }
    let (address, prefix) = match target.split_once('/') {
        Some((address, prefix)) => (address, Some(parse_prefix(prefix)?)),
        None => (target, None),
    };
    let address = address
        .parse()
        .map_err(|_| format!("'{target}' is not an address such as 10.0.0.0 or 10.0.0.0/8"))?;
    // route(8) without -net takes a destination for a host, unless it looks like a network.
    let host = match kind {
        Some("-net") => false,
        Some(_) => true,
        None => prefix.is_none() && !is_network(address),
    };
    Ok((
        address,
        if host {
            Some(prefix.unwrap_or(32))
        } else {
            prefix
        },
    ))
}

fn is_network(address: Ipv4Addr) -> bool {
    let prefix = classful_prefix(address);
    u32::from(address)
        .checked_shl(u32::from(prefix))
        .unwrap_or(0)
        == 0
}

/// What route(8) takes when no netmask is given.
const fn classful_prefix(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0, 0, 0, 0] => 0,
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        [192..=223, ..] => 24,
        _ => 32,
    }
}

fn parse_prefix(text: &str) -> Result<u8, String> {
    let prefix = text.parse().ok().filter(|prefix| *prefix <= 32);
    prefix.ok_or_else(|| format!("'/{text}' is not a prefix length of 0 to 32"))
}

fn parse_mask(text: &str) -> Result<u8, String> {
    let mask = text.parse::<Ipv4Addr>().map(u32::from);
    let mask = mask.map_err(|_| format!("'{text}' is not a netmask such as 255.255.255.0"))?;
    if mask.leading_ones() + mask.trailing_zeros() != 32 {
        return Err(format!(
            "'{text}' is not a netmask: its ones are not together"
        ));
    }
    Ok(u8::try_from(mask.leading_ones()).unwrap_or(32))
}

fn parse_gateway(text: &str) -> Result<RouteVia, String> {
    match text {
        "DEF_GW" => Ok(RouteVia::DefaultGateway),
        _ => text
            .parse()
            .map(RouteVia::Gateway)
            .map_err(|_| format!("'{text}' is not a gateway's address, nor DEF_GW")),
    }
}

/// A gateway says more than the device that it is reached by.
fn device(name: &str, via: RouteVia) -> RouteVia {
    match via {
        RouteVia::DefaultGateway | RouteVia::Gateway(_) => via,
        _ if name == "TUNNEL_DEV" => RouteVia::Tunnel,
        _ => RouteVia::Device(name.to_owned()),
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(text: &str) -> (String, u8, RouteVia, Option<u32>) {
        let route = Route::parse(text).unwrap();
        (
            route.destination.to_string(),
            route.prefix_len,
            route.via,
            route.metric,
        )
    }

    #[test]
    fn the_forms_of_pptp_command_are_understood() {
        let tunnel = || RouteVia::Tunnel;
        for (text, expected) in [
            (
                "add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV",
                ("192.168.2.0", 24, tunnel(), None),
            ),
            (
                "add -net 10.0.0.0 netmask 255.0.0.0 dev TUNNEL_DEV",
                ("10.0.0.0", 8, tunnel(), None),
            ),
            (
                "add -host 1.2.3.4 gw DEF_GW",
                ("1.2.3.4", 32, RouteVia::DefaultGateway, None),
            ),
            (
                "add 10.1.0.0/16 TUNNEL_DEV metric 5",
                ("10.1.0.0", 16, tunnel(), Some(5)),
            ),
            ("add default TUNNEL_DEV", ("0.0.0.0", 0, tunnel(), None)),
            ("add -net 192.168.9.0", ("192.168.9.0", 24, tunnel(), None)),
            (
                "add -host 10.0.0.1 gw 10.0.0.254 dev eth0",
                (
                    "10.0.0.1",
                    32,
                    RouteVia::Gateway(Ipv4Addr::new(10, 0, 0, 254)),
                    None,
                ),
            ),
            (
                "add -net 10.0.0.0/8 dev eth1",
                ("10.0.0.0", 8, RouteVia::Device("eth1".to_owned()), None),
            ),
        ] {
            let (destination, prefix_len, via, metric) = expected;
            assert_eq!(
                route(text),
                (destination.to_owned(), prefix_len, via, metric),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_route_is_named() {
        for (text, words) in [
            ("del -net 10.0.0.0/8", "does not start with `add`"),
            ("add", "names no destination"),
            (
                "add -net 10.0.0.1 netmask 255.0.0.0",
                "netmask does not match route address",
            ),
            ("add -net 10.0.0.0 netmask 255.0.255.0", "not together"),
            ("add -net 10.0.0.0/40", "not a prefix length"),
            ("add -host 1.2.3.4 gw router", "not a gateway's address"),
            (
                "add -host 1.2.3.4; reboot",
                "characters that no route needs",
            ),
            ("add -host $(x)", "characters that no route needs"),
            ("add -net 10.0.0.0/8 gw", "'gw' needs a value"),
        ] {
            let error = Route::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends_in_a_route_or_an_error(text in "(add )?[-a-zA-Z0-9 ./_:]{0,60}|.*") {
            if let Ok(route) = Route::parse(&text) {
                prop_assert!(route.prefix_len <= 32);
            }
        }
    }
}
