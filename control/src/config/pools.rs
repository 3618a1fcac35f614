//! Which inner addresses a server gives: `[pool]` or several `[[pool]]`, and `[leases]`.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::proto::pool::AddressRanges;
use crate::proto::pools::{self, PoolSpec};

use super::address_spec::{parse_list, parse_ranges};
use super::error::ConfigError;
use super::server::LocalAddresses;

/// The name of a pool that needs none.
pub const MAIN: &str = "main";
/// How long addresses that were out rest after an unclean end: by then a client has noticed (two
/// times 60 seconds, RFC 2637 3.1.4) that its server is gone.
const REST_MS: u64 = 120_000;

/// One pool, and the server's end for its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// What it has.
    pub spec: PoolSpec,
    /// Our end; `None` has that of the first pool.
    pub local: Option<LocalAddresses>,
}

impl PoolConfig {
    /// The only pool of a server.
    #[must_use]
    pub fn only(ranges: AddressRanges) -> Self {
        Self {
            spec: PoolSpec {
                name: MAIN.to_owned(),
                ranges,
                next: None,
            },
            local: None,
        }
    }
}

/// How leases outlive the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasesConfig {
    /// Where they are kept; `None` keeps none.
    pub file: Option<PathBuf>,
    /// The file was asked for: without it the server does not start.
    pub is_required: bool,
    /// How long addresses that were out rest after an unclean end.
    pub rest_ms: u64,
}

impl Default for LeasesConfig {
    fn default() -> Self {
        Self {
            file: None,
            is_required: false,
            rest_ms: REST_MS,
        }
    }
}

impl LeasesConfig {
    /// Those of a server that is started from a file: kept where it can be done.
    #[must_use]
    pub fn in_state_dir() -> Self {
        Self {
            file: Some(state_dir().join("leases")),
            ..Self::default()
        }
    }
}

/// `PPTP_FAST_STATE_DIR`, or `/var/lib/pptp-fast`.
fn state_dir() -> PathBuf {
    let given = std::env::var_os("PPTP_FAST_STATE_DIR");
    given.map_or_else(|| "/var/lib/pptp-fast".into(), PathBuf::from)
}

/// `[leases]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LeasesSection {
    file: Option<PathBuf>,
    rest_s: Option<u32>,
}

impl LeasesSection {
    pub(super) fn config(self) -> LeasesConfig {
        let mut config = LeasesConfig::in_state_dir();
        config.is_required = self.file.is_some();
        match self.file {
            // Somebody who wants none.
            Some(none) if none.as_os_str().is_empty() => {
                config.file = None;
            }
            Some(file) => config.file = Some(file),
            None => {}
        }
        if let Some(rest_s) = self.rest_s {
            config.rest_ms = u64::from(rest_s) * 1000;
        }
        config
    }
}

/// `[pool]`, or `[[pool]]` once or more.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct PoolSection(#[serde(deserialize_with = "one_or_many")] Vec<PoolTable>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolTable {
    name: Option<String>,
    local: Option<Local>,
    /// `remote` is pptpd.conf's word.
    #[serde(alias = "remote")]
    ranges: Remote,
    next: Option<String>,
}

impl PoolSection {
    /// The server's end of the first pool, and all pools.
    pub(super) fn config(self) -> Result<(LocalAddresses, Vec<PoolConfig>), ConfigError> {
        let mut pools: Vec<PoolConfig> = self.0.into_iter().map(PoolTable::config).collect();
        let missing = || {
            let why = "the first pool needs `local`, the server's end of every tunnel, such as \
                       local = \"192.168.0.1\"";
            ConfigError::Conflict(why.to_owned())
        };
        let local = pools.first_mut().and_then(|pool| pool.local.take());
        let local = local.ok_or_else(missing)?;
        let specs: Vec<PoolSpec> = pools.iter().map(|pool| pool.spec.clone()).collect();
        pools::check(&specs).map_err(|error| ConfigError::Conflict(error.to_string()))?;
        Ok((local, pools))
    }
}

impl PoolTable {
    fn config(self) -> PoolConfig {
        PoolConfig {
            spec: PoolSpec {
                name: self.name.unwrap_or_else(|| MAIN.to_owned()),
                ranges: self.ranges.0,
                next: self.next,
            },
            local: self.local.map(|local| local.0),
        }
    }
}

/// A table, or an array of such. (Of an untagged enum, errors would not say what is wrong where.)
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table or an array of tables")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            Ok(vec![T::deserialize(MapAccessDeserializer::new(map))?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(seq))
        }
    }

    from.deserialize_any(OneOrMany(PhantomData))
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "neither a range in quotes, such as \"192.168.0.10-99\", nor a list of such"
)]
enum Specs {
    One(String),
    Many(Vec<String>),
}

impl Specs {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "Specs")]
struct Local(LocalAddresses);

impl TryFrom<Specs> for Local {
    type Error = String;

    fn try_from(specs: Specs) -> Result<Self, String> {
        let list = parse_list(&specs.as_slice().join(","))?;
        Ok(Self(match list.as_slice() {
            [one] => LocalAddresses::Shared(*one),
            _ => LocalAddresses::PerSession(list),
        }))
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "Specs")]
struct Remote(AddressRanges);

impl TryFrom<Specs> for Remote {
    type Error = String;

    fn try_from(specs: Specs) -> Result<Self, String> {
        parse_ranges(specs.as_slice().iter().map(String::as_str)).map(Self)
    }
}
