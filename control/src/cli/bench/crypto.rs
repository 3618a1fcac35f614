//! `pptp-fast bench crypto`: MPPE as the data plane does it, beside MPPE written plainly.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use dataplane::frame::{Frame, Slot, VecArena};
use dataplane::limits::{BATCH_PACKETS, HEADROOM_BYTES, SLOT_BYTES};
use dataplane::mppe::baseline::PlainMppe;
use dataplane::mppe::cipher_batch::CipherBatch;
use dataplane::mppe::keys::{KeyStrength, SessionKey, StartKey};
use dataplane::mppe::rc4::Kernel;
use dataplane::mppe::rekey::KeySchedule;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::{fail, print_line, table};

/// Encrypt packets, as the data plane does it and plainly, and compare.
///
/// A packet is 1400 octets under a 128-bit stateless key: one change of the session key and one
/// pass of RC4. Plain is one packet at a time, SHA-1 and RC4 as the kernel's ppp_mppe uses them.
/// Both run by turns in one thread, so that what disturbs one disturbs the other.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast bench crypto\n  pptp-fast bench crypto --json")]
pub(super) struct Crypto {
    /// Turns of each; a turn takes about 3 ms.
    #[arg(long, default_value_t = 201, value_parser = value_parser!(u16).range(15..=10_000))]
    rounds: u16,
    /// One JSON object; times are nanoseconds for each packet, medians of the rounds.
    #[arg(long)]
    json: bool,
}

impl Crypto {
    pub(super) fn run(&self) -> ExitCode {
        let Some(report) = measure(self.rounds) else {
            return fail("the two implementations disagree: please report a bug", 1);
        };
        if self.json {
            print_line(serde_json::json!(report));
        } else {
            report.show();
        }
        ExitCode::SUCCESS
    }
}

const PACKET_BYTES: usize = 1400;
const BATCHES_PER_ROUND: usize = 8;
const START_KEY: [u8; 16] = *b"0123456789abcdef";

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    ns_per_packet: f64,
    baseline_ns_per_packet: f64,
    /// Baseline to ours, both medians.
    ratio: f64,
    min_ns_per_packet: f64,
    baseline_min_ns_per_packet: f64,
    packet_bytes: usize,
    rounds: u16,
    kernel: &'static str,
    lanes: usize,
}

impl Report {
    fn show(&self) {
        let row = |name: &str, median_ns: f64, min_ns: f64| {
            vec![
                name.to_owned(),
                format!("{median_ns:.0}"),
                format!("{min_ns:.0}"),
                format!("{:.2}", PACKET_BYTES as f64 * 8.0 / median_ns),
            ]
        };
        table::print(
            &["CIPHER", "NS/PACKET", "BEST", "GBIT/S"],
            &[
                row(
                    "plain",
                    self.baseline_ns_per_packet,
                    self.baseline_min_ns_per_packet,
                ),
                row("pptp-fast", self.ns_per_packet, self.min_ns_per_packet),
            ],
        );
        print_line(format_args!(
            "{:.2} times as fast: {}, {} lanes; {} octets a packet, {} rounds",
            self.ratio, self.kernel, self.lanes, PACKET_BYTES, self.rounds
        ));
    }
}

/// Measures both by turns; `None` when they do not come to the same ciphertext.
fn measure(rounds: u16) -> Option<Report> {
    let mut plain = Plain::new();
    let mut fast = Fast::new();
    // The first batch also warms everything up.
    plain.run();
    fast.run();
    for (slot, text) in (0..).zip(&plain.texts) {
        if frame(slot).bytes(&fast.arena) != text {
            return None;
        }
    }

    let mut bar = SlowBar::new(rounds);
    let (mut plain_ns, mut fast_ns) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        plain_ns.push(time_per_packet(|| plain.run()));
        fast_ns.push(time_per_packet(|| fast.run()));
        bar.advance();
    }
    bar.finish();
    plain_ns.sort_unstable_by(f64::total_cmp);
    fast_ns.sort_unstable_by(f64::total_cmp);
    let median = |sorted: &[f64]| sorted.get(sorted.len() / 2).copied();
    let baseline_ns_per_packet = median(&plain_ns)?;
    let ns_per_packet = median(&fast_ns)?;
    let kernel = Kernel::best();
    Some(Report {
        ns_per_packet,
        baseline_ns_per_packet,
        ratio: baseline_ns_per_packet / ns_per_packet,
        min_ns_per_packet: fast_ns.first().copied()?,
        baseline_min_ns_per_packet: plain_ns.first().copied()?,
        packet_bytes: PACKET_BYTES,
        rounds,
        kernel: kernel.name(),
        lanes: kernel.lanes(),
    })
}

fn time_per_packet(mut run_batch: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..BATCHES_PER_ROUND {
        run_batch();
    }
    start.elapsed().as_nanos() as f64 / (BATCHES_PER_ROUND * BATCH_PACKETS) as f64
}

/// One packet at a time.
struct Plain {
    chain: PlainMppe,
    texts: Vec<[u8; PACKET_BYTES]>,
}

impl Plain {
    fn new() -> Self {
        Self {
            chain: PlainMppe::new(START_KEY),
            texts: vec![[0; PACKET_BYTES]; BATCH_PACKETS],
        }
    }

    fn run(&mut self) {
        for text in &mut self.texts {
            self.chain.encrypt(text);
        }
    }
}

/// Keys in series, packets abreast, as encap has it for one session.
struct Fast {
    schedule: KeySchedule,
    key: SessionKey,
    arena: VecArena,
    batch: CipherBatch,
}

impl Fast {
    fn new() -> Self {
        let mut schedule = KeySchedule::new(&StartKey::new(KeyStrength::Bits128, &START_KEY));
        let key = schedule.initial();
        Self {
            schedule,
            key,
            arena: VecArena::new(BATCH_PACKETS as u16, SLOT_BYTES as u16),
            batch: CipherBatch::new(),
        }
    }

    fn run(&mut self) {
        for slot in 0..BATCH_PACKETS as u16 {
            self.key = self.schedule.next(&self.key);
            self.batch.push(&mut self.arena, frame(slot), self.key);
        }
        self.batch.run(&mut self.arena);
    }
}

const fn frame(slot: u16) -> Frame {
    Frame::new(Slot(slot), HEADROOM_BYTES as u16, PACKET_BYTES as u16)
}

/// A progress bar, on a terminal, for what takes longer than two seconds.
struct SlowBar {
    start: Instant,
    rounds: u16,
    done: u16,
    bar: Option<ProgressBar>,
}

impl SlowBar {
    fn new(rounds: u16) -> Self {
        Self {
            start: Instant::now(),
            rounds,
            done: 0,
            bar: None,
        }
    }

    fn advance(&mut self) {
        self.done += 1;
        if self.bar.is_none() {
            if !std::io::stderr().is_terminal() || self.start.elapsed() < Duration::from_secs(2) {
                return;
            }
            let bar = ProgressBar::new(u64::from(self.rounds));
            if let Ok(style) = ProgressStyle::with_template("{bar:30} round {pos} of {len}") {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(u64::from(self.done));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ciphers_agree_and_the_report_is_whole() {
        let report = measure(15).expect("both come to the same ciphertext");
        assert!(report.min_ns_per_packet > 0.0);
        assert!(report.min_ns_per_packet <= report.ns_per_packet);
        assert!(report.baseline_min_ns_per_packet <= report.baseline_ns_per_packet);
        let json = serde_json::json!(report);
        for field in [
            "ns_per_packet",
            "baseline_ns_per_packet",
            "ratio",
            "lanes",
            "rounds",
        ] {
            assert!(json[field].is_number(), "{field}");
        }
        assert!(json["kernel"].is_string());
    }
}
