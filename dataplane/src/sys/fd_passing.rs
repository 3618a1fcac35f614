//! Descriptors that go to another process with octets of a Unix socket (`unix(7)`, SCM_RIGHTS), and
//! who that process is (SO_PEERCRED).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg, sockopt,
};

/// Descriptors that may go with one call: the kernel's SCM_MAX_FD.
pub const DESCRIPTORS_MAX: usize = 253;

/// Process and user at the other end of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process ID.
    pub pid: i32,
    /// User ID; 0 is root.
    pub uid: u32,
}

/// Who is at the other end: the kernel says so, not the peer.
///
/// # Errors
/// It is no Unix socket.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = getsockopt(&socket, sockopt::PeerCredentials)?;
    Ok(Peer {
        pid: credentials.pid(),
        uid: credentials.uid(),
    })
}

/// Sends octets, and these descriptors with the first of them. Returns how many octets were taken.
///
/// # Errors
/// The operating system's; `WouldBlock` when the socket is full and does not block.
pub fn send(socket: BorrowedFd<'_>, octets: &[u8], descriptors: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() {
        &[]
    } else {
        &rights[..]
    };
    let octets = [IoSlice::new(octets)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(
        socket.as_raw_fd(),
        &octets,
        rights,
        flags,
        None,
    )?)
}

/// Receives octets into `buffer`, and appends the descriptors that came with them. Returns how many
/// octets came; 0 when the other end has closed the socket.
///
/// # Errors
/// The operating system's; also when it had no room for all descriptors.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut octets = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut octets, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        let ControlMessageOwned::ScmRights(received) = control else {
            continue;
        };
        for descriptor in received {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            descriptors.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::other("out of descriptors (ulimit -n)"));
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_go_with_the_octets_and_are_closed_on_exec() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        let sent = send(ours.as_fd(), b"here", &[far.as_raw_fd()]).unwrap();
        drop(far);
        assert_eq!(sent, 4);
        let (mut buffer, mut received) = ([0; 2], Vec::new());
        assert_eq!(
            receive(theirs.as_fd(), &mut buffer, &mut received).unwrap(),
            2
        );
        let far = UnixStream::from(received.pop().expect("one came"));
        assert!(received.is_empty());
        let flags = nix::fcntl::fcntl(&far, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        (&far).write_all(b"!").unwrap();
        drop(far);
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "!");
    }

    #[test]
    fn the_kernel_says_who_is_at_the_other_end() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peer(ours.as_fd()).unwrap();
        assert_eq!(peer.pid, std::process::id() as i32);
        assert_eq!(peer.uid, nix::unistd::getuid().as_raw());
    }
}
