//! Both ends of our own, as processes in two network namespaces: what a person types and sees.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;
use std::time::Duration;

use control::wire::pptp::codes::{ErrorCode, OutgoingCallResult, StartResult, StopResult};
use control::wire::pptp::messages::{
    OutgoingCallReply, StartControlConnectionReply, StopControlConnectionReply,
};
use control::wire::pptp::{Message, Text, next_message};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use sim::lab::{Lab, SERVER, Side, binary, ready};
use sim::tunnel::{
    HOWTO_OPTIONS, HOWTO_PEER, SERVER_OPTIONS, assert_bare, assert_pings, configure, pings, serve,
    started, take_down, text,
};

/// The how-to's own files bring a tunnel up in the background; `status` shows it, a ping crosses
/// it, `down` ends it on both sides, and nothing is left.
#[test]
fn the_howto_tunnel_comes_up_carries_packets_and_goes() {
    let Some((lab, mut server)) = started(SERVER_OPTIONS, HOWTO_OPTIONS) else {
        return;
    };

    let up = lab.run(Side::Client, &["up", "test2"]);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(0), "{log}");
    for line in [
        "sent [LCP ConfReq id=0x1 <asyncmap 0x0> <magic 0x",
        "rcvd [CHAP Challenge id=",
        "CHAP authentication succeeded",
        "sent [CCP ConfReq id=0x1 <mppe +H -M +S -L -D -C>]",
        "MPPE 128-bit stateless compression enabled",
        "rcvd [IPCP ConfNak id=0x1 <addr 192.168.254.231>]",
        "local  IP address 192.168.254.231",
        "remote IP address 192.168.254.230",
    ] {
        assert!(log.contains(line), "no `{line}` in:\n{log}");
    }
    assert!(
        !log.contains("mia123"),
        "the password is in the log:\n{log}"
    );
    let last = "Tunnel test2 is active on ppp0. Local IP Address: 192.168.254.231";
    assert!(log.contains(last), "no `{last}` in:\n{log}");

    let status = lab.run(Side::Client, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["tunnels"][0]["state"], "up");
    assert_eq!(status["tunnels"][0]["cipher"], "MPPE 128-bit stateless");
    assert_eq!(status["tunnels"][0]["peer_ip"], "192.168.254.230");

    for (side, peer) in [
        (Side::Client, "192.168.254.230"),
        (Side::Server, "192.168.254.231"),
    ] {
        assert_pings(&lab, side, peer);
    }

    take_down(&lab);
    server.wait_for("ended:", 10);
    assert_bare(&lab, Side::Client);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(15).0, 0);
    assert_bare(&lab, Side::Server);
}

/// Datagrams are joined on their way to the TUN device; whoever reads them does not see it.
#[test]
fn datagrams_arrive_one_by_one_as_they_were_sent() {
    const BURSTS: usize = 20;
    const BURST: usize = 30;
    /// Lengths that follow each other in a burst: equal ones are joined, and the rest is not.
    const LENGTHS: [usize; 6] = [1000, 1000, 1000, 1000, 300, 1];
    let payload = |number: usize| {
        let mut payload = vec![number as u8; 4 + LENGTHS[number % LENGTHS.len()]];
        payload[..4].copy_from_slice(&(number as u32).to_be_bytes());
        payload
    };
    let Some((lab, _server)) = started(SERVER_OPTIONS, HOWTO_OPTIONS) else {
        return;
    };
    let up = lab.run(Side::Client, &["up", "test2"]);
    assert!(up.status.success(), "{}", text(&up));

    let (opened, is_opened) = channel();
    let reader = lab.in_namespace(Side::Server, move || {
        let socket = UdpSocket::bind("192.168.254.230:7777").expect("a free port");
        let patience = Duration::from_secs(5);
        socket.set_read_timeout(Some(patience)).expect("a time");
        // All of them may come before this thread runs.
        setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).expect("room");
        opened.send(()).expect("someone waits");
        let mut buffer = [0; 2048];
        for number in 0..BURSTS * BURST {
            let len = socket.recv(&mut buffer).expect("a datagram");
            assert_eq!(buffer[..len], payload(number), "datagram {number}");
        }
    });
    is_opened.recv().expect("it is open");
    let writer = lab.in_namespace(Side::Client, move || {
        let socket = UdpSocket::bind("192.168.254.231:0").expect("a free port");
        socket.connect("192.168.254.230:7777").expect("a route");
        for number in 0..BURSTS * BURST {
            socket.send(&payload(number)).expect("it is sent");
            if number % BURST == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    writer.join().expect("all sent");
    reader.join().expect("all arrived");
    take_down(&lab);
}

/// Scripts run as pppd runs them: `ip-up` with the how-to's `ipparam` as sixth argument and an
/// environment of pppd's variables alone, `ip-down` when the tunnel has gone.
#[test]
fn scripts_are_told_of_the_network_as_it_comes_and_goes() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let conf = configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    let told = lab.dir.path().join("told");
    let script = |name: &str| {
        let told = told.display();
        format!("#!/bin/sh\necho {name} \"$1\" \"$4\" \"$5\" \"$6\" $IPREMOTE $HOME. >> {told}\n")
    };
    lab.write_script("ppp/ip-pre-up", &script("pre-up"));
    lab.write_script("ppp/ip-up", &script("up"));
    lab.write_script("ppp/ip-down", &script("down"));
    let _server = serve(&lab, &conf);
    let up = lab.run(Side::Client, &["up", "test2"]);
    assert_eq!(up.status.code(), Some(0), "{}", text(&up));
    take_down(&lab);
    let lines = || std::fs::read_to_string(&told).unwrap_or_default();
    let of_client = || -> Vec<String> {
        let all = lines();
        let ours = all.lines().filter(|line| line.contains("192.168.2.0"));
        ours.map(str::to_owned).collect()
    };
    for _ in 0..100 {
        if of_client().len() == 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let told_each = "ppp0 192.168.254.231 192.168.254.230 192.168.2.0 192.168.254.230 .";
    for (line, name) in of_client().iter().zip(["pre-up", "up", "down"]) {
        assert_eq!(*line, format!("{name} {told_each}"));
    }
    assert_eq!(of_client().len(), 3, "{}", lines());
}

/// IPv6 crosses between the link-local addresses that were agreed on, and `ipv6-up` and
/// `ipv6-down` are told of them.
#[test]
fn ipv6_crosses_between_link_local_addresses_and_its_scripts_are_told() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let options = format!("{HOWTO_OPTIONS}defaultroute6\ndefaultroute6-metric 77\n");
    let conf = configure(&lab, SERVER_OPTIONS, &options);
    let told = lab.dir.path().join("told");
    let script = |name: &str| {
        let told = told.display();
        format!("#!/bin/sh\necho {name} \"$1\" \"$4\" \"$5\" \"$6\" $LLREMOTE >> {told}\n")
    };
    lab.write_script("ppp/ipv6-up", &script("up"));
    lab.write_script("ppp/ipv6-down", &script("down"));
    let _server = serve(&lab, &conf);
    let mut client = lab.start(Side::Client, &["up", "test2", "-f"]);
    let mut address = |which: &str| {
        let line = client.wait_for(which, 15);
        line.trim_start_matches(which).trim().to_owned()
    };
    let (local, remote) = (address("local  LL address"), address("remote LL address"));
    client.wait_for("ipv6-up started", 15);
    assert_pings(&lab, Side::Client, &format!("{remote}%ppp0"));
    let mut ip = lab.command(Side::Client, "ip");
    let routes = text(
        &ip.args(["-6", "route", "show", "default"])
            .output()
            .unwrap(),
    );
    let is_there = routes.contains("dev ppp0") && routes.contains("metric 77");
    assert!(is_there, "{routes}");
    // pppd writes four digits for each group, everybody else leaves zeros out.
    let plain = |address: &str| address.parse::<Ipv6Addr>().unwrap().to_string();
    let shown = [plain(&local), plain(&remote)];
    let status = lab.run(Side::Client, &["status", "test2"]);
    let line = format!("test2: IPv6 {}, peer {} on ppp0", shown[0], shown[1]);
    assert!(text(&status).contains(&line), "{}", text(&status));
    let status = lab.run(Side::Client, &["status", "test2", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let addresses = ["local_ipv6", "peer_ipv6"].map(|name| &status["tunnels"][0][name]);
    assert_eq!(addresses, [&shown[0], &shown[1]], "{status}");
    // The session is one worker's, and so is its interface.
    let interfaces = lab.interfaces(Side::Server).into_iter();
    let mut shared = interfaces.filter(|name| name.starts_with("pptp"));
    let answers = shared.any(|name| pings(&lab, Side::Server, &format!("{local}%{name}")).is_ok());
    assert!(answers, "{local} answers through no interface");
    take_down(&lab);
    client.wait(15);
    let lines = || std::fs::read_to_string(&told).unwrap_or_default();
    for _ in 0..100 {
        if lines()
            .lines()
            .filter(|line| line.contains("192.168.2.0"))
            .count()
            == 2
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for name in ["up", "down"] {
        let due = format!("{name} ppp0 {local} {remote} 192.168.2.0 {remote}");
        assert!(
            lines().lines().any(|line| line == due),
            "no `{due}` in {}",
            lines()
        );
    }
    assert_bare(&lab, Side::Client);
}

/// EAP in the place of CHAP makes the keys of MPPE as well.
#[test]
fn eap_brings_the_tunnel_up_encrypted() {
    let options = "name zidler\nrequire-eap\nrequire-mppe-128\n";
    let Some((lab, _server)) = started(options, HOWTO_OPTIONS) else {
        return;
    };
    let up = lab.run(Side::Client, &["up", "test2"]);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(0), "{log}");
    assert!(log.contains("EAP authentication succeeded"), "{log}");
    assert!(
        log.contains("MPPE 128-bit stateless compression enabled"),
        "{log}"
    );
    assert_pings(&lab, Side::Client, "192.168.254.230");
    take_down(&lab);
    assert_bare(&lab, Side::Client);
}

/// The how-to's tunnel described by flags alone, and more words.
fn flags<'a>(password_file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = [
        "up",
        "--server",
        SERVER,
        "--user",
        "mia",
        "--remotename",
        "zidler",
    ];
    [&words[..], &["--password-file", password_file], more].concat()
}

/// `--json` prints exactly one object, and TERM in the foreground ends the tunnel with pppd's 5.
#[test]
fn a_tunnel_by_flags_prints_one_object_and_ends_on_a_signal() {
    let Some((lab, _server)) = started(SERVER_OPTIONS, HOWTO_OPTIONS) else {
        return;
    };
    let password = lab.write("password", "mia123\n").display().to_string();
    let mut client = lab.start(Side::Client, &flags(&password, &["--json", "-f"]));
    let line = client.wait_for("{", 15);
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["local_ip"], "192.168.254.231");
    assert_eq!(object["interface"], "ppp0");
    client.signal(Signal::SIGTERM);
    let (status, printed) = client.wait(15);
    assert_eq!(status, 5, "{printed}");
    assert_bare(&lab, Side::Client);
}

/// A wrong password ends with pppd's status 19 and shows the server's own words.
#[test]
fn a_wrong_password_is_named_with_the_servers_words() {
    let Some((lab, _server)) = started(SERVER_OPTIONS, HOWTO_OPTIONS) else {
        return;
    };
    let password = lab.write("password", "wrong\n").display().to_string();
    let up = lab.run(Side::Client, &flags(&password, &[]));
    let log = text(&up);
    assert_eq!(up.status.code(), Some(19), "{log}");
    assert!(log.contains("E=691"), "{log}");
    assert!(
        log.contains("did not accept our name and password"),
        "{log}"
    );
    assert_bare(&lab, Side::Client);
}

/// A name that no peers file has ends with status 2 and says which there are.
#[test]
fn an_unknown_tunnel_is_answered_with_those_that_exist() {
    let lab_free = tempfile::TempDir::new().unwrap();
    let peers = lab_free.path().join("peers");
    std::fs::create_dir(&peers).unwrap();
    std::fs::write(peers.join("test2"), HOWTO_PEER).unwrap();
    let up = std::process::Command::new(binary())
        .args(["up", "test3"])
        .env("PPPDIR", lab_free.path())
        .output()
        .unwrap();
    let log = text(&up);
    assert_eq!(up.status.code(), Some(2), "{log}");
    assert!(
        log.contains("Tunnel configuration for test3 not found"),
        "{log}"
    );
    assert!(log.contains("test2"), "{log}");
}

/// Nothing listens on port 1723: status 16, and the message names address and port.
#[test]
fn an_unreachable_server_is_named() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    let up = lab.run(Side::Client, &["up", "test2"]);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(16), "{log}");
    assert!(log.contains("10.77.0.1:1723"), "{log}");
    assert_bare(&lab, Side::Client);
}

/// The server refuses MPPE, the client demands it: status 10, no tunnel, both sides' wishes named.
#[test]
fn refused_encryption_ends_without_a_tunnel() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let conf = configure(
        &lab,
        "name zidler\nrequire-mschap-v2\nnomppe\n",
        HOWTO_OPTIONS,
    );
    let _server = serve(&lab, &conf);
    let up = lab.run(Side::Client, &["up", "test2"]);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(10), "{log}");
    assert!(log.contains("no encryption, so no tunnel"), "{log}");
    assert!(!log.contains("IP address 192.168"), "{log}");
    assert_bare(&lab, Side::Client);
}

/// A server that demands MPPE lets nobody in without it.
#[test]
fn a_server_that_demands_encryption_ends_a_link_without_it() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let without = HOWTO_OPTIONS.replace("require-mppe-128\n", "nomppe\n");
    let conf = configure(&lab, SERVER_OPTIONS, &without);
    let mut server = serve(&lab, &conf);
    let up = lab.run(Side::Client, &["up", "test2"]);
    assert_ne!(up.status.code(), Some(0), "{}", text(&up));
    server.wait_for("no encryption, so no tunnel", 10);
    assert_bare(&lab, Side::Client);
}

/// Each way to prove who one is, without encryption where the method has no keys.
#[test]
fn every_authentication_method_brings_a_tunnel_up() {
    if !ready() {
        return;
    }
    for (require, cipher, mppe) in [
        ("require-pap", "none", "nomppe"),
        ("require-chap", "none", "nomppe"),
        ("require-mschap", "none", "nomppe"),
        (
            "require-mschap",
            "MPPE 128-bit stateless",
            "require-mppe-128",
        ),
        (
            "require-mschap-v2",
            "MPPE 40-bit stateless",
            "require-mppe-40",
        ),
        (
            "require-mschap-v2",
            "MPPE 128-bit stateful",
            "require-mppe-128\nmppe-prefer-stateful",
        ),
        // The pool gives addresses to those who prove nothing, too.
        ("noauth", "none", "nomppe"),
    ] {
        let lab = Lab::new();
        let options = HOWTO_OPTIONS.replace("require-mppe-128\n", &format!("{mppe}\n"));
        let conf = configure(&lab, &format!("name zidler\n{require}\n{mppe}\n"), &options);
        let _server = serve(&lab, &conf);
        let up = lab.run(Side::Client, &["up", "test2"]);
        assert_eq!(
            up.status.code(),
            Some(0),
            "{require} {mppe}:\n{}",
            text(&up)
        );
        let status = lab.run(Side::Client, &["status", "test2", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(status["tunnels"][0]["cipher"], cipher, "{require} {mppe}");
        assert_pings(&lab, Side::Client, "192.168.254.230");
        take_down(&lab);
    }
}

/// `chap-interval`: the client is challenged again while the tunnel stands, and packets cross it
/// before and after with the keys of the first time.
#[test]
fn a_client_that_is_challenged_again_keeps_its_tunnel() {
    let options = format!(
        "{SERVER_OPTIONS}chap-interval 1
"
    );
    let Some((lab, mut server)) = started(&options, HOWTO_OPTIONS) else {
        return;
    };
    let up = lab.run(Side::Client, &["up", "test2"]);
    assert_eq!(up.status.code(), Some(0), "{}", text(&up));
    server.wait_for("sent [CHAP Success", 5);
    for _ in 0..3 {
        server.wait_for("sent [CHAP Challenge", 5);
        server.wait_for("sent [CHAP Success", 5);
        assert_pings(&lab, Side::Client, "192.168.254.230");
    }
    take_down(&lab);
}

/// Both ends with a worker for each direction: streams cross both ways at once and arrive as they
/// were, `status` counts both directions, and the tunnel ends in order.
#[test]
fn a_tunnel_in_two_workers_at_each_end_carries_both_directions() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    let secrets = lab.dir.path().join("ppp/chap-secrets");
    let toml = format!(
        "[auth]\nname = \"zidler\"\nchap_secrets = \"{}\"\n\
         [pool]\nlocal = \"192.168.254.230\"\nremote = \"192.168.254.231\"\n\
         [dataplane]\nworkers = 2\nsplit_directions = true\n",
        secrets.display()
    );
    let conf = lab.write("server.toml", &toml).display().to_string();
    let mut server = serve(&lab, &conf);
    let up = lab.run(Side::Client, &["up", "test2", "--workers", "2"]);
    assert_eq!(up.status.code(), Some(0), "{}", text(&up));
    for (side, peer) in [
        (Side::Client, "192.168.254.230"),
        (Side::Server, "192.168.254.231"),
    ] {
        assert_pings(&lab, side, peer);
    }

    let (listens, is_listening) = channel();
    let served = lab.in_namespace(Side::Server, move || {
        let listener = TcpListener::bind("192.168.254.230:5001").unwrap();
        listens.send(()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        exchange(&stream, b'c', b's');
    });
    is_listening.recv().unwrap();
    let asked = lab.in_namespace(Side::Client, || {
        let stream = TcpStream::connect("192.168.254.230:5001").unwrap();
        exchange(&stream, b's', b'c');
    });
    asked.join().expect("the client's end gets what was sent");
    served.join().expect("the server's end gets what was sent");

    let at_client = lab.run(Side::Client, &["status", "test2", "--json"]);
    let at_client: serde_json::Value = serde_json::from_slice(&at_client.stdout).unwrap();
    let tunnel = &at_client["tunnels"][0];
    assert_eq!(tunnel["state"], "up");
    for direction in ["sent_bytes", "received_bytes"] {
        let octets = tunnel[direction].as_u64().unwrap();
        assert!(octets > STREAM_OCTETS as u64, "{direction}: {tunnel}");
    }
    // The kernel's router solicitations have no place in an IPv4 tunnel; nothing else is dropped.
    assert!(tunnel["dropped"].as_u64().unwrap() < 20, "{tunnel}");
    take_down(&lab);
    server.wait_for("ended:", 10);
    assert_bare(&lab, Side::Client);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(15).0, 0);
    assert_bare(&lab, Side::Server);
}

/// Octets that cross each way.
const STREAM_OCTETS: usize = 8 << 20;

/// Sends the stream of one name while that of the other comes in.
fn exchange(stream: &TcpStream, expected: u8, sent: u8) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = stream;
            writer.write_all(&octets(sent)).expect("it is sent");
        });
        let mut received = vec![0; STREAM_OCTETS];
        let mut reader = stream;
        reader.read_exact(&mut received).expect("it arrives");
        assert!(received == octets(expected), "another stream came out");
    });
}

/// A stream that repeats only after 2^32 octets, by its name.
fn octets(name: u8) -> Vec<u8> {
    let numbers = 0..STREAM_OCTETS as u32 / 4;
    let mixed = numbers.map(|number| number.wrapping_mul(0x9E37_79B9) ^ u32::from(name));
    mixed.flat_map(u32::to_be_bytes).collect()
}

/// A process without the two capabilities says which are missing, and pppd's status 3.
#[test]
fn missing_capabilities_are_named() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    let run_dir = lab.dir.path().join("run-nobody");
    std::fs::create_dir(&run_dir).unwrap();
    std::os::unix::fs::chown(&run_dir, Some(65534), Some(65534)).unwrap();
    let mut permissions = std::fs::metadata(lab.dir.path()).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(lab.dir.path(), permissions).unwrap();
    // Where the build directory is closed to others, a copy is not.
    let program = lab.dir.path().join("pptp-fast");
    std::fs::copy(binary(), &program).unwrap();
    let mut command = std::process::Command::new(program);
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    let password = lab.write("password", "mia123\n");
    std::os::unix::fs::chown(&password, Some(65534), Some(65534)).unwrap();
    let up = command
        .args(["up", "--server", SERVER, "--user", "mia", "--password-file"])
        .arg(password)
        .env("PPTP_FAST_RUN_DIR", &run_dir)
        .output()
        .unwrap();
    let log = text(&up);
    assert_eq!(up.status.code(), Some(3), "{log}");
    assert!(
        log.contains("CAP_NET_ADMIN and CAP_NET_RAW are missing"),
        "{log}"
    );
}

/// The demonstration brings its object with every figure, and ends with status 0.
#[test]
fn the_demonstration_measures_a_whole_tunnel() {
    if !ready() {
        return;
    }
    let demo = std::process::Command::new(binary())
        .args(["demo", "--seconds", "1", "--json"])
        .output()
        .unwrap();
    assert_eq!(demo.status.code(), Some(0), "{}", text(&demo));
    let object: serde_json::Value = serde_json::from_slice(&demo.stdout).unwrap();
    assert_eq!(object["cipher"], "MPPE 128-bit stateless");
    assert_eq!(object["local_ip"], "192.168.254.231");
    assert_eq!(object["peer_ip"], "192.168.254.230");
    for figure in ["setup_ms", "ping_ms", "tcp_up_mbps", "tcp_down_mbps"] {
        assert!(object[figure].as_f64().unwrap() > 0.0, "{figure}: {object}");
    }
}

/// Answers PPTP over TCP as a server does, and never anything over GRE.
fn server_without_gre(listener: &TcpListener) {
    let Ok((mut stream, _)) = listener.accept() else {
        return;
    };
    let mut received = Vec::new();
    let mut block = [0; 512];
    while let Ok(length) = stream.read(&mut block) {
        if length == 0 {
            return;
        }
        received.extend_from_slice(&block[..length]);
        while let Ok(Some((message, consumed))) = next_message(&received) {
            received.drain(..consumed);
            if let Some(reply) = reply(&message) {
                stream
                    .write_all(&reply.to_bytes())
                    .expect("the client reads");
            }
        }
    }
}

fn reply(message: &Message) -> Option<Message> {
    match message {
        Message::StartControlConnectionRequest(request) => {
            Some(Message::from(StartControlConnectionReply {
                version: request.version,
                result: StartResult::SUCCESSFUL,
                error: ErrorCode::NONE,
                framing: request.framing,
                bearer: request.bearer,
                maximum_channels: 1,
                firmware_revision: 0,
                host_name: Text::new("silent"),
                vendor_name: Text::EMPTY,
            }))
        }
        Message::OutgoingCallRequest(request) => Some(Message::from(OutgoingCallReply {
            call_id: 7,
            peer_call_id: request.call_id,
            result: OutgoingCallResult::CONNECTED,
            error: ErrorCode::NONE,
            cause_code: 0,
            connect_speed: 100_000_000,
            receive_window: 64,
            processing_delay: 0,
            physical_channel_id: 0,
        })),
        Message::StopControlConnectionRequest(_) => {
            Some(Message::from(StopControlConnectionReply {
                result: StopResult::OK,
                error: ErrorCode::NONE,
            }))
        }
        _ => None,
    }
}

/// The call stands over TCP, but GRE does not come through: status 10, and the message names GRE,
/// protocol 47 and what to look at.
#[test]
fn silent_gre_is_named_as_the_cause() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let quick = format!("{HOWTO_OPTIONS}lcp-restart 1\nlcp-max-configure 3\n");
    configure(&lab, SERVER_OPTIONS, &quick);
    let (listens, is_listening) = channel();
    lab.in_namespace(Side::Server, move || {
        let listener = TcpListener::bind((SERVER, 1723)).unwrap();
        listens.send(()).unwrap();
        server_without_gre(&listener);
    });
    is_listening.recv().unwrap();
    let up = lab.run(Side::Client, &["up", "test2"]);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(10), "{log}");
    assert!(log.contains("GRE (IP protocol 47)"), "{log}");
    assert!(log.contains("firewall or NAT"), "{log}");
    assert_bare(&lab, Side::Client);
}
