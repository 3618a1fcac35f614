//! Sources of connections: which may come, and which count as one.

use std::net::Ipv4Addr;

use dataplane::prefix::mask;

/// Some of all IPv4 addresses, made of prefixes; looked up in logarithmic time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceList {
    /// First and last of each range; sorted, and apart from each other.
    ranges: Vec<(u32, u32)>,
}

impl SourceList {
    /// The union of prefixes: an address of each, and its bits.
    #[must_use]
    pub fn new(prefixes: impl IntoIterator<Item = (Ipv4Addr, u8)>) -> Self {
        let range = |(address, len): (Ipv4Addr, u8)| {
            let mask = mask(len);
            let first = address.to_bits() & mask;
            (first, first | !mask)
        };
        let mut all: Vec<(u32, u32)> = prefixes.into_iter().map(range).collect();
        all.sort_unstable();
        let mut ranges: Vec<(u32, u32)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match ranges.last_mut() {
                Some((_, before)) if first <= before.saturating_add(1) => {
                    *before = (*before).max(last);
                }
                _ => ranges.push((first, last)),
            }
        }
        ranges.shrink_to_fit();
        Self { ranges }
    }

    /// Whether it has `address`.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let bits = address.to_bits();
        let behind = self.ranges.partition_point(|(first, _)| *first <= bits);
        let before = behind.checked_sub(1).and_then(|at| self.ranges.get(at));
        before.is_some_and(|(_, last)| bits <= *last)
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// Which sources may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Only these may; empty is everybody.
    pub allow: SourceList,
    /// These may not, whatever `allow` says.
    pub deny: SourceList,
}

impl Access {
    /// Whether `peer` may connect.
    #[must_use]
    pub fn admits(&self, peer: Ipv4Addr) -> bool {
        !self.deny.contains(peer) && (self.allow.is_empty() || self.allow.contains(peer))
    }
}

/// The address that stands for everybody in the prefix of `peer` with `prefix_len` bits.
pub(crate) const fn source_of(peer: Ipv4Addr, prefix_len: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(peer.to_bits() & mask(prefix_len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(prefixes: &[([u8; 4], u8)]) -> SourceList {
        SourceList::new(
            prefixes
                .iter()
                .map(|(octets, len)| ((*octets).into(), *len)),
        )
    }

    #[test]
    fn deny_wins_over_allow_and_no_list_admits_everybody() {
        let anybody = Access::default();
        assert!(anybody.admits(Ipv4Addr::BROADCAST) && anybody.admits(Ipv4Addr::UNSPECIFIED));
        let access = Access {
            allow: list(&[([10, 0, 0, 0], 8), ([192, 0, 2, 1], 32)]),
            deny: list(&[([10, 1, 0, 0], 16)]),
        };
        for (peer, admitted) in [
            ([10, 0, 255, 255], true),
            ([10, 1, 0, 0], false),
            ([10, 1, 255, 255], false),
            ([10, 2, 0, 0], true),
            ([11, 0, 0, 0], false),
            ([192, 0, 2, 1], true),
            ([192, 0, 2, 2], false),
        ] {
            assert_eq!(access.admits(peer.into()), admitted, "{peer:?}");
        }
        assert!(list(&[([1, 2, 3, 4], 0)]).contains(Ipv4Addr::BROADCAST));
    }

    #[test]
    fn a_source_is_its_prefix() {
        let peer = Ipv4Addr::new(203, 0, 113, 77);
        assert_eq!(source_of(peer, 32), peer);
        assert_eq!(source_of(peer, 24), Ipv4Addr::new(203, 0, 113, 0));
        assert_eq!(source_of(peer, 0), Ipv4Addr::UNSPECIFIED);
    }

    proptest! {
        #[test]
        fn a_list_has_what_one_of_its_prefixes_has(
            prefixes in proptest::collection::vec((any::<u32>(), 0_u8..=32), 0..12),
            nearby in any::<(prop::sample::Index, i8)>(), far in any::<u32>(),
        ) {
            let prefixes: Vec<_> =
                prefixes.iter().map(|(bits, len)| (Ipv4Addr::from_bits(*bits), *len)).collect();
            let list = SourceList::new(prefixes.iter().copied());
            let mut asked = vec![far, 0, u32::MAX];
            if !prefixes.is_empty() {
                let (address, len) = prefixes[nearby.0.index(prefixes.len())];
                let first = address.to_bits() & mask(len);
                asked.extend([first, first.wrapping_sub(1), (first | !mask(len)).wrapping_add(1)]);
                asked.push(first.wrapping_add_signed(i32::from(nearby.1)));
            }
            for bits in asked {
                let address = Ipv4Addr::from_bits(bits);
                let expected = prefixes
                    .iter()
                    .any(|(of, len)| source_of(*of, *len) == source_of(address, *len));
                prop_assert_eq!(list.contains(address), expected, "{}", address);
            }
        }
    }
}
