//! The lease file: which inner address was whose, for the next process.
//!
//! A journal of lines, each the whole truth about one address, the last one counts:
//!
//! ```text
//! held 10.0.0.5 1700000000 mia
//! free 10.0.0.5 1700000360 mia
//! ```
//!
//! with the time in seconds since 1970, and odd octets of a name as `%` and two hexadecimal digits.
//!
//! The control loop never waits for a disk. It hands records to a thread, which writes all that
//! have come with one `write` and makes them last with one `fdatasync`, however many there are. A
//! client is told that an address is its own (by the Configure-Ack of IPCP) only when its record
//! lasts: so whenever the process or the machine dies, every address that a client took for its own
//! is in the file. That costs no round trip, since LCP and CCP take longer than the disk. Returned
//! addresses need no such care: a lost line lets an address rest that need not.
//!
//! A line that a crash cut short is no line. At the start, and when most lines have been overtaken,
//! the file is written anew beside the old one and takes its place at once (rename(2)).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataplane::program::CallId;
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::privileges;
use crate::proto::pools::LeaseRecord;

/// Lines of which at most one in `OVERTAKEN_FACTOR` still counts are written anew, when there are
/// at least so many.
const LINES_MIN: usize = 4_096;
const OVERTAKEN_FACTOR: usize = 4;
/// Most orders of one `fdatasync`.
const ORDERS_MAX: usize = 4_096;
/// How often it is looked whether the thread has ended.
const END_CHECK: Duration = Duration::from_millis(5);

/// Why leases cannot be kept.
#[derive(Debug, Error)]
pub enum LeaseFileError {
    /// The operator or the machine.
    #[error("cannot keep leases in {path}: {cause}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Operating system's words.
        cause: io::Error,
    },
    /// The operator: two servers, one file.
    #[error("cannot keep leases in {0}: another server does (leases.file names another file)")]
    InUse(PathBuf),
}

/// What the thread has to say.
#[derive(Debug)]
pub(crate) enum Kept {
    /// The address of this session lasts, or cannot be made to.
    Settled(CallId),
    /// For the log.
    Trouble(String),
}

struct Order {
    lines: String,
    count: usize,
    /// Who waits.
    for_session: Option<CallId>,
}

/// The thread's other end.
#[derive(Debug)]
pub(crate) struct LeaseFile {
    orders: Option<Sender<Order>>,
    kept: UnboundedReceiver<Kept>,
    thread: Option<JoinHandle<()>>,
}

impl LeaseFile {
    /// Reads the file, if there is one, locks it, and starts the thread.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<LeaseRecord>), LeaseFileError> {
        let failed = |cause| LeaseFileError::Io {
            path: path.to_owned(),
            cause,
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        // The file itself is replaced from time to time, and a lock would go with the old one.
        let lock = private()
            .create(true)
            .truncate(false)
            .open(beside(path, "lock"))
            .map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LeaseFileError::InUse(path.to_owned()),
            TryLockError::Error(error) => failed(error),
        })?;
        let records = match std::fs::read(path) {
            Ok(octets) => fold(&octets),
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Err(error) => return Err(failed(error)),
        };
        let lines = records.len();
        let file = rewrite(path, &records).map_err(failed)?;
        let (orders, receiver) = channel();
        let (sender, kept) = unbounded_channel();
        let mut journal = Journal {
            path: path.to_owned(),
            file,
            _lock: lock,
            lines,
            lines_max: LINES_MIN.max(lines * OVERTAKEN_FACTOR),
            kept: sender,
            is_in_trouble: false,
        };
        let thread = std::thread::Builder::new()
            .name("lease-file".to_owned())
            .spawn(move || journal.run(&receiver))
            .map_err(failed)?;
        let file = Self {
            orders: Some(orders),
            kept,
            thread: Some(thread),
        };
        Ok((
            file,
            records.into_values().map(|(record, _)| record).collect(),
        ))
    }

    /// Keeps these records. With `for_session`, [`next`](Self::next) says when they last.
    pub(crate) fn keep(&self, records: &[LeaseRecord], for_session: Option<CallId>) {
        let now_s = now_s();
        let mut lines = String::new();
        for record in records {
            write_line(&mut lines, record, now_s);
        }
        if let Some(orders) = &self.orders {
            let _ = orders.send(Order {
                lines,
                count: records.len(),
                for_session,
            });
        }
    }

    /// What the thread says next. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Kept {
        match self.kept.recv().await {
            Some(kept) => kept,
            None => std::future::pending().await,
        }
    }

    /// Keeps what is left, and ends the thread.
    pub(crate) async fn finish(&mut self, limit: Duration) {
        self.orders = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        let deadline = Instant::now() + limit;
        while !thread.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(END_CHECK).await;
        }
    }
}

struct Journal {
    path: PathBuf,
    file: File,
    /// As long as the thread lives.
    _lock: File,
    lines: usize,
    lines_max: usize,
    kept: UnboundedSender<Kept>,
    /// Said once.
    is_in_trouble: bool,
}

impl Journal {
    fn run(&mut self, orders: &Receiver<Order>) {
        // The control loop does the same, and tells when it cannot be.
        let _ = privileges::give_up();
        while let Ok(first) = orders.recv() {
            let more = orders.try_iter().take(ORDERS_MAX - 1);
            let batch: Vec<Order> = std::iter::once(first).chain(more).collect();
            let result = self.append(&batch);
            self.report(result);
            for call_id in batch.iter().filter_map(|order| order.for_session) {
                let _ = self.kept.send(Kept::Settled(call_id));
            }
            if self.lines > self.lines_max {
                let result = self.compact();
                self.report(result);
            }
        }
        let _ = self.file.sync_data();
    }

    fn append(&mut self, batch: &[Order]) -> io::Result<()> {
        let lines: String = batch.iter().map(|order| order.lines.as_str()).collect();
        self.file.write_all(lines.as_bytes())?;
        self.lines += batch.iter().map(|order| order.count).sum::<usize>();
        if batch.iter().any(|order| order.for_session.is_some()) {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// The file is the truth: nothing else is asked what it should say.
    fn compact(&mut self) -> io::Result<()> {
        let records = fold(&std::fs::read(&self.path)?);
        self.file = rewrite(&self.path, &records)?;
        self.lines = records.len();
        self.lines_max = LINES_MIN.max(self.lines * OVERTAKEN_FACTOR);
        Ok(())
    }

    fn report(&mut self, result: io::Result<()>) {
        let text = match (result, self.is_in_trouble) {
            (Err(error), false) => format!(
                "the lease file {} cannot be written: {error}. Sessions go on; after a restart \
                 clients may get other addresses than before",
                self.path.display()
            ),
            (Ok(()), true) => format!("the lease file {} is written again", self.path.display()),
            _ => return,
        };
        self.is_in_trouble = !self.is_in_trouble;
        let _ = self.kept.send(Kept::Trouble(text));
    }
}

/// By address: what the last line says of it, and when that was.
type Records = HashMap<Ipv4Addr, (LeaseRecord, u64)>;

/// The records that whole lines add up to. What is no record is passed over.
fn fold(octets: &[u8]) -> Records {
    let whole = octets.iter().rposition(|&octet| octet == b'\n');
    let whole = octets.get(..whole.unwrap_or(0)).unwrap_or_default();
    let lines = whole.split(|&octet| octet == b'\n');
    lines
        .filter_map(|line| parse_line(std::str::from_utf8(line).ok()?))
        .map(|(record, time_s)| (record.address, (record, time_s)))
        .collect()
}

fn parse_line(line: &str) -> Option<(LeaseRecord, u64)> {
    let mut words = line.split(' ');
    let is_held = match words.next()? {
        "held" => true,
        "free" => false,
        _ => return None,
    };
    let address = words.next()?.parse().ok()?;
    let time_s = words.next()?.parse().ok()?;
    let user = unescape(words.next()?)?;
    let record = LeaseRecord {
        address,
        user,
        is_held,
    };
    words.next().is_none().then_some((record, time_s))
}

fn write_line(lines: &mut String, record: &LeaseRecord, time_s: u64) {
    let state = if record.is_held { "held" } else { "free" };
    // Writing to a string does not fail.
    let _ = write!(lines, "{state} {} {time_s} ", record.address);
    for &octet in record.user.as_bytes() {
        if octet.is_ascii_graphic() && octet != b'%' {
            lines.push(char::from(octet));
        } else {
            let _ = write!(lines, "%{octet:02X}");
        }
    }
    lines.push('\n');
}

fn unescape(word: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            octets.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        octets.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(octets).ok()
}

/// Writes the file anew, in one step for whoever reads it; open for more lines.
fn rewrite(path: &Path, records: &Records) -> io::Result<File> {
    let mut lines = String::new();
    for (record, time_s) in records.values() {
        write_line(&mut lines, record, *time_s);
    }
    let new = beside(path, "new");
    let mut file = private().create(true).truncate(true).open(&new)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(file)
}

/// Names of users are nobody else's affair.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(last: u8, user: &str, is_held: bool) -> LeaseRecord {
        LeaseRecord {
            address: Ipv4Addr::new(10, 0, 0, last),
            user: user.to_owned(),
            is_held,
        }
    }

    fn sorted(mut records: Vec<LeaseRecord>) -> Vec<LeaseRecord> {
        records.sort_by_key(|record| record.address);
        records
    }

    /// Ends the thread as a process that is killed would, without a word.
    fn run(work: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(work());
    }

    #[test]
    fn what_is_settled_is_in_the_file_and_the_last_line_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/leases");
        run(async || {
            let (mut file, before) = LeaseFile::open(&path).unwrap();
            assert!(before.is_empty());
            file.keep(&[record(1, "mia", true)], Some(CallId(7)));
            assert!(matches!(file.next().await, Kept::Settled(CallId(7))));
            // Not a word more is needed: this is what a killed process leaves behind.
            let left = std::fs::read(&path).unwrap();
            assert_eq!(fold(&left).len(), 1);
            file.keep(&[record(2, "DOMAIN\\bob %", true)], None);
            file.keep(&[record(1, "mia", false), record(3, "", true)], None);
            file.finish(Duration::from_secs(5)).await;
        });
        run(async || {
            let (mut file, after) = LeaseFile::open(&path).unwrap();
            let due = vec![
                record(1, "mia", false),
                record(2, "DOMAIN\\bob %", true),
                record(3, "", true),
            ];
            assert_eq!(sorted(after), due);
            assert!(matches!(
                LeaseFile::open(&path),
                Err(LeaseFileError::InUse(_))
            ));
            file.finish(Duration::from_secs(5)).await;
        });
    }

    #[test]
    fn a_file_full_of_overtaken_lines_is_written_anew_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases");
        run(async || {
            let (mut file, _) = LeaseFile::open(&path).unwrap();
            for n in 0..LINES_MIN * 3 {
                file.keep(&[record((n % 50) as u8, "mia", n % 3 == 0)], None);
            }
            file.finish(Duration::from_secs(10)).await;
        });
        let left = std::fs::read(&path).unwrap();
        let lines = left.iter().filter(|&&octet| octet == b'\n').count();
        assert!(lines < LINES_MIN * 2, "{lines}");
        let records = fold(&left);
        assert_eq!(records.len(), 50);
        let last = LINES_MIN * 3 - 1;
        let (last_record, _) = &records[&Ipv4Addr::new(10, 0, 0, (last % 50) as u8)];
        assert_eq!(last_record.is_held, last.is_multiple_of(3));
    }

    proptest! {
        /// Wherever a crash cuts the file, every line before the cut is read as it was written.
        #[test]
        fn a_cut_file_is_read_up_to_its_last_whole_line(
            users in proptest::collection::vec(".{0,12}", 1..20),
            cut in 0.0..1.0_f64,
        ) {
            let mut text = String::new();
            let mut ends = Vec::new();
            for (n, user) in users.iter().enumerate() {
                write_line(&mut text, &record(n as u8, user, n % 2 == 0), 1_700_000_000);
                ends.push(text.len());
            }
            let cut = (text.len() as f64 * cut) as usize;
            let records = fold(&text.as_bytes()[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            prop_assert_eq!(records.len(), whole);
            for (n, user) in users.iter().enumerate().take(whole) {
                let (read, _) = &records[&Ipv4Addr::new(10, 0, 0, n as u8)];
                prop_assert_eq!(read, &record(n as u8, user, n % 2 == 0));
            }
        }

        #[test]
        fn any_octets_are_records_or_nothing(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fold(&octets);
        }
    }
}
