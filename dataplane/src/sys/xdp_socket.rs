//! The AF_XDP socket that GRE leaves through when the next hop is known (Linux
//! `Documentation/networking/af_xdp.rst`, `include/uapi/linux/if_xdp.h`).
//!
//! It hands whole Ethernet frames to the driver, as a packet socket that bypasses queueing
//! disciplines does, without a message header, an address and a look-up for each. Only the sending
//! half is used: there is no XDP program, and nothing is received. It is in copy mode, which every
//! driver can do: the kernel copies a frame when it sends it, and says in the completion ring when
//! the driver is done.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

/// Octets that may wait for the driver: those of the GRE socket.
const SEND_QUEUE_BYTES: usize = 1 << 20;

/// Queues of an interface that are tried; one that another AF_XDP socket has is not to be had.
const QUEUES_MAX: u32 = 64;

/// The kernel wants a fill ring even where nothing is received.
const FILL_ENTRIES: u32 = 64;

/// Why there is no AF_XDP socket. The packet socket does its work then.
#[derive(Debug, thiserror::Error)]
pub enum XdpSocketError {
    /// The kernel has none.
    #[error("this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS)")]
    Missing,
    /// The process may not open them.
    #[error("not permitted to open an AF_XDP socket: this needs the capability CAP_NET_RAW")]
    NotPermitted,
    /// The packet memory may not be locked.
    #[error(
        "no memory for an AF_XDP socket; raise the limit of locked memory (`ulimit -l`, \
         `LimitMEMLOCK=` of systemd)"
    )]
    NoMemory,
    /// Other sockets, of our workers or of other programs, have them all.
    #[error("every queue of interface {interface} has its AF_XDP socket already")]
    QueuesTaken {
        /// Index of the interface.
        interface: u32,
    },
    /// There are as many as a worker may have.
    #[error("the worker has AF_XDP sockets on {0} interfaces already")]
    TooMany(usize),
    /// Anything else.
    #[error("cannot {action}: {source}")]
    Other {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Opens the socket in the network namespace of the calling thread. It sends nothing before it has
/// memory and an interface.
///
/// # Errors
/// See [`XdpSocketError`].
pub fn open() -> Result<OwnedFd, XdpSocketError> {
    let kind = Type::RAW.nonblocking().cloexec();
    let socket =
        Socket::new(Domain::from(libc::AF_XDP), kind, None).map_err(other("open a socket"))?;
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_QUEUE_BYTES).is_err() {
        socket
            .set_send_buffer_size(SEND_QUEUE_BYTES)
            .map_err(other("enlarge the send queue"))?;
    }
    Ok(socket.into())
}

/// The memory that frames are sent from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Where it begins: at a page.
    pub(crate) base: NonNull<u8>,
    /// Octets of it.
    pub(crate) len: usize,
    /// Octets of a slot, a power of two of 2048 at least; no frame crosses from one into another.
    pub(crate) slot_bytes: u32,
}

/// Frames that the kernel sends at one request at least, if the driver takes them
/// (`TX_BATCH_SIZE`).
const BATCH_FRAMES: usize = 16;

/// What a request to send has met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kicked {
    /// Frames that the driver threw away.
    pub(crate) dropped: usize,
    /// There are frames left, to be sent with the next request.
    pub(crate) is_busy: bool,
}

/// A socket with its memory, bound to one queue of one interface.
#[derive(Debug)]
pub(crate) struct XdpSocket {
    fd: OwnedFd,
    transmit: Ring<libc::xdp_desc>,
    completion: Ring<u64>,
    base: NonNull<u8>,
    /// Where the next frame goes; the kernel sees it after `kick`.
    tail: u32,
}

// SAFETY: the socket is the only owner of its mappings; `base` is never dereferenced here.
unsafe impl Send for XdpSocket {}

impl XdpSocket {
    /// Gives the socket its memory, and the first queue of `interface` that is free.
    ///
    /// # Safety
    /// The kernel reads frames out of `memory` between `push` and `completed`, which must be mapped
    /// for as long.
    pub(crate) unsafe fn bind(
        fd: OwnedFd,
        memory: Memory,
        interface: u32,
    ) -> Result<Self, XdpSocketError> {
        register(&fd, memory)?;
        // Each frame has a slot of its own, so neither ring can be too short for what is pushed.
        let slots = memory.len / memory.slot_bytes as usize;
        let entries = u32::try_from(slots.next_power_of_two()).unwrap_or(u32::MAX);
        set_ring(&fd, libc::XDP_UMEM_FILL_RING, FILL_ENTRIES)?;
        set_ring(&fd, libc::XDP_UMEM_COMPLETION_RING, entries)?;
        set_ring(&fd, libc::XDP_TX_RING, entries)?;
        let offsets = ring_offsets(&fd)?;
        let page = libc::XDP_PGOFF_TX_RING;
        let transmit = Ring::map(&fd, &offsets.tx, entries, page)?;
        let page = libc::XDP_UMEM_PGOFF_COMPLETION_RING.cast_signed();
        let completion = Ring::map(&fd, &offsets.cr, entries, page)?;
        bind_to_free_queue(&fd, interface)?;
        Ok(Self {
            fd,
            transmit,
            completion,
            base: memory.base,
            tail: 0,
        })
    }

    /// Queues the Ethernet frame of `len` octets at `begin`. There is room, for slots are not
    /// pushed twice.
    ///
    /// # Safety
    /// The frame lies in one slot of the memory, and nobody writes to it until it comes back with
    /// `completed`.
    pub(crate) unsafe fn push(&mut self, begin: NonNull<u8>, len: u32) {
        let addr = (begin.as_ptr() as usize - self.base.as_ptr() as usize) as u64;
        let frame = libc::xdp_desc {
            addr,
            len,
            options: 0,
        };
        // SAFETY: the entry is in the mapping, for `entry` wraps the index around; the kernel does
        // not look at it before `kick` moves the producer past it.
        unsafe { self.transmit.entry(self.tail).write(frame) };
        self.tail = self.tail.wrapping_add(1);
    }

    /// Has the kernel send what has been pushed, `waiting` frames at most.
    ///
    /// How far it has come is not known before frames complete: it moves its end of the ring only
    /// now and then. So it is called as often as `waiting` frames may take.
    ///
    /// # Errors
    /// The interface is down or gone, and the socket with it.
    pub(crate) fn kick(&self, waiting: usize) -> io::Result<Kicked> {
        // Release: the entries are written before the kernel sees the producer.
        self.transmit.producer().store(self.tail, Ordering::Release);
        let mut kicked = Kicked::default();
        let mut batches = 0;
        while batches <= waiting / BATCH_FRAMES && kicked.dropped < waiting {
            match send_nothing(self.fd.as_raw_fd()) {
                Ok(()) => return Ok(kicked),
                // It sends one batch at a time; or the driver is busy, which cannot be told apart.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => batches += 1,
                Err(Errno::EBUSY) => kicked.dropped += 1,
                Err(errno) => return Err(errno.into()),
            }
        }
        kicked.is_busy = true;
        Ok(kicked)
    }

    /// Where, from the begin of the memory, a frame lies that the driver is done with.
    pub(crate) fn completed(&self) -> Option<usize> {
        let consumer = self.completion.consumer();
        let head = consumer.load(Ordering::Relaxed);
        // Acquire: the entry is read after the kernel has written it.
        if self.completion.producer().load(Ordering::Acquire) == head {
            return None;
        }
        // SAFETY: the entry is in the mapping, and the kernel does not write to it before the
        // consumer has been moved past it.
        let offset = unsafe { self.completion.entry(head).read() };
        consumer.store(head.wrapping_add(1), Ordering::Release);
        usize::try_from(offset).ok()
    }
}

/// One ring that is shared with the kernel.
#[derive(Debug)]
struct Ring<Entry> {
    mapping: NonNull<c_void>,
    len: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    entries: NonNull<Entry>,
    mask: u32,
}

impl<Entry> Ring<Entry> {
    fn map(
        fd: &OwnedFd,
        offsets: &libc::xdp_ring_offset,
        entries: u32,
        page: libc::off_t,
    ) -> Result<Self, XdpSocketError> {
        let len = offsets.desc as usize + entries as usize * size_of::<Entry>();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping, where the kernel likes, touches no memory that is in use.
        let mapping =
            unsafe { libc::mmap(ptr::null_mut(), len, access, flags, fd.as_raw_fd(), page) };
        let mapping = NonNull::new(mapping).filter(|it| it.as_ptr() != libc::MAP_FAILED);
        let mapping = mapping.ok_or_else(|| other("map its rings")(io::Error::last_os_error()))?;
        // SAFETY: the kernel's offsets lie within the mapping of the ring that it has made.
        let at = |offset: u64| unsafe { mapping.byte_add(offset as usize) };
        Ok(Self {
            mapping,
            len,
            producer: at(offsets.producer).cast(),
            consumer: at(offsets.consumer).cast(),
            entries: at(offsets.desc).cast(),
            mask: entries - 1,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: it lies, aligned, in the mapping, which lives as long as `self`; kernel and
        // worker access it atomically only.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the producer.
        unsafe { self.consumer.as_ref() }
    }

    /// The entry of this number, which counts on for ever.
    fn entry(&self, number: u32) -> NonNull<Entry> {
        // SAFETY: the mask keeps it within the entries that the mapping has room for.
        unsafe { self.entries.add((number & self.mask) as usize) }
    }
}

impl<Entry> Drop for Ring<Entry> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this ring's alone, and nothing refers to it any more.
        unsafe { libc::munmap(self.mapping.as_ptr(), self.len) };
    }
}

fn register(fd: &OwnedFd, memory: Memory) -> Result<(), XdpSocketError> {
    let registration = libc::xdp_umem_reg {
        addr: memory.base.as_ptr() as u64,
        len: memory.len as u64,
        chunk_size: memory.slot_bytes,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(fd, libc::XDP_UMEM_REG, &registration).map_err(|errno| match errno {
        Errno::ENOBUFS | Errno::ENOMEM => XdpSocketError::NoMemory,
        errno => other("register its memory")(errno.into()),
    })
}

fn set_ring(fd: &OwnedFd, ring: libc::c_int, entries: u32) -> Result<(), XdpSocketError> {
    set_option(fd, ring, &entries).map_err(|errno| other("make its rings")(errno.into()))
}

fn set_option<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let len = size_of::<T>() as libc::socklen_t;
    let value = ptr::from_ref(value).cast();
    // SAFETY: pointer and length describe a value that outlives the call; the kernel only reads it.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, value, len) };
    Errno::result(result).map(drop)
}

fn ring_offsets(fd: &OwnedFd) -> Result<libc::xdp_mmap_offsets, XdpSocketError> {
    // SAFETY: the offsets are plain numbers, for which zero is a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&offsets) as libc::socklen_t;
    // SAFETY: pointer and length describe `offsets`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &mut len,
        )
    };
    Errno::result(result).map_err(|errno| other("ask for its rings")(errno.into()))?;
    Ok(offsets)
}

fn bind_to_free_queue(fd: &OwnedFd, interface: u32) -> Result<(), XdpSocketError> {
    for queue in 0..QUEUES_MAX {
        match bind_to_queue(fd, interface, queue) {
            Ok(()) => return Ok(()),
            Err(Errno::EBUSY) => {}
            // The interface has no more queues.
            Err(Errno::EINVAL) if queue > 0 => break,
            Err(errno) => return Err(other("bind it to the interface")(errno.into())),
        }
    }
    Err(XdpSocketError::QueuesTaken { interface })
}

fn bind_to_queue(fd: &OwnedFd, interface: u32, queue: u32) -> Result<(), Errno> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: interface,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: pointer and length describe `address`, which outlives the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    Errno::result(result).map(drop)
}

/// Has the kernel look at the transmit ring.
fn send_nothing(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: there is no data and no address that the kernel could read.
    let result = unsafe { libc::sendto(fd, ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    Errno::result(result).map(drop)
}

fn other(action: &'static str) -> impl FnOnce(io::Error) -> XdpSocketError {
    move |source| match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => XdpSocketError::NotPermitted,
        Some(Errno::EAFNOSUPPORT) => XdpSocketError::Missing,
        _ => XdpSocketError::Other { action, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let words = |errno: Errno| other("open a socket")(errno.into()).to_string();
        assert!(words(Errno::EPERM).contains("CAP_NET_RAW"));
        assert!(words(Errno::EAFNOSUPPORT).contains("CONFIG_XDP_SOCKETS"));
        assert!(words(Errno::EMFILE).contains("cannot open a socket"));
    }
}
