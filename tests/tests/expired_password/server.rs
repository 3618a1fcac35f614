//! A PPTP server that lets a password expire (RFC 2759 6 and 7), which ours does not: as much of
//! PPTP and PPP as one client without encryption needs, written down step by step.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use control::crypto::challenge_response::{check_nt_response, generate_authenticator_response};
use control::crypto::change_password::{
    PASSWORD_BLOCK_LEN, old_nt_password_hash_encrypted_with_new_nt_password_hash,
};
use control::crypto::nt_hash::nt_password_hash;
use control::wire::chap::{ChapPacket, MsChapV2Response};
use control::wire::cp::{Code, ControlPacket};
use control::wire::ppp::{self, Frame, HeaderCompression, Protocol};
use control::wire::pptp::codes::{
    DisconnectResult, EchoResult, ErrorCode, OutgoingCallResult, StartResult, StopResult,
};
use control::wire::pptp::messages::{
    CallDisconnectNotify, EchoReply, OutgoingCallReply, StartControlConnectionReply,
    StopControlConnectionReply,
};
use control::wire::pptp::{self, Message, Text};
use dataplane::mppe::rc4::Rc4;
use dataplane::wire::gre::GreRepr;
use sim::lab::{Lab, SERVER, Side};
use socket2::{Domain, Socket, Type};

const GRE: i32 = 47;
const CALL_ID: u16 = 77;
const NAME: &[u8] = b"zidler";
const LOCAL: [u8; 4] = [192, 168, 254, 230];
const REMOTE: [u8; 4] = [192, 168, 254, 231];
/// Of the first Challenge, and of the one in the Failure.
const CHALLENGES: [[u8; 16]; 2] = [*b"[]|}{?/><,`!2&&(", *b"!@\\#$%^&*()_+:3|"];
/// How long a socket is listened to before the other.
const TURN: Duration = Duration::from_millis(10);

/// What the server knows and has seen.
#[derive(Debug)]
pub(crate) struct Account {
    pub password: &'static str,
    pub has_expired: bool,
    /// The only new password that it takes.
    pub acceptable: &'static str,
    /// Responses with the right password, and others.
    pub log_ins: u32,
    pub wrong_log_ins: u32,
    /// Change-Password packets.
    pub changes: u32,
}

/// The server, until it is dropped.
pub(crate) struct Server {
    account: Arc<Mutex<Account>>,
    hangs_up: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(lab: &Lab, account: Account) -> Self {
        let account = Arc::new(Mutex::new(account));
        let (hangs_up, is_over) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let line = (
            Arc::clone(&account),
            Arc::clone(&hangs_up),
            Arc::clone(&is_over),
        );
        let thread = lab.in_namespace(Side::Server, move || {
            let address: Ipv4Addr = SERVER.parse().expect("an address");
            let listener = TcpListener::bind(SocketAddrV4::new(address, pptp::PORT));
            let listener = listener.expect("the port is free");
            listener.set_nonblocking(true).expect("a listener");
            ready.send(()).expect("somebody waits");
            let (account, hangs_up, is_over) = line;
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((stream, peer)) = listener.accept() {
                    hangs_up.store(false, Ordering::Relaxed);
                    let std::net::IpAddr::V4(peer) = peer.ip() else {
                        continue;
                    };
                    let call = Call::new(stream, peer, Arc::clone(&account));
                    call.serve(&|| {
                        hangs_up.load(Ordering::Relaxed) || is_over.load(Ordering::Relaxed)
                    });
                }
                std::thread::sleep(TURN);
            }
        });
        is_ready.recv().expect("it listens");
        Self {
            account,
            hangs_up,
            is_over,
            thread: Some(thread),
        }
    }

    /// Closes the control connection, as a server does that is started anew.
    pub(crate) fn hang_up(&self) {
        self.hangs_up.store(true, Ordering::Relaxed);
    }

    /// Right log-ins, wrong ones, changes of the password.
    pub(crate) fn seen(&self) -> (u32, u32, u32) {
        let account = self.account.lock().expect("no panic");
        (account.log_ins, account.wrong_log_ins, account.changes)
    }

    pub(crate) fn password(&self) -> &'static str {
        self.account.lock().expect("no panic").password
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("the server does not panic");
        }
    }
}

/// One control connection with its one call.
struct Call {
    stream: TcpStream,
    gre: Socket,
    peer: Ipv4Addr,
    peer_call_id: u16,
    sequence: u32,
    received: Vec<u8>,
    account: Arc<Mutex<Account>>,
    /// Our LCP request is acknowledged, and theirs.
    lcp: [bool; 2],
}

impl Call {
    fn new(stream: TcpStream, peer: Ipv4Addr, account: Arc<Mutex<Account>>) -> Self {
        stream.set_nonblocking(false).expect("a stream");
        stream.set_read_timeout(Some(TURN)).expect("a stream");
        let gre = Socket::new(Domain::IPV4, Type::RAW, Some(GRE.into())).expect("we are root");
        gre.set_read_timeout(Some(TURN)).expect("a socket");
        Self {
            stream,
            gre,
            peer,
            peer_call_id: 0,
            sequence: 0,
            received: Vec::new(),
            account,
            lcp: [false; 2],
        }
    }

    fn serve(mut self, is_over: &dyn Fn() -> bool) {
        let mut piece = [0; 2048];
        while !is_over() {
            match self.stream.read(&mut piece) {
                Ok(0) => return,
                Ok(len) => self.received.extend(&piece[..len]),
                Err(_) => {}
            }
            while let Ok(Some((message, len))) = pptp::next_message(&self.received) {
                self.received.drain(..len);
                self.control(&message);
            }
            while let Ok(len) = self.gre.read(&mut piece) {
                self.packet(&piece[..len]);
            }
        }
    }

    fn control(&mut self, message: &Message) {
        let answer: Message = match message {
            Message::StartControlConnectionRequest(request) => StartControlConnectionReply {
                version: request.version,
                result: StartResult::SUCCESSFUL,
                error: ErrorCode::NONE,
                framing: request.framing,
                bearer: request.bearer,
                maximum_channels: 1,
                firmware_revision: 0,
                host_name: Text::new("zidler"),
                vendor_name: Text::new("test"),
            }
            .into(),
            Message::OutgoingCallRequest(request) => {
                self.peer_call_id = request.call_id;
                OutgoingCallReply {
                    call_id: CALL_ID,
                    peer_call_id: request.call_id,
                    result: OutgoingCallResult::CONNECTED,
                    error: ErrorCode::NONE,
                    cause_code: 0,
                    connect_speed: 100_000_000,
                    receive_window: 64,
                    processing_delay: 0,
                    physical_channel_id: 0,
                }
                .into()
            }
            Message::EchoRequest(request) => EchoReply {
                identifier: request.identifier,
                result: EchoResult::OK,
                error: ErrorCode::NONE,
            }
            .into(),
            Message::CallClearRequest(_) => CallDisconnectNotify {
                call_id: CALL_ID,
                result: DisconnectResult::REQUEST,
                error: ErrorCode::NONE,
                cause_code: 0,
                call_statistics: Text::EMPTY,
            }
            .into(),
            Message::StopControlConnectionRequest(_) => StopControlConnectionReply {
                result: StopResult::OK,
                error: ErrorCode::NONE,
            }
            .into(),
            _ => return,
        };
        // The client may have gone already.
        let _ = self.stream.write_all(&answer.to_bytes());
        if matches!(message, Message::OutgoingCallRequest(_)) {
            self.request_lcp();
        }
    }

    /// MS-CHAPv2, and a magic number.
    fn request_lcp(&mut self) {
        let options = [3, 5, 0xC2, 0x23, 0x81, 5, 6, 1, 2, 3, 4];
        self.configure(Protocol::LCP, Code::CONFIGURE_REQUEST, 1, &options);
    }

    /// An IP packet with GRE in it.
    fn packet(&mut self, packet: &[u8]) {
        let header_len = usize::from(packet[0] & 0x0F) * 4;
        let Ok(gre) = GreRepr::parse(&packet[header_len..]) else {
            return;
        };
        let payload = &packet[header_len + gre.header_len()..];
        let Ok(frame) = Frame::parse(payload) else {
            return;
        };
        if gre.call_id != CALL_ID || gre.payload_len == 0 {
            return;
        }
        match frame.protocol {
            Protocol::LCP => self.handle_lcp(frame.payload),
            Protocol::CHAP => self.handle_chap(frame.payload),
            Protocol::IPCP => self.handle_ipcp(frame.payload),
            Protocol::IPV4 => self.answer_ping(frame.payload),
            _ => {}
        }
    }

    fn handle_lcp(&mut self, payload: &[u8]) {
        let packet = ControlPacket::parse(payload).expect("our client speaks LCP");
        let before = self.lcp;
        match packet.code {
            Code::CONFIGURE_REQUEST => {
                self.configure(Protocol::LCP, Code::CONFIGURE_ACK, packet.id, packet.data);
                self.lcp[1] = true;
            }
            Code::CONFIGURE_ACK => self.lcp[0] = true,
            Code::ECHO_REQUEST => {
                self.configure(Protocol::LCP, Code::ECHO_REPLY, packet.id, &[1, 2, 3, 4]);
            }
            Code::TERMINATE_REQUEST => {
                self.configure(Protocol::LCP, Code::TERMINATE_ACK, packet.id, &[]);
            }
            _ => {}
        }
        if self.lcp == [true; 2] && before != [true; 2] {
            self.chap(&ChapPacket::Challenge {
                id: 1,
                value: &CHALLENGES[0],
                name: NAME,
            });
        }
    }

    fn handle_chap(&mut self, payload: &[u8]) {
        match ChapPacket::parse(payload).expect("our client speaks CHAP") {
            ChapPacket::Response { id, value, name } => self.judge_response(id, value, name),
            ChapPacket::Other { code: 7, id, data } => self.judge_change(id, data),
            other => panic!("{other:?} is no answer"),
        }
    }

    fn judge_response(&mut self, id: u8, value: &[u8], name: &[u8]) {
        let response = MsChapV2Response::parse(value).expect("49 octets");
        let account = Arc::clone(&self.account);
        let mut account = account.lock().expect("no panic");
        let (password, peer_challenge) = (account.password.as_bytes(), &response.peer_challenge);
        let nt_response = &response.nt_response;
        if !check_nt_response(&CHALLENGES[0], peer_challenge, name, password, nt_response) {
            account.wrong_log_ins += 1;
            return self.refuse(id, "E=691 R=0", "Access denied");
        }
        account.log_ins += 1;
        if account.has_expired {
            self.refuse(id, "E=648 R=0", "Your password has expired");
        } else {
            self.accept(id, &CHALLENGES[0], &response, password);
        }
    }

    /// RFC 2759 7, field by field: Encrypted-Password (516), Encrypted-Hash (16), Peer-Challenge
    /// (16), Reserved (8), NT-Response (24), Flags (2).
    fn judge_change(&mut self, id: u8, data: &[u8]) {
        assert_eq!(data.len(), 582);
        let account = Arc::clone(&self.account);
        let mut account = account.lock().expect("no panic");
        account.changes += 1;
        let old = account.password.as_bytes();
        let mut block: [u8; PASSWORD_BLOCK_LEN] = data[..516].try_into().expect("516 octets");
        Rc4::new(&nt_password_hash(old)).apply(&mut block);
        let len = u32::from_le_bytes(block[512..].try_into().expect("4 octets")) as usize;
        let new: Vec<u8> = block[512 - len..512].iter().step_by(2).copied().collect();
        if new != account.acceptable.as_bytes() {
            return self.refuse(id, "E=709 R=0", "Too simple");
        }
        let hash = old_nt_password_hash_encrypted_with_new_nt_password_hash(&new, old);
        assert_eq!(data[516..532], hash);
        // Shaped as in a Response, but for the second octet of the flags.
        let response = MsChapV2Response::parse(&data[532..581]).expect("49 octets");
        let (peer_challenge, nt_response) = (&response.peer_challenge, &response.nt_response);
        assert!(check_nt_response(
            &CHALLENGES[1],
            peer_challenge,
            b"mia",
            &new,
            nt_response
        ));
        account.password = account.acceptable;
        account.has_expired = false;
        self.accept(id, &CHALLENGES[1], &response, &new);
    }

    fn refuse(&mut self, id: u8, code: &str, words: &str) {
        let challenge: String = CHALLENGES[1]
            .iter()
            .map(|octet| format!("{octet:02X}"))
            .collect();
        let message = format!("{code} C={challenge} V=3 M={words}");
        self.chap(&ChapPacket::Failure {
            id,
            message: message.as_bytes(),
        });
    }

    fn accept(
        &mut self,
        id: u8,
        challenge: &[u8; 16],
        response: &MsChapV2Response,
        password: &[u8],
    ) {
        let proof = generate_authenticator_response(
            password,
            &response.nt_response,
            &response.peer_challenge,
            challenge,
            b"mia",
        );
        let message = format!("{proof} M=Welcome");
        self.chap(&ChapPacket::Success {
            id,
            message: message.as_bytes(),
        });
        let address = [&[3, 6], &LOCAL[..]].concat();
        self.configure(Protocol::IPCP, Code::CONFIGURE_REQUEST, 1, &address);
    }

    fn handle_ipcp(&mut self, payload: &[u8]) {
        let packet = ControlPacket::parse(payload).expect("our client speaks IPCP");
        if packet.code != Code::CONFIGURE_REQUEST {
            return;
        }
        let due = [&[3, 6], &REMOTE[..]].concat();
        let code = if packet.data == due {
            Code::CONFIGURE_ACK
        } else {
            Code::CONFIGURE_NAK
        };
        self.configure(Protocol::IPCP, code, packet.id, &due);
    }

    /// The addresses change places, which leaves their checksum as it is.
    fn answer_ping(&mut self, packet: &[u8]) {
        let mut answer = packet.to_vec();
        let (is_icmp, is_request) = (packet[9] == 1, packet[20] == 8);
        if !is_icmp || !is_request {
            return;
        }
        answer[12..16].copy_from_slice(&packet[16..20]);
        answer[16..20].copy_from_slice(&packet[12..16]);
        answer[20] = 0;
        answer[22..24].fill(0);
        let sum: u32 = answer[20..]
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
            .sum();
        let folded = (sum & 0xFFFF) + (sum >> 16);
        let folded = (folded & 0xFFFF) + (folded >> 16);
        let checksum = !u16::try_from(folded).expect("folded twice");
        answer[22..24].copy_from_slice(&checksum.to_be_bytes());
        self.send(Protocol::IPV4, &answer);
    }

    fn chap(&mut self, packet: &ChapPacket<'_>) {
        self.send(Protocol::CHAP, &packet.to_bytes());
    }

    fn configure(&mut self, protocol: Protocol, code: Code, id: u8, data: &[u8]) {
        self.send(protocol, &ControlPacket { code, id, data }.to_bytes());
    }

    fn send(&mut self, protocol: Protocol, payload: &[u8]) {
        let frame = ppp::frame(protocol, payload, HeaderCompression::default());
        let gre = GreRepr {
            call_id: self.peer_call_id,
            payload_len: u16::try_from(frame.len()).expect("a short frame"),
            sequence: Some(self.sequence),
            acknowledgment: None,
        };
        self.sequence += 1;
        let mut packet = vec![0; gre.header_len()];
        gre.emit(&mut packet);
        packet.extend_from_slice(&frame);
        let to = SocketAddrV4::new(self.peer, 0).into();
        let _ = self.gre.send_to(&packet, &to);
    }
}
