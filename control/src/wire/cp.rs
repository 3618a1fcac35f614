//! The packet that LCP, CCP, IPCP and IPV6CP share (RFC 1661 5) and its options (RFC 1661 6).

use bytes::{BufMut, Bytes};

use super::WireError;
use super::reader::Reader;

/// The Code field (RFC 1661 5; RFC 1570 2; RFC 1962 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// RFC 1661 5.1.
    pub const CONFIGURE_REQUEST: Self = Self(1);
    /// RFC 1661 5.2.
    pub const CONFIGURE_ACK: Self = Self(2);
    /// RFC 1661 5.3.
    pub const CONFIGURE_NAK: Self = Self(3);
    /// RFC 1661 5.4.
    pub const CONFIGURE_REJECT: Self = Self(4);
    /// RFC 1661 5.5.
    pub const TERMINATE_REQUEST: Self = Self(5);
    /// RFC 1661 5.5.
    pub const TERMINATE_ACK: Self = Self(6);
    /// RFC 1661 5.6.
    pub const CODE_REJECT: Self = Self(7);
    /// RFC 1661 5.7, LCP only.
    pub const PROTOCOL_REJECT: Self = Self(8);
    /// RFC 1661 5.8, LCP only.
    pub const ECHO_REQUEST: Self = Self(9);
    /// RFC 1661 5.8, LCP only.
    pub const ECHO_REPLY: Self = Self(10);
    /// RFC 1661 5.9, LCP only.
    pub const DISCARD_REQUEST: Self = Self(11);
    /// RFC 1570 2.1, LCP only.
    pub const IDENTIFICATION: Self = Self(12);
    /// RFC 1570 2.2, LCP only.
    pub const TIME_REMAINING: Self = Self(13);
    /// RFC 1962 2.1, CCP only.
    pub const RESET_REQUEST: Self = Self(14);
    /// RFC 1962 2.1, CCP only.
    pub const RESET_ACK: Self = Self(15);
}

/// One packet: Code (1), Identifier (1), Length (2, big endian), Data. Octets past Length are
/// padding and ignored on reception (RFC 1661 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPacket<'a> {
    /// What kind.
    pub code: Code,
    /// Matches replies with requests.
    pub id: u8,
    /// `Length - 4` octets.
    pub data: &'a [u8],
}

/// Octets in front of `data`.
const HEADER_LEN: usize = 4;
/// Octets in front of an option's data.
const OPTION_HEADER_LEN: usize = 2;
/// The most data that an option's one-octet Length leaves room for.
pub const OPTION_DATA_LEN_MAX: usize = 255 - OPTION_HEADER_LEN;

impl<'a> ControlPacket<'a> {
    /// Reads one packet from a frame's payload.
    ///
    /// # Errors
    /// `Truncated` without a whole header or when Length is more than is there, `BadLength` when it
    /// is less than the header. Such packets are silently discarded (RFC 1661 5).
    pub fn parse(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let code = Code(reader.u8()?);
        let id = reader.u8()?;
        let len = usize::from(reader.u16()?);
        let data_len = len
            .checked_sub(HEADER_LEN)
            .ok_or(WireError::BadLength(len))?;
        let data = reader.take(data_len)?;
        Ok(Self { code, id, data })
    }

    /// Octets that `emit` writes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        HEADER_LEN + self.kept_data().len()
    }

    /// Writes the packet. Data beyond what Length can tell (65 531 octets) is left out.
    ///
    /// # Panics
    /// When `buffer` is shorter than `buffer_len()`.
    pub fn emit(&self, mut buffer: &mut [u8]) {
        let data = self.kept_data();
        buffer.put_u8(self.code.0);
        buffer.put_u8(self.id);
        // `kept_data` leaves no more than Length can tell.
        buffer.put_u16(u16::try_from(HEADER_LEN + data.len()).unwrap_or(u16::MAX));
        buffer.put_slice(data);
    }

    /// The packet in a buffer of its own.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut buffer = vec![0; self.buffer_len()];
        self.emit(&mut buffer);
        buffer.into()
    }

    /// The options that fill a Configure packet.
    #[must_use]
    pub const fn options(&self) -> Options<'a> {
        Options::new(self.data)
    }

    fn kept_data(&self) -> &'a [u8] {
        let len_max = usize::from(u16::MAX) - HEADER_LEN;
        self.data.get(..len_max).unwrap_or(self.data)
    }
}

/// A Configure packet with `options`, in their order.
#[must_use]
pub fn configure<O: ConfigOption>(code: Code, id: u8, options: &[O]) -> Bytes {
    let len = options.iter().map(ConfigOption::buffer_len).sum();
    let mut data = vec![0; len];
    let mut rest = &mut data[..];
    for option in options {
        let (place, behind) = rest.split_at_mut(option.buffer_len());
        option.emit(place);
        rest = behind;
    }
    let data = &data[..];
    ControlPacket { code, id, data }.to_bytes()
}

/// Walks the options of a Configure packet: Type, Length (both headers included), Data. After an
/// error there are no more.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// Over the data of a Configure packet.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// What has not been walked yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn split(octets: &'a [u8]) -> Result<(RawOption<'a>, &'a [u8]), WireError> {
        let mut reader = Reader::new(octets);
        let kind = reader.u8()?;
        let len = usize::from(reader.u8()?);
        let data_len = len
            .checked_sub(OPTION_HEADER_LEN)
            .ok_or(WireError::BadLength(len))?;
        let data = reader.take(data_len)?;
        Ok((RawOption { kind, data }, reader.rest()))
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<RawOption<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let split = Self::split(self.rest);
        self.rest = split.as_ref().map_or(&[][..], |(_, rest)| rest);
        Some(split.map(|(option, _)| option))
    }
}

/// An option before anyone has judged its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawOption<'a> {
    /// The Type field.
    pub kind: u8,
    /// What follows the Length field: 0 to 253 octets.
    pub data: &'a [u8],
}

/// What the options of every control protocol have in common.
pub trait ConfigOption: Sized {
    /// Understands one option. A known kind with a length that its RFC does not give is as unknown
    /// as an unknown kind, so that it is rejected and not the packet that it came in.
    fn parse(kind: u8, data: &[u8]) -> Self;

    /// The Type field.
    fn kind(&self) -> u8;

    /// Octets that `emit_data` writes, at most [`OPTION_DATA_LEN_MAX`].
    fn data_len(&self) -> usize;

    /// Writes what follows the Length field to the front of `data`.
    ///
    /// # Panics
    /// When `data` is shorter than `data_len()`.
    fn emit_data(&self, data: &mut [u8]);

    /// Octets of the whole option.
    fn buffer_len(&self) -> usize {
        OPTION_HEADER_LEN + self.data_len()
    }

    /// Writes the whole option.
    ///
    /// # Panics
    /// When `buffer` is shorter than `buffer_len()`.
    fn emit(&self, mut buffer: &mut [u8]) {
        buffer.put_u8(self.kind());
        buffer.put_u8(u8::try_from(self.buffer_len()).unwrap_or(u8::MAX));
        self.emit_data(buffer);
    }

    /// All options of a Configure packet's data, in order.
    ///
    /// # Errors
    /// `Truncated` or `BadLength` when an option's Length is wrong; the packet is then to be
    /// discarded.
    fn parse_all(data: &[u8]) -> Result<Vec<Self>, WireError> {
        Options::new(data)
            .map(|option| option.map(|raw| Self::parse(raw.kind, raw.data)))
            .collect()
    }
}

/// As much of `data` as an option can hold.
pub(super) fn clamp_data(data: &[u8], fixed_len: usize) -> &[u8] {
    data.get(..OPTION_DATA_LEN_MAX - fixed_len).unwrap_or(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_past_length_are_padding() {
        let packet = ControlPacket::parse(&[5, 7, 0, 6, b'h', b'i', 0, 0]).unwrap();
        assert_eq!(packet.code, Code::TERMINATE_REQUEST);
        assert_eq!(packet.id, 7);
        assert_eq!(packet.data, b"hi");
    }

    #[test]
    fn a_length_shorter_than_the_header_is_refused() {
        assert_eq!(
            ControlPacket::parse(&[1, 1, 0, 3]),
            Err(WireError::BadLength(3))
        );
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        let error = WireError::Truncated { needed: 5, got: 4 };
        assert_eq!(ControlPacket::parse(&[1, 1, 0, 5]), Err(error));
    }

    #[test]
    fn options_end_at_the_first_malformed_one() {
        let mut options = Options::new(&[7, 2, 5, 1, 8, 2]);
        let pfc = RawOption { kind: 7, data: &[] };
        assert_eq!(options.next(), Some(Ok(pfc)));
        assert_eq!(options.next(), Some(Err(WireError::BadLength(1))));
        assert_eq!(options.next(), None);
    }

    #[test]
    fn an_option_past_the_end_is_an_error_and_not_a_panic() {
        let error = WireError::Truncated { needed: 6, got: 4 };
        assert_eq!(Options::new(&[5, 6, 1, 2]).next(), Some(Err(error)));
        let error = WireError::Truncated { needed: 2, got: 1 };
        assert_eq!(Options::new(&[5]).next(), Some(Err(error)));
    }
}
