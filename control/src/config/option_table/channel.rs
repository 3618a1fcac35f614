//! The way to the peer: pppd's tty.c, where `pty "pptp SERVER --nolaunchpppd"` is the tunnel, and
//! the options of the kernel plugin pptp.so. Serial lines have no meaning here.

use std::net::Ipv4Addr;

use super::{COUNT, OptionSpec, Takes, Treatment};
use super::{checked, flag, harmless, refused, value, wild};
use crate::config::pppd_options::{PppdOptions, PptpOptions, PptpWord};
use crate::config::words::Words;

const NO_SERIAL: &str = "there is no serial line";
const NO_SCRIPT: &str = "there is no serial line that a script could prepare";
const NO_DEVICE: &str = "the tunnel is the device; the server is named by pty or pptp_server";
const NO_PPPOE: &str = "it belongs to the PPPoE plugin; the tunnel here is PPTP";

/// A word of digits: the speed of a serial line.
pub(super) const SPEED: OptionSpec = wild("<speed>", Treatment::Harmless(NO_SERIAL));
/// A path: a serial line.
pub(super) const DEVICE: OptionSpec = wild("<device>", Treatment::Refused(NO_DEVICE));

pub(super) const ROWS: &[OptionSpec] = &[
    DEVICE,
    SPEED,
    flag("lock", |o, _| o.lock = true),
    flag("nolock", |o, _| o.lock = false).in_group("lock"),
    refused("init", Takes::Text, NO_SCRIPT),
    refused("connect", Takes::Text, NO_SCRIPT),
    refused("disconnect", Takes::Text, NO_SCRIPT),
    refused("welcome", Takes::Text, NO_SCRIPT),
    checked("pty", take_over_pptp),
    refused("notty", Takes::Nothing, NO_DEVICE),
    refused("socket", Takes::Text, NO_DEVICE),
    refused(
        "record",
        Takes::Text,
        "packets can be captured on the interface with tcpdump",
    ),
    harmless("crtscts", Takes::Nothing, NO_SERIAL),
    harmless("cdtrcts", Takes::Nothing, NO_SERIAL).in_group("crtscts"),
    harmless("nocrtscts", Takes::Nothing, NO_SERIAL).in_group("crtscts"),
    harmless("-crtscts", Takes::Nothing, NO_SERIAL).in_group("crtscts"),
    harmless("nocdtrcts", Takes::Nothing, NO_SERIAL).in_group("crtscts"),
    harmless("-cdtrcts", Takes::Nothing, NO_SERIAL).in_group("crtscts"),
    harmless("xonxoff", Takes::Nothing, NO_SERIAL).in_group("crtscts"),
    harmless("modem", Takes::Nothing, NO_SERIAL),
    harmless("local", Takes::Nothing, NO_SERIAL).in_group("modem"),
    harmless(
        "sync",
        Takes::Nothing,
        "GRE carries whole packets, as synchronous lines do",
    ),
    harmless("datarate", COUNT, NO_SERIAL),
    harmless("stop-bits", COUNT, NO_SERIAL),
    harmless(
        "escape",
        Takes::Text,
        "GRE carries whole packets: no character needs an escape",
    ),
    checked("pptp_server", |o, v| {
        o.server = Some(host(v.text)?);
        Ok(())
    }),
    value("pptp_client", Takes::Address, |o, v| {
        o.pptp.local_bind = Some(v.address)
    }),
    value("pptp_phone", Takes::Text, |o, v| {
        o.pptp.phone = v.text.to_owned()
    }),
    harmless(
        "pptp_window",
        COUNT,
        "the receive window is large and fixed",
    ),
    harmless("pptp_sock", COUNT, NO_DEVICE),
    harmless(
        "pptpd-original-ip",
        Takes::Text,
        "scripts are told the client's address",
    ),
    refused("nic-interface", Takes::Text, NO_PPPOE),
    refused("pppoe-service", Takes::Text, NO_PPPOE),
    refused("pppoe-ac", Takes::Text, NO_PPPOE),
    refused("pppoe-sess", Takes::Text, NO_PPPOE),
    refused("pppoe-mac", Takes::Text, NO_PPPOE),
    refused("pppoe-host-uniq", Takes::Text, NO_PPPOE),
    harmless("pppoe-verbose", COUNT, NO_PPPOE),
    harmless("pppoe-padi-timeout", COUNT, NO_PPPOE),
    harmless("pppoe-padi-attempts", COUNT, NO_PPPOE),
    harmless("loglevel", COUNT, "the log's detail is set by debug"),
];

/// A word that can be the name or the address of a host.
fn host(word: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if word.is_empty() || word.len() > 253 || word.starts_with('-') || !word.chars().all(fits) {
        let shown: String = word.chars().filter(|c| !c.is_control()).take(40).collect();
        return Err(format!("'{shown}' is not a host name or an IPv4 address"));
    }
    Ok(word.to_owned())
}

/// Takes server and options over from `pptp SERVER --nolaunchpppd ...` instead of running it.
fn take_over_pptp(options: &mut PppdOptions, value: &super::Value<'_>) -> Result<(), String> {
    let mut words = Vec::new();
    let mut rest = Words::new("pty", value.octets);
    while let Some(word) = rest.next_word().map_err(|error| error.to_string())? {
        words.push(word.to_text());
    }
    let mut words = words.into_iter();
    let program = words.next().unwrap_or_default();
    if program.rsplit('/').next() != Some("pptp") {
        return Err(
            "pty may only run `pptp SERVER --nolaunchpppd`: that program is built in, \
             and no other is run"
                .to_owned(),
        );
    }
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some(option) => {
                let given = pptp_option(options, option, &mut words)?;
                options.pptp.given.push(given);
            }
            None if word.starts_with('-') => {
                return Err(format!("pty: pptp has no option '{word}'"));
            }
            None => options.server = Some(host(&word)?),
        }
    }
    Ok(())
}

/// pptp's options without a value, and why they change nothing; none for those that do.
const PPTP_FLAGS: [(&str, Option<&str>); 6] = [
    ("nolaunchpppd", Some("no pppd is started")),
    (
        "sync",
        Some("GRE carries whole packets, as synchronous lines do"),
    ),
    ("debug", Some("`pptp-fast up -f` stays in the foreground")),
    (
        "version",
        Some("it is for the command line: `pptp-fast --version`"),
    ),
    ("nobuffer", None),
    ("nohostroute", None),
];

/// One long option of pptp(8), `--name value` or `--name=value`.
fn pptp_option(
    options: &mut PppdOptions,
    option: &str,
    rest: &mut dyn Iterator<Item = String>,
) -> Result<PptpWord, String> {
    let (name, joined) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (option, None),
    };
    let flag = PPTP_FLAGS.iter().find(|(flag, _)| *flag == name);
    let (value, harmless) = match flag {
        Some((_, harmless)) => {
            match name {
                "nobuffer" => options.pptp.reorder = false,
                "nohostroute" => options.pptp.host_route = false,
                _ => {}
            }
            (String::new(), *harmless)
        }
        None => {
            let value = joined
                .or_else(|| rest.next())
                .ok_or_else(|| format!("pty: pptp's --{name} needs a value"))?;
            let harmless = pptp_value(&mut options.pptp, name, &value)?;
            (value, harmless)
        }
    };
    Ok(PptpWord {
        name: format!("--{name}"),
        value: value.chars().filter(|c| !c.is_control()).take(64).collect(),
        harmless,
    })
}

/// An option with a value; gives the reason when it changes nothing.
fn pptp_value(
    pptp: &mut PptpOptions,
    name: &str,
    value: &str,
) -> Result<Option<&'static str>, String> {
    let bad = || {
        let shown: String = value.chars().take(40).collect();
        format!("pty: '{shown}' is not a value for pptp's --{name}")
    };
    let number = || value.parse::<u32>().map_err(|_| bad());
    match name {
        "phone" => pptp.phone = value.chars().take(64).collect(),
        "localbind" => pptp.local_bind = Some(value.parse::<Ipv4Addr>().map_err(|_| bad())?),
        "rtmark" => pptp.mark = Some(number()?),
        "timeout" => pptp.reorder_timeout_ms = seconds_to_ms(value, 10.0).ok_or_else(bad)?,
        "idle-wait" => pptp.idle_wait_ms = u64::from(number()?) * 1000,
        "max-echo-wait" => pptp.max_echo_wait_ms = u64::from(number()?) * 1000,
        "missing-window" => pptp.missing_window = Some(number()?),
        "client-hostname" => pptp.host_name = Some(value.chars().take(64).collect()),
        "logstring" => pptp.log_name = Some(value.chars().take(64).collect()),
        "loglevel" => {
            number()?;
            return Ok(Some("the log's detail is set by debug"));
        }
        "test-rate" => {
            number()?;
            return Ok(Some("it does nothing without --test-type"));
        }
        "test-type" if value == "0" => return Ok(Some("packets are sent in their order")),
        "quirks" if value == "BEZEQ_ISRAEL" => {
            return Ok(Some(
                "calls that such modems answer oddly are taken as they are",
            ));
        }
        "quirks" | "test-type" => return Err(bad()),
        _ => return Err(format!("pty: pptp has no option '--{name}'")),
    }
    Ok(None)
}

/// Decimal seconds with a fraction, more than zero and at most `max_s`.
fn seconds_to_ms(text: &str, max_s: f64) -> Option<u32> {
    let seconds: f64 = text.parse().ok()?;
    if !(seconds > 0.0 && seconds <= max_s) {
        return None;
    }
    // At most 10,000 by the check above.
    Some((seconds * 1000.0).round() as u32)
}
