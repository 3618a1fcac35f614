//! The program as a part of its system: what it tells systemd and the journal, what it may still do
//! when it is set up, and that scripts may do everything all the same.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sim::lab::{Lab, Running, Side, binary, ready, wait_until};
use sim::tunnel::{
    HOWTO_OPTIONS, SERVER_OPTIONS, assert_bare, assert_pings, configure, serve, take_down,
};

const PEER: &str = "192.168.254.230";
/// Within which systemd wants a sign of life; it is given twice as often.
const WATCHDOG: Duration = Duration::from_secs(1);
/// CAP_NET_ADMIN and CAP_NET_RAW (linux/capability.h).
const NETWORK_ONLY: u64 = 1 << 12 | 1 << 13;
const IPC_LOCK: u64 = 1 << 14;
const SYS_RESOURCE: u64 = 1 << 24;

/// Starts the program as systemd does, with these variables; its own process ID is $$.
fn start_as_service(lab: &Lab, side: Side, variables: &str, arguments: &[&str]) -> Running {
    let script = format!("{variables} exec \"$@\"");
    let mut command = lab.command(side, "sh");
    command.args(["-c", &script, "sh"]).arg(binary());
    Running::start(command.args(arguments))
}

/// What is said to systemd until `is_last`, with the time of each message.
fn listen(
    manager: &UnixDatagram,
    mut is_last: impl FnMut(&[(Instant, String)]) -> bool,
) -> Vec<(Instant, String)> {
    let mut heard = Vec::new();
    let mut message = [0; 1024];
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_last(&heard) {
        assert!(Instant::now() < deadline, "only {heard:?}");
        if let Ok(len) = manager.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..len]);
            heard.extend(text.lines().map(|line| (Instant::now(), line.to_owned())));
        }
    }
    heard
}

fn said(heard: &[(Instant, String)], text: &str) -> bool {
    heard.iter().any(|(_, line)| line.contains(text))
}

fn assert_signs_of_life(heard: &[(Instant, String)]) {
    let signs: Vec<_> = heard.iter().filter(|it| it.1 == "WATCHDOG=1").collect();
    for pair in signs.windows(2) {
        let pause = pair[1].0 - pair[0].0;
        assert!(pause < WATCHDOG, "silent for {pause:?}: {heard:?}");
    }
}

/// Ready when the tunnel stands and not before; signs of life go on while a script is waited for;
/// the end is said.
#[test]
fn systemd_hears_from_a_client() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let conf = configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    lab.write_script("ppp/ip-pre-up", "#!/bin/sh\nsleep 2\n");
    let mut server = serve(&lab, &conf);
    let path = lab.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let variables = format!(
        "NOTIFY_SOCKET={} WATCHDOG_USEC={} WATCHDOG_PID=$$",
        path.display(),
        WATCHDOG.as_micros()
    );
    let mut client = start_as_service(&lab, Side::Client, &variables, &["up", "test2", "-f"]);
    let heard = listen(&manager, |heard| said(heard, "STATUS=Up on ppp0"));
    assert!(said(&heard, "STATUS=Connecting to 10.77.0.1"), "{heard:?}");
    assert!(said(&heard, "READY=1"), "{heard:?}");
    assert!(said(&heard, "WATCHDOG=1"), "{heard:?}");
    assert_signs_of_life(&heard);
    let more = listen(&manager, |heard| {
        heard.iter().filter(|it| it.1 == "WATCHDOG=1").count() == 4
    });
    assert_signs_of_life(&more);
    client.signal(Signal::SIGTERM);
    listen(&manager, |heard| said(heard, "STOPPING=1"));
    assert_eq!(client.wait(10).0, 5);
    assert_bare(&lab, Side::Client);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(10).0, 0);
}

/// The same of a server, by a socket without a file; a watchdog that is meant for another process
/// hears nothing.
#[test]
fn systemd_hears_from_a_server() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let conf = configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    let name = format!("pptp-fast-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    // Such names belong to a network namespace.
    let manager = lab.in_namespace(Side::Server, move || UnixDatagram::bind_addr(&address));
    let manager = manager.join().unwrap().unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let variables = format!(
        "NOTIFY_SOCKET=@{name} WATCHDOG_USEC={}",
        WATCHDOG.as_micros()
    );
    let arguments = ["serve", "--config", &conf];
    let mut server = start_as_service(&lab, Side::Server, &variables, &arguments);
    listen(&manager, |heard| said(heard, "READY=1"));
    let up = lab.run(Side::Client, &["up", "test2"]);
    assert!(up.status.success());
    let heard = listen(&manager, |heard| {
        said(heard, "STATUS=Listening on 0.0.0.0:1723; tunnels: 1")
            && heard.iter().filter(|it| it.1 == "WATCHDOG=1").count() >= 3
    });
    assert_signs_of_life(&heard);
    take_down(&lab);
    server.signal(Signal::SIGTERM);
    listen(&manager, |heard| said(heard, "STOPPING=1"));
    assert_eq!(server.wait(10).0, 0);
    let variables = format!("{variables} WATCHDOG_PID=1");
    let mut server = start_as_service(&lab, Side::Server, &variables, &arguments);
    listen(&manager, |heard| said(heard, "READY=1"));
    std::thread::sleep(2 * WATCHDOG);
    server.signal(Signal::SIGTERM);
    let heard = listen(&manager, |heard| said(heard, "STOPPING=1"));
    assert!(!said(&heard, "WATCHDOG=1"), "{heard:?}");
    server.wait(10);
}

/// Capability sets in a file of /proc; ambient, bounding, effective, inheritable, permitted.
fn capability_sets(status: &str) -> Vec<(String, u64)> {
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    let sets = lines.filter(|(name, _)| name.starts_with("Cap"));
    sets.map(|(name, set)| {
        (
            name.to_owned(),
            u64::from_str_radix(set, 16).expect("digits"),
        )
    })
    .collect()
}

/// Every thread of a process, workers and the kernel's own among them, has given all up but the
/// network, and cannot get it back.
fn assert_only_the_network(pid: u32) {
    assert_only(pid, NETWORK_ONLY);
}

/// The same with the fast path: where the limit of locked memory cannot be raised, workers keep the
/// capability to lock memory, and no other thread does.
fn assert_only_the_network_and_memory(pid: u32) {
    let own = capability_sets(&fs::read_to_string("/proc/self/status").expect("/proc"));
    let may_raise = own
        .iter()
        .any(|(name, set)| name == "CapEff" && set & SYS_RESOURCE != 0);
    assert_only(
        pid,
        if may_raise {
            NETWORK_ONLY
        } else {
            NETWORK_ONLY | IPC_LOCK
        },
    );
}

fn assert_only(pid: u32, of_workers: u64) {
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it runs")
        .flatten()
    {
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            // It has ended meanwhile.
            continue;
        };
        threads += 1;
        for (name, set) in capability_sets(&status) {
            let is_worker = ["pptp-worker", "pptp-ahead", "iou-"]
                .iter()
                .any(|name| status.starts_with(&format!("Name:\t{name}")));
            let expected = match name.as_str() {
                "CapInh" | "CapAmb" => 0,
                _ if is_worker => of_workers,
                _ => NETWORK_ONLY,
            };
            assert_eq!(set, expected, "{name} of\n{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
    assert!(threads >= 2, "a worker and the control thread");
}

/// Processes that run scripts of this lab.
fn helpers(lab: &Lab) -> Vec<String> {
    let mark = lab.dir.path().display().to_string();
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| line.contains("run-programs") && line.contains(&mark))
        .collect()
}

/// A script that leaves what it may do in a file, and says that it was there.
fn write_curious_script(lab: &Lab, name: &str) {
    let dir = lab.dir.path().display();
    let script = format!(
        "#!/bin/sh\ncat /proc/self/status > {dir}/{name}.status.new\n\
         mv {dir}/{name}.status.new {dir}/{name}.status\necho \"$0 $1\" >> {dir}/{name}.runs\n"
    );
    lab.write_script(&format!("ppp/{name}"), &script);
}

fn assert_may_do_everything(lab: &Lab, script: &str) {
    let path = lab.dir.path().join(format!("{script}.status"));
    wait_until(script, 20, || path.exists());
    let status = fs::read_to_string(&path).expect("it is there");
    let own = fs::read_to_string("/proc/self/status").expect("/proc");
    let of = |status: &str, set: &str| {
        let sets = capability_sets(status);
        sets.into_iter().find(|it| it.0 == set).expect("a set").1
    };
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(of(&status, set), of(&own, set), "{set} of {script}");
    }
    assert!(status.contains("NoNewPrivs:\t0"), "{status}");
    // As pppd runs them: what they write is their owner's alone.
    assert!(status.contains("Umask:\t0077"), "{status}");
    // Those that the helper handles do not stay handled, ignored or blocked for a script.
    for line in status.lines().filter(|line| line.starts_with("SigBlk")) {
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
}

/// After set-up a client's threads have two capabilities; scripts have all of root's, and what is
/// done later still works: another call, name servers, pid files, the end in order.
#[test]
fn a_client_keeps_the_network_only_and_its_scripts_everything() {
    if !ready() {
        return;
    }
    let mut lab = Lab::new();
    lab.give_etc("nameserver 192.0.2.53\n");
    let options = format!("{HOWTO_OPTIONS}persist\nholdoff 0\nmaxfail 0\nusepeerdns\n");
    let conf = configure(&lab, SERVER_OPTIONS, &options);
    for script in ["ip-pre-up", "ip-up", "ip-down"] {
        write_curious_script(&lab, script);
    }
    let mut server = serve(&lab, &conf);
    let all = ["--look-ahead", "--fast-path", "auto", "--workers", "2"];
    let mut client = lab.start(Side::Client, &[&["up", "test2", "-f"][..], &all].concat());
    client.wait_for("Tunnel test2 is active on ppp0", 20);
    let resolv_conf = || fs::read_to_string(lab.dir.path().join("etc/resolv.conf")).unwrap();
    let has_pid_file = || lab.dir.path().join("run-Client/ppp0.pid").exists();
    assert_only_the_network_and_memory(client.id());
    assert_may_do_everything(&lab, "ip-pre-up");
    assert_may_do_everything(&lab, "ip-up");
    let status = lab.run(Side::Client, &["status", "test2", "--json"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("fast_path_reason"), "{status}");
    assert!(!status.contains("no memory for an AF_XDP"), "{status}");
    assert_pings(&lab, Side::Client, PEER);
    assert!(resolv_conf().contains(PEER), "{}", resolv_conf());
    assert!(has_pid_file());

    server.signal(Signal::SIGKILL);
    server.wait(10);
    let mut server = serve(&lab, &conf);
    let runs = || fs::read_to_string(lab.dir.path().join("ip-up.runs")).unwrap_or_default();
    // The server runs it, too, for its own interface.
    let of_client = || {
        runs()
            .lines()
            .filter(|line| line.ends_with(" ppp0"))
            .count()
    };
    wait_until("it is up again", 20, || of_client() == 2);
    assert_may_do_everything(&lab, "ip-down");
    assert_pings(&lab, Side::Client, PEER);
    assert_only_the_network_and_memory(client.id());
    assert_eq!(helpers(&lab).len(), 2, "{:?}", helpers(&lab));

    take_down(&lab);
    assert_eq!(client.wait(10).0, 0);
    assert_eq!(resolv_conf(), "nameserver 192.0.2.53\n");
    assert!(!has_pid_file());
    assert_bare(&lab, Side::Client);
    wait_until("the client's helper has gone", 20, || {
        helpers(&lab).len() == 1
    });
    server.signal(Signal::SIGKILL);
    server.wait(10);
    wait_until("the server's helper has gone", 20, || {
        helpers(&lab).is_empty()
    });
}

/// Like a client, a server; HUP and the scripts of its sessions work without what it gave up.
#[test]
fn a_server_keeps_the_network_only_and_its_scripts_everything() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let conf = configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    let mut server = serve(&lab, &conf);
    // It listens a moment before: the port may be one that takes a capability.
    std::thread::sleep(Duration::from_millis(300));
    assert_only_the_network(server.id());
    write_curious_script(&lab, "ip-up");
    write_curious_script(&lab, "ip-down");
    let up = lab.run(Side::Client, &["up", "test2"]);
    assert!(up.status.success());
    assert_may_do_everything(&lab, "ip-up");
    assert_pings(&lab, Side::Server, "192.168.254.231");
    assert_only_the_network(server.id());
    take_down(&lab);
    assert_may_do_everything(&lab, "ip-down");
    server.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(10).0, 0);
    assert_bare(&lab, Side::Server);
    wait_until("the helper has gone", 20, || helpers(&lab).is_empty());
}

/// Where there is nothing to give up, as in a container, there is no helper, either.
#[test]
fn a_client_that_has_the_network_only_runs_alone() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let conf = configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    let _server = serve(&lab, &conf);
    write_curious_script(&lab, "ip-pre-up");
    let mut command = lab.command(Side::Client, "setpriv");
    let set = [
        "--bounding-set",
        "-all,+net_admin,+net_raw",
        "--no-new-privs",
    ];
    command.args(set).arg(binary()).args(["up", "test2", "-f"]);
    let mut client = Running::start(&mut command);
    client.wait_for("Tunnel test2 is active on ppp0", 20);
    assert_only_the_network(client.id());
    assert!(lab.dir.path().join("ip-pre-up.runs").exists());
    assert_eq!(helpers(&lab).len(), 1, "the server's");
    take_down(&lab);
    client.wait(10);
}

/// Ctrl-C is a signal to all processes of a terminal: the helper still runs ip-down then.
#[test]
fn a_signal_to_the_helper_does_not_end_it() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let conf = configure(&lab, SERVER_OPTIONS, HOWTO_OPTIONS);
    write_curious_script(&lab, "ip-down");
    let _server = serve(&lab, &conf);
    let mut client = lab.start(Side::Client, &["up", "test2", "-f"]);
    client.wait_for("Tunnel test2 is active on ppp0", 20);
    let children = format!("/proc/{0}/task/{0}/children", client.id());
    let children = fs::read_to_string(children).unwrap();
    let helper: i32 = children.trim().parse().expect("one child");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), signal).unwrap();
    }
    take_down(&lab);
    assert!(lab.dir.path().join("ip-down.runs").exists());
    client.wait(10);
}

/// Entries of the journal have priorities; standard output, which goes there, too, does not repeat
/// them, and an error there has its priority in front.
#[test]
fn the_journal_gets_entries_with_priorities() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let conf = configure(&lab, SERVER_OPTIONS, &format!("{HOWTO_OPTIONS}logfd 1\n"));
    let _server = serve(&lab, &conf);
    fs::create_dir(lab.dir.path().join("journal")).unwrap();
    let journald = UnixDatagram::bind(lab.dir.path().join("journal/socket")).unwrap();
    journald
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let stream = lab.write("stream", "");
    // In the mount namespace of `ip netns exec`.
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
        mount --bind \"$0/journal\" /run/systemd/journal && exec >\"$0/stream\" 2>&1 && \
        JOURNAL_STREAM=$(stat -c %d:%i \"$0/stream\") exec \"$@\"";
    let start = |arguments: &[&str]| {
        let mut command = lab.command(Side::Client, "sh");
        command
            .args(["-c", script])
            .arg(lab.dir.path())
            .arg(binary());
        Running::start(command.args(arguments))
    };
    let mut client = start(&["up", "test2", "-f"]);
    let mut entries = String::new();
    let mut entry = [0; 4096];
    while !entries.contains("MESSAGE=local  IP address 192.168.254.231\n") {
        let len = journald.recv(&mut entry).expect("an entry");
        entries.push_str(&String::from_utf8_lossy(&entry[..len]));
    }
    let head = "SYSLOG_IDENTIFIER=pptp-fast\nSYSLOG_FACILITY=3\nPPTP_TUNNEL=test2\n";
    for rest in [
        "PRIORITY=7\nMESSAGE=sent [LCP ConfReq id=0x1",
        "PRIORITY=6\nMESSAGE=Using interface ppp0\n",
    ] {
        assert!(entries.contains(&format!("{head}{rest}")), "{entries}");
    }
    take_down(&lab);
    client.wait(10);
    let printed = fs::read_to_string(&stream).unwrap();
    assert!(printed.contains("Tunnel test2 is active"), "{printed}");
    assert!(!printed.contains("sent [LCP"), "{printed}");
    start(&["up", "nobody", "-f"]).wait(10);
    let printed = fs::read_to_string(&stream).unwrap();
    assert!(printed.starts_with("<3>pptp-fast: "), "{printed}");
}

/// The units name what there is, and systemd has nothing to say about them.
#[test]
fn the_units_are_in_order() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let verified = Command::new("systemd-analyze").arg("--version").output();
    if verified.is_err() {
        assert!(
            std::env::var_os("CI").is_none(),
            "systemd-analyze is missing"
        );
        println!("skipped: systemd-analyze is missing");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = binary().display().to_string();
    for unit in ["pptp-fast@.service", "pptp-fast-server.service"] {
        let text = fs::read_to_string(packaging.join(unit)).unwrap();
        // Where the package puts it there is nothing yet.
        let text = text.replace("/usr/bin/pptp-fast", &program);
        assert!(text.contains(&program), "{unit}");
        let instance = unit.replace('@', "@office");
        fs::write(dir.path().join(&instance), text).unwrap();
        let drop_ins = dir.path().join(format!("{instance}.d"));
        fs::create_dir(&drop_ins).unwrap();
        let no_scripts = packaging.join("../examples/no-scripts.conf");
        fs::copy(no_scripts, drop_ins.join("no-scripts.conf")).unwrap();
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--recursive-errors=one", "--man=no"])
            .arg(dir.path().join(&instance))
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "{unit}: {words}");
        assert!(!words.contains("pptp-fast"), "{unit}: {words}");
    }
}
