//! IPCP, IPv6CP, CCP with MPPE, and IPX (pppd's ipcp.c, ipv6cp.c, ccp.c), with the dialects of MPPE
//! that distributions have patched in.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{COUNT, OptionSpec, Setter, Takes, Treatment, Value};
use super::{checked, flag, harmless, refused, value, wild};
use crate::config::pppd_options::{DefaultRoute, MppeOptions, PppdOptions};
use crate::wire::ipv6cp::InterfaceIdentifier;

const NO_VJ: &str = "Van Jacobson compression is never negotiated";
const NO_COMPRESSION: &str = "no compression is ever negotiated, only MPPE";
const NO_PERSISTENT: &str = "interface identifiers are drawn, or given with ipv6";
const ONE_TIMER: &str = "one restart timer serves all protocols: lcp-restart";
const ONE_COUNTER: &str = "one counter serves all protocols: that of lcp";
const METRIC: Takes = Takes::Number(-1, i32::MAX as i64);

pub(super) const ROWS: &[OptionSpec] = &[
    refused(
        "noip",
        Takes::Nothing,
        "a tunnel without IP would carry nothing",
    ),
    refused(
        "-ip",
        Takes::Nothing,
        "a tunnel without IP would carry nothing",
    )
    .in_group("noip"),
    harmless("novj", Takes::Nothing, NO_VJ),
    harmless("-vj", Takes::Nothing, NO_VJ).in_group("novj"),
    harmless("novjccomp", Takes::Nothing, NO_VJ),
    harmless("-vjccomp", Takes::Nothing, NO_VJ).in_group("novjccomp"),
    harmless("vj-max-slots", Takes::Number(2, 16), NO_VJ),
    flag("ipcp-accept-local", |o, _| o.accept_local = true),
    flag("ipcp-accept-remote", |o, _| o.accept_remote = true),
    value("ipparam", Takes::Text, |o, v| {
        o.ipparam = Some(v.text.to_owned())
    }),
    // Without an address of its own (`local:remote`) this side always asks the peer for one.
    flag("noipdefault", |_, _| {}),
    checked("ms-dns", |o, v| push_server(&mut o.ms_dns, v)),
    checked("ms-wins", |o, v| push_server(&mut o.ms_wins, v)),
    harmless("ipcp-restart", COUNT, ONE_TIMER),
    harmless("ipcp-max-terminate", COUNT, ONE_COUNTER),
    harmless("ipcp-max-configure", COUNT, ONE_COUNTER),
    harmless("ipcp-max-failure", COUNT, ONE_COUNTER),
    flag("defaultroute", |o, _| o.default_route.wanted = true),
    flag("nodefaultroute", |o, _| {
        o.default_route = DefaultRoute::default()
    })
    .in_group("defaultroute"),
    flag("-defaultroute", |o, _| {
        o.default_route = DefaultRoute::default()
    })
    .in_group("defaultroute"),
    value("defaultroute-metric", METRIC, |o, v| {
        o.default_route.metric = u32::try_from(v.number).ok();
    }),
    flag("replacedefaultroute", |o, _| o.default_route.replace = true),
    flag("noreplacedefaultroute", |o, _| {
        o.default_route.replace = false
    })
    .in_group("replacedefaultroute"),
    flag("proxyarp", |o, _| o.proxy_arp = true),
    flag("noproxyarp", |o, _| o.proxy_arp = false).in_group("proxyarp"),
    flag("-proxyarp", |o, _| o.proxy_arp = false).in_group("proxyarp"),
    flag("usepeerdns", |o, _| o.use_peer_dns = true),
    flag("usepeerwins", |o, _| o.use_peer_wins = true),
    flag("noresolvconf", |o, _| o.no_resolv_conf = true),
    harmless(
        "netmask",
        Takes::Address,
        "a tunnel's addresses are single (/32)",
    ),
    harmless(
        "ipcp-no-address",
        Takes::Nothing,
        "addresses are always negotiated",
    ),
    harmless(
        "ipcp-no-addresses",
        Takes::Nothing,
        "IP-Addresses is never negotiated",
    ),
    harmless(
        "noremoteip",
        Takes::Nothing,
        "a peer without an address is given one",
    ),
    harmless(
        "nosendip",
        Takes::Nothing,
        "addresses are always negotiated",
    ),
    ADDRESSES,
    checked("ipv6", set_identifiers),
    flag("+ipv6", |o, _| o.ipv6.refused = false),
    flag("noipv6", |o, _| o.ipv6.refused = true).in_group("+ipv6"),
    flag("-ipv6", |o, _| o.ipv6.refused = true).in_group("+ipv6"),
    flag("ipv6cp-accept-local", |o, _| o.ipv6.accept_local = true),
    flag("ipv6cp-accept-remote", |o, _| o.ipv6.accept_remote = true),
    flag("ipv6cp-use-ipaddr", |o, _| o.ipv6.use_ip_addresses = true),
    flag("defaultroute6", |o, _| o.ipv6.default_route = true),
    flag("nodefaultroute6", |o, _| o.ipv6.default_route = false).in_group("defaultroute6"),
    flag("-defaultroute6", |o, _| o.ipv6.default_route = false).in_group("defaultroute6"),
    value("defaultroute6-metric", METRIC, |o, v| {
        o.ipv6.default_route_metric = u32::try_from(v.number).ok();
    }),
    harmless("ipv6cp-use-persistent", Takes::Nothing, NO_PERSISTENT),
    harmless(
        "ipv6cp-use-remotenumber",
        Takes::Nothing,
        "a tunnel has no telephone number",
    ),
    harmless(
        "ipv6cp-noremote",
        Takes::Nothing,
        "a peer without an identifier is asked for one",
    ),
    harmless(
        "ipv6cp-nosend",
        Takes::Nothing,
        "identifiers are always negotiated",
    ),
    harmless("ipv6cp-restart", COUNT, ONE_TIMER),
    harmless("ipv6cp-max-terminate", COUNT, ONE_COUNTER),
    harmless("ipv6cp-max-configure", COUNT, ONE_COUNTER),
    harmless("ipv6cp-max-failure", COUNT, ONE_COUNTER),
    flag("noccp", |o, _| o.no_ccp = true),
    flag("-ccp", |o, _| o.no_ccp = true).in_group("noccp"),
    harmless("bsdcomp", Takes::Text, NO_COMPRESSION),
    harmless("nobsdcomp", Takes::Nothing, NO_COMPRESSION).in_group("bsdcomp"),
    harmless("-bsdcomp", Takes::Nothing, NO_COMPRESSION).in_group("bsdcomp"),
    harmless("deflate", Takes::Text, NO_COMPRESSION),
    harmless("nodeflate", Takes::Nothing, NO_COMPRESSION).in_group("deflate"),
    harmless("-deflate", Takes::Nothing, NO_COMPRESSION).in_group("deflate"),
    harmless("nodeflatedraft", Takes::Nothing, NO_COMPRESSION),
    harmless("predictor1", Takes::Nothing, NO_COMPRESSION),
    harmless("nopredictor1", Takes::Nothing, NO_COMPRESSION).in_group("predictor1"),
    harmless("-predictor1", Takes::Nothing, NO_COMPRESSION).in_group("predictor1"),
    harmless("lzs", Takes::Nothing, NO_COMPRESSION),
    harmless("nolzs", Takes::Nothing, NO_COMPRESSION).in_group("lzs"),
    harmless("mppc", Takes::Nothing, NO_COMPRESSION),
    harmless("nomppc", Takes::Nothing, NO_COMPRESSION).in_group("mppc"),
    flag("require-mppe", require_any),
    flag("+mppe", require_any).in_group("require-mppe"),
    flag("nomppe", |o, _| o.mppe = MppeOptions::default()).in_group("require-mppe"),
    flag("-mppe", |o, _| o.mppe = MppeOptions::default()).in_group("require-mppe"),
    checked("mppe", mppe_dialect).in_group("require-mppe"),
    flag("require-mppe-40", |o, _| o.mppe.bits_40 = true),
    flag("+mppe-40", |o, _| o.mppe.bits_40 = true).in_group("require-mppe-40"),
    flag("require-mppe40", |o, _| o.mppe.bits_40 = true).in_group("require-mppe-40"),
    flag("nomppe-40", |o, _| o.mppe.bits_40 = false).in_group("require-mppe-40"),
    flag("-mppe-40", |o, _| o.mppe.bits_40 = false).in_group("require-mppe-40"),
    flag("nomppe40", |o, _| o.mppe.bits_40 = false).in_group("require-mppe-40"),
    flag("mppe-40", |o, _| o.mppe.bits_40 = true).in_group("require-mppe-40"),
    flag("require-mppe-56", |o, _| o.mppe.bits_56 = true),
    flag("+mppe-56", |o, _| o.mppe.bits_56 = true).in_group("require-mppe-56"),
    flag("require-mppe56", |o, _| o.mppe.bits_56 = true).in_group("require-mppe-56"),
    flag("nomppe-56", |o, _| o.mppe.bits_56 = false).in_group("require-mppe-56"),
    flag("-mppe-56", |o, _| o.mppe.bits_56 = false).in_group("require-mppe-56"),
    flag("nomppe56", |o, _| o.mppe.bits_56 = false).in_group("require-mppe-56"),
    flag("require-mppe-128", |o, _| o.mppe.bits_128 = true),
    flag("+mppe-128", |o, _| o.mppe.bits_128 = true).in_group("require-mppe-128"),
    flag("require-mppe128", |o, _| o.mppe.bits_128 = true).in_group("require-mppe-128"),
    flag("nomppe-128", |o, _| o.mppe.bits_128 = false).in_group("require-mppe-128"),
    flag("-mppe-128", |o, _| o.mppe.bits_128 = false).in_group("require-mppe-128"),
    flag("nomppe128", |o, _| o.mppe.bits_128 = false).in_group("require-mppe-128"),
    flag("mppe-128", |o, _| o.mppe.bits_128 = true).in_group("require-mppe-128"),
    flag("mppe-stateful", |o, _| o.mppe.stateful = true),
    flag("+mppe-stateful", |o, _| o.mppe.stateful = true).in_group("mppe-stateful"),
    flag("nomppe-stateful", stateless).in_group("mppe-stateful"),
    flag("-mppe-stateful", stateless).in_group("mppe-stateful"),
    flag("mppe-stateless", stateless).in_group("mppe-stateful"),
    // Our own word: pppd always asks for stateless mode, and takes the other when it is asked to.
    flag("mppe-prefer-stateful", |o, _| {
        o.mppe.stateful = true;
        o.mppe.prefer_stateful = true;
    })
    .in_group("mppe-stateful"),
    harmless("noipx", Takes::Nothing, "IPX is not carried"),
    harmless("-ipx", Takes::Nothing, "IPX is not carried").in_group("noipx"),
    harmless("ipx-network", Takes::Text, "IPX is not carried"),
    harmless("ipx-node", Takes::Text, "IPX is not carried"),
    harmless("ipx-router-name", Takes::Text, "IPX is not carried"),
    harmless("ipx-routing", COUNT, "IPX is not carried"),
    harmless("ipxcp-accept-local", Takes::Nothing, "IPX is not carried"),
    harmless("ipxcp-accept-network", Takes::Nothing, "IPX is not carried"),
    harmless("ipxcp-accept-remote", Takes::Nothing, "IPX is not carried"),
    harmless("ipxcp-restart", COUNT, "IPX is not carried"),
    harmless("ipxcp-max-terminate", COUNT, "IPX is not carried"),
    harmless("ipxcp-max-configure", COUNT, "IPX is not carried"),
    harmless("ipxcp-max-failure", COUNT, "IPX is not carried"),
    harmless(
        "noecp",
        Takes::Nothing,
        "ECP is never negotiated, only MPPE",
    ),
    harmless("-ecp", Takes::Nothing, "ECP is never negotiated, only MPPE").in_group("noecp"),
    refused("ipx", Takes::Nothing, "IPX is not carried").in_group("noipx"),
    refused("+ipx", Takes::Nothing, "IPX is not carried").in_group("noipx"),
];

/// The word `local:remote`, either of them may be missing.
pub(super) const ADDRESSES: OptionSpec = wild(
    "<local>:<remote>",
    Treatment::Honoured(Setter::Checked(set_addresses)),
);

fn set_addresses(options: &mut PppdOptions, value: &Value<'_>) -> Result<(), String> {
    let (local, remote) = value
        .text
        .split_once(':')
        .ok_or("not a pair of addresses")?;
    if let Some(local) = parse_end(local)? {
        options.local_address = Some(local);
    }
    if let Some(remote) = parse_end(remote)? {
        options.remote_address = Some(remote);
    }
    Ok(())
}

/// `a:b`, `a:` or `:b`, of addresses or names of hosts.
pub(super) fn is_pair(word: &str, addresses_only: bool) -> bool {
    let fits = |end: &str| {
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_name = end.len() <= 253 && !end.starts_with('-') && end.chars().all(letter);
        end.is_empty() || end.parse::<Ipv4Addr>().is_ok() || (is_name && !addresses_only)
    };
    let ends = word.split_once(':');
    ends.is_some_and(|(local, remote)| fits(local) && fits(remote))
}

/// One end of the pair; 0.0.0.0 stands for none, as nothing does.
fn parse_end(text: &str) -> Result<Option<Ipv4Addr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = match text.parse::<Ipv4Addr>() {
        Ok(address) => address,
        Err(_) => resolve(text).ok_or_else(|| {
            format!("unknown host: {text} (an option with a colon in it is a pair local:remote)")
        })?,
    };
    Ok((!address.is_unspecified()).then_some(address))
}

/// The address of a host, asked for while options are read, as pppd does it.
fn resolve(host: &str) -> Option<Ipv4Addr> {
    use std::net::{SocketAddr, ToSocketAddrs};
    (host, 0)
        .to_socket_addrs()
        .ok()?
        .find_map(|address| match address {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        })
}

/// `::dead:beef,::1`, either of them may be missing; only the lower halves count.
fn set_identifiers(options: &mut PppdOptions, value: &Value<'_>) -> Result<(), String> {
    let (local, remote) = value.text.split_once(',').unwrap_or((value.text, ""));
    let parse = |text: &str| -> Result<Option<InterfaceIdentifier>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let address: Ipv6Addr = text
            .parse()
            .map_err(|_| "an interface identifier is written as an IPv6 address: ::dead:beef")?;
        let identifier = InterfaceIdentifier::of(address);
        if identifier == InterfaceIdentifier::ZERO {
            return Err("an interface identifier must not be zero".to_owned());
        }
        Ok(Some(identifier))
    };
    let (local, remote) = (parse(local)?, parse(remote)?);
    if local.is_some() && local == remote {
        return Err("both ends cannot have the same interface identifier".to_owned());
    }
    options.ipv6.local = local.or(options.ipv6.local);
    options.ipv6.remote = remote.or(options.ipv6.remote);
    Ok(())
}

/// pppd takes two; a third is more likely a mistake than meant.
fn push_server(list: &mut Vec<Ipv4Addr>, value: &Value<'_>) -> Result<(), String> {
    let address = value
        .text
        .parse()
        .map_err(|_| "invalid address parameter for a name server: write it as 10.0.0.1")?;
    if list.len() >= 2 {
        list.remove(0);
    }
    list.push(address);
    Ok(())
}

/// pppd knows 40 and 128 bits only.
fn require_any(options: &mut PppdOptions, _: &Value<'_>) {
    options.mppe.bits_40 = true;
    options.mppe.bits_128 = true;
    options.mppe.optional = false;
}

fn stateless(options: &mut PppdOptions, _: &Value<'_>) {
    options.mppe.stateful = false;
    options.mppe.prefer_stateful = false;
}

/// `mppe required,stateless`, `mppe required,no40,no56,stateless`: the patch with MPPC that routers
/// ship.
fn mppe_dialect(options: &mut PppdOptions, value: &Value<'_>) -> Result<(), String> {
    let mut mppe = MppeOptions {
        bits_40: true,
        bits_56: true,
        bits_128: true,
        stateful: true,
        prefer_stateful: false,
        optional: true,
    };
    for word in value
        .text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        match word {
            "required" | "require" => mppe.optional = false,
            "optional" => mppe.optional = true,
            "stateless" => mppe.stateful = false,
            "stateful" => mppe.stateful = true,
            "no40" => mppe.bits_40 = false,
            "no56" => mppe.bits_56 = false,
            "no128" => mppe.bits_128 = false,
            "no" | "none" | "deny" => mppe = MppeOptions::default(),
            _ => {
                let shown: String = word.chars().filter(|c| !c.is_control()).take(20).collect();
                return Err(format!(
                    "mppe: '{shown}' is none of required, optional, stateless, stateful, no40, \
                     no56, no128"
                ));
            }
        }
    }
    options.mppe = mppe;
    Ok(())
}
