//! Our server asks, tells and obeys Debian's freeradius.

use std::time::Duration;

use nix::sys::signal::Signal;
use sim::freeradius::{FreeRadius, SECRET, freeradius_ready, radclient, value};
use sim::lab::{Lab, Running, Side};
use sim::tunnel::{
    HOWTO_OPTIONS, HOWTO_PEER, SERVER_OPTIONS, assert_pings, configure, serve, take_down, text,
};

/// A server that asks the freeradius on each of `radius`; `more` goes into `[radius]`.
fn serve_by_radius(lab: &Lab, radius: &[&str], mppe: &str, more: &str) -> Running {
    lab.write("ppp/radius-secret", &format!("{SECRET}\n"));
    lab.write("ppp/chap-secrets", "ann zidler ann123 *\n");
    let servers = radius.iter().map(|address| {
        format!("[[radius.servers]]\naddress = \"{address}\"\nsecret_file = \"radius-secret\"\n")
    });
    let servers: String = servers.collect();
    let conf = lab.write(
        "server.toml",
        &format!(
            "[auth]\nname = \"zidler\"\n\
             require = [\"eap\", \"mschap-v2\", \"mschap\", \"chap\", \"pap\"]\n\
             [mppe]\nmode = \"{mppe}\"\nstrengths = [128, 40]\n\
             [pool]\nlocal = \"192.168.254.230\"\nremote = \"192.168.254.231-239\"\n\
             [log]\ndebug = true\n\
             [radius]\nnas_identifier = \"pptp-1\"\n{more}{servers}\
             [radius.dynamic]\nlisten = \"127.0.0.1:3799\"\n\
             clients = [{{ address = \"127.0.0.1\", secret_file = \"radius-secret\" }}]\n"
        ),
    );
    serve(lab, &conf.display().to_string())
}

/// Writes the client's files: `options` on top of what every tunnel here has.
fn client(lab: &Lab, user: &str, password: &str, options: &str) {
    lab.write(
        "ppp/chap-secrets",
        &format!("{user} zidler {password} *\nann zidler ann123 *\n"),
    );
    lab.write("ppp/pap-secrets", &format!("{user} zidler {password} *\n"));
    let options = format!("noauth\ndebug\nlogfd 2\nusepeerdns\n{options}");
    let options = lab.write("ppp/options.pptp", &options);
    let peer = HOWTO_PEER.replace("name mia", &format!("name {user}"));
    lab.write(
        "ppp/peers/test2",
        &format!("{peer}file {}\n", options.display()),
    );
}

fn up(lab: &Lab) -> String {
    let up = lab.run(Side::Client, &["up", "test2"]);
    let log = text(&up);
    assert_eq!(up.status.code(), Some(0), "{log}");
    log
}

const MPPE: &str = "require-mppe-128\n";
const NO_MPPE: &str = "nomppe\n";

/// Everything that is asked before this method is refused.
fn only(method: &str) -> String {
    let all = ["eap", "mschap-v2", "mschap", "chap", "pap"];
    let others = all.iter().filter(|other| **other != method);
    others.map(|other| format!("refuse-{other}\n")).collect()
}

/// Each method lets in a user whom only freeradius knows, with encryption where it makes keys, and
/// data passes; a wrong password, and a user who is barred, do not get in.
#[test]
fn every_method_lets_in_whom_freeradius_knows() {
    if !freeradius_ready() {
        return;
    }
    let lab = Lab::new();
    let _radius = FreeRadius::start(&lab, "127.0.0.1");
    let _server = serve_by_radius(&lab, &["127.0.0.1"], "prefer", "");
    for (method, mppe) in [
        ("eap", MPPE),
        ("mschap-v2", MPPE),
        ("mschap", MPPE),
        ("chap", NO_MPPE),
        ("pap", NO_MPPE),
    ] {
        client(&lab, "tom", "tom123", &format!("{}{mppe}", only(method)));
        let log = up(&lab);
        if mppe == MPPE {
            let line = "MPPE 128-bit stateless compression enabled";
            assert!(log.contains(line), "{method}:\n{log}");
        }
        assert_pings(&lab, Side::Client, "192.168.254.230");
        take_down(&lab);
    }
    // freeradius delays a refusal by a second.
    client(
        &lab,
        "tom",
        "tom124",
        &format!("{}{MPPE}", only("mschap-v2")),
    );
    let refused = lab.run(Side::Client, &["up", "test2"]);
    assert_eq!(refused.status.code(), Some(19), "{}", text(&refused));
    client(&lab, "eve", "eve123", &format!("{}{NO_MPPE}", only("pap")));
    let refused = text(&lab.run(Side::Client, &["up", "test2"]));
    assert!(refused.contains("Pay your bill first"), "{refused}");
}

/// What the Access-Accept gives is used; accounting tells of the session from start to end; CoA
/// and Disconnect-Requests of radclient are obeyed.
#[test]
fn a_session_is_as_radius_wants_it_and_is_accounted_for() {
    if !freeradius_ready() {
        return;
    }
    let lab = Lab::new();
    let radius = FreeRadius::start(&lab, "127.0.0.1");
    let mut server = serve_by_radius(&lab, &["127.0.0.1"], "require", "interim_s = 1\n");
    let _ = radius.record(&["Acct-Status-Type = Accounting-On", "pptp-1"], 5);
    client(
        &lab,
        "mia",
        "mia123",
        &format!("{}{MPPE}", only("mschap-v2")),
    );
    let log = up(&lab);
    assert!(log.contains("192.168.254.240"), "{log}");
    assert!(log.contains("192.0.2.53"), "no DNS server of RADIUS: {log}");
    assert_pings(&lab, Side::Client, "192.168.254.230");

    // The network behind the client is reached through the tunnel, and may answer.
    lab.ip(Side::Client, "address add 172.16.5.1/32 dev lo");
    assert!(lab.routes(Side::Server).contains("172.16.5.0/24 dev pptp"));
    assert_pings(&lab, Side::Server, "172.16.5.1");

    let start = radius.record(&["Acct-Status-Type = Start"], 5);
    for (name, due) in [
        ("User-Name", "mia"),
        ("Class", "0x676f6c64"),
        ("Framed-IP-Address", "192.168.254.240"),
        ("NAS-Identifier", "pptp-1"),
        ("NAS-Port-Type", "Virtual"),
        ("Calling-Station-Id", "10.77.0.2"),
        ("Called-Station-Id", "10.77.0.1"),
        ("Tunnel-Type:0", "PPTP"),
        ("Acct-Authentic", "RADIUS"),
    ] {
        assert_eq!(value(&start, name), Some(due), "{name}:\n{start}");
    }
    let id = value(&start, "Acct-Session-Id").expect("a session ID");
    let interim = radius.record(&["Acct-Status-Type = Interim-Update", id], 5);
    assert!(value(&interim, "Acct-Input-Octets").is_some(), "{interim}");

    let refused = radclient(&lab, "disconnect", "User-Name = \"nobody\"");
    assert!(refused.contains("Session-Context-Not-Found"), "{refused}");
    let change = format!("Acct-Session-Id = \"{id}\"\nIdle-Timeout = 3000\nFilter-Id = \"slow\"");
    let changed = radclient(&lab, "coa", &change);
    assert!(changed.contains("CoA-ACK"), "{changed}");
    server.wait_for("RADIUS: CoA-Request", 5);
    let ended = radclient(&lab, "disconnect", "Framed-IP-Address = 192.168.254.240");
    assert!(ended.contains("Disconnect-ACK"), "{ended}");
    let stop = radius.record(&["Acct-Status-Type = Stop", id], 10);
    assert_eq!(value(&stop, "Acct-Terminate-Cause"), Some("Admin-Reset"));
    assert_eq!(value(&stop, "Framed-IP-Address"), Some("192.168.254.240"));
    let octets = |name| value(&stop, name).and_then(|octets| octets.parse::<u32>().ok());
    // A ping from each side, of 84 octets each way.
    assert!(octets("Acct-Input-Octets") >= Some(2 * 84), "{stop}");
    assert!(octets("Acct-Output-Octets") >= Some(2 * 84), "{stop}");
    assert_eq!(octets("Acct-Input-Gigawords"), Some(0));
    assert!(!lab.routes(Side::Server).contains("172.16.5.0"));

    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(15).0, 0);
    let _ = radius.record(&["Acct-Status-Type = Accounting-Off"], 1);
}

/// What freeradius says of encryption binds a session whose server only prefers it: tom's has to
/// have the 128 bits of its module for MS-CHAP, amy's may have 40 or none. The address that a
/// client called is the one that it called, not the one that the routes would choose.
#[test]
fn freeradius_says_whether_and_how_a_session_is_encrypted() {
    if !freeradius_ready() {
        return;
    }
    let lab = Lab::new();
    let radius = FreeRadius::start(&lab, "127.0.0.1");
    lab.ip(Side::Server, "address add 10.77.0.9/24 dev outer");
    let mut server = serve_by_radius(&lab, &["127.0.0.1"], "prefer", "");
    let options = |mppe: &str| format!("{}{mppe}", only("mschap-v2"));

    client(&lab, "tom", "tom123", &options(NO_MPPE));
    let refused = lab.run(Side::Client, &["up", "test2"]);
    assert_ne!(refused.status.code(), Some(0), "{}", text(&refused));
    server.wait_for("RADIUS: MPPE is required (128 bit)", 5);
    server.wait_for("this side requires MPPE (128 bit, stateless only)", 5);
    client(&lab, "tom", "tom123", &options("require-mppe\n"));
    let log = up(&lab);
    assert!(
        log.contains("MPPE 128-bit stateless compression enabled"),
        "{log}"
    );
    take_down(&lab);

    client(&lab, "amy", "amy123", &options("require-mppe\n"));
    let peer = std::fs::read_to_string(lab.dir.path().join("ppp/peers/test2")).expect("a file");
    lab.write("ppp/peers/test2", &peer.replace("10.77.0.1", "10.77.0.9"));
    let log = up(&lab);
    assert!(
        log.contains("MPPE 40-bit stateless compression enabled"),
        "{log}"
    );
    assert_pings(&lab, Side::Client, "192.168.254.230");
    let start = radius.record(&["Acct-Status-Type = Start", "amy"], 5);
    for name in ["Called-Station-Id", "NAS-IP-Address"] {
        assert_eq!(value(&start, name), Some("10.77.0.9"), "{start}");
    }
    take_down(&lab);
    client(&lab, "amy", "amy123", &options(NO_MPPE));
    let _ = up(&lab);
    assert_pings(&lab, Side::Client, "192.168.254.230");
}

/// `single_session` is about the users of freeradius as well: the first of two sessions is
/// accounted for, and its script runs, before the second has its place; or the second is turned
/// away.
#[test]
fn a_users_second_session_replaces_the_first_or_is_refused() {
    if !freeradius_ready() {
        return;
    }
    let lab = Lab::new();
    let radius = FreeRadius::start(&lab, "127.0.0.1");
    let told = lab.dir.path().join("told");
    let script = format!("#!/bin/sh\necho \"$5 $PEERNAME\" >> {}\n", told.display());
    lab.write_script("scripts/ip-down", &script);
    let scripts = lab.dir.path().join("scripts");
    let scripts = format!("[scripts]\ndir = \"{}\"\n", scripts.display());
    let _server = serve_by_radius(&lab, &["127.0.0.1"], "require", &scripts);
    let conf = std::fs::read_to_string(lab.dir.path().join("server.toml")).expect("a file");
    let single = |what: &str| {
        let auth = format!("[auth]\nsingle_session = \"{what}\"\n");
        lab.write("server.toml", &conf.replace("[auth]\n", &auth));
        let reload = lab.run(Side::Server, &["reload"]);
        assert_eq!(reload.status.code(), Some(0), "{}", text(&reload));
    };
    client(
        &lab,
        "tom",
        "tom123",
        &format!("{}{MPPE}", only("mschap-v2")),
    );
    let peer = std::fs::read_to_string(lab.dir.path().join("ppp/peers/test2")).expect("a file");
    lab.write("ppp/peers/again", &peer);

    single("replace");
    let mut first = lab.start(Side::Client, &["up", "-f", "test2"]);
    first.wait_for("is active", 15);
    let start = radius.record(&["Acct-Status-Type = Start"], 5);
    let id = value(&start, "Acct-Session-Id").expect("a session ID");
    let address = value(&start, "Framed-IP-Address").expect("an address");
    let again = lab.run(Side::Client, &["up", "again"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    let (_, log) = first.wait(10);
    assert!(log.contains("Replaced by a new session"), "{log}");
    let stop = radius.record(&["Acct-Status-Type = Stop", id], 5);
    assert_eq!(value(&stop, "Acct-Terminate-Cause"), Some("Port-Preempted"));
    assert_pings(&lab, Side::Client, "192.168.254.230");
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let lines = || std::fs::read_to_string(&told).unwrap_or_default();
    while lines() != format!("{address} tom\n") {
        assert!(std::time::Instant::now() < deadline, "{}", lines());
        std::thread::sleep(Duration::from_millis(50));
    }

    single("deny");
    let refused = lab.run(Side::Client, &["up", "test2"]);
    assert_eq!(refused.status.code(), Some(19), "{}", text(&refused));
    assert_pings(&lab, Side::Client, "192.168.254.230");
}

/// When the first server is killed the second is asked; when both are, the secrets are, and
/// accounting is made up for when a server is back.
#[test]
fn a_second_server_and_then_the_secrets_take_over() {
    if !freeradius_ready() {
        return;
    }
    let lab = Lab::new();
    let first = FreeRadius::start(&lab, "127.0.0.1");
    let mut second = FreeRadius::start(&lab, "127.0.0.2");
    let more = "timeout_s = 0.3\ntries = 2\ndead_s = 2\nfall_back_to_secrets = true\n";
    let both = ["127.0.0.1", "127.0.0.2"];
    let mut server = serve_by_radius(&lab, &both, "require", more);
    let _ = first.record(&["Acct-Status-Type = Accounting-On"], 5);
    drop(first);
    client(
        &lab,
        "tom",
        "tom123",
        &format!("{}{MPPE}", only("mschap-v2")),
    );
    let _ = up(&lab);
    server.wait_for("RADIUS: 127.0.0.1:1812 does not answer", 5);
    assert_pings(&lab, Side::Client, "192.168.254.230");
    take_down(&lab);
    let _ = second.record(&["Acct-Status-Type = Stop", "User-Request"], 10);

    second.running.signal(Signal::SIGKILL);
    second.running.wait(5);
    client(
        &lab,
        "ann",
        "ann123",
        &format!("{}{MPPE}", only("mschap-v2")),
    );
    let _ = up(&lab);
    server.wait_for("no RADIUS server answers: the secrets files do", 5);
    assert_pings(&lab, Side::Client, "192.168.254.230");

    std::thread::sleep(Duration::from_secs(2));
    let first = FreeRadius::start(&lab, "127.0.0.1");
    take_down(&lab);
    let stop = first.record(&["Acct-Status-Type = Stop", "ann"], 10);
    assert_eq!(value(&stop, "Acct-Authentic"), Some("Local"));
    server.wait_for("RADIUS: 127.0.0.1:1813 answers again", 5);
}

/// pptpd.conf and an options file with pppd's plugin, its radiusclient.conf and servers, as they
/// stand on machines that ran pptpd.
#[test]
fn the_files_of_pppds_radius_plugin_are_understood() {
    if !freeradius_ready() {
        return;
    }
    let lab = Lab::new();
    let radius = FreeRadius::start(&lab, "127.0.0.1");
    let file = lab.write(
        "radiusclient/radiusclient.conf",
        "auth_order\tradius\nauthserver\tlocalhost\nacctserver\tlocalhost:1813\n\
         servers\tservers\nradius_timeout\t2\nradius_retries\t3\nbindaddr *\n",
    );
    lab.write("radiusclient/servers", &format!("localhost\t{SECRET}\n"));
    let options = format!(
        "{SERVER_OPTIONS}plugin radius.so\nradius-config-file {}\n",
        file.display()
    );
    let conf = configure(&lab, &options, HOWTO_OPTIONS);
    let _server = serve(&lab, &conf);
    client(&lab, "mia", "mia123", MPPE);
    let log = up(&lab);
    assert!(log.contains("192.168.254.240"), "{log}");
    assert_pings(&lab, Side::Client, "192.168.254.230");
    take_down(&lab);
    let stop = radius.record(&["Acct-Status-Type = Stop", "mia"], 10);
    assert_eq!(value(&stop, "Acct-Terminate-Cause"), Some("User-Request"));
}
