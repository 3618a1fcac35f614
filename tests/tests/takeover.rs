//! Take-over: a new server process goes on with the tunnels of the old one, whichever of the two is
//! killed meanwhile.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::wire::pptp::messages::StartControlConnectionRequest;
use control::wire::pptp::{Message, Text, next_message};
use nix::sys::signal::Signal;
use serde_json::Value;
use sim::lab::{Lab, Running, SERVER, Side, ready};
use sim::tunnel::{SERVER_OPTIONS, assert_bare, assert_pings, text};

/// The server's address in every tunnel.
const SERVER_INNER: &str = "192.168.254.230";
/// Octets of one write of a transfer.
const BLOCK: usize = 8192;
/// Between two of them: the machine has something else to do, too.
const PAUSE: Duration = Duration::from_millis(1);

/// Options of both clients beside their names.
const CLIENT_OPTIONS: &str = "noauth\nrequire-mppe-128\nremotename zidler\n";

/// A lab with files for a server and two clients, `busy` and `idle`.
fn configured(server_options: &str, client_options: &str) -> (Lab, String) {
    let lab = Lab::new();
    lab.write(
        "ppp/chap-secrets",
        "busy zidler secret1 *\nidle zidler secret2 *\n",
    );
    for name in ["busy", "idle"] {
        let peer = format!("name {name}\n# Server IP: 10.77.0.1\n{CLIENT_OPTIONS}{client_options}");
        lab.write(&format!("ppp/peers/{name}"), &peer);
    }
    let options =
        format!("{SERVER_OPTIONS}lcp-echo-interval 1\nlcp-echo-failure 4\n{server_options}");
    let options = lab.write("pptpd-options", &options);
    let conf = format!(
        "option {}\nlocalip {SERVER_INNER}\nremoteip 192.168.254.231-240\n",
        options.display()
    );
    let conf = lab.write("pptpd.conf", &conf).display().to_string();
    (lab, conf)
}

fn serve(lab: &Lab, conf: &str) -> Running {
    let mut server = lab.start(Side::Server, &["serve", "--config", conf]);
    server.wait_for("Listening for PPTP", 10);
    server
}

fn dial(lab: &Lab) {
    for name in ["busy", "idle"] {
        let up = lab.run(Side::Client, &["up", name]);
        assert!(up.status.success(), "{}", text(&up));
    }
}

fn take_over(lab: &Lab, conf: &str, more: &[&str]) -> Running {
    let arguments = [&["serve", "--config", conf, "--takeover"], more].concat();
    lab.start(Side::Server, &arguments)
}

/// Sessions as the server that answers now tells them, by user.
fn sessions(lab: &Lab) -> Vec<Value> {
    let status = lab.run(Side::Server, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    let sessions = status["server"]["sessions"].as_array().cloned();
    let mut sessions = sessions.unwrap_or_else(|| panic!("no sessions in {status}"));
    sessions.sort_by_key(|session| session["name"].to_string());
    sessions
}

/// What must stay as it is over any number of take-overs.
fn identities(sessions: &[Value]) -> Vec<Value> {
    let keys = [
        "name",
        "state",
        "interface",
        "peer",
        "local_ip",
        "peer_ip",
        "cipher",
    ];
    let of_one = |it: &Value| keys.iter().map(|key| it[key].clone()).collect();
    sessions.iter().map(of_one).collect()
}

fn wait_until_stopped(process: &Running) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let path = format!("/proc/{}/stat", process.id());
    loop {
        let stat = std::fs::read_to_string(&path).expect("it has not ended");
        if stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with('T'))
        {
            return;
        }
        assert!(Instant::now() < deadline, "it has not stopped: {stat}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Octets of a stream that tell their place.
fn block(number: u64) -> Vec<u8> {
    let mut octets = vec![0; BLOCK];
    for (at, octet) in octets.iter_mut().enumerate() {
        *octet = (number.wrapping_mul(31) as usize + at / 8 + at % 251) as u8;
    }
    octets[..8].copy_from_slice(&number.to_be_bytes());
    octets
}

/// A TCP connection through the tunnel that carries numbered blocks both ways until it is ended.
struct Transfer {
    is_over: Arc<AtomicBool>,
    ends: [JoinHandle<u64>; 2],
}

impl Transfer {
    fn start(lab: &Lab) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (listens, is_listening) = std::sync::mpsc::channel();
        let over = Arc::clone(&is_over);
        let server = lab.in_namespace(Side::Server, move || {
            let listener = TcpListener::bind((SERVER_INNER, 7777)).expect("a free port");
            listens.send(()).expect("someone waits");
            let (stream, _) = listener.accept().expect("the client comes");
            exchange(stream, &over)
        });
        is_listening.recv().expect("it listens");
        let over = Arc::clone(&is_over);
        let client = lab.in_namespace(Side::Client, move || {
            let stream = TcpStream::connect((SERVER_INNER, 7777)).expect("the server listens");
            exchange(stream, &over)
        });
        Self {
            is_over,
            ends: [server, client],
        }
    }

    /// Octets that have arrived, both ways, all as they were sent.
    fn finish(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.ends
            .map(|end| end.join().expect("all arrives as it was sent"))
            .iter()
            .sum()
    }
}

fn exchange(stream: TcpStream, is_over: &Arc<AtomicBool>) -> u64 {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time");
    let mut reading = stream.try_clone().expect("a descriptor");
    let reader = std::thread::spawn(move || {
        let mut octets = vec![0; BLOCK];
        for number in 0.. {
            match reading.read_exact(&mut octets) {
                Ok(()) => assert!(octets == block(number), "block {number} is damaged"),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return number * BLOCK as u64;
                }
                Err(error) => panic!("after {number} blocks: {error}"),
            }
        }
        0
    });
    let mut writing = &stream;
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        writing
            .write_all(&block(number))
            .expect("the connection stands");
        std::thread::sleep(PAUSE);
    }
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("it stands");
    reader.join().expect("all arrives as it was sent")
}

/// Pings the server through the tunnel a hundred times a second until stopped: the largest pause
/// between two answers in milliseconds, and how many are missing.
fn pauses(printed: &str) -> (f64, usize) {
    let answers: Vec<(f64, usize)> = printed
        .lines()
        .filter_map(|line| {
            let time = line.strip_prefix('[')?.split_once(']')?.0.parse().ok()?;
            let number = line.split_once("icmp_seq=")?.1.split(' ').next()?;
            Some((time, number.parse().ok()?))
        })
        .collect();
    let pause = answers.windows(2).map(|two| (two[1].0 - two[0].0) * 1e3);
    let sent = answers.last().map_or(0, |last| last.1);
    (pause.fold(0.0, f64::max), sent - answers.len())
}

fn outlives_three(server_options: &str, client_options: &str, cipher: &str) {
    if !ready() {
        return;
    }
    let (lab, conf) = configured(server_options, client_options);
    let told = lab.dir.path().join("told");
    let script = format!(
        "#!/bin/sh\necho down $PEERNAME $CONNECT_TIME $BYTES_RCVD >> {}\n",
        told.display()
    );
    lab.write_script("ppp/ip-down", &script);
    let began = Instant::now();
    let mut server = serve(&lab, &conf);
    dial(&lab);
    let before = sessions(&lab);
    assert_eq!(before.len(), 2);
    assert_eq!(before[0]["cipher"], cipher);
    let mut ping = lab.command(Side::Client, "ping");
    let mut ping = Running::start(ping.args(["-D", "-i", "0.01", SERVER_INNER]));
    let transfer = Transfer::start(&lab);

    let (mut uptime, mut received) = (0, 0);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        let mut next = take_over(&lab, &conf, &[]);
        println!("{}", next.wait_for("Taken over from process", 20));
        let (code, printed) = server.wait(20);
        assert_eq!(code, 0, "{printed}");
        assert!(!printed.contains("ended:"), "{printed}");
        server = next;
        let now = sessions(&lab);
        assert_eq!(identities(&now), identities(&before));
        assert_eq!(now[0]["pid"], server.id());
        let counted = |key: &str| now[0][key].as_u64().expect("a number");
        assert!(counted("uptime_s") >= uptime && counted("received_bytes") > received);
        (uptime, received) = (counted("uptime_s"), counted("received_bytes"));
    }
    std::thread::sleep(Duration::from_millis(700));
    let octets = transfer.finish();
    ping.signal(Signal::SIGINT);
    let (pause, lost) = pauses(&ping.wait(10).1);
    println!("{cipher}: {octets} octets, longest pause {pause:.0} ms, {lost} pings lost");
    assert!(octets > 1 << 20, "{octets} octets in all");
    assert!(pause < 3000.0, "{pause} ms without an answer");

    // New sessions, and the end of the old ones, are the new process's affair.
    let down = lab.run(Side::Client, &["down", "idle"]);
    assert!(down.status.success(), "{}", text(&down));
    server.wait_for("ended:", 10);
    let up = lab.run(Side::Client, &["up", "idle"]);
    assert!(up.status.success(), "{}", text(&up));
    for name in ["busy", "idle"] {
        let down = lab.run(Side::Client, &["down", name]);
        assert!(down.status.success(), "{}", text(&down));
    }
    let lived = began.elapsed().as_secs();
    server.wait_for("ended:", 10);
    server.wait_for("ended:", 10);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(15).0, 0);
    assert_bare(&lab, Side::Server);
    let told = std::fs::read_to_string(told).unwrap_or_default();
    let of_busy = told
        .lines()
        .find_map(|line| line.strip_prefix("down busy "));
    let numbers: Vec<u64> = of_busy
        .unwrap_or_else(|| panic!("{told}"))
        .split(' ')
        .filter_map(|number| number.parse().ok())
        .collect();
    assert!(numbers[0] >= uptime && numbers[0] <= lived, "{told}");
    assert!(numbers[1] >= received, "{told}");
}

#[test]
fn a_transfer_and_an_idle_session_outlive_three_take_overs() {
    outlives_three("", "", "MPPE 128-bit stateless");
}

#[test]
fn stateful_keys_outlive_three_take_overs() {
    let option = "mppe-prefer-stateful\n";
    outlives_three(option, option, "MPPE 128-bit stateful");
}

/// A server is killed at every moment of the take-over from which on the new one has its sessions.
#[test]
fn no_tunnel_is_lost_when_the_old_process_is_killed() {
    if !ready() {
        return;
    }
    let (lab, conf) = configured("", "");
    let mut old = serve(&lab, &conf);
    dial(&lab);
    let before = identities(&sessions(&lab));
    let transfer = Transfer::start(&lab);
    for phase in ["told", "still", "taken", "go", "running"] {
        let mut new = take_over(&lab, &conf, &["--stop-at", phase]);
        wait_until_stopped(&new);
        old.signal(Signal::SIGKILL);
        old.wait(10);
        new.signal(Signal::SIGCONT);
        println!("{phase}: {}", new.wait_for("Taken over from process", 20));
        assert_eq!(identities(&sessions(&lab)), before, "{phase}");
        assert_pings(&lab, Side::Client, SERVER_INNER);
        old = new;
    }
    assert!(transfer.finish() > 0);
    assert_eq!(identities(&sessions(&lab)), before);
}

/// The new process is killed at every moment of the take-over: the old one goes on.
#[test]
fn no_tunnel_is_lost_when_the_new_process_is_killed() {
    if !ready() {
        return;
    }
    let (lab, conf) = configured("", "");
    let mut old = serve(&lab, &conf);
    dial(&lab);
    let before = identities(&sessions(&lab));
    let transfer = Transfer::start(&lab);
    for phase in ["ready", "told", "still", "taken", "go", "running"] {
        let mut new = take_over(&lab, &conf, &["--stop-at", phase]);
        wait_until_stopped(&new);
        new.signal(Signal::SIGKILL);
        new.wait(10);
        if phase != "ready" {
            println!("{phase}: {}", old.wait_for("has not taken over", 20));
        }
        assert_eq!(identities(&sessions(&lab)), before, "{phase}");
        assert_pings(&lab, Side::Client, SERVER_INNER);
    }
    // What came to nothing so often still can be done.
    let mut new = take_over(&lab, &conf, &[]);
    new.wait_for("Taken over from process", 20);
    assert_eq!(old.wait(20).0, 0);
    assert!(transfer.finish() > 0);
    assert_eq!(identities(&sessions(&lab)), before);
}

/// A process that stops in the middle is not waited for, and does not go on when it wakes up.
#[test]
fn a_new_process_that_sleeps_is_left_alone() {
    if !ready() {
        return;
    }
    let (lab, conf) = configured("", "");
    let mut old = serve(&lab, &conf);
    dial(&lab);
    let mut new = take_over(&lab, &conf, &["--stop-at", "still"]);
    wait_until_stopped(&new);
    old.wait_for("has not taken over", 20);
    new.signal(Signal::SIGCONT);
    let (code, printed) = new.wait(20);
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("the running server goes on"), "{printed}");
    assert_pings(&lab, Side::Client, SERVER_INNER);
    assert_eq!(sessions(&lab)[0]["pid"], old.id());
}

/// Who is still negotiating is told of the end, and can call again at once.
#[test]
fn a_connection_without_a_session_ends_in_order() {
    if !ready() {
        return;
    }
    let (lab, conf) = configured("", "");
    let mut old = serve(&lab, &conf);
    let (greeted, is_greeted) = std::sync::mpsc::channel();
    let client = lab.in_namespace(Side::Client, move || {
        let mut stream = TcpStream::connect((SERVER, 1723)).expect("the server listens");
        let patience = Duration::from_secs(20);
        stream.set_read_timeout(Some(patience)).expect("a time");
        let request = StartControlConnectionRequest {
            version: 0x0100,
            framing: 1,
            bearer: 1,
            maximum_channels: 0,
            firmware_revision: 0,
            host_name: Text::new("half"),
            vendor_name: Text::EMPTY,
        };
        let octets = Message::from(request).to_bytes();
        stream.write_all(&octets).expect("it is sent");
        let mut reply = [0; 156];
        stream.read_exact(&mut reply).expect("a reply");
        greeted.send(()).expect("someone waits");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("an end in order");
        let last = next_message(&rest).expect("a message").map(|it| it.0);
        assert!(
            matches!(last, Some(Message::StopControlConnectionRequest(_))),
            "{last:?}"
        );
    });
    is_greeted.recv().expect("it is greeted");
    let mut new = take_over(&lab, &conf, &[]);
    new.wait_for("Taken over from process", 20);
    client.join().expect("it was told");
    assert_eq!(old.wait(20).0, 0);
    dial(&lab);
    assert_pings(&lab, Side::Client, SERVER_INNER);
}

#[test]
fn another_format_is_refused_and_the_old_process_goes_on() {
    if !ready() {
        return;
    }
    let (lab, conf) = configured("", "");
    let none = take_over(&lab, &conf, &[]).wait(10);
    assert_eq!(none.0, 1);
    assert!(none.1.contains("no server is running here"), "{}", none.1);

    let _old = serve(&lab, &conf);
    dial(&lab);
    let path = lab.dir.path().join("run-Server/serve-takeover.sock");
    let mut socket = UnixStream::connect(path).expect("the server listens");
    let hello = br#"{"Hello":{"format":999}}"#;
    let header = [(hello.len() as u32).to_ne_bytes(), [0; 4]].concat();
    socket
        .write_all(&[&header, &hello[..]].concat())
        .expect("it is sent");
    let mut answer = String::new();
    let mut header = [0; 8];
    socket.read_exact(&mut header).expect("an answer");
    socket.read_to_string(&mut answer).expect("words");
    assert!(answer.contains("takes over in format 999"), "{answer}");
    assert_pings(&lab, Side::Client, SERVER_INNER);
}
