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
        self.left -= kept.len();
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
        match PapPacket::parse(payload) {
            Ok(PapPacket::AuthenticateRequest { id, peer_id, .. }) => write!(
                self,
                " AuthReq id={id:#x} user={} password=<hidden>",
                Quoted(peer_id)
            )?,
            Ok(PapPacket::AuthenticateAck { id, message }) => {
                write!(self, " AuthAck id={id:#x} {}", Quoted(message))?;
            }
            Ok(PapPacket::AuthenticateNak { id, message }) => {
                write!(self, " AuthNak id={id:#x} {}", Quoted(message))?;
            }
            Err(_) => {
                if let Ok(packet) = ControlPacket::parse(payload) {
                    self.code(&[], packet.code.0, packet.id)?;
                }
            }
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
