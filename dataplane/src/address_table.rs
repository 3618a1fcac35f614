//! From inner destination address to Call ID, for TUN devices that many sessions share.
//!
//! Open addressing with linear probing over a fixed array of twice the sessions, so that it is at
//! most half full; removal moves later entries back and leaves no tombstones.

use std::net::Ipv4Addr;

use crate::program::CallId;

#[derive(Debug)]
pub(crate) struct AddressTable {
    entries: Vec<Option<(u32, CallId)>>,
    len: usize,
    capacity: usize,
}

impl AddressTable {
    /// A table for `capacity` addresses.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: vec![None; (2 * capacity).next_power_of_two()],
            len: 0,
            capacity,
        }
    }

    pub(crate) fn get(&self, address: Ipv4Addr) -> Option<CallId> {
        let (_, call_id) = self.entries[self.find(address.to_bits())]?;
        Some(call_id)
    }

    /// Names the call of an address, in place of any other. False when the table is full.
    pub(crate) fn insert(&mut self, address: Ipv4Addr, call_id: CallId) -> bool {
        let address = address.to_bits();
        let index = self.find(address);
        if self.entries[index].is_none() {
            if self.len == self.capacity {
                return false;
            }
            self.len += 1;
        }
        self.entries[index] = Some((address, call_id));
        true
    }

    pub(crate) fn remove(&mut self, address: Ipv4Addr) {
        let mut hole = self.find(address.to_bits());
        if self.entries[hole].take().is_none() {
            return;
        }
        self.len -= 1;
        let mask = self.entries.len() - 1;
        let mut index = (hole + 1) & mask;
        while let Some((address, _)) = self.entries[index] {
            // An entry may fill the hole unless its own place lies between hole and entry.
            let probes = index.wrapping_sub(self.home(address)) & mask;
            if probes >= index.wrapping_sub(hole) & mask {
                self.entries.swap(hole, index);
                hole = index;
            }
            index = (index + 1) & mask;
        }
    }

    /// Where the address is, or would be put.
    fn find(&self, address: u32) -> usize {
        let mask = self.entries.len() - 1;
        let mut index = self.home(address);
        while let Some((other, _)) = self.entries[index]
            && other != address
        {
            index = (index + 1) & mask;
        }
        index
    }

    /// Multiplicative hashing: pools hand out neighbouring addresses.
    const fn home(&self, address: u32) -> usize {
        let bits = self.entries.len().trailing_zeros();
        (address.wrapping_mul(0x9E37_79B1) as u64 >> (32 - bits)) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_table_says_so() {
        let mut table = AddressTable::new(3);
        for n in 0..3 {
            assert!(table.insert(Ipv4Addr::from_bits(n), CallId(n as u16)));
        }
        assert!(!table.insert(Ipv4Addr::from_bits(3), CallId(3)));
        assert!(table.insert(Ipv4Addr::from_bits(2), CallId(9)), "replaced");
        assert_eq!(table.get(Ipv4Addr::from_bits(2)), Some(CallId(9)));
        assert_eq!(table.get(Ipv4Addr::from_bits(3)), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map(
            steps in proptest::collection::vec((0..40_u32, any::<Option<u16>>()), 0..300),
        ) {
            let mut table = AddressTable::new(32);
            let mut map = HashMap::new();
            for (address, call_id) in steps {
                let address = Ipv4Addr::from_bits(address.wrapping_mul(0x0400_0001));
                match call_id.map(CallId) {
                    Some(call_id) => {
                        if table.insert(address, call_id) {
                            map.insert(address, call_id);
                        }
                    }
                    None => {
                        table.remove(address);
                        map.remove(&address);
                    }
                }
                for n in 0..40_u32 {
                    let address = Ipv4Addr::from_bits(n.wrapping_mul(0x0400_0001));
                    prop_assert_eq!(table.get(address), map.get(&address).copied());
                }
            }
        }
    }
}
