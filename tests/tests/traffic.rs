//! What a server does about traffic: rates and quotas of sessions, clients that reach each other or
//! do not, forged sources, proxy ARP, forwarding and address translation; and that nothing of it
//! remains.

use std::net::UdpSocket;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use dataplane::rate_limit::burst_bytes;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use sim::freeradius::{FreeRadius, SECRET, freeradius_ready, radclient, value};
use sim::lab::{Lab, Running, Side, binary, ready, wait_until};
use sim::tunnel::{assert_pings, pings, serve, text};

/// The server's end of every tunnel.
const LOCAL: &str = "10.50.0.1";
/// The clients'.
const MIA: &str = "10.50.0.2";
const BOB: &str = "10.50.0.3";
const CONFIG: &str = r#"
[auth]
name = "zidler"
chap_secrets = "server-secrets"
require = ["mschap-v2"]
[ppp]
ipv6 = false
proxy_arp = @PROXY_ARP@
[pool]
local = "10.50.0.1"
remote = "10.50.0.2-5"
[dataplane]
workers = 2
"#;

/// Writes the files of both ends. `rates` is the fifth column of mia's secret.
fn configure(lab: &Lab, rates: &str, proxy_arp: bool, more: &str) -> String {
    let secrets = format!("mia * mia123 {MIA} {rates}\nbob * bob123 {BOB}\n");
    lab.write("ppp/server-secrets", &secrets);
    let mut client_secrets = String::new();
    for user in ["mia", "bob", "ron", "sid"] {
        client_secrets.push_str(&format!("{user} zidler {user}123 *\n"));
        let options = format!("name {user}\nnoauth\nrequire-mppe-128\nnoipv6\n");
        let options = lab.write(&format!("ppp/options.{user}"), &options);
        for server in ["10.77.0.1", "10.78.0.1"] {
            let peer = format!(
                "# Server IP: {server}\nremotename zidler\nfile {}\n",
                options.display()
            );
            let last = server.rsplit('.').nth(2).unwrap_or_default();
            lab.write(&format!("ppp/peers/{user}-{last}"), &peer);
        }
    }
    lab.write("ppp/chap-secrets", &client_secrets);
    let config = CONFIG.replace("@PROXY_ARP@", &proxy_arp.to_string());
    let config = lab.write("server.toml", &format!("{config}{more}"));
    config.display().to_string()
}

fn end(mut server: Running) {
    server.signal(Signal::SIGTERM);
    let (status, printed) = server.wait(15);
    assert_eq!(status, 0, "{printed}");
}

/// Brings a tunnel of the lab's client up, in the background.
#[track_caller]
fn up(lab: &Lab, user: &str) {
    let up = lab.run(Side::Client, &["up", &format!("{user}-77")]);
    assert_eq!(up.status.code(), Some(0), "{}", text(&up));
}

#[track_caller]
fn down(lab: &Lab, user: &str) {
    let down = lab.run(Side::Client, &["down", &format!("{user}-77")]);
    assert!(down.status.success(), "{}", text(&down));
}

/// A namespace more, joined to the server's by an interface of one name at both ends.
struct Place(String);

impl Place {
    fn join(lab: &Lab, interface: &str, here: &str, there: &str) -> Self {
        let place = Self(format!(
            "{interface}-{}-{}",
            std::process::id(),
            lab_name(lab)
        ));
        place.ip_alone(&["netns", "add", &place.0]);
        let name = &place.0;
        let add = format!("link add {interface} type veth peer name {interface} netns {name}");
        lab.ip(Side::Server, &add);
        lab.ip(
            Side::Server,
            &format!("address add {here}/24 dev {interface}"),
        );
        lab.ip(Side::Server, &format!("link set {interface} up"));
        place.ip(&format!("address add {there}/24 dev {interface}"));
        place.ip(&format!("link set {interface} up"));
        place.ip("link set lo up");
        place
    }

    fn ip(&self, words: &str) {
        let mut arguments = vec!["-n", self.0.as_str()];
        arguments.extend(words.split(' '));
        self.ip_alone(&arguments);
    }

    fn ip_alone(&self, arguments: &[&str]) {
        let output = Command::new("ip").args(arguments).output();
        let output = output.expect("ip runs");
        assert!(output.status.success(), "{}: {}", self.0, text(&output));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    fn pings(&self, address: &str) -> bool {
        let mut ping = self.command("ping");
        let ping = ping.args(["-c1", "-W1", address]).output();
        ping.expect("ping starts").status.success()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Something that no other lab of this process has.
fn lab_name(lab: &Lab) -> String {
    let path = lab.dir.path().file_name().unwrap_or_default();
    path.to_string_lossy().trim_start_matches('.').to_owned()
}

/// What a program prints on the server's side.
#[track_caller]
fn there(lab: &Lab, words: &str) -> String {
    let mut words = words.split(' ');
    let mut command = lab.command(Side::Server, words.next().unwrap_or_default());
    let output: Output = command.args(words).output().expect("the program starts");
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

#[track_caller]
fn json(lab: &Lab, words: &str) -> Value {
    let output = lab.run(Side::Server, &words.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{words}: {}", text(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn drops(lab: &Lab, reason: &str) -> u64 {
    json(lab, "status --json")["server"]["drops"][reason]
        .as_u64()
        .unwrap_or(0)
}

/// The column of the only session.
fn rate_limit(lab: &Lab) -> String {
    let listed = json(lab, "sessions list --json --columns rate-limit");
    let cell = &listed["sessions"][0]["rate-limit"];
    cell.as_str().unwrap_or_default().to_owned()
}

const PORT: u16 = 4_000;
/// Octets of an IP packet with one datagram, and of the datagram.
const PACKET: usize = 1_228;
const DATAGRAM: usize = PACKET - 28;
/// Until the burst is used up.
const RUN_UP: Duration = Duration::from_millis(600);
const WINDOW: Duration = Duration::from_millis(1_500);

/// Offered, in packets a second: about 20 Mbit/s.
const OFFERED: f64 = 2_000.0;

/// Sends more through the tunnel of a client than may pass; what arrives of it in a window, as bits
/// a second of IP packets.
fn received_bps(lab: &Lab, from: (Side, &'static str), to: (Side, &'static str)) -> f64 {
    let sender = lab.in_namespace(from.0, move || {
        let socket = UdpSocket::bind((from.1, 0)).expect("an address of the tunnel");
        let (begun, mut sent) = (Instant::now(), 0.0);
        while begun.elapsed() < RUN_UP + WINDOW + Duration::from_millis(300) {
            // What a busy machine has kept this thread from sending is made up for.
            while sent < begun.elapsed().as_secs_f64() * OFFERED {
                let _ = socket.send_to(&[7; DATAGRAM], (to.1, PORT));
                sent += 1.0;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let receiver = lab.in_namespace(to.0, move || {
        let socket = UdpSocket::bind((to.1, PORT)).expect("an address of the tunnel");
        let timeout = Some(Duration::from_millis(50));
        socket.set_read_timeout(timeout).expect("a time-out");
        // What came before the window does not wait for it.
        setsockopt(&socket, sockopt::RcvBuf, &32_768).expect("a small queue");
        let begun = Instant::now();
        let (mut packets, mut octets) = (0, [0; 2_000]);
        while begun.elapsed() < RUN_UP + WINDOW {
            let arrived = socket.recv(&mut octets).is_ok();
            packets += u32::from(arrived && begun.elapsed() > RUN_UP);
        }
        f64::from(packets) * PACKET as f64 * 8.0 / WINDOW.as_secs_f64()
    });
    sender.join().expect("the sender ends");
    receiver.join().expect("the receiver ends")
}

/// The rate is kept: exceeded by no more than a burst, and reached in one of three tries, since a
/// machine that is busy with other things may carry less. The exact rate is proved with a given
/// clock, where the bucket is.
#[track_caller]
fn assert_limited(lab: &Lab, from: (Side, &'static str), to: (Side, &'static str), due_bps: f64) {
    let mut ratios = Vec::new();
    while ratios.len() < 3 && ratios.last().is_none_or(|ratio| *ratio < 0.7) {
        let ratio = received_bps(lab, from, to) / due_bps;
        // After a pause of this machine's, a burst passes within the window.
        let burst_bits = burst_bytes(due_bps as u64) as f64 * 8.0;
        let most = 1.1 + burst_bits / (due_bps * WINDOW.as_secs_f64());
        assert!(ratio < most, "{ratio} times {due_bps} bit/s");
        ratios.push(ratio);
    }
    let reached = ratios.last().is_some_and(|ratio| *ratio >= 0.7);
    assert!(reached, "{ratios:?} times {due_bps} bit/s");
}

/// The fifth column of chap-secrets limits each direction for itself; what is more is dropped and
/// counted; a packet from an address that is not the client's is dropped, too.
#[test]
fn a_secrets_fifth_column_limits_both_directions() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let config = configure(&lab, "4000/2500", false, "");
    let mut server = serve(&lab, &config);
    up(&lab, "mia");
    server.wait_for("rate limit 4000/2500 kbit/s (down/up)", 5);
    assert_eq!(rate_limit(&lab), "4000/2500");
    let (server_end, client_end) = ((Side::Server, LOCAL), (Side::Client, MIA));
    assert_limited(&lab, server_end, client_end, 4_000_000.0);
    assert_limited(&lab, client_end, server_end, 2_500_000.0);
    assert!(drops(&lab, "rate_limited") > 100);
    // The tunnel carries on; so do echoes of LCP.
    std::thread::sleep(Duration::from_millis(100));
    assert_pings(&lab, Side::Client, LOCAL);

    assert_eq!(drops(&lab, "inner_source"), 0);
    lab.ip(Side::Client, "address add 10.66.0.9/32 dev ppp0");
    let mut forged = lab.command(Side::Client, "ping");
    let forged = forged.args(["-c1", "-W1", "-I", "10.66.0.9", LOCAL]);
    assert!(!forged.status().expect("ping starts").success());
    assert!(drops(&lab, "inner_source") > 0);
    end(server);
}

/// A server that asks a freeradius, and obeys it.
const BY_RADIUS: &str = "[radius]\n[[radius.servers]]\naddress = \"127.0.0.1\"\n\
    secret_file = \"radius-secret\"\n[radius.dynamic]\nlisten = \"127.0.0.1:3799\"\n\
    clients = [{ address = \"127.0.0.1\", secret_file = \"radius-secret\" }]\n";

/// RouterOS' rates of RADIUS limit a session, a CoA-Request changes them, one without sense is
/// refused, and who has spent its quota is gone, with the cause in accounting.
#[test]
fn radius_sets_changes_and_ends_what_a_session_carries() {
    if !freeradius_ready() {
        return;
    }
    let lab = Lab::new();
    let radius = FreeRadius::start(&lab, "127.0.0.1");
    lab.write("ppp/radius-secret", &format!("{SECRET}\n"));
    let config = configure(&lab, "", false, BY_RADIUS);
    let mut server = serve(&lab, &config);
    up(&lab, "ron");
    // rx/tx of the router: 512k from the client, 1M to it.
    let line = server.wait_for("rate limit 1000/512 kbit/s (down/up)", 5);
    assert!(
        line.contains("quota 12884901888 octets both ways"),
        "{line}"
    );
    assert_eq!(rate_limit(&lab), "1000/512");
    let change = |attributes: &str| {
        let request = format!("User-Name = \"ron\"\n{attributes}");
        radclient(&lab, "coa", &request)
    };
    let refused = change("Mikrotik-Rate-Limit = \"fast\"");
    assert!(refused.contains("Invalid-Attribute-Value"), "{refused}");
    assert_eq!(rate_limit(&lab), "1000/512");
    let changed = change("Filter-Id = \"4000/2000\"");
    assert!(changed.contains("CoA-ACK"), "{changed}");
    assert_eq!(rate_limit(&lab), "4000/2000");
    let client_end = (Side::Client, "10.50.0.4");
    assert_limited(&lab, (Side::Server, LOCAL), client_end, 4_000_000.0);
    let spent = change("Mikrotik-Total-Limit = 100000");
    assert!(spent.contains("CoA-ACK"), "{spent}");
    assert!(pings(&lab, Side::Client, LOCAL).is_err());
    server.wait_for("ended: Traffic limit has been reached", 10);
    let stop = radius.record(&["Acct-Status-Type = Stop"], 10);
    assert_eq!(value(&stop, "Acct-Terminate-Cause"), Some("NAS-Request"));
    assert!(drops(&lab, "quota_spent") > 0);
    end(server);
}

/// The same in Cisco's words, of which each pair is about one direction; pairs about other things
/// cannot be changed.
#[test]
fn pairs_of_cisco_set_and_change_rates() {
    if !freeradius_ready() {
        return;
    }
    let lab = Lab::new();
    let _radius = FreeRadius::start(&lab, "127.0.0.1");
    lab.write("ppp/radius-secret", &format!("{SECRET}\n"));
    let config = configure(&lab, "", false, BY_RADIUS);
    let mut server = serve(&lab, &config);
    up(&lab, "sid");
    server.wait_for("rate limit 8192/2000 kbit/s (down/up)", 5);
    let change = |pair: &str| {
        let request = format!("User-Name = \"sid\"\nCisco-AVPair = \"{pair}\"");
        radclient(&lab, "coa", &request)
    };
    let refused = change("lcp:interface-config#1=rate-limit output fast");
    assert!(refused.contains("Invalid-Attribute-Value"), "{refused}");
    let refused = change("shell:priv-lvl=15");
    assert!(refused.contains("Unsupported-Attribute"), "{refused}");
    assert_eq!(rate_limit(&lab), "8192/2000");
    let changed = change("lcp:interface-config#1=rate-limit output 4096000 4096 4096");
    assert!(changed.contains("CoA-ACK"), "{changed}");
    assert_eq!(rate_limit(&lab), "4096/0");
    assert_pings(&lab, Side::Client, LOCAL);
    end(server);
}

/// With forwarding, clients reach each other unless they are not to; both reach the server. The
/// switch is as before in the end.
#[test]
fn clients_reach_each_other_unless_they_are_not_to() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let place = Place::join(&lab, "bobs", "10.78.0.1", "10.78.0.2");
    let forwarding = || there(&lab, "cat /proc/sys/net/ipv4/ip_forward");
    there(&lab, "sysctl -q -w net.ipv4.ip_forward=0");
    for (more, reach) in [
        ("[traffic]\nforwarding = true\n", true),
        (
            "[traffic]\nforwarding = true\nclient_to_client = false\n",
            false,
        ),
    ] {
        let config = configure(&lab, "", false, more);
        let server = serve(&lab, &config);
        assert_eq!(forwarding().trim(), "1");
        up(&lab, "mia");
        let mut bob = place.command(&binary().display().to_string());
        bob.args(["up", "bob-78", "-f"])
            .env("PPPDIR", lab.dir.path().join("ppp"))
            .env("PPTP_FAST_RUN_DIR", lab.dir.path().join("run-bob"));
        let mut bob = Running::start(&mut bob);
        bob.wait_for("is active", 15);
        lab.ip(Side::Client, "route replace 10.50.0.0/24 dev ppp0");
        place.ip("route replace 10.50.0.0/24 dev ppp0");
        assert_pings(&lab, Side::Client, LOCAL);
        assert!(place.pings(LOCAL));
        assert_eq!(pings(&lab, Side::Client, BOB).is_ok(), reach, "{more}");
        assert_eq!(place.pings(MIA), reach, "{more}");
        bob.signal(Signal::SIGTERM);
        bob.wait(15);
        down(&lab, "mia");
        end(server);
        assert_eq!(forwarding().trim(), "0");
        assert_eq!(there(&lab, "nft list tables"), "");
    }
}

/// Neighbours on the local network find a client as long as its tunnel stands; what a killed server
/// leaves behind, the next one removes, and it leaves alone what is not its own.
#[test]
fn arp_is_answered_for_clients_as_long_as_they_are_there() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    let neighbour = Place::join(&lab, "lan0", "10.50.0.254", "10.50.0.100");
    there(&lab, "ip neigh add proxy 10.50.0.5 dev lan0");
    let proxies = || there(&lab, "ip neigh show proxy");
    let config = configure(&lab, "", true, "[traffic]\nforwarding = true\n");
    let mut server = serve(&lab, &config);
    up(&lab, "mia");
    server.wait_for("found interface lan0 for proxy arp", 5);
    lab.ip(Side::Client, "route replace 10.50.0.0/24 dev ppp0");
    wait_until("the neighbour finds the client", 10, || {
        neighbour.pings(MIA)
    });
    assert!(proxies().contains(MIA), "{}", proxies());
    down(&lab, "mia");
    wait_until("it is forgotten", 10, || !proxies().contains(MIA));
    up(&lab, "mia");
    wait_until("it is there again", 10, || proxies().contains(MIA));
    server.signal(Signal::SIGKILL);
    server.wait(10);
    assert!(proxies().contains(MIA), "nobody could remove it");
    let _ = lab.run(Side::Client, &["down", "mia-77"]);
    let mut server = serve(&lab, &config);
    wait_until("the next start removes it", 10, || !proxies().contains(MIA));
    up(&lab, "mia");
    server.wait_for("found interface lan0 for proxy arp", 5);
    end(server);
    let rest = proxies();
    assert!(!rest.contains(MIA) && rest.contains("10.50.0.5"), "{rest}");
}

/// A client reaches a host outside that knows no way back but to the server. Nothing of it remains,
/// neither after an end in order nor when the server is killed; what others have set stays.
#[test]
fn clients_leave_with_the_servers_address_and_nothing_of_it_remains() {
    if !ready() {
        return;
    }
    const OUTSIDE: &str = "203.0.113.2";
    let lab = Lab::new();
    let _outside = Place::join(&lab, "wan0", "203.0.113.1", OUTSIDE);
    there(&lab, "sysctl -q -w net.ipv4.ip_forward=0");
    there(&lab, "nft add table inet others");
    let tables = || there(&lab, "nft list tables");
    let others = "table inet others\n";
    let forwarding = || there(&lab, "cat /proc/sys/net/ipv4/ip_forward");
    let reaches = || {
        up(&lab, "mia");
        lab.ip(Side::Client, "route replace 203.0.113.0/24 dev ppp0");
        pings(&lab, Side::Client, OUTSIDE)
    };
    let plain = configure(&lab, "", false, "[traffic]\nforwarding = true\n");
    let server = serve(&lab, &plain);
    assert!(reaches().is_err(), "the outside knows a way back");
    down(&lab, "mia");
    end(server);
    for nat in ["true", "\"wan0\""] {
        let config = configure(&lab, "", false, &format!("[traffic]\nnat = {nat}\n"));
        let server = serve(&lab, &config);
        assert_eq!(reaches(), Ok(()), "nat = {nat}");
        down(&lab, "mia");
        end(server);
        assert_eq!((tables().as_str(), forwarding().trim()), (others, "0"));
    }
    let config = configure(&lab, "", false, "[traffic]\nnat = \"wan0\"\n");
    let mut server = serve(&lab, &config);
    assert!(tables().contains("pptp-fast-"), "{}", tables());
    server.signal(Signal::SIGKILL);
    server.wait(10);
    wait_until("the kernel has deleted the table", 10, || {
        tables() == others
    });
    // The switch has no owner; the next start knows that it was off, whatever is asked of it.
    assert_eq!(forwarding().trim(), "1");
    let config = configure(&lab, "", false, "");
    let server = serve(&lab, &config);
    assert_eq!(forwarding().trim(), "0");
    end(server);
    let left = lab.dir.path().join("run-Server/serve-forwarding");
    assert!(!left.exists());
}
