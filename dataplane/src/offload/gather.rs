//! Joins packets on their way to TUN devices, where they lie: only headers are written.

use super::coalesce::Run;
use super::{TunFeatures, VnetHeader};
use crate::frame::{Frame, Slots};
use crate::limits::RUN_PACKETS_MAX;
use crate::program::TunId;

/// The packets that are being joined: one run, since senders' trains arrive whole, and so that no
/// packet ever overtakes another.
#[derive(Debug)]
pub struct Gather {
    open: Option<(TunId, Run)>,
    frames: [Frame; RUN_PACKETS_MAX],
}

/// Frames that are one write: their octets one after the other. The first begins with its
/// virtio-net header.
#[derive(Clone, Copy, Debug)]
pub struct Gathered {
    /// Where to.
    pub tun: TunId,
    frames: [Frame; RUN_PACKETS_MAX],
    count: usize,
}

impl Gathered {
    /// The frames, one at least.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames[..self.count]
    }
}

impl Gather {
    /// Nothing is open.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            open: None,
            frames: [Frame::new(crate::frame::Slot(0), 0, 0); RUN_PACKETS_MAX],
        }
    }

    /// Takes a packet into the open run. False when it does not belong there: then [`Self::take`]
    /// what is open, and [`Self::begin`] anew.
    #[must_use]
    pub fn join(&mut self, slots: &impl Slots, tun: TunId, mut frame: Frame) -> bool {
        let Some((_, run)) = self.open.as_mut().filter(|(open, _)| *open == tun) else {
            return false;
        };
        let count = run.count();
        match run.join(frame.bytes(slots)) {
            Some(payload) if frame.strip_header(payload) => {
                self.frames[count] = frame;
                true
            }
            _ => false,
        }
    }

    /// Opens a run with a packet. False when nothing can follow this packet, or there is no room
    /// for a virtio-net header in front of it: then it is to be written alone. `features` are those
    /// of the device.
    ///
    /// # Panics
    /// When a run is open.
    #[must_use]
    pub fn begin(
        &mut self,
        slots: &impl Slots,
        tun: TunId,
        features: TunFeatures,
        frame: Frame,
    ) -> bool {
        assert!(self.open.is_none(), "what was open has been taken");
        if usize::from(frame.start) < VnetHeader::LEN {
            return false;
        }
        self.open = Run::begin(frame.bytes(slots), features).map(|run| (tun, run));
        self.frames[0] = frame;
        self.open.is_some()
    }

    /// Ends the open run, if there is one, and writes its headers.
    #[must_use]
    pub fn take(&mut self, slots: &mut impl Slots) -> Option<Gathered> {
        let (tun, run) = self.open.take()?;
        let first = &mut self.frames[0];
        let header = run.finish(first.bytes_mut(slots));
        let _ = put_header(slots, first, header);
        Some(Gathered {
            tun,
            frames: self.frames,
            count: run.count(),
        })
    }
}

impl Default for Gather {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts a virtio-net header in front of a packet. False when there is no room for it.
#[must_use]
pub fn put_header(slots: &mut impl Slots, frame: &mut Frame, header: VnetHeader) -> bool {
    if !frame.push_header(VnetHeader::LEN) {
        return false;
    }
    frame.bytes_mut(slots)[..VnetHeader::LEN].copy_from_slice(&header.to_bytes());
    true
}
