//! What an operator does with a running server: look, end sessions, drain, reload, measure,
//! capture; and who may do it.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Group;
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;
use sim::lab::{Lab, Running, Side, binary, ready, wait_until};
use sim::tunnel::{serve, text};

const SERVER_INNER: &str = "10.50.0.1";
const METRICS: &str = "10.77.0.1:9723";
/// Every system has it, and nobody is in it.
const GROUP: &str = "daemon";
const CONFIG: &str = r#"
[auth]
name = "zidler"
chap_secrets = "server-secrets"
[ppp]
ipv6 = false
[pool]
local = "10.50.0.1"
remote = "10.50.0.2-5"
[dataplane]
workers = 2
"#;

/// A server, with more behind its configuration, and users mia, ann and bob.
fn started(more: &str) -> Option<(Lab, Running)> {
    let lab = ready().then(Lab::new)?;
    write_secrets(&lab, &["mia", "ann", "bob"]);
    let mut client_secrets = String::new();
    for user in ["mia", "ann", "bob", "eve"] {
        let options = format!("name {user}\nnoauth\nrequire-mppe-128\nnoipv6\ndebug\n");
        let options = lab.write(&format!("ppp/options.{user}"), &options);
        let peer = format!(
            "# Server IP: 10.77.0.1\nremotename zidler\nfile {}\n",
            options.display()
        );
        lab.write(&format!("ppp/peers/{user}"), &peer);
        client_secrets.push_str(&format!("{user} zidler {user}123 *\n"));
    }
    // Of clients, also of one that the server does not know.
    lab.write("ppp/chap-secrets", &client_secrets);
    let config = lab.write("server.toml", &format!("{CONFIG}{more}"));
    let server = serve(&lab, &config.display().to_string());
    Some((lab, server))
}

fn write_secrets(lab: &Lab, users: &[&str]) {
    let lines = users
        .iter()
        .map(|user| format!("{user} zidler {user}123 *\n"));
    lab.write("ppp/server-secrets", &lines.collect::<String>());
}

#[track_caller]
fn up(lab: &Lab, user: &str) {
    let up = lab.run(Side::Client, &["up", user]);
    assert_eq!(up.status.code(), Some(0), "{}", text(&up));
}

#[track_caller]
fn down(lab: &Lab, user: &str) {
    let down = lab.run(Side::Client, &["down", user]);
    assert!(down.status.success(), "{}", text(&down));
}

/// What one of the operator's commands says.
#[track_caller]
fn say(lab: &Lab, words: &str) -> String {
    let output = lab.run(Side::Server, &words.split_whitespace().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{words}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn json(lab: &Lab, words: &str) -> Value {
    serde_json::from_str(&say(lab, words)).expect("JSON")
}

/// What stands in a column of all sessions, in the order of the list.
#[track_caller]
fn column(lab: &Lab, words: &str, name: &str) -> Vec<String> {
    let listed = json(lab, &format!("sessions list --json {words}"));
    let rows = listed["sessions"].as_array().expect("sessions").clone();
    assert_eq!(listed["count"], rows.len());
    let cells = rows.iter().map(|row| row[name].clone());
    cells
        .map(|cell| {
            cell.as_str()
                .map_or_else(|| cell.to_string(), str::to_owned)
        })
        .collect()
}

#[test]
fn sessions_are_listed_chosen_and_ended() {
    let Some((lab, _server)) = started("") else {
        return;
    };
    let nothing = lab.run(Side::Server, &["sessions", "terminate", "--all"]);
    assert_eq!(nothing.status.code(), Some(1), "{}", text(&nothing));
    for user in ["mia", "ann"] {
        up(&lab, user);
    }
    let mut bob = lab.start(Side::Client, &["up", "-f", "bob"]);
    bob.wait_for("is active", 15);

    let head = say(&lab, "sessions list");
    let head = head.lines().next().unwrap_or_default().split_whitespace();
    let usual = "ifname username calling-sid ip comp state uptime rx-bytes tx-bytes";
    assert!(head.eq(usual.split(' ')));
    let sorted = column(&lab, "--order username", "username");
    assert_eq!(sorted, ["ann", "bob", "mia"]);
    let reversed = column(&lab, "--order -username", "username");
    assert_eq!(reversed, ["mia", "bob", "ann"]);
    assert_eq!(column(&lab, "--match username ^.{2}a", "username"), ["mia"]);
    assert_eq!(
        column(&lab, "--user ann --match state active", "type"),
        ["pptp"]
    );
    assert_eq!(
        column(&lab, "--peer 10.77.0.2", "called-sid"),
        ["10.77.0.1"; 3]
    );
    let ip = &column(&lab, "--user mia", "ip")[0];
    assert_eq!(column(&lab, &format!("--ip {ip}"), "username"), ["mia"]);
    let only = say(&lab, "sessions list --columns sid,ip --user mia");
    let only: Vec<Vec<&str>> = only
        .lines()
        .map(|it| it.split_whitespace().collect())
        .collect();
    assert_eq!(only[0], ["sid", "ip"]);
    assert_eq!(only[1][1], ip);
    assert_eq!(only[1][0].len(), 16);

    let shown = json(&lab, &format!("sessions show {} --json", only[1][0]));
    assert_eq!(shown["username"], "mia");
    let phases = shown["setup_s"].as_object().expect("phases");
    for phase in ["control", "call", "lcp", "auth", "ccp", "ipcp", "total"] {
        let took = phases[phase].as_f64().expect("seconds");
        assert!((0.0..10.0).contains(&took), "{phase}: {took}");
    }
    let pool = json(&lab, "pool --json");
    assert_eq!(pool["pools"][0]["size"], 4);
    assert_eq!(pool["pools"][0]["used"], 3);
    assert_eq!(pool["leases"].as_array().map(Vec::len), Some(3));

    say(&lab, "sessions terminate bob");
    let words = bob.wait_for("Terminated by the administrator", 10);
    assert!(words.contains("rcvd [LCP TermReq"), "{words}");
    bob.wait(10);
    wait_until("bob is gone", 15, || {
        column(&lab, "--order username", "username") == ["ann", "mia"]
    });
    say(&lab, "sessions terminate --match username ^a --hard");
    // At once, without waiting for the client.
    assert_eq!(column(&lab, "", "username"), ["mia"]);
    say(&lab, "sessions terminate --all");
    wait_until("nobody is left", 15, || {
        column(&lab, "", "username").is_empty()
    });
    assert_eq!(json(&lab, "pool --json")["pools"][0]["used"], 0);
}

#[test]
fn a_server_that_drains_takes_no_more_calls_and_ends_with_the_last() {
    let Some((lab, mut server)) = started("") else {
        return;
    };
    up(&lab, "mia");
    assert!(say(&lab, "drain").contains("1 sessions are left"));
    let refused = lab.run(Side::Client, &["up", "ann"]);
    assert_eq!(refused.status.code(), Some(16), "{}", text(&refused));
    let words = "the server refused the control connection";
    assert!(text(&refused).contains(words), "{}", text(&refused));
    assert!(
        text(&refused).contains("insufficient resources"),
        "{}",
        text(&refused)
    );
    say(&lab, "drain --cancel");
    up(&lab, "ann");

    let mut drain = lab.start(Side::Server, &["drain", "--wait"]);
    drain.wait_for("2 sessions are left", 10);
    down(&lab, "ann");
    drain.wait_for("1 sessions are left", 10);
    down(&lab, "mia");
    assert_eq!(drain.wait(10).0, 0);
    assert_eq!(server.wait(10).0, 0);
}

#[test]
fn secrets_are_read_again_while_a_tunnel_stands() {
    let Some((lab, mut server)) = started("") else {
        return;
    };
    up(&lab, "mia");
    let unknown = lab.run(Side::Client, &["up", "eve"]);
    assert_eq!(unknown.status.code(), Some(19), "{}", text(&unknown));
    write_secrets(&lab, &["mia", "eve"]);
    say(&lab, "reload");
    up(&lab, "eve");
    let gone = lab.run(Side::Client, &["up", "ann"]);
    assert_eq!(gone.status.code(), Some(19), "{}", text(&gone));

    lab.write("server.toml", "[pool]\nlocal = 7\n");
    let wrong = lab.run(Side::Server, &["reload"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong).contains("line 2"), "{}", text(&wrong));
    // A signal does the same as the command.
    write_secrets(&lab, &["mia", "eve", "ann"]);
    let changed = CONFIG.replace("10.50.0.2-5", "10.50.0.2-9");
    lab.write(
        "server.toml",
        &changed.replace("workers = 2", "workers = 1"),
    );
    server.signal(Signal::SIGHUP);
    server.wait_for("the number of workers has changed and needs a restart", 10);
    up(&lab, "ann");
    assert_eq!(
        column(&lab, "--order username", "username"),
        ["ann", "eve", "mia"]
    );
}

/// One scrape, sample by sample.
fn scrape(lab: &Lab) -> Vec<(String, f64)> {
    let body = lab.in_namespace(Side::Server, || {
        let mut stream = TcpStream::connect(METRICS).expect("metrics are served");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("it is taken");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        text
    });
    let text = body.join().expect("scraped");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(body.ends_with("# EOF\n"));
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    let parse = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    samples.map(parse).collect()
}

/// The sum over all samples whose name begins so.
fn sum(samples: &[(String, f64)], prefix: &str) -> f64 {
    let found = samples.iter().filter(|(name, _)| name.starts_with(prefix));
    found.map(|(_, value)| value).sum()
}

#[test]
fn metrics_have_the_values_of_what_has_happened() {
    let more = format!("[metrics]\nlisten = \"{METRICS}\"\nper_session = true\n");
    let Some((lab, _server)) = started(&more) else {
        return;
    };
    for user in ["mia", "ann"] {
        up(&lab, user);
    }
    assert!(!lab.run(Side::Client, &["up", "eve"]).status.success());
    let ip = column(&lab, "--user mia", "ip").remove(0);
    let mut ping = lab.command(Side::Server, "ping");
    let ping = ping
        .args(["-c5", "-i0.05", "-s100", &ip])
        .output()
        .expect("ping runs");
    assert!(ping.status.success(), "{}", text(&ping));

    let samples = scrape(&lab);
    for (name, value) in [
        ("pptp_fast_sessions{state=\"active\"}", 2.0),
        ("pptp_fast_logins_total{result=\"accepted\"}", 2.0),
        ("pptp_fast_logins_total{result=\"rejected\"}", 1.0),
        ("pptp_fast_sessions_ended_total", 1.0),
        ("pptp_fast_calls_total", 3.0),
        ("pptp_fast_pool_addresses_used{pool=\"main\"}", 2.0),
        ("pptp_fast_setup_seconds_count{phase=\"total\"}", 2.0),
        ("pptp_fast_setup_seconds_count{phase=\"lcp\"}", 3.0),
        // 5 times 100 octets behind headers of ICMP and IPv4.
        ("pptp_fast_received_packets_total", 5.0),
        ("pptp_fast_received_bytes_total", 640.0),
        ("pptp_fast_sent_bytes_total", 640.0),
        ("pptp_fast_session_sent_packets_total", 5.0),
        ("pptp_fast_draining", 0.0),
    ] {
        assert_eq!(sum(&samples, name), value, "{name}: {samples:#?}");
    }
    let mia = samples.iter().find(|(name, _)| {
        name.starts_with("pptp_fast_session_received_bytes_total{")
            && name.contains("user=\"mia\"")
            && name.contains(&format!("ip=\"{ip}\""))
    });
    assert_eq!(mia.map(|(_, value)| *value), Some(640.0));
    for name in [
        "resident_memory_bytes",
        "thread_cpu_seconds_total{thread=\"pptp-worker-0\"}",
    ] {
        assert!(sum(&samples, &format!("pptp_fast_{name}")) > 0.0, "{name}");
    }
    // What a session has carried stays when it goes.
    say(&lab, "sessions terminate --all --hard");
    let samples = scrape(&lab);
    assert_eq!(sum(&samples, "pptp_fast_sessions{"), 0.0);
    assert_eq!(sum(&samples, "pptp_fast_received_bytes_total"), 640.0);
    assert_eq!(
        sum(&samples, "pptp_fast_sessions_ended_total{cause=\"admin\"}"),
        2.0
    );
    assert_eq!(sum(&samples, "pptp_fast_session_"), 0.0);
}

/// UDP payloads and direction of a capture, in its order; and what its statistics say was missed.
fn read_capture(path: &Path) -> (Vec<(bool, Vec<u8>)>, u64) {
    let file = std::fs::read(path).expect("a file");
    let mut reader = PcapNgReader::new(file.as_slice()).expect("pcapng");
    let (mut packets, mut missed) = (Vec::new(), None);
    while let Some(block) = reader.next_block() {
        match block.expect("a whole block") {
            Block::InterfaceDescription(interface) => {
                assert_eq!(interface.linktype, DataLink::RAW);
            }
            Block::EnhancedPacket(packet) => {
                let is_inbound = packet.options.contains(&EnhancedPacketOption::Flags(1));
                let is_outbound = packet.options.contains(&EnhancedPacketOption::Flags(2));
                assert!(is_inbound != is_outbound, "{packet:?}");
                assert_eq!(packet.data[0], 0x45, "IPv4 without options");
                assert_eq!(packet.data[9], 17, "UDP");
                packets.push((is_inbound, packet.data[28..].to_vec()));
            }
            Block::InterfaceStatistics(statistics) => {
                missed = statistics.options.iter().find_map(|option| match option {
                    InterfaceStatisticsOption::IsbIfDrop(missed) => Some(*missed),
                    _ => None,
                });
            }
            other => panic!("{other:?}"),
        }
    }
    (packets, missed.expect("statistics at the end"))
}

#[test]
fn a_capture_has_every_packet_of_the_session_both_ways() {
    const COUNT: usize = 50;
    let Some((lab, _server)) = started("") else {
        return;
    };
    up(&lab, "mia");
    let ip = column(&lab, "--user mia", "ip").remove(0);
    let [at_server, at_client] =
        ["server", "client"].map(|end| lab.dir.path().join(format!("{end}.pcapng")));
    let limits = ["--count", "100", "--duration", "30", "-w"];
    let capture = |side, words: &[&str], path: &Path| {
        let path = path.display().to_string();
        lab.start(side, &[words, &limits, &[path.as_str()]].concat())
    };
    let mut captures = [
        capture(Side::Server, &["sessions", "capture", "mia"], &at_server),
        capture(Side::Client, &["capture", "mia"], &at_client),
    ];
    wait_until("the captures have begun", 15, || {
        at_server.exists() && at_client.exists()
    });
    std::thread::sleep(Duration::from_millis(300));

    let payload = |number: usize| vec![number as u8; 1 + number * 20];
    let echo = lab.in_namespace(Side::Server, || {
        let socket = UdpSocket::bind((SERVER_INNER, 7777)).expect("a free port");
        let mut buffer = [0; 2048];
        for _ in 0..COUNT {
            let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
            socket.send_to(&buffer[..len], from).expect("sent");
        }
    });
    std::thread::sleep(Duration::from_millis(100));
    let asked = lab.in_namespace(Side::Client, move || {
        let socket = UdpSocket::bind((ip.as_str(), 0)).expect("a free port");
        let limit = Some(Duration::from_secs(5));
        socket.set_read_timeout(limit).expect("a time");
        let mut buffer = [0; 2048];
        for number in 0..COUNT {
            socket
                .send_to(&payload(number), (SERVER_INNER, 7777))
                .expect("sent");
            let len = socket.recv(&mut buffer).expect("it comes back");
            assert_eq!(buffer[..len], payload(number));
        }
    });
    asked.join().expect("all came back");
    echo.join().expect("all sent back");
    for capture in &mut captures {
        assert_eq!(capture.wait(10).0, 0);
    }
    for (path, question_is_inbound) in [(at_server, true), (at_client, false)] {
        let (packets, missed) = read_capture(&path);
        assert_eq!((packets.len(), missed), (2 * COUNT, 0));
        for (number, pair) in packets.chunks(2).enumerate() {
            assert_eq!(pair[0], (question_is_inbound, payload(number)));
            assert_eq!(pair[1], (!question_is_inbound, payload(number)));
        }
    }
}

#[test]
fn a_capture_that_is_interrupted_or_loses_its_session_is_a_whole_file() {
    let Some((lab, _server)) = started("") else {
        return;
    };
    up(&lab, "mia");
    let path = lab.dir.path().join("mia.pcapng");
    let start = || {
        let _ = std::fs::remove_file(&path);
        let file = path.display().to_string();
        let capture = lab.start(Side::Server, &["sessions", "capture", "mia", "-w", &file]);
        wait_until("it has begun", 15, || {
            std::fs::metadata(&path).is_ok_and(|it| it.len() > 0)
        });
        capture
    };
    let mut interrupted = start();
    interrupted.signal(Signal::SIGINT);
    assert_eq!(interrupted.wait(10).0, 0);
    assert_eq!(read_capture(&path), (Vec::new(), 0));
    let mut ended = start();
    say(&lab, "sessions terminate mia --hard");
    assert_eq!(ended.wait(10).0, 0);
    assert_eq!(read_capture(&path), (Vec::new(), 0));
}

/// Runs a copy of our program that anyone may run, as nobody, with these groups.
fn as_nobody(lab: &Lab, groups: &[&str], words: &str) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534"]);
    command.args(groups).arg(lab.dir.path().join("pptp-fast"));
    command.args(words.split(' '));
    command.env("PPTP_FAST_RUN_DIR", lab.dir.path().join("run-Server"));
    command.output().expect("setpriv runs")
}

#[test]
fn the_socket_is_for_root_and_one_group() {
    let more = format!("[process]\nadmin_group = \"{GROUP}\"\n");
    let Some((lab, mut server)) = started(&more) else {
        return;
    };
    up(&lab, "mia");
    let open = |path: &Path| {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("a mode");
    };
    open(lab.dir.path());
    let copy = lab.dir.path().join("pptp-fast");
    std::fs::copy(binary(), &copy).expect("a copy");
    open(&copy);

    let group = Group::from_name(GROUP).expect("groups").expect("the group");
    let group = group.gid.to_string();
    let member = ["--groups", group.as_str()];
    let listed = as_nobody(&lab, &member, "sessions list");
    assert!(listed.status.success(), "{}", text(&listed));
    assert!(text(&listed).contains("mia"));
    let stranger = as_nobody(&lab, &["--clear-groups"], "sessions list");
    assert_eq!(stranger.status.code(), Some(1), "{}", text(&stranger));
    assert!(
        text(&stranger).contains("not allowed"),
        "{}",
        text(&stranger)
    );
    // Packets are root's alone.
    let capture = as_nobody(&lab, &member, "sessions capture mia");
    assert_eq!(capture.status.code(), Some(1));
    assert!(text(&capture).contains("root only"), "{}", text(&capture));
    server.wait_for("admin socket: uid 65534", 5);
    let ended = as_nobody(&lab, &member, "sessions terminate mia");
    assert!(ended.status.success(), "{}", text(&ended));
    server.wait_for("ends 1 sessions in order", 5);
    // Where the mode of the socket would let a stranger in, who he is does not.
    for path in ["run-Server", "run-Server/serve.sock"] {
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(lab.dir.path().join(path), mode).expect("a mode");
    }
    let stranger = as_nobody(&lab, &["--clear-groups"], "sessions list");
    assert!(text(&stranger).contains("only root"), "{}", text(&stranger));
    server.wait_for("is refused", 5);
}

#[test]
fn the_log_has_an_object_a_line_with_who_and_what() {
    let Some((lab, mut server)) = started("[log]\nformat = \"json\"\ndebug = true\n") else {
        return;
    };
    up(&lab, "mia");
    let mut event = |name: &str| -> Value {
        let line = server.wait_for(&format!("\"event\":\"{name}\""), 10);
        serde_json::from_str(&line).expect("one object a line")
    };
    let call = event("call");
    assert_eq!(call["peer"], "10.77.0.2");
    let packet = event("packet");
    assert_eq!(packet["session"], call["session"]);
    let message = packet["message"].as_str().unwrap_or_default();
    assert!(message.contains("[LCP ConfReq"), "{packet}");
    assert_eq!(event("authenticated")["user"], "mia");
    let up = event("up");
    assert_eq!(up["cipher"], "MPPE 128-bit stateless");
    assert_eq!(up["address"], column(&lab, "", "ip")[0]);
    assert_eq!(up["session"], column(&lab, "", "sid")[0]);
    say(&lab, "sessions terminate --all --hard");
    let ended = event("ended");
    assert_eq!(ended["session"], call["session"]);
    assert_eq!(ended["cause"], "admin");
    assert_eq!(ended["user"], "mia");
    let last = event("line");
    assert!(last["message"].as_str().is_some(), "{last}");
    assert_eq!(last["session"], call["session"]);
}
