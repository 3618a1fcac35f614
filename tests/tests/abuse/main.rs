//! Everything at once that strangers can do to a server, while one tunnel carries data: nothing of
//! that is lost, and when it is over the server is as it was before.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde_json::Value;
use sim::lab::{Lab, Running, Side, ready};
use sim::tunnel::{serve, text};

use attacker::{Attacker, CHAP, Caller, LCP, connect, source};

mod attacker;

const SERVER_INNER: &str = "10.50.0.1";
const PORT: u16 = 5000;
/// How long strangers take every state of a set-up, and how long they come in masses.
const SLOW: Duration = Duration::from_secs(6);
const FLOOD: Duration = Duration::from_secs(4);
/// Every time-out of the server is over after this.
const CALM: Duration = Duration::from_secs(9);
/// Between two packets of the tunnel's data.
const BEAT: Duration = Duration::from_millis(5);
/// Packets of the tunnel's data on their way at a time.
const UNDERWAY_MAX: usize = 64;
/// Between two forged packets of one kind.
const FORGED_BEAT: Duration = Duration::from_millis(1);

/// What the attacks may cost at their height and for good. At the height there are no more than 64
/// connections and 24 calls of strangers, a few kilobytes each; what stays are the tables of
/// back-off (at most 2 x 8192 + 16384 entries of some hundred octets, of which this test fills
/// few), and what the allocator keeps of the peak for each of its threads.
const MEMORY_BYTES_MAX: u64 = 12 << 20;
/// 64 first lines and as many counts a minute, 600 lines about calls in ten seconds; the attacks
/// take twenty.
const LOG_LINES_MAX: usize = 128 + 3 * 600 + 200;

const CONFIG: &str = r#"
[listen]
addresses = ["0.0.0.0"]
[auth]
name = "zidler"
chap_secrets = "server-secrets"
pap_secrets = "server-secrets"
require = ["mschap-v2", "pap"]
[mppe]
mode = "prefer"
[ppp]
ipv6 = false
lcp_echo_interval_s = 1
lcp_echo_failure = 10
[pool]
local = "10.50.0.1"
remote = "10.50.0.2-60"
[limits]
sessions_max = 64
connections_per_peer_max = 8
half_open_max = 64
half_open_calls_max = 24
half_open_calls_per_peer_max = 4
[timeouts]
first_message_s = 2
first_call_s = 3
lcp_s = 3
auth_s = 4
network_s = 4
setup_s = 7
[access]
deny = ["10.78.66.0/24"]
[log_in_backoff]
peer_failures_max = 3
user_failures_max = 6
first_s = 120
[dataplane]
workers = 2
[metrics]
listen = "10.77.0.1:9723"
"#;

#[test]
fn a_tunnel_carries_everything_while_strangers_do_their_worst() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let attacker = Attacker::new(&lab);
    let mut server = start_server(&lab);
    let mut client = dial(&lab);
    let sampler = Sampler::start(server.id());
    let stream = Stream::start(&lab);
    // Whatever the first packets, and the first questions, make the server take stays taken.
    std::thread::sleep(Duration::from_secs(1));
    let _ = (status(&lab), metrics(&lab));
    let before = Usage::of(server.id());
    let victim = victim_call_id(&lab);
    let uptime = status(&lab)["sessions"][0]["uptime_s"].as_u64();

    let forgers = forge(&attacker, victim, SLOW + FLOOD);
    let done = slowly(&attacker);
    println!("slow: {done:?}");
    let flooded = flood(&attacker);
    let forged: u64 = forgers.into_iter().map(|it| it.join().unwrap()).sum();
    println!("{flooded} connections in the flood, {forged} forged packets");
    std::thread::sleep(CALM);

    let (sent, missing) = stream.stop();
    let of_client = text(&lab.run(Side::Client, &["status", "--json"]));
    let status = status(&lab);
    println!("{sent} packets of data; {status}; {of_client}");
    assert!(sent > 500, "the stream itself was starved: {sent}");
    assert_eq!(missing, 0, "of {sent} packets");
    assert_eq!(status["session_count"], 1, "strangers have gone");
    let session = &status["sessions"][0];
    assert_eq!(
        (&session["state"], &session["name"]),
        (&"up".into(), &"mia".into())
    );
    assert_eq!(session["lost"], 0);
    assert!(session["uptime_s"].as_u64() >= uptime, "it came up again");
    assert_counted(&status, &metrics(&lab));

    let after = Usage::of(server.id());
    let peak = sampler.stop();
    println!("before {before:?}, after {after:?}, peak {peak}");
    let bound = before.memory_bytes + MEMORY_BYTES_MAX;
    assert!(peak < bound && after.memory_bytes < bound);
    assert_eq!(after.descriptors, before.descriptors);

    // Others have failed under its name until that had to wait: it itself is known, and comes in.
    let down = lab.run(Side::Client, &["down", "mia"]);
    assert_eq!(down.status.code(), Some(0), "{}", text(&down));
    let (_, log) = client.wait(10);
    assert!(log.contains("rcvd [LCP EchoRep"), "{log}");
    let up = lab.run(Side::Client, &["up", "mia"]);
    assert_eq!(up.status.code(), Some(0), "{}", text(&up));
    server.signal(Signal::SIGTERM);
    let (_, log) = server.wait(15);
    let lines = log.lines().count();
    println!("{lines} lines in the log");
    assert!(lines < LOG_LINES_MAX, "{lines} lines:\n{}", &log[..4000]);
    for words in [
        "access.deny",
        "limits.connections_per_peer_max",
        "times more: ",
    ] {
        assert!(log.contains(words), "no line about {words}");
    }
}

fn start_server(lab: &Lab) -> Running {
    lab.write("ppp/server-secrets", "mia * mia123 *\neve * eve123 *\n");
    let config = lab.write("server.toml", CONFIG).display().to_string();
    serve(lab, &config)
}

fn dial(lab: &Lab) -> Running {
    lab.write("ppp/chap-secrets", "mia zidler mia123 *\n");
    let options = "name mia\nnoauth\nrequire-mppe-128\nrefuse-pap\nnoipv6\nlcp-echo-interval 1\n\
                   lcp-echo-failure 10\ndebug\n";
    let options = lab.write("ppp/options.mia", options);
    let options = options.display();
    let peer = format!("# Server IP: 10.77.0.1\nremotename zidler\nfile {options}\n");
    lab.write("ppp/peers/mia", &peer);
    let mut client = lab.start(Side::Client, &["up", "mia", "--foreground"]);
    client.wait_for(" is active on ", 15);
    client
}

/// Data through the tunnel and back, every packet with a number.
struct Stream {
    goes_on: Arc<AtomicBool>,
    client: JoinHandle<(u64, u64)>,
    server: JoinHandle<()>,
}

impl Stream {
    fn start(lab: &Lab) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        let echoes = Arc::clone(&goes_on);
        let server = lab.in_namespace(Side::Server, move || {
            let socket = UdpSocket::bind((SERVER_INNER, PORT)).expect("the tunnel's address");
            socket
                .set_read_timeout(Some(Duration::from_millis(200)))
                .expect("a time");
            let mut packet = [0; 1500];
            while echoes.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut packet) {
                    socket.send_to(&packet[..len], from).expect("a route");
                }
            }
        });
        let sends = Arc::clone(&goes_on);
        let client = lab.in_namespace(Side::Client, move || exchange(&sends));
        Self {
            goes_on,
            client,
            server,
        }
    }

    /// Packets sent, and how many of them have not come back, or twice.
    fn stop(self) -> (u64, u64) {
        self.goes_on.store(false, Ordering::Relaxed);
        let result = self.client.join().expect("the client's end");
        self.server.join().expect("the server's end");
        result
    }
}

fn exchange(goes_on: &AtomicBool) -> (u64, u64) {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a port");
    socket.connect((SERVER_INNER, PORT)).expect("a route");
    let mut missing = BTreeSet::new();
    let mut packet = [0; 600];
    let receive = |missing: &mut BTreeSet<u64>, limit: Duration| {
        let limit = limit.max(Duration::from_millis(1));
        socket.set_read_timeout(Some(limit)).expect("a time");
        let mut packet = [0; 1500];
        if socket.recv(&mut packet).is_ok() {
            let number = packet.first_chunk().copied().map(u64::from_be_bytes);
            missing.remove(&number.expect("eight octets"));
        }
    };
    let (mut sent, mut next) = (0_u64, Instant::now());
    while goes_on.load(Ordering::Relaxed) {
        // No socket's buffer overflows because this machine has no time for who reads it.
        if missing.len() < UNDERWAY_MAX {
            packet[..8].copy_from_slice(&sent.to_be_bytes());
            socket.send(&packet).expect("the tunnel stands");
            missing.insert(sent);
            sent += 1;
        }
        next = (next + BEAT).max(Instant::now());
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            receive(&mut missing, left);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(3);
    while !missing.is_empty() && Instant::now() < deadline {
        receive(&mut missing, Duration::from_millis(100));
    }
    println!("missing: {missing:?}");
    (sent, missing.len() as u64)
}

/// Memory and descriptors of a process.
#[derive(Clone, Copy, Debug)]
struct Usage {
    memory_bytes: u64,
    descriptors: usize,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
        let line = smaps
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .expect("a line");
        let kilobytes = line
            .split_whitespace()
            .next()
            .and_then(|it| it.parse::<u64>().ok());
        Self {
            memory_bytes: kilobytes.expect("a number") * 1024,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))
                .expect("it runs")
                .count(),
        }
    }
}

/// Looks at the memory of a process again and again.
struct Sampler {
    peak: Arc<AtomicU64>,
    goes_on: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sampler {
    fn start(pid: u32) -> Self {
        let (peak, goes_on) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let (of_thread, runs) = (Arc::clone(&peak), Arc::clone(&goes_on));
        let thread = std::thread::spawn(move || {
            while runs.load(Ordering::Relaxed) {
                of_thread.fetch_max(Usage::of(pid).memory_bytes, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self {
            peak,
            goes_on,
            thread,
        }
    }

    fn stop(self) -> u64 {
        self.goes_on.store(false, Ordering::Relaxed);
        self.thread.join().expect("the sampler");
        self.peak.load(Ordering::Relaxed)
    }
}

/// What a stranger does from one address until some moment; how often, or how far, it came.
type Attack = fn(Ipv4Addr, Instant) -> usize;

/// Strangers that go a part of the way, a different one each, and stay there; how far they came.
fn slowly(attacker: &Attacker) -> BTreeMap<&'static str, usize> {
    let kinds: [(&'static str, u8, Attack); 8] = [
        ("silent", 2, |from, until| {
            let silent: Vec<_> = (0..4).filter_map(|_| connect(from)).collect();
            sleep_until(until);
            silent.len()
        }),
        ("garbage", 3, garbage),
        ("half a message", 2, |from, until| {
            let Some(mut tcp) = connect(from) else {
                return 0;
            };
            let _ = tcp.write_all(&attacker::start_request()[..100]);
            sleep_until(until);
            1
        }),
        ("no call", 2, |from, until| {
            let Some(mut tcp) = connect(from) else {
                return 0;
            };
            let _ = tcp.write_all(&attacker::start_request());
            sleep_until(until);
            1
        }),
        ("no LCP", 2, |from, until| {
            let callers: Vec<_> = (0..6).filter_map(|_| Caller::call(from)).collect();
            sleep_until(until);
            callers.len()
        }),
        ("no log-in", 2, |from, until| {
            let Some(mut caller) = Caller::call(from) else {
                return 0;
            };
            let opened = caller.open_lcp(false);
            sleep_until(until);
            opened.into()
        }),
        ("malformed frames", 3, malformed),
        ("reads nothing", 2, |from, until| {
            let Some(mut tcp) = connect(from) else {
                return 0;
            };
            let _ = tcp.write_all(&attacker::start_request());
            let echoes = attacker::echo_request().repeat(64);
            let mut written = 0;
            while Instant::now() < until && tcp.write_all(&echoes).is_ok() {
                written += 1;
            }
            written
        }),
    ];
    let until = Instant::now() + SLOW;
    let mut threads = Vec::new();
    for (kind, (name, count, work)) in kinds.into_iter().enumerate() {
        for host in 1..=count {
            let from = source(10 + kind as u8, host);
            threads.push((name, attacker.starts(move || work(from, until))));
        }
    }
    for (net, name) in [
        (40, "adam"),
        (41, "adam"),
        (42, "mia"),
        (43, "mia"),
        (44, "mia"),
    ] {
        let guess = move || guess(source(net, 1), name);
        threads.push(("guesses", attacker.starts(guess)));
    }
    let mut done = BTreeMap::new();
    for (name, thread) in threads {
        *done.entry(name).or_default() += thread.join().expect("an attack");
    }
    for (name, count) in &done {
        assert!(*count > 0, "`{name}` never got anywhere: {done:?}");
    }
    done
}

fn sleep_until(until: Instant) {
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// Octets that are not PPTP, and some that are nearly.
fn garbage(from: Ipv4Addr, until: Instant) -> usize {
    let mut rng = ChaCha12Rng::seed_from_u64(from.to_bits().into());
    let mut count = 0;
    while Instant::now() < until {
        let Some(mut tcp) = connect(from) else {
            continue;
        };
        let mut octets = attacker::start_request();
        match count % 3 {
            0 => rng.fill(&mut octets[..]),
            1 => {
                let at = rng.random_range(0..16);
                octets[at] ^= 1 << rng.random_range(0..8);
            }
            _ => octets.splice(.., *b"GET / HTTP/1.1\r\n\r\n").for_each(drop),
        }
        let _ = tcp.write_all(&octets);
        count += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    count
}

/// Logs in, and sends frames of every protocol that are no packets; again when the call has ended.
fn malformed(from: Ipv4Addr, until: Instant) -> usize {
    let mut rng = ChaCha12Rng::seed_from_u64(from.to_bits().into());
    let mut count = 0;
    while Instant::now() < until {
        let Some(mut caller) = Caller::call(from) else {
            std::thread::sleep(Duration::from_millis(200));
            continue;
        };
        if !caller.open_lcp(true) || !caller.log_in("eve", "eve123") {
            continue;
        }
        for _ in 0..200 {
            const PROTOCOLS: [u16; 9] = [
                LCP, CHAP, 0xC023, 0xC227, 0x80FD, 0x8021, 0x8057, 0x00FD, 0x0021,
            ];
            let protocol = PROTOCOLS[rng.random_range(0..PROTOCOLS.len())];
            let mut octets = attacker::frame(protocol, rng.random(), rng.random(), &[0; 40]);
            octets.truncate(rng.random_range(2..=octets.len()));
            if octets.len() > 8 {
                rng.fill(&mut octets[6..]);
            }
            caller.send(&octets);
            count += 1;
            std::thread::sleep(FORGED_BEAT);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    count
}

/// Guesses passwords; how often it was told that they were wrong.
fn guess(from: Ipv4Addr, name: &str) -> usize {
    let mut count = 0;
    for _ in 0..20 {
        let caller = Caller::call(from);
        let failed = caller.is_some_and(|mut it| it.open_lcp(false) && it.fails_to_log_in(name));
        count += usize::from(failed);
        if count == 4 {
            break;
        }
        // Refused for now: there are many.
        std::thread::sleep(Duration::from_millis(if failed { 0 } else { 200 }));
    }
    count
}

/// Packets for the victim's call and for others, from the wrong source and from the right one.
fn forge(attacker: &Attacker, victim: u16, limit: Duration) -> Vec<JoinHandle<u64>> {
    let elsewhere = attacker.starts(move || {
        let socket = attacker::gre_socket(source(50, 1)).expect("a socket");
        forge_with(limit, move |rng, payload| {
            let call_id = if rng.random() { victim } else { rng.random() };
            let mut packet = attacker::gre(call_id, rng.random(), payload);
            if rng.random_bool(0.3) {
                rng.fill(&mut packet[..4]);
            }
            let _ = socket.send(&packet);
        })
    });
    let as_victim = attacker.starts(move || {
        let socket = attacker::spoofing_socket().expect("a socket");
        forge_with(limit, move |rng, payload| {
            // With the right call ID only the sequence number is left to guess; it is small here,
            // and one that comes close would be taken for a real packet: that is PPTP.
            let sequence = rng.random_range(1 << 24..u32::MAX);
            let call_id = if rng.random() { victim } else { rng.random() };
            attacker::send_as_victim(&socket, &attacker::gre(call_id, sequence, payload));
        })
    });
    vec![elsewhere, as_victim]
}

fn forge_with(limit: Duration, mut send: impl FnMut(&mut ChaCha12Rng, &[u8])) -> u64 {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let (until, mut count) = (Instant::now() + limit, 0);
    while Instant::now() < until {
        let mut payload = [0; 64];
        rng.fill(&mut payload);
        // A Terminate-Request, something encrypted, or nothing at all.
        match count % 3 {
            0 => payload[..8].copy_from_slice(&[0xFF, 3, 0xC0, 0x21, 5, 9, 0, 4]),
            1 => payload[..3].copy_from_slice(&[0x00, 0xFD, 0x90]),
            _ => {}
        }
        send(&mut rng, &payload);
        count += 1;
        std::thread::sleep(FORGED_BEAT);
    }
    count
}

/// Connections from many sources as fast as they come, also from such as may not connect.
fn flood(attacker: &Attacker) -> usize {
    let until = Instant::now() + FLOOD;
    let threads = (0..8).map(|net| {
        attacker.starts(move || {
            let (mut held, mut count) = (std::collections::VecDeque::new(), 0);
            while Instant::now() < until {
                let net = if count % 10 == 0 { 66 } else { 60 + net % 4 };
                let from = source(net, (count % 7) as u8 + 1);
                held.extend(connect(from));
                if held.len() > 40 {
                    held.pop_front();
                }
                count += 1;
            }
            count
        })
    });
    let threads: Vec<_> = threads.collect();
    threads
        .into_iter()
        .map(|it| it.join().expect("a flood"))
        .sum()
}

/// Each kind of attack was met by what is there for it, and all of it is counted.
fn assert_counted(status: &Value, metrics: &str) {
    for reason in [
        "source_denied",
        "connections_per_peer",
        "half_open_pushed_out",
        "not_pptp",
        "no_start",
        "no_call",
        "half_open_calls_per_peer",
        "call_stalled",
        "log_in",
        "backoff_peer",
        "backoff_user",
    ] {
        let count = status["refused"][reason].as_u64();
        assert!(count > Some(0), "{reason}: {}", status["refused"]);
        let sample = format!("pptp_fast_refused_total{{reason=\"{reason}\"}} ");
        let line = metrics.lines().find(|it| it.starts_with(&sample));
        assert!(line.is_some_and(|it| !it.ends_with(" 0.0")), "{line:?}");
    }
    for reason in ["unknown_call", "wrong_peer", "sequence_jump"] {
        let count = status["drops"][reason].as_u64();
        assert!(count > Some(0), "{reason}: {}", status["drops"]);
    }
}

fn status(lab: &Lab) -> Value {
    let output = lab.run(Side::Server, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["server"].clone()
}

fn metrics(lab: &Lab) -> String {
    let scraped = lab.in_namespace(Side::Server, || {
        let mut tcp = std::net::TcpStream::connect("10.77.0.1:9723").expect("metrics");
        tcp.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
            .expect("a request");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut tcp, &mut text).expect("text");
        text
    });
    scraped.join().expect("a scrape")
}

fn victim_call_id(lab: &Lab) -> u16 {
    let words = ["sessions", "show", "mia", "--json"];
    let output = lab.run(Side::Server, &words);
    let session: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let call_id = session["call-id"]
        .as_u64()
        .and_then(|it| u16::try_from(it).ok());
    call_id.expect("a call ID")
}
