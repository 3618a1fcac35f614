//! What pptp-linux, pptpd and pppd sent one another, read, written back octet for octet, and
//! printed as pppd printed it.

use control::wire::ccp::CcpOption;
use control::wire::chap::ChapPacket;
use control::wire::cp::{Code, ConfigOption, ControlPacket, configure};
use control::wire::ipcp::IpcpOption;
use control::wire::ipv6cp::Ipv6cpOption;
use control::wire::lcp::LcpOption;
use control::wire::log::describe;
use control::wire::pap::PapPacket;
use control::wire::ppp::{Frame, HeaderCompression, Protocol, frame};
use control::wire::pptp::{Message, next_message};
use sim::capture::{Capture, ENCRYPTED_NAMES, NAMES, Side, logged};

#[test]
fn every_control_message_is_read_and_written_back() {
    for name in NAMES {
        let capture = Capture::load(name);
        for side in Side::BOTH {
            let stream = capture.control_stream(side);
            let messages = messages(stream);
            assert!(messages.len() >= 2, "{name}: {side:?} said {messages:?}");
            let written: Vec<_> = messages.iter().flat_map(Message::to_bytes).collect();
            assert_eq!(hex::encode(written), hex::encode(stream), "{name}");
        }
    }
}

#[test]
fn a_control_connection_reads_in_words() {
    let capture = Capture::load("mppe128-stateless");
    let printed = |side| -> Vec<String> {
        let messages = messages(capture.control_stream(side));
        messages.iter().map(ToString::to_string).collect()
    };
    // The numbers are those that stand in the capture: pptp-linux asks for any speed, window 3,
    // and pptpd gives every call the ID 0.
    assert_eq!(
        printed(Side::Client),
        [
            "[PPTP Start-Ctrl-Conn-Request <Version 1> <Framing 3> <Bearer 3> <Max-Chan 65535>]",
            "[PPTP Outgoing-Call-Request <Call-ID a2e7> <Call-Serial 0> <Min-BPS 2400> \
             <Max-BPS 10000000> <Bearer 3> <Framing 3> <Window-Size 3> <Delay 0>]",
            "[PPTP Call-Clear-Request <Call-ID a2e7>]",
        ]
    );
    assert_eq!(
        printed(Side::Server),
        [
            "[PPTP Start-Ctrl-Conn-Reply <Version 1> <Result 1> <Error 0> <Framing 0> <Bearer 0> \
             <Max-Chan 1>]",
            "[PPTP Outgoing-Call-Reply <Call-ID 0> <Peer-Call-ID a2e7> <Result 1> <Error 0> \
             <Cause 0> <Speed 10000000> <Window-Size 3> <Delay 0> <Channel 0>]",
        ]
    );
}

#[test]
fn every_negotiation_packet_is_read_and_written_back() {
    for name in NAMES {
        let capture = Capture::load(name);
        for octets in negotiation(&capture, Side::Client).chain(negotiation(&capture, Side::Server))
        {
            let read = Frame::parse(octets).expect("peers speak PPP");
            let packet = rebuilt(read.protocol, read.payload);
            assert_eq!(hex::encode(&packet), hex::encode(read.payload), "{name}");

            // pppd leaves out Address and Control in LCP's echoes too, which RFC 1661 6.6 forbids
            // and we do not do, so that there is nothing to compare.
            if read.protocol != Protocol::LCP {
                let compression = HeaderCompression {
                    protocol: false,
                    address_control: read.header_len == 2,
                };
                let written = frame(read.protocol, &packet, compression);
                assert_eq!(hex::encode(written), hex::encode(octets), "{name}");
            }
        }
    }
}

#[test]
fn what_pppd_logged_as_sent_is_what_we_print() {
    for name in NAMES {
        let capture = Capture::load(name);
        for side in Side::BOTH {
            assert_eq!(
                printed(&capture, side),
                logged(name, side, "sent"),
                "{name} {side:?}"
            );
        }
    }
}

#[test]
fn what_pppd_logged_as_received_is_what_we_print() {
    for name in NAMES {
        let capture = Capture::load(name);
        for side in Side::BOTH {
            let mut printed = printed(&capture, side);
            // Without MPPE's keys pppd sends its Terminate-Request twice, and leaves when the first
            // is acknowledged: it does not live to log the other acknowledgment.
            if ENCRYPTED_NAMES.contains(&name) {
                let last = printed.pop().expect("there are packets");
                assert!(last.starts_with("[LCP TermAck id="), "{name}: {last}");
            }
            assert_eq!(
                printed,
                logged(name, side.other(), "rcvd"),
                "{name} {side:?}"
            );
        }
    }
}

fn messages(mut stream: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((message, len)) = next_message(stream).expect("peers speak PPTP") {
        messages.push(message);
        stream = &stream[len..];
    }
    assert!(stream.is_empty(), "octets left: {}", hex::encode(stream));
    messages
}

/// The frames that pppd logs: all but user data, which has protocols below 0x8000.
fn negotiation(capture: &Capture, side: Side) -> impl Iterator<Item = &[u8]> {
    capture.frames(side).filter(|frame| {
        let frame = Frame::parse(frame).expect("peers speak PPP");
        frame.protocol >= Protocol(0x8000)
    })
}

fn printed(capture: &Capture, side: Side) -> Vec<String> {
    negotiation(capture, side)
        .map(|frame| describe(frame).to_string())
        .collect()
}

/// Reads a packet down to its options, and writes it anew from what was understood.
fn rebuilt(protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    match protocol {
        Protocol::CHAP => {
            let packet = ChapPacket::parse(payload).expect("peers speak CHAP");
            packet.to_bytes().to_vec()
        }
        Protocol::PAP => {
            let packet = PapPacket::parse(payload).expect("peers speak PAP");
            packet.to_bytes().to_vec()
        }
        Protocol::LCP => rebuilt_control::<LcpOption>(payload),
        Protocol::CCP => rebuilt_control::<CcpOption>(payload),
        Protocol::IPCP => rebuilt_control::<IpcpOption>(payload),
        Protocol::IPV6CP => rebuilt_control::<Ipv6cpOption>(payload),
        other => panic!("no capture holds {other:?}"),
    }
}

fn rebuilt_control<O: ConfigOption>(payload: &[u8]) -> Vec<u8> {
    let packet = ControlPacket::parse(payload).expect("peers speak RFC 1661");
    if packet.code.0 <= Code::CONFIGURE_REJECT.0 {
        let options = O::parse_all(packet.data).expect("options are whole");
        configure(packet.code, packet.id, &options).to_vec()
    } else {
        packet.to_bytes().to_vec()
    }
}
