//! How a worker's ring takes nothing in any more: for a while, or for good.

use io_uring::opcode;
use io_uring::types::CancelBuilder;

use super::token::Token;
use super::{CLOSE_ROUND_NS, CLOSE_ROUNDS, Memory, Uring};
use crate::io::{Arrivals, Io, IoError};

impl Uring {
    /// See [`Io::hold`].
    pub(super) fn stand_still(&mut self, arrivals: &mut Arrivals) -> Result<(), IoError> {
        self.is_held = true;
        self.is_busy = false;
        self.cancel(CancelBuilder::user_data(Token::Receive.to_bits()).all());
        let devices: Vec<u16> = self.devices.reading().collect();
        for device in devices {
            let reads = Token::Read { device }.to_bits();
            self.cancel(CancelBuilder::user_data(reads).all());
        }
        let mut rounds_left = CLOSE_ROUNDS;
        let is_taking = |it: &Self| it.is_receiving || it.devices.reading().next().is_some();
        while is_taking(self) && rounds_left > 0 {
            let entered = self.ring.enter(1, Some(CLOSE_ROUND_NS));
            entered.map_err(IoError::Ring)?;
            self.reap(arrivals);
            rounds_left -= 1;
        }
        let Memory { reads, arena, .. } = &mut *self.memory;
        self.tap.take(arena, arrivals, &self.counters);
        reads.split(arena, arrivals, &self.counters);
        Ok(())
    }

    pub(super) fn cancel(&mut self, what: CancelBuilder) {
        let entry = opcode::AsyncCancel2::new(what).build();
        // SAFETY: it touches no memory.
        unsafe { self.ring.push(entry, Token::Cancel) };
    }

    /// One round of closing: what arrives is thrown away. False when the ring does not work.
    pub(super) fn close_round(&mut self, arrivals: &mut Arrivals) -> bool {
        let is_entered = self.ring.enter(1, Some(CLOSE_ROUND_NS)).is_ok();
        self.reap_xdp(self.now_ms());
        self.reap(arrivals);
        let gre = arrivals.gre.drain(..);
        for frame in gre.chain(arrivals.tun.drain(..).map(|(_, frame)| frame)) {
            self.release(frame.slot);
        }
        arrivals.clear();
        is_entered
    }
}
