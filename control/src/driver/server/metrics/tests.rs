//! What a scrape says, and that the dashboard asks for nothing else.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;

use super::*;
use crate::driver::admin::records::PoolRecord;
use crate::driver::server::snapshot::{General, Traffic};

const DASHBOARD: &str = include_str!("../../../../../packaging/grafana/pptp-fast.json");

fn page() -> Page {
    let workers = vec![Default::default()];
    let total = Share {
        active: 2,
        traffic: Traffic {
            sent_bytes: 84,
            ..Traffic::default()
        },
        ..Share::default()
    };
    Page {
        sources: Arc::new(Sources {
            started: Instant::now(),
            workers,
            interfaces: Vec::new(),
        }),
        general: General {
            pools: vec![PoolRecord {
                name: "default".to_owned(),
                ranges: String::new(),
                size: 10,
                used: 3,
                free: 7,
            }],
            ..General::default()
        },
        total,
        sessions: vec![SessionRecord {
            sid: "00ff".to_owned(),
            user: "m\"i\na".to_owned(),
            rx_bytes: 7,
            ..SessionRecord::default()
        }],
    }
}

fn text() -> String {
    let tally = Tally::default();
    tally.took(Phase::Lcp, Duration::from_millis(3));
    tally.log_in("accepted");
    tally.end("idle");
    tally.calls.inc();
    write(&tally, page()).unwrap()
}

/// The names of all samples.
fn names(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect()
}

#[test]
fn samples_have_their_labels_and_values() {
    let text = text();
    for line in [
        "pptp_fast_sessions{state=\"active\"} 2.0",
        "pptp_fast_sent_bytes_total 84.0",
        "pptp_fast_pool_addresses_used{pool=\"default\"} 3.0",
        "pptp_fast_logins_total{result=\"accepted\"} 1",
        "pptp_fast_setup_seconds_bucket{le=\"0.005\",phase=\"lcp\"} 1",
        "pptp_fast_dropped_packets_total{reason=\"late\"} 0.0",
        "pptp_fast_refused_total{reason=\"not_pptp\"} 0.0",
        "pptp_fast_worker_turns_total{worker=\"0\"} 0.0",
        "# TYPE pptp_fast_sessions gauge",
        "# TYPE pptp_fast_calls counter",
        "# EOF",
    ] {
        assert!(text.lines().any(|it| it == line), "no `{line}` in:\n{text}");
    }
    // A name cannot break out of its label.
    let line = text
        .lines()
        .find(|it| it.starts_with("pptp_fast_session_received_bytes_total"));
    let labels = "{session=\"00ff\",user=\"m\\\"i\\na\",peer=\"\",ip=\"\"} 7.0";
    assert!(line.unwrap().ends_with(labels), "{line:?}");
}

#[test]
fn every_query_of_the_dashboard_names_a_metric_that_exists() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let text = text();
    let names = names(&text);
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let metrics: Vec<_> = words.filter(|it| it.starts_with("pptp_fast_")).collect();
            assert!(!metrics.is_empty(), "{query}");
            for metric in metrics {
                assert!(names.contains(metric), "{metric} does not exist: {query}");
                asked.insert(metric);
            }
        }
    }
    assert!(asked.len() > 30, "{asked:?}");
}

#[test]
fn a_request_is_read_with_its_head_and_no_longer_than_that() {
    let read = |text: &str| {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text.as_bytes()).unwrap();
        drop(theirs);
        read_request(&mut ours)
    };
    let whole = "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(read(whole).as_deref(), Some("GET /metrics"));
    assert_eq!(read("GET /metrics HTTP/1.1\r\n"), None);
    assert_eq!(read(&"x".repeat(REQUEST_BYTES_MAX + 1)), None);
}
