//! The raw GRE socket of one worker (RFC 2637 4.1; Linux `raw(7)`, `bpf(4)` for the filter).
//!
//! Every raw socket of protocol 47 is given every GRE packet of the host, so with n workers each
//! would read the others' packets only to drop them. A classic BPF filter on the socket does this
//! in the kernel, before a packet is queued.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// IP protocol number of GRE (RFC 1700).
pub const IPPROTO_GRE: i32 = 47;

/// Octets that the kernel may queue for us: 4 MiB, some 2000 full packets, 8 ms of a full gigabit,
/// while the worker is off its processor.
const RECEIVE_QUEUE_BYTES: usize = 4 << 20;

/// Octets that may wait for the network device. More would only add delay.
const SEND_QUEUE_BYTES: usize = 1 << 20;

/// Key present, version 1 (RFC 2637 4.1: the K bit and the Ver field of the first 16 bits).
const KEY_AND_VERSION: u32 = 0x2001;

/// Mask of `KEY_AND_VERSION`.
const KEY_AND_VERSION_MASK: u32 = 0x2007;

/// Protocol type of enhanced GRE: PPP (RFC 2637 4.1).
const PROTOCOL_PPP: u32 = 0x880B;

/// Why there is no GRE socket. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum GreSocketError {
    /// The process may not open raw sockets.
    #[error(
        "not permitted to open a raw GRE socket: this needs the capability CAP_NET_RAW; run as \
         root, or grant it with `setcap cap_net_admin,cap_net_raw+ep` or `docker run --cap-add \
         NET_RAW`"
    )]
    NotPermitted,
    /// Marking packets needs a capability of its own.
    #[error(
        "not permitted to set the firewall mark {mark:#x}: this needs the capability \
         CAP_NET_ADMIN; run as root, or leave the mark out"
    )]
    MarkNotPermitted {
        /// The mark that was asked for.
        mark: u32,
    },
    /// The local address is not one of this host.
    #[error(
        "cannot send from {local}: it is not an address of this host (or of this network \
         namespace); `ip -4 address` lists them"
    )]
    NotLocal {
        /// The address that was asked for.
        local: Ipv4Addr,
    },
    /// Anything else.
    #[error("cannot {action}: {source}")]
    Other {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What the socket of one worker is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreSocketConfig {
    /// Which worker this is, from 0.
    pub index: u16,
    /// How many there are, at least 1: packets whose call ID modulo this is `index` are received.
    pub count: u16,
    /// Address of this host to which packets must be sent, and from which ours go out.
    pub local: Option<Ipv4Addr>,
    /// Firewall mark (`SO_MARK`) of what is sent, for policy routing.
    pub mark: Option<u32>,
}

/// Opens the socket in the network namespace of the calling thread. While it is open the kernel
/// answers no GRE packet with an ICMP protocol-unreachable, so it stays open as long as the worker.
///
/// Packets are sent without Don't Fragment: PPTP has no way to lower the MTU of the tunnel when a
/// router on the way complains.
///
/// # Errors
/// See [`GreSocketError`].
pub fn open(config: &GreSocketConfig) -> Result<OwnedFd, GreSocketError> {
    debug_assert!(config.index < config.count);
    let kind = Type::RAW.nonblocking().cloexec();
    let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::from(IPPROTO_GRE)))
        .map_err(classify_open)?;
    let filter = shard_filter(config.index, config.count);
    socket
        .attach_filter(&filter)
        .map_err(other("attach the GRE filter"))?;
    enlarge_queues(&socket)?;
    set_path_mtu_discovery(&socket, libc::IP_PMTUDISC_DONT)
        .map_err(other("clear Don't Fragment"))?;
    if let Some(mark) = config.mark {
        socket
            .set_mark(mark)
            .map_err(|source| classify_mark(mark, source))?;
    }
    if let Some(local) = config.local {
        socket
            .bind(&SocketAddrV4::new(local, 0).into())
            .map_err(|source| classify_bind(local, source))?;
    }
    Ok(socket.into())
}

/// Lets nothing into the queue of the socket until [`listen`].
///
/// # Errors
/// The kernel refuses the filter.
pub fn deafen(socket: BorrowedFd<'_>) -> io::Result<()> {
    let nothing = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    SockRef::from(&socket).attach_filter(&[nothing])
}

/// Lets the packets of worker `index` of `count` into the queue of the socket.
///
/// # Errors
/// The kernel refuses the filter.
pub fn listen(socket: BorrowedFd<'_>, index: u16, count: u16) -> io::Result<()> {
    SockRef::from(&socket).attach_filter(&shard_filter(index, count))
}

/// Takes what the kernel allows: beyond `net.core.rmem_max` only with CAP_NET_ADMIN.
fn enlarge_queues(socket: &Socket) -> Result<(), GreSocketError> {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_QUEUE_BYTES).is_err() {
        socket
            .set_recv_buffer_size(RECEIVE_QUEUE_BYTES)
            .map_err(other("enlarge the receive queue"))?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &SEND_QUEUE_BYTES).is_err() {
        socket
            .set_send_buffer_size(SEND_QUEUE_BYTES)
            .map_err(other("enlarge the send queue"))?;
    }
    Ok(())
}

/// Octets that the kernel may queue for us with so many sessions. Each has a few packets on the way
/// whatever is done, and does not slow down before it loses some.
const fn receive_queue_bytes(sessions: usize) -> usize {
    let times = 1 + sessions / 128;
    RECEIVE_QUEUE_BYTES * if times > 8 { 8 } else { times }
}

/// Enlarges the receive queue of a socket for many sessions; where that is not permitted, it stays.
pub fn make_room_for(socket: &OwnedFd, sessions: usize) {
    let _ = setsockopt(socket, sockopt::RcvBufForce, &receive_queue_bytes(sessions));
}

/// Packets that the kernel had for this socket and dropped, since its queue was full: a number that
/// wraps around.
///
/// # Errors
/// The kernel does not tell (it does since Linux 4.12).
pub fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// Where the number stands among those of `SO_MEMINFO` (`enum sk_meminfo_vars`, sock_diag.h).
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the descriptor is open, and pointer and length describe `values`, which outlives the
    // call; the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    Errno::result(result)?;
    Ok(values[DROPS])
}

/// From now on packets are sent with Don't Fragment, whatever is known of the path: to find out how
/// large they may be. What is longer than the interface takes is refused.
///
/// # Errors
/// In the kernel's words.
pub fn set_dont_fragment(socket: &OwnedFd) -> Result<(), GreSocketError> {
    set_path_mtu_discovery(socket, libc::IP_PMTUDISC_PROBE).map_err(other("set Don't Fragment"))
}

/// `value` is one of `IP_PMTUDISC_*`.
fn set_path_mtu_discovery(socket: &impl AsRawFd, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and pointer and length describe `value`, which outlives the
    // call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// The filter of worker `index` of `count`: passes GRE version 1 with a key, protocol type 0x880B,
/// whose call ID modulo `count` is `index`; drops the rest. Offset 0 is the outer IP header, of
/// which the length varies with its options; the kernel has reassembled fragments before.
fn shard_filter(index: u16, count: u16) -> [SockFilter; 11] {
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
    const HEADER_LEN_TO_X: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    const IS_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let op = |code: u32, k: u32| SockFilter::new(code as u16, 0, 0, k);
    // Falls through when equal; else skips to the dropping return, the last instruction.
    let require = |at: u8, k: u32| SockFilter::new(IS_EQUAL as u16, 0, 10 - at - 1, k);
    [
        op(HEADER_LEN_TO_X, 0),
        op(LOAD_HALF, 0),
        op(AND, KEY_AND_VERSION_MASK),
        require(3, KEY_AND_VERSION),
        op(LOAD_HALF, 2),
        require(5, PROTOCOL_PPP),
        // The key field is payload length, then call ID, 16 bits each.
        op(LOAD_HALF, 6),
        op(MODULO, u32::from(count.max(1))),
        require(8, u32::from(index)),
        op(RETURN, u32::MAX),
        op(RETURN, 0),
    ]
}

fn classify_open(source: io::Error) -> GreSocketError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => GreSocketError::NotPermitted,
        _ => other("open a raw GRE socket")(source),
    }
}

fn classify_mark(mark: u32, source: io::Error) -> GreSocketError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => GreSocketError::MarkNotPermitted { mark },
        _ => other("set the firewall mark")(source),
    }
}

fn classify_bind(local: Ipv4Addr, source: io::Error) -> GreSocketError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRNOTAVAIL) => GreSocketError::NotLocal { local },
        _ => other("bind the GRE socket")(source),
    }
}

fn other(action: &'static str) -> impl FnOnce(io::Error) -> GreSocketError {
    move |source| GreSocketError::Other { action, source }
}
