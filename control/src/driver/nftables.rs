//! Just enough of nf_tables' netlink interface (`linux/netfilter/nf_tables.h`) for a table whose
//! chains drop everything but what its rules accept. A table is made in one transaction: it is
//! there whole, or not at all.

use std::io;
use std::net::Ipv4Addr;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

const NLMSG_ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

const REQUEST: u16 = 0x001;
const ACK: u16 = 0x004;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// Of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// Both IPv4 and IPv6.
const FAMILY_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const PRIORITY_FILTER: u32 = 0;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const REGISTER_1: u32 = 1;
const REGISTER_VERDICT: u32 = 0;
/// Octets of an interface's name in a register.
const NAME_OCTETS: usize = 16;

/// Where a chain looks at packets (`linux/netfilter.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Between other interfaces.
    Forward,
    /// From this host.
    Output,
}

impl Hook {
    const fn number(self) -> u32 {
        match self {
            Self::Forward => 2,
            Self::Output => 3,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// It came through this interface.
    From(String),
    /// It leaves through this interface.
    Through(String),
    /// IPv4, to this host.
    To(Ipv4Addr),
    /// IPv4 or IPv6 with this protocol number.
    Protocol(u8),
    /// Of TCP or UDP.
    SourcePort(u16),
    /// Of TCP or UDP.
    DestinationPort(u16),
}

/// A chain that drops what no rule accepts. A rule accepts what fulfils all its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub hook: Hook,
    pub rules: Vec<Vec<Match>>,
}

/// Makes the table, in place of one with the same name.
///
/// # Errors
/// In the kernel's words; then nothing has changed.
pub(crate) fn replace_table(name: &str, chains: &[Chain]) -> io::Result<()> {
    let mut batch = Batch::new();
    // Making it when it is there changes nothing, so that it can be deleted in any case.
    batch.table(NEW_TABLE, name);
    batch.table(DELETE_TABLE, name);
    batch.table(NEW_TABLE, name);
    for chain in chains {
        batch.chain(name, chain.hook);
        for rule in &chain.rules {
            batch.rule(name, chain.hook, rule);
        }
    }
    batch.commit()
}

/// Deletes the table; that there is none is no error.
///
/// # Errors
/// In the kernel's words.
pub(crate) fn delete_table(name: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.table(NEW_TABLE, name);
    batch.table(DELETE_TABLE, name);
    batch.commit()
}

/// Messages that take effect together.
struct Batch {
    octets: Vec<u8>,
    messages: u32,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self {
            octets: Vec::new(),
            messages: 0,
        };
        batch.bound(BATCH_BEGIN);
        batch
    }

    fn bound(&mut self, kind: u16) {
        let start = self.begin(kind, REQUEST, 0, SUBSYSTEM);
        self.end(start);
    }

    fn table(&mut self, kind: u16, name: &str) {
        let start = self.message(kind, CREATE);
        self.text(1, name);
        self.end(start);
    }

    fn chain(&mut self, table: &str, hook: Hook) {
        let start = self.message(NEW_CHAIN, CREATE);
        self.text(1, table);
        self.text(3, hook.name());
        let attribute = self.nest(4);
        self.number(1, hook.number());
        self.number(2, PRIORITY_FILTER);
        self.close(attribute);
        self.number(5, DROP);
        self.text(7, "filter");
        self.end(start);
    }

    fn rule(&mut self, table: &str, hook: Hook, conditions: &[Match]) {
        let start = self.message(NEW_RULE, CREATE | APPEND);
        self.text(1, table);
        self.text(2, hook.name());
        let expressions = self.nest(4);
        for condition in conditions {
            self.condition(condition);
        }
        self.expression("immediate", |batch| {
            batch.number(1, REGISTER_VERDICT);
            let data = batch.nest(2);
            let verdict = batch.nest(2);
            batch.number(1, ACCEPT);
            batch.close(verdict);
            batch.close(data);
        });
        self.close(expressions);
        self.end(start);
    }

    fn condition(&mut self, condition: &Match) {
        const META_IIFNAME: u32 = 6;
        const META_OIFNAME: u32 = 7;
        const META_NFPROTO: u32 = 15;
        const META_L4PROTO: u32 = 16;
        const NETWORK_HEADER: u32 = 1;
        const TRANSPORT_HEADER: u32 = 2;
        let padded = |name: &str| {
            let mut octets = name.as_bytes().to_vec();
            octets.resize(NAME_OCTETS, 0);
            octets
        };
        match condition {
            Match::From(name) => self.meta(META_IIFNAME, &padded(name)),
            Match::Through(name) => self.meta(META_OIFNAME, &padded(name)),
            Match::To(host) => {
                self.meta(META_NFPROTO, &[NFPROTO_IPV4]);
                self.payload(NETWORK_HEADER, 16, &host.octets());
            }
            Match::Protocol(number) => self.meta(META_L4PROTO, &[*number]),
            Match::SourcePort(port) => self.payload(TRANSPORT_HEADER, 0, &port.to_be_bytes()),
            Match::DestinationPort(port) => self.payload(TRANSPORT_HEADER, 2, &port.to_be_bytes()),
        }
    }

    fn meta(&mut self, key: u32, value: &[u8]) {
        self.expression("meta", |batch| {
            batch.number(1, REGISTER_1);
            batch.number(2, key);
        });
        self.compare(value);
    }

    fn payload(&mut self, base: u32, offset: u32, value: &[u8]) {
        self.expression("payload", |batch| {
            batch.number(1, REGISTER_1);
            batch.number(2, base);
            batch.number(3, offset);
            batch.number(4, value.len() as u32);
        });
        self.compare(value);
    }

    /// Goes on when what was read is `value`.
    fn compare(&mut self, value: &[u8]) {
        self.expression("cmp", |batch| {
            batch.number(1, REGISTER_1);
            batch.number(2, 0);
            let data = batch.nest(3);
            batch.attribute(1, value);
            batch.close(data);
        });
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        let element = self.nest(1);
        self.text(1, name);
        let data = self.nest(2);
        fill(self);
        self.close(data);
        self.close(element);
    }

    fn message(&mut self, kind: u16, flags: u16) -> usize {
        self.messages += 1;
        self.begin(kind, REQUEST | ACK | flags, FAMILY_INET, 0)
    }

    /// `nlmsghdr` and `nfgenmsg`; `end` fills in the length.
    fn begin(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
        let start = self.octets.len();
        self.octets.extend_from_slice(&0_u32.to_ne_bytes());
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        self.octets.extend_from_slice(&flags.to_ne_bytes());
        self.octets.extend_from_slice(&self.messages.to_ne_bytes());
        self.octets.extend_from_slice(&0_u32.to_ne_bytes());
        self.octets.extend_from_slice(&[family, 0]);
        self.octets.extend_from_slice(&resource.to_be_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        let len = (self.octets.len() - start) as u32;
        self.octets[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    fn text(&mut self, kind: u16, text: &str) {
        let octets = [text.as_bytes(), &[0]].concat();
        self.attribute(kind, &octets);
    }

    /// nf_tables' numbers are in network byte order.
    fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_be_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.nest(kind & !NESTED);
        self.octets[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.octets.extend_from_slice(value);
        self.close(start);
    }

    fn nest(&mut self, kind: u16) -> usize {
        let start = self.octets.len();
        self.octets.extend_from_slice(&0_u16.to_ne_bytes());
        self.octets
            .extend_from_slice(&(kind | NESTED).to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let len = (self.octets.len() - start) as u16;
        self.octets[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        let padded = self.octets.len().next_multiple_of(4);
        self.octets.resize(padded, 0);
    }

    /// Sends everything and waits for an answer to every message: netlink answers at once.
    fn commit(mut self) -> io::Result<()> {
        self.bound(BATCH_END);
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.send_to(&self.octets, &SocketAddr::new(0, 0), 0)?;
        let mut answered = 0;
        while answered < self.messages {
            let (datagram, _) = socket.recv_from_full()?;
            answered += read_answers(&datagram)?;
        }
        Ok(())
    }
}

/// Counts the acknowledgments in a datagram; the first error ends it.
fn read_answers(mut datagram: &[u8]) -> io::Result<u32> {
    let mut answers = 0;
    while let (Some(len), Some(kind)) = (
        datagram.first_chunk().map(|len| u32::from_ne_bytes(*len)),
        datagram.get(4..6).and_then(|octets| octets.first_chunk()),
    ) {
        if u16::from_ne_bytes(*kind) == NLMSG_ERROR {
            let code = datagram.get(16..20).and_then(|octets| octets.first_chunk());
            match code.map(|code| i32::from_ne_bytes(*code)) {
                Some(0) => answers += 1,
                Some(code) => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let next = (len as usize).max(16).next_multiple_of(4);
        datagram = datagram.get(next..).unwrap_or_default();
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_nfnetlink_wants_it() {
        let mut batch = Batch::new();
        batch.table(NEW_TABLE, "pf");
        let message = &batch.octets[20..];
        // linux/netlink.h: length, type, flags, sequence, port; then nfgenmsg.
        assert_eq!(message[0..4], 28_u32.to_ne_bytes());
        assert_eq!(message[4..6], 0x0A00_u16.to_ne_bytes());
        assert_eq!(message[6..8], 0x405_u16.to_ne_bytes());
        assert_eq!(message[16..20], [1, 0, 0, 0]);
        assert_eq!(
            message[20..24],
            [7_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat()
        );
        assert_eq!(&message[24..], b"pf\0\0");
    }

    #[test]
    fn an_error_is_told_and_acknowledgments_are_counted() {
        let answer = |code: i32| {
            let mut octets = 36_u32.to_ne_bytes().to_vec();
            octets.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
            octets.resize(16, 0);
            octets.extend_from_slice(&code.to_ne_bytes());
            octets.resize(36, 0);
            octets
        };
        let good = [answer(0), answer(0)].concat();
        assert_eq!(read_answers(&good).unwrap(), 2);
        let error = read_answers(&[answer(0), answer(-1)].concat()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(read_answers(&[1, 2, 3]).unwrap(), 0);
    }
}
