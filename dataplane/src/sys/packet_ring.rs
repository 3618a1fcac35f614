//! The packet ring that GRE is received through on the fast path (Linux `packet(7)`, TPACKET_V2;
//! `Documentation/networking/packet_mmap.rst`).
//!
//! The kernel copies each packet that a filter lets in into a frame of memory that it shares with
//! the worker. There is no system call for a packet, and no wake-up while the worker looks by
//! itself. The ring has two ends: the worker has [`PacketRing`], and control has its [`Gate`],
//! which says what is let in. At first that is nothing.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use crate::limits::{INFORMATION_BYTES_MAX, RING_FRAMES, SLOT_BYTES};
use crate::wire::ipv4::{HEADER_LEN, PROTOCOL_GRE};

/// Where the IPv4 header begins in a frame: `TPACKET2_HDRLEN`, aligned to 16, and 16 octets that
/// the kernel leaves for a link-layer header.
pub const PACKET_OFFSET: usize = libc::TPACKET2_HDRLEN.next_multiple_of(16) + 16;

/// Places that packets are let in from. Each is looked for in turn.
pub const PLACES_MAX: usize = 16;

/// Octets that the kernel allocates at once: whole pages, whatever their size.
const BLOCK_BYTES: usize = 1 << 16;

/// `PACKET_HOST`: addressed to this host by its link-layer address.
const PACKET_HOST: u32 = 0;

/// Version 4, and a header without options.
const PLAIN_HEADER: u32 = 0x45;

/// More Fragments, and the fragment offset (RFC 791 3.1).
const FRAGMENT_MASK: u32 = 0x3FFF;

/// K bit and version of enhanced GRE (RFC 2637 4.1), and their mask.
const KEY_AND_VERSION: u32 = 0x2001;
const KEY_AND_VERSION_MASK: u32 = 0x2007;

/// Protocol type of enhanced GRE: PPP.
const PROTOCOL_PPP: u32 = 0x880B;

/// Why there is no packet ring. The raw socket does its work then.
#[derive(Debug, thiserror::Error)]
pub enum PacketRingError {
    /// The process may not open packet sockets.
    #[error("not permitted to open a packet ring: this needs the capability CAP_NET_RAW")]
    NotPermitted,
    /// Anything else.
    #[error("cannot {action}: {source}")]
    Other {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Packets for an address of this host that arrive through an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index of the interface.
    pub interface: u32,
    /// Destination of the outer IPv4 header.
    pub address: Ipv4Addr,
}

/// The worker's end.
#[derive(Debug)]
pub struct PacketRing {
    socket: OwnedFd,
}

/// Control's end. The ring is closed when both ends are.
#[derive(Debug)]
pub struct Gate {
    socket: OwnedFd,
    index: u16,
    count: u16,
    is_bound: bool,
}

/// Opens the ring of worker `index` of `count` in the network namespace of the calling thread:
/// `RING_FRAMES` frames of `SLOT_BYTES` octets. Nothing is let in.
///
/// # Errors
/// See [`PacketRingError`].
pub fn open(index: u16, count: u16) -> Result<(PacketRing, Gate), PacketRingError> {
    // Protocol 0: it receives nothing until the gate binds it.
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::PACKET, kind, None).map_err(classify_open)?;
    let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
    set_option(&socket, libc::PACKET_VERSION, &version).map_err(other("set the ring's version"))?;
    let yes: libc::c_int = 1;
    set_option(&socket, libc::PACKET_IGNORE_OUTGOING, &yes)
        .map_err(other("leave out what this host sends"))?;
    let frames = usize::from(RING_FRAMES);
    let request = libc::tpacket_req {
        tp_block_size: BLOCK_BYTES as libc::c_uint,
        tp_block_nr: (frames * SLOT_BYTES / BLOCK_BYTES) as libc::c_uint,
        tp_frame_size: SLOT_BYTES as libc::c_uint,
        tp_frame_nr: frames as libc::c_uint,
    };
    set_option(&socket, libc::PACKET_RX_RING, &request).map_err(other("make a packet ring"))?;
    let socket = OwnedFd::from(socket);
    let gate = Gate {
        socket: socket.try_clone().map_err(other("share the packet ring"))?,
        index,
        count,
        is_bound: false,
    };
    gate.attach(&[])
        .map_err(other("attach the packet ring's filter"))?;
    Ok((PacketRing { socket }, gate))
}

impl PacketRing {
    /// Packets for which no frame was free since the last call.
    pub fn drops(&self) -> u32 {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and pointer and length describe `statistics`, which
        // outlives the call.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut len,
            )
        };
        if result == 0 { statistics.tp_drops } else { 0 }
    }

    /// Takes a pending error away: the socket stays readable for as long as there is one.
    pub fn clear_error(&self) {
        let _ = getsockopt(&self.socket, sockopt::SocketError);
    }
}

impl AsFd for PacketRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Gate {
    /// Lets in what comes from these places, `PLACES_MAX` at most, and nothing else: whole IPv4
    /// packets of enhanced GRE, addressed to this host and untagged, with a call ID of the
    /// worker. What is in the ring already stays there.
    ///
    /// # Errors
    /// In the kernel's words; nothing is let in then that was not before.
    pub fn admit(&mut self, places: &[Place]) -> io::Result<()> {
        self.attach(places)?;
        if !self.is_bound && !places.is_empty() {
            // ETH_P_ALL: such sockets are served before netfilter's ingress hook, where the packet
            // may be kept from the IP stack.
            bind(&self.socket, libc::ETH_P_ALL as u16)?;
            self.is_bound = true;
        }
        Ok(())
    }

    fn attach(&self, places: &[Place]) -> io::Result<()> {
        let program = filter(self.index, self.count, places);
        let program: Vec<SockFilter> = program
            .into_iter()
            .map(|op| SockFilter::new(op.code, op.if_true, op.if_false, op.k))
            .collect();
        SockRef::from(&self.socket).attach_filter(&program)
    }
}

fn bind(socket: &OwnedFd, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: protocol.to_be(),
        // Of all interfaces: the filter chooses, and none that goes down leaves an error here.
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the descriptor is open, and pointer and length describe `address`, which outlives the
    // call; the kernel only reads it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// `T` is a type without padding that the kernel knows the option by.
fn set_option<T>(socket: &Socket, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the descriptor is open, and pointer and length describe `value`, which outlives the
    // call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// One instruction of classic BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Op {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

/// A distance that is not known yet.
const TO_ACCEPT: u8 = u8::MAX;
const TO_DROP: u8 = u8::MAX - 1;

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
const IS_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const HAS_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// What worker `index` of `count` lets in from these places. Offset 0 is the IPv4 header.
fn filter(index: u16, count: u16, places: &[Place]) -> Vec<Op> {
    const GRE: u32 = HEADER_LEN as u32;
    let about = |what: libc::c_int| (libc::SKF_AD_OFF + what).cast_unsigned();
    let op = |code: u32, k: u32| jump(code, k, 0, 0);
    let require = |k: u32| jump(IS_EQUAL, k, 0, TO_DROP);
    let mut program = vec![
        op(LOAD_HALF, about(libc::SKF_AD_PROTOCOL)),
        require(libc::ETH_P_IP as u32),
        op(LOAD_BYTE, 9),
        require(u32::from(PROTOCOL_GRE)),
        op(LOAD_WORD, about(libc::SKF_AD_PKTTYPE)),
        require(PACKET_HOST),
        op(LOAD_WORD, about(libc::SKF_AD_VLAN_TAG_PRESENT)),
        require(0),
        op(LOAD_BYTE, 0),
        require(PLAIN_HEADER),
        op(LOAD_HALF, 6),
        jump(HAS_BITS, FRAGMENT_MASK, TO_DROP, 0),
        op(LOAD_HALF, GRE),
        op(AND, KEY_AND_VERSION_MASK),
        require(KEY_AND_VERSION),
        op(LOAD_HALF, GRE + 2),
        require(PROTOCOL_PPP),
        // The key field is payload length, then call ID, 16 bits each.
        op(LOAD_HALF, GRE + 6),
        op(MODULO, u32::from(count.max(1))),
        require(u32::from(index)),
    ];
    for place in places.iter().take(PLACES_MAX) {
        program.extend([
            op(LOAD_WORD, about(libc::SKF_AD_IFINDEX)),
            jump(IS_EQUAL, place.interface, 0, 2),
            op(LOAD_WORD, 16),
            jump(IS_EQUAL, place.address.to_bits(), TO_ACCEPT, 0),
        ]);
    }
    let drop_at = program.len();
    for (at, op) in program.iter_mut().enumerate() {
        let resolve = |distance: u8| match distance {
            TO_DROP => (drop_at - at - 1) as u8,
            TO_ACCEPT => (drop_at - at) as u8,
            known => known,
        };
        (op.if_true, op.if_false) = (resolve(op.if_true), resolve(op.if_false));
    }
    program.extend([op(RETURN, 0), op(RETURN, u32::MAX)]);
    program
}

const fn jump(code: u32, k: u32, if_true: u8, if_false: u8) -> Op {
    Op {
        code: code as u16,
        if_true,
        if_false,
        k,
    }
}

fn classify_open(source: io::Error) -> PacketRingError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => PacketRingError::NotPermitted,
        _ => other("open a packet socket")(source),
    }
}

fn other(action: &'static str) -> impl FnOnce(io::Error) -> PacketRingError {
    move |source| PacketRingError::Other { action, source }
}

// No packet is cut that may be sent to us: IPv4, GRE, FF 03, protocol, and what was announced.
const _: () = assert!(PACKET_OFFSET + HEADER_LEN + 20 + INFORMATION_BYTES_MAX <= SLOT_BYTES);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(SLOT_BYTES));
const _: () = assert!((RING_FRAMES as usize * SLOT_BYTES).is_multiple_of(BLOCK_BYTES));
const _: () = assert!(20 + 4 * PLACES_MAX < TO_DROP as usize);

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place {
        interface: 3,
        address: Ipv4Addr::new(192, 0, 2, 1),
    };

    /// A packet, and what the kernel knows of it.
    #[derive(Clone)]
    struct Arrival {
        octets: Vec<u8>,
        protocol: u32,
        kind: u32,
        tagged: u32,
        interface: u32,
    }

    impl Arrival {
        /// GRE of call 7 from 192.0.2.9: header (RFC 791 3.1), then RFC 2637 4.1.
        fn plain() -> Self {
            let mut octets = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 47, 0, 0];
            octets.extend([192, 0, 2, 9, 192, 0, 2, 1]);
            octets.extend([0x30, 0x01, 0x88, 0x0B, 0, 4, 0, 7, 0, 0, 0, 1, 1, 2, 3, 4]);
            Self {
                octets,
                protocol: 0x0800,
                kind: 0,
                tagged: 0,
                interface: 3,
            }
        }

        fn with(at: usize, octet: u8) -> Self {
            let mut arrival = Self::plain();
            arrival.octets[at] = octet;
            arrival
        }

        fn load(&self, at: u32, len: usize) -> Option<u32> {
            match at.cast_signed() - libc::SKF_AD_OFF {
                0 => return Some(self.protocol),
                4 => return Some(self.kind),
                8 => return Some(self.interface),
                48 => return Some(self.tagged),
                _ => {}
            }
            let octets = self.octets.get(at as usize..at as usize + len)?;
            Some(octets.iter().fold(0, |sum, it| sum << 8 | u32::from(*it)))
        }
    }

    /// Classic BPF (Linux `Documentation/networking/filter.rst`), as much of it as is used.
    fn lets_in(program: &[Op], arrival: &Arrival) -> bool {
        let (mut at, mut a) = (0, 0);
        loop {
            let Op {
                code,
                if_true,
                if_false,
                k,
            } = program[at];
            at += 1;
            let mut jump = |is_so: bool| at += usize::from(if is_so { if_true } else { if_false });
            let loaded = match u32::from(code) {
                LOAD_BYTE => arrival.load(k, 1),
                LOAD_HALF => arrival.load(k, 2),
                LOAD_WORD => arrival.load(k, 4),
                AND => Some(a & k),
                MODULO => Some(a % k),
                RETURN => return k != 0,
                code => {
                    match code {
                        IS_EQUAL => jump(a == k),
                        HAS_BITS => jump(a & k != 0),
                        _ => panic!("{code:#x}"),
                    }
                    Some(a)
                }
            };
            let Some(value) = loaded else { return false };
            a = value;
        }
    }

    fn is_let_in(arrival: &Arrival) -> bool {
        lets_in(&filter(0, 1, &[HERE]), arrival)
    }

    #[test]
    fn enhanced_gre_for_us_is_let_in_and_nothing_else() {
        assert!(is_let_in(&Arrival::plain()));
        // IP options, UDP, another destination, GRE without key, of version 0, of protocol IP.
        for (at, octet) in [(0, 0x46), (9, 17), (19, 2), (20, 0x10), (21, 0), (23, 0)] {
            assert!(!is_let_in(&Arrival::with(at, octet)), "{at} {octet}");
        }
        // The acknowledgment bit does not matter.
        assert!(is_let_in(&Arrival::with(21, 0x81)));
        for cut in 0..28 {
            let mut arrival = Arrival::plain();
            arrival.octets.truncate(cut);
            assert!(!is_let_in(&arrival), "{cut} octets");
        }
    }

    #[test]
    fn fragments_are_left_to_the_raw_socket() {
        for (at, octet) in [(6, 0x20), (6, 0x01), (7, 1)] {
            assert!(!is_let_in(&Arrival::with(at, octet)));
        }
        // Don't Fragment does not make one.
        assert!(is_let_in(&Arrival::with(6, 0x40)));
    }

    #[test]
    fn what_is_not_for_this_host_or_has_a_tag_is_not_let_in() {
        let plain = Arrival::plain();
        let not = |change: fn(&mut Arrival)| {
            let mut arrival = plain.clone();
            change(&mut arrival);
            assert!(!is_let_in(&arrival));
        };
        not(|it| it.kind = libc::PACKET_OTHERHOST.into());
        not(|it| it.kind = libc::PACKET_OUTGOING.into());
        not(|it| it.tagged = 1);
        not(|it| it.interface = 4);
        not(|it| it.protocol = 0x86DD);
    }

    #[test]
    fn each_worker_has_its_calls_from_all_places() {
        let places: Vec<Place> = (0..PLACES_MAX as u32 + 1)
            .map(|n| Place {
                interface: n + 1,
                address: Ipv4Addr::from_bits(n),
            })
            .collect();
        for place in &places {
            for call in 0..4 {
                let mut arrival = Arrival::with(27, call);
                arrival.interface = place.interface;
                arrival.octets[16..20].copy_from_slice(&place.address.octets());
                for index in 0..3 {
                    let expected = u16::from(call) % 3 == index && *place != places[PLACES_MAX];
                    let is_let_in = lets_in(&filter(index, 3, &places), &arrival);
                    assert_eq!(is_let_in, expected, "{place:?} {call} {index}");
                }
            }
        }
        assert!(!lets_in(&filter(0, 1, &[]), &Arrival::plain()));
    }

    #[test]
    fn a_refusal_names_the_capability() {
        let error = classify_open(io::Error::from(Errno::EPERM));
        assert!(error.to_string().contains("CAP_NET_RAW"));
    }
}
