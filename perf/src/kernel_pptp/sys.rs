//! System calls that no crate has: sockets of `pptp.ko` (Linux `include/uapi/linux/if_pppox.h`) and
//! units of `/dev/ppp` (Linux `Documentation/networking/ppp_generic.rst`).

#![expect(
    unsafe_code,
    reason = "socket addresses and ioctls that only the kernel's headers know"
)]

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, c_ulong, socklen_t};
use nix::errno::Errno;

const PX_PROTO_PPTP: c_int = 2;
/// `ppp->flags`: CCP packets are looked at; compressed packets may be sent and received.
pub(super) const SC_CCP_OPEN: c_int = 0x40;
pub(super) const SC_CCP_UP: c_int = 0x80;

/// The letter of these ioctls.
const TYPE: u32 = b't' as u32;
const PPPIOCSFLAGS: c_ulong = libc::_IOW::<c_int>(TYPE, 89);
const PPPIOCSCOMPRESS: c_ulong = libc::_IOW::<OptionData>(TYPE, 77);
const PPPIOCNEWUNIT: c_ulong = libc::_IOWR::<c_int>(TYPE, 62);
const PPPIOCCONNECT: c_ulong = libc::_IOW::<c_int>(TYPE, 58);
const PPPIOCATTCHAN: c_ulong = libc::_IOW::<c_int>(TYPE, 56);
const PPPIOCGCHAN: c_ulong = libc::_IOR::<c_int>(TYPE, 55);

/// `struct sockaddr_pppox`, of which the kernel wants all 30 octets.
#[repr(C, packed)]
struct Address {
    family: u16,
    protocol: c_int,
    call_id: u16,
    padding: u16,
    address: [u8; 4],
    rest_of_union: [u8; 16],
}

const _: () = assert!(size_of::<Address>() == 30);

impl Address {
    fn new((call_id, address): (u16, Ipv4Addr)) -> Self {
        Self {
            family: libc::AF_PPPOX as u16,
            protocol: PX_PROTO_PPTP,
            call_id,
            padding: 0,
            address: address.octets(),
            rest_of_union: [0; 16],
        }
    }
}

/// `struct ppp_option_data`.
#[repr(C)]
struct OptionData {
    option: *const u8,
    len: u32,
    is_transmit: c_int,
}

/// A call of `pptp.ko` between two Call IDs and addresses, ours first, in the network namespace of
/// the calling thread.
pub(super) fn call(ours: (u16, Ipv4Addr), theirs: (u16, Ipv4Addr)) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: the arguments are numbers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_PPPOX, kind, PX_PROTO_PPTP) })?;
    // SAFETY: the descriptor is new, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let (ours, theirs) = (Address::new(ours), Address::new(theirs));
    let len = size_of::<Address>() as socklen_t;
    // SAFETY: pointer and length describe `ours`, which the kernel only reads.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const ours).cast(), len) })?;
    // SAFETY: as above, of `theirs`.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), (&raw const theirs).cast(), len) })?;
    Ok(socket)
}

/// The number of the PPP channel that a call is.
pub(super) fn channel_of(call: &OwnedFd) -> io::Result<c_int> {
    exchange(call, PPPIOCGCHAN, 0)
}

/// Makes `file`, a fresh `/dev/ppp`, speak of a channel.
pub(super) fn attach_channel(file: &File, channel: c_int) -> io::Result<()> {
    exchange(file, PPPIOCATTCHAN, channel).map(drop)
}

/// Makes a network interface, `ppp` with the number that is returned, of which `file`, a fresh
/// `/dev/ppp`, then speaks.
pub(super) fn new_unit(file: &File) -> io::Result<c_int> {
    exchange(file, PPPIOCNEWUNIT, -1)
}

/// Lets the interface send and receive through an attached channel.
pub(super) fn connect(channel: &File, unit: c_int) -> io::Result<()> {
    exchange(channel, PPPIOCCONNECT, unit).map(drop)
}

/// Sets the flags of an interface.
pub(super) fn set_flags(unit: &File, flags: c_int) -> io::Result<()> {
    exchange(unit, PPPIOCSFLAGS, flags).map(drop)
}

/// Allocates the compressor of one direction. `option` is its CCP option; for MPPE the key follows.
pub(super) fn set_compressor(unit: &File, option: &[u8], is_transmit: bool) -> io::Result<()> {
    let data = OptionData {
        option: option.as_ptr(),
        len: option.len() as u32,
        is_transmit: is_transmit.into(),
    };
    // SAFETY: the kernel reads `data` and what it points to, which both live until it returns.
    let result = unsafe { libc::ioctl(unit.as_raw_fd(), PPPIOCSCOMPRESS, &raw const data) };
    Errno::result(result)?;
    Ok(())
}

/// An ioctl that reads one int, writes one, or both.
fn exchange(fd: &impl AsRawFd, request: c_ulong, mut value: c_int) -> io::Result<c_int> {
    // SAFETY: all requests that are passed here are about one int, which lives until it returns.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) };
    Errno::result(result)?;
    Ok(value)
}
