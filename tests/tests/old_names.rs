//! pptp-command, pptpsetup, pon and poff on real tunnels between two network namespaces: their
//! verbs, messages and exit codes.

use std::os::unix::fs::symlink;
use std::process::Output;
use std::time::{Duration, Instant};

use sim::lab::{Lab, Running, SERVER, Side, binary, ready};
use sim::tunnel::serve;

/// A lab whose server knows mia, with links for the old names beside its files.
fn started() -> Option<(Lab, Running)> {
    let lab = ready().then(Lab::new)?;
    for name in ["pptp-command", "pptpsetup", "pon", "poff"] {
        symlink(binary(), lab.dir.path().join(name)).expect("a link");
    }
    // The server's secrets lie apart: the client's folder starts empty.
    let secrets = lab.write("server-secrets", "mia * mia123 *\n");
    let options = format!(
        "name zidler\nrequire-mschap-v2\nrequire-mppe-128\nchap-secrets {}\n",
        secrets.display()
    );
    let options = lab.write("pptpd-options", &options);
    let conf = format!(
        "option {}\nlocalip 192.168.254.230\nremoteip 192.168.254.231-232\n",
        options.display()
    );
    let conf = lab.write("pptpd.conf", &conf).display().to_string();
    lab.write("resolv.conf", "nameserver 192.0.2.1\n");
    let server = serve(&lab, &conf);
    Some((lab, server))
}

fn run(lab: &Lab, name: &str, arguments: &[&str]) -> Output {
    let mut command = lab.command(Side::Client, lab.dir.path().join(name));
    command.env("PPTP_FAST_RESOLV_CONF", lab.dir.path().join("resolv.conf"));
    command.args(arguments).output().expect("it starts")
}

#[track_caller]
fn assert_says(output: &Output, code: i32, words: &str) {
    let shown = [&output.stdout[..], &output.stderr[..]].concat();
    let shown = String::from_utf8_lossy(&shown);
    assert_eq!(output.status.code(), Some(code), "{shown}");
    assert!(shown.contains(words), "no {words:?} in {shown}");
}

fn set_up(lab: &Lab, tunnel: &str) {
    let words = [
        "--create",
        tunnel,
        "--server",
        SERVER,
        "--username",
        "mia",
        "--encrypt",
    ];
    let password = ["--password", "mia123"];
    let output = run(lab, "pptpsetup", &[&words[..], &password].concat());
    assert_says(&output, 0, "");
}

#[test]
fn pptp_command_starts_tells_and_stops_the_default_tunnel() {
    let Some((lab, _server)) = started() else {
        return;
    };
    let status = |code, words| assert_says(&run(&lab, "pptp-command", &["status"]), code, words);
    assert_says(
        &run(&lab, "pptp-command", &["start"]),
        2,
        "no configured tunnels!",
    );
    let password = lab.write("password", "mia123\n").display().to_string();
    let ours = |arguments: &[&str]| {
        assert_says(&lab.run(Side::Client, arguments), 0, "");
    };
    ours(&[
        "secret",
        "add",
        "mia",
        "zidler",
        "--password-file",
        &password,
    ]);
    let names = ["--user", "mia", "--remotename", "zidler"];
    ours(&[&["tunnel", "add", "test2", "--server", SERVER], &names[..]].concat());
    assert_says(
        &run(&lab, "pptp-command", &["start"]),
        1,
        "usage: pptp-command",
    );
    ours(&["tunnel", "default", "test2"]);
    assert_says(
        &run(&lab, "pptp-command", &["start", "tset2"]),
        2,
        "Did you mean 'test2'?",
    );
    status(3, "There is probably not a pptp tunnel up");

    let started = run(&lab, "pptp-command", &["start"]);
    assert_says(
        &started,
        0,
        "Tunnel test2 is active on ppp0. Local IP Address: 192.168.254.23",
    );
    status(0, "There is probably a pptp tunnel up");
    assert_says(
        &run(&lab, "pptp-command", &["restart"]),
        0,
        "Tunnel test2 is active on ppp0.",
    );
    assert_says(
        &run(&lab, "pptp-command", &["reload"]),
        0,
        "Tunnel test2 is active on ppp0.",
    );
    assert_says(
        &run(&lab, "pptp-command", &["stop"]),
        0,
        "Sending HUP signal to PPTP processes...",
    );
    status(3, "There is probably not a pptp tunnel up");
    assert!(
        !lab.interfaces(Side::Client)
            .iter()
            .any(|name| name.starts_with("ppp"))
    );
}

#[test]
fn resolv_conf_is_exchanged_while_the_tunnel_is_up() {
    let Some((lab, _server)) = started() else {
        return;
    };
    set_up(&lab, "work");
    let resolver =
        || std::fs::read_to_string(lab.dir.path().join("resolv.conf")).expect("a resolv.conf");
    let mut set = lab.command(Side::Client, binary());
    set.env("PPTP_FAST_RESOLV_CONF", lab.dir.path().join("resolv.conf"));
    set.args(["dns", "set", "--nameserver", "10.0.0.1"]);
    assert_says(&set.output().expect("it starts"), 0, "10.0.0.1 is asked");
    let before = resolver();
    assert_says(
        &run(&lab, "pptp-command", &["start", "work"]),
        0,
        "resolv.conf.pptp as ",
    );
    assert_eq!(resolver(), "nameserver 10.0.0.1\n");
    assert_says(
        &run(&lab, "pptp-command", &["stop"]),
        0,
        "resolv.conf.real as ",
    );
    assert_eq!(resolver(), before);
}

#[test]
fn pptpsetup_pon_and_poff_work_on_several_tunnels() {
    let Some((lab, _server)) = started() else {
        return;
    };
    set_up(&lab, "work");
    set_up(&lab, "home");
    assert_says(&run(&lab, "poff", &[]), 1, "None stopped.");
    assert_says(&run(&lab, "pon", &["none"]), 1, "does not exist.");
    assert_says(
        &run(&lab, "pon", &["--help"]),
        0,
        "Usage: pon [provider] [arguments]",
    );
    assert_says(
        &run(&lab, "pon", &["work", "updetach"]),
        0,
        "Tunnel work is active on ppp0.",
    );
    assert_says(&run(&lab, "poff", &["home"]), 1, "I could not find");
    assert_says(
        &run(&lab, "pon", &["home", "mtu", "1300"]),
        0,
        "Tunnel home is active on ppp1.",
    );
    assert_says(&run(&lab, "poff", &[]), 1, "More than one");
    assert_says(&run(&lab, "poff", &["work"]), 0, "Tunnel work is down.");
    assert_says(&run(&lab, "poff", &["-a"]), 0, "Tunnel home is down.");
    assert_says(&run(&lab, "pptpsetup", &["--delete", "home"]), 0, "");
    assert_says(
        &run(&lab, "pptpsetup", &["--delete", "home"]),
        1,
        "not found",
    );
    assert_says(&run(&lab, "pptpsetup", &[]), 1, "too few arguments.");
    let secrets = std::fs::read_to_string(lab.dir.path().join("ppp/chap-secrets"));
    assert_eq!(
        secrets.expect("a file"),
        "# added by pptpsetup for work\nmia work mia123 *\n"
    );
}

/// poff's options are pppd's signals: HUP, USR1 and USR2.
#[test]
fn poff_hangs_up_toggles_the_log_and_negotiates_compression_again() {
    let Some((lab, _server)) = started() else {
        return;
    };
    set_up(&lab, "work");
    for option in ["-r", "-d", "-c"] {
        assert_says(&run(&lab, "poff", &[option]), 1, "None signalled.");
    }
    let log = lab.dir.path().join("work.log");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    let wait_for = |what: &str, count: usize| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while read().matches(what).count() < count {
            assert!(Instant::now() < deadline, "no {what:?} in {}", read());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let logged = ["logfile", log.to_str().expect("a path"), "holdoff", "0"];
    let echo = ["persist", "lcp-echo-interval", "1"];
    let words = [&["work", "updetach"][..], &logged, &echo].concat();
    assert_says(&run(&lab, "pon", &words), 0, "Tunnel work is active on");
    assert!(!read().contains("sent [LCP"), "{}", read());
    let poff = |arguments: &[&str]| assert_says(&run(&lab, "poff", arguments), 0, "");
    poff(&["-d", "work"]);
    wait_for("sent [LCP EchoReq", 1);
    poff(&["-c"]);
    wait_for("sent [CCP ResetReq", 1);
    poff(&["-r", "work"]);
    wait_for("local  IP address", 2);
    assert!(read().contains("Hangup (SIGHUP)"), "{}", read());
    poff(&["-d"]);
    // As pppd, one that does not persist ends at HUP.
    assert_says(&run(&lab, "poff", &["work"]), 0, "Tunnel work is down.");
    assert_says(&run(&lab, "pon", &["work"]), 0, "Tunnel work is active on");
    poff(&["-r"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !String::from_utf8_lossy(&run(&lab, "poff", &["-d"]).stdout).contains("No tunnel") {
        assert!(Instant::now() < deadline, "it has not ended");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// NetworkManager's connection becomes a tunnel that comes up, with its secret and its route; the
/// same file twice does not.
#[test]
fn a_connection_of_network_manager_comes_up_after_its_import() {
    let Some((lab, _server)) = started() else {
        return;
    };
    let text = format!(
        "[connection]\nid=Head office\ntype=vpn\n\n[vpn]\ngateway={SERVER}\nuser=mia\n\
         password-flags=0\nrequire-mppe-128=yes\nrefuse-eap=yes\n\
         service-type=org.freedesktop.NetworkManager.pptp\n\n[vpn-secrets]\npassword=mia123\n\n\
         [ipv4]\nmethod=auto\nnever-default=true\nroute1=192.168.2.0/24\ndns=10.0.0.1;\n"
    );
    let file = lab
        .write("office.nmconnection", &text)
        .display()
        .to_string();
    let ours = |code, words: &str, arguments: &[&str]| {
        assert_says(&lab.run(Side::Client, arguments), code, words);
    };
    ours(1, "10 honoured, 2 harmless, 1 refused", &["check", &file]);
    ours(1, "ipv4.dns", &["check", &file, "--refused"]);
    ours(
        0,
        "ipv4.dns: set it for the time",
        &["tunnel", "import", &file],
    );
    ours(1, "already exists", &["tunnel", "import", &file]);
    ours(0, "0 refused", &["check", "Head-office"]);
    ours(0, "Tunnel Head-office is active on", &["up", "Head-office"]);
    let routes = lab.routes(Side::Client);
    assert!(routes.contains("192.168.2.0/24 dev ppp0"), "{routes}");
    assert!(!routes.contains("default"), "{routes}");
    ours(0, "is down", &["down", "Head-office"]);
    // One that keeps its password elsewhere, under another name.
    let text = text
        .replace("flags=0", "flags=1")
        .replace("password=mia123\n", "");
    lab.write("office.nmconnection", &text);
    let import = ["tunnel", "import", &file, "--name", "branch", "--default"];
    ours(0, "pptp-fast secret add 'mia' 'branch'", &import);
    let secrets = std::fs::read_to_string(lab.dir.path().join("ppp/chap-secrets"));
    assert_eq!(secrets.expect("a file"), "mia\tHead-office\tmia123\n");
}
