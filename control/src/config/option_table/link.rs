//! LCP, PAP, CHAP and EAP (pppd's lcp.c, upap.c, chap-new.c, chap_ms.c, eap.c).

use dataplane::limits::INFORMATION_BYTES_MAX;

use super::{COUNT, OptionSpec, Takes, Value, flag, harmless, refused, value};
use crate::config::pppd_options::PppdOptions;

/// From pppd's MINMRU to what the data plane holds; pppd's own MAXMRU is 16384.
const MRU: Takes = Takes::Number(128, INFORMATION_BYTES_MAX as i64);
const ONE_TIMER: &str = "one restart timer serves all protocols: lcp-restart";
const ONE_COUNTER: &str = "one counter serves all protocols: that of lcp";
const NO_SRP: &str = "it belongs to SRP-SHA1, which is not spoken here";
const ONE_LINK: &str = "a tunnel is one link; multilink is not done";
const NO_TEST: &str = "challenges are always random";

pub(super) const ROWS: &[OptionSpec] = &[
    flag("noaccomp", |o, _| o.acfc = false),
    flag("-ac", |o, _| o.acfc = false).in_group("noaccomp"),
    value("asyncmap", Takes::Hex, or_asyncmap),
    value("-as", Takes::Hex, or_asyncmap).in_group("asyncmap"),
    flag("default-asyncmap", |o, _| o.accm = None).in_group("asyncmap"),
    flag("-am", |o, _| o.accm = None).in_group("asyncmap"),
    flag("nomagic", |o, _| o.magic = false),
    flag("-mn", |o, _| o.magic = false).in_group("nomagic"),
    value("mru", MRU, |o, v| o.mru = Some(v.u16())),
    flag("default-mru", |o, _| o.mru = None).in_group("mru"),
    flag("-mru", |o, _| o.mru = None).in_group("mru"),
    value("mtu", MRU, |o, v| o.mtu = Some(v.u16())),
    flag("nopcomp", |o, _| o.pfc = false),
    flag("-pc", |o, _| o.pfc = false).in_group("nopcomp"),
    harmless(
        "passive",
        Takes::Nothing,
        "the call tells when the peer is there",
    ),
    harmless(
        "-p",
        Takes::Nothing,
        "the call tells when the peer is there",
    )
    .in_group("passive"),
    harmless(
        "silent",
        Takes::Nothing,
        "the call tells when the peer is there",
    ),
    value("lcp-echo-failure", COUNT, |o, v| {
        o.echo_failure = Some(v.u32())
    }),
    value("lcp-echo-interval", COUNT, |o, v| {
        o.echo_interval_s = Some(v.u32())
    }),
    flag("lcp-echo-adaptive", |o, _| o.echo_adaptive = true),
    harmless(
        "lcp-rtt-file",
        Takes::Text,
        "`pptp-fast status` shows the round trip",
    ),
    value("lcp-restart", Takes::Number(1, 3_600), |o, v| {
        o.restart_s = v.u32()
    }),
    value("lcp-max-terminate", COUNT, |o, v| o.max_terminate = v.u32()),
    value(
        "lcp-max-configure",
        Takes::Number(1, i32::MAX as i64),
        |o, v| {
            o.max_configure = v.u32();
        },
    ),
    value("lcp-max-failure", COUNT, |o, v| o.max_failure = v.u32()),
    harmless("receive-all", Takes::Nothing, "GRE carries all characters"),
    harmless("mrru", Takes::Number(0, 65_535), ONE_LINK),
    harmless("-mrru", Takes::Nothing, ONE_LINK).in_group("mrru"),
    harmless("nomrru", Takes::Nothing, ONE_LINK).in_group("mrru"),
    harmless("mpshortseq", Takes::Nothing, ONE_LINK),
    harmless("nompshortseq", Takes::Nothing, ONE_LINK).in_group("mpshortseq"),
    harmless("endpoint", Takes::Text, ONE_LINK),
    harmless("noendpoint", Takes::Nothing, ONE_LINK).in_group("endpoint"),
    flag("-all", |o, _| {
        (o.pfc, o.acfc, o.magic, o.accm, o.mru) = (false, false, false, None, None);
    }),
    flag("hide-password", |o, _| o.hide_password = true),
    harmless("show-password", Takes::Nothing, "passwords are never shown")
        .in_group("hide-password"),
    harmless("pap-restart", COUNT, ONE_TIMER),
    harmless("pap-max-authreq", COUNT, ONE_COUNTER),
    harmless(
        "pap-timeout",
        COUNT,
        "one time-out serves all methods: chap-timeout",
    ),
    harmless("chap-restart", COUNT, ONE_TIMER),
    harmless("chap-max-challenge", COUNT, ONE_COUNTER),
    value("chap-interval", COUNT, |o, v| o.chap_interval_s = v.u32()),
    value("chap-timeout", Takes::Number(1, 3_600), |o, v| {
        o.auth_timeout_s = v.u32()
    }),
    refused(
        "chapms-strip-domain",
        Takes::Nothing,
        "write DOMAIN\\\\user into chap-secrets",
    ),
    refused(
        "ms-lanman",
        Takes::Nothing,
        "LAN Manager hashes are never sent",
    ),
    refused("mschap-challenge", Takes::Text, NO_TEST),
    refused("mschap2-peer-challenge", Takes::Text, NO_TEST),
    refused(
        "callback",
        Takes::Text,
        "a tunnel cannot be called back; remove it",
    ),
    harmless("eap-restart", COUNT, ONE_TIMER),
    harmless("eap-max-sreq", COUNT, ONE_COUNTER),
    harmless(
        "eap-timeout",
        COUNT,
        "one time-out serves all methods: chap-timeout",
    ),
    harmless("eap-max-rreq", COUNT, "20 Requests are answered at most"),
    value("eap-interval", COUNT, |o, v| o.chap_interval_s = v.u32()),
    harmless("srp-interval", COUNT, NO_SRP),
    harmless("srp-pn-secret", Takes::Text, NO_SRP),
    harmless("srp-use-pseudonym", Takes::Nothing, NO_SRP),
];

/// pppd(8): the values of several asyncmap options are put together.
fn or_asyncmap(options: &mut PppdOptions, value: &Value<'_>) {
    options.accm = Some(options.accm.unwrap_or(0) | value.u32());
}
