//! Encrypted packets of real peers, deciphered with what we derive from the password and the
//! captured CHAP exchange: the pings that went through the tunnel must come out, both ways.
//!
//! The steps from a start key on are written here once more, straight from RFC 3078 7 and RFC 3079,
//! so that the start keys are judged apart from the data plane's key schedule.

use control::crypto::key_derivation::{KeyMaterial, StartKeys, start_keys};
use control::wire::ccp::{CcpOption, MppeBits};
use control::wire::chap::{MsChapV1Response, MsChapV2Response};
use control::wire::cp::{Code, ConfigOption, ControlPacket};
use control::wire::ppp::{Frame, Protocol};
use dataplane::mppe::keys::{KeyStrength, StartKey};
use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};
use sim::capture::{Capture, ENCRYPTED_NAMES, Side};

const PASSWORD: &[u8] = b"mia123";

#[test]
fn pings_come_out_of_every_encrypted_capture() {
    for name in ENCRYPTED_NAMES {
        let capture = Capture::load(name);
        for (side, icmp_type) in [(Side::Client, ECHO_REQUEST), (Side::Server, ECHO_REPLY)] {
            let start_key = sender_start_key(&capture, side);
            let packets = deciphered(&capture, side, start_key);
            let pings = packets.iter().filter(|packet| is_ping(packet, icmp_type));
            assert_eq!(pings.count(), 3, "{name} {side:?}: {packets:02x?}");
            for packet in &packets {
                assert_is_ip(packet, name);
            }
        }
    }
}

#[test]
fn both_ends_derive_the_same_keys() {
    for name in ENCRYPTED_NAMES {
        let capture = Capture::load(name);
        let (client, server) = (keys(&capture, false), keys(&capture, true));
        assert_eq!(client.send.as_bytes(), server.receive.as_bytes(), "{name}");
        assert_eq!(client.receive.as_bytes(), server.send.as_bytes(), "{name}");
    }
}

#[test]
fn another_password_deciphers_nothing() {
    let capture = Capture::load("mppe128-stateless");
    let material = KeyMaterial::from_mschap_v2(b"mia124", &[0; 24]);
    let start_key = start_keys(&material, KeyStrength::Bits128, false).send;
    let packets = deciphered(&capture, Side::Client, start_key);
    assert!(!packets.iter().any(|packet| is_ping(packet, ECHO_REQUEST)));
}

#[test]
fn the_key_chain_here_is_that_of_rfc_3079() {
    // RFC 3079 3.5.1 to 3.5.3: start key, session key, and "test message" under it. In 3.5.2 the
    // RFC prints 58 for the last octet, which no RC4 gives under the key that it prints.
    for (strength, start, session, cipher) in [
        (
            KeyStrength::Bits40,
            "8B7CDC149B993A1B",
            "D1269EC49FA62E3E",
            "929137917E5803D668D75898",
        ),
        (
            KeyStrength::Bits56,
            "8B7CDC149B993A1B",
            "D15C00C49FA62E3E",
            "3F106833FA448DA842BC57B8",
        ),
        (
            KeyStrength::Bits128,
            "8B7CDC149B993A1BA118CB153F56DCCB",
            "405CB2247A7956E6E211007AE27B22D4",
            "81848317DF68846272FB5ABE",
        ),
    ] {
        let start = hex::decode(start).expect("hexadecimal");
        let mut padded = [0; 16];
        padded[..start.len()].copy_from_slice(&start);
        let chain = KeyChain::new(StartKey::new(strength, &padded));
        assert_eq!(hex::encode_upper(&chain.session_key), session);
        let mut text = *b"test message";
        rc4(&chain.session_key, &mut text);
        assert_eq!(hex::encode_upper(text), cipher);
    }
}

/// Session keys of one direction, one from another.
struct KeyChain {
    start_key: StartKey,
    session_key: Vec<u8>,
}

impl KeyChain {
    fn new(start_key: StartKey) -> Self {
        let mut chain = Self {
            session_key: start_key.as_bytes().to_vec(),
            start_key,
        };
        chain.session_key = chain.reduced(chain.new_key_from_sha());
        chain
    }

    /// RFC 3078 7.3: the digest, enciphered under itself.
    fn step(&mut self) {
        let key = self.new_key_from_sha();
        let mut session_key = key.clone();
        rc4(&key, &mut session_key);
        self.session_key = self.reduced(session_key);
    }

    /// `GetNewKeyFromSHA` (RFC 3079 3.4).
    fn new_key_from_sha(&self) -> Vec<u8> {
        let digest = Sha1::new()
            .chain_update(self.start_key.as_bytes())
            .chain_update([0x00; 40])
            .chain_update(&self.session_key)
            .chain_update([0xF2; 40])
            .finalize();
        digest[..self.start_key.strength().key_len()].to_vec()
    }

    /// Weak keys have their first octets fixed (RFC 3079 3.1 and 3.2).
    fn reduced(&self, mut key: Vec<u8>) -> Vec<u8> {
        match self.start_key.strength() {
            KeyStrength::Bits40 => key[..3].copy_from_slice(&[0xD1, 0x26, 0x9E]),
            KeyStrength::Bits56 => key[0] = 0xD1,
            KeyStrength::Bits128 => {}
        }
        key
    }
}

fn rc4(key: &[u8], text: &mut [u8]) {
    let mut cipher = Rc4::new_from_slice(key).expect("8 or 16 octets");
    cipher.apply_keystream(text);
}

fn keys(capture: &Capture, is_server: bool) -> StartKeys {
    let exchange = capture.chap_exchange();
    let material = if let Ok(challenge) = exchange.challenge[..].try_into() {
        MsChapV1Response::parse(&exchange.response).expect("49 octets");
        KeyMaterial::from_mschap_v1(PASSWORD, &challenge)
    } else {
        let response = MsChapV2Response::parse(&exchange.response).expect("49 octets");
        KeyMaterial::from_mschap_v2(PASSWORD, &response.nt_response)
    };
    start_keys(&material, agreed_strength(capture), is_server)
}

fn sender_start_key(capture: &Capture, side: Side) -> StartKey {
    keys(capture, side == Side::Server).send
}

/// What the peers acknowledged in CCP.
fn agreed_strength(capture: &Capture) -> KeyStrength {
    let bits = capture.gre.iter().find_map(|packet| {
        let frame = Frame::parse(&packet.frame).expect("peers speak PPP");
        let packet = ControlPacket::parse(frame.payload).ok()?;
        if frame.protocol != Protocol::CCP || packet.code != Code::CONFIGURE_ACK {
            return None;
        }
        match CcpOption::parse_all(packet.data).expect("options are whole")[..] {
            [CcpOption::Mppe(bits)] => Some(bits.0),
            _ => None,
        }
    });
    const BITS_40: u32 = MppeBits::STATELESS | MppeBits::BITS_40;
    const BITS_128: u32 = MppeBits::STATELESS | MppeBits::BITS_128;
    match bits {
        Some(BITS_40) => KeyStrength::Bits40,
        Some(BITS_128) => KeyStrength::Bits128,
        other => panic!("no capture has {other:?}"),
    }
}

/// What one side sent encrypted, in the clear, PPP Protocol field first. Every capture is
/// stateless: each packet has the key that follows that of the packet before (RFC 3078 7.1).
fn deciphered(capture: &Capture, side: Side, start_key: StartKey) -> Vec<Vec<u8>> {
    const FLUSHED_AND_ENCRYPTED: u16 = 0x9000;
    let mut chain = KeyChain::new(start_key);
    let mut packets = Vec::new();
    for frame in capture.frames(side) {
        let frame = Frame::parse(frame).expect("peers speak PPP");
        if frame.protocol != Protocol::COMPRESSED {
            continue;
        }
        let (header, cipher) = frame.payload.split_first_chunk().expect("an MPPE header");
        let count = u16::try_from(packets.len()).expect("a short capture");
        assert_eq!(u16::from_be_bytes(*header), FLUSHED_AND_ENCRYPTED | count);
        chain.step();
        let mut packet = cipher.to_vec();
        rc4(&chain.session_key, &mut packet);
        packets.push(packet);
    }
    packets
}

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// 20 octets of IP, 8 of ICMP, and 200 of which the first 16 are ping's time stamp.
fn is_ping(packet: &[u8], icmp_type: u8) -> bool {
    let frame = Frame::parse(packet);
    frame.is_ok_and(|frame| {
        frame.protocol == Protocol::IPV4
            && frame.payload.len() == 20 + 8 + 200
            && frame.payload[9] == 1
            && frame.payload[20] == icmp_type
            && frame.payload[20 + 8 + 16..]
                .iter()
                .all(|octet| *octet == 0x5A)
    })
}

#[track_caller]
fn assert_is_ip(packet: &[u8], name: &str) {
    let frame = Frame::parse(packet).expect("a Protocol field");
    let version = frame.payload[0] >> 4;
    let expected = match frame.protocol {
        Protocol::IPV4 => 4,
        Protocol::IPV6 => 6,
        other => panic!("{name}: {other:?} in {}", hex::encode(packet)),
    };
    assert_eq!(version, expected, "{name}");
}
