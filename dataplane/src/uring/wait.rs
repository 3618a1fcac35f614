//! How a worker's ring waits: for whatever comes first, or, while much comes, until packets have
//! come together.

use std::os::fd::AsRawFd;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode};

use super::Uring;
use super::token::Token;
use crate::io::{Arrivals, IoError};
use crate::limits;

/// GRE packets of which a busy worker does not wait for more.
const GATHER_PACKETS: usize = 32;

/// How long a busy worker waits for packets to come together: what it costs in delay at most.
const GATHER_NS: u64 = 200_000;

/// How often in this time it looks into the packet ring.
const GATHER_SLICES: u64 = 4;

/// Sweeps at once: the kernel ends one after some 32 packets.
const SWEEPS: usize = 2;

impl Uring {
    pub(super) fn enter(
        &mut self,
        deadline_ms: Option<u64>,
        arrivals: &mut Arrivals,
    ) -> Result<(), IoError> {
        let now_ms = self.now_ms();
        let check_ms = (!self.devices.is_empty()).then_some(self.check_ms);
        // Neither a driver that takes something again nor one that is done with it ends the wait.
        let retry_ms = (self.xdp.lent() > 0).then_some(now_ms + limits::XDP_RETRY_MS);
        let waits = deadline_ms.into_iter().chain(check_ms).chain(retry_ms);
        let deadline_ms = waits.min();
        let has_work = self.memory.reads.has_work() || self.has_waiting(1);
        let (want, timeout_ns) = match deadline_ms {
            _ if has_work && !self.is_busy => (1, Some(0)),
            _ if self.memory.reads.has_work() => (1, Some(0)),
            Some(deadline_ms) if deadline_ms <= now_ms => (1, Some(0)),
            _ if self.is_busy => return self.gather_packets(),
            _ if !self.arm_tap(arrivals)? => return Ok(()),
            Some(deadline_ms) => (1, Some((deadline_ms - now_ms).saturating_mul(1_000_000))),
            None => (1, None),
        };
        self.ring.enter(want, timeout_ns).map_err(IoError::Ring)
    }

    fn has_waiting(&self, count: usize) -> bool {
        self.tap.has_waiting(&self.memory.arena, count)
    }

    /// Lets the packet ring end the wait. False when it need not begin: something has come.
    fn arm_tap(&mut self, arrivals: &mut Arrivals) -> Result<bool, IoError> {
        let Some(fd) = self.tap.fd().filter(|_| !self.is_polling_tap) else {
            return Ok(true);
        };
        if self.tap.has_outstanding() {
            // The ring looks readable until its newest frame is back: this is what is being
            // written, and mostly is at once.
            self.ring.enter(0, Some(0)).map_err(IoError::Ring)?;
            if self.reap(arrivals) {
                return Ok(false);
            }
        }
        let entry = opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build();
        // SAFETY: it touches no memory.
        unsafe { self.ring.push(entry, Token::Tap) };
        self.is_polling_tap = true;
        Ok(true)
    }

    /// Sweeps up what has come, and unless that is much or something else has come as well, sleeps
    /// for `GATHER_NS` and does it again.
    ///
    /// Nobody waits on the socket meanwhile: whoever delivers a packet, often in the time of the
    /// peer's sender on the same machine, has nobody to wake.
    fn gather_packets(&mut self) -> Result<(), IoError> {
        if self.is_ring_busy {
            return self.gather_in_ring();
        }
        if self.is_receiving {
            self.cancel(CancelBuilder::user_data(Token::Receive.to_bits()));
        }
        let is_enough = self.sweep()?;
        if is_enough {
            return Ok(());
        }
        self.ring.enter(1, Some(GATHER_NS)).map_err(IoError::Ring)?;
        self.sweep()?;
        Ok(())
    }

    /// Receives what is there. True when that is no reason to wait for more.
    fn sweep(&mut self) -> Result<bool, IoError> {
        if self.memory.gre_buffers.has_available() {
            for _ in 0..SWEEPS {
                let group = self.memory.gre_buffers.group();
                let entry = opcode::RecvMulti::new(Fd(self.gre.as_raw_fd()), group)
                    .flags(libc::MSG_DONTWAIT)
                    .build();
                // SAFETY: it fills buffers of the group only, which the arena has lent.
                unsafe { self.ring.push(entry, Token::Sweep) };
            }
        }
        self.ring.enter(0, Some(0)).map_err(IoError::Ring)?;
        let before = self.completed.len();
        self.ring.collect(&mut self.completed);
        let new = &self.completed[before..];
        let token = |entry: &cqueue::Entry| Token::from_bits(entry.user_data());
        let packets = new.iter().filter(|it| token(it) == Some(Token::Sweep));
        let ends_wait = |it| matches!(token(it), Some(Token::Read { .. } | Token::Wake));
        Ok(packets.count() >= GATHER_PACKETS || new.iter().any(ends_wait))
    }

    /// The same for packets that come through the packet ring: they complete nothing, so whatever
    /// completes beside what is queued ends the wait.
    fn gather_in_ring(&mut self) -> Result<(), IoError> {
        let mut want = self.ring.queued() + 1;
        for _ in 0..GATHER_SLICES {
            let is_enough = self.has_waiting(GATHER_PACKETS);
            let slice_ns = if is_enough {
                0
            } else {
                GATHER_NS / GATHER_SLICES
            };
            self.ring
                .enter(want, Some(slice_ns))
                .map_err(IoError::Ring)?;
            let before = self.completed.len();
            self.ring.collect(&mut self.completed);
            let new = self.completed.len() - before;
            if is_enough || new >= want {
                break;
            }
            want -= new;
        }
        Ok(())
    }
}
