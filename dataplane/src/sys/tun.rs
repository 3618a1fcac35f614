//! TUN devices: where inner IP packets enter and leave the kernel
//! (Linux `Documentation/networking/tuntap.rst`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use tun::AbstractDevice;

use crate::offload::{TunFeatures, VnetHeader};

/// Longest name of a network device, without the terminating zero (`IFNAMSIZ - 1`).
pub const NAME_LEN_MAX: usize = 15;

/// A name outlives the process that held it for a moment, until the kernel has torn its ring down.
const BUSY_RETRIES: u32 = 40;

/// Pause between two tries of a busy name: together with `BUSY_RETRIES`, one second.
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// Why there is no TUN device. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The device file does not exist.
    #[error(
        "/dev/net/tun does not exist; make it with `mkdir -p /dev/net && mknod /dev/net/tun c 10 \
         200`, or start the container with `--device /dev/net/tun`"
    )]
    NoDeviceFile,
    /// The device file exists, and the kernel has no driver behind it.
    #[error("the kernel has no TUN driver loaded; load it with `modprobe tun`")]
    NoDriver,
    /// The process may not make network devices.
    #[error(
        "not permitted to make TUN device `{name}`: this needs the capability CAP_NET_ADMIN; run \
         as root, or grant it with `setcap cap_net_admin,cap_net_raw+ep` or `docker run --cap-add \
         NET_ADMIN --device /dev/net/tun`"
    )]
    NotPermitted {
        /// The name that was asked for.
        name: String,
    },
    /// `/dev/net/tun` itself is closed to this user.
    #[error(
        "not permitted to open /dev/net/tun: its mode keeps this user out; run as root, or let \
         everyone open it with `chmod 666 /dev/net/tun` (it then still needs CAP_NET_ADMIN)"
    )]
    DeviceFileClosed,
    /// Another process has it open.
    #[error("TUN device `{name}` is in use; `ip -details link show {name}` tells more")]
    Busy {
        /// The name that was asked for.
        name: String,
    },
    /// The kernel takes no such name, or a device of another kind has it.
    #[error(
        "`{name}` cannot be the name of a new TUN device: it must have 1 to 15 octets, no `/`, no \
         space, at most one `%d`, and not be another device's"
    )]
    BadName {
        /// The name that was asked for.
        name: String,
    },
    /// Anything else.
    #[error("cannot make TUN device `{name}`: {source}")]
    Other {
        /// The name that was asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A TUN device that has just been opened.
#[derive(Debug)]
pub struct TunDevice {
    /// A non-blocking queue.
    pub fd: OwnedFd,
    /// The name that the device has.
    pub name: String,
    /// What the kernel has agreed to.
    pub features: TunFeatures,
}

/// Opens one queue of a TUN device, non-blocking, without packet information, and with as much
/// segmentation offload as the kernel takes. `name` is exact, or a pattern like `ppp%d`, for which
/// the kernel puts in the lowest free number.
///
/// The device is made in the network namespace of the calling thread, is down, has no address, and
/// lives as long as the queue is open. A busy name is tried again for a second, so this may block.
///
/// # Errors
/// See [`TunError`].
pub fn open(name: &str) -> Result<TunDevice, TunError> {
    open_when_free(name, open_once)
}

/// The same without any offload: each read and each write is one packet.
///
/// # Errors
/// See [`TunError`].
pub fn open_plain(name: &str) -> Result<TunDevice, TunError> {
    open_when_free(name, open_once_plain)
}

fn open_when_free(
    name: &str,
    open_once: fn(&str) -> Result<TunDevice, TunError>,
) -> Result<TunDevice, TunError> {
    if !is_name(name) {
        return Err(TunError::BadName { name: name.into() });
    }
    let mut tries_left = BUSY_RETRIES;
    loop {
        match open_once(name) {
            Err(TunError::Busy { .. }) if tries_left > 0 => {
                tries_left -= 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

fn is_name(name: &str) -> bool {
    let has_strange_octet = name
        .bytes()
        .any(|b| b == b'/' || b == 0 || b.is_ascii_whitespace());
    let patterns_ok = match name.matches('%').count() {
        0 => true,
        1 => name.contains("%d"),
        _ => false,
    };
    (1..=NAME_LEN_MAX).contains(&name.len()) && !has_strange_octet && patterns_ok
}

fn open_once(name: &str) -> Result<TunDevice, TunError> {
    match create(name, true) {
        // The name is a good one, so it is the flag that an old kernel does not know.
        Err(TunError::BadName { .. }) => open_once_plain(name),
        Err(error) => Err(error),
        Ok((fd, given_name)) => match agree_on_offload(fd.as_fd()) {
            Ok(features) => Ok(TunDevice {
                fd,
                name: given_name,
                features,
            }),
            Err(_) => {
                drop(fd);
                open_once_plain(name)
            }
        },
    }
}

fn open_once_plain(name: &str) -> Result<TunDevice, TunError> {
    let (fd, name) = create(name, false)?;
    Ok(TunDevice {
        fd,
        name,
        features: TunFeatures::default(),
    })
}

fn create(name: &str, has_vnet_header: bool) -> Result<(OwnedFd, String), TunError> {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(name).platform_config(|platform| {
        // Addresses, routes and the up flag are control's business.
        platform.ensure_root_privileges(false);
        platform.vnet_hdr(has_vnet_header);
    });
    let failed = |error| match error {
        tun::Error::Io(source) => classify(name, source),
        other => TunError::Other {
            name: name.into(),
            source: io::Error::other(other),
        },
    };
    let device = tun::create(&configuration).map_err(failed)?;
    device
        .set_nonblock()
        .map_err(|source| classify(name, source))?;
    let given_name = device.tun_name().map_err(failed)?;
    let fd = device.into_raw_fd();
    // SAFETY: `into_raw_fd` has just given up the descriptor, so nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((fd, given_name))
}

/// Agrees with the kernel on the virtio-net header, and on the best offload that it takes. Fails
/// when it does not even take the header.
fn agree_on_offload(fd: BorrowedFd<'_>) -> io::Result<TunFeatures> {
    let header_len = VnetHeader::LEN as libc::c_int;
    // SAFETY: the kernel reads one int, which lives until the call returns.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header_len) };
    Errno::result(result)?;
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let mut features = TunFeatures {
        vnet_header: true,
        tcp: true,
        udp: true,
    };
    if set_offload(fd, tcp | udp).is_err() {
        features.udp = false;
        features.tcp = set_offload(fd, tcp).is_ok();
    }
    Ok(features)
}

fn set_offload(fd: BorrowedFd<'_>, flags: libc::c_uint) -> nix::Result<()> {
    let flags = libc::c_ulong::from(flags);
    // SAFETY: the argument is a number, and the kernel touches no memory of ours.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
    Errno::result(result).map(drop)
}

fn classify(name: &str, source: io::Error) -> TunError {
    let name = name.to_owned();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => TunError::NoDeviceFile,
        Some(Errno::ENODEV | Errno::ENXIO) => TunError::NoDriver,
        Some(Errno::EACCES) => TunError::DeviceFileClosed,
        Some(Errno::EPERM) => TunError::NotPermitted { name },
        Some(Errno::EBUSY) => TunError::Busy { name },
        Some(Errno::EINVAL | Errno::EEXIST) => TunError::BadName { name },
        _ => TunError::Other { name, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(errno: Errno) -> String {
        classify("ppp0", io::Error::from(errno)).to_string()
    }

    #[test]
    fn each_obstacle_names_its_remedy() {
        assert!(message(Errno::ENOENT).contains("mknod /dev/net/tun c 10 200"));
        assert!(message(Errno::ENODEV).contains("modprobe tun"));
        assert!(message(Errno::EPERM).contains("CAP_NET_ADMIN"));
        assert!(message(Errno::EACCES).contains("chmod 666 /dev/net/tun"));
        assert!(message(Errno::EBUSY).contains("`ppp0` is in use"));
        assert!(message(Errno::EIO).contains("ppp0"));
    }

    #[test]
    fn names_that_the_kernel_would_refuse_or_cut_are_refused_before_it() {
        for name in [
            "",
            "sixteen-octets-x",
            "a/b",
            "a b",
            "p%dp%d",
            "p%s",
            "nul\0",
        ] {
            let refused = matches!(open(name), Err(TunError::BadName { .. }));
            assert!(refused, "{name:?}");
        }
        assert!(is_name("ppp%d") && is_name("fifteen-octets0"));
    }
}
