//! What an operator of many tunnels asks of addresses, interfaces and secrets: pools that outlive
//! the server, an interface a session, another network namespace, a VRF, and files read again.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use sim::lab::{Lab, Running, SERVER, Side, ready, wait_until};
use sim::tunnel::{assert_bare, assert_pings, pings, serve, text};

/// Our end of every tunnel.
const LOCAL: &str = "10.9.0.1";

/// The server's file, with `more` sections in front of the pools.
fn configure(lab: &Lab, more: &str, pools: &str) -> String {
    let conf = format!("{more}\n[auth]\nname = \"zidler\"\n{pools}");
    lab.write("server.toml", &conf).display().to_string()
}

fn pool(ranges: &str) -> String {
    format!("[[pool]]\nlocal = \"{LOCAL}\"\nranges = \"{ranges}\"\n")
}

fn write_secrets(lab: &Lab, text: &str) {
    lab.write("ppp/chap-secrets", text);
}

/// Starts a client of this user, whose password is the name and 123.
fn dial(lab: &Lab, user: &str) -> Running {
    dial_as(lab, user, user)
}

/// The same with another name for the tunnel.
fn dial_as(lab: &Lab, tunnel: &str, user: &str) -> Running {
    let peer = format!(
        "# Server IP: {SERVER}\nname {user}\npassword {user}123\nremotename zidler\nnoauth\n\
         require-mppe-128\n"
    );
    lab.write(&format!("ppp/peers/{tunnel}"), &peer);
    lab.start(Side::Client, &["up", tunnel, "-f", "--json"])
}

/// A client whose tunnel is up.
struct Tunnel {
    client: Running,
    /// Its inner address.
    address: String,
    /// At the client.
    interface: String,
}

impl Tunnel {
    fn up(lab: &Lab, user: &str) -> Self {
        Self::wait_for(dial(lab, user))
    }

    fn wait_for(mut client: Running) -> Self {
        let line = client.wait_for("{", 20);
        let object: Value = serde_json::from_str(&line).expect("one object");
        let field = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let (address, interface) = (field("local_ip"), field("interface"));
        Self {
            client,
            address,
            interface,
        }
    }

    /// The first packet from the client is answered. Several tunnels have the same other end.
    fn assert_carries(&self, lab: &Lab) {
        let mut ping = lab.command(Side::Client, "ping");
        let ping = ping.args(["-c1", "-W2", "-I", &self.interface, LOCAL]);
        let ping = ping.output().expect("ping starts");
        assert!(ping.status.success(), "{}: {}", self.address, text(&ping));
    }

    fn hang_up(mut self) {
        self.client.signal(Signal::SIGTERM);
        self.client.wait(20);
    }
}

const THREE: &str = "mia * mia123 *\nbob * bob123 *\neve * eve123 *\n";

/// The server is killed while two tunnels stand: their addresses rest, but each user gets its own
/// again; after an orderly end nothing rests.
#[test]
fn addresses_outlive_a_server_that_is_killed() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    write_secrets(&lab, THREE);
    let conf = configure(&lab, "", &pool("10.9.0.2-3"));
    let mut server = serve(&lab, &conf);
    let (mia, bob) = (Tunnel::up(&lab, "mia"), Tunnel::up(&lab, "bob"));
    let (mias, bobs) = (mia.address.clone(), bob.address.clone());
    assert_ne!(mias, bobs);
    server.signal(Signal::SIGKILL);
    server.wait(10);
    drop((mia, bob));
    let mut server = serve(&lab, &conf);
    let mut eve = dial(&lab, "eve");
    server.wait_for("no address left for this user", 10);
    eve.wait(20);
    let (bob, mia) = (Tunnel::up(&lab, "bob"), Tunnel::up(&lab, "mia"));
    assert_eq!((&mia.address, &bob.address), (&mias, &bobs));
    mia.assert_carries(&lab);
    // Orderly: eve may have what mia and bob have given back.
    bob.hang_up();
    mia.hang_up();
    server.signal(Signal::SIGTERM);
    server.wait(10);
    let leases = std::fs::read_to_string(lab.dir.path().join("state/leases")).unwrap();
    assert!(
        !leases.lines().last().unwrap().starts_with("held"),
        "{leases}"
    );
    let _server = serve(&lab, &conf);
    let eve = Tunnel::up(&lab, "eve");
    assert!([mias, bobs].contains(&eve.address));
}

/// One address from the first pool, the next from the pool behind it; a user's own address is given
/// to nobody else, though it lies in a pool.
#[test]
fn a_full_pool_goes_on_in_the_next_and_fixed_addresses_are_kept() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    write_secrets(
        &lab,
        "mia * mia123 10.9.0.2\nbob * bob123 *\neve * eve123 *\n",
    );
    let pools = format!(
        "[[pool]]\nname = \"small\"\nlocal = \"{LOCAL}\"\nranges = \"10.9.0.2-3\"\nnext = \"more\"\n\
         [[pool]]\nname = \"more\"\nranges = \"10.10.0.7\"\n"
    );
    let conf = configure(&lab, "", &pools);
    let _server = serve(&lab, &conf);
    let tunnels = ["bob", "eve", "mia"].map(|user| Tunnel::up(&lab, user));
    let given = [0, 1, 2].map(|at: usize| tunnels[at].address.as_str());
    assert_eq!(given, ["10.9.0.3", "10.10.0.7", "10.9.0.2"]);
    for (tunnel, address) in tunnels.iter().zip(given) {
        tunnel.assert_carries(&lab);
        assert!(
            lab.routes(Side::Server)
                .contains(&format!("{address} dev pptp"))
        );
    }
}

/// `single_session = "replace"` hands a fixed address from the old session to the new one, with its
/// route.
#[test]
fn who_replaces_himself_takes_his_fixed_address_along() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    write_secrets(&lab, "mia * mia123 10.9.0.77\n");
    let conf = configure(&lab, "", &pool("10.9.0.2-9"));
    let conf_text = std::fs::read_to_string(&conf).unwrap();
    let replace = "[auth]\nsingle_session = \"replace\"\n";
    lab.write("server.toml", &conf_text.replace("[auth]\n", replace));
    let _server = serve(&lab, &conf);
    let mut first = Tunnel::up(&lab, "mia");
    let second = Tunnel::wait_for(dial_as(&lab, "mia2", "mia"));
    assert_eq!(second.address, "10.9.0.77");
    first.client.wait(20);
    second.assert_carries(&lab);
}

/// `interface = "per-session"`: each tunnel has a ppp interface, point to point, which scripts are
/// told of and which goes with it.
#[test]
fn each_session_can_have_an_interface_of_its_own() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    write_secrets(&lab, THREE);
    let told = lab.dir.path().join("told");
    let script = format!("#!/bin/sh\necho \"$1 $4 $5\" >> {}\n", told.display());
    lab.write_script("scripts/ip-up", &script);
    lab.write_script("scripts/ip-down", &script);
    let scripts = lab.dir.path().join("scripts");
    let more = format!(
        "[dataplane]\ninterface = \"per-session\"\n[limits]\nsessions_max = 100\n\
         [scripts]\ndir = \"{}\"\n",
        scripts.display()
    );
    let conf = configure(&lab, &more, &pool("10.9.0.2-9"));
    let mut server = serve(&lab, &conf);
    assert_eq!(
        lab.interfaces(Side::Server).len(),
        2,
        "none before a session"
    );
    let (mia, bob) = (Tunnel::up(&lab, "mia"), Tunnel::up(&lab, "bob"));
    let (mias, bobs) = (mia.address.clone(), bob.address.clone());
    let devices = lab.interfaces(Side::Server);
    assert!(
        devices.contains(&"ppp0".into()) && devices.contains(&"ppp1".into()),
        "{devices:?}"
    );
    for (unit, tunnel) in [&mia, &bob].into_iter().enumerate() {
        let address = &tunnel.address;
        let device = format!("{address} dev ppp{unit}");
        assert!(
            lab.routes(Side::Server).contains(&device),
            "{}",
            lab.routes(Side::Server)
        );
        tunnel.assert_carries(&lab);
    }
    let status = lab.run(Side::Server, &["status", "--json"]);
    assert!(
        text(&status).contains("\"interface\":\"ppp1\""),
        "{}",
        text(&status)
    );
    mia.hang_up();
    wait_until("ppp0 is gone", 10, || {
        !lab.interfaces(Side::Server).contains(&"ppp0".into())
    });
    // Both ways, now that one tunnel alone leads to the server's end.
    assert_pings(&lab, Side::Server, &bobs);
    // The lowest number is used again.
    let eve = Tunnel::up(&lab, "eve");
    assert!(lab.interfaces(Side::Server).contains(&"ppp0".into()));
    eve.assert_carries(&lab);
    let lines = || std::fs::read_to_string(&told).unwrap_or_default();
    let due = format!("ppp0 {LOCAL} {mias}\nppp1 {LOCAL} {bobs}\nppp0 {LOCAL} {mias}\n");
    wait_until("scripts were told", 10, || lines().starts_with(&due));
    server.signal(Signal::SIGTERM);
    server.wait(10);
    assert_bare(&lab, Side::Server);
}

/// More sessions than descriptors are refused at the start, in words that name the remedy.
#[test]
fn too_many_interfaces_are_refused_before_the_first_session() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    write_secrets(&lab, THREE);
    let more = "[dataplane]\nworkers = 1\ninterface = \"per-session\"\n[limits]\nsessions_max = ";
    let run = |limits: &str, sessions: u32| {
        let conf = configure(&lab, &format!("{more}{sessions}\n"), &pool("10.9.0.0/16"));
        let mut command = lab.command(Side::Server, "sh");
        let script = format!("{limits} exec \"$0\" serve --config {conf}");
        command.args(["-c", &script]).arg(sim::lab::binary());
        let (status, printed) = Running::start(&mut command).wait(10);
        assert_ne!(status, 0);
        printed
    };
    let printed = run("ulimit -n 1000;", 1_000);
    assert!(
        printed.contains("2128 descriptors, and this process may have 1000"),
        "{printed}"
    );
    assert!(
        printed.contains("enough for 436 (limits.sessions_max"),
        "{printed}"
    );
    let printed = run("ulimit -n 20000;", 5_000);
    assert!(printed.contains("at most 4096 sessions"), "{printed}");
}

/// `netns`: TUN, address and route are in another namespace than TCP and GRE, and so do scripts
/// run.
#[test]
fn tunnels_can_end_in_another_network_namespace() {
    if !ready() {
        return;
    }
    for interface in ["shared", "per-session"] {
        let lab = Lab::new();
        let inner = Namespace::new(&format!("pf-{}-{interface}", std::process::id()));
        write_secrets(&lab, THREE);
        let told = lab.dir.path().join("told");
        let script = format!("#!/bin/sh\nls /proc/net/dev_snmp6 >> {}\n", told.display());
        lab.write_script("scripts/ip-up", &script);
        let more = format!(
            "[dataplane]\ninterface = \"{interface}\"\nnetns = \"{}\"\n[limits]\n\
             sessions_max = 50\n[scripts]\ndir = \"{}\"\n",
            inner.0,
            lab.dir.path().join("scripts").display()
        );
        let conf = configure(&lab, &more, &pool("10.9.0.2-9"));
        let mut server = serve(&lab, &conf);
        let mia = Tunnel::up(&lab, "mia");
        let address = mia.address.clone();
        assert_eq!(lab.interfaces(Side::Server).len(), 2, "nothing outside");
        assert!(
            pings(&lab, Side::Server, &address).is_err(),
            "no way from outside"
        );
        let routes = inner.ip(&["route"]);
        let device = if interface == "shared" {
            "pptp"
        } else {
            "ppp0"
        };
        assert!(
            routes.contains(&format!("{address} dev {device}")),
            "{routes}"
        );
        mia.assert_carries(&lab);
        let ping = ["netns", "exec", &inner.0, "ping", "-c1", "-W2", &address];
        assert!(Command::new("ip").args(ping).status().unwrap().success());
        wait_until("the script ran there", 10, || {
            std::fs::read_to_string(&told)
                .unwrap_or_default()
                .contains(device)
        });
        mia.hang_up();
        server.signal(Signal::SIGTERM);
        server.wait(10);
        assert!(
            !inner.ip(&["link"]).contains("ppp"),
            "{}",
            inner.ip(&["link"])
        );
    }
}

/// A namespace or a VRF that is not there ends the start, with its name.
#[test]
fn a_place_that_is_not_there_is_named() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    write_secrets(&lab, THREE);
    for (setting, words) in [
        (
            "netns = \"nowhere\"",
            "there is no network namespace /run/netns/nowhere",
        ),
        ("vrf = \"nowhere\"", "cannot use the VRF nowhere"),
        ("vrf = \"lo\"", "the interface is no VRF"),
    ] {
        let conf = configure(
            &lab,
            &format!("[dataplane]\n{setting}\n"),
            &pool("10.9.0.2-9"),
        );
        let run = lab.run(Side::Server, &["serve", "--config", &conf]);
        assert!(text(&run).contains(words), "{}", text(&run));
        assert_ne!(run.status.code(), Some(0));
    }
}

/// HUP: new secrets, hashes among them, new ranges; a file with a mistake changes nothing.
#[test]
fn secrets_and_pools_are_read_again_without_a_dropped_tunnel() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    write_secrets(&lab, "mia * mia123 *\n");
    let conf = configure(&lab, "", &pool("10.9.0.2"));
    let mut server = serve(&lab, &conf);
    let mia = Tunnel::up(&lab, "mia");
    assert_eq!(mia.address, "10.9.0.2");
    // MD4 of "bob123" in UTF-16, by another program: printf %s bob123 | iconv -t utf16le | openssl
    // dgst -provider legacy -md4.
    write_secrets(
        &lab,
        &format!("mia * mia123 *\nbob * nthash:{BOB_HASH} *\n"),
    );
    configure(&lab, "", &pool("10.9.0.20-21"));
    server.signal(Signal::SIGHUP);
    server.wait_for("read again: 2 secrets, 1 pools", 10);
    mia.assert_carries(&lab);
    let bob = Tunnel::up(&lab, "bob");
    let bobs = bob.address.as_str();
    assert!(["10.9.0.20", "10.9.0.21"].contains(&bobs), "{bobs}");
    bob.assert_carries(&lab);
    // Half a line, as an editor may leave it for a moment; then a mistake in the server's file.
    write_secrets(&lab, "mia * mia123 *\nbob *\n");
    server.signal(Signal::SIGHUP);
    let line = server.wait_for("stays as it was", 10);
    assert!(line.contains("chap-secrets, line 2"), "{line}");
    write_secrets(&lab, THREE);
    configure(&lab, "", &pool("10.9.0.30-3"));
    server.signal(Signal::SIGHUP);
    let line = server.wait_for("stays as it was", 10);
    assert!(line.contains("server.toml, line 6"), "{line}");
    let mut eve = dial(&lab, "eve");
    let (status, _) = eve.wait(20);
    assert_eq!(status, 19, "her line has not been taken over");
    configure(&lab, "", &pool("10.9.0.30-33"));
    server.signal(Signal::SIGHUP);
    server.wait_for("read again: 3 secrets", 10);
    let eve = Tunnel::up(&lab, "eve");
    assert!(eve.address.starts_with("10.9.0.3"), "{}", eve.address);
    for tunnel in [&mia, &bob, &eve] {
        tunnel.assert_carries(&lab);
    }
}

const BOB_HASH: &str = "9c6bcfc0c04ebcbb2030fa0b4898c390";

/// `vrf`, where the kernel has VRFs: the TUN belongs to it, and routes are in its table alone.
#[test]
fn tunnels_can_end_in_a_vrf() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let mut add = lab.command(Side::Server, "ip");
    let add = add
        .args("link add red type vrf table 1001".split(' '))
        .output();
    if !add.is_ok_and(|it| it.status.success()) {
        // Kernels of small virtual machines have none; nothing here can change that.
        println!("skipped: this kernel has no VRF");
        return;
    }
    lab.ip(Side::Server, "link set red up");
    write_secrets(&lab, THREE);
    for interface in ["shared", "per-session"] {
        let more = format!(
            "[dataplane]\nvrf = \"red\"\ninterface = \"{interface}\"\n[limits]\nsessions_max = 50\n"
        );
        let conf = configure(&lab, &more, &pool("10.9.0.2-9"));
        let mut server = serve(&lab, &conf);
        let mia = Tunnel::up(&lab, "mia");
        let address = mia.address.clone();
        assert!(
            !lab.routes(Side::Server).contains(&address),
            "not in the main table"
        );
        let mut table = lab.command(Side::Server, "ip");
        let table = table
            .args(["route", "show", "vrf", "red"])
            .output()
            .unwrap();
        assert!(text(&table).contains(&address), "{}", text(&table));
        mia.assert_carries(&lab);
        let mut ping = lab.command(Side::Server, "ping");
        let ping = ping
            .args(["-c1", "-W2", "-I", "red", &address])
            .output()
            .unwrap();
        assert!(ping.status.success(), "{}", text(&ping));
        mia.hang_up();
        server.signal(Signal::SIGTERM);
        server.wait(10);
    }
}

/// A named network namespace; deleted when dropped.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Self {
        let made = Command::new("ip").args(["netns", "add", name]).status();
        assert!(made.is_ok_and(|status| status.success()));
        Self(name.to_owned())
    }

    fn ip(&self, words: &[&str]) -> String {
        let output = Command::new("ip")
            .args(["-n", &self.0])
            .args(words)
            .output();
        text(&output.expect("ip runs"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}
