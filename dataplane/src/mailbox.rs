//! The two bounded queues between control and one worker, with an eventfd each for wake-ups.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::limits::NOTICES_RESERVED;
use crate::program::{Command, Notice};
use crate::sys::wake::Wake;

/// What control and one worker share, beside the counters.
#[derive(Debug)]
pub struct Mailbox {
    commands: ArrayQueue<Command>,
    command_wake: Wake,
    notices: ArrayQueue<Notice>,
    notice_wake: Wake,
    is_ending: AtomicBool,
}

impl Mailbox {
    /// Empty queues of these lengths.
    ///
    /// # Errors
    /// No file descriptor is left for the wake-ups.
    ///
    /// # Panics
    /// When `commands` is 0 or `notices` does not exceed `limits::NOTICES_RESERVED`.
    pub fn new(commands: usize, notices: usize) -> io::Result<Self> {
        assert!(notices > NOTICES_RESERVED, "punted frames need room too");
        Ok(Self {
            commands: ArrayQueue::new(commands),
            command_wake: Wake::new()?,
            notices: ArrayQueue::new(notices),
            notice_wake: Wake::new()?,
            is_ending: AtomicBool::new(false),
        })
    }

    /// Control: queues a command and wakes the worker.
    ///
    /// # Errors
    /// The queue is full: the command comes back.
    pub fn post(&self, command: Command) -> Result<(), Command> {
        self.commands.push(command)?;
        self.command_wake.signal();
        Ok(())
    }

    /// Control: lets the worker end when it has done what is queued.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.command_wake.signal();
    }

    /// Control: the next notice.
    #[must_use]
    pub fn next_notice(&self) -> Option<Notice> {
        self.notices.pop()
    }

    /// Control: readable when there are notices.
    #[must_use]
    pub fn notice_fd(&self) -> BorrowedFd<'_> {
        self.notice_wake.as_fd()
    }

    /// Control: makes `notice_fd` unreadable until the next notice. Call it before `next_notice`.
    pub fn clear_notice(&self) {
        self.notice_wake.clear();
    }

    /// Worker: the next command; when there is none and control wants the end, `Stop`.
    pub(crate) fn next_command(&self) -> Option<Command> {
        // The order matters: what was posted before the end is found before it.
        let is_ending = self.is_ending.load(Ordering::Acquire);
        self.commands.pop().or(is_ending.then_some(Command::Stop))
    }

    /// Worker: readable when there are commands.
    pub(crate) fn command_fd(&self) -> BorrowedFd<'_> {
        self.command_wake.as_fd()
    }

    /// Worker: makes `command_fd` unreadable until the next command. Call it before
    /// `next_command`.
    pub(crate) fn clear_command(&self) {
        self.command_wake.clear();
    }

    /// Worker: whether a notice that may be dropped has room, with the reserve left free.
    pub(crate) fn has_room_for_punt(&self) -> bool {
        self.notices.len() + NOTICES_RESERVED < self.notices.capacity()
    }

    /// Worker: whether any notice has room.
    pub(crate) fn has_room(&self) -> bool {
        !self.notices.is_full()
    }

    /// Worker: queues a notice without waking control; false when there is no room.
    pub(crate) fn notify(&self, notice: Notice) -> bool {
        self.notices.push(notice).is_ok()
    }

    /// Worker: wakes control, once for all notices of a turn.
    pub(crate) fn wake_control(&self) {
        self.notice_wake.signal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::TunId;

    #[test]
    fn what_is_posted_before_the_end_is_done_before_it() {
        let mailbox = Mailbox::new(2, NOTICES_RESERVED + 1).unwrap();
        mailbox.post(Command::DetachTun { tun: TunId(1) }).unwrap();
        mailbox.end();
        let first = mailbox.next_command();
        assert!(matches!(first, Some(Command::DetachTun { .. })));
        assert!(matches!(mailbox.next_command(), Some(Command::Stop)));
    }

    #[test]
    fn a_full_queue_gives_the_command_back() {
        let mailbox = Mailbox::new(1, NOTICES_RESERVED + 1).unwrap();
        mailbox.post(Command::Stop).unwrap();
        let refused = mailbox.post(Command::DetachTun { tun: TunId(7) });
        assert!(matches!(refused, Err(Command::DetachTun { tun: TunId(7) })));
    }

    #[test]
    fn punts_leave_room_for_notices_that_must_not_be_lost() {
        let mailbox = Mailbox::new(1, NOTICES_RESERVED + 1).unwrap();
        assert!(mailbox.has_room_for_punt());
        assert!(mailbox.notify(Notice::Stopped));
        assert!(!mailbox.has_room_for_punt());
        assert!(mailbox.has_room());
    }
}
