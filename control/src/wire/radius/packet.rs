//! The packet and its attributes (RFC 2865 3 and 5).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Code      |  Identifier   |            Length             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                         Authenticator (16)                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Attributes: Type, Length (of all three), Value ...
//! +-+-+-+-+-+-+-+-+-+-+-+-+-
//! ```

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::attribute::Kind;
use crate::wire::WireError;
use crate::wire::reader::Reader;

/// Octets before the attributes.
pub(super) const HEADER_LEN: usize = 20;
/// Longest packet (RFC 2865 3).
pub const PACKET_BYTES_MAX: usize = 4096;
/// Octets that a list may have, so that a Message-Authenticator and a User-Password of 128 octets
/// still fit.
const LIST_BYTES_MAX: usize = PACKET_BYTES_MAX - HEADER_LEN - 18 - 130;
/// Longest value of a standard attribute.
const VALUE_BYTES_MAX: usize = 253;
/// Longest value of a vendor's.
const VENDOR_VALUE_BYTES_MAX: usize = 247;

/// Random in an Access-Request, a digest elsewhere.
pub type Authenticator = [u8; 16];

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    /// May this user come in? (RFC 2865 4.1)
    pub const ACCESS_REQUEST: Self = Self(1);
    /// It may (RFC 2865 4.2).
    pub const ACCESS_ACCEPT: Self = Self(2);
    /// It may not (RFC 2865 4.3).
    pub const ACCESS_REJECT: Self = Self(3);
    /// What became of a session (RFC 2866 4.1).
    pub const ACCOUNTING_REQUEST: Self = Self(4);
    /// It is recorded (RFC 2866 4.2).
    pub const ACCOUNTING_RESPONSE: Self = Self(5);
    /// Another question to the user (RFC 2865 4.4).
    pub const ACCESS_CHALLENGE: Self = Self(11);
    /// End a session (RFC 5176 2.1).
    pub const DISCONNECT_REQUEST: Self = Self(40);
    /// It ends.
    pub const DISCONNECT_ACK: Self = Self(41);
    /// It does not.
    pub const DISCONNECT_NAK: Self = Self(42);
    /// Change what a session may do (RFC 5176 2.2).
    pub const COA_REQUEST: Self = Self(43);
    /// It is changed.
    pub const COA_ACK: Self = Self(44);
    /// It is not.
    pub const COA_NAK: Self = Self(45);
}

/// Received octets of which Length and the lengths of all attributes are true.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    octets: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Looks at a datagram; what comes after Length is padding (RFC 2865 3).
    ///
    /// # Errors
    /// `Truncated` when octets are missing, `BadLength` when a length cannot be.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(datagram);
        reader.take(2)?;
        let length = usize::from(reader.u16()?);
        if !(HEADER_LEN..=PACKET_BYTES_MAX).contains(&length) {
            return Err(WireError::BadLength(length));
        }
        let octets = Reader::new(datagram).take(length)?;
        let mut rest = Reader::new(octets.get(HEADER_LEN..).unwrap_or_default());
        while !rest.rest().is_empty() {
            rest.u8()?;
            let length = usize::from(rest.u8()?);
            let value = length.checked_sub(2).ok_or(WireError::BadLength(length))?;
            rest.take(value)?;
        }
        Ok(Self { octets })
    }

    /// What it is.
    #[must_use]
    pub fn code(self) -> Code {
        Code(self.octets.first().copied().unwrap_or_default())
    }

    /// Matches replies with requests.
    #[must_use]
    pub fn id(self) -> u8 {
        self.octets.get(1).copied().unwrap_or_default()
    }

    /// As it stands there.
    #[must_use]
    pub fn authenticator(self) -> Authenticator {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.octets[4..HEADER_LEN]);
        octets
    }

    /// The whole packet, without padding behind it.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.octets
    }

    /// Every attribute in order; a Vendor-Specific one is taken apart (RFC 2865 5.26), and stands
    /// for itself when that cannot be done.
    pub fn attributes(self) -> impl Iterator<Item = (Kind, &'a [u8])> {
        self.standard_attributes().flat_map(|(kind, value)| {
            let of_vendor = (Kind::Standard(kind) == Kind::VENDOR_SPECIFIC)
                .then(|| vendor_attributes(value))
                .flatten();
            of_vendor.unwrap_or_else(|| vec![(Kind::Standard(kind), value)])
        })
    }

    /// Type and value, as they stand there.
    pub(super) fn standard_attributes(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.octets.get(HEADER_LEN..).unwrap_or_default();
        std::iter::from_fn(move || {
            let &[kind, length, ..] = rest else {
                return None;
            };
            let (whole, after) = rest.split_at_checked(usize::from(length).max(2))?;
            rest = after;
            Some((kind, &whole[2..]))
        })
    }

    /// The first attribute of this kind.
    #[must_use]
    pub fn find(self, kind: Kind) -> Option<&'a [u8]> {
        self.find_all(kind).next()
    }

    /// All attributes of this kind.
    pub fn find_all(self, kind: Kind) -> impl Iterator<Item = &'a [u8]> {
        self.attributes()
            .filter(move |(other, _)| *other == kind)
            .map(|(_, value)| value)
    }

    /// The values of all attributes of this kind as one (`EAP-Message`, RFC 2869 5.13).
    #[must_use]
    pub fn joined(self, kind: Kind) -> Vec<u8> {
        self.find_all(kind).flatten().copied().collect()
    }

    /// A number; `None` when there is none, or it has not four octets.
    #[must_use]
    pub fn number(self, kind: Kind) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// An IPv4 address; `None` as in [`number`](Self::number).
    #[must_use]
    pub fn address(self, kind: Kind) -> Option<Ipv4Addr> {
        self.number(kind).map(Ipv4Addr::from_bits)
    }

    /// Text, with what is not UTF-8 replaced.
    #[must_use]
    pub fn text(self, kind: Kind) -> Option<String> {
        let value = self.find(kind)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// Values may be secret: names only.
impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RADIUS code {} id {}", self.code().0, self.id())?;
        for (kind, _) in self.attributes() {
            match kind.name() {
                Some(name) => write!(f, " <{name}>")?,
                None => write!(f, " <{kind:?}>")?,
            }
        }
        Ok(())
    }
}

/// What a Vendor-Specific value holds, when it has the form that RFC 2865 5.26 suggests.
fn vendor_attributes(value: &[u8]) -> Option<Vec<(Kind, &[u8])>> {
    let mut reader = Reader::new(value);
    let vendor = reader.u32().ok()?;
    let mut found = Vec::new();
    while !reader.rest().is_empty() {
        let kind = reader.u8().ok()?;
        let length = usize::from(reader.u8().ok()?);
        let value = reader.take(length.checked_sub(2)?).ok()?;
        found.push((Kind::Vendor(vendor, kind), value));
    }
    (!found.is_empty()).then_some(found)
}

/// Attributes of a packet to be, in order. `Debug` does not show them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeList {
    octets: Vec<u8>,
}

impl fmt::Debug for AttributeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttributeList({} octets)", self.octets.len())
    }
}

impl AttributeList {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { octets: Vec::new() }
    }

    /// Adds octets, cut at what an attribute holds: 253, and 247 of a vendor's. What the packet
    /// has no room for is left out.
    pub fn octets(&mut self, kind: Kind, value: &[u8]) {
        let cut = |max: usize| value.get(..max).unwrap_or(value);
        // The lengths are at most 255, since the values are cut.
        let length = |header: usize, value: &[u8]| u8::try_from(header + value.len());
        let (value, head) = match kind {
            Kind::Standard(kind) => {
                let value = cut(VALUE_BYTES_MAX);
                (value, vec![kind, length(2, value).unwrap_or(u8::MAX)])
            }
            Kind::Vendor(vendor, kind) => {
                let value = cut(VENDOR_VALUE_BYTES_MAX);
                let (outer, inner) = (length(8, value), length(2, value));
                let mut head = vec![26, outer.unwrap_or(u8::MAX)];
                head.extend(vendor.to_be_bytes());
                head.extend([kind, inner.unwrap_or(u8::MAX)]);
                (value, head)
            }
        };
        if self.octets.len() + head.len() + value.len() <= LIST_BYTES_MAX {
            self.octets.extend(head);
            self.octets.extend(value);
        }
    }

    /// Adds text, unless it is empty.
    pub fn text(&mut self, kind: Kind, text: &str) {
        if !text.is_empty() {
            self.octets(kind, text.as_bytes());
        }
    }

    /// Adds a number.
    pub fn number(&mut self, kind: Kind, number: u32) {
        self.octets(kind, &number.to_be_bytes());
    }

    /// Adds an IPv4 address.
    pub fn address(&mut self, kind: Kind, address: Ipv4Addr) {
        self.octets(kind, &address.octets());
    }

    /// Adds a value as long as it likes to be, in as many attributes as it needs.
    pub fn split(&mut self, kind: Kind, value: &[u8]) {
        for part in value.chunks(VALUE_BYTES_MAX) {
            self.octets(kind, part);
        }
    }

    /// As they will stand in the packet.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn packet_of(list: &AttributeList) -> Vec<u8> {
        let length = u16::try_from(HEADER_LEN + list.as_bytes().len()).unwrap();
        let mut octets = vec![2, 7];
        octets.extend(length.to_be_bytes());
        octets.extend([0; 16]);
        octets.extend(list.as_bytes());
        octets
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let good = packet_of(&AttributeList::new());
        assert!(Packet::parse(&good).is_ok());
        assert!(Packet::parse(&good[..19]).is_err());
        for (at, value) in [(3, 19), (3, 21), (2, 0x10)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Packet::parse(&bad).is_err(), "{at} {value}");
        }
        for attributes in [&[1_u8][..], &[1, 0], &[1, 1], &[1, 3], &[1, 2, 5]] {
            let mut bad = good.clone();
            bad.extend(attributes);
            bad[3] += u8::try_from(attributes.len()).unwrap();
            assert!(Packet::parse(&bad).is_err(), "{attributes:?}");
        }
        let mut padded = good;
        padded.extend([0; 7]);
        assert_eq!(Packet::parse(&padded).unwrap().as_bytes().len(), HEADER_LEN);
    }

    #[test]
    fn several_attributes_of_one_vendor_may_share_one() {
        let mut list = AttributeList::new();
        let two = [0, 0, 1, 55, 28, 6, 9, 9, 9, 9, 29, 6, 8, 8, 8, 8];
        list.octets(Kind::VENDOR_SPECIFIC, &two);
        let octets = packet_of(&list);
        let packet = Packet::parse(&octets).unwrap();
        let dns = packet.address(Kind::MS_PRIMARY_DNS_SERVER);
        assert_eq!(dns, Some(Ipv4Addr::new(9, 9, 9, 9)));
        let dns = packet.address(Kind::MS_SECONDARY_DNS_SERVER);
        assert_eq!(dns, Some(Ipv4Addr::new(8, 8, 8, 8)));
    }

    #[test]
    fn a_long_value_comes_back_whole_and_a_full_packet_takes_no_more() {
        let eap: Vec<u8> = (0..1_400_u16).map(|i| i.to_be_bytes()[1]).collect();
        let mut list = AttributeList::new();
        list.split(Kind::EAP_MESSAGE, &eap);
        let octets = packet_of(&list);
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!(packet.joined(Kind::EAP_MESSAGE), eap);
        for _ in 0..100 {
            list.octets(Kind::CLASS, &[1; 253]);
        }
        assert!(packet_of(&list).len() <= PACKET_BYTES_MAX - 148);
    }

    proptest! {
        #[test]
        fn what_is_listed_is_found(values in vec((any::<u8>(), any::<bool>(), vec(any::<u8>(), 0..260)), 0..8)) {
            let mut list = AttributeList::new();
            let mut due = Vec::new();
            for (kind, of_vendor, value) in values {
                let (kind, max) = if of_vendor {
                    (Kind::Vendor(311, kind), 247)
                } else if kind == 26 {
                    continue;
                } else {
                    (Kind::Standard(kind), 253)
                };
                list.octets(kind, &value);
                due.push((kind, value[..value.len().min(max)].to_vec()));
            }
            let octets = packet_of(&list);
            let packet = Packet::parse(&octets).unwrap();
            let found: Vec<_> = packet.attributes().map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(found, due);
        }

        #[test]
        fn any_octets_are_a_packet_or_an_error(mut octets in vec(any::<u8>(), 0..300), honest: bool) {
            if honest && octets.len() >= HEADER_LEN {
                let length = u16::try_from(octets.len()).unwrap();
                octets[2..4].copy_from_slice(&length.to_be_bytes());
            }
            if let Ok(packet) = Packet::parse(&octets) {
                let _ = (packet.attributes().count(), format!("{packet:?}"));
                let _ = (packet.authenticator(), packet.joined(Kind::EAP_MESSAGE));
            }
        }
    }
}
