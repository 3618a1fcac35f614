//! The two that receive: our worker, and a loop of plain system calls.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use benches::START_KEY;
use dataplane::counters::{DropReason, WorkerCounters};
use dataplane::handle::WorkerConfig;
use dataplane::io::IoCounters;
use dataplane::limits;
use dataplane::mailbox::Mailbox;
use dataplane::mppe::baseline::PlainMppe;
use dataplane::mppe::keys::{KeyMode, KeyStrength, StartKey};
use dataplane::program::{Command, MppeSpec, NetworkSpec, Role, SessionSpec, TunId};
use dataplane::sys::gre_socket::{self, GreSocketConfig};
use dataplane::sys::probe;
use dataplane::sys::tun::{self, TunDevice};
use dataplane::uring::Uring;
use dataplane::wire::gre::GreRepr;
use dataplane::wire::ipv4::Ipv4Repr;
use dataplane::wire::mppe;
use dataplane::wire::ppp::{self, PppHeader};
use dataplane::worker::{Flow, Worker, WorkerSpec};
use nix::sys::socket::{SockaddrIn, recvfrom};

use super::traffic::{CALL, SOURCE, segment};
use super::{BURST_PACKETS, LOCAL, PEER, Receiver, ip};

/// Our address inside.
const INNER: &str = "10.99.0.1";
/// Turns that bring no packet, after which a burst is given up.
const IDLE_TURNS: u32 = 100;

/// The worker of the data plane, as `dataplane::handle::spawn` makes it, turned by hand.
pub(super) struct Ours {
    worker: Worker<Uring>,
    counters: Arc<WorkerCounters>,
    io_counters: Arc<IoCounters>,
}

impl Ours {
    /// One with an open session, in the namespace of the calling thread.
    pub(super) fn new() -> Result<Self> {
        let config = WorkerConfig::default();
        let mailbox = Arc::new(Mailbox::new(config.commands, config.notices)?);
        let (counters, io_counters) = (Arc::default(), Arc::<IoCounters>::default());
        let uring = Uring::new(
            gre_socket(LOCAL)?,
            config.slots,
            probe::probe()?,
            Arc::clone(&mailbox),
            Arc::clone(&io_counters),
        )?;
        let spec = WorkerSpec {
            index: config.index,
            count: config.count,
            max_sessions: 1,
            slots: Uring::slots(config.slots),
        };
        let mut ours = Self {
            worker: Worker::new(
                spec,
                uring,
                Arc::clone(&mailbox),
                Arc::clone(&counters),
                Arc::clone(&io_counters),
            ),
            counters,
            io_counters,
        };
        for command in commands()? {
            if mailbox.post(command).is_err() {
                bail!("the worker's queue is full");
            }
        }
        // Obeys them.
        ours.turn()?;
        Ok(ours)
    }

    pub(super) fn packets_per_turn(&self) -> f64 {
        let counters = &self.io_counters;
        counters.tun_written.get() as f64 / counters.turns.get() as f64
    }

    pub(super) fn packets_per_run(&self) -> Option<f64> {
        let (packets, runs) = (
            &self.io_counters.tun_written,
            &self.io_counters.runs_written,
        );
        (runs.get() > 0).then(|| packets.get() as f64 / runs.get() as f64)
    }

    fn turn(&mut self) -> Result<()> {
        match self.worker.turn()? {
            Flow::Continue => Ok(()),
            Flow::Stop => bail!("the worker has stopped"),
        }
    }
}

impl Receiver for Ours {
    fn drain(&mut self) -> Result<()> {
        let goal = self.io_counters.tun_written.get() + BURST_PACKETS as u64;
        let mut idle_turns = 0;
        while self.io_counters.tun_written.get() < goal {
            let before = self.io_counters.gre_received.get();
            self.turn()?;
            let is_idle = self.io_counters.gre_received.get() == before;
            idle_turns = if is_idle { idle_turns + 1 } else { 0 };
            if idle_turns > IDLE_TURNS {
                let written = self.io_counters.tun_written.get();
                let missing = goal.saturating_sub(written);
                bail!("{missing} packets are missing: {}", self.drops());
            }
        }
        Ok(())
    }
}

impl Ours {
    fn drops(&self) -> String {
        let counted = DropReason::ALL
            .into_iter()
            .map(|reason| (reason.name(), self.counters.dropped(reason)))
            .filter(|(_, count)| *count > 0);
        format!("{:?}, {:?}", counted.collect::<Vec<_>>(), self.io_counters)
    }
}

/// What control would send to bring the session up.
fn commands() -> Result<[Command; 4]> {
    let TunDevice { fd, name, features } = open_tun(tun::open)?;
    debug_assert_eq!(name, NAME);
    let mppe = MppeSpec {
        start_key: StartKey::new(KeyStrength::Bits128, &START_KEY),
        mode: KeyMode::Stateless,
    };
    let network = NetworkSpec {
        tun: TunId(0),
        local: INNER.parse()?,
        peer: SOURCE,
        compress_protocol: false,
        compress_address_control: false,
        require_encryption: true,
        check_source: true,
    };
    Ok([
        Command::Install(SessionSpec {
            call_id: CALL,
            peer: PEER,
            local: Some(LOCAL),
            peer_call_id: Some(CALL.0),
            counters: Arc::default(),
            role: Role::Both,
        }),
        Command::SetReceiveKey {
            call_id: CALL,
            mppe: Some(mppe),
        },
        Command::AttachTun {
            tun: network.tun,
            fd: Arc::new(fd),
            features,
            owner: Some(CALL),
            role: Role::Both,
        },
        Command::OpenNetwork {
            call_id: CALL,
            network,
        },
    ])
}

/// One packet at a time: `recvfrom`, the plain cipher, `write`.
pub(super) struct Plain {
    socket: OwnedFd,
    chain: PlainMppe,
    tun: File,
    buffer: Vec<u8>,
    has_checked: bool,
}

impl Plain {
    /// In the namespace of the calling thread.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            socket: gre_socket(LOCAL)?,
            chain: PlainMppe::new(START_KEY),
            tun: open_tun(tun::open_plain)?.fd.into(),
            buffer: vec![0; limits::SLOT_BYTES],
            has_checked: false,
        })
    }
}

impl Receiver for Plain {
    fn drain(&mut self) -> Result<()> {
        for _ in 0..BURST_PACKETS {
            let (len, _) = recvfrom::<SockaddrIn>(self.socket.as_raw_fd(), &mut self.buffer)
                .context("a packet is missing")?;
            let text = mppe_text(&mut self.buffer[..len]).context("not a packet of MPPE")?;
            self.chain.encrypt(text);
            let inner = PppHeader::parse_protocol(text).context("not a packet of PPP")?;
            let packet = &text[inner.len..];
            if !self.has_checked && packet != segment(0) {
                bail!("the plain cipher does not come to the packet that was sent");
            }
            self.has_checked = true;
            self.tun.write_all(packet).context("TUN")?;
        }
        Ok(())
    }
}

/// The ciphertext in a GRE packet with its outer IPv4 header.
fn mppe_text(packet: &mut [u8]) -> Option<&mut [u8]> {
    let outer = Ipv4Repr::parse(packet).ok()?;
    let gre = packet.get_mut(outer.header_len..)?;
    let header = GreRepr::parse(gre).ok()?;
    let frame = gre.get_mut(header.header_len()..)?;
    let ppp = PppHeader::parse(frame).filter(|header| header.protocol == ppp::COMPRESSED)?;
    frame.get_mut(ppp.len + mppe::HEADER_LEN..)
}

const NAME: &str = "ppp0";

/// Opens the device and brings it up with addresses of a tunnel.
fn open_tun(open: fn(&str) -> Result<TunDevice, tun::TunError>) -> Result<TunDevice> {
    let device = open(NAME)?;
    ip(&format!("address add {INNER} peer {SOURCE} dev {NAME}"))?;
    ip(&format!("link set {NAME} up mtu 1400"))?;
    Ok(device)
}

fn gre_socket(local: std::net::Ipv4Addr) -> Result<OwnedFd> {
    Ok(gre_socket::open(&GreSocketConfig {
        index: 0,
        count: 1,
        local: Some(local),
        mark: None,
    })?)
}
