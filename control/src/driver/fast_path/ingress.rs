//! Keeps from the IP stack what the packet rings have taken: a rule of nftables at the ingress of
//! the interface (Linux `include/uapi/linux/netfilter/nf_tables.h`; netlink framing in
//! `nfnetlink.h`).
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
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

/// What the name of the table begins with; the netlink port of its owner follows.
const TABLE_PREFIX: &str = "pptp-fast-";
/// Name of the set.
const CALLS: &[u8] = b"calls\0";
/// Elements that the set may have: as many as there are call IDs.
const CALLS_MAX: u32 = 1 << 16;

const FAMILY_UNSPECIFIED: u8 = 0;
/// `NFPROTO_NETDEV`.
const FAMILY_NETDEV: u8 = 5;

const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;

/// `NFT_TABLE_F_OWNER` (Linux 5.12).
const TABLE_OWNED: u32 = 2;
/// `NFT_REG32_00` and the one behind it.
const REGISTER: u32 = 8;
const NEXT_REGISTER: u32 = 9;
/// `NFT_PAYLOAD_LL_HEADER` and `NFT_PAYLOAD_NETWORK_HEADER`.
const LINK_HEADER: u32 = 0;
const IP_HEADER: u32 = 1;
/// Where GRE begins behind a header without options.
const GRE: u32 = 20;
/// `NFT_CMP_EQ`.
const EQUAL: u32 = 0;
/// `NFT_META_PKTTYPE`.
const PACKET_TYPE: u32 = 19;
/// `PACKET_HOST`.
const TO_THIS_HOST: u8 = 0;
/// `NF_DROP`.
const DROP: u32 = 0;

/// A session as the rule tells it: who sends, and the call ID that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) peer: Ipv4Addr,
    pub(super) call_id: CallId,
}

/// The table, as long as this lives.
pub(super) struct IngressDrop {
    socket: Socket,
    table: Vec<u8>,
    sequence: u32,
}

impl IngressDrop {
    /// Makes the table, in the network namespace of the calling thread: with a rule for each of
    /// `places`, which come with the names of their interfaces.
    ///
    /// # Errors
    /// In the kernel's words; nothing is left behind then.
    pub(super) fn open(places: &[(Place, String)], calls: &[Call]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let port = socket.bind_auto()?.port_number();
        socket.set_non_blocking(true)?;
        let mut this = Self {
            socket,
            table: format!("{TABLE_PREFIX}{port}\0").into_bytes(),
            sequence: 0,
        };
        let batch = this.creation(places);
        this.commit(batch)?;
        // A message has an end; each call takes 24 octets of it.
        for some in calls.chunks(1024) {
            let elements = this.elements(some);
            this.commit(vec![(NEW_ELEMENT, NLM_F_CREATE, elements)])?;
        }
        Ok(this)
    }

    /// Keeps the packets of this session from the IP stack too.
    pub(super) fn add(&mut self, call: Call) -> io::Result<()> {
        let element = self.elements(&[call]);
        self.commit(vec![(NEW_ELEMENT, NLM_F_CREATE, element)])
    }

    /// Lets the packets of this session go to the IP stack.
    pub(super) fn remove(&mut self, call: Call) -> io::Result<()> {
        let element = self.elements(&[call]);
        self.commit(vec![(DELETE_ELEMENT, 0, element)])
    }

    fn creation(&self, places: &[(Place, String)]) -> Vec<(u16, u16, Vec<u8>)> {
        let table = [text(1, &self.table), number(2, TABLE_OWNED)].concat();
        let mut batch = vec![(NEW_TABLE, NLM_F_CREATE, table)];
        batch.push((NEW_SET, NLM_F_CREATE, self.set()));
        let mut interfaces: Vec<(u32, &str)> = Vec::new();
        for (place, name) in places {
            if !interfaces
                .iter()
                .any(|(index, _)| *index == place.interface)
            {
                interfaces.push((place.interface, name));
                let chain = self.chain(place.interface, name);
                batch.push((NEW_CHAIN, NLM_F_CREATE, chain));
            }
            batch.push((NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, self.rule(*place)));
        }
        batch
    }

    /// Keys of 8 octets: source address, then call ID in a register of its own.
    fn set(&self) -> Vec<u8> {
        // The type is for people: `typeof ip saddr . integer` to `nft`.
        const KEY_TYPE: u32 = 7 << 6 | 4;
        [
            text(1, &self.table),
            text(2, CALLS),
            number(3, 0),
            number(4, KEY_TYPE),
            number(5, 8),
            number(10, 1),
            nested(9, &number(1, CALLS_MAX)),
        ]
        .concat()
    }

    fn elements(&self, calls: &[Call]) -> Vec<u8> {
        let element = |call: &Call| {
            let mut key = call.peer.octets().to_vec();
            key.extend(call.call_id.0.to_be_bytes());
            key.extend([0, 0]);
            nested(1, &nested(1, &text(1, &key)))
        };
        let list: Vec<u8> = calls.iter().flat_map(element).collect();
        [text(1, &self.table), text(2, CALLS), nested(3, &list)].concat()
    }

    fn chain(&self, interface: u32, name: &str) -> Vec<u8> {
        let device = [name.as_bytes(), &[0]].concat();
        // Hook 0 is ingress.
        let hook = [number(1, 0), number(2, 0), text(3, &device)].concat();
        [
            text(1, &self.table),
            text(3, &chain_name(interface)),
            nested(4, &hook),
            text(7, b"filter\0"),
        ]
        .concat()
    }

    fn rule(&self, place: Place) -> Vec<u8> {
        let expressions = [
            // An octet that a tag would have moved.
            load(LINK_HEADER, 12, 2, REGISTER),
            compare(&[0x08, 0x00]),
            expression(b"meta\0", &[number(1, REGISTER), number(2, PACKET_TYPE)]),
            compare(&[TO_THIS_HOST]),
            load(IP_HEADER, 0, 1, REGISTER),
            compare(&[0x45]),
            // Flags and fragment offset, time to live, protocol: neither More Fragments nor an
            // offset, and GRE.
            load(IP_HEADER, 6, 4, REGISTER),
            mask(&[0x3F, 0xFF, 0x00, 0xFF]),
            compare(&[0, 0, 0, 47]),
            load(IP_HEADER, GRE, 4, REGISTER),
            mask(&[0x20, 0x07, 0xFF, 0xFF]),
            compare(&[0x20, 0x01, 0x88, 0x0B]),
            load(IP_HEADER, 16, 4, REGISTER),
            compare(&place.address.octets()),
            load(IP_HEADER, 12, 4, REGISTER),
            load(IP_HEADER, GRE + 6, 2, NEXT_REGISTER),
            expression(b"lookup\0", &[text(1, CALLS), number(2, REGISTER)]),
            drop_packet(),
        ]
        .concat();
        [
            text(1, &self.table),
            text(2, &chain_name(place.interface)),
            nested(4, &expressions),
        ]
        .concat()
    }

    /// Does all of it or nothing.
    fn commit(&mut self, batch: Vec<(u16, u16, Vec<u8>)>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let first = self.sequence;
        let mut octets = message(BATCH_BEGIN, 0, SUBSYSTEM, FAMILY_UNSPECIFIED, first, &[]);
        for (kind, flags, payload) in batch {
            self.sequence = self.sequence.wrapping_add(1);
            let flags = flags | NLM_F_ACK;
            octets.extend(message(
                kind,
                flags,
                0,
                FAMILY_NETDEV,
                self.sequence,
                &payload,
            ));
        }
        let last = self.sequence;
        octets.extend(message(
            BATCH_END,
            0,
            SUBSYSTEM,
            FAMILY_UNSPECIFIED,
            last,
            &[],
        ));
        self.socket.send_to(&octets, &SocketAddr::new(0, 0), 0)?;
        // Netlink has answered within the call: each message, in order, the last at the end.
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let (kind, sequence, code) = answer_of(&answer)?;
            if kind != NLMSG_ERROR || sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                continue;
            }
            if code != 0 {
                while self.socket.recv_from_full().is_ok() {}
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            if sequence == last {
                return Ok(());
            }
        }
    }
}

/// Whether a table that the kernel lists is one that [`IngressDrop`] made, in this process or in
/// another: it touches no packets but those of its own sessions. `entry` is the message without
/// its netlink header.
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
    family == FAMILY_NETDEV && name == format!("{TABLE_PREFIX}{owner}").as_bytes()
}

fn answer_of(datagram: &[u8]) -> io::Result<(u16, u32, i32)> {
    let field = |at: usize| datagram.get(at..)?.first_chunk::<4>().copied();
    let fields = field(4).zip(field(8)).zip(field(16));
    let ((kind, sequence), code) =
        fields.ok_or_else(|| io::Error::other("the kernel's answer is cut short"))?;
    let kind = u16::from_ne_bytes([kind[0], kind[1]]);
    Ok((kind, u32::from_ne_bytes(sequence), i32::from_ne_bytes(code)))
}

fn chain_name(interface: u32) -> Vec<u8> {
    format!("{interface}\0").into_bytes()
}

/// Netlink header, `nfgenmsg`, attributes.
fn message(
    kind: u16,
    flags: u16,
    resource: u16,
    family: u8,
    sequence: u32,
    attributes: &[u8],
) -> Vec<u8> {
    let len = 20 + attributes.len() as u32;
    let mut octets = len.to_ne_bytes().to_vec();
    octets.extend(kind.to_ne_bytes());
    octets.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    octets.extend(sequence.to_ne_bytes());
    octets.extend([0; 4]);
    octets.extend([family, 0]);
    octets.extend(resource.to_be_bytes());
    octets.extend(attributes);
    octets
}

/// An attribute: length, type, value, padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut octets = (4 + value.len() as u16).to_ne_bytes().to_vec();
    octets.extend(kind.to_ne_bytes());
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

fn text(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind, value)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

fn expression(name: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
    let parts = [text(1, name), nested(2, &data.concat())];
    nested(1, &parts.concat())
}

fn load(base: u32, offset: u32, len: u32, register: u32) -> Vec<u8> {
    let data = [
        number(1, register),
        number(2, base),
        number(3, offset),
        number(4, len),
    ];
    expression(b"payload\0", &data)
}

fn compare(value: &[u8]) -> Vec<u8> {
    let value = nested(3, &text(1, value));
    expression(b"cmp\0", &[number(1, REGISTER), number(2, EQUAL), value])
}

fn mask(mask: &[u8]) -> Vec<u8> {
    let nothing = vec![0; mask.len()];
    let data = [
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, mask.len() as u32),
        nested(4, &text(1, mask)),
        nested(5, &text(1, &nothing)),
    ];
    expression(b"bitwise\0", &data)
}

fn drop_packet() -> Vec<u8> {
    // Register 0 is the verdict.
    let verdict = nested(2, &nested(2, &number(1, DROP)));
    expression(b"immediate\0", &[number(1, 0), verdict])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a dump says of a table: `nfgenmsg`, name, flags, owner.
    fn entry(family: u8, name: &str, owner: Option<u32>) -> Vec<u8> {
        let name = [name.as_bytes(), &[0]].concat();
        let mut entry = vec![family, 0, 0, 0];
        entry.extend(text(1, &name));
        entry.extend(number(2, TABLE_OWNED));
        entry.extend(owner.map(|port| number(7, port)).unwrap_or_default());
        entry
    }

    #[test]
    fn only_a_table_named_after_the_owner_that_the_kernel_names_is_ours() {
        assert!(is_own_table(&entry(5, "pptp-fast-77", Some(77))));
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

    /// As `nft --debug=mnl` shows them: padded to four octets, lengths without the padding.
    #[test]
    fn attributes_are_laid_out_as_netlink_demands() {
        assert_eq!(text(1, b"cmp\0"), [8, 0, 1, 0, b'c', b'm', b'p', 0]);
        assert_eq!(text(1, &[47]), [5, 0, 1, 0, 47, 0, 0, 0]);
        assert_eq!(number(2, 8), [8, 0, 2, 0, 0, 0, 0, 8]);
        assert_eq!(nested(3, &number(1, 1))[..4], [12, 0, 3, 0x80]);
        let message = message(NEW_TABLE, NLM_F_ACK, 0, FAMILY_NETDEV, 9, &number(2, 2));
        assert_eq!(message[..8], [28, 0, 0, 0, 0, 10, 5, 0]);
        assert_eq!(message[8..20], [9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn a_refusal_is_read_from_the_kernels_answer() {
        let mut answer = vec![36, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        answer.extend((-nix::libc::EPERM).to_ne_bytes());
        assert_eq!(answer_of(&answer).unwrap(), (NLMSG_ERROR, 7, -1));
        assert!(answer_of(&answer[..18]).is_err());
    }
}
