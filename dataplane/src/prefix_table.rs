//! From inner destination address to Call ID for the networks behind clients, where many sessions
//! share a TUN device: the longest prefix wins.
//!
//! It is asked only about addresses that are no client's own, and most servers have few prefixes
//! or none: a map for each length that occurs is enough.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use crate::prefix::mask;
use crate::program::CallId;

#[derive(Debug, Default)]
pub(crate) struct PrefixTable {
    /// By bits of the network; who came last has a network that two sessions claim.
    by_len: BTreeMap<u8, HashMap<u32, Vec<CallId>>>,
}

impl PrefixTable {
    pub(crate) fn insert(&mut self, (network, prefix_len): (Ipv4Addr, u8), call_id: CallId) {
        let networks = self.by_len.entry(prefix_len).or_default();
        let key = network.to_bits() & mask(prefix_len);
        networks.entry(key).or_default().push(call_id);
    }

    pub(crate) fn remove(&mut self, (network, prefix_len): (Ipv4Addr, u8), call_id: CallId) {
        let Some(networks) = self.by_len.get_mut(&prefix_len) else {
            return;
        };
        let key = network.to_bits() & mask(prefix_len);
        if let Some(claims) = networks.get_mut(&key) {
            claims.retain(|other| *other != call_id);
            if claims.is_empty() {
                networks.remove(&key);
            }
        }
        if networks.is_empty() {
            self.by_len.remove(&prefix_len);
        }
    }

    pub(crate) fn get(&self, address: Ipv4Addr) -> Option<CallId> {
        self.by_len.iter().rev().find_map(|(prefix_len, networks)| {
            let key = address.to_bits() & mask(*prefix_len);
            networks.get(&key)?.last().copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: CallId = CallId(1);
    const B: CallId = CallId(2);

    fn network(text: &str) -> (Ipv4Addr, u8) {
        let (address, prefix_len) = text.split_once('/').unwrap();
        (address.parse().unwrap(), prefix_len.parse().unwrap())
    }

    #[test]
    fn the_longest_prefix_wins_and_the_last_comer_among_equals() {
        let mut table = PrefixTable::default();
        let find = |table: &PrefixTable, text: &str| table.get(text.parse().unwrap());
        table.insert(network("10.0.0.0/8"), A);
        table.insert(network("10.1.0.0/16"), B);
        assert_eq!(find(&table, "10.1.2.3"), Some(B));
        assert_eq!(find(&table, "10.2.2.3"), Some(A));
        assert_eq!(find(&table, "11.0.0.1"), None);
        table.insert(network("10.1.0.0/16"), A);
        assert_eq!(find(&table, "10.1.2.3"), Some(A));
        table.remove(network("10.1.0.0/16"), A);
        assert_eq!(find(&table, "10.1.2.3"), Some(B));
        table.remove(network("10.1.0.0/16"), B);
        table.remove(network("10.0.0.0/8"), A);
        assert!(table.by_len.is_empty());
        table.insert(network("0.0.0.0/0"), A);
        assert_eq!(find(&table, "203.0.113.1"), Some(A));
    }
}
