//! Take-over: a new server process goes on with the tunnels of the old one, whichever of the two is
//! killed meanwhile.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::wire::pptp::messages::StartControlConnectionRequest;
use control::wire::pptp::{Message, Text, next_message};
use nix::sys::signal::Signal;
use serde_json::Value;
use sim::freeradius::{FreeRadius, SECRET, freeradius_ready, radclient, value};
use sim::lab::{Lab, Running, SERVER, Side, binary, ready};
use sim::tunnel::{SERVER_OPTIONS, assert_bare, assert_pings, serve, text};

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

/// A TOML file for `serve`, whose inner addresses are 192.168.254.231 to 240.
fn toml(lab: &Lab, name: &str, more: &str) -> String {
    let conf = format!(
        "[auth]\nname = \"zidler\"\nrequire = [\"mschap-v2\"]\n\
         [mppe]\nmode = \"require\"\n\
         [pool]\nlocal = \"{SERVER_INNER}\"\nremote = \"192.168.254.231-240\"\n{more}"
    );
    lab.write(name, &conf).display().to_string()
}

/// One object a session, as the server that answers now tells it.
fn rows(lab: &Lab) -> Vec<Value> {
    let listed = lab.run(Side::Server, &["sessions", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
    let rows = listed["sessions"].as_array().cloned();
    rows.unwrap_or_else(|| panic!("no sessions in {listed}"))
}

/// RADIUS servers do not notice the change: the session's accounting goes on, orders are obeyed,
/// the network behind the client stays routed to it, and its route goes when it ends.
#[test]
fn accounting_goes_on_where_it_was() {
    if !freeradius_ready() {
        return;
    }
    let lab = Lab::new();
    let radius = FreeRadius::start(&lab, "127.0.0.1");
    lab.write("ppp/radius-secret", &format!("{SECRET}\n"));
    lab.write("ppp/chap-secrets", "mia zidler mia123 *\n");
    let peer = format!("name mia\n# Server IP: 10.77.0.1\n{CLIENT_OPTIONS}");
    lab.write("ppp/peers/mia", &peer);
    let conf = toml(
        &lab,
        "server.toml",
        "[radius]\nnas_identifier = \"pptp-1\"\ninterim_s = 2\n\
         [[radius.servers]]\naddress = \"127.0.0.1\"\nsecret_file = \"radius-secret\"\n\
         [radius.dynamic]\nlisten = \"127.0.0.1:3799\"\n\
         clients = [{ address = \"127.0.0.1\", secret_file = \"radius-secret\" }]\n",
    );
    let mut old = serve(&lab, &conf);
    let up = lab.run(Side::Client, &["up", "mia"]);
    assert!(up.status.success(), "{}", text(&up));
    lab.ip(Side::Client, "address add 172.16.5.1/32 dev lo");
    let start = radius.record(&["Acct-Status-Type = Start"], 5);
    let session = value(&start, "Acct-Session-Id").expect("a name");
    let before = rows(&lab);

    let mut new = take_over(&lab, &conf, &[]);
    println!("{}", new.wait_for("Taken over from process", 20));
    assert_eq!(old.wait(20).0, 0);
    let after = rows(&lab);
    for key in ["sid", "user", "called", "ip", "interface", "setup"] {
        assert_eq!(after[0][key], before[0][key], "{key}");
    }
    assert_pings(&lab, Side::Server, "172.16.5.1");
    let count = |kind: &str| {
        let kind = format!("Acct-Status-Type = {kind}");
        let records = radius.records();
        records.iter().filter(|it| it.contains(&kind)).count()
    };
    let told = count("Interim-Update");
    let deadline = Instant::now() + Duration::from_secs(10);
    while count("Interim-Update") == told {
        assert!(Instant::now() < deadline, "no interim update any more");
        std::thread::sleep(Duration::from_millis(50));
    }
    let all = radius.records();
    let is_interim = |record: &&String| record.contains("Interim-Update");
    assert!(all.iter().filter(is_interim).all(|it| it.contains(session)));
    let outcome = radclient(&lab, "disconnect", &format!("Acct-Session-Id = {session}"));
    assert!(outcome.contains("Disconnect-ACK"), "{outcome}");
    new.wait_for("ended:", 10);
    let stop = radius.record(&["Acct-Status-Type = Stop", session], 5);
    assert!(stop.contains("Class = 0x676f6c64"), "{stop}");
    let lasted = value(&stop, "Acct-Session-Time").and_then(|seconds| seconds.parse().ok());
    assert!(lasted.unwrap_or(0_u64) >= 1, "{stop}");
    assert!(!lab.routes(Side::Server).contains("172.16.5.0/24"));
    assert_eq!((count("Start"), count("Stop")), (1, 1));
    assert_eq!((count("Accounting-On"), count("Accounting-Off")), (1, 0));
}

/// Each session's own interface goes over, a server that drains goes on draining, and the new
/// process keeps the lease file: whoever comes after it finds each user's address there.
#[test]
fn interfaces_leases_and_draining_are_carried() {
    if !ready() {
        return;
    }
    let (lab, _) = configured("", "");
    let own = "[limits]\nsessions_max = 20\n[dataplane]\ninterface = \"per-session\"\n";
    let conf = toml(&lab, "own.toml", own);
    let elsewhere = toml(&lab, "shared.toml", "");
    let mut old = serve(&lab, &conf);
    dial(&lab);
    let before = identities(&sessions(&lab));
    assert_ne!(before[0], before[1], "each has its own interface");

    // Devices stay where they are, so a process that would put them elsewhere is refused.
    let (code, printed) = take_over(&lab, &elsewhere, &[]).wait(20);
    assert_eq!(code, 2, "{printed}");
    assert!(
        printed.contains("dataplane.interface has changed"),
        "{printed}"
    );

    let mut new = take_over(&lab, &conf, &[]);
    println!("{}", new.wait_for("Taken over from process", 20));
    assert_eq!(old.wait(20).0, 0);
    assert_eq!(identities(&sessions(&lab)), before);
    assert_pings(&lab, Side::Client, SERVER_INNER);

    let addresses = |lab: &Lab| -> Vec<Value> {
        let all = sessions(lab);
        all.iter()
            .map(|session| session["peer_ip"].clone())
            .collect()
    };
    let had = addresses(&lab);
    new.signal(Signal::SIGKILL);
    new.wait(10);
    for name in ["busy", "idle"] {
        let _ = lab.run(Side::Client, &["down", name]);
    }
    let mut third = serve(&lab, &conf);
    dial(&lab);
    assert_eq!(addresses(&lab), had);

    let drain = lab.run(Side::Server, &["drain"]);
    assert!(drain.status.success(), "{}", text(&drain));
    let mut fourth = take_over(&lab, &conf, &[]);
    println!("{}", fourth.wait_for("Taken over from process", 20));
    assert_eq!(third.wait(20).0, 0);
    for name in ["busy", "idle"] {
        let down = lab.run(Side::Client, &["down", name]);
        assert!(down.status.success(), "{}", text(&down));
    }
    let (code, printed) = fourth.wait(20);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("No calls are left"), "{printed}");
    assert_bare(&lab, Side::Server);
}

/// systemd is told of the new main process by the old one, and hears from the new one that it is
/// alive, though that was started without a word of a watchdog.
#[test]
fn the_new_process_is_the_service() {
    if !ready() {
        return;
    }
    let (lab, conf) = configured("", "");
    let path = lab.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let patience = Duration::from_secs(10);
    manager.set_read_timeout(Some(patience)).expect("a time");
    let hear_until = |wanted: &str| {
        let (mut heard, mut octets) = (Vec::new(), [0; 1024]);
        while !heard.iter().any(|line| line == wanted) {
            let length = manager.recv(&mut octets);
            let length = length.unwrap_or_else(|error| panic!("no {wanted}: {error}, {heard:?}"));
            let words = String::from_utf8_lossy(&octets[..length]);
            heard.push(words.trim_end().to_owned());
        }
        heard
    };
    let mut command = lab.command(Side::Server, binary());
    command.args(["serve", "--config", &conf]);
    command.env("NOTIFY_SOCKET", &path);
    command.env("WATCHDOG_USEC", "400000");
    let mut old = Running::start(&mut command);
    hear_until("READY=1");
    hear_until("WATCHDOG=1");
    let new = take_over(&lab, &conf, &[]);
    let heard = hear_until(&format!("MAINPID={}", new.id()));
    assert!(!heard.contains(&"STOPPING=1".to_owned()), "{heard:?}");
    assert_eq!(old.wait(20).0, 0);
    hear_until("WATCHDOG=1");
    let heard = hear_until("WATCHDOG=1");
    assert!(!heard.contains(&"STOPPING=1".to_owned()), "{heard:?}");
}
