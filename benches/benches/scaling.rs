//! Whole workers, one on each processor, with sessions of their own: what two carry beside one,
//! as threads of one process and as processes of their own.
//! `cargo bench -p pptp-fast-benches --bench scaling [-- SECONDS [ROUNDS]]`
//!
//! Every worker has its packets go round: read from TUN, encapsulated, sent to itself, received,
//! decapsulated, written to TUN, where they are read again. Nothing of the kernel is in it, so what
//! two threads carry less than two processes would be lost to something that workers share: a
//! lock, the allocator, a cache line that both write. What two processes carry less than twice one
//! is the machine's: shared caches, shared cores, less boost.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use dataplane::frame::{Frame, Slot, Slots, VecArena};
use dataplane::io::{Arrivals, Io, IoCounters, IoError, Route};
use dataplane::limits::{HEADROOM_BYTES, SLOT_BYTES};
use dataplane::mailbox::Mailbox;
use dataplane::mppe::keys::{KeyMode, KeyStrength, StartKey};
use dataplane::offload::TunFeatures;
use dataplane::program::{CallId, Command, MppeSpec, NetworkSpec, Role, SessionSpec, TunId};
use dataplane::sys::affinity::{permitted_processors, pin_current_thread};
use dataplane::sys::xdp_socket::XdpSocketError;
use dataplane::wire::ipv4;
use dataplane::worker::{Worker, WorkerSpec};
use pptp_fast_benches::{PEER, START_KEY, inner_packet};

/// Sessions of each worker.
const SESSIONS: u16 = 100;
/// Packets that go round in each worker: as many as a busy worker has in flight.
const PACKETS: u16 = 200;
/// For acknowledgments.
const CONTROL_SLOTS: u16 = 64;
/// What the packets inside are.
const PROTOCOL_UDP: u8 = 17;
/// How the processes are told what they are.
const WORKER_WORD: &str = "worker";
const TUN: TunId = TunId(0);

/// A world in memory where everything that leaves comes back.
struct Loop {
    arena: VecArena,
    gre: Vec<Frame>,
    tun: Vec<(TunId, Frame)>,
    control_free: Vec<Slot>,
    started: Instant,
    carried: u64,
}

impl Loop {
    fn new() -> Self {
        let slots = PACKETS + CONTROL_SLOTS;
        Self {
            arena: VecArena::new(slots, SLOT_BYTES as u16),
            gre: Vec::with_capacity(usize::from(slots)),
            tun: Vec::with_capacity(usize::from(PACKETS)),
            control_free: (PACKETS..slots).map(Slot).collect(),
            started: Instant::now(),
            carried: 0,
        }
    }

    /// Packets as they come from TUN, for one session after the other.
    fn fill(&mut self) {
        let mut inner = inner_packet();
        for number in 0..PACKETS {
            let destination = inner_address(number % SESSIONS);
            let len = inner.len() as u16;
            let header = ipv4::header(len, 0, PROTOCOL_UDP, Ipv4Addr::UNSPECIFIED, destination);
            inner[..ipv4::HEADER_LEN].copy_from_slice(&header);
            let frame = self.arena.fill(Slot(number), HEADROOM_BYTES as u16, &inner);
            self.tun.push((TUN, frame));
        }
    }
}

impl Io for Loop {
    fn wait(&mut self, _deadline_ms: Option<u64>, arrivals: &mut Arrivals) -> Result<u64, IoError> {
        arrivals.gre.append(&mut self.gre);
        arrivals.tun.append(&mut self.tun);
        Ok(self.started.elapsed().as_millis() as u64)
    }

    fn take_slot(&mut self) -> Option<Slot> {
        self.control_free.pop()
    }

    fn take_kept_slot(&mut self) -> Option<Slot> {
        None
    }

    fn release(&mut self, slot: Slot) {
        assert!(slot.0 >= PACKETS, "a packet was dropped");
        self.control_free.push(slot);
    }

    fn send(&mut self, mut frame: Frame, route: Route) {
        assert!(frame.push_header(ipv4::HEADER_LEN), "there is headroom");
        let len = frame.len() as u16;
        let header = ipv4::header(len, 0, ipv4::PROTOCOL_GRE, route.peer, route.peer);
        let octets = &mut frame.bytes_mut(&mut self.arena)[..ipv4::HEADER_LEN];
        octets.copy_from_slice(&header);
        self.gre.push(frame);
    }

    fn write(&mut self, tun: TunId, frame: Frame) {
        self.carried += 1;
        self.tun.push((tun, frame));
    }

    fn attach(&mut self, _: TunId, _: Arc<OwnedFd>, _: TunFeatures, _: Role) -> bool {
        true
    }

    fn detach(&mut self, _: TunId) {}

    fn attach_packet_socket(&mut self, _: OwnedFd) {}

    fn attach_xdp_socket(&mut self, _: OwnedFd, _: u32) -> Result<(), XdpSocketError> {
        Err(XdpSocketError::Missing)
    }

    fn detach_xdp_socket(&mut self, _: u32) {}

    fn hold(&mut self, _: &mut Arrivals) -> Result<(), IoError> {
        Ok(())
    }

    fn resume(&mut self) {}

    fn collect(&mut self, _: u16, _: u16) -> bool {
        true
    }

    fn close(&mut self) {}
}

impl Slots for Loop {
    fn slot(&self, slot: Slot) -> &[u8] {
        self.arena.slot(slot)
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.arena.slot_mut(slot)
    }
}

fn inner_address(session: u16) -> Ipv4Addr {
    let [high, low] = session.to_be_bytes();
    Ipv4Addr::new(10, 0, high, low)
}

/// A worker with its sessions, whose packets go round.
fn worker(index: u16, count: u16) -> Worker<Loop> {
    let commands = 4 * usize::from(SESSIONS) + 1;
    let mailbox = Arc::new(Mailbox::new(commands, 1024).expect("descriptors are left"));
    let post = |command| assert!(mailbox.post(command).is_ok(), "the queue is long enough");
    let nothing = std::fs::File::open("/dev/null").expect("descriptors are left");
    post(Command::AttachTun {
        tun: TUN,
        fd: Arc::new(nothing.into()),
        features: TunFeatures::default(),
        owner: None,
        role: Role::Both,
    });
    for session in 0..SESSIONS {
        session_commands(session, index + session * count)
            .into_iter()
            .for_each(post);
    }
    let spec = WorkerSpec {
        index,
        count,
        max_sessions: usize::from(SESSIONS),
        slots: usize::from(PACKETS + CONTROL_SLOTS),
    };
    let counters = Arc::new(IoCounters::default());
    let theirs = Arc::clone(&mailbox);
    let mut worker = Worker::new(spec, Loop::new(), theirs, Arc::default(), counters);
    turn(&mut worker);
    worker.io_mut().fill();
    worker
}

/// A session whose peer is itself.
fn session_commands(session: u16, call_id: u16) -> [Command; 4] {
    let peer_call_id = Some(call_id);
    let call_id = CallId(call_id);
    let mppe = Some(MppeSpec {
        start_key: StartKey::new(KeyStrength::Bits128, &START_KEY),
        mode: KeyMode::Stateless,
    });
    let network = NetworkSpec {
        tun: TUN,
        local: Ipv4Addr::UNSPECIFIED,
        peer: inner_address(session),
        compress_protocol: false,
        compress_address_control: false,
        require_encryption: true,
        check_source: false,
    };
    [
        Command::Install(SessionSpec {
            call_id,
            peer: PEER,
            local: None,
            peer_call_id,
            role: Role::Both,
            counters: Arc::default(),
        }),
        Command::SetReceiveKey {
            call_id,
            mppe: mppe.clone(),
        },
        Command::SetSendKey { call_id, mppe },
        Command::OpenNetwork { call_id, network },
    ]
}

fn turn(worker: &mut Worker<Loop>) {
    assert!(worker.turn().is_ok(), "memory does not fail");
}

/// Packets a second that one worker carries on this processor for so long after the barrier.
fn carry(processor: usize, index: u16, count: u16, span: Duration, ready: impl FnOnce()) -> f64 {
    pin_current_thread(processor).expect("the processor is permitted");
    let mut worker = worker(index, count);
    for _ in 0..100 {
        turn(&mut worker);
    }
    ready();
    let (start, before) = (Instant::now(), worker.io().carried);
    while start.elapsed() < span {
        turn(&mut worker);
    }
    (worker.io().carried - before) as f64 / start.elapsed().as_secs_f64()
}

/// One worker on each of these processors, as threads of this process.
fn as_threads(processors: &[usize], span: Duration) -> f64 {
    let count = processors.len() as u16;
    let barrier = Arc::new(Barrier::new(processors.len()));
    let threads: Vec<_> = (0..count)
        .zip(processors)
        .map(|(index, &processor)| {
            let barrier = Arc::clone(&barrier);
            let ready = move || {
                barrier.wait();
            };
            std::thread::spawn(move || carry(processor, index, count, span, ready))
        })
        .collect();
    let rates = threads.into_iter().map(|thread| thread.join());
    rates.map(|rate| rate.expect("a worker goes on")).sum()
}

/// The same as processes that share nothing.
fn as_processes(processors: &[usize], span: Duration) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let count = processors.len().to_string();
    let start = |(index, processor): (usize, &usize)| -> Child {
        let numbers = [index, *processor, span.as_millis() as usize].map(|it| it.to_string());
        Process::new(&program)
            .args([WORKER_WORD, &count])
            .args(numbers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again")
    };
    let mut children: Vec<Child> = processors.iter().enumerate().map(start).collect();
    let outputs = children.iter_mut().map(|child| child.stdout.take());
    let mut outputs: Vec<_> = outputs.flatten().map(BufReader::new).collect();
    let mut line = String::new();
    for output in &mut outputs {
        output
            .read_line(&mut line)
            .expect("it says that it is ready");
    }
    for child in &mut children {
        let input = child.stdin.as_mut().expect("it is piped");
        writeln!(input, "go").expect("it waits");
    }
    let mut rate = 0.0;
    for output in &mut outputs {
        line.clear();
        output
            .read_line(&mut line)
            .expect("it says what it carried");
        rate += line.trim().parse::<f64>().expect("a number");
    }
    for mut child in children {
        assert!(child.wait().is_ok_and(|status| status.success()));
    }
    rate
}

/// What `as_processes` starts.
fn run_worker(numbers: &[usize]) {
    let [count, index, processor, span_ms] = numbers else {
        panic!("four numbers are expected")
    };
    let ready = || {
        println!("ready");
        let mut go = String::new();
        let _ = std::io::stdin().lock().read_line(&mut go);
    };
    let (index, count) = (*index as u16, *count as u16);
    let span = Duration::from_millis(*span_ms as u64);
    println!("{}", carry(*processor, index, count, span, ready));
}

/// One way to run workers, and what each round has found.
struct Way {
    label: String,
    workers: usize,
    run: fn(&[usize], Duration) -> f64,
    processors: Vec<usize>,
    rates: Vec<f64>,
}

impl Way {
    fn new(kind: &str, processors: &[usize], run: fn(&[usize], Duration) -> f64) -> Self {
        let names: Vec<_> = processors.iter().map(ToString::to_string).collect();
        Self {
            label: format!(
                "{} {kind}, processors {}",
                processors.len(),
                names.join(",")
            ),
            workers: processors.len(),
            run,
            processors: processors.to_vec(),
            rates: Vec::new(),
        }
    }

    fn median(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }
}

/// Each processor alone; then the first 2, 4, ... and all of them together, both ways.
fn ways(processors: &[usize]) -> Vec<Way> {
    let alone = |it: &usize| Way::new("worker alone", &[*it], as_threads);
    let mut ways: Vec<Way> = processors.iter().map(alone).collect();
    let doubled = std::iter::successors(Some(2), |count| Some(count * 2));
    let mut counts: Vec<usize> = doubled.take_while(|it| *it < processors.len()).collect();
    if processors.len() > 1 {
        counts.push(processors.len());
    }
    for count in counts {
        ways.push(Way::new("threads", &processors[..count], as_threads));
        ways.push(Way::new("processes", &processors[..count], as_processes));
    }
    ways
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = arguments.iter().filter_map(|it| it.parse().ok()).collect();
    if arguments.first().is_some_and(|word| word == WORKER_WORD) {
        run_worker(&numbers);
        return;
    }
    let span = Duration::from_secs(numbers.first().map_or(1, |seconds| *seconds as u64));
    let rounds = numbers.get(1).copied().unwrap_or(5).max(1);
    let mut ways = ways(&permitted_processors());
    for _ in 0..rounds {
        for way in &mut ways {
            let rate = (way.run)(&way.processors, span);
            way.rates.push(rate);
        }
    }
    let alone: Vec<f64> = ways
        .iter()
        .filter(|it| it.workers == 1)
        .map(Way::median)
        .collect();
    println!(
        "{SESSIONS} sessions a worker, 1400 octets, MPPE 128-bit stateless, each packet \
         enciphered and deciphered; medians of {rounds} rounds in turn, {span:?} each"
    );
    for way in &ways {
        let apart: f64 = alone[..way.workers].iter().sum();
        let ratio = way.median() / (apart / way.workers as f64);
        let rate = way.median();
        println!(
            "{:<32} {rate:>12.0} packets/s  {ratio:5.2} of one",
            way.label
        );
    }
    let many: Vec<&Way> = ways.iter().filter(|it| it.workers > 1).collect();
    for pair in many.chunks(2) {
        let ratio = pair[0].median() / pair[1].median();
        println!(
            "{} workers: threads / processes {ratio:.3}",
            pair[0].workers
        );
    }
}
