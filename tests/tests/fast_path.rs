//! The fast path in two network namespaces: it is taken while everything is plain, and whatever
//! happens to the network around it, traffic goes on.

use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use serde_json::Value;
use sim::lab::{Lab, Running, Side, ready};

const SERVER_INNER: &str = "192.168.254.230";
const CLIENT_INNER: &str = "192.168.254.231";
const FAST: &str = "AF_XDP socket";
const PACKET: &str = "packet socket";
const RAW: &str = "raw socket";
const RING: &str = "packet ring";
const WAIT: Duration = Duration::from_secs(15);

/// A tunnel with the fast path at both ends.
struct Tunnel {
    lab: Lab,
    server: Running,
}

impl Tunnel {
    fn new(mode: &str) -> Self {
        let lab = Lab::new();
        lab.write("ppp/chap-secrets", "mia zidler mia123 *\n");
        let options = "name zidler\nrequire-mschap-v2\nrequire-mppe-128\n";
        let options = lab.write("pptpd-options", options);
        let conf = format!(
            "option {}\nlocalip {SERVER_INNER}\nremoteip {CLIENT_INNER}\n",
            options.display()
        );
        let conf = lab.write("pptpd.conf", &conf).display().to_string();
        let serve = ["serve", "--config", &conf, "--fast-path", mode];
        let mut server = lab.start(Side::Server, &serve);
        server.wait_for("Listening for PPTP", 10);
        let flags = "up --server 10.77.0.1 --user mia --remotename zidler --fast-path";
        let up: Vec<&str> = flags.split(' ').chain([mode]).collect();
        let up = lab.run(Side::Client, &up);
        assert!(up.status.success(), "{up:?}");
        Self { lab, server }
    }

    /// Runs `ip` or `tc` on one side.
    #[track_caller]
    fn run(&self, side: Side, command: &str) {
        let mut words = command.split(' ');
        let program = words.next().expect("a program");
        let output = self.lab.command(side, program).args(words).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{command}: {output:?}");
    }

    fn ping(&self, side: Side, count: u32) -> bool {
        let peer = match side {
            Side::Client => SERVER_INNER,
            Side::Server => CLIENT_INNER,
        };
        let count = count.to_string();
        let ping = self
            .lab
            .command(side, "ping")
            .args(["-c", &count, "-i", "0.01", "-W", "1", peer])
            .output();
        ping.expect("ping runs").status.success()
    }

    /// Which socket the packets of one side leave through, and why.
    fn way(&self, side: Side) -> (String, String) {
        self.status(side, "fast_path", "fast_path_reason")
    }

    /// Through what they arrive, and why.
    fn arrival(&self, side: Side) -> (String, String) {
        self.status(side, "fast_path_receive", "fast_path_receive_reason")
    }

    fn status(&self, side: Side, what: &str, why: &str) -> (String, String) {
        let status = self.lab.run(side, &["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
        let session = match side {
            Side::Client => &status["tunnels"][0],
            Side::Server => &status["server"]["sessions"][0],
        };
        let word = |key: &str| session[key].as_str().unwrap_or_default().to_owned();
        (word(what), word(why))
    }

    /// Lets packets flow both ways until those of `side` leave through `socket`, for a reason with
    /// these words.
    #[track_caller]
    fn wait_for(&self, side: Side, socket: &str, words: &str) {
        self.wait_until(socket, words, || self.way(side));
    }

    /// The same for what arrives.
    #[track_caller]
    fn wait_for_arrival(&self, side: Side, through: &str, words: &str) {
        self.wait_until(through, words, || self.arrival(side));
    }

    #[track_caller]
    fn wait_until(&self, socket: &str, words: &str, way: impl Fn() -> (String, String)) {
        let deadline = Instant::now() + WAIT;
        loop {
            self.ping(Side::Server, 1);
            self.ping(Side::Client, 1);
            let way = way();
            if way.0 == socket && way.1.contains(words) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not {socket} with `{words}`: {way:?}"
            );
        }
    }

    #[track_caller]
    fn assert_traffic(&self) {
        assert!(self.ping(Side::Client, 5), "no ping from the client");
        assert!(self.ping(Side::Server, 5), "no ping from the server");
    }

    fn interface(&self, side: Side, name: &str) -> String {
        let name = name.to_owned();
        let index = self.lab.in_namespace(side, move || {
            nix::net::if_::if_nametoindex(name.as_str()).expect("there is such an interface")
        });
        format!("on interface {}", index.join().expect("no panic"))
    }

    /// AF_XDP sockets in a namespace: the kernel counts the sockets of each kind.
    fn xdp_sockets(&self, side: Side) -> u32 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/protocols").expect("a table");
        let table = self.lab.in_namespace(side, read).join().expect("no panic");
        let line = table.lines().find(|line| line.starts_with("XDP "));
        let count = line.and_then(|line| line.split_whitespace().nth(2));
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    /// IPv4 packets that the client's IP output has seen.
    fn ip_output(&self) -> u64 {
        self.ip_counter("OutRequests")
    }

    /// IPv4 packets that the client's IP input has given to someone.
    fn ip_input(&self) -> u64 {
        self.ip_counter("InDelivers")
    }

    fn ip_counter(&self, name: &'static str) -> u64 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp").expect("a table");
        let table = self.lab.in_namespace(Side::Client, read).join();
        let table = table.expect("no panic");
        let mut lines = table.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let mut columns = names.split(' ').zip(values.split(' '));
        let column = columns.find(|(column, _)| *column == name);
        column.expect("a column").1.parse().expect("a number")
    }

    /// Ends both ends; nothing of the fast path is left.
    fn end(mut self) {
        let down = self.lab.run(Side::Client, &["down", "10.77.0.1"]);
        assert!(down.status.success(), "{down:?}");
        self.server.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(self.server.wait(15).0, 0);
        for side in [Side::Client, Side::Server] {
            let read = || std::fs::read_to_string("/proc/thread-self/net/packet").expect("a table");
            let table = self.lab.in_namespace(side, read).join().expect("no panic");
            assert_eq!(table.lines().count(), 1, "packet sockets remain: {table}");
            assert_eq!(tables(&self.lab, side), 0, "tables of nftables remain");
            let deadline = Instant::now() + WAIT;
            while self.xdp_sockets(side) > 0 {
                assert!(Instant::now() < deadline, "AF_XDP sockets remain");
            }
        }
    }
}

/// Tables of nftables on one side.
fn tables(lab: &Lab, side: Side) -> usize {
    lab.in_namespace(side, count_tables)
        .join()
        .expect("no panic")
}

/// IP output and input see one packet for each inner ping, and with the raw socket the GRE packet
/// as well.
#[test]
fn packets_pass_the_ip_stack_by_only_where_it_is_asked_for() {
    if !ready() {
        return;
    }
    const PINGS: u32 = 40;
    for (mode, socket, each) in [("auto", FAST, 1), ("off", RAW, 2)] {
        let tunnel = Tunnel::new(mode);
        tunnel.wait_for(Side::Client, socket, "");
        tunnel.wait_for(Side::Server, socket, "");
        let through = if mode == "auto" { RING } else { RAW };
        tunnel.wait_for_arrival(Side::Client, through, "");
        let before = tunnel.ip_output();
        assert!(tunnel.ping(Side::Client, PINGS));
        let seen = tunnel.ip_output() - before;
        let expected = u64::from(PINGS) * each;
        let before = tunnel.ip_input();
        assert!(tunnel.ping(Side::Client, PINGS));
        let received = tunnel.ip_input() - before;
        assert!(
            (expected..expected + 15).contains(&received),
            "{mode}: {received} packets received"
        );
        // A few of TCP and ICMP beside them.
        assert!(
            (expected..expected + 15).contains(&seen),
            "{mode}: {seen} packets"
        );
        tunnel.end();
    }
}

/// The peer's Ethernet address changes, its entry is deleted, the link goes down and comes back,
/// and the route moves to another interface.
#[test]
fn traffic_goes_on_when_the_next_hop_moves() {
    if !ready() {
        return;
    }
    let tunnel = Tunnel::new("auto");
    tunnel.wait_for(Side::Client, FAST, "the next hop is");
    tunnel.assert_traffic();

    let mac = "02:00:00:00:77:01";
    tunnel.run(Side::Server, &format!("ip link set outer address {mac}"));
    tunnel.wait_for(Side::Client, FAST, mac);
    tunnel.wait_for(Side::Server, FAST, "");
    tunnel.assert_traffic();

    tunnel.run(Side::Client, "ip neigh del 10.77.0.1 dev outer");
    tunnel.assert_traffic();
    tunnel.wait_for(Side::Client, FAST, mac);

    // Nobody but us uses the entry, and still it is confirmed.
    let stale = format!("ip neigh replace 10.77.0.1 lladdr {mac} dev outer nud stale");
    tunnel.run(Side::Client, &stale);
    tunnel.wait_for(Side::Client, FAST, mac);
    let entry = tunnel
        .lab
        .command(Side::Client, "ip")
        .args(["neigh"])
        .output();
    let entry = String::from_utf8(entry.expect("ip runs").stdout).expect("text");
    assert!(entry.contains(mac) && !entry.contains("STALE"), "{entry}");

    tunnel.run(Side::Client, "ip link set outer down");
    tunnel.wait_for(Side::Client, RAW, "");
    tunnel.run(Side::Client, "ip link set outer up");
    tunnel.wait_for(Side::Client, FAST, mac);
    tunnel.assert_traffic();

    tunnel.lab.join("other", ["10.78.0.2", "10.78.0.1"]);
    let other = tunnel.interface(Side::Client, "other");
    let here = "ip route add 10.77.0.1/32 dev other src 10.77.0.2";
    let there = "ip route add 10.77.0.2/32 dev other src 10.77.0.1";
    tunnel.run(Side::Client, here);
    tunnel.run(Side::Server, there);
    tunnel.wait_for(Side::Client, FAST, &other);
    tunnel.assert_traffic();
    tunnel.run(Side::Client, "ip link del other");
    tunnel.wait_for(Side::Client, FAST, &tunnel.interface(Side::Client, "outer"));
    tunnel.assert_traffic();
    tunnel.end();
}

/// Where there is no AF_XDP socket to be had the packet socket is used, and an AF_XDP socket again
/// where there is one. A worker has one for each interface that it uses, and none for others.
#[test]
fn the_packet_socket_is_used_where_there_is_no_xdp_socket() {
    if !ready() {
        return;
    }
    let tunnel = Tunnel::new("auto");
    tunnel.wait_for(Side::Client, FAST, "the next hop is");
    assert_eq!(tunnel.xdp_sockets(Side::Client), 1);
    tunnel.run(Side::Client, "ip link add over link outer type macvlan");
    tunnel.run(Side::Client, "ip link set over up");
    let route = "ip route add 10.77.0.1/32 dev over src 10.77.0.2";
    tunnel.run(Side::Client, route);
    tunnel.wait_for(Side::Client, PACKET, "interfaces of this kind have none");
    tunnel.assert_traffic();
    tunnel.run(Side::Client, "ip link del over");
    // The server has learned an Ethernet address that is gone.
    tunnel.run(Side::Server, "ip neigh flush dev outer");
    tunnel.wait_for(Side::Client, FAST, "the next hop is");
    tunnel.assert_traffic();
    assert_eq!(tunnel.xdp_sockets(Side::Client), 1);
    tunnel.end();
}

/// Whatever would have to see the packets in IP output keeps them there, as long as it is there.
#[test]
fn firewall_rules_and_shaping_keep_packets_on_the_raw_socket() {
    if !ready() {
        return;
    }
    let tunnel = Tunnel::new("auto");
    tunnel.wait_for(Side::Client, FAST, "");

    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let (loaded, is_loaded) = std::sync::mpsc::channel();
    let firewall = tunnel.lab.in_namespace(Side::Client, move || {
        let table = nftables_table();
        loaded.send(()).expect("someone waits");
        // The table goes with its socket.
        let _ = is_done.recv();
        drop(table);
    });
    is_loaded.recv().expect("it is loaded");
    tunnel.wait_for(Side::Client, RAW, "firewall");
    tunnel.assert_traffic();
    drop(done);
    firewall.join().expect("no panic");
    tunnel.wait_for(Side::Client, FAST, "");

    tunnel.run(Side::Client, "ip rule add to 10.0.0.0/8 lookup 77");
    tunnel.wait_for(Side::Client, RAW, "ip rule");
    tunnel.assert_traffic();
    tunnel.run(Side::Client, "ip rule del to 10.0.0.0/8 lookup 77");
    tunnel.wait_for(Side::Client, FAST, "");

    let shape = "tc qdisc add dev outer root tbf rate 100mbit burst 100k latency 50ms";
    tunnel.run(Side::Client, shape);
    tunnel.wait_for(Side::Client, RAW, "tbf");
    tunnel.assert_traffic();
    tunnel.run(Side::Client, "tc qdisc del dev outer root");
    tunnel.wait_for(Side::Client, FAST, "");

    let policy = "ip xfrm policy add src 10.9.0.0/24 dst 10.9.1.0/24 dir out action block";
    tunnel.run(Side::Client, policy);
    tunnel.wait_for(Side::Client, RAW, "IPsec");
    tunnel.run(Side::Client, "ip xfrm policy flush");
    tunnel.wait_for(Side::Client, FAST, "");
    tunnel.end();
}

/// Fragments are left to the IP stack, which puts them together: nothing is lost, and no rule drops
/// them.
#[test]
fn packets_that_arrive_in_fragments_come_through_the_raw_socket() {
    if !ready() {
        return;
    }
    let tunnel = Tunnel::new("auto");
    tunnel.wait_for_arrival(Side::Client, RING, "from outer");
    // The server's route is narrower than its tunnel: the kernel fragments there.
    let narrow = "ip route add 10.77.0.2/32 dev outer src 10.77.0.1 mtu 600";
    tunnel.run(Side::Server, narrow);
    let large = |count: &str| {
        let mut ping = tunnel.lab.command(Side::Client, "ping");
        ping.args(["-c", count, "-i", "0.01", "-W", "1", "-s", "1200"]);
        let output = ping.arg(SERVER_INNER).output().expect("ping runs");
        assert!(output.status.success(), "{output:?}");
    };
    large("1");
    let before = tunnel.ip_counter("ReasmOKs");
    large("20");
    assert_eq!(tunnel.ip_counter("ReasmOKs") - before, 20);
    assert_eq!(tunnel.arrival(Side::Client).0, RING);
    tunnel.end();
}

/// The interface goes down and up, its address changes, and a firewall appears and vanishes.
#[test]
fn packets_arrive_whatever_becomes_of_the_interface_and_the_firewall() {
    if !ready() {
        return;
    }
    let tunnel = Tunnel::new("auto");
    tunnel.wait_for_arrival(Side::Client, RING, "for 10.77.0.2 from outer");
    tunnel.wait_for_arrival(Side::Server, RING, "for 10.77.0.1 from outer");
    tunnel.run(Side::Client, "ip link set outer down");
    tunnel.wait_for_arrival(Side::Client, RAW, "");
    tunnel.run(Side::Client, "ip link set outer up");
    tunnel.wait_for_arrival(Side::Client, RING, "");
    tunnel.assert_traffic();

    // Replies would be chosen another source address; the tunnel's own is still there.
    tunnel.run(Side::Client, "ip addr add 10.77.0.7/24 dev outer");
    let other = "ip route replace 10.77.0.1/32 dev outer src 10.77.0.7";
    tunnel.run(Side::Client, other);
    tunnel.wait_for_arrival(Side::Client, RING, "for 10.77.0.7");
    tunnel.run(Side::Client, "ip route del 10.77.0.1/32 dev outer");
    tunnel.run(Side::Client, "ip addr del 10.77.0.7/24 dev outer");
    tunnel.wait_for_arrival(Side::Client, RING, "for 10.77.0.2");
    tunnel.assert_traffic();

    assert_eq!(tables(&tunnel.lab, Side::Client), 1);
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let firewall = tunnel.lab.in_namespace(Side::Client, move || {
        let table = nftables_table();
        let _ = is_done.recv();
        drop(table);
    });
    tunnel.wait_for_arrival(Side::Client, RAW, "firewall");
    assert_eq!(tables(&tunnel.lab, Side::Client), 1, "only the firewall's");
    tunnel.assert_traffic();
    drop(done);
    firewall.join().expect("no panic");
    tunnel.wait_for_arrival(Side::Client, RING, "");
    tunnel.assert_traffic();
    tunnel.end();
}

/// However the process ends, its rule ends with it.
#[test]
fn a_killed_process_leaves_no_rule_behind() {
    if !ready() {
        return;
    }
    let mut tunnel = Tunnel::new("auto");
    tunnel.wait_for_arrival(Side::Server, RING, "");
    assert_eq!(tables(&tunnel.lab, Side::Server), 1);
    tunnel.server.signal(nix::sys::signal::Signal::SIGKILL);
    tunnel.server.wait(15);
    let deadline = Instant::now() + WAIT;
    while tables(&tunnel.lab, Side::Server) > 0 {
        assert!(Instant::now() < deadline, "the table remains");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Lists the tables of nftables of all families and counts them.
fn count_tables() -> usize {
    // Length 20, NFT_MSG_GETTABLE, REQUEST | DUMP, sequence and port 0, `nfgenmsg` of zeros.
    const DONE: u16 = 3;
    let mut question = vec![20, 0, 0, 0, 1, 10, 1, 3];
    question.resize(20, 0);
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .expect("netlink");
    use std::os::fd::AsRawFd;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &question, &kernel, MsgFlags::empty()).expect("it is sent");
    let mut count = 0;
    loop {
        let mut answer = [0; 8192];
        let len = nix::unistd::read(&netlink, &mut answer).expect("an answer");
        let mut rest = &answer[..len];
        while !rest.is_empty() {
            if u16::from_ne_bytes([rest[4], rest[5]]) == DONE {
                return count;
            }
            count += 1;
            let entry = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            rest = &rest[entry.next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// Makes an empty table of nftables that lives as long as the socket (`NFT_TABLE_F_OWNER`): what
/// `nft` does, which need not be installed.
fn nftables_table() -> std::os::fd::OwnedFd {
    const BATCH_BEGIN: u16 = 0x10;
    const BATCH_END: u16 = 0x11;
    const NEW_TABLE: u16 = 10 << 8;
    const REQUEST_CREATE_ACK: u16 = 0x1 | 0x400 | 0x4;
    let message = |kind: u16, flags: u16, family: u8, resource: u16, payload: &[u8]| {
        let mut octets = Vec::new();
        octets.extend((20 + payload.len() as u32).to_ne_bytes());
        octets.extend(kind.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.extend([1, 0, 0, 0, 0, 0, 0, 0, family, 0]);
        octets.extend(resource.to_be_bytes());
        octets.extend(payload);
        octets
    };
    // Name "test", then flags OWNER.
    let table = [
        &[9, 0, 1, 0, b't', b'e', b's', b't', 0, 0, 0, 0][..],
        &[8, 0, 2, 0, 0, 0, 0, 2],
    ]
    .concat();
    let batch = [
        message(BATCH_BEGIN, 1, 0, 10, &[]),
        message(NEW_TABLE, REQUEST_CREATE_ACK, 2, 0, &table),
        message(BATCH_END, 1, 0, 10, &[]),
    ]
    .concat();
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .expect("netlink");
    use std::os::fd::AsRawFd;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &batch, &kernel, MsgFlags::empty()).expect("it is sent");
    let mut answer = [0; 256];
    let len = nix::unistd::read(&netlink, &mut answer).expect("an answer");
    // An acknowledgment is an error of the number 0.
    assert_eq!(answer[16..20], [0; 4], "{:?}", &answer[..len]);
    netlink
}
