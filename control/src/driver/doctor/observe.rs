//! What went over the control connection and over GRE, as it is known so far.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dataplane::program::CallId;

use super::super::engine::{Direction, Input, Trace};
use super::super::transport::TransportInput;
use super::report::Phase;
use crate::proto::Action;
use crate::proto::ending::Ending;
use crate::proto::link::{Network, Report};
use crate::wire::cp::{Code, ConfigOption, ControlPacket};
use crate::wire::log as packet_log;
use crate::wire::ppp::{Frame, Protocol};
use crate::wire::pptp::messages::Message;
use crate::wire::pptp::next_message;

/// Frames that are kept: a negotiation takes some forty.
const FRAMES_MAX: usize = 400;
/// Echo-Replies that may wait.
const ECHOES_MAX: usize = 256;
/// Octets that are kept of what came over the control connection.
const STREAM_BYTES_MAX: usize = 4_096;
/// Lines of one protocol that are shown for each direction.
const LINES_MAX: usize = 8;
/// Octets that are shown of a CHAP value.
const VALUE_SHOWN: usize = 4;

/// One negotiation frame.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) direction: Direction,
    pub(super) at: Instant,
    pub(super) frame: Vec<u8>,
}

/// Frames in the order in which they passed.
pub(super) type Frames = Rc<RefCell<Vec<Seen>>>;

/// Identifiers of LCP Echo-Replies that nobody has looked at yet.
pub(super) type Echoes = Rc<RefCell<VecDeque<u8>>>;

/// Keeps negotiation frames in `frames`, and echoes apart.
pub(super) fn trace_to(frames: &Frames, echoes: &Echoes) -> Trace {
    let (frames, echoes) = (Rc::clone(frames), Rc::clone(echoes));
    Box::new(move |_, direction, frame| {
        if let Some(id) = echo_reply(frame).filter(|_| direction == Direction::Rcvd) {
            let mut echoes = echoes.borrow_mut();
            echoes.truncate(ECHOES_MAX);
            echoes.push_back(id);
            return;
        }
        let mut frames = frames.borrow_mut();
        if frames.len() < FRAMES_MAX {
            frames.push(Seen {
                direction,
                at: Instant::now(),
                frame: frame.to_vec(),
            });
        }
    })
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// TCP stands, after so long.
    pub(super) connected: Option<Duration>,
    /// TCP is gone, with the operating system's words when not in order.
    pub(super) disconnected: Option<Option<String>>,
    pub(super) control_sent: Vec<Message>,
    pub(super) control_received: Vec<Message>,
    /// The beginning of what came, whatever it is.
    pub(super) stream: Vec<u8>,
    unread: Vec<u8>,
    pub(super) call_id: Option<CallId>,
    pub(super) call_stands: bool,
    /// The server has our GRE packets, as GRE itself says.
    pub(super) is_acknowledged: bool,
    pub(super) link_is_up: bool,
    pub(super) network_phase: bool,
    pub(super) cipher: Option<String>,
    pub(super) network: Option<Network>,
    pub(super) ending: Option<Ending>,
    pub(super) is_idle: bool,
    pub(super) frames: Frames,
    pub(super) echoes: Echoes,
    /// The phase at the last look.
    known_phase: Option<Phase>,
    has_looked: bool,
}

impl Observed {
    pub(super) fn new(frames: Frames, echoes: Echoes) -> Self {
        Self {
            frames,
            echoes,
            ..Self::default()
        }
    }

    /// What happened, before the engine is told; `begun` is when TCP was asked for.
    pub(super) fn input(&mut self, input: &Input, begun: Instant) {
        match input {
            Input::Transport(TransportInput::Connected { .. }) => {
                self.connected = Some(begun.elapsed());
            }
            Input::Transport(TransportInput::Bytes { bytes, .. }) => self.bytes(bytes),
            Input::Transport(TransportInput::Disconnected { error, .. }) => {
                self.disconnected.get_or_insert_with(|| error.clone());
            }
            _ => {}
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let room = STREAM_BYTES_MAX.saturating_sub(self.stream.len());
        self.stream.extend(bytes.iter().take(room));
        self.unread.extend(bytes.iter().take(room));
        while let Ok(Some((message, len))) = next_message(&self.unread) {
            self.unread.drain(..len);
            if let Message::OutgoingCallReply(reply) = &message {
                use crate::wire::pptp::codes::OutgoingCallResult;
                self.call_stands |= reply.result == OutgoingCallResult::CONNECTED;
            }
            self.control_received.push(message);
        }
    }

    /// What the engine does about it.
    pub(super) fn action(&mut self, action: &Action) {
        match action {
            Action::SendControl { bytes, .. } => {
                if let Ok(Some((message, _))) = next_message(bytes) {
                    self.control_sent.push(message);
                }
            }
            Action::Install { call_id, .. } => self.call_id = Some(*call_id),
            Action::Report { report, .. } => match report {
                Report::LinkUp => self.link_is_up = true,
                Report::NetworkPhase => self.network_phase = true,
                Report::CipherUp(words) => self.cipher = Some(words.clone()),
                _ => {}
            },
            Action::NetworkUp { network, .. } => self.network = Some(network.clone()),
            Action::Ended { ending, .. } | Action::DialFailed { ending, .. } => {
                self.ending.get_or_insert_with(|| ending.clone());
            }
            Action::Idle => self.is_idle = true,
            _ => {}
        }
    }

    /// The phase of the negotiation that is not over yet; `None` when all are.
    pub(super) fn phase(&self) -> Option<Phase> {
        let is_answered = self.is_acknowledged || self.any(Direction::Rcvd, answers);
        [
            (self.connected.is_some(), Phase::Tcp),
            (self.call_id.is_some(), Phase::Control),
            (self.call_stands, Phase::Call),
            (is_answered, Phase::Gre),
            (self.link_is_up, Phase::Lcp),
            (self.network_phase, Phase::Authentication),
            (
                self.cipher.is_some() || self.network.is_some(),
                Phase::Encryption,
            ),
            (self.network.is_some(), Phase::Addresses),
        ]
        .into_iter()
        .find_map(|(is_over, phase)| (!is_over).then_some(phase))
    }

    /// An echo was answered.
    pub(super) fn take_echo(&self) -> Option<u8> {
        self.echoes.borrow_mut().pop_front()
    }

    /// Whether another phase has begun, or the end has come, since the last time.
    pub(super) fn has_news(&mut self) -> bool {
        let phase = self.phase();
        let is_news = self.has_looked && phase != self.known_phase;
        self.known_phase = phase;
        self.has_looked = true;
        is_news
    }

    fn any(&self, direction: Direction, mut is_it: impl FnMut(&Frame<'_>) -> bool) -> bool {
        let frames = self.frames.borrow();
        let mut of_direction = frames.iter().filter(|seen| seen.direction == direction);
        of_direction.any(|seen| Frame::parse(&seen.frame).is_ok_and(|frame| is_it(&frame)))
    }

    /// When the first frame came, after the first that was sent.
    pub(super) fn first_answer(&self) -> Option<Duration> {
        let frames = self.frames.borrow();
        let first = |direction| frames.iter().find(|seen| seen.direction == direction);
        let (sent, came) = (first(Direction::Sent)?, first(Direction::Rcvd)?);
        Some(came.at.saturating_duration_since(sent.at))
    }

    /// How many frames went that way.
    pub(super) fn count(&self, direction: Direction) -> usize {
        let frames = self.frames.borrow();
        frames.iter().filter(|it| it.direction == direction).count()
    }

    /// Frames of some protocols in one direction, in pppd's words; repetitions are counted.
    pub(super) fn lines(&self, direction: Direction, protocols: &[Protocol]) -> Vec<String> {
        let frames = self.frames.borrow();
        let mut lines: Vec<(String, usize)> = Vec::new();
        for seen in frames.iter().filter(|seen| seen.direction == direction) {
            let Ok(frame) = Frame::parse(&seen.frame) else {
                continue;
            };
            if !protocols.contains(&frame.protocol) || is_echo(&frame) {
                continue;
            }
            let description = packet_log::describe(&seen.frame).shorten_values(VALUE_SHOWN);
            let line = description.to_string();
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, times)) => *times += 1,
                None => lines.push((line, 1)),
            }
        }
        let more = lines.len().saturating_sub(LINES_MAX);
        let mut shown: Vec<String> = lines
            .into_iter()
            .take(LINES_MAX)
            .map(|(line, times)| match times {
                1 => line,
                times => format!("{line} ({times} times)"),
            })
            .collect();
        if more > 0 {
            shown.push(format!("and {more} more"));
        }
        shown
    }

    /// Options of every Configure packet of this code that went this way, the latest last.
    pub(super) fn options<O: ConfigOption>(
        &self,
        direction: Direction,
        protocol: Protocol,
        code: Code,
    ) -> Vec<O> {
        let frames = self.frames.borrow();
        let mut options = Vec::new();
        for seen in frames.iter().filter(|seen| seen.direction == direction) {
            let Ok(frame) = Frame::parse(&seen.frame) else {
                continue;
            };
            let packet = ControlPacket::parse(frame.payload);
            let packet = packet.ok().filter(|_| frame.protocol == protocol);
            let Some(packet) = packet.filter(|packet| packet.code == code) else {
                continue;
            };
            let parsed = packet.options().map_while(Result::ok);
            options.extend(parsed.map(|option| O::parse(option.kind, option.data)));
        }
        options
    }

    /// Payloads of one protocol in one direction.
    pub(super) fn payloads(&self, direction: Direction, protocol: Protocol) -> Vec<Vec<u8>> {
        let frames = self.frames.borrow();
        let of_direction = frames.iter().filter(|seen| seen.direction == direction);
        of_direction
            .filter_map(|seen| Frame::parse(&seen.frame).ok())
            .filter(|frame| frame.protocol == protocol)
            .map(|frame| frame.payload.to_vec())
            .collect()
    }

    /// The other end refused a whole protocol with an LCP Protocol-Reject.
    pub(super) fn is_rejected(&self, protocol: Protocol) -> bool {
        let is_it = |payload: &Vec<u8>| {
            let packet = ControlPacket::parse(payload).ok();
            packet.is_some_and(|packet| {
                packet.code == Code::PROTOCOL_REJECT
                    && packet.data.starts_with(&protocol.0.to_be_bytes())
            })
        };
        let received = self.payloads(Direction::Rcvd, Protocol::LCP);
        received.iter().any(is_it)
    }
}

/// Whether a frame shows that ours have arrived: a server begins LCP by itself.
fn answers(frame: &Frame<'_>) -> bool {
    let code = frame.payload.first().copied().map(Code);
    frame.protocol != Protocol::LCP || code != Some(Code::CONFIGURE_REQUEST)
}

/// The identifier of an LCP Echo-Reply.
fn echo_reply(frame: &[u8]) -> Option<u8> {
    let frame = Frame::parse(frame).ok()?;
    match frame.payload {
        [code, id, ..] if frame.protocol == Protocol::LCP && Code(*code) == Code::ECHO_REPLY => {
            Some(*id)
        }
        _ => None,
    }
}

/// Echoes would hide the negotiation.
fn is_echo(frame: &Frame<'_>) -> bool {
    let code = frame.payload.first().copied().map(Code);
    frame.protocol == Protocol::LCP && matches!(code, Some(Code::ECHO_REQUEST | Code::ECHO_REPLY))
}
