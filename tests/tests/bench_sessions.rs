//! `pptp-fast bench sessions` counts right what comes up, what fails and why, and what is lost.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sim::lab::{binary, ready};

fn command(arguments: &str) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["bench", "sessions", "--json"])
        .args(arguments.split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The report, and whether the exit status said that all was well.
fn parse(output: &Output) -> (Value, bool) {
    let words = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}; it says: {words}"));
    (report, output.status.success())
}

fn bench(arguments: &str) -> (Value, bool) {
    let output = command(arguments).output().expect("the program runs");
    parse(&output)
}

#[test]
fn fifty_tunnels_come_up_and_are_counted() {
    if !ready() {
        return;
    }
    let (report, is_well) = bench("--count 50 --hold 1 --sources 10");
    assert!(is_well, "{report}");
    assert_eq!(report["established"], 50);
    assert_eq!((&report["failed"], &report["lost"]), (&0.into(), &0.into()));
    assert!(
        report["logins_per_s"].as_f64().is_some_and(|it| it > 1.0),
        "{report}"
    );
    assert!(report["server_bytes_per_session"].is_u64(), "{report}");
    for phase in ["tcp", "control", "lcp", "auth", "ccp", "ipcp", "total"] {
        let phase = &report["phases_ms"][phase];
        assert!(phase["p50"].as_f64() <= phase["max"].as_f64(), "{report}");
    }
}

#[test]
fn a_wrong_password_is_named_as_the_cause() {
    if !ready() {
        return;
    }
    let (report, is_well) = bench("--count 20 --hold 0 --password wrong");
    assert!(!is_well);
    assert_eq!(
        (&report["established"], &report["failed"]),
        (&0.into(), &20.into())
    );
    let cause = &report["failures"]["authentication_failed"];
    assert_eq!(cause["count"], 20, "{report}");
    assert!(
        cause["message"]
            .as_str()
            .is_some_and(|it| it.contains("password")),
        "{report}"
    );
}

#[test]
fn every_profile_comes_up() {
    if !ready() {
        return;
    }
    for profile in ["windows", "mikrotik", "pptp-linux", "pptp-fast"] {
        let (report, is_well) = bench(&format!("--count 5 --hold 0 --profile {profile}"));
        assert!(is_well && report["established"] == 5, "{profile}: {report}");
    }
}

#[test]
fn a_server_that_is_killed_loses_its_tunnels_and_gets_no_more() {
    if !ready() {
        return;
    }
    let child = command("--count 60 --rate 30 --hold 1")
        .spawn()
        .expect("the program runs");
    let server = child_of(child.id());
    std::thread::sleep(Duration::from_millis(1500));
    kill(server, Signal::SIGKILL).expect("the server runs");
    let output = child.wait_with_output().expect("the program ends");
    let (report, is_well) = parse(&output);
    let count = |name: &str| report[name].as_u64().unwrap_or(0);
    let (established, failed, lost) = (count("established"), count("failed"), count("lost"));
    assert!(!is_well);
    assert!(established > 0 && failed > 0, "{report}");
    assert_eq!(established + failed, 60, "{report}");
    assert_eq!(lost, established, "{report}");
    assert!(
        report["failures"]["unreachable"]["count"].is_u64(),
        "{report}"
    );
    assert!(
        report["losses"]["control_lost"]["count"].is_u64(),
        "{report}"
    );
}

/// The first process that this one has started, as soon as it listens.
fn child_of(pid: u32) -> Pid {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let children = std::fs::read_to_string(&path).unwrap_or_default();
        let first = children.split_whitespace().next();
        if let Some(child) = first.and_then(|it| it.parse().ok()) {
            return Pid::from_raw(child);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it starts no server");
}

#[test]
fn packets_and_streams_flow_through_all_tunnels_and_loss_shows() {
    if !ready() {
        return;
    }
    let (report, is_well) = bench("--count 10 --hold 1 --traffic udp --packets-per-s 500");
    assert!(is_well, "{report}");
    let traffic = |report: &Value, name: &str| report["traffic"][name].as_f64().unwrap_or(-1.0);
    assert!(traffic(&report, "came_back") > 400.0, "{report}");
    assert!(traffic(&report, "lost") < 50.0, "{report}");

    let arguments = "--count 3 --hold 1 --traffic ping --packets-per-s 2000 --loss 3";
    let (report, _) = bench(arguments);
    let (sent, lost) = (traffic(&report, "sent"), traffic(&report, "lost"));
    // Both ways: 6 %.
    assert!(lost > sent * 0.03 && lost < sent * 0.1, "{report}");

    let (report, is_well) = bench("--count 10 --hold 1 --traffic tcp");
    assert!(is_well, "{report}");
    assert_eq!(
        (&report["traffic"]["streams"], &report["traffic"]["failed"]),
        (&10.into(), &0.into())
    );
    assert!(traffic(&report, "mbps_min") > 0.0, "{report}");
}
