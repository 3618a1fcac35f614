//! Keeps from the IP stack what the packet rings have taken: a rule of nftables at the ingress of
//! the interface.
//!
//! ```text
//! table netdev pptp-fast-PORT {            flags owner: it goes when our socket closes
//!     set calls { saddr . call ID }        the sessions, so that nobody else's GRE is touched
//!     chain INDEX {                        one for each interface
//!         type filter hook ingress device NAME priority 0; policy accept;
//!         untagged IPv4 without options, to this host, not a fragment, enhanced GRE,
//!         daddr ADDRESS, saddr . call ID in @calls: drop
//!     }
//! }
//! ```
//!
//! Packet sockets of all protocols are served before this hook, so the ring has had the packet. The
//! conditions are those of the ring's filter (`dataplane::sys::packet_ring`), and one more: it must
//! belong to a session.

use std::io;
use std::net::Ipv4Addr;

use dataplane::program::CallId;
use dataplane::sys::packet_ring::Place;
use rtnetlink::sys::Socket;

use crate::driver::nftables::message::{
    self, APPEND, Attributes, Batch, CREATE, DELETE_ELEMENT, DROP, Family, LINK_HEADER,
    NETWORK_HEADER, NEW_CHAIN, NEW_ELEMENT, NEW_RULE, NEW_SET, NEW_TABLE, NEXT_REGISTER,
    OWNED_TABLE_PREFIX, REGISTER, TABLE_OWNED,
};

/// Name of the set.
const CALLS: &str = "calls";
/// Elements that the set may have: as many as there are call IDs.
const CALLS_MAX: u32 = 1 << 16;
/// Elements in a message, which has an end: each takes 24 octets of it.
const CALLS_A_MESSAGE: usize = 1024;
/// Where GRE begins behind a header without options.
const GRE: u32 = 20;
/// `NFT_META_PKTTYPE`.
const PACKET_TYPE: u32 = 19;
/// `PACKET_HOST`.
const TO_THIS_HOST: u8 = 0;

/// A session as the rule tells it: who sends, and the call ID that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) peer: Ipv4Addr,
    pub(super) call_id: CallId,
}

/// The table, as long as this lives.
pub(super) struct IngressDrop {
    socket: Socket,
    table: String,
    sequence: u32,
}

impl IngressDrop {
    /// Makes the table, in the network namespace of the calling thread: with a rule for each of
    /// `places`, which come with the names of their interfaces.
    ///
    /// # Errors
    /// In the kernel's words; nothing is left behind then.
    pub(super) fn open(places: &[(Place, String)], calls: &[Call]) -> io::Result<Self> {
        let (socket, port) = message::open()?;
        let mut this = Self {
            socket,
            table: format!("{OWNED_TABLE_PREFIX}{port}"),
            sequence: 0,
        };
        this.commit(|table, batch| create(table, places, batch))?;
        for some in calls.chunks(CALLS_A_MESSAGE) {
            this.change(NEW_ELEMENT, CREATE, some)?;
        }
        Ok(this)
    }

    /// Keeps the packets of this session from the IP stack too.
    pub(super) fn add(&mut self, call: Call) -> io::Result<()> {
        self.change(NEW_ELEMENT, CREATE, &[call])
    }

    /// Lets the packets of this session go to the IP stack.
    pub(super) fn remove(&mut self, call: Call) -> io::Result<()> {
        self.change(DELETE_ELEMENT, 0, &[call])
    }

    fn change(&mut self, kind: u16, flags: u16, calls: &[Call]) -> io::Result<()> {
        self.commit(|table, batch| {
            batch.message(kind, flags, |out| put_elements(out, table, calls));
        })
    }

    /// Does all of it or nothing.
    fn commit(&mut self, fill: impl FnOnce(&str, &mut Batch)) -> io::Result<()> {
        let mut batch = Batch::new(Family::Netdev, self.sequence);
        fill(&self.table, &mut batch);
        self.sequence = batch.last();
        batch.commit(&self.socket)
    }
}

fn create(table: &str, places: &[(Place, String)], batch: &mut Batch) {
    batch.message(NEW_TABLE, CREATE, |out| {
        out.text(1, table);
        out.number(2, TABLE_OWNED);
    });
    batch.message(NEW_SET, CREATE, |out| put_set(out, table));
    let mut interfaces: Vec<u32> = Vec::new();
    for (place, name) in places {
        if !interfaces.contains(&place.interface) {
            interfaces.push(place.interface);
            batch.message(NEW_CHAIN, CREATE, |out| {
                put_chain(out, table, place.interface, name);
            });
        }
        batch.message(NEW_RULE, CREATE | APPEND, |out| {
            put_rule(out, table, *place);
        });
    }
}

/// Keys of 8 octets: source address, then call ID in a register of its own.
fn put_set(out: &mut Attributes, table: &str) {
    // The type is for people: `typeof ip saddr . integer` to `nft`.
    const KEY_TYPE: u32 = 7 << 6 | 4;
    out.text(1, table);
    out.text(2, CALLS);
    out.number(3, 0);
    out.number(4, KEY_TYPE);
    out.number(5, 8);
    out.number(10, 1);
    out.nest(9, |out| out.number(1, CALLS_MAX));
}

fn put_elements(out: &mut Attributes, table: &str, calls: &[Call]) {
    out.text(1, table);
    out.text(2, CALLS);
    out.nest(3, |out| {
        for call in calls {
            let mut key = [0; 8];
            key[..4].copy_from_slice(&call.peer.octets());
            key[4..6].copy_from_slice(&call.call_id.0.to_be_bytes());
            out.nest(1, |out| out.nest(1, |out| out.value(1, &key)));
        }
    });
}

fn put_chain(out: &mut Attributes, table: &str, interface: u32, name: &str) {
    out.text(1, table);
    out.text(3, &interface.to_string());
    out.nest(4, |out| {
        // Hook 0 is ingress.
        out.number(1, 0);
        out.number(2, 0);
        out.text(3, name);
    });
    out.text(7, "filter");
}

fn put_rule(out: &mut Attributes, table: &str, place: Place) {
    out.text(1, table);
    out.text(2, &place.interface.to_string());
    out.nest(4, |out| {
        // An octet that a tag would have moved.
        out.load(LINK_HEADER, 12, 2, REGISTER);
        out.compare(&[0x08, 0x00]);
        out.load_meta(PACKET_TYPE);
        out.compare(&[TO_THIS_HOST]);
        out.load(NETWORK_HEADER, 0, 1, REGISTER);
        out.compare(&[0x45]);
        // Flags and fragment offset, time to live, protocol: neither More Fragments nor an offset,
        // and GRE.
        out.load(NETWORK_HEADER, 6, 4, REGISTER);
        out.mask(&[0x3F, 0xFF, 0x00, 0xFF]);
        out.compare(&[0, 0, 0, 47]);
        out.load(NETWORK_HEADER, GRE, 4, REGISTER);
        out.mask(&[0x20, 0x07, 0xFF, 0xFF]);
        out.compare(&[0x20, 0x01, 0x88, 0x0B]);
        out.load(NETWORK_HEADER, 16, 4, REGISTER);
        out.compare(&place.address.octets());
        out.load(NETWORK_HEADER, 12, 4, REGISTER);
        out.load(NETWORK_HEADER, GRE + 6, 2, NEXT_REGISTER);
        out.look_up(CALLS, true);
        out.verdict(DROP);
    });
}

/// Whether a table that the kernel lists is one that this program made, here or in another process:
/// [`IngressDrop`], or the rules of a server for what is inside tunnels. Such a table touches no
/// packets but those of its own sessions. `entry` is the message without its netlink header.
pub(super) fn is_own_table(entry: &[u8]) -> bool {
    let (Some(&family), Some(attributes)) = (entry.first(), entry.get(4..)) else {
        return false;
    };
    let (mut name, mut owner) = (None, None);
    let mut rest = attributes;
    while let Some(&[len, len_high, kind, kind_high]) = rest.first_chunk() {
        let len = usize::from(u16::from_ne_bytes([len, len_high]));
        let Some(value) = rest.get(4..len) else { break };
        match u16::from_ne_bytes([kind, kind_high]) {
            1 => name = value.strip_suffix(&[0]),
            7 => owner = value.first_chunk().map(|port| u32::from_be_bytes(*port)),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    let (Some(name), Some(owner)) = (name, owner) else {
        return false;
    };
    let families = [Family::Netdev, Family::Inet].map(Family::number);
    families.contains(&family) && name == format!("{OWNED_TABLE_PREFIX}{owner}").as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a dump says of a table: `nfgenmsg`, name, flags, owner.
    fn entry(family: u8, name: &str, owner: Option<u32>) -> Vec<u8> {
        let mut attributes = Attributes::default();
        attributes.text(1, name);
        attributes.number(2, TABLE_OWNED);
        if let Some(port) = owner {
            attributes.number(7, port);
        }
        [&[family, 0, 0, 0], attributes.octets()].concat()
    }

    #[test]
    fn only_a_table_named_after_the_owner_that_the_kernel_names_is_ours() {
        assert!(is_own_table(&entry(5, "pptp-fast-77", Some(77))));
        assert!(is_own_table(&entry(1, "pptp-fast-77", Some(77))));
        for other in [
            entry(5, "pptp-fast-77", Some(78)),
            entry(5, "pptp-fast-77", None),
            entry(2, "pptp-fast-77", Some(77)),
            entry(5, "filter", Some(77)),
            entry(5, "pptp-fast-", Some(0)),
            vec![5, 0, 0, 0],
            vec![5],
            vec![],
        ] {
            assert!(!is_own_table(&other), "{other:?}");
        }
        let whole = entry(5, "pptp-fast-77", Some(77));
        for cut in 0..whole.len() {
            assert!(!is_own_table(&whole[..cut]), "{cut} octets");
        }
    }
}
