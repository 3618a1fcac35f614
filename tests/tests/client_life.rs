//! A client's tunnel over time: reconnecting, dialling on demand, limits, signals, and that a long
//! life leaves nothing behind.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use sim::lab::{Lab, Running, Side, ready, wait_until};
use sim::tunnel::{
    HOWTO_OPTIONS, SERVER_OPTIONS, assert_bare, assert_pings, configure, serve, started, take_down,
    text,
};

const PEER: &str = "192.168.254.230";
/// How often the server is killed in `a_persistent_tunnel_outlives_many_servers`, unless the
/// environment says: `PPTP_FAST_CYCLES=1000`.
const CYCLES: u32 = 200;

fn status(lab: &Lab) -> Value {
    let status = lab.run(Side::Client, &["status", "test2", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    status["tunnels"][0].clone()
}

fn wait_for_state(lab: &Lab, state: &str) -> Value {
    let mut last = Value::Null;
    wait_until(&format!("the state is {state}"), 20, || {
        last = status(lab);
        last["state"] == state
    });
    last
}

fn up_and_stay(lab: &Lab, more: &[&str]) -> Running {
    let mut client = lab.start(Side::Client, &[&["up", "test2", "-f"], more].concat());
    client.wait_for("Tunnel test2 is active on ppp0", 20);
    client
}

/// Names of the descriptors that a process has open, without their numbers.
fn descriptors(pid: u32) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the lab holds together")
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|name| {
            let name = name.display().to_string();
            name.split(':').next().unwrap_or_default().to_owned()
        })
        .collect();
    names.sort();
    names
}

fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A small generator: the seed is printed, and the same seed kills at the same moments.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// `persist` with a server that is killed again and again, at any moment of the negotiation or the
/// tunnel: the same process comes back each time, with no descriptor, thread, route or file more
/// than after the first time.
#[test]
fn a_persistent_tunnel_outlives_many_servers() {
    let options = format!(
        "{HOWTO_OPTIONS}persist\nholdoff 0\nmaxfail 0\nlcp-restart 1\nusepeerdns\n\
         defaultroute\nreplacedefaultroute\n"
    );
    let options = options.replace("debug\n", "");
    if !ready() {
        return;
    }
    let cycles = std::env::var("PPTP_FAST_CYCLES").map_or(CYCLES, |text| text.parse().unwrap());
    let seed = u64::from(std::process::id()) | 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let mut lab = Lab::new();
    lab.give_etc("nameserver 192.0.2.53\n");
    let conf = configure(&lab, SERVER_OPTIONS, &options);
    let etc = entries(&lab.dir.path().join("etc"));
    let routes = lab.routes(Side::Client);
    let mut server = serve(&lab, &conf);
    let client = up_and_stay(&lab, &[]);
    let standing = |lab: &Lab| {
        wait_for_state(lab, "up");
        // The socket over which that was asked is closed a moment after the answer.
        std::thread::sleep(Duration::from_millis(20));
        (
            descriptors(client.id()),
            std::fs::read_dir(format!("/proc/{}/task", client.id()))
                .unwrap()
                .count(),
            lab.interfaces(Side::Client),
            lab.routes(Side::Client),
            entries(&lab.dir.path().join("run-Client")),
            entries(&lab.dir.path().join("etc")),
        )
    };
    assert_pings(&lab, Side::Client, PEER);
    let mut first = None;
    let mut came_up = 0;
    for cycle in 0..cycles {
        server.signal(Signal::SIGKILL);
        server.wait(10);
        server = serve(&lab, &conf);
        std::thread::sleep(Duration::from_millis(dice.up_to(100)));
        // Every other time the tunnel may come up before the next blow.
        if dice.up_to(2) == 0 || cycle + 1 == cycles {
            let mut now = standing(&lab);
            came_up += 1;
            let first = first.get_or_insert_with(|| now.clone());
            for _ in 0..50 {
                if now == *first {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
                now = standing(&lab);
            }
            assert_eq!(now, *first, "cycle {cycle}, seed {seed}");
        }
    }
    assert!(came_up > cycles / 4, "only {came_up}");
    assert_pings(&lab, Side::Client, PEER);
    take_down(&lab);
    assert_eq!(lab.routes(Side::Client), routes);
    assert_eq!(entries(&lab.dir.path().join("etc")), etc);
    assert_eq!(entries(&lab.dir.path().join("run-Client")), [""; 0]);
    assert_eq!(lab.interfaces(Side::Client).len(), 2);
}

/// While a tunnel reconnects, `status` says so, why, and when; HUP ends the pause, `down` all of
/// it.
#[test]
fn status_tells_of_a_tunnel_that_reconnects() {
    let options = format!("{HOWTO_OPTIONS}persist\nholdoff 60\n");
    let Some((lab, mut server)) = started(SERVER_OPTIONS, &options) else {
        return;
    };
    let client = up_and_stay(&lab, &[]);
    server.signal(Signal::SIGKILL);
    server.wait(10);
    let waiting = wait_for_state(&lab, "reconnecting");
    let pause = waiting["redial_in_s"].as_u64().unwrap();
    assert!((40..=75).contains(&pause), "{waiting}");
    let why = waiting["last_ending"].as_str().unwrap();
    assert!(why.contains("control connection"), "{waiting}");
    // No route or address is left meanwhile, but the interface keeps its name.
    assert_eq!(lab.routes(Side::Client).lines().count(), 1);
    let _server = serve(
        &lab,
        &lab.dir.path().join("pptpd.conf").display().to_string(),
    );
    client.signal(Signal::SIGHUP);
    wait_for_state(&lab, "up");
    assert_pings(&lab, Side::Client, PEER);
    take_down(&lab);
    assert_bare(&lab, Side::Client);
}

/// HUP ends the link, and a tunnel that persists comes back; one that does not ends with pppd's 5.
#[test]
fn hup_hangs_up() {
    let options = format!("{HOWTO_OPTIONS}holdoff 0\n");
    let Some((lab, _server)) = started(SERVER_OPTIONS, &options) else {
        return;
    };
    let mut client = up_and_stay(&lab, &["--persist"]);
    client.signal(Signal::SIGHUP);
    client.wait_for("local  IP address", 20);
    wait_for_state(&lab, "up");
    assert_pings(&lab, Side::Client, PEER);
    take_down(&lab);
    assert_eq!(client.wait(15).0, 0);
    let mut client = up_and_stay(&lab, &[]);
    client.signal(Signal::SIGHUP);
    let (status, printed) = client.wait(15);
    assert_eq!(status, 5, "{printed}");
    assert_bare(&lab, Side::Client);
}

/// `maxfail` attempts in a row, and the last one's exit status.
#[test]
fn maxfail_ends_a_tunnel_that_never_comes_up() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let options = format!("{HOWTO_OPTIONS}persist\nholdoff 0\nmaxfail 3\nupdetach\n");
    configure(&lab, SERVER_OPTIONS, &options);
    let up = lab.run(Side::Client, &["up", "test2"]);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(16), "{log}");
    assert_eq!(log.matches("next attempt in").count(), 2, "{log}");
    assert_bare(&lab, Side::Client);
}

/// pppd's default with `persist`: the terminal is free after the first attempt, and the tunnel
/// comes up when the server does.
#[test]
fn a_server_that_comes_later_is_waited_for_in_the_background() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let options = format!("{HOWTO_OPTIONS}persist\nholdoff 1\nmaxfail 0\n");
    let conf = configure(&lab, SERVER_OPTIONS, &options);
    let up = lab.run(Side::Client, &["up", "test2"]);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(0), "{log}");
    assert!(
        log.contains("Tunnel test2 is not up yet: cannot reach"),
        "{log}"
    );
    let _server = serve(&lab, &conf);
    let standing = wait_for_state(&lab, "up");
    // `pidof` finds it by its name there, too.
    let pid = standing["pid"].as_u64().unwrap();
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name, "pptp-fast\n");
    take_down(&lab);
    assert_bare(&lab, Side::Client);
}

/// `demand`: nothing is dialled until the first packet, which is sent when the link is up; `idle`
/// lets the link go, and the next packet brings it back. (The server's host may not have its route
/// back to us when that packet arrives: the second is answered.)
#[test]
fn the_first_packet_brings_a_tunnel_on_demand_up() {
    let addresses = "192.168.254.231:192.168.254.230\n";
    let options = format!("{HOWTO_OPTIONS}{addresses}demand\nholdoff 0\nidle 2\n");
    let Some((lab, _server)) = started(SERVER_OPTIONS, &options) else {
        return;
    };
    let up = lab.run(Side::Client, &["up", "test2"]);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(0), "{log}");
    assert!(
        log.contains("comes up with the first packet for ppp0"),
        "{log}"
    );
    assert!(!log.contains("Connect:"), "{log}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(status(&lab)["state"], "waiting");
    for _ in 0..2 {
        let mut ping = lab.command(Side::Client, "ping");
        let ping = ping.args(["-c2", "-W5", PEER]).output().unwrap();
        assert!(
            ping.status.success(),
            "packets are lost: {}{}",
            text(&ping),
            status(&lab)
        );
        let standing = status(&lab);
        assert_eq!(standing["state"], "up");
        let sent = standing["sent_packets"].as_u64().unwrap();
        assert!(sent >= 2, "the packet that called is lost: {standing}");
        wait_for_state(&lab, "waiting");
    }
    take_down(&lab);
    assert_bare(&lab, Side::Client);
}

/// Without `persist` the limits end the process, with pppd's statuses.
#[test]
fn idle_and_maxconnect_end_a_tunnel() {
    let Some((lab, _server)) = started(SERVER_OPTIONS, HOWTO_OPTIONS) else {
        return;
    };
    for (option, status) in [("idle", 12), ("maxconnect", 13)] {
        let mut client = up_and_stay(&lab, &["--", option, "1"]);
        let (code, printed) = client.wait(20);
        assert_eq!(code, status, "{printed}");
        assert_bare(&lab, Side::Client);
    }
}

/// A dead peer is noticed by echoes, and only by them when nothing else comes: pppd's 15.
#[test]
fn a_peer_that_is_gone_is_noticed() {
    let Some((lab, _server)) = started(SERVER_OPTIONS, HOWTO_OPTIONS) else {
        return;
    };
    let echo = ["--", "lcp-echo-interval", "1", "lcp-echo-failure", "2"];
    let mut client = up_and_stay(&lab, &echo);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(
        status(&lab)["state"],
        "up",
        "answered echoes are no failures"
    );
    lab.ip(Side::Server, "link set outer down");
    let (code, printed) = client.wait(30);
    assert_eq!(code, 15, "{printed}");
    assert!(
        printed.contains("No response to 2 echo-requests"),
        "{printed}"
    );
    assert_eq!(lab.interfaces(Side::Client).len(), 2);
}

/// USR1 turns the log of packets on and off; USR2 ends nothing. No line tells the password.
#[test]
fn user_signals_change_the_log_and_end_nothing() {
    let options = HOWTO_OPTIONS.replace("debug\n", "");
    let Some((lab, _server)) = started(SERVER_OPTIONS, &options) else {
        return;
    };
    let log = lab.dir.path().join("client.log");
    let echo = [
        "--",
        "lcp-echo-interval",
        "1",
        "logfile",
        log.to_str().unwrap(),
    ];
    let mut client = lab.start(Side::Client, &[&["up", "test2", "-f"][..], &echo].concat());
    wait_for_state(&lab, "up");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(!read().contains("sent [LCP"), "{}", read());
    client.signal(Signal::SIGUSR1);
    wait_until("an echo is logged", 20, || {
        read().contains("sent [LCP EchoReq")
    });
    client.signal(Signal::SIGUSR2);
    wait_until("a reset is logged", 20, || {
        read().contains("sent [CCP ResetReq")
    });
    assert_pings(&lab, Side::Client, PEER);
    client.signal(Signal::SIGTERM);
    assert_eq!(client.wait(15).0, 5);
    assert!(!read().contains("mia123"), "{}", read());
}

/// Several tunnels at once, to one server, each with its own interface, end one by one.
#[test]
fn several_tunnels_live_side_by_side() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let conf = configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    let several = "remoteip 192.168.254.231-239";
    let text_of = std::fs::read_to_string(&conf).unwrap();
    lab.write(
        "pptpd.conf",
        &text_of.replace("remoteip 192.168.254.231", several),
    );
    let _server = serve(&lab, &conf);
    let peer = std::fs::read_to_string(lab.dir.path().join("ppp/peers/test2")).unwrap();
    let names = ["test2", "test3", "test4"];
    for (unit, name) in names.iter().enumerate() {
        lab.write(&format!("ppp/peers/{name}"), &peer);
        let route = format!("10.{unit}.0.0/16");
        let up = lab.run(Side::Client, &["up", name, "--route", &route]);
        assert_eq!(up.status.code(), Some(0), "{}", text(&up));
    }
    assert_eq!(lab.interfaces(Side::Client).len(), 5);
    for (unit, name) in names.iter().enumerate() {
        let device = format!("10.{unit}.0.0/16 dev ppp{unit}");
        let routes = lab.routes(Side::Client);
        assert!(routes.contains(&device), "{routes}");
        let down = lab.run(Side::Client, &["down", name]);
        assert_eq!(down.status.code(), Some(0), "{}", text(&down));
    }
    assert_bare(&lab, Side::Client);
}
