//! Networks of IPv4, as an address and the count of bits that it shares with all others (RFC 4632
//! 3.1).

use std::net::Ipv4Addr;

/// The bits of a network with a prefix of `prefix_len` bits, highest first; what is longer than an
/// address is as long as one.
#[must_use]
pub const fn mask(prefix_len: u8) -> u32 {
    match prefix_len {
        0 => 0,
        1..=31 => u32::MAX << (32 - prefix_len),
        _ => u32::MAX,
    }
}

/// Whether `address` lies in a network; bits of the network beyond its prefix do not count.
#[must_use]
pub const fn covers((network, prefix_len): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    (network.to_bits() ^ address.to_bits()) & mask(prefix_len) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_covers_its_addresses() {
        let holds = |network: &str, prefix_len| {
            let network = (network.parse().unwrap(), prefix_len);
            covers(network, Ipv4Addr::new(10, 1, 2, 3))
        };
        assert!(holds("10.1.0.0", 16) && holds("0.0.0.0", 0));
        assert!(holds("10.1.2.3", 32) && !holds("10.1.2.2", 32));
        assert!(holds("10.1.255.255", 16) && !holds("10.1.2.2", 255));
    }
}
