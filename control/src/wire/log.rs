//! How a PPP packet reads in a log: pppd's grammar, word for word, since that is what people and
//! their scripts know. `[LCP ConfReq id=0x1 <asyncmap 0x0> <magic 0x7b5dca0e>]`
//!
//! A line ends after [`LINE_LEN_MAX`] octets, as pppd's does, and is printable ASCII whatever the
//! frame holds. A PAP password is never shown.

use std::fmt::{self, Display, Write};

use super::ccp::CcpOption;
use super::chap::ChapPacket;
use super::cp::{Code, ConfigOption, ControlPacket};
use super::eap::EapPacket;
use super::ipcp::IpcpOption;
use super::ipv6cp::Ipv6cpOption;
use super::lcp::LcpOption;
use super::pap::PapPacket;
use super::ppp::{Frame, Protocol};

/// pppd's line buffer has 1023 octets, of which `sent ` takes five.
pub const LINE_LEN_MAX: usize = 1018;
/// Octets in hexadecimal that are shown of what is not understood.
const REST_LEN_MAX: usize = 32;
/// Octets in hexadecimal that are shown of user data.
const DATA_LEN_MAX: usize = 8;

/// Prints a PPP frame, with or without Address and Control fields, as pppd's `debug` does.
#[must_use]
pub const fn describe(frame: &[u8]) -> Description<'_> {
    Description {
        frame,
        value_len_max: usize::MAX,
    }
}

/// What [`describe`] gives.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    frame: &'a [u8],
    value_len_max: usize,
}

impl Description<'_> {
    /// Shortens CHAP values of more than `octets` octets to that many and `...`.
    #[must_use]
    pub const fn shorten_values(mut self, octets: usize) -> Self {
        self.value_len_max = octets;
        self
    }

    fn print(self, w: &mut Line<'_, '_>) -> fmt::Result {
        let Ok(frame) = Frame::parse(self.frame) else {
            return w.octets(self.frame, REST_LEN_MAX);
        };
        let payload = frame.payload;
        match frame.protocol {
            Protocol::LCP => w.control::<LcpOption>("LCP", &LCP_CODES, payload),
            Protocol::CCP => w.control::<CcpOption>("CCP", &CCP_CODES, payload),
            Protocol::IPCP => w.control::<IpcpOption>("IPCP", &NCP_CODES, payload),
            Protocol::IPV6CP => w.control::<Ipv6cpOption>("IPV6CP", &NCP_CODES, payload),
            Protocol::CHAP => w.chap(payload, self.value_len_max),
            Protocol::PAP => w.pap(payload),
            Protocol::EAP => w.eap(payload),
            Protocol::IPV4 => w.data("IP", payload),
            Protocol::IPV6 => w.data("IPV6", payload),
            Protocol::COMPRESSED => w.data("Compressed", payload),
            Protocol(other) => {
                write!(w, "[proto={other:#x}]")?;
                w.octets(payload, REST_LEN_MAX)
            }
        }
    }
}

impl Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line {
            out: f,
            left: LINE_LEN_MAX,
        };
        match self.print(&mut line) {
            // The line is full: that is its end and nobody's mistake.
            Err(fmt::Error) if line.left == 0 => Ok(()),
            result => result,
        }
    }
}

/// Names of codes from 1 on; an empty one has no name.
const LCP_CODES: [&str; 13] = [
    "ConfReq", "ConfAck", "ConfNak", "ConfRej", "TermReq", "TermAck", "CodeRej", "ProtRej",
    "EchoReq", "EchoRep", "DiscReq", "Ident", "TimeRem",
];
const CCP_CODES: [&str; 15] = [
    "ConfReq", "ConfAck", "ConfNak", "ConfRej", "TermReq", "TermAck", "CodeRej", "", "", "", "",
    "", "", "ResetReq", "ResetAck",
];
const NCP_CODES: [&str; 7] = [
    "ConfReq", "ConfAck", "ConfNak", "ConfRej", "TermReq", "TermAck", "CodeRej",
];
const PAP_CODES: [&str; 3] = ["AuthReq", "AuthAck", "AuthNak"];
const EAP_CODES: [&str; 4] = ["Request", "Response", "Success", "Failure"];
const EAP_TYPES: [&str; 26] = [
    "Identity",
    "Notification",
    "Nak",
    "MD5-Challenge",
    "OTP",
    "Generic-Token",
    "",
    "",
    "RSA",
    "DSS",
    "KEA",
    "KEA-Validate",
    "TLS",
    "Defender",
    "Windows 2000",
    "Arcot",
    "Cisco",
    "Nokia",
    "SRP",
    "",
    "TTLS",
    "RAS",
    "AKA",
    "3COM",
    "PEAP",
    "MSCHAPv2",
];

fn name_of<'a>(names: &[&'a str], number: u8) -> Option<&'a str> {
    let index = usize::from(number).checked_sub(1)?;
    names.get(index).copied().filter(|name| !name.is_empty())
}

/// A line that takes only so much, and is an error to write to when it is full.
struct Line<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl Write for Line<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // All that is written here is ASCII, so that any place is one to cut at.
        let kept = text.get(..self.left).unwrap_or(text);
        self.left = self.left.saturating_sub(kept.len());
        self.out.write_str(kept)?;
        if self.left == 0 {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

impl Line<'_, '_> {
    /// ` xx` each, at most `count_max` of them.
    fn octets(&mut self, octets: &[u8], count_max: usize) -> fmt::Result {
        let shown = octets.get(..count_max).unwrap_or(octets);
        write!(self, "{}", Octets(shown))?;
        if shown.len() < octets.len() {
            self.write_str(" ...")?;
        }
        Ok(())
    }

    fn data(&mut self, name: &str, payload: &[u8]) -> fmt::Result {
        write!(self, "[{name} data]")?;
        self.octets(payload, DATA_LEN_MAX)
    }

    fn code(&mut self, names: &[&str], code: u8, id: u8) -> fmt::Result {
        match name_of(names, code) {
            Some(name) => write!(self, " {name}"),
            None => write!(self, " code={code:#x}"),
        }?;
        write!(self, " id={id:#x}")
    }

    fn control<O: ConfigOption + Display>(
        &mut self,
        protocol: &str,
        codes: &[&str],
        payload: &[u8],
    ) -> fmt::Result {
        write!(self, "[{protocol}")?;
        let Ok(packet) = ControlPacket::parse(payload) else {
            self.write_char(']')?;
            return self.octets(payload, REST_LEN_MAX);
        };
        self.code(codes, packet.code.0, packet.id)?;
        let rest = match packet.code {
            Code::CONFIGURE_REQUEST
            | Code::CONFIGURE_ACK
            | Code::CONFIGURE_NAK
            | Code::CONFIGURE_REJECT => self.options::<O>(packet)?,
            Code::TERMINATE_REQUEST | Code::TERMINATE_ACK => self.reason(protocol, packet.data)?,
            _ if protocol == "LCP" => self.lcp_data(packet)?,
            _ => packet.data,
        };
        self.octets(rest, REST_LEN_MAX)?;
        self.write_char(']')?;
        self.padding(payload, packet)
    }

    /// What stands behind the packet in its frame.
    fn padding(&mut self, payload: &[u8], packet: ControlPacket<'_>) -> fmt::Result {
        let padding = payload.get(packet.buffer_len()..).unwrap_or(&[]);
        self.octets(padding, REST_LEN_MAX)
    }

    /// Gives back what does not parse.
    fn options<'p, O: ConfigOption + Display>(
        &mut self,
        packet: ControlPacket<'p>,
    ) -> Result<&'p [u8], fmt::Error> {
        let mut options = packet.options();
        loop {
            let rest = options.rest();
            match options.next() {
                Some(Ok(option)) => write!(self, " {}", O::parse(option.kind, option.data))?,
                Some(Err(_)) => return Ok(rest),
                None => return Ok(&[]),
            }
        }
    }

    /// Text where there is any. CCP has no space in front of it, in pppd and so here.
    fn reason<'p>(&mut self, protocol: &str, data: &'p [u8]) -> Result<&'p [u8], fmt::Error> {
        if !data
            .first()
            .is_some_and(|first| (b' '..=b'~').contains(first))
        {
            return Ok(data);
        }
        if protocol != "CCP" {
            self.write_char(' ')?;
        }
        write!(self, "{}", Quoted(data))?;
        Ok(&[])
    }

    /// What the codes that only LCP has carry.
    fn lcp_data<'p>(&mut self, packet: ControlPacket<'p>) -> Result<&'p [u8], fmt::Error> {
        let has_magic = matches!(
            packet.code,
            Code::ECHO_REQUEST
                | Code::ECHO_REPLY
                | Code::DISCARD_REQUEST
                | Code::IDENTIFICATION
                | Code::TIME_REMAINING
        );
        let mut rest = packet.data;
        if has_magic && let Some((magic, behind)) = rest.split_first_chunk() {
            write!(self, " magic={:#x}", u32::from_be_bytes(*magic))?;
            rest = behind;
        }
        if packet.code == Code::TIME_REMAINING {
            let Some((seconds, behind)) = rest.split_first_chunk() else {
                return Ok(rest);
            };
            write!(self, " seconds={}", u32::from_be_bytes(*seconds))?;
            rest = behind;
        }
        let has_text = matches!(packet.code, Code::IDENTIFICATION | Code::TIME_REMAINING);
        if has_text && !rest.is_empty() {
            write!(self, " {}", Quoted(rest))?;
            rest = &[];
        }
        Ok(rest)
    }

    fn chap(&mut self, payload: &[u8], value_len_max: usize) -> fmt::Result {
        self.write_str("[CHAP")?;
        let Ok(packet) = ChapPacket::parse(payload) else {
            self.write_char(']')?;
            return self.octets(payload, REST_LEN_MAX);
        };
        match packet {
            ChapPacket::Challenge { id, value, name } => {
                write!(self, " Challenge id={id:#x}")?;
                self.chap_value(value, name, value_len_max)?;
            }
            ChapPacket::Response { id, value, name } => {
                write!(self, " Response id={id:#x}")?;
                self.chap_value(value, name, value_len_max)?;
            }
            ChapPacket::Success { id, message } => {
                write!(self, " Success id={id:#x} {}", Quoted(message))?;
            }
            ChapPacket::Failure { id, message } => {
                write!(self, " Failure id={id:#x} {}", Quoted(message))?;
            }
            ChapPacket::Other { code, id, data } => {
                self.code(&[], code, id)?;
                self.octets(data, REST_LEN_MAX)?;
            }
        }
        self.write_char(']')?;
        let padding = payload.get(packet.buffer_len()..).unwrap_or(&[]);
        self.octets(padding, REST_LEN_MAX)
    }

    fn chap_value(&mut self, value: &[u8], name: &[u8], len_max: usize) -> fmt::Result {
        let shown = value.get(..len_max).unwrap_or(value);
        self.write_str(" <")?;
        for octet in shown {
            write!(self, "{octet:02x}")?;
        }
        if shown.len() < value.len() {
            self.write_str("...")?;
        }
        write!(self, ">, name = {}", Quoted(name))
    }

    /// Whatever does not parse is left out here, as a password may be in it.
    fn pap(&mut self, payload: &[u8]) -> fmt::Result {
        self.write_str("[PAP")?;
        if let Ok(packet) = ControlPacket::parse(payload) {
            self.code(&PAP_CODES, packet.code.0, packet.id)?;
        }
        match PapPacket::parse(payload) {
            Ok(PapPacket::AuthenticateRequest { peer_id, .. }) => {
                write!(self, " user={} password=<hidden>", Quoted(peer_id))?;
            }
            Ok(
                PapPacket::AuthenticateAck { message, .. }
                | PapPacket::AuthenticateNak { message, .. },
            ) => write!(self, " {}", Quoted(message))?,
            Err(_) => {}
        }
        self.write_char(']')
    }

    fn eap(&mut self, payload: &[u8]) -> fmt::Result {
        self.write_str("[EAP")?;
        let Ok(packet) = EapPacket::parse(payload) else {
            self.write_char(']')?;
            return self.octets(payload, REST_LEN_MAX);
        };
        self.code(&EAP_CODES, packet.code, packet.id)?;
        if let Some(kind) = packet.kind {
            match name_of(&EAP_TYPES, kind) {
                Some(name) => write!(self, " {name}"),
                None => write!(self, " type={kind:#x}"),
            }?;
        }
        self.octets(packet.data, REST_LEN_MAX)?;
        self.write_char(']')
    }
}

/// Octets as ` xx` each.
pub(super) struct Octets<'a>(pub(super) &'a [u8]);

impl Display for Octets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|octet| write!(f, " {octet:02x}"))
    }
}

/// An option that has no name, or not the length that its name promises: `< kk ll xx xx>`.
pub(super) fn nameless_option(f: &mut fmt::Formatter<'_>, kind: u8, data: &[u8]) -> fmt::Result {
    write!(f, "< {kind:02x} {:02x}{}>", data.len() + 2, Octets(data))
}

/// Text in quotes, with what is not printable ASCII escaped.
struct Quoted<'a>(&'a [u8]);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for octet in self.0 {
            match octet {
                b'"' | b'\\' => write!(f, "\\{}", char::from(*octet)),
                b' '..=b'~' => f.write_char(char::from(*octet)),
                b'\n' => f.write_str("\\n"),
                b'\r' => f.write_str("\\r"),
                b'\t' => f.write_str("\\t"),
                other => write!(f, "\\{other:03o}"),
            }?;
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frame of a packet, its protocol's number in front.
    #[track_caller]
    fn assert_reads(protocol: Protocol, packet: &[u8], line: &str) {
        let frame = [&[0xFF, 0x03], &protocol.0.to_be_bytes()[..], packet].concat();
        assert_eq!(describe(&frame).to_string(), line);
        // With Address and Control left out it reads the same.
        assert_eq!(describe(&frame[2..]).to_string(), line);
    }

    #[test]
    fn every_lcp_option_has_its_name() {
        let options = [
            &[1, 4, 0x05, 0x78][..],
            &[2, 6, 0xFF, 0xFF, 0xFF, 0xFF],
            &[3, 4, 0xC0, 0x23],
            &[3, 5, 0xC2, 0x23, 0x05],
            &[3, 5, 0xC2, 0x23, 0x80],
            &[3, 5, 0xC2, 0x23, 0x06],
            &[3, 4, 0xC2, 0x27],
            &[4, 8, 0xC0, 0x25, 0, 0, 0, 9],
            &[7, 2],
            &[8, 2],
            &[13, 3, 6],
            &[17, 4, 0x05, 0xDC],
            &[18, 2],
            &[19, 9, 3, 0, 1, 2, 3, 4, 5],
            &[19, 7, 2, 10, 0, 0, 1],
            &[19, 5, 1, 0xAB, 0xCD],
            // Of a known kind, but too short; and of no known kind.
            &[1, 3, 5],
            &[40, 3, 7],
        ]
        .concat();
        let mut packet = vec![4, 9, 0, u8::try_from(options.len() + 4).expect("short")];
        packet.extend(options);
        assert_reads(
            Protocol::LCP,
            &packet,
            "[LCP ConfRej id=0x9 <mru 1400> <asyncmap 0xffffffff> <auth pap> <auth chap MD5> \
             <auth chap MS> <auth chap 06> <auth eap> <quality lqr 00 00 00 09> <pcomp> <accomp> \
             <callback CBCP> <mrru 1500> <ssnhf> <endpoint [MAC:00:01:02:03:04:05]> \
             <endpoint [IP:10.0.0.1]> <endpoint [local:ab.cd]> < 01 03 05> < 28 03 07>]",
        );
    }

    #[test]
    fn malformed_options_end_the_list_in_hexadecimal() {
        assert_reads(
            Protocol::LCP,
            &[1, 1, 0, 9, 7, 2, 5, 6, 1],
            "[LCP ConfReq id=0x1 <pcomp> 05 06 01]",
        );
    }

    #[test]
    fn lcp_codes_beyond_configuration() {
        let cases: [(&[u8], &str); 7] = [
            (
                &[8, 2, 0, 10, 0x80, 0xFD, 1, 1, 0, 4],
                "[LCP ProtRej id=0x2 80 fd 01 01 00 04]",
            ),
            (&[7, 3, 0, 6, 0x0F, 0x01], "[LCP CodeRej id=0x3 0f 01]"),
            (
                &[11, 4, 0, 9, 0, 0, 0, 5, 6],
                "[LCP DiscReq id=0x4 magic=0x5 06]",
            ),
            (
                &[12, 1, 0, 10, 0, 0, 0, 5, b'H', b'"'],
                r#"[LCP Ident id=0x1 magic=0x5 "H\""]"#,
            ),
            (
                &[13, 1, 0, 13, 0, 0, 0, 5, 0, 0, 0, 60, b'!'],
                r#"[LCP TimeRem id=0x1 magic=0x5 seconds=60 "!"]"#,
            ),
            // The reason for an end is text when it begins like one.
            (&[5, 1, 0, 6, 0x00, 0x41], "[LCP TermReq id=0x1 00 41]"),
            (&[99, 1, 0, 4], "[LCP code=0x63 id=0x1]"),
        ];
        for (packet, line) in cases {
            assert_reads(Protocol::LCP, packet, line);
        }
    }

    #[test]
    fn ccp_options_and_resets() {
        assert_reads(
            Protocol::CCP,
            &[
                1, 1, 0, 28, 18, 6, 1, 0, 0, 0xE1, 18, 6, 0, 2, 0, 0x60, 1, 2, 26, 4, 0x79, 1, 21,
                3, 0x2F, 17, 3, 0xAA,
            ],
            "[CCP ConfReq id=0x1 <mppe +H +M +S +L -D +C> \
             <mppe -H -M +S +L -D -C +U (00 02 00 60)> <predictor 1> \
             <deflate 15 method 9 check 1> <bsd v1 15> < 11 03 aa>]",
        );
        assert_reads(Protocol::CCP, &[14, 7, 0, 4], "[CCP ResetReq id=0x7]");
        assert_reads(Protocol::CCP, &[15, 7, 0, 4], "[CCP ResetAck id=0x7]");
        // LCP's codes are none of CCP's.
        assert_reads(
            Protocol::CCP,
            &[9, 7, 0, 8, 0, 0, 0, 1],
            "[CCP code=0x9 id=0x7 00 00 00 01]",
        );
        assert_reads(
            Protocol::CCP,
            &[5, 2, 0, 6, b'n', b'o'],
            r#"[CCP TermReq id=0x2"no"]"#,
        );
    }

    #[test]
    fn ipcp_options() {
        assert_reads(
            Protocol::IPCP,
            &[
                1, 1, 0, 36, 1, 10, 10, 0, 0, 1, 10, 0, 0, 2, 2, 6, 0, 0x2D, 15, 1, 2, 4, 0, 0x61,
                130, 6, 10, 0, 0, 3, 132, 6, 10, 0, 0, 4,
            ],
            "[IPCP ConfReq id=0x1 <addrs 10.0.0.1 10.0.0.2> <compress VJ 0f 01> <compress 0x61> \
             <ms-wins 10.0.0.3> <ms-wins 10.0.0.4>]",
        );
    }

    #[test]
    fn what_is_not_text_is_escaped_in_octal() {
        assert_reads(
            Protocol::CHAP,
            b"\x03\x01\x00\x0d\x1b[2J\n\r\t\\\xff",
            r#"[CHAP Success id=0x1 "\033[2J\n\r\t\\\377"]"#,
        );
    }

    #[test]
    fn eap_names_its_types() {
        assert_reads(
            Protocol::EAP,
            &[1, 5, 0, 5, 1],
            "[EAP Request id=0x5 Identity]",
        );
        assert_reads(
            Protocol::EAP,
            &[2, 5, 0, 6, 99, 7],
            "[EAP Response id=0x5 type=0x63 07]",
        );
        assert_reads(Protocol::EAP, &[3, 5, 0, 4], "[EAP Success id=0x5]");
    }

    #[test]
    fn padding_stands_behind_the_bracket() {
        assert_reads(
            Protocol::LCP,
            &[6, 1, 0, 4, 0, 0],
            "[LCP TermAck id=0x1] 00 00",
        );
    }

    #[test]
    fn user_data_and_unknown_protocols_are_cut_short() {
        assert_reads(
            Protocol::COMPRESSED,
            &[0x90, 0, 1, 2, 3, 4, 5, 6, 7, 8],
            "[Compressed data] 90 00 01 02 03 04 05 06 ...",
        );
        assert_reads(Protocol(0xC029), &[1, 2], "[proto=0xc029] 01 02");
        let line = format!("[proto=0x8207]{} ...", " aa".repeat(32));
        assert_reads(Protocol(0x8207), &[0xAA; 33], &line);
    }

    #[test]
    fn a_line_ends_where_that_of_pppd_does() {
        let mut packet = vec![3, 1, 0x10, 0x04];
        packet.extend([b'x'; 4096]);
        let frame = [&[0xFF, 0x03, 0xC2, 0x23], &packet[..]].concat();
        let line = describe(&frame).to_string();
        assert_eq!(line.len(), LINE_LEN_MAX);
        assert!(line.starts_with("[CHAP Success id=0x1 \"xxx"));
    }

    #[test]
    fn a_malformed_pap_request_shows_nothing() {
        assert_reads(
            Protocol::PAP,
            b"\x01\x01\x00\x0c\x03mia\x09mia",
            "[PAP AuthReq id=0x1]",
        );
        assert_reads(Protocol::PAP, b"mia123", "[PAP]");
    }
}
