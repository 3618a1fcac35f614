//! Who proves what to whom (pppd's auth.c), and the plugins that people use for it.

use std::path::PathBuf;

use super::{COUNT, OptionSpec, Takes, flag, harmless, refused, value};

const NO_TLS: &str = "it belongs to EAP-TLS, which is not spoken here";
const NO_LOGIN: &str = "only secrets files are asked, not the system's own accounts";
const NO_AVPAIR: &str = "requests to RADIUS servers have a fixed set of attributes here";
const NAS_PORT: &str = "NAS-Port is the session's Call ID here";
const NO_PRIVILEGE: &str = "only who may open the tunnel's sockets can use options files at all";

pub(super) const ROWS: &[OptionSpec] = &[
    flag("auth", |o, _| o.auth = Some(true)),
    flag("noauth", |o, _| o.auth = Some(false)).in_group("auth"),
    flag("require-pap", |o, _| {
        o.require.pap = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("+pap", |o, _| {
        o.require.pap = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("require-chap", |o, _| {
        o.require.chap_md5 = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("+chap", |o, _| {
        o.require.chap_md5 = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("require-mschap", |o, _| {
        o.require.mschap_v1 = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("+mschap", |o, _| {
        o.require.mschap_v1 = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("+chapms", |o, _| {
        o.require.mschap_v1 = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("require-mschap-v2", |o, _| {
        o.require.mschap_v2 = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("+mschap-v2", |o, _| {
        o.require.mschap_v2 = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("+chapms-v2", |o, _| {
        o.require.mschap_v2 = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("require-eap", |o, _| {
        o.require.eap = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("+eap", |o, _| {
        o.require.eap = true;
        o.auth = Some(true);
    })
    .in_group("auth"),
    flag("refuse-pap", |o, _| o.refuse.pap = true),
    flag("-pap", |o, _| o.refuse.pap = true).in_group("refuse-pap"),
    flag("refuse-chap", |o, _| o.refuse.chap_md5 = true),
    flag("-chap", |o, _| o.refuse.chap_md5 = true).in_group("refuse-chap"),
    flag("refuse-mschap", |o, _| o.refuse.mschap_v1 = true),
    flag("-mschap", |o, _| o.refuse.mschap_v1 = true).in_group("refuse-mschap"),
    flag("-chapms", |o, _| o.refuse.mschap_v1 = true).in_group("refuse-mschap"),
    flag("refuse-mschap-v2", |o, _| o.refuse.mschap_v2 = true),
    flag("-mschap-v2", |o, _| o.refuse.mschap_v2 = true).in_group("refuse-mschap-v2"),
    flag("-chapms-v2", |o, _| o.refuse.mschap_v2 = true).in_group("refuse-mschap-v2"),
    flag("refuse-eap", |o, _| o.refuse.eap = true),
    flag("-eap", |o, _| o.refuse.eap = true).in_group("refuse-eap"),
    value("name", Takes::Text, |o, v| o.name = Some(v.text.to_owned())),
    value("user", Takes::Text, |o, v| o.user = Some(v.text.to_owned())),
    value("password", Takes::Secret, |o, v| {
        o.password = Some(crate::proto::auth::Secret::new(v.octets.to_vec()));
    }),
    refused(
        "+ua",
        Takes::Text,
        "write `user NAME` and `password SECRET`, or use pap-secrets",
    ),
    flag("usehostname", |o, _| o.use_host_name = true),
    value("remotename", Takes::Text, |o, v| {
        o.remote_name = Some(v.text.to_owned())
    }),
    value("pap-secrets", Takes::Text, |o, v| {
        o.pap_secrets = Some(PathBuf::from(v.text))
    }),
    value("chap-secrets", Takes::Text, |o, v| {
        o.chap_secrets = Some(PathBuf::from(v.text))
    }),
    refused("login", Takes::Nothing, NO_LOGIN),
    refused("enable-session", Takes::Nothing, NO_LOGIN),
    refused(
        "papcrypt",
        Takes::Nothing,
        "pap-secrets must hold plain passwords here",
    ),
    harmless("privgroup", Takes::Text, NO_PRIVILEGE),
    refused(
        "allow-ip",
        Takes::Text,
        "write the allowed addresses behind the user's secret",
    ),
    harmless(
        "remotenumber",
        Takes::Text,
        "a tunnel has no telephone number",
    ),
    refused(
        "allow-number",
        Takes::Text,
        "a tunnel has no telephone number to check",
    ),
    refused("ca", Takes::Text, NO_TLS),
    refused("capath", Takes::Text, NO_TLS),
    refused("crl", Takes::Text, NO_TLS),
    refused("crl-dir", Takes::Text, NO_TLS),
    refused("cert", Takes::Text, NO_TLS),
    refused("key", Takes::Text, NO_TLS),
    refused("pkcs12", Takes::Text, NO_TLS),
    harmless("max-tls-version", Takes::Text, NO_TLS),
    harmless("tls-verify-key-usage", Takes::Nothing, NO_TLS),
    harmless("tls-verify-method", Takes::Text, NO_TLS),
    refused("need-peer-eap", Takes::Nothing, NO_TLS),
    // Options of plugins, of which only radius.so is known.
    refused(
        "passwordfd",
        COUNT,
        "use --password-file, or a line in chap-secrets",
    ),
    refused(
        "promptprog",
        Takes::Text,
        "use --password-file, or a line in chap-secrets",
    ),
    value("radius-config-file", Takes::Text, |o, v| {
        o.radius_config_file = Some(PathBuf::from(v.text))
    }),
    refused("avpair", Takes::Text, NO_AVPAIR),
    harmless("map-to-ifname", Takes::Nothing, NAS_PORT),
    harmless("map-to-ttyname", Takes::Nothing, NAS_PORT),
    refused(
        "ntlm_auth-helper",
        Takes::Text,
        "winbind is not asked; use chap-secrets",
    ),
];
