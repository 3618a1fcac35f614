//! A host that means harm, with a /16 of addresses of its own, beside the client and the server of
//! a lab: octets over TCP and raw sockets, written here by hand.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sim::lab::{Lab, Side};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The server's address on the attacker's side.
pub(crate) const TARGET: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
/// The client whose tunnel stands, whom the attacker pretends to be.
pub(crate) const VICTIM: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Where the victim's server is, for whoever pretends to be the victim.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const GATEWAY: &str = "10.79.0.2";
const GRE: i32 = 47;
const PATIENCE: Duration = Duration::from_secs(2);

/// One of the attacker's addresses.
pub(crate) const fn source(net: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, net, host)
}

/// The attacker's network namespace, joined to the server's.
pub(crate) struct Attacker {
    namespace: String,
}

impl Attacker {
    pub(crate) fn new(lab: &Lab) -> Self {
        let namespace = format!("pf-{}-evil", std::process::id());
        let attacker = Self { namespace };
        let name = &attacker.namespace;
        ip(&format!("netns add {name}"));
        lab.ip(
            Side::Server,
            &format!("link add evil type veth peer name evil netns {name}"),
        );
        lab.ip(Side::Server, &format!("address add {TARGET}/24 dev evil"));
        lab.ip(Side::Server, "link set evil up");
        lab.ip(
            Side::Server,
            &format!("route add 10.78.0.0/16 via {GATEWAY}"),
        );
        for words in [
            "link set lo up".to_owned(),
            format!("address add {GATEWAY}/24 dev evil"),
            "link set evil up".to_owned(),
            "route add local 10.78.0.0/16 dev lo".to_owned(),
            // Pretends to be the victim, and knows the way to its server.
            format!("route add {SERVER}/32 via {TARGET}"),
        ] {
            ip(&format!("-n {name} {words}"));
        }
        let filters = "for it in all evil; do echo 0 > /proc/sys/net/ipv4/conf/$it/rp_filter; done";
        let mut shell = lab.command(Side::Server, "sh");
        assert!(
            shell
                .args(["-c", filters])
                .status()
                .is_ok_and(|it| it.success())
        );
        attacker
    }

    /// Does harm in a thread of its own.
    pub(crate) fn starts<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = PathBuf::from("/run/netns").join(&self.namespace);
        std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).expect("the namespace has a file");
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("may enter");
            work()
        })
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let name = &self.namespace;
        let _ = Command::new("ip").args(["netns", "del", name]).status();
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(status.is_ok_and(|it| it.success()), "ip {words}");
}

/// A TCP connection from one of the attacker's addresses.
pub(crate) fn connect(from: Ipv4Addr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket.bind(&SocketAddrV4::new(from, 0).into()).ok()?;
    let server = SocketAddr::V4(SocketAddrV4::new(TARGET, 1723));
    socket.connect_timeout(&server.into(), PATIENCE).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(socket.into())
}

/// A control message: header (RFC 2637 2.1) and fields.
pub(crate) fn message(kind: u16, fields: &[u8]) -> Vec<u8> {
    let len = u16::try_from(12 + fields.len()).expect("short");
    let mut octets = len.to_be_bytes().to_vec();
    octets.extend([0, 1, 0x1A, 0x2B, 0x3C, 0x4D]);
    octets.extend(kind.to_be_bytes());
    octets.extend([0, 0]);
    octets.extend(fields);
    octets
}

/// Start-Control-Connection-Request, 156 octets.
pub(crate) fn start_request() -> Vec<u8> {
    let mut fields = vec![1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 1];
    fields.resize(144, b'x');
    message(1, &fields)
}

/// Outgoing-Call-Request, 168 octets.
pub(crate) fn call_request(call_id: u16) -> Vec<u8> {
    let mut fields = call_id.to_be_bytes().to_vec();
    fields.extend([0, 1, 0, 0, 1, 44, 5, 0xF5, 0xE1, 0, 0, 0, 0, 3, 0, 0, 0, 3]);
    fields.extend([0, 64, 0, 0, 0, 0, 0, 0]);
    fields.resize(156, 0);
    message(7, &fields)
}

/// Echo-Request.
pub(crate) fn echo_request() -> Vec<u8> {
    message(5, &[1, 2, 3, 4])
}

/// A PPP frame of a control protocol.
pub(crate) fn frame(protocol: u16, code: u8, id: u8, data: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xFF, 3];
    octets.extend(protocol.to_be_bytes());
    octets.extend([code, id]);
    octets.extend(u16::try_from(4 + data.len()).expect("short").to_be_bytes());
    octets.extend(data);
    octets
}

pub(crate) const LCP: u16 = 0xC021;
const PAP: u16 = 0xC023;
pub(crate) const CHAP: u16 = 0xC223;

/// A GRE packet (RFC 2637 4.1) with a sequence number.
pub(crate) fn gre(call_id: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut octets = vec![0x30, 0x01, 0x88, 0x0B];
    octets.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
    octets.extend(call_id.to_be_bytes());
    octets.extend(sequence.to_be_bytes());
    octets.extend(payload);
    octets
}

/// A raw socket for GRE from one of the attacker's addresses to the server.
pub(crate) fn gre_socket(from: Ipv4Addr) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(GRE))).ok()?;
    socket.bind(&SocketAddrV4::new(from, 0).into()).ok()?;
    let server = SockAddr::from(SocketAddrV4::new(TARGET, 0));
    socket.connect(&server).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    Some(socket)
}

/// A raw socket for packets whose IP header is given.
pub(crate) fn spoofing_socket() -> Option<Socket> {
    let raw = Protocol::from(nix::libc::IPPROTO_RAW);
    Socket::new(Domain::IPV4, Type::RAW, Some(raw)).ok()
}

/// Sends `payload` as protocol 47 from the victim to its server.
pub(crate) fn send_as_victim(socket: &Socket, payload: &[u8]) {
    let len = u16::try_from(20 + payload.len()).expect("short");
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, GRE as u8, 0, 0]);
    packet.extend(VICTIM.octets());
    packet.extend(SERVER.octets());
    packet.extend(payload);
    let to = SockAddr::from(SocketAddrV4::new(SERVER, 0));
    // The kernel fills in the checksum (raw(7)).
    let _ = socket.send_to(&packet, &to);
}

/// Somebody who calls, and goes as far as is told.
pub(crate) struct Caller {
    /// The call ends with it.
    _control: TcpStream,
    gre: Socket,
    call_id: u16,
    sequence: u32,
}

impl Caller {
    /// As far as an established call; `None` when it is refused.
    pub(crate) fn call(from: Ipv4Addr) -> Option<Self> {
        let gre = gre_socket(from)?;
        let mut tcp = connect(from)?;
        tcp.write_all(&start_request()).ok()?;
        let mut reply = [0; 156];
        tcp.read_exact(&mut reply).ok()?;
        tcp.write_all(&call_request(0x0777)).ok()?;
        let mut reply = [0; 32];
        tcp.read_exact(&mut reply).ok()?;
        let is_connected = reply[16] == 1;
        is_connected.then_some(Self {
            _control: tcp,
            gre,
            call_id: u16::from_be_bytes([reply[12], reply[13]]),
            sequence: 0,
        })
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        let packet = gre(self.call_id, self.sequence, frame);
        self.sequence += 1;
        let _ = self.gre.send(&packet);
    }

    /// The next PPP frame that comes.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut packet = [0; 2048];
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let len = self.gre.read(&mut packet).ok()?;
            let header = usize::from(packet[0] & 0x0F) * 4;
            let gre = packet.get(header..len)?;
            let payload = usize::from(u16::from_be_bytes([gre[4], gre[5]]));
            let has = |octet: usize, bit: u8| usize::from(gre[octet] & bit != 0) * 4;
            let start = 8 + has(0, 0x10) + has(1, 0x80);
            if payload > 0 {
                return Some(gre.get(start..start + payload)?.to_vec());
            }
        }
        None
    }

    /// Opens LCP, with PAP as the proof that is to be given when `wants_pap`.
    pub(crate) fn open_lcp(&mut self, wants_pap: bool) -> bool {
        self.send(&frame(LCP, 1, 1, &[]));
        let (mut ours, mut theirs, mut has_asked) = (false, false, !wants_pap);
        while !(ours && theirs) {
            let Some(heard) = self.receive() else {
                return false;
            };
            match heard.get(..6) {
                Some([0xFF, 3, 0xC0, 0x21, 1, _]) if has_asked => {
                    let mut answer = heard.clone();
                    answer[4] = 2;
                    theirs = true;
                    self.send(&answer);
                }
                Some([0xFF, 3, 0xC0, 0x21, 1, id]) => {
                    has_asked = true;
                    self.send(&frame(LCP, 3, *id, &[3, 4, 0xC0, 0x23]));
                }
                Some([0xFF, 3, 0xC0, 0x21, 2, _]) => ours = true,
                _ => {}
            }
        }
        true
    }

    /// Gives a wrong proof under this name; whether that was answered with a Failure.
    pub(crate) fn fails_to_log_in(&mut self, name: &str) -> bool {
        while let Some(heard) = self.receive() {
            match heard.get(..6) {
                Some([0xFF, 3, 0xC2, 0x23, 1, id]) => {
                    let mut response = vec![49];
                    response.extend([7; 49]);
                    response.extend(name.as_bytes());
                    self.send(&frame(CHAP, 2, *id, &response));
                }
                Some([0xFF, 3, 0xC2, 0x23, 4, _]) => return true,
                _ => {}
            }
        }
        false
    }

    /// Proves by PAP who it is.
    pub(crate) fn log_in(&mut self, name: &str, password: &str) -> bool {
        let mut data = vec![u8::try_from(name.len()).expect("short")];
        data.extend(name.as_bytes());
        data.push(u8::try_from(password.len()).expect("short"));
        data.extend(password.as_bytes());
        self.send(&frame(PAP, 1, 1, &data));
        while let Some(heard) = self.receive() {
            if heard.starts_with(&[0xFF, 3, 0xC0, 0x23]) {
                return heard[4] == 2;
            }
        }
        false
    }
}
