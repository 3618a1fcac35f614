//! `pptp-fast doctor` against servers that work and servers that do not: each fault is named, with
//! its remedy, and nothing remains.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;
use std::time::Duration;

use control::wire::pptp::codes::{ErrorCode, OutgoingCallResult, StartResult};
use control::wire::pptp::messages::{Message, OutgoingCallReply, StartControlConnectionReply};
use control::wire::pptp::{Text, next_message};
use dataplane::sys::gre_socket::{self, GreSocketConfig};
use dataplane::wire::gre::GreRepr;
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, SockaddrIn, sendto};
use serde_json::Value;
use sim::lab::{CLIENT, Lab, SERVER, Side, ready};
use sim::tunnel::{
    HOWTO_OPTIONS, SERVER_OPTIONS, assert_bare, assert_pings, configure, serve, started, text,
};

/// A server without name servers, of which there are none in a namespace.
const NO_DNS: &str = "name zidler\nrequire-mschap-v2\nrequire-mppe-128\n";

/// Examines the server as mia, with her password; the report and the exit status.
fn examine(lab: &Lab, server: &str, more: &[&str]) -> (Value, i32) {
    let file = lab.write("mia.password", "mia123\n");
    let file = file.display().to_string();
    let mut arguments = vec!["doctor", server, "--json", "--password-file", &file];
    arguments.extend(["--user", "mia"]);
    arguments.extend(more);
    let done = lab.run(Side::Client, &arguments);
    let report = serde_json::from_slice(&done.stdout);
    let report: Value = report.unwrap_or_else(|_| panic!("no report: {}", text(&done)));
    assert_eq!(
        report["exit_status"],
        done.status.code().expect("ended by itself"),
        "{report:#}"
    );
    assert_bare(lab, Side::Client);
    (report, done.status.code().expect("ended by itself"))
}

fn phase<'a>(report: &'a Value, name: &str) -> &'a Value {
    let phases = report["phases"].as_array().expect("phases");
    let found = phases.iter().find(|phase| phase["phase"] == name);
    found.unwrap_or_else(|| panic!("no phase {name}: {report:#}"))
}

/// The phase of this name has failed, and no other; cause and remedies have these words.
fn assert_fails(report: &Value, name: &str, cause: &str, remedy: &str) {
    assert_eq!(report["verdict"], "failed", "{report:#}");
    assert_eq!(report["failed_phase"], name, "{report:#}");
    assert_says(phase(report, name), "failed", cause, remedy);
    let phases = report["phases"].as_array().expect("phases");
    let failed = phases.iter().filter(|phase| phase["status"] == "failed");
    assert_eq!(failed.count(), 1, "{report:#}");
}

fn assert_says(phase: &Value, status: &str, cause: &str, remedy: &str) {
    assert_eq!(phase["status"], status, "{phase:#}");
    let said = phase["cause"].as_str().unwrap_or_default();
    assert!(said.contains(cause), "\"{cause}\" is not in: {phase:#}");
    let remedies = phase["remedies"].as_array().expect("remedies");
    let mut words = remedies
        .iter()
        .flat_map(|it| it.as_object().expect("an object").values());
    let is_there = words.any(|words| words.as_str().unwrap_or_default().contains(remedy));
    assert!(is_there, "\"{remedy}\" is not in: {phase:#}");
}

/// Runs `nft` on one side, a statement a line.
fn nft(lab: &Lab, side: Side, statements: &str) {
    let done = lab.command(side, "nft").arg(statements).output();
    let done = done.expect("nft (nftables) is installed");
    assert!(done.status.success(), "{}", text(&done));
}

/// A chain of its own at a hook, with one rule.
fn rule(lab: &Lab, side: Side, hook: &str, rule: &str) {
    let chain = "add table inet doctor; add chain inet doctor";
    nft(
        lab,
        side,
        &format!(
            "{chain} {hook} {{ type filter hook {hook} priority 0; }}; \
             add rule inet doctor {hook} {rule}"
        ),
    );
}

/// A TCP server on the server's side, which serves one connection after the other.
fn fake(lab: &Lab, port: u16, serve: impl Fn(TcpStream) + Send + 'static) {
    let (listens, is_listening) = channel();
    lab.in_namespace(Side::Server, move || {
        let listener = TcpListener::bind((SERVER, port)).expect("the port is free");
        listens.send(()).expect("the test waits");
        for stream in listener.incoming().flatten() {
            serve(stream);
        }
    });
    is_listening.recv().expect("it listens");
}

/// Answers every question for a name with "no error", and no name.
fn name_server(lab: &Lab) {
    let (listens, is_listening) = channel();
    lab.in_namespace(Side::Server, move || {
        let socket = UdpSocket::bind("0.0.0.0:53").expect("the port is free");
        listens.send(()).expect("the test waits");
        let mut question = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut question) {
            question[2] |= 0x80;
            socket.send_to(&question[..len], from).expect("it is sent");
        }
    });
    is_listening.recv().expect("it listens");
}

#[test]
fn a_healthy_server_passes_every_phase_and_is_measured() {
    let Some((lab, server)) = started(SERVER_OPTIONS, HOWTO_OPTIONS) else {
        return;
    };
    name_server(&lab);
    let (report, status) = examine(&lab, SERVER, &[]);
    assert_eq!(status, 0, "{report:#}");
    assert_eq!(report["verdict"], "well");
    let names = [
        "name",
        "route",
        "tcp",
        "control",
        "call",
        "gre",
        "lcp",
        "authentication",
        "mppe",
        "addresses",
        "round_trip",
        "path_mtu",
        "dns",
    ];
    let phases = report["phases"].as_array().unwrap();
    let found: Vec<_> = phases
        .iter()
        .map(|phase| phase["phase"].as_str().unwrap())
        .collect();
    assert_eq!(found, names);
    assert!(
        phases.iter().all(|phase| phase["status"] == "ok"),
        "{report:#}"
    );
    assert_eq!(phase(&report, "route")["source"], CLIENT);
    assert_eq!(phase(&report, "control")["vendor_name"], "pptp-fast");
    assert_eq!(phase(&report, "authentication")["method"], "MS-CHAPv2");
    assert_eq!(phase(&report, "mppe")["they_offered"], "128 bit, stateless");
    assert_eq!(phase(&report, "addresses")["local_ip"], "192.168.254.231");
    // 20 for IPv4, 16 for GRE, 8 for PPP and MPPE.
    assert_eq!(phase(&report, "path_mtu")["outer_mtu"], 1_500);
    assert_eq!(phase(&report, "path_mtu")["inner_mtu"], 1_500 - 44);
    let echoes = &phase(&report, "round_trip")["lcp_echo"];
    assert_eq!(echoes["received"], 40, "{echoes}");
    drop(server);
}

#[test]
fn a_tunnel_of_a_peers_file_is_examined_while_it_runs_and_not_disturbed() {
    let Some(lab) = ready().then(Lab::new) else {
        return;
    };
    configure(&lab, NO_DNS, HOWTO_OPTIONS);
    let options = lab.dir.path().join("pptpd-options");
    let conf = format!(
        "option {}\nlocalip 192.168.254.230\nremoteip 192.168.254.231-232\n",
        options.display()
    );
    let conf = lab.write("two.conf", &conf).display().to_string();
    let _server = serve(&lab, &conf);
    let up = lab.run(Side::Client, &["up", "test2"]);
    assert_eq!(up.status.code(), Some(0), "{}", text(&up));
    let interfaces = lab.interfaces(Side::Client);
    let routes = lab.routes(Side::Client);
    let ping = lab
        .command(Side::Client, "ping")
        .args(["-q", "-i0.02", "-c120", "-W2", "192.168.254.230"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let doctor = lab.run(Side::Client, &["doctor", "test2"]);
    let printed = text(&doctor);
    assert_eq!(doctor.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("tunnel test2, server 10.77.0.1"),
        "{printed}"
    );
    assert!(printed.contains("Verdict: all well"), "{printed}");
    assert!(
        !printed.contains('\x1b'),
        "colours are for terminals: {printed}"
    );
    let pinged = text(&ping.wait_with_output().unwrap());
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    assert_eq!(lab.interfaces(Side::Client), interfaces);
    assert_eq!(lab.routes(Side::Client), routes);
    assert_pings(&lab, Side::Client, "192.168.254.230");
    let _ = lab.run(Side::Client, &["down", "test2"]);
}

#[test]
fn what_authentication_lacks_is_told_apart() {
    let Some((lab, _server)) = started(NO_DNS, HOWTO_OPTIONS) else {
        return;
    };
    lab.write("bad.password", "guess\n");
    let bad = lab.dir.path().join("bad.password").display().to_string();
    let wrong = [
        "doctor",
        SERVER,
        "--json",
        "--user",
        "mia",
        "--password-file",
        &bad,
    ];
    let done = lab.run(Side::Client, &wrong);
    assert_eq!(done.status.code(), Some(19), "{}", text(&done));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let cause = "E=691: the password is wrong, or there is no user \"mia\"";
    assert_fails(&report, "authentication", cause, "password file");
    assert_eq!(phase(&report, "authentication")["error_code"], 691);

    let done = lab.run(Side::Client, &["doctor", SERVER, "--json", "--user", "eve"]);
    assert_eq!(done.status.code(), Some(7), "{}", text(&done));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["verdict"], "no_password");
    let stopped = phase(&report, "authentication");
    assert_says(stopped, "skipped", "stops here", "--password-file FILE");
    assert_eq!(phase(&report, "lcp")["status"], "ok");
    assert_bare(&lab, Side::Client);
}

#[test]
fn whoever_drops_gre_is_found() {
    let Some((lab, _server)) = started(NO_DNS, HOWTO_OPTIONS) else {
        return;
    };
    let quick = ["--timeout", "2"];
    let flush = |side| nft(&lab, side, "flush ruleset");

    rule(&lab, Side::Client, "output", "meta l4proto gre drop");
    let (report, status) = examine(&lab, SERVER, &quick);
    assert_eq!(status, 10);
    let remedy = "nft delete rule inet doctor output handle";
    assert_fails(
        &report,
        "gre",
        "a rule of this host stops GRE that leaves",
        remedy,
    );
    flush(Side::Client);

    rule(&lab, Side::Client, "input", "meta l4proto gre drop");
    let (report, _) = examine(&lab, SERVER, &quick);
    let remedy = "nft delete rule inet doctor input handle";
    assert_fails(
        &report,
        "gre",
        "a rule of this host stops GRE that arrives",
        remedy,
    );
    flush(Side::Client);

    rule(&lab, Side::Server, "input", "meta l4proto gre drop");
    let (report, _) = examine(&lab, SERVER, &quick);
    let cause = "the server's GRE packets (IP protocol 47) arrive here, and ours vanish";
    assert_fails(&report, "gre", cause, "meta l4proto gre accept");
    flush(Side::Server);

    rule(&lab, Side::Server, "output", "meta l4proto gre drop");
    let (report, _) = examine(&lab, SERVER, &quick);
    assert_fails(
        &report,
        "gre",
        "drops GRE (IP protocol 47), out or back",
        "tcpdump",
    );
    flush(Side::Server);

    let reject = "meta l4proto gre reject with icmp type admin-prohibited";
    rule(&lab, Side::Server, "input", reject);
    let (report, _) = examine(&lab, SERVER, &quick);
    assert_fails(
        &report,
        "gre",
        "the firewall at 10.77.0.1 forbids GRE",
        "filter input",
    );
}

#[test]
fn what_is_wrong_before_the_control_connection_is_told_apart() {
    let Some((mut lab, _server)) = started(NO_DNS, HOWTO_OPTIONS) else {
        return;
    };
    let (report, status) = examine(&lab, "10.77.0.1:1799", &[]);
    assert_eq!(status, 16);
    let cause = "no PPTP server listens on its port 1799";
    assert_fails(&report, "tcp", cause, "ss -ltn 'sport = :1799'");

    let (report, _) = examine(&lab, "192.0.2.1", &[]);
    assert_fails(
        &report,
        "route",
        "no route to 192.0.2.1",
        "ip route add default",
    );

    rule(&lab, Side::Server, "input", "tcp dport 1723 drop");
    let (report, _) = examine(&lab, SERVER, &["--timeout", "2"]);
    assert_fails(
        &report,
        "tcp",
        "vanish",
        "traceroute -n -T -p 1723 10.77.0.1",
    );
    nft(&lab, Side::Server, "flush ruleset");

    rule(&lab, Side::Client, "output", "tcp dport 1723 drop");
    let (report, _) = examine(&lab, SERVER, &["--timeout", "2"]);
    let remedy = "nft delete rule inet doctor output handle";
    assert_fails(
        &report,
        "tcp",
        "a rule of this host stops TCP to the server",
        remedy,
    );
    nft(&lab, Side::Client, "flush ruleset");

    rule(
        &lab,
        Side::Server,
        "input",
        "tcp dport 1723 reject with icmp type admin-prohibited",
    );
    let (report, _) = examine(&lab, SERVER, &["--timeout", "2"]);
    let cause = "the firewall at 10.77.0.1 does not let TCP port 1723 through";
    assert_fails(&report, "tcp", cause, "let TCP port 1723 and GRE");

    lab.give_etc("nameserver 127.0.0.1\n");
    let (report, status) = examine(&lab, "moulin.test", &[]);
    assert_eq!(status, 16);
    assert_fails(
        &report,
        "name",
        "moulin.test has no address",
        "getent ahostsv4 moulin.test",
    );
}

#[test]
fn a_server_that_is_not_pptp_is_recognised() {
    let Some(lab) = ready().then(Lab::new) else {
        return;
    };
    fake(&lab, 1801, |mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    let (report, status) = examine(&lab, "10.77.0.1:1801", &[]);
    assert_eq!(status, 16);
    assert_fails(
        &report,
        "control",
        "a web server (HTTP), not a PPTP server",
        "ss -ltnp",
    );
    fake(&lab, 1802, |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (report, _) = examine(&lab, "10.77.0.1:1802", &["--timeout", "2"]);
    assert_fails(
        &report,
        "control",
        "accepts connections on TCP port 1802 and says nothing",
        "ss",
    );
    fake(&lab, 1803, drop);
    let (report, _) = examine(&lab, "10.77.0.1:1803", &[]);
    assert_fails(&report, "control", "lets it go", "journalctl");
}

/// Replies as a server does, but for the codes; then tells what call was asked for.
fn pptp(
    mut stream: TcpStream,
    start: (u16, StartResult),
    call: (OutgoingCallResult, ErrorCode),
    mut called: impl FnMut(u16),
) {
    let (mut received, mut block) = (Vec::new(), [0; 512]);
    while let Ok(len @ 1..) = stream.read(&mut block) {
        received.extend_from_slice(&block[..len]);
        while let Ok(Some((message, consumed))) = next_message(&received) {
            received.drain(..consumed);
            let reply = match message {
                Message::StartControlConnectionRequest(request) => {
                    Message::from(StartControlConnectionReply {
                        version: start.0,
                        result: start.1,
                        error: ErrorCode::NONE,
                        framing: request.framing,
                        bearer: request.bearer,
                        maximum_channels: 1,
                        firmware_revision: 7,
                        host_name: Text::new("odd"),
                        vendor_name: Text::EMPTY,
                    })
                }
                Message::OutgoingCallRequest(request) => {
                    called(request.call_id);
                    Message::from(OutgoingCallReply {
                        call_id: 7,
                        peer_call_id: request.call_id,
                        result: call.0,
                        error: call.1,
                        cause_code: 0,
                        connect_speed: 100_000_000,
                        receive_window: 64,
                        processing_delay: 0,
                        physical_channel_id: 0,
                    })
                }
                _ => continue,
            };
            if stream.write_all(&reply.to_bytes()).is_err() {
                return;
            }
        }
    }
}

const CONNECTED: (OutgoingCallResult, ErrorCode) = (OutgoingCallResult::CONNECTED, ErrorCode::NONE);
const STARTED: (u16, StartResult) = (0x0100, StartResult::SUCCESSFUL);

#[test]
fn a_refusal_on_the_control_connection_is_explained() {
    let Some(lab) = ready().then(Lab::new) else {
        return;
    };
    let refuses = (0x0100, StartResult::NOT_AUTHORIZED);
    fake(&lab, 1811, move |stream| {
        pptp(stream, refuses, CONNECTED, |_| ())
    });
    let (report, status) = examine(&lab, "10.77.0.1:1811", &[]);
    assert_eq!(status, 16);
    assert_fails(
        &report,
        "control",
        "not authorized",
        "accept this host's address",
    );
    assert_eq!(phase(&report, "control")["firmware_revision"], 7);

    let is_full = (OutgoingCallResult::GENERAL_ERROR, ErrorCode::NO_RESOURCE);
    fake(&lab, 1812, move |stream| {
        pptp(stream, STARTED, is_full, |_| ())
    });
    let (report, _) = examine(&lab, "10.77.0.1:1812", &[]);
    assert_fails(&report, "call", "insufficient resources", "no free session");

    let forbids = (OutgoingCallResult::DO_NOT_ACCEPT, ErrorCode::NONE);
    fake(&lab, 1813, move |stream| {
        pptp(stream, STARTED, forbids, |_| ())
    });
    let (report, _) = examine(&lab, "10.77.0.1:1813", &[]);
    assert_fails(
        &report,
        "call",
        "administratively prohibited",
        "closed it to calls",
    );
}

/// Sends LCP's first Configure-Request to the client from `source`, again and again, in a thread of
/// its own.
fn begin_lcp(source: &'static str, call_id: u16) {
    std::thread::spawn(move || send_requests(source, call_id));
}

fn send_requests(source: &str, call_id: u16) {
    let source: Ipv4Addr = source.parse().expect("an address");
    let socket = gre_socket::open(&GreSocketConfig {
        index: 0,
        count: 1,
        local: Some(source),
        mark: None,
    })
    .expect("a raw socket");
    let frame = [0xFF, 0x03, 0xC0, 0x21, 1, 1, 0, 4];
    let client = SockaddrIn::from(SocketAddrV4::new(CLIENT.parse().expect("an address"), 0));
    for number in 0..20 {
        let header = GreRepr {
            call_id,
            payload_len: frame.len() as u16,
            sequence: Some(number),
            acknowledgment: None,
        };
        let mut packet = vec![0; header.header_len()];
        header.emit(&mut packet);
        packet.extend_from_slice(&frame);
        sendto(socket.as_raw_fd(), &packet, &client, MsgFlags::empty()).expect("it is sent");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn gre_that_comes_from_elsewhere_or_for_another_call_is_recognised() {
    let Some(lab) = ready().then(Lab::new) else {
        return;
    };
    lab.ip(Side::Server, "address add 10.77.0.3/24 dev outer");
    let (port, quick) = (1821, ["--timeout", "2"]);
    fake(&lab, port, |stream| {
        pptp(stream, STARTED, CONNECTED, |call_id| {
            begin_lcp("10.77.0.3", call_id)
        });
    });
    let (report, _) = examine(&lab, "10.77.0.1:1821", &quick);
    let remedy = "pptp-fast doctor 10.77.0.3";
    assert_fails(&report, "gre", "answers from 10.77.0.3", remedy);

    fake(&lab, port + 1, |stream| {
        pptp(stream, STARTED, CONNECTED, |call_id| {
            begin_lcp(SERVER, call_id ^ 1)
        });
    });
    let (report, _) = examine(&lab, "10.77.0.1:1822", &quick);
    let cause = "a NAT on the way changes call IDs";
    assert_eq!(report["failed_phase"], "gre", "{report:#}");
    let said = phase(&report, "gre")["cause"].as_str().unwrap();
    assert!(said.contains(cause), "{said}");
}

#[test]
fn an_mppe_mismatch_is_named_with_the_words_of_both_sides() {
    let Some((lab, server)) = started(NO_DNS, HOWTO_OPTIONS) else {
        return;
    };
    let (report, status) = examine(&lab, SERVER, &["--no-mppe"]);
    assert_eq!(status, 10);
    let cause = "the server requires encryption (MPPE), and this side has it switched off";
    assert_fails(&report, "mppe", cause, "--require-mppe-128");
    assert_eq!(phase(&report, "mppe")["they_offered"], "128 bit, stateless");

    let (report, _) = examine(&lab, SERVER, &["--require-mppe-40"]);
    let cause = "this side requires MPPE (40 bit, stateless only), and the server wants 128 bit";
    assert_fails(&report, "mppe", cause, "--require-mppe-128");
    drop(server);

    let Some((lab, _server)) = started("name zidler\nrequire-mschap-v2\nnomppe\n", HOWTO_OPTIONS)
    else {
        return;
    };
    let (report, _) = examine(&lab, SERVER, &[]);
    let cause = "this side requires MPPE (128 bit, stateless only)";
    assert_fails(&report, "mppe", cause, "--no-mppe");
    let (report, status) = examine(&lab, SERVER, &["--no-mppe"]);
    assert_eq!(status, 0, "{report:#}");
}

#[test]
fn an_mtu_hole_is_measured_and_the_mtu_that_avoids_it_is_told() {
    let Some((lab, _server)) = started(NO_DNS, HOWTO_OPTIONS) else {
        return;
    };
    // Its interface silently drops what is longer, less 4 octets for a VLAN tag.
    lab.ip(Side::Server, "link set outer mtu 1300");
    let (report, status) = examine(&lab, SERVER, &[]);
    assert_eq!(status, 1, "{report:#}");
    let found = phase(&report, "path_mtu");
    let mtu = found["mtu"].as_u64().unwrap();
    assert!((1_300 - 44..=1_304 - 44).contains(&mtu), "{found:#}");
    let remedy = format!("--mtu {mtu}");
    assert_says(
        found,
        "warning",
        "no router says so (ICMP is filtered): an MTU hole",
        &remedy,
    );
    let with_mtu = mtu.to_string();
    let (report, status) = examine(&lab, SERVER, &["--mtu", &with_mtu]);
    assert_eq!(status, 0, "{report:#}");
}

#[test]
fn loss_is_measured() {
    let Some((lab, mut server)) = started(NO_DNS, HOWTO_OPTIONS) else {
        return;
    };
    rule(
        &lab,
        Side::Server,
        "prerouting",
        "meta l4proto gre numgen random mod 4 0 drop",
    );
    let (report, status) = examine(&lab, SERVER, &[]);
    server.signal(Signal::SIGTERM);
    let (_, log) = server.wait(10);
    assert_eq!(status, 1, "{report:#}\n{log}");
    let found = phase(&report, "round_trip");
    assert_says(
        found,
        "warning",
        "of packets get lost between here and 10.77.0.1",
        "mtr",
    );
    let loss = found["lcp_echo"]["loss_percent"].as_f64().unwrap();
    assert!((5.0..60.0).contains(&loss), "{found:#}");
    // What is lost by chance is no sign of a smaller path.
    assert_eq!(phase(&report, "path_mtu")["outer_mtu"], 1_500, "{report:#}");
}

#[test]
fn nothing_remains_of_an_examination_that_is_interrupted_or_killed() {
    let Some((lab, mut server)) = started(NO_DNS, HOWTO_OPTIONS) else {
        return;
    };
    let file = lab.write("mia.password", "mia123\n").display().to_string();
    let arguments = ["doctor", SERVER, "--user", "mia", "--password-file", &file];
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut doctor = lab.start(Side::Client, &arguments);
        doctor.wait_for("addresses", 10);
        assert_bare(&lab, Side::Client);
        doctor.signal(signal);
        let (status, printed) = doctor.wait(10);
        if signal == Signal::SIGINT {
            assert_eq!(status, 5, "{printed}");
            assert!(printed.contains("Verdict: interrupted"), "{printed}");
        }
        assert_bare(&lab, Side::Client);
        server.wait_for("ended:", 10);
    }
}
