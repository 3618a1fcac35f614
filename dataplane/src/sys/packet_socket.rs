//! The packet socket that GRE leaves through when the next hop is known (Linux `packet(7)`).
//!
//! What the IP stack does for each packet of a raw socket, route, firewall and queueing discipline,
//! is the larger part of sending one. A packet socket hands the frame to the driver. It receives
//! nothing: its protocol is 0.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

/// Octets that may wait for the network device: those of the GRE socket.
const SEND_QUEUE_BYTES: usize = 1 << 20;

/// Why there is no packet socket. The raw socket does its work then.
#[derive(Debug, thiserror::Error)]
pub enum PacketSocketError {
    /// The process may not open packet sockets.
    #[error("not permitted to open a packet socket: this needs the capability CAP_NET_RAW")]
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

/// Opens the socket in the network namespace of the calling thread. The kernel writes the Ethernet
/// header; queueing disciplines are passed by, so what the driver does not take is refused at once.
///
/// # Errors
/// See [`PacketSocketError`].
pub fn open() -> Result<OwnedFd, PacketSocketError> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::PACKET, kind, None).map_err(classify_open)?;
    bypass_queueing(&socket).map_err(other("bypass queueing disciplines"))?;
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_QUEUE_BYTES).is_err() {
        socket
            .set_send_buffer_size(SEND_QUEUE_BYTES)
            .map_err(other("enlarge the send queue"))?;
    }
    Ok(socket.into())
}

fn bypass_queueing(socket: &Socket) -> io::Result<()> {
    let value: libc::c_int = 1;
    // SAFETY: the descriptor is open, and pointer and length describe `value`, which outlives the
    // call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

fn classify_open(source: io::Error) -> PacketSocketError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => PacketSocketError::NotPermitted,
        _ => other("open a packet socket")(source),
    }
}

fn other(action: &'static str) -> impl FnOnce(io::Error) -> PacketSocketError {
    move |source| PacketSocketError::Other { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_capability() {
        let error = classify_open(io::Error::from(Errno::EPERM));
        assert!(error.to_string().contains("CAP_NET_RAW"));
        let error = classify_open(io::Error::from(Errno::EAFNOSUPPORT));
        assert!(error.to_string().contains("open a packet socket"));
    }
}
