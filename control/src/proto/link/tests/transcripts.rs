//! The negotiation of real peers, packet for packet: what pppd logged at the client must be what
//! our two ends say, up to what is random and to IPv6, which we do not speak.

use super::*;

const HOWTO: &str = include_str!("../../../../../tests/captures/mppe128-stateless.client.log");

/// Packets of one log, or of one end, with random values blanked.
fn packets<'a>(lines: impl Iterator<Item = &'a str>, direction: &str) -> Vec<String> {
    lines
        .filter(|line| line.starts_with(direction) && !line.contains("IPV6CP"))
        .map(blank)
        .collect()
}

fn blank(line: &str) -> String {
    let mut words = Vec::new();
    for word in line.split(' ') {
        let is_value = word.len() > 20 && word.starts_with('<');
        let is_chap_id = line.contains("CHAP") && word.starts_with("id=");
        words.push(if word.starts_with("magic=") || is_chap_id || is_value {
            "?"
        } else if words.last() == Some(&"<magic") {
            "?>"
        } else if word.starts_with("\"S=") {
            "\"S=?"
        } else {
            word
        });
    }
    words.join(" ")
}

/// Packets cross, so that only the order of those of one protocol is fixed.
fn of_protocol(packets: &[String], protocol: &str) -> Vec<String> {
    let named = |line: &&String| line.contains(&format!("[{protocol} "));
    packets.iter().filter(named).cloned().collect()
}

#[test]
fn the_how_tos_options_make_the_packets_that_pppd_makes() {
    let pair = Pair::new(caller(), callee()).connect();
    let until_traffic = HOWTO
        .lines()
        .take_while(|line| !line.starts_with("Terminating"));
    for direction in ["sent [", "rcvd ["] {
        let theirs = packets(until_traffic.clone(), direction);
        let ours = packets(
            pair.ends[CALLER].lines.iter().map(String::as_str),
            direction,
        );
        for protocol in ["LCP", "CHAP", "CCP", "IPCP"] {
            let (theirs, ours) = (of_protocol(&theirs, protocol), of_protocol(&ours, protocol));
            assert!(!theirs.is_empty());
            assert_eq!(ours, theirs, "{direction} {protocol}");
        }
    }
}

#[test]
fn the_how_tos_milestones_are_said_in_pppds_words() {
    let pair = Pair::new(caller(), callee()).connect();
    for line in [
        "Remote message: Access granted",
        "CHAP authentication succeeded",
        "MPPE 128-bit stateless compression enabled",
        "local  IP address 192.168.254.231",
        "remote IP address 192.168.254.230",
        "primary   DNS address 192.168.254.230",
        "secondary DNS address 192.168.254.230",
    ] {
        pair.assert_said(CALLER, line);
        let is_pppds = HOWTO.lines().any(|theirs| theirs == line);
        assert!(is_pppds || line.starts_with("Remote message"), "{line}");
    }
}
