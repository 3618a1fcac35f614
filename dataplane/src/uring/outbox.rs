//! What `sendmsg` reads while a packet is on its way: one message for each slot, allocated once.
//!
//! Packets go out many in one call (Linux `sendmmsg(2)`), which costs less than an operation of the
//! ring for each. What the socket has no room for is left to the ring, which waits for it.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use nix::errno::Errno;

use crate::frame::Slot;
use crate::limits::DIRECT_PACKETS;

/// A message with all that it points to. It points into itself, so it never moves.
#[repr(C)]
struct Message {
    header: libc::msghdr,
    payload: libc::iovec,
    peer: libc::sockaddr_in,
    source: SourceAddress,
}

/// The control message that chooses the outer source address (Linux `ip(7)`, IP_PKTINFO).
#[repr(C)]
struct SourceAddress {
    header: libc::cmsghdr,
    info: libc::in_pktinfo,
}

/// The messages of all slots.
pub(super) struct Outbox {
    messages: Vec<Message>,
    /// For one call.
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in the messages lead to the messages themselves and to the arena, which the
// same `Uring` owns; nothing in them depends on the thread.
unsafe impl Send for Outbox {}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbox({} messages)", self.messages.len())
    }
}

impl Outbox {
    /// A message for each of `slots` slots.
    pub(super) fn new(slots: usize) -> Self {
        let messages = std::iter::repeat_with(Message::empty).take(slots).collect();
        let headers = Vec::with_capacity(DIRECT_PACKETS);
        Self { messages, headers }
    }

    /// Sends the messages of these slots, which have been addressed, through `socket`, as many as
    /// it takes: 0 and why when it refuses the first.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        slots: impl Iterator<Item = Slot>,
    ) -> (usize, Errno) {
        self.headers.clear();
        let messages = &self.messages;
        let header = |slot: Slot| libc::mmsghdr {
            msg_hdr: messages[usize::from(slot.0)].header,
            msg_len: 0,
        };
        self.headers.extend(slots.take(DIRECT_PACKETS).map(header));
        let count = self.headers.len() as libc::c_uint;
        // SAFETY: the headers are as many as said; they lead to the messages, which never move, and
        // to packets in slots that the arena has lent. The kernel writes `msg_len` alone.
        let result = unsafe {
            let headers = self.headers.as_mut_ptr();
            libc::sendmmsg(socket.as_raw_fd(), headers, count, libc::MSG_DONTWAIT)
        };
        (usize::try_from(result).unwrap_or(0), Errno::last())
    }

    /// Addresses `len` octets at `payload` to `peer`, from `local` when it is given. The message
    /// is that of `slot`, which the kernel owns until it has sent it, so it is not in use.
    pub(super) fn address(
        &mut self,
        slot: Slot,
        payload: NonNull<u8>,
        len: usize,
        peer: Ipv4Addr,
        local: Option<Ipv4Addr>,
    ) -> *const libc::msghdr {
        let message = &mut self.messages[usize::from(slot.0)];
        message.payload.iov_base = payload.as_ptr().cast();
        message.payload.iov_len = len;
        message.peer.sin_addr.s_addr = u32::from(peer).to_be();
        let header = &mut message.header;
        header.msg_name = (&raw mut message.peer).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = &raw mut message.payload;
        header.msg_iovlen = 1;
        match local {
            Some(local) => {
                message.source.info.ipi_spec_dst.s_addr = u32::from(local).to_be();
                header.msg_control = (&raw mut message.source).cast();
                header.msg_controllen = size_of::<SourceAddress>();
            }
            None => {
                header.msg_control = ptr::null_mut();
                header.msg_controllen = 0;
            }
        }
        &raw const message.header
    }
}

impl Message {
    fn empty() -> Self {
        let any = libc::in_addr { s_addr: 0 };
        // SAFETY: a `msghdr` of zeros is a message without anything: null pointers, no lengths.
        let header = unsafe { std::mem::zeroed() };
        Self {
            header,
            payload: libc::iovec {
                iov_base: ptr::null_mut(),
                iov_len: 0,
            },
            peer: libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: 0,
                sin_addr: any,
                sin_zero: [0; 8],
            },
            source: SourceAddress::empty(any),
        }
    }
}

impl SourceAddress {
    fn empty(any: libc::in_addr) -> Self {
        // SAFETY: a `cmsghdr` of zeros is valid; its fields are plain numbers.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = std::mem::offset_of!(Self, info) + size_of::<libc::in_pktinfo>();
        header.cmsg_level = libc::IPPROTO_IP;
        header.cmsg_type = libc::IP_PKTINFO;
        Self {
            header,
            info: libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: any,
                ipi_addr: any,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_message_is_laid_out_as_the_cmsg_macros_say() {
        let info = size_of::<libc::in_pktinfo>() as u32;
        // SAFETY: CMSG_LEN computes with its argument alone.
        let len = unsafe { libc::CMSG_LEN(info) } as usize;
        // SAFETY: CMSG_SPACE computes with its argument alone.
        let space = unsafe { libc::CMSG_SPACE(info) } as usize;
        let empty = SourceAddress::empty(libc::in_addr { s_addr: 0 });
        assert_eq!(empty.header.cmsg_len, len);
        assert_eq!(size_of::<SourceAddress>(), space);
    }

    #[test]
    fn a_message_without_local_address_has_no_control_message_left_from_before() {
        let mut outbox = Outbox::new(2);
        let mut byte = 0u8;
        let payload = NonNull::from(&mut byte);
        let (peer, local) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        outbox.address(Slot(1), payload, 1, peer, Some(local));
        assert_eq!(outbox.messages[1].header.msg_controllen, 32);
        outbox.address(Slot(1), payload, 1, peer, None);
        assert_eq!(outbox.messages[1].header.msg_controllen, 0);
        let sent_to = outbox.messages[1].peer.sin_addr.s_addr.to_ne_bytes();
        assert_eq!(sent_to, [192, 0, 2, 1]);
    }
}
