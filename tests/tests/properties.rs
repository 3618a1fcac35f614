//! What must hold for every message and every string of octets: what is written is read back as it
//! was, and nothing that a stranger sends makes a reader panic or a log line long.

use bytes::Bytes;
use control::wire::ccp::{CcpOption, MppeBits};
use control::wire::chap::{ChapPacket, MsChapV1Response, MsChapV2Response};
use control::wire::cp::{Code, ConfigOption, ControlPacket, Options, configure};
use control::wire::eap::EapPacket;
use control::wire::ipcp::IpcpOption;
use control::wire::ipv6cp::Ipv6cpOption;
use control::wire::lcp::{AuthProtocol, LcpOption};
use control::wire::log::{LINE_LEN_MAX, describe};
use control::wire::pap::PapPacket;
use control::wire::ppp::{Frame, HeaderCompression, Protocol, frame};
use control::wire::pptp::{MESSAGE_LEN_MAX, Message, next_message};
use proptest::collection::vec;
use proptest::prelude::*;

fn octets(len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=len_max)
}

/// An option of any kind that is known, with any data, and any other.
fn raw_option() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let kind = prop_oneof![0..=20_u8, 24..=26_u8, 129..=132_u8, any::<u8>()];
    let data = prop_oneof![octets(8), octets(253)];
    (kind, data)
}

/// A message of any of the fifteen types, with any fields.
fn message() -> impl Strategy<Value = Message> {
    (1..=15_u16, vec(any::<u8>(), MESSAGE_LEN_MAX)).prop_map(|(message_type, fields)| {
        let mut stream = vec![0, 220, 0, 1, 0x1A, 0x2B, 0x3C, 0x4D];
        stream.extend(message_type.to_be_bytes());
        stream.extend(fields);
        let (message, _) = next_message(&stream)
            .expect("a message")
            .expect("a whole one");
        message
    })
}

/// Writes options, reads them back, and reads what was written as octets.
fn options_survive<O: ConfigOption + PartialEq + std::fmt::Debug>(options: &[(u8, Vec<u8>)]) {
    let options: Vec<O> = options
        .iter()
        .map(|(kind, data)| O::parse(*kind, data))
        .collect();
    let octets = configure(Code::CONFIGURE_REQUEST, 7, &options);
    let packet = ControlPacket::parse(&octets).expect("what we wrote");
    assert_eq!((packet.code, packet.id), (Code::CONFIGURE_REQUEST, 7));
    assert_eq!(O::parse_all(packet.data).expect("what we wrote"), options);
}

/// No reader may panic, whatever these octets are.
fn read_everything(octets: &[u8]) {
    let _ = Frame::parse(octets);
    let _ = ControlPacket::parse(octets);
    let _ = Options::new(octets).count();
    let _ = LcpOption::parse_all(octets);
    let _ = CcpOption::parse_all(octets);
    let _ = IpcpOption::parse_all(octets);
    let _ = Ipv6cpOption::parse_all(octets);
    let _ = ChapPacket::parse(octets);
    let _ = MsChapV1Response::parse(octets);
    let _ = MsChapV2Response::parse(octets);
    let _ = PapPacket::parse(octets);
    let _ = EapPacket::parse(octets);
    let _ = next_message(octets);
}

fn assert_line(frame: &[u8]) {
    let line = describe(frame).to_string();
    assert!(line.len() <= LINE_LEN_MAX, "{} octets", line.len());
    assert!(
        line.bytes().all(|octet| (b' '..=b'~').contains(&octet)),
        "{line}"
    );
}

proptest! {
    #[test]
    fn any_octets_are_read_without_panic(octets in octets(2000)) {
        read_everything(&octets);
        assert_line(&octets);
    }

    #[test]
    fn any_packet_of_a_known_protocol_is_one_bounded_line(
        protocol in prop_oneof![
            Just(Protocol::LCP), Just(Protocol::CCP), Just(Protocol::IPCP),
            Just(Protocol::IPV6CP), Just(Protocol::CHAP), Just(Protocol::PAP),
            Just(Protocol::EAP), Just(Protocol::IPV4), any::<u16>().prop_map(Protocol),
        ],
        code in 0..=17_u8,
        // Lengths that are right more often than chance would have it.
        len_error in prop_oneof![4 => Just(0_i32), 1 => -4..4_i32],
        data in octets(2000),
    ) {
        let len = i32::try_from(data.len() + 4).expect("short") + len_error;
        let [.., high, low] = len.to_be_bytes();
        let mut packet = vec![code, 1, high, low];
        packet.extend(data);
        read_everything(&packet);
        assert_line(&frame(protocol, &packet, HeaderCompression::default()));
    }

    #[test]
    fn a_pap_password_never_shows(
        code in 0..=4_u8,
        len in any::<u16>(),
        peer_id_len in 0..=30_u8,
        password_len in any::<u8>(),
    ) {
        // Well and badly formed requests, whose password is made of letters that are in no word
        // that is printed around it.
        let mut packet = vec![code, 1];
        packet.extend(len.to_be_bytes());
        packet.push(peer_id_len);
        packet.extend(std::iter::repeat_n(b'.', usize::from(peer_id_len)));
        packet.push(password_len);
        packet.extend(b"QZQZQZQZQZ");
        let line = describe(&frame(Protocol::PAP, &packet, HeaderCompression::default()))
            .to_string();
        let is_message = code == 2 || code == 3;
        prop_assert!(is_message || !line.contains("QZ"), "{line}");
        prop_assert!(!line.contains("51 5a"), "{line}");
    }

    #[test]
    fn control_messages_survive(message in message()) {
        let octets = message.to_bytes();
        prop_assert_eq!(octets.len(), message.buffer_len());
        prop_assert_eq!(next_message(&octets), Ok(Some((message, octets.len()))));
        // Nor may a line of it be long: 128 octets of text are the longest that is printed.
        prop_assert!(message.to_string().len() < LINE_LEN_MAX);
    }

    #[test]
    fn a_control_stream_may_be_cut_anywhere(
        messages in vec(message(), 1..6),
        cuts in vec(1..300_usize, 1..20),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(Message::to_bytes).collect();
        let mut segments = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.into_iter().cycle() {
            let (segment, behind) = rest.split_at(cut.min(rest.len()));
            segments.push(segment);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }

        let mut received = Vec::new();
        let mut buffer = Vec::new();
        for segment in segments {
            buffer.extend_from_slice(segment);
            while let Some((message, len)) = next_message(&buffer).expect("what we wrote") {
                received.push(message);
                buffer.drain(..len);
            }
            prop_assert!(buffer.len() < MESSAGE_LEN_MAX);
        }
        prop_assert_eq!(received, messages);
    }

    #[test]
    fn a_damaged_control_stream_is_an_error_or_waits_for_one_message_at_most(
        message in message(),
        at in 0..12_usize,
        flip in 1..=255_u8,
    ) {
        let mut stream = message.to_bytes().to_vec();
        stream.resize(2 * MESSAGE_LEN_MAX, 0);
        stream[at] ^= flip;
        // With more octets there than any message has, there is nothing left to wait for.
        prop_assert_ne!(next_message(&stream), Ok(None));
    }

    #[test]
    fn options_of_every_protocol_survive(options in vec(raw_option(), 0..10)) {
        options_survive::<LcpOption>(&options);
        options_survive::<CcpOption>(&options);
        options_survive::<IpcpOption>(&options);
        options_survive::<Ipv6cpOption>(&options);
    }

    #[test]
    fn an_option_is_understood_or_kept_whole((kind, data) in raw_option()) {
        // What is rejected must go back as it came (RFC 1661 5.4).
        let mut octets = vec![kind, u8::try_from(data.len() + 2).expect("at most 255")];
        octets.extend(&data);
        let code = Code::CONFIGURE_REJECT;
        for written in [
            configure(code, 1, &[LcpOption::parse(kind, &data)]),
            configure(code, 1, &[CcpOption::parse(kind, &data)]),
            configure(code, 1, &[IpcpOption::parse(kind, &data)]),
            configure(code, 1, &[Ipv6cpOption::parse(kind, &data)]),
        ] {
            prop_assert_eq!(&written[4..], &octets[..]);
        }
    }

    #[test]
    fn an_option_that_we_make_too_long_is_cut_and_not_a_panic(data in octets(600)) {
        let data = Bytes::from(data);
        for option in [
            LcpOption::Unknown(200, data.clone()),
            LcpOption::Quality(1, data.clone()),
            LcpOption::Endpoint(1, data.clone()),
            LcpOption::Auth(AuthProtocol::Other(Protocol::EAP, data)),
        ] {
            let octets = configure(Code::CONFIGURE_REQUEST, 1, &[option]);
            prop_assert!(LcpOption::parse_all(&octets[4..]).is_ok());
        }
    }

    #[test]
    fn mppe_bits_survive(bits in any::<u32>()) {
        let option = CcpOption::Mppe(MppeBits(bits));
        let mut octets = [0xA5; 6];
        option.emit(&mut octets);
        prop_assert_eq!(CcpOption::parse(octets[0], &octets[2..]), option);
    }

    #[test]
    fn chap_packets_survive(
        code in any::<u8>(), id in any::<u8>(), value in octets(255), name in octets(300),
    ) {
        let packet = match code {
            1 => ChapPacket::Challenge { id, value: &value, name: &name },
            2 => ChapPacket::Response { id, value: &value, name: &name },
            3 => ChapPacket::Success { id, message: &name },
            4 => ChapPacket::Failure { id, message: &name },
            code => ChapPacket::Other { code, id, data: &name },
        };
        let octets = packet.to_bytes();
        prop_assert_eq!(ChapPacket::parse(&octets), Ok(packet));
    }

    #[test]
    fn mschap_responses_survive(value in vec(any::<u8>(), 49)) {
        let v1 = MsChapV1Response::parse(&value).expect("49 octets");
        prop_assert_eq!(&v1.to_value()[..], &value[..]);
        let v2 = MsChapV2Response::parse(&value).expect("49 octets");
        prop_assert_eq!(MsChapV2Response::parse(&v2.to_value()), Ok(v2));
    }

    #[test]
    fn pap_packets_survive(id in any::<u8>(), first in octets(255), second in octets(255)) {
        for packet in [
            PapPacket::AuthenticateRequest { id, peer_id: &first, password: &second },
            PapPacket::AuthenticateAck { id, message: &first },
            PapPacket::AuthenticateNak { id, message: &first },
        ] {
            let octets = packet.to_bytes();
            prop_assert_eq!(PapPacket::parse(&octets), Ok(packet));
        }
    }

    #[test]
    fn frames_survive(
        protocol in any::<u16>(),
        payload in octets(100),
        compress_protocol: bool,
        compress_address_control: bool,
    ) {
        // A Protocol field ends in an odd octet, behind an even one (RFC 1661 2); 0x00FF is never
        // assigned, so that its short form is not taken for an address (RFC 1661 6.5).
        let protocol = Protocol(protocol & 0xFEFF | 1);
        prop_assume!(protocol != Protocol(0x00FF));
        let compression = HeaderCompression {
            protocol: compress_protocol,
            address_control: compress_address_control,
        };
        let octets = frame(protocol, &payload, compression);
        let read = Frame::parse(&octets).expect("what we wrote");
        prop_assert_eq!(read.protocol, protocol);
        prop_assert_eq!(read.payload, &payload[..]);
        prop_assert_eq!(read.header_len + payload.len(), octets.len());
    }
}
