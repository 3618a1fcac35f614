//! Options of the process: logging, detaching, reconnecting, scripts (pppd's options.c).

use std::path::PathBuf;

use super::{COUNT, Include, OptionSpec, Setter, Takes, Treatment};
use super::{checked, flag, harmless, refused, value};
use crate::config::pppd_options::Detach;

const ONE_LINK: &str = "a tunnel is one link; remove it, the tunnel comes up without multilink";
const NO_FILTER: &str =
    "packet filters are the firewall's work here; use nftables on the interface";
const NO_ACTIVE_FILTER: &str =
    "every packet counts for idle and demand; keep unwanted ones off the interface with nftables";
const NO_KERNEL: &str = "there is no kernel PPP to adjust";
const NO_OCTET_LIMIT: &str = "there is no traffic limit; it would pass more than the file allows";

pub(super) const ROWS: &[OptionSpec] = &[
    flag("debug", |o, _| o.debug = o.debug.saturating_add(1)),
    flag("-d", |o, _| o.debug = o.debug.saturating_add(1)).in_group("debug"),
    harmless("kdebug", COUNT, NO_KERNEL),
    flag("nodetach", |o, _| o.detach = Detach::Never),
    flag("-detach", |o, _| o.detach = Detach::Never).in_group("nodetach"),
    flag("up_sdnotify", |o, _| o.detach = Detach::Never).in_group("nodetach"),
    flag("updetach", |o, _| o.detach = Detach::WhenUp).in_group("nodetach"),
    harmless(
        "master_detach",
        Takes::Nothing,
        "a tunnel is never a multilink master",
    ),
    value("holdoff", COUNT, |o, v| o.holdoff_s = v.u32()),
    value("idle", COUNT, |o, v| o.idle_s = v.u32()),
    value("maxconnect", COUNT, |o, v| o.max_connect_s = v.u32()),
    value("domain", Takes::Text, |o, v| {
        o.domain = Some(v.text.to_owned())
    }),
    include("file", Include::File),
    include("call", Include::Peer),
    flag("persist", |o, _| o.persist = true),
    flag("nopersist", |o, _| o.persist = false).in_group("persist"),
    // pppd(8): it implies persist, unless nopersist follows.
    flag("demand", |o, _| (o.demand, o.persist) = (true, true)),
    refused(
        "--version",
        Takes::Nothing,
        "it is for the command line: `pptp-fast --version`",
    ),
    refused(
        "--help",
        Takes::Nothing,
        "it is for the command line: `pptp-fast --help`",
    ),
    refused(
        "-h",
        Takes::Nothing,
        "it is for the command line: `pptp-fast --help`",
    ),
    refused(
        "show-options",
        Takes::Nothing,
        "it is for the command line: `pptp-fast check`",
    ),
    value("logfile", Takes::Text, |o, v| {
        o.log_file = Some(PathBuf::from(v.text));
        o.log_fd = None;
    }),
    value("logfd", Takes::Number(0, i32::MAX as i64), |o, v| {
        o.log_fd = i32::try_from(v.number).ok();
        o.log_file = None;
    })
    .in_group("logfile"),
    flag("nolog", |o, _| (o.log_fd, o.log_file) = (None, None)).in_group("logfile"),
    flag("nologfd", |o, _| (o.log_fd, o.log_file) = (None, None)).in_group("logfile"),
    value("linkname", Takes::Text, |o, v| {
        o.link_name = Some(v.text.to_owned())
    }),
    value("maxfail", COUNT, |o, v| o.max_fail = v.u32()),
    harmless(
        "ktune",
        Takes::Nothing,
        "routing is switched on where the administrator does it",
    ),
    harmless("noktune", Takes::Nothing, "no kernel setting is altered").in_group("ktune"),
    harmless(
        "connect-delay",
        COUNT,
        "there is no connect script to wait after",
    ),
    value("unit", Takes::Number(0, 65_535), |o, v| {
        o.unit = Some(v.u32())
    }),
    checked("ifname", |o, v| {
        let letter = |c: u8| c.is_ascii_graphic() && c != b'/' && c != b':' && c != b'%';
        if v.octets.is_empty() || v.octets.len() > 15 || !v.octets.iter().all(|&c| letter(c)) {
            return Err(
                "ifname value must be 1 to 15 characters that an interface may have".into(),
            );
        }
        o.interface = Some(v.text.to_owned());
        Ok(())
    }),
    value("vrf", Takes::Text, |o, v| o.vrf = Some(v.text.to_owned())),
    flag("dump", |o, _| o.dump = true),
    flag("dryrun", |o, _| o.dry_run = true),
    value("child-timeout", COUNT, |o, v| o.child_timeout_s = v.u32()),
    checked("set", |o, v| {
        let (name, text) = v
            .text
            .split_once('=')
            .ok_or_else(|| format!("missing = in name=value: {}", short(v.text)))?;
        if name.is_empty() {
            return Err(format!("missing variable name: {}", short(v.text)));
        }
        o.environment.retain(|(set, _)| set != name);
        o.environment.push((name.to_owned(), text.to_owned()));
        Ok(())
    }),
    checked("unset", |o, v| {
        if v.text.is_empty() || v.text.contains('=') {
            return Err(format!(
                "unset takes the name of a variable, not '{}'",
                short(v.text)
            ));
        }
        o.environment.retain(|(set, _)| set != v.text);
        Ok(())
    }),
    value("net-init-script", Takes::Text, |o, v| {
        o.scripts.net_init = Some(v.text.into())
    }),
    value("net-pre-up-script", Takes::Text, |o, v| {
        o.scripts.net_pre_up = Some(v.text.into())
    }),
    value("net-down-script", Takes::Text, |o, v| {
        o.scripts.net_down = Some(v.text.into())
    }),
    value("auth-up-script", Takes::Text, |o, v| {
        o.scripts.auth_up = Some(v.text.into())
    }),
    value("auth-down-script", Takes::Text, |o, v| {
        o.scripts.auth_down = Some(v.text.into())
    }),
    value("ip-pre-up-script", Takes::Text, |o, v| {
        o.scripts.ip_pre_up = Some(v.text.into())
    }),
    value("ip-up-script", Takes::Text, |o, v| {
        o.scripts.ip_up = Some(v.text.into())
    }),
    value("ip-down-script", Takes::Text, |o, v| {
        o.scripts.ip_down = Some(v.text.into())
    }),
    value("ipv6-up-script", Takes::Text, |o, v| {
        o.scripts.ipv6_up = Some(PathBuf::from(v.text))
    }),
    value("ipv6-down-script", Takes::Text, |o, v| {
        o.scripts.ipv6_down = Some(PathBuf::from(v.text))
    }),
    refused("multilink", Takes::Nothing, ONE_LINK),
    refused("mp", Takes::Nothing, ONE_LINK).in_group("multilink"),
    harmless("nomultilink", Takes::Nothing, "multilink is not done").in_group("multilink"),
    harmless("nomp", Takes::Nothing, "multilink is not done").in_group("multilink"),
    harmless("bundle", Takes::Text, "multilink is not done"),
    checked("plugin", |o, v| {
        match v.text.rsplit('/').next().unwrap_or(v.text) {
            // The tunnel itself, and a note in wtmp that nobody misses.
            "pptp.so" | "pptpd-logwtmp.so" => Ok(()),
            "radius.so" => {
                o.radius = true;
                Ok(())
            }
            "nm-pptp-pppd-plugin.so" => Err(
                "plugin 'nm-pptp-pppd-plugin.so' asks NetworkManager for the password: remove the \
                 line, and give the password with `pptp-fast secret add`"
                    .to_owned(),
            ),
            _ => Err(format!(
                "plugin '{}' cannot be loaded: only pptp.so and radius.so are built in; remove \
                 the line",
                short(v.text)
            )),
        }
    }),
    refused("pass-filter", Takes::Text, NO_FILTER),
    refused("pass-filter-in", Takes::Text, NO_FILTER),
    refused("pass-filter-out", Takes::Text, NO_FILTER),
    refused("active-filter", Takes::Text, NO_ACTIVE_FILTER),
    refused("active-filter-in", Takes::Text, NO_ACTIVE_FILTER),
    refused("active-filter-out", Takes::Text, NO_ACTIVE_FILTER),
    refused("precompiled-active-filter", Takes::Text, NO_ACTIVE_FILTER),
    refused("precompiled-pass-filter", Takes::Text, NO_FILTER),
    refused("maxoctets", COUNT, NO_OCTET_LIMIT),
    refused("mo", COUNT, NO_OCTET_LIMIT).in_group("maxoctets"),
    harmless(
        "mo-direction",
        Takes::Text,
        "it does nothing without maxoctets",
    ),
    harmless(
        "mo-timeout",
        Takes::Number(1, i32::MAX as i64),
        "it does nothing without maxoctets",
    ),
];

const fn include(name: &'static str, include: Include) -> OptionSpec {
    OptionSpec::new(
        name,
        Takes::Text,
        Treatment::Honoured(Setter::Include(include)),
    )
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}
