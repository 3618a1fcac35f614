//! The how-to's tunnel: mia dials zidler, MS-CHAPv2, MPPE 128 stateless.

use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use super::{CLIENT_INNER, SERVER_INNER, SERVER_OUTER};
use crate::config::PPTP_PORT;
use crate::config::client::{ClientConfig, Flags};
use crate::config::secrets::{FileSecrets, SecretsTable};
use crate::config::server::{LocalAddresses, ServerConfig};
use crate::proto::auth::{AuthMethods, Secret};
use crate::proto::link::{Addresses, LcpConfig, LinkConfig, MppeConfig};
use crate::proto::pool::AddressRanges;

const CLIENT_NAME: &str = "mia";
pub(super) const SERVER_NAME: &str = "zidler";
const PASSWORD: &str = "mia123";
/// No file is read: everything is said here.
const NO_DIRECTORY: &str = "/nonexistent";

/// The options of the how-to's `options.pptp`, less those that concern files and logs.
pub(super) fn client() -> anyhow::Result<ClientConfig> {
    let options = ["noauth", "asyncmap", "0", "nopcomp", "noaccomp", "noipv6"];
    let flags = Flags {
        server: Some(SERVER_OUTER.to_string()),
        user: Some(CLIENT_NAME.to_owned()),
        password: Some(Secret::new(PASSWORD.into())),
        remote_name: Some(SERVER_NAME.to_owned()),
        require_mppe_128: true,
        options: options.map(str::to_owned).into(),
        ..Flags::default()
    };
    ClientConfig::from_flags(Path::new(NO_DIRECTORY), &flags, CLIENT_NAME)
        .context("the demonstration's client")
}

/// The how-to's server: one secret, one address to give.
pub(super) fn server() -> anyhow::Result<ServerConfig> {
    let secrets = format!("{CLIENT_NAME} {SERVER_NAME} {PASSWORD} *\n");
    let mut tables = FileSecrets::default();
    tables.chap = SecretsTable::parse("the demonstration's secrets", secrets.as_bytes())?;
    let secrets = Arc::new(tables);
    let link = LinkConfig {
        name: SERVER_NAME.to_owned(),
        remote_name: None,
        require: AuthMethods {
            mschap_v2: true,
            ..AuthMethods::NONE
        },
        allow: AuthMethods::NONE,
        eap_pass_through: false,
        secrets: Arc::clone(&secrets) as _,
        lcp: LcpConfig {
            pfc: false,
            acfc: false,
            ..LcpConfig::default()
        },
        mppe: Some(MppeConfig {
            require: true,
            allow_40: false,
            allow_56: false,
            allow_128: true,
            allow_stateful: false,
            prefer_stateful: false,
        }),
        addresses: Addresses::default(),
        ipv6: None,
    };
    let pool = AddressRanges::new([(CLIENT_INNER, CLIENT_INNER)])
        .context("the demonstration's addresses")?;
    let mut config = ServerConfig::new(link, secrets, LocalAddresses::Shared(SERVER_INNER), pool);
    config.listen = vec![SocketAddrV4::new(SERVER_OUTER, PPTP_PORT)];
    config.welcome = "Welcome to zidler.ece.uic.edu.".to_owned();
    Ok(config)
}
