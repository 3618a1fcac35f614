//! Messages to nf_tables (Linux `include/uapi/linux/netfilter/nf_tables.h`) in netlink's framing
//! (`linux/netlink.h`, `linux/netfilter/nfnetlink.h`): attributes in attributes, expressions of
//! rules, and batches that take effect as a whole or not at all.
//!
//! ```text
//! batch       BATCH_BEGIN  message...  BATCH_END
//! message     nlmsghdr (16)  nfgenmsg (4)  attribute...
//! attribute   length (2)  kind (2)  value, or attributes  padding to 4
//! ```
//!
//! Headers are in the order of this machine, nf_tables' numbers in that of the network.

use std::io;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

const NLMSG_ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
pub(crate) const NEW_TABLE: u16 = SUBSYSTEM << 8;
pub(crate) const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
pub(crate) const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
pub(crate) const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
pub(crate) const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
pub(crate) const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
pub(crate) const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;

const REQUEST: u16 = 0x001;
const ACK: u16 = 0x004;
/// Make it; that a table is there already is no error.
pub(crate) const CREATE: u16 = 0x400;
/// Behind the rules that are there.
pub(crate) const APPEND: u16 = 0x800;

/// `NLA_F_NESTED`: of an attribute that holds attributes.
const NESTED: u16 = 1 << 15;

/// `NFT_REG_1`, where expressions put what the next ones look at, and the 32 bits in it that follow
/// the first.
pub(crate) const REGISTER: u32 = 1;
pub(crate) const NEXT_REGISTER: u32 = 9;
const REGISTER_VERDICT: u32 = 0;
/// `NFT_PAYLOAD_LL_HEADER` and those above.
pub(crate) const LINK_HEADER: u32 = 0;
pub(crate) const NETWORK_HEADER: u32 = 1;
pub(crate) const TRANSPORT_HEADER: u32 = 2;
/// `NFT_CMP_EQ`.
const EQUAL: u32 = 0;

/// What the name of a table begins with that goes with the process that made it; the netlink port
/// of its owner follows.
pub(crate) const OWNED_TABLE_PREFIX: &str = "pptp-fast-";
/// `NFT_TABLE_F_OWNER` (Linux 5.12).
pub(crate) const TABLE_OWNED: u32 = 2;

/// `NF_DROP` and `NF_ACCEPT`.
pub(crate) const DROP: u32 = 0;
pub(crate) const ACCEPT: u32 = 1;

/// What a table is for (`linux/netfilter.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Both IPv4 and IPv6.
    Inet,
    /// Everything that one device receives.
    Netdev,
}

impl Family {
    /// `NFPROTO_INET`, `NFPROTO_NETDEV`.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Netdev => 5,
        }
    }
}

/// Attributes one behind the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    octets: Vec<u8>,
}

impl Attributes {
    /// As they go to the kernel.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(crate) fn value(&mut self, kind: u16, value: &[u8]) {
        self.add(kind, |out| out.octets.extend_from_slice(value));
    }

    /// Names end in an octet of zeros.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        self.add(kind, |out| {
            out.octets.extend_from_slice(text.as_bytes());
            out.octets.push(0);
        });
    }

    pub(crate) fn number(&mut self, kind: u16, number: u32) {
        self.value(kind, &number.to_be_bytes());
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.add(kind | NESTED, fill);
    }

    fn add(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.octets.len();
        self.octets.extend_from_slice(&0_u16.to_ne_bytes());
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let len = (self.octets.len() - start) as u16;
        self.octets[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        let padded = self.octets.len().next_multiple_of(4);
        self.octets.resize(padded, 0);
    }

    /// One of a rule's expressions, which work one after the other until one does not fit.
    pub(crate) fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.nest(1, |out| {
            out.text(1, name);
            out.nest(2, fill);
        });
    }

    /// Puts something that is known of a packet into the register.
    pub(crate) fn load_meta(&mut self, key: u32) {
        self.expression("meta", |out| {
            out.number(1, REGISTER);
            out.number(2, key);
        });
    }

    /// Puts octets of a packet into a register.
    pub(crate) fn load(&mut self, header: u32, offset: u32, len: u32, register: u32) {
        self.expression("payload", |out| {
            out.number(1, register);
            out.number(2, header);
            out.number(3, offset);
            out.number(4, len);
        });
    }

    /// Keeps of the register what is in `mask`.
    pub(crate) fn mask(&mut self, mask: &[u8]) {
        self.expression("bitwise", |out| {
            out.number(1, REGISTER);
            out.number(2, REGISTER);
            out.number(3, mask.len() as u32);
            out.nest(4, |out| out.value(1, mask));
            out.nest(5, |out| out.value(1, &vec![0; mask.len()]));
        });
    }

    /// Goes on when the register holds `value`.
    pub(crate) fn compare(&mut self, value: &[u8]) {
        self.expression("cmp", |out| {
            out.number(1, REGISTER);
            out.number(2, EQUAL);
            out.nest(3, |out| out.value(1, value));
        });
    }

    /// Goes on when the set of this name has what the register holds, or has not.
    pub(crate) fn look_up(&mut self, set: &str, is_in: bool) {
        // `NFT_LOOKUP_F_INV`.
        const INVERTED: u32 = 1;
        self.expression("lookup", |out| {
            out.text(1, set);
            out.number(2, REGISTER);
            if !is_in {
                out.number(5, INVERTED);
            }
        });
    }

    /// What becomes of the packet.
    pub(crate) fn verdict(&mut self, verdict: u32) {
        self.expression("immediate", |out| {
            out.number(1, REGISTER_VERDICT);
            out.nest(2, |out| out.nest(2, |out| out.number(1, verdict)));
        });
    }
}

/// Messages that take effect together.
pub(crate) struct Batch {
    out: Attributes,
    family: Family,
    first: u32,
    sequence: u32,
}

impl Batch {
    /// `sequence` is that of the message before on the same socket.
    pub(crate) fn new(family: Family, sequence: u32) -> Self {
        let first = sequence.wrapping_add(1);
        let mut batch = Self {
            out: Attributes::default(),
            family,
            first,
            sequence: first,
        };
        batch.bound(BATCH_BEGIN);
        batch
    }

    /// Adds a message that the kernel is to acknowledge.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes)) {
        self.sequence = self.sequence.wrapping_add(1);
        self.put(kind, ACK | flags, self.family.number(), 0, fill);
    }

    fn bound(&mut self, kind: u16) {
        self.put(kind, 0, 0, SUBSYSTEM, |_| {});
    }

    /// `nlmsghdr`, `nfgenmsg`, attributes.
    fn put(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Attributes),
    ) {
        let octets = &mut self.out.octets;
        let start = octets.len();
        octets.extend_from_slice(&0_u32.to_ne_bytes());
        octets.extend_from_slice(&kind.to_ne_bytes());
        octets.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        octets.extend_from_slice(&self.sequence.to_ne_bytes());
        octets.extend_from_slice(&0_u32.to_ne_bytes());
        octets.extend_from_slice(&[family, 0]);
        octets.extend_from_slice(&resource.to_be_bytes());
        fill(&mut self.out);
        let len = (self.out.octets.len() - start) as u32;
        self.out.octets[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Sequence number of the last message.
    pub(crate) const fn last(&self) -> u32 {
        self.sequence
    }

    /// Has the kernel do all of it or nothing, over a socket of [`open`].
    ///
    /// # Errors
    /// The kernel's, of the first message that it refused.
    pub(crate) fn commit(mut self, socket: &Socket) -> io::Result<()> {
        self.bound(BATCH_END);
        let (first, last) = (self.first, self.sequence);
        socket.send_to(&self.out.octets, &SocketAddr::new(0, 0), 0)?;
        // Netlink has answered within the call: each message, in order, the last at the end.
        loop {
            let (datagram, _) = socket.recv_from_full()?;
            let (kind, sequence, code) = read_answer(&datagram)?;
            if kind != NLMSG_ERROR || sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                continue;
            }
            if code != 0 {
                // The socket may be used again.
                while socket.recv_from_full().is_ok() {}
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            if sequence == last {
                return Ok(());
            }
        }
    }
}

/// A socket to nf_tables in the network namespace of the calling thread, and its port.
///
/// # Errors
/// The kernel's.
pub(crate) fn open() -> io::Result<(Socket, u32)> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    let port = socket.bind_auto()?.port_number();
    socket.set_non_blocking(true)?;
    Ok((socket, port))
}

/// Kind, sequence number and error code of an answer.
fn read_answer(datagram: &[u8]) -> io::Result<(u16, u32, i32)> {
    let field = |at: usize| datagram.get(at..)?.first_chunk::<4>().copied();
    let fields = field(4).zip(field(8)).zip(field(16));
    let ((kind, sequence), code) =
        fields.ok_or_else(|| io::Error::other("the kernel's answer is cut short"))?;
    let kind = u16::from_ne_bytes([kind[0], kind[1]]);
    Ok((kind, u32::from_ne_bytes(sequence), i32::from_ne_bytes(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(fill: impl FnOnce(&mut Attributes)) -> Vec<u8> {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        attributes.octets
    }

    /// As `nft --debug=mnl` shows them: padded to four octets, lengths without the padding.
    #[test]
    fn attributes_are_laid_out_as_netlink_demands() {
        let text = attributes(|out| out.text(1, "cmp"));
        assert_eq!(text, [8, 0, 1, 0, b'c', b'm', b'p', 0]);
        let value = attributes(|out| out.value(1, &[47]));
        assert_eq!(value, [5, 0, 1, 0, 47, 0, 0, 0]);
        let number = attributes(|out| out.number(2, 8));
        assert_eq!(number, [8, 0, 2, 0, 0, 0, 0, 8]);
        let nested = attributes(|out| out.nest(3, |out| out.number(1, 1)));
        assert_eq!(nested, [12, 0, 3, 0x80, 8, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_message_is_laid_out_as_nfnetlink_wants_it() {
        let mut batch = Batch::new(Family::Inet, 8);
        batch.message(NEW_TABLE, CREATE, |out| out.text(1, "pf"));
        // linux/netlink.h: length, type, flags, sequence, port; then nfgenmsg.
        let bound = &batch.out.octets[..20];
        assert_eq!(bound[4..8], [0x10, 0, 1, 0]);
        assert_eq!(bound[16..20], [0, 0, 0, 10]);
        let message = &batch.out.octets[20..];
        assert_eq!(message[0..4], 28_u32.to_ne_bytes());
        assert_eq!(message[4..6], 0x0A00_u16.to_ne_bytes());
        assert_eq!(message[6..8], 0x405_u16.to_ne_bytes());
        assert_eq!(message[8..12], 10_u32.to_ne_bytes());
        assert_eq!(message[16..20], [1, 0, 0, 0]);
        assert_eq!(message[20..], [7, 0, 1, 0, b'p', b'f', 0, 0]);
    }

    #[test]
    fn a_refusal_is_read_from_the_kernels_answer() {
        let mut answer = vec![36, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        answer.extend((-nix::libc::EPERM).to_ne_bytes());
        assert_eq!(read_answer(&answer).unwrap(), (NLMSG_ERROR, 7, -1));
        assert!(read_answer(&answer[..18]).is_err());
    }
}
