//! Address lists as pptpd.conf writes them (pptpd.conf(5), `localip` and `remoteip`):
//! `192.168.0.1-254`, `192.168.0-255.2`, comma lists; and whole ranges `10.0.0.1-10.0.3.254`.

use std::net::Ipv4Addr;

use crate::proto::pool::{ADDRESSES_MAX, AddressRanges};

/// Addresses in the order in which they are written, so that the n-th of `localip` goes with the
/// n-th of `remoteip`.
///
/// # Errors
/// Words for a person: which part is not understood, or that there are too many addresses.
pub(crate) fn parse_list(spec: &str) -> Result<Vec<Ipv4Addr>, String> {
    let mut addresses = Vec::new();
    for part in spec
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        for (first, last) in parse_part(part)? {
            let count = u32::from(last) - u32::from(first);
            if addresses.len() + count as usize >= ADDRESSES_MAX as usize {
                return Err(format!("'{part}': more than {ADDRESSES_MAX} addresses"));
            }
            addresses.extend((u32::from(first)..=u32::from(last)).map(Ipv4Addr::from));
        }
    }
    if addresses.is_empty() {
        return Err(format!(
            "'{spec}' names no address; write for example 192.168.1.1-100"
        ));
    }
    Ok(addresses)
}

/// The same as a set.
///
/// # Errors
/// As [`parse_list`].
pub(super) fn parse_ranges<'a>(
    specs: impl IntoIterator<Item = &'a str>,
) -> Result<AddressRanges, String> {
    let mut ranges = Vec::new();
    for spec in specs {
        for part in spec
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            ranges.extend(parse_part(part)?);
        }
    }
    AddressRanges::new(ranges).map_err(|error| error.to_string())
}

/// Closed ranges of one part between commas: at most 256 of them.
fn parse_part(part: &str) -> Result<Vec<(Ipv4Addr, Ipv4Addr)>, String> {
    let bad = || format!("'{part}' is not an address or a range such as 192.168.0.1-254");
    if let Some((network, prefix)) = part.split_once('/') {
        return parse_prefix(network, prefix)
            .map(|range| vec![range])
            .ok_or_else(bad);
    }
    if let Some((first, last)) = part.split_once('-')
        && let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse::<Ipv4Addr>())
    {
        if last < first {
            return Err(format!("the range '{part}' ends before it starts"));
        }
        return Ok(vec![(first, last)]);
    }
    let octets = parse_octet_ranges(part).ok_or_else(bad)?;
    if let Some((first, last)) = octets.iter().find(|(first, last)| last < first) {
        return Err(format!(
            "the range {first}-{last} in '{part}' ends before it starts"
        ));
    }
    expand(octets).ok_or_else(|| format!("'{part}': only one number of the four can be a range"))
}

/// `10.0.0.0/24` without its network and broadcast addresses.
fn parse_prefix(network: &str, prefix: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let network = u32::from(network.trim().parse::<Ipv4Addr>().ok()?);
    let prefix: u32 = prefix.trim().parse().ok().filter(|prefix| *prefix <= 32)?;
    let host_bits = u32::MAX.checked_shr(prefix).unwrap_or(0);
    let (first, last) = (network & !host_bits, network | host_bits);
    let edge = u32::from(prefix < 31);
    Some(((first + edge).into(), (last - edge).into()))
}

fn parse_octet_ranges(part: &str) -> Option<[(u8, u8); 4]> {
    let mut octets = [(0, 0); 4];
    let mut parts = part.split('.');
    for octet in &mut octets {
        let text = parts.next()?;
        *octet = match text.split_once('-') {
            Some((first, last)) => (parse_octet(first)?, parse_octet(last)?),
            None => {
                let value = parse_octet(text)?;
                (value, value)
            }
        };
    }
    parts.next().is_none().then_some(octets)
}

fn parse_octet(text: &str) -> Option<u8> {
    let text = text.trim();
    (text.len() <= 3 && text.bytes().all(|c| c.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// At most one of the four is a range.
fn expand(octets: [(u8, u8); 4]) -> Option<Vec<(Ipv4Addr, Ipv4Addr)>> {
    if octets.iter().filter(|(first, last)| first != last).count() > 1 {
        return None;
    }
    let low = Ipv4Addr::from(octets.map(|(first, _)| first));
    let high = Ipv4Addr::from(octets.map(|(_, last)| last));
    if octets[3].0 != octets[3].1 {
        return Some(vec![(low, high)]);
    }
    let position = octets.iter().position(|(first, last)| first != last);
    let Some(position) = position else {
        return Some(vec![(low, low)]);
    };
    let (first, last) = octets[position];
    let each = (first..=last).map(|value| {
        let mut address = low.octets();
        address[position] = value;
        (Ipv4Addr::from(address), Ipv4Addr::from(address))
    });
    Some(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(spec: &str) -> Vec<String> {
        parse_list(spec)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_forms_of_pptpd_conf_are_understood() {
        assert_eq!(list("192.168.0.1"), ["192.168.0.1"]);
        assert_eq!(
            list("192.168.0.234-236"),
            ["192.168.0.234", "192.168.0.235", "192.168.0.236"]
        );
        assert_eq!(
            list("192.168.3-5.2"),
            ["192.168.3.2", "192.168.4.2", "192.168.5.2"]
        );
        assert_eq!(
            list("192.168.0.234-235,192.168.0.249, 192.168.1-2.254"),
            [
                "192.168.0.234",
                "192.168.0.235",
                "192.168.0.249",
                "192.168.1.254",
                "192.168.2.254"
            ]
        );
        assert_eq!(list("192.168.0.1-254").len(), 254);
        assert_eq!(list("192.168.0-255.2").len(), 256);
    }

    #[test]
    fn whole_ranges_and_prefixes_are_understood() {
        assert_eq!(list("10.0.0.254-10.0.1.1").len(), 4);
        assert_eq!(parse_ranges(["10.9.0.0/16"]).unwrap().count(), 65_534);
        assert_eq!(list("10.9.0.4/31"), ["10.9.0.4", "10.9.0.5"]);
        assert_eq!(list("10.9.0.4/32"), ["10.9.0.4"]);
    }

    #[test]
    fn order_is_kept_in_a_list() {
        assert_eq!(list("10.0.0.9,10.0.0.1"), ["10.0.0.9", "10.0.0.1"]);
    }

    #[test]
    fn what_is_no_address_is_named() {
        for (spec, part) in [
            ("192.168.0.1-", "192.168.0.1-"),
            ("10.0.0.1,10.0.0.256", "10.0.0.256"),
            ("10.0.0.9-3", "ends before"),
            ("10.0.1-2.1-2", "only one"),
            ("", "names no address"),
            ("10.0.0.0/33", "10.0.0.0/33"),
            ("0.0.0.0-255.255.255.255", "more than"),
            ("0.0.0.0/0", "more than"),
        ] {
            let error = parse_list(spec).unwrap_err();
            assert!(error.contains(part), "{spec}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends_in_a_list_or_an_error(spec in "[-0-9.,/ x]{0,40}") {
            if let Ok(addresses) = parse_list(&spec) {
                prop_assert!(addresses.len() <= ADDRESSES_MAX as usize);
            }
            let _ = parse_ranges([spec.as_str()]);
        }
    }
}
