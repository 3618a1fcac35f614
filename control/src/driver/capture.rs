//! A live capture of one session: its tap read by a thread, and written as pcapng to whoever asked.
//!
//! Packets are IP packets (LINKTYPE_RAW), each with its time in nanoseconds and its direction in
//! `epb_flags`: inbound came from the peer. Statistics at the end have what was missed. The thread
//! blocks when its reader does; then the tap runs full, and the worker goes on without it.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dataplane::capture::{Copied, Direction, Tap};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::{DataLink, Endianness, PcapError};

use super::admin::records::CaptureWish;

/// How often the tap is looked at while it is empty.
const PAUSE_MS: u16 = 5;
/// How long a reader that does not read is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// `epb_flags` (pcapng 4.3.1), bits 0 and 1.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A capture that has been agreed to.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Where packets come from.
    pub tap: Arc<Tap>,
    /// The session in words: `mia at 192.0.2.7`.
    pub title: String,
    /// Packets and time after which it ends.
    pub wish: CaptureWish,
}

impl Capture {
    /// Starts the thread; it ends with the session, with what was wished for, or with its reader.
    pub(crate) fn start(self, stream: UnixStream) {
        let tap = Arc::clone(&self.tap);
        let thread = std::thread::Builder::new().name("pptp-capture".to_owned());
        let started = thread.spawn(move || {
            // A reader that has gone needs nothing more; its end is the capture's.
            let _ = self.run(&stream);
            self.tap.close();
        });
        if started.is_err() {
            tap.close();
        }
    }

    fn run(&self, stream: &UnixStream) -> Result<(), PcapError> {
        stream.set_nonblocking(false).map_err(PcapError::IoError)?;
        let patience = stream.set_write_timeout(Some(PATIENCE));
        patience.map_err(PcapError::IoError)?;
        let mut writer = PcapNgWriter::with_endianness(BufWriter::new(stream), Endianness::Little)?;
        writer.write_pcapng_block(self.interface())?;
        flush(&mut writer)?;
        let duration = self.wish.duration_ms.map(Duration::from_millis);
        let deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
        let wanted = self.wish.count.unwrap_or(u64::MAX);
        let mut written = 0;
        while written < wanted {
            let is_last = self.tap.has_ended()
                || deadline.is_some_and(|at| Instant::now() >= at)
                || has_gone(stream);
            while written < wanted
                && let Some(copied) = self.tap.take()
            {
                writer.write_pcapng_block(packet(&copied))?;
                self.tap.give_back(copied);
                written += 1;
            }
            flush(&mut writer)?;
            if is_last {
                break;
            }
        }
        writer.write_pcapng_block(statistics(written, self.tap.missed()))?;
        flush(&mut writer)?;
        Ok(())
    }

    fn interface(&self) -> InterfaceDescriptionBlock<'_> {
        InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(&self.title)),
                // Nanoseconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        }
    }
}

fn flush(writer: &mut PcapNgWriter<impl Write>) -> Result<(), PcapError> {
    writer.get_mut().flush().map_err(PcapError::IoError)
}

/// Waits for a moment, or until the reader has ended its side.
fn has_gone(stream: &UnixStream) -> bool {
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    // A reader says nothing: whatever there is to read is the end.
    poll(&mut watched, PollTimeout::from(PAUSE_MS)).is_ok_and(|count| count > 0)
}

fn packet(copied: &Copied) -> EnhancedPacketBlock<'_> {
    let flags = match copied.direction {
        Direction::Received => INBOUND,
        Direction::Sent => OUTBOUND,
    };
    EnhancedPacketBlock {
        interface_id: 0,
        timestamp: since_epoch(copied.at),
        original_len: u32::try_from(copied.octets().len()).unwrap_or(u32::MAX),
        data: Cow::Borrowed(copied.octets()),
        options: vec![EnhancedPacketOption::Flags(flags)],
    }
}

fn statistics(written: u64, missed: u64) -> InterfaceStatisticsBlock<'static> {
    let now = since_epoch(SystemTime::now()).as_nanos();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    InterfaceStatisticsBlock {
        interface_id: 0,
        // Its high half comes first, though each half is little-endian.
        timestamp: now.rotate_left(32),
        options: vec![
            InterfaceStatisticsOption::IsbIfRecv(written + missed),
            InterfaceStatisticsOption::IsbIfDrop(missed),
        ],
    }
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Copies everything from `source` to `sink` as it comes, until the source ends.
///
/// # Errors
/// What reading or writing ended with.
pub fn pass_on(source: &mut impl io::Read, sink: &mut impl Write) -> io::Result<u64> {
    let mut buffer = [0; 64 << 10];
    let mut total = 0;
    loop {
        let len = match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        sink.write_all(&buffer[..len])?;
        sink.flush()?;
        total += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::{Block, PcapNgReader};
    use std::io::Read;

    #[test]
    fn a_capture_without_packets_is_a_whole_file() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let tap = Tap::new();
        let capture = Capture {
            tap: Arc::clone(&tap),
            title: "mia".to_owned(),
            wish: CaptureWish {
                duration_ms: Some(1),
                ..CaptureWish::default()
            },
        };
        capture.start(ours);
        let mut file = Vec::new();
        theirs.read_to_end(&mut file).unwrap();
        let mut reader = PcapNgReader::new(file.as_slice()).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(match block.unwrap() {
                Block::InterfaceDescription(block) => {
                    assert_eq!(block.linktype, DataLink::RAW);
                    "interface"
                }
                Block::InterfaceStatistics(_) => "statistics",
                _ => "other",
            });
        }
        assert_eq!(blocks, ["interface", "statistics"]);
        while !tap.is_closed() {
            std::thread::yield_now();
        }
    }
}
