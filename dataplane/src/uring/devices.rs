//! The TUN devices of one worker, from attachment until the kernel has given every operation back.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::io::Arrivals;
use crate::limits::TUNS_MAX;
use crate::offload::TunFeatures;
use crate::program::{Role, TunId};

/// Reads that one device has in flight where one of them reads one packet (before Linux 6.7).
pub(super) const SINGLE_READS: u16 = 16;

/// One device. It is closed, and its index free, when it is detached and nothing is in flight.
#[derive(Debug)]
struct Device {
    tun: TunId,
    fd: Arc<OwnedFd>,
    features: TunFeatures,
    is_read: bool,
    reads: u16,
    writes: u32,
    is_detached: bool,
}

/// All of them; an index names a device in tokens.
#[derive(Debug)]
pub(super) struct Devices {
    devices: Vec<Option<Device>>,
    /// Indices of attached devices, in the order of their ids.
    attached: Vec<u16>,
    /// Indices of devices that may have fewer reads in flight than they should.
    to_read: Vec<u16>,
    reads_wanted: u16,
}

impl Devices {
    /// No device; each is to have `reads_wanted` reads in flight.
    pub(super) fn new(reads_wanted: u16) -> Self {
        Self {
            devices: Vec::new(),
            attached: Vec::new(),
            to_read: Vec::new(),
            reads_wanted,
        }
    }

    /// Adds a device. Gives nothing back when the id is in use or there are too many: then it is
    /// closed.
    pub(super) fn attach(
        &mut self,
        tun: TunId,
        fd: Arc<OwnedFd>,
        features: TunFeatures,
        role: Role,
    ) -> bool {
        let Err(position) = self.position(tun) else {
            return false;
        };
        let free = self.devices.iter().position(Option::is_none);
        let index = free.unwrap_or(self.devices.len());
        if index >= TUNS_MAX {
            return false;
        }
        if index == self.devices.len() {
            self.devices.push(None);
        }
        self.devices[index] = Some(Device {
            tun,
            fd,
            features,
            is_read: role.sends(),
            reads: 0,
            writes: 0,
            is_detached: false,
        });
        self.attached.insert(position, index as u16);
        self.to_read.push(index as u16);
        true
    }

    /// Forgets a device; returns its index when reads must be cancelled for it to close.
    pub(super) fn detach(&mut self, tun: TunId) -> Option<u16> {
        let index = self.attached.remove(self.position(tun).ok()?);
        let device = self.devices[usize::from(index)].as_mut()?;
        device.is_detached = true;
        let has_reads = device.reads > 0;
        self.close_if_idle(index);
        has_reads.then_some(index)
    }

    /// Any attached device.
    pub(super) fn any(&self) -> Option<TunId> {
        let index = *self.attached.first()?;
        Some(self.devices[usize::from(index)].as_ref()?.tun)
    }

    /// Attached devices that have been deleted, for [`Arrivals`]: see `limits::TUN_CHECK_MS`.
    pub(super) fn look_for_lost(&self, arrivals: &mut Arrivals) {
        for &index in &self.attached {
            if let Some(device) = &self.devices[usize::from(index)]
                && is_deleted(&device.fd)
            {
                arrivals.lose(device.tun);
            }
        }
    }

    /// Whether no device is attached.
    pub(super) fn is_empty(&self) -> bool {
        self.attached.is_empty()
    }

    /// Index and descriptor of an attached device, for one write more.
    pub(super) fn begin_write(&mut self, tun: TunId) -> Option<(u16, RawFd)> {
        let index = self.attached[self.position(tun).ok()?];
        let device = self.devices[usize::from(index)].as_mut()?;
        device.writes += 1;
        Some((index, device.fd.as_raw_fd()))
    }

    /// What an attached device has agreed to.
    pub(super) fn features(&self, tun: TunId) -> Option<TunFeatures> {
        let index = self.attached[self.position(tun).ok()?];
        Some(self.devices[usize::from(index)].as_ref()?.features)
    }

    /// A write has completed. The device when it is still attached.
    pub(super) fn end_write(&mut self, index: u16) -> Option<TunId> {
        let device = self.devices[usize::from(index)].as_mut()?;
        device.writes -= 1;
        let tun = (!device.is_detached).then_some(device.tun);
        self.close_if_idle(index);
        tun
    }

    /// Index and descriptor of a device that lacks a read, and counts it as begun.
    pub(super) fn begin_read(&mut self) -> Option<(u16, RawFd)> {
        while let Some(&index) = self.to_read.last() {
            let device = self.devices[usize::from(index)].as_mut();
            let lacking =
                device.filter(|d| d.is_read && !d.is_detached && d.reads < self.reads_wanted);
            if let Some(device) = lacking {
                device.reads += 1;
                return Some((index, device.fd.as_raw_fd()));
            }
            self.to_read.pop();
        }
        None
    }

    /// Indices of devices that have reads in flight.
    pub(super) fn reading(&self) -> impl Iterator<Item = u16> {
        let devices = (0..).zip(&self.devices);
        devices.filter_map(|(index, device)| (device.as_ref()?.reads > 0).then_some(index))
    }

    /// A read has completed for good. With `again`, another is to take its place.
    pub(super) fn end_read(&mut self, index: u16, again: bool) {
        if let Some(device) = self.devices[usize::from(index)].as_mut() {
            device.reads -= 1;
            if again && !device.is_detached {
                self.to_read.push(index);
            }
        }
        self.close_if_idle(index);
    }

    /// The device of this index, and what it has agreed to, when it is still attached.
    pub(super) fn tun(&self, index: u16) -> Option<(TunId, TunFeatures)> {
        let device = self.devices[usize::from(index)].as_ref()?;
        (!device.is_detached).then_some((device.tun, device.features))
    }

    fn position(&self, tun: TunId) -> Result<usize, usize> {
        self.attached.binary_search_by_key(&tun, |&index| {
            // An attached device is always there; its id is what the list is ordered by.
            self.devices[usize::from(index)]
                .as_ref()
                .map_or(TunId(u32::MAX), |device| device.tun)
        })
    }

    fn close_if_idle(&mut self, index: u16) {
        let device = &mut self.devices[usize::from(index)];
        if let Some(idle) = device
            && idle.is_detached
            && idle.reads == 0
            && idle.writes == 0
        {
            *device = None;
        }
    }
}

/// A deleted device is ready, with an error, for ever.
fn is_deleted(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    let is_ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    is_ready && fds[0].any().unwrap_or(true)
}

/// What the failure of a read means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFailure {
    /// Nothing wrong with the device: read again.
    Again,
    /// No buffer was left: read again when there is one.
    NoBuffer,
    /// The device has been deleted.
    Lost,
}

/// Reads fail with EBADFD once the device is deleted, and with EIO or EFAULT while it is; whatever
/// else there may be would fail again.
pub(super) fn classify_read(errno: i32) -> ReadFailure {
    match Errno::from_raw(errno) {
        Errno::EAGAIN | Errno::EINTR | Errno::ECANCELED => ReadFailure::Again,
        Errno::ENOBUFS => ReadFailure::NoBuffer,
        _ => ReadFailure::Lost,
    }
}

/// Whether the failure of a write means that the device is deleted. EIO does not: it says that the
/// device is down, and it may come up again.
pub(super) fn is_lost_to_write(errno: i32) -> bool {
    matches!(Errno::from_raw(errno), Errno::EBADFD | Errno::EBADF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    const NONE: TunFeatures = TunFeatures {
        vnet_header: false,
        tcp: false,
        udp: false,
    };

    fn null() -> Arc<OwnedFd> {
        Arc::new(File::open("/dev/null").unwrap().into())
    }

    #[test]
    fn a_device_closes_when_nothing_of_it_is_in_flight() {
        let mut devices = Devices::new(1);
        assert!(devices.attach(TunId(9), null(), NONE, Role::Both));
        assert!(!devices.attach(TunId(9), null(), NONE, Role::Both));
        let (index, _) = devices.begin_read().unwrap();
        assert_eq!(devices.begin_read(), None);
        assert!(devices.begin_write(TunId(9)).is_some());
        assert_eq!(devices.detach(TunId(9)), Some(index));
        assert_eq!(devices.begin_write(TunId(9)), None);
        assert_eq!(devices.end_write(index), None);
        assert!(devices.devices[0].is_some());
        devices.end_read(index, true);
        assert!(devices.devices[0].is_none());
        assert_eq!(devices.begin_read(), None);
    }

    #[test]
    fn an_index_names_another_device_only_after_the_first_is_closed() {
        let mut devices = Devices::new(2);
        assert!(devices.attach(TunId(1), null(), NONE, Role::Both));
        let (first, _) = devices.begin_read().unwrap();
        devices.detach(TunId(1));
        assert!(devices.attach(TunId(1), null(), NONE, Role::Both));
        let (second, _) = devices.begin_read().unwrap();
        assert_ne!(first, second);
        devices.end_read(first, false);
        assert!(devices.attach(TunId(0), null(), NONE, Role::Both));
        assert_eq!(devices.tun(first), Some((TunId(0), NONE)));
        assert_eq!(devices.any(), Some(TunId(0)));
    }

    #[test]
    fn who_only_receives_from_the_peer_does_not_read() {
        let mut devices = Devices::new(1);
        assert!(devices.attach(TunId(1), null(), NONE, Role::Receive));
        assert_eq!(devices.begin_read(), None);
        assert!(devices.begin_write(TunId(1)).is_some());
        assert!(devices.attach(TunId(2), null(), NONE, Role::Send));
        assert!(devices.begin_read().is_some());
    }

    #[test]
    fn only_a_device_with_an_error_is_lost() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut devices = Devices::new(1);
        assert!(devices.attach(TunId(1), null(), NONE, Role::Both));
        assert!(devices.attach(TunId(2), writer.into(), NONE, Role::Receive));
        let mut arrivals = Arrivals::default();
        devices.look_for_lost(&mut arrivals);
        assert!(arrivals.tuns_lost.is_empty());
        // What remains of the pipe reports POLLERR, as a deleted TUN device does.
        drop(reader);
        devices.look_for_lost(&mut arrivals);
        assert_eq!(arrivals.tuns_lost, [TunId(2)]);
    }

    #[test]
    fn a_deleted_device_is_told_from_one_that_is_down() {
        assert_eq!(classify_read(libc::EBADFD), ReadFailure::Lost);
        assert_eq!(classify_read(libc::EIO), ReadFailure::Lost);
        assert_eq!(classify_read(libc::ENOBUFS), ReadFailure::NoBuffer);
        assert_eq!(classify_read(libc::EAGAIN), ReadFailure::Again);
        assert!(is_lost_to_write(libc::EBADFD));
        assert!(!is_lost_to_write(libc::EIO));
    }
}
