//! `--sources`: how many outer addresses, or which.

use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::config::address_spec;

/// Where the clients are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// So many addresses of our own server's network.
    Count(u32),
    /// These, which this host has.
    List(Vec<Ipv4Addr>),
}

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Err("at least one is needed".to_owned()),
            Ok(count) => Ok(Self::Count(count)),
            Err(_) => address_spec::parse_list(text).map(Self::List),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_how_many_and_addresses_are_which() {
        assert_eq!("250".parse(), Ok(Sources::Count(250)));
        let list = ["10.0.0.5", "10.0.0.6", "10.0.1.7"].map(|it| it.parse().unwrap());
        assert_eq!(
            "10.0.0.5-6,10.0.1.7".parse(),
            Ok(Sources::List(list.into()))
        );
        for bad in ["0", "", "10.0.0", "everywhere"] {
            assert!(bad.parse::<Sources>().is_err(), "{bad}");
        }
    }
}
