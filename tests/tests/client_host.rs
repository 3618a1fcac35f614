//! What a client does to its host around a tunnel, and that nothing of it remains: routes, the kill
//! switch, name servers, scripts. Everything happens in namespaces, /etc included.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::Signal;
use sim::lab::{Lab, Running, Side, ready, wait_until};
use sim::tunnel::{HOWTO_OPTIONS, SERVER_OPTIONS, assert_pings, configure, serve, take_down, text};

/// The server's address beyond the gateway 10.77.0.1.
const FAR_SERVER: &str = "10.88.0.1";
const PEER: &str = "192.168.254.230";
/// As the how-to shows them.
const HOWTO_SCRIPTS: &str = include_str!("../howto/scripts.txt");
const RESOLV_CONF: &str = "search example.net\nnameserver 192.0.2.53\n";

/// A server beyond a gateway, and a client with these options and comment lines.
fn far_tunnel(options: &str, comments: &str) -> Option<(Lab, Running)> {
    let mut lab = ready().then(Lab::new)?;
    lab.give_etc(RESOLV_CONF);
    lab.ip(Side::Server, "address add 10.88.0.1/32 dev lo");
    lab.ip(
        Side::Server,
        "route replace 10.77.0.0/24 dev outer src 10.88.0.1",
    );
    lab.ip(Side::Client, "route add default via 10.77.0.1");
    let conf = configure(&lab, SERVER_OPTIONS, &format!("{HOWTO_OPTIONS}{options}"));
    let file = lab.dir.path().join("ppp/options.pptp");
    lab.write(
        "ppp/peers/test2",
        &format!(
            "# PPTP\n# Server IP: {FAR_SERVER}\n{comments}name mia\nremotename zidler\nfile {}\n",
            file.display()
        ),
    );
    let server = serve(&lab, &conf);
    Some((lab, server))
}

fn up(lab: &Lab, more: &[&str]) -> String {
    let up = lab.run(Side::Client, &[&["up", "test2"], more].concat());
    let log = text(&up);
    assert_eq!(up.status.code(), Some(0), "{log}");
    log
}

/// What `ip` says on the client's side.
fn ask(lab: &Lab, words: &str) -> String {
    let mut command = lab.command(Side::Client, "ip");
    text(
        &command
            .args(words.split(' '))
            .output()
            .expect("the lab holds together"),
    )
}

fn can_ping(lab: &Lab, host: &str) -> bool {
    let mut ping = lab.command(Side::Client, "ping");
    let ping = ping
        .args(["-c1", "-W1", host])
        .output()
        .expect("the lab holds together");
    ping.status.success()
}

/// Kills the tunnel's process, and waits until its interface has gone with it.
fn kill(lab: &Lab) {
    let status = lab.run(Side::Client, &["status", "test2", "--json"]);
    let status: serde_json::Value =
        serde_json::from_slice(&status.stdout).expect("the lab holds together");
    let pid = status["tunnels"][0]["pid"]
        .as_i64()
        .expect("the lab holds together");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("the lab holds together"));
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("the lab holds together");
    wait_until("the interface is gone", 10, || {
        lab.interfaces(Side::Client).len() == 2
    });
}

/// Files below a directory, with what would tell one from another.
fn files(directory: &Path) -> Vec<(PathBuf, u32, u64, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let meta = entry.metadata().expect("the lab holds together");
            let content = std::fs::read(entry.path()).unwrap_or_default();
            (entry.path(), meta.mode(), meta.ino(), content)
        })
        .collect();
    found.sort();
    found
}

/// The client's host, to be the same before and after.
#[derive(Debug, PartialEq)]
struct Host {
    interfaces: Vec<String>,
    routes: String,
    rules: String,
    etc: Vec<(PathBuf, u32, u64, Vec<u8>)>,
    ppp: Vec<(PathBuf, u32, u64, Vec<u8>)>,
    run: Vec<(PathBuf, u32, u64, Vec<u8>)>,
    is_open: bool,
}

impl Host {
    fn of(lab: &Lab) -> Self {
        let dir = lab.dir.path();
        Self {
            interfaces: lab.interfaces(Side::Client),
            routes: lab.routes(Side::Client),
            rules: ask(lab, "rule"),
            etc: files(&dir.join("etc")),
            ppp: files(&dir.join("ppp")),
            run: files(&dir.join("run-Client")),
            is_open: can_ping(lab, "10.77.0.1"),
        }
    }
}

const ROUTES: &str = "\
# Route: add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV
# Route: add -host 203.0.113.9 gw DEF_GW
";

/// pptp-command's route lines and `--route`: through the tunnel, or past it; all go with it.
#[test]
fn routes_lead_into_the_tunnel_and_past_it() {
    let Some((lab, _server)) = far_tunnel("", ROUTES) else {
        return;
    };
    let before = Host::of(&lab);
    let log = up(&lab, &["--route", "198.51.100.0/24", "--route", "10.9.9.9"]);
    assert!(log.contains("All routes added."), "{log}");
    let routes = lab.routes(Side::Client);
    for route in [
        "192.168.2.0/24 dev ppp0",
        "198.51.100.0/24 dev ppp0",
        "10.9.9.9 dev ppp0",
        "203.0.113.9 via 10.77.0.1 dev outer",
    ] {
        assert!(routes.contains(route), "no {route} in:\n{routes}");
    }
    // Nothing swallows the server, so it needs no route of its own.
    assert!(!routes.contains(FAR_SERVER), "{routes}");
    take_down(&lab);
    assert_eq!(Host::of(&lab), before);
}

/// The default route goes through the tunnel, the tunnel's own packets do not; after `down` the
/// host's own default route leads on as before.
#[test]
fn a_default_route_leaves_the_server_outside() {
    let options = "defaultroute\nreplacedefaultroute\n";
    let Some((lab, _server)) = far_tunnel(options, "") else {
        return;
    };
    let before = Host::of(&lab);
    up(&lab, &[]);
    let way = ask(&lab, "route get 8.8.8.8");
    assert!(way.contains("dev ppp0"), "{way}");
    let way = ask(&lab, "route get 10.88.0.1");
    assert!(way.contains("via 10.77.0.1 dev outer"), "{way}");
    assert_pings(&lab, Side::Client, PEER);
    take_down(&lab);
    assert_eq!(Host::of(&lab), before);
}

/// pppd's rule: a default route is not replaced unless that is asked for.
#[test]
fn a_default_route_that_is_there_stays() {
    let Some((lab, _server)) = far_tunnel("defaultroute\n", "") else {
        return;
    };
    let log = up(&lab, &[]);
    let words = "not replacing existing default route via 10.77.0.1";
    assert!(log.contains(words), "{log}");
    assert!(ask(&lab, "route get 8.8.8.8").contains("dev outer"));
    take_down(&lab);
    // With another metric both stand.
    let metric = ["--", "defaultroute-metric", "700"];
    up(&lab, &metric);
    let routes = lab.routes(Side::Client);
    assert!(
        routes.contains("default dev ppp0 proto static scope link metric 700"),
        "{routes}"
    );
    take_down(&lab);
}

/// A script, or a person, that leads the way to the server into the tunnel does not end it.
#[test]
fn the_way_to_the_server_is_led_out_of_the_tunnel_again() {
    let Some((lab, _server)) = far_tunnel("", "") else {
        return;
    };
    let before = Host::of(&lab);
    lab.write_script("ppp/ip-up", "#!/bin/sh\nip route add 10.88.0.0/16 dev $1\n");
    up(&lab, &[]);
    wait_until("the server has a route of its own", 10, || {
        ask(&lab, "route get 10.88.0.1").contains("dev outer")
    });
    // What was sent in between went round in the tunnel.
    wait_until("packets pass", 10, || {
        sim::tunnel::pings(&lab, Side::Client, PEER).is_ok()
    });
    take_down(&lab);
    std::fs::remove_file(lab.dir.path().join("ppp/ip-up")).unwrap();
    assert_eq!(Host::of(&lab), before);
}

/// Everything at once, killed: `down` repairs it, and so does the next start.
#[test]
fn what_a_killed_process_leaves_is_repaired() {
    let options = "defaultroute\nreplacedefaultroute\nusepeerdns\nlinkname office\n";
    let Some((lab, _server)) = far_tunnel(options, ROUTES) else {
        return;
    };
    let before = Host::of(&lab);
    up(&lab, &["--kill-switch"]);
    kill(&lab);
    // A kill switch that went with its process would be none.
    assert!(!can_ping(&lab, "10.77.0.1"), "the way is open");
    take_down(&lab);
    assert_eq!(Host::of(&lab), before);

    up(&lab, &["--kill-switch"]);
    kill(&lab);
    up(&lab, &["--kill-switch"]);
    assert_pings(&lab, Side::Client, PEER);
    kill(&lab);
    // Without it the next start opens the way again.
    up(&lab, &[]);
    assert!(can_ping(&lab, "10.77.0.1"), "the way is closed");
    take_down(&lab);
    assert_eq!(Host::of(&lab), before);
}

/// Nothing leaves but through the tunnel, also after the tunnel was lost; `down` opens the way.
#[test]
fn a_kill_switch_outlives_a_lost_tunnel() {
    let Some((lab, server)) = far_tunnel("", "") else {
        return;
    };
    let before = Host::of(&lab);
    up(&lab, &["--kill-switch"]);
    assert_pings(&lab, Side::Client, PEER);
    assert!(!can_ping(&lab, "10.77.0.1"));
    server.signal(Signal::SIGKILL);
    wait_until("the process has ended", 10, || {
        lab.interfaces(Side::Client).len() == 2
    });
    assert!(!can_ping(&lab, "10.77.0.1"), "it let packets out");
    take_down(&lab);
    assert_eq!(Host::of(&lab), before);
}

/// Two tunnels with kill switches: each lets its own through, and the last one keeps the way
/// closed.
#[test]
fn kill_switches_of_two_tunnels_hold_together() {
    let Some((lab, mut server)) = far_tunnel("", "") else {
        return;
    };
    // Addresses for two.
    server.signal(Signal::SIGTERM);
    server.wait(10);
    let conf = lab.dir.path().join("pptpd.conf");
    let text_of = std::fs::read_to_string(&conf).unwrap();
    let text_of = text_of.replace("remoteip 192.168.254.231", "remoteip 192.168.254.231-239");
    lab.write("pptpd.conf", &text_of);
    let _server = serve(&lab, &conf.display().to_string());
    let peer = std::fs::read_to_string(lab.dir.path().join("ppp/peers/test2")).unwrap();
    lab.write("ppp/peers/test3", &peer);
    let before = Host::of(&lab);
    let pings_through = |interface: &str| {
        let mut ping = lab.command(Side::Client, "ping");
        let ping = ping.args(["-c1", "-W2", "-I", interface, PEER]);
        ping.output().unwrap().status.success()
    };
    let run = |arguments: &[&str]| {
        let output = lab.run(Side::Client, arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    };
    for first_down in ["test2", "test3"] {
        for name in ["test2", "test3"] {
            run(&["up", name, "--kill-switch"]);
        }
        assert!(pings_through("ppp0") && pings_through("ppp1"));
        assert!(!can_ping(&lab, "10.77.0.1"), "the way is open");
        run(&["down", first_down]);
        let (left, back) = match first_down {
            "test2" => ("ppp1", "ppp0"),
            _ => ("ppp0", "ppp1"),
        };
        assert!(pings_through(left), "the other's passage has gone, too");
        assert!(!can_ping(&lab, "10.77.0.1"), "the way is open");
        run(&["up", first_down, "--kill-switch"]);
        assert!(pings_through(left) && pings_through(back));
        run(&["down", "--all"]);
        assert_eq!(Host::of(&lab), before);
    }
    // One that was killed keeps the way closed, whatever the other does.
    run(&["up", "test2", "--kill-switch"]);
    kill(&lab);
    run(&["up", "test3", "--kill-switch"]);
    assert!(pings_through("ppp0"));
    run(&["down", "test3"]);
    assert!(!can_ping(&lab, "10.77.0.1"), "the way is open");
    run(&["down", "test2"]);
    assert_eq!(Host::of(&lab), before);
}

/// A start that fails leaves nothing, not even a closed way.
#[test]
fn a_failed_start_leaves_nothing() {
    let options = "defaultroute\nreplacedefaultroute\nusepeerdns\n";
    let Some((lab, _server)) = far_tunnel(options, ROUTES) else {
        return;
    };
    lab.write("ppp/chap-secrets", "mia zidler wrong *\n");
    let before = Host::of(&lab);
    let up = lab.run(Side::Client, &["up", "test2", "--kill-switch"]);
    assert_eq!(up.status.code(), Some(19), "{}", text(&up));
    assert_eq!(Host::of(&lab), before);
}

/// Where nobody looks after /etc/resolv.conf, the peer's servers stand in it as long as the tunnel
/// does; pppd's own file is there for scripts.
#[test]
fn the_peers_name_servers_come_and_go_with_the_tunnel() {
    let Some((lab, _server)) = far_tunnel("usepeerdns\n", "") else {
        return;
    };
    let told = lab.dir.path().join("log/told");
    lab.write_script(
        "ppp/ip-up",
        "#!/bin/sh\necho $DNS1 $USEPEERDNS $(cat /etc/ppp/resolv.conf) > /var/log/told\n",
    );
    let etc = lab.dir.path().join("etc");
    // A link, as many hosts have it.
    std::fs::rename(etc.join("resolv.conf"), etc.join("real.conf")).unwrap();
    std::os::unix::fs::symlink("real.conf", etc.join("resolv.conf")).unwrap();
    let before = Host::of(&lab);
    let log = up(&lab, &[]);
    assert!(
        log.contains("sent [IPCP ConfReq id=0x1 <addr 0.0.0.0> <ms-dns1 0.0.0.0>"),
        "{log}"
    );
    assert!(
        log.contains("primary   DNS address 192.168.254.230"),
        "{log}"
    );
    let ours = std::fs::read_to_string(etc.join("resolv.conf")).unwrap();
    assert!(
        ours.ends_with("search example.net\nnameserver 192.168.254.230\n"),
        "{ours}"
    );
    wait_until("ip-up has told", 10, || told.exists());
    wait_until("ip-up has told all", 10, || {
        std::fs::read_to_string(&told).unwrap_or_default()
            == format!("{PEER} 1 nameserver {PEER}\n")
    });
    take_down(&lab);
    assert_eq!(Host::of(&lab), before);
}

/// Name servers that a person has set up for tunnels go before those of the peer; whichever it was,
/// and whoever repairs what a killed process has left, the host is as before.
#[test]
fn a_persons_name_servers_and_the_peers_are_restored_after_a_crash() {
    let Some((lab, _server)) = far_tunnel("usepeerdns\n", "") else {
        return;
    };
    let bare = Host::of(&lab);
    let run = |arguments: &[&str]| {
        let output = lab.run(Side::Client, arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    };
    // The links are absolute, so only that host can follow them.
    let asked = || {
        let mut cat = lab.command(Side::Client, "cat");
        text(&cat.arg("/etc/resolv.conf").output().unwrap())
    };
    run(&["dns", "set", "--nameserver", "10.0.0.1"]);
    let before = Host::of(&lab);
    assert_eq!(asked(), RESOLV_CONF);
    let log = up(&lab, &[]);
    let installed = "Installed /etc/resolv.conf.pptp as /etc/resolv.conf";
    assert!(log.contains(installed), "{log}");
    assert_eq!(asked(), "nameserver 10.0.0.1\n");
    // pppd's own file has the peer's.
    let pppds = std::fs::read_to_string(lab.dir.path().join("ppp/resolv.conf")).unwrap();
    assert_eq!(pppds, format!("nameserver {PEER}\n"));
    take_down(&lab);
    assert_eq!(Host::of(&lab), before);
    for repair in [
        &["down", "test2"][..],
        &["up", "test2", "--", "noresolvconf"],
    ] {
        up(&lab, &[]);
        kill(&lab);
        assert_eq!(asked(), "nameserver 10.0.0.1\n");
        run(repair);
        if repair[0] == "up" {
            take_down(&lab);
        }
        assert_eq!(Host::of(&lab), before);
    }
    // Without the person's, the peer's; and after a reboot only the next start knows.
    run(&["dns", "restore"]);
    assert_eq!(Host::of(&lab).etc, bare.etc);
    up(&lab, &[]);
    assert!(
        asked().ends_with(&format!("nameserver {PEER}\n")),
        "{}",
        asked()
    );
    kill(&lab);
    std::fs::remove_dir_all(lab.dir.path().join("run-Client")).unwrap();
    up(&lab, &["--", "noresolvconf", "usepeerdns"]);
    assert_eq!(asked(), RESOLV_CONF);
    take_down(&lab);
    assert_eq!(Host::of(&lab).etc, bare.etc);
}

/// resolvconf and systemd-resolved are told where they run the host's resolver.
#[test]
fn resolver_managers_are_told_instead() {
    for (program, is_resolved) in [("resolvconf", false), ("resolvectl", true)] {
        let Some((lab, _server)) = far_tunnel("usepeerdns\n", "") else {
            return;
        };
        let etc = lab.dir.path().join("etc");
        if is_resolved {
            std::fs::remove_file(etc.join("resolv.conf")).unwrap();
            let stub = "/run/systemd/resolve/stub-resolv.conf";
            std::os::unix::fs::symlink(stub, etc.join("resolv.conf")).unwrap();
        }
        let told = "#!/bin/sh\necho $* $(cat) >> /var/log/told\n";
        lab.write_script(&format!("bin/{program}"), told);
        let before = files(&etc);
        let path = format!(
            "{}:{}",
            lab.dir.path().join("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let mut command = lab.command(Side::Client, sim::lab::binary());
        let up = command.args(["up", "test2"]).env("PATH", &path);
        let up = up.output().unwrap();
        assert_eq!(up.status.code(), Some(0), "{}", text(&up));
        assert_eq!(files(&etc), before, "/etc was touched beside {program}");
        take_down(&lab);
        let told = std::fs::read_to_string(lab.dir.path().join("log/told")).unwrap();
        let expected = if is_resolved {
            "dns ppp0 192.168.254.230\ndomain ppp0 ~.\nrevert ppp0\n"
        } else {
            "-a ppp0.pptp-fast nameserver 192.168.254.230\n-d ppp0.pptp-fast\n"
        };
        assert_eq!(told, expected);
        assert_eq!(files(&etc), before);
    }
}

/// The how-to's four scripts, word for word, with the route that they add and the line that they
/// log.
#[test]
fn the_howtos_own_scripts_work_unchanged() {
    let Some((lab, _server)) = far_tunnel("", "") else {
        return;
    };
    let has_route = ["/sbin/route", "/usr/sbin/route", "/bin/route"];
    assert!(
        has_route.iter().any(|path| Path::new(path).exists()),
        "route is missing: install net-tools"
    );
    let mut names = Vec::new();
    for shown in HOWTO_SCRIPTS.split("[shashank@mia ppp]# cat ").skip(1) {
        let (name, text) = shown.split_once('\n').unwrap();
        lab.write_script(&format!("ppp/{name}"), text);
        names.push(name);
    }
    assert_eq!(names, ["ip-up", "ip-up.local", "ip-down", "ip-down.local"]);
    let before = Host::of(&lab);
    up(&lab, &[]);
    let log = lab.dir.path().join("log/pptpd.log");
    wait_until("ip-up.local has logged", 10, || log.exists());
    wait_until("ip-up.local has logged all", 10, || {
        let line = std::fs::read_to_string(&log).unwrap_or_default();
        line.ends_with(" UP ppp0 10.88.0.1 0 192.168.254.231 192.168.254.230 192.168.2.0\n")
    });
    let route = "192.168.2.0/24 via 192.168.254.230 dev ppp0";
    let routes = lab.routes(Side::Client);
    assert!(routes.contains(route), "{routes}");
    take_down(&lab);
    // ip-down.local empties its log at the end.
    assert_eq!(std::fs::read(&log).unwrap(), b"");
    assert_eq!(Host::of(&lab), before);
}

/// Every script of pppd's, in pppd's order, with pppd's arguments, and an environment of pppd's
/// variables alone.
#[test]
fn all_scripts_run_in_pppds_order() {
    let server_script = "#!/bin/sh\necho ${0##*/} $2 $3 $PEERNAME >> \"${0%/*}/told-server\"\n";
    let Some((lab, _server)) = far_tunnel("linkname office\nset COLOUR=blue\n", "") else {
        return;
    };
    let told = lab.dir.path().join("log/told");
    let script = "#!/bin/sh\necho ${0##*/} \"$@\" $LINKNAME $CALL_FILE $COLOUR $PPPLOGNAME $HOME. \
        >> /var/log/told\n";
    for name in [
        "net-init",
        "net-pre-up",
        "net-down",
        "ip-pre-up",
        "ip-up",
        "ip-down",
    ] {
        lab.write_script(&format!("ppp/{name}"), script);
    }
    // Nobody proves to the client who they are, so only the server runs these.
    for name in ["auth-up", "auth-down"] {
        lab.write_script(&format!("ppp/{name}"), server_script);
    }
    up(&lab, &[]);
    take_down(&lab);
    let told = std::fs::read_to_string(told).unwrap();
    let facts = "office test2 blue root .";
    let net = format!("ppp0 10.88.0.1 0 192.168.2.0 {facts}");
    let ip = format!("ppp0 10.88.0.1 0 192.168.254.231 {PEER} 192.168.2.0 {facts}");
    let ours: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("office"))
        .collect();
    assert_eq!(
        ours,
        [
            format!("net-init {net}"),
            format!("net-pre-up {net}"),
            format!("ip-pre-up {ip}"),
            format!("ip-up {ip}"),
            format!("ip-down {ip}"),
            format!("net-down {net}"),
        ],
        "{told}"
    );
    let told = lab.dir.path().join("ppp/told-server");
    wait_until("the server's scripts have told", 10, || {
        std::fs::read_to_string(&told).unwrap_or_default()
            == "auth-up mia root mia\nauth-down mia root mia\n"
    });
}

/// `child-timeout`: a script that does not end is waited for so long, and then asked to end.
#[test]
fn scripts_that_do_not_end_are_asked_to_after_child_timeout() {
    let Some((lab, _server)) = far_tunnel("", "") else {
        return;
    };
    let log = lab.dir.path().join("log/told");
    let script = "#!/bin/sh\ntrap 'echo asked >> /var/log/told; exit' TERM\n\
        echo started >> /var/log/told\nsleep 30 & wait\n";
    lab.write_script("ppp/ip-down", script);
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    for (limit, about) in [("1", 1..4), ("3", 3..6)] {
        let _ = std::fs::remove_file(&log);
        up(&lab, &["--", "child-timeout", limit]);
        let asked_at = Instant::now();
        take_down(&lab);
        let waited = asked_at.elapsed().as_secs();
        assert!(about.contains(&waited), "{waited} s of {limit}");
        assert_eq!(read(), "started\nasked\n");
    }
}

/// What net-pre-up or ip-pre-up renames keeps its new name, and later scripts are told of it.
#[test]
fn an_interface_may_be_renamed_by_a_script() {
    let Some((lab, _server)) = far_tunnel("", "") else {
        return;
    };
    let told = lab.dir.path().join("log/told");
    lab.write_script("ppp/ip-up", "#!/bin/sh\necho $1 $IFNAME > /var/log/told\n");
    for script in ["net-pre-up", "ip-pre-up"] {
        let rename = "#!/bin/sh\nip link set dev $1 name office0\n";
        lab.write_script(&format!("ppp/{script}"), rename);
        let log = up(&lab, &["--kill-switch"]);
        assert!(log.contains("is active on office0"), "{script}: {log}");
        assert_pings(&lab, Side::Client, PEER);
        wait_until("ip-up has been told", 10, || {
            std::fs::read_to_string(&told).unwrap_or_default() == "office0 office0\n"
        });
        take_down(&lab);
        std::fs::remove_file(lab.dir.path().join("ppp").join(script)).unwrap();
        let _ = std::fs::remove_file(&told);
    }
}

/// The mark is on both sockets: the firewall of this test lets nothing else out.
#[test]
fn the_mark_is_on_control_connection_and_gre() {
    let Some((lab, _server)) = far_tunnel("", "") else {
        return;
    };
    lab.ip(Side::Client, "route del default");
    lab.ip(Side::Client, "route add 10.88.0.1 via 10.77.0.1 table 77");
    lab.ip(Side::Client, "rule add fwmark 77 table 77");
    let unmarked = lab.run(Side::Client, &["up", "test2"]);
    assert_eq!(unmarked.status.code(), Some(16), "{}", text(&unmarked));
    up(&lab, &["--fwmark", "77", "--local", "10.77.0.2"]);
    assert_pings(&lab, Side::Client, PEER);
    take_down(&lab);
}

/// A file that is everybody's must not tell secrets, nor a state file how to get in.
#[test]
fn run_files_are_for_their_owner_alone() {
    let Some((lab, _server)) = far_tunnel("usepeerdns\nlinkname office\n", "") else {
        return;
    };
    up(&lab, &["--kill-switch"]);
    let run = lab.dir.path().join("run-Client");
    let mode = std::fs::metadata(&run).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let pid = std::fs::read_to_string(run.join("ppp-office.pid")).unwrap();
    assert!(pid.ends_with("\nppp0\n"), "{pid}");
    let same = std::fs::read_to_string(run.join("ppp0.pid")).unwrap();
    assert_eq!(pid.lines().next(), same.lines().next());
    for (path, _, _, content) in files(&run) {
        let content = String::from_utf8_lossy(&content).into_owned();
        assert!(!content.contains("mia123"), "{}: {content}", path.display());
    }
    take_down(&lab);
}

/// Connections through the tunnel are told of segments that fit it, whatever the interfaces say.
#[test]
fn segments_are_clamped_to_what_fits() {
    let Some((lab, _server)) = far_tunnel("", "") else {
        return;
    };
    let up = lab.run(Side::Client, &["up", "test2", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&up.stdout).unwrap();
    let mtu = u32::try_from(object["mtu"].as_u64().unwrap()).unwrap();
    lab.ip(Side::Client, "link set ppp0 mtu 1500");
    let routes = lab.routes(Side::Server);
    let route = routes.lines().find(|line| line.contains("192.168.254.231"));
    let device = route.unwrap().split(' ').nth(2).unwrap();
    for words in [
        format!("link set {device} mtu 1500"),
        "route del 192.168.254.231".to_owned(),
        format!("route add 192.168.254.231 dev {device}"),
    ] {
        lab.ip(Side::Server, &words);
    }
    let (listens, is_listening) = std::sync::mpsc::channel();
    let server = lab.in_namespace(Side::Server, move || {
        let listener = std::net::TcpListener::bind((PEER, 5001)).unwrap();
        listens.send(()).unwrap();
        segment_size(&listener.accept().unwrap().0)
    });
    is_listening.recv().unwrap();
    let client = lab.in_namespace(Side::Client, || {
        segment_size(&std::net::TcpStream::connect((PEER, 5001)).unwrap())
    });
    for (segment, end) in [(client, "client"), (server, "server")] {
        let segment = segment.join().unwrap();
        assert!(
            (500..=mtu - 40).contains(&segment),
            "{end}: {segment}, mtu {mtu}"
        );
    }
    take_down(&lab);
}

/// The largest segment that this end sends.
fn segment_size(stream: &std::net::TcpStream) -> u32 {
    nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::TcpMaxSeg)
        .expect("the lab holds together")
}
