//! packaging/cluster works as it says: three of our servers behind one address, with a balancer by
//! nftables or by a resilient group of next hops, and one pool in FreeRADIUS' database.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sim::cluster::{Cluster, PIN_S, POOL, Place, cluster_ready, user};
use sim::lab::Running;

const NODES: [u8; 3] = [1, 2, 3];

/// A cluster that runs. What comes first is ended first.
struct Started {
    clients: BTreeMap<String, Running>,
    balancer: Running,
    servers: BTreeMap<u8, Running>,
    _radius: Running,
    cluster: Cluster,
}

impl Started {
    /// With a client for each last octet of an address, all of whom have their tunnels.
    fn new(settings: &[(&str, &str)], octets: &[u8]) -> Option<Self> {
        let mut cluster = cluster_ready().then(|| Cluster::new(3))?;
        let radius = cluster.start_radius();
        let servers = NODES.map(|id| (id, cluster.start_node(id)));
        let balancer = cluster.start_balancer(settings);
        for &octet in octets {
            cluster.add_client(octet);
        }
        let users = octets.iter().map(|&octet| user(octet));
        let clients = users.map(|user| (user.clone(), cluster.call(&user)));
        let clients = clients.collect();
        let mut started = Self {
            clients,
            balancer,
            servers: BTreeMap::from(servers),
            _radius: radius,
            cluster,
        };
        let _ = started.all_on(&NODES);
        Some(started)
    }

    /// Where everybody is, once everybody is on one of these nodes.
    #[track_caller]
    fn all_on(&mut self, nodes: &[u8]) -> BTreeMap<String, Place> {
        self.all_on_and(nodes, |_| true)
    }

    /// The same, once that holds as well.
    #[track_caller]
    fn all_on_and(
        &mut self,
        nodes: &[u8],
        holds: impl Fn(&BTreeMap<String, Place>) -> bool,
    ) -> BTreeMap<String, Place> {
        let deadline = Instant::now() + Duration::from_secs(25);
        loop {
            let places = self.cluster.places(nodes);
            if places.len() == self.clients.len() && holds(&places) {
                return places;
            }
            if Instant::now() > deadline {
                let printed = self.words_of_clients();
                panic!("on {nodes:?} are only {places:#?}\n{printed}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ends all clients: what they have printed.
    fn words_of_clients(&mut self) -> String {
        let clients = self.clients.iter_mut();
        let words = clients.map(|(user, client)| {
            client.signal(Signal::SIGKILL);
            format!("--- {user}\n{}\n", client.wait(5).1)
        });
        words.collect()
    }

    /// No address is out twice, each is one of the pool, and the database says the same.
    #[track_caller]
    fn assert_addresses_are_one_pools(&self, places: &BTreeMap<String, Place>) {
        let [first, last] = POOL.map(|end| end.parse::<Ipv4Addr>().expect("an address"));
        let mut given = BTreeSet::new();
        for (user, place) in places {
            let ip: Ipv4Addr = place.ip.parse().expect("an address");
            assert!((first..=last).contains(&ip), "{user} has {ip}");
            assert!(given.insert(ip), "{ip} is out twice: {places:#?}");
            let lease = format!("node-{}|{user}|{ip}", place.node);
            let leases = self.cluster.sql(LEASES);
            assert!(leases.contains(&lease), "no {lease} in {leases:#?}");
        }
    }

    /// Each node's clients send it both TCP and GRE from their own address, and no other node any.
    #[track_caller]
    fn assert_both_protocols_stay_together(&self, places: &BTreeMap<String, Place>) {
        for id in NODES {
            let here = places.iter().filter(|(_, place)| place.node == id);
            let mut callers: Vec<_> = here
                .map(|(user, place)| {
                    assert_eq!(place.calling, user.replace('u', "198.51.100."));
                    place.calling.clone()
                })
                .collect();
            callers.sort_unstable();
            assert_eq!(self.cluster.sources(id, "tcp"), callers, "TCP at node {id}");
            assert_eq!(self.cluster.sources(id, "gre"), callers, "GRE at node {id}");
        }
    }

    fn pings(&self, users: impl IntoIterator<Item = String>) -> BTreeMap<String, Running> {
        let start = |user: String| (user.clone(), self.cluster.start_pings(&user));
        users.into_iter().map(start).collect()
    }

    /// The balancer's next word about a node.
    #[track_caller]
    fn wait_for_node(&mut self, id: u8, state: &str) {
        let line = format!("node {id} (192.0.2.1{id}) is {state}");
        self.balancer.wait_for(&line, 10);
    }
}

const LEASES: &str = "SELECT nas, username, framedipaddress FROM pptp_pool \
                      WHERE expiry_time > strftime('%s', 'now') + 0";

fn on(places: &BTreeMap<String, Place>, node: u8) -> Vec<String> {
    let here = places.iter().filter(|(_, place)| place.node == node);
    here.map(|(user, _)| user.clone()).collect()
}

/// Ends the pings, which went on all the time: every one of them was answered.
#[track_caller]
fn assert_nothing_was_lost(pings: BTreeMap<String, Running>) {
    for (user, mut ping) in pings {
        ping.signal(Signal::SIGINT);
        let (_, printed) = ping.wait(5);
        let sequence = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok();
        let answered: BTreeSet<u64> = printed.lines().filter_map(sequence).collect();
        let sent = printed.lines().find_map(|line| {
            let (sent, _) = line.split_once(" packets transmitted")?;
            sent.parse::<u64>().ok()
        });
        let sent = sent.unwrap_or_else(|| panic!("no summary: {printed}"));
        assert!(sent > 20, "{user}: {printed}");
        // The last may still have been on its way.
        let lost: Vec<u64> = (1..sent).filter(|it| !answered.contains(it)).collect();
        assert!(lost.is_empty(), "{user} has lost {lost:?} of {sent}");
    }
}

#[test]
fn nftables_steers_around_a_node_that_drains_and_one_that_was_killed() {
    let Some(mut lab) = Started::new(&[], &[11, 12, 13, 14, 15, 16]) else {
        return;
    };
    let before = lab.all_on(&NODES);
    for id in NODES {
        assert!(!on(&before, id).is_empty(), "nobody at {id}: {before:#?}");
    }
    lab.assert_addresses_are_one_pools(&before);
    lab.assert_both_protocols_stay_together(&before);

    // Node 2 drains: who is there stays, who comes again is let in elsewhere.
    let undisturbed = lab.pings(on(&before, 1));
    let moved = on(&before, 2)[0].clone();
    let stay = lab.pings(on(&before, 2).into_iter().filter(|user| *user != moved));
    let _ = lab.cluster.operate(2, "drain");
    lab.wait_for_node(2, "draining");
    let terminate = format!("sessions terminate --user {moved}");
    let _ = lab.cluster.operate(2, &terminate);
    let places = lab.all_on_and(&NODES, |places| places[&moved].node != 2);
    lab.assert_addresses_are_one_pools(&places);
    assert_eq!(places[&moved].ip, before[&moved].ip, "its own address again");
    assert_nothing_was_lost(stay);

    // Node 2 is emptied, and ends; its clients call again.
    let _ = lab.cluster.operate(2, "sessions terminate --all");
    let (status, printed) = lab.servers.get_mut(&2).expect("node 2").wait(10);
    assert_eq!(status, 0, "{printed}");
    lab.wait_for_node(2, "down");
    let places = lab.all_on(&[1, 3]);
    lab.assert_addresses_are_one_pools(&places);

    // Node 3 is killed. What it had given is not free, until it says that it has started again.
    let killed = on(&places, 3);
    lab.servers.remove(&3).expect("node 3").signal(Signal::SIGKILL);
    lab.wait_for_node(3, "down");
    let after = lab.all_on(&[1]);
    lab.assert_addresses_are_one_pools(&after);
    let stale = |lab: &Started| {
        let leases = lab.cluster.sql(LEASES);
        leases.iter().filter(|it| it.starts_with("node-3|")).count()
    };
    assert_eq!(stale(&lab), killed.len());
    for user in &killed {
        assert_ne!(after[user].ip, places[user].ip);
    }
    lab.servers.insert(3, lab.cluster.start_node(3));
    lab.wait_for_node(3, "up");
    assert_eq!(stale(&lab), 0);

    // It is back, and takes new calls; nobody is taken from where he is.
    assert_eq!(lab.all_on(&[1]), after);
    // Once one has been silent for long enough, his address is where it was at first.
    let back = killed.iter().find(|user| before[*user].node == 3);
    let back = back.expect("one who was there first").clone();
    let client = lab.clients.get_mut(&back).expect("a client");
    client.signal(Signal::SIGTERM);
    client.wait(10);
    std::thread::sleep(Duration::from_secs(PIN_S + 1));
    lab.clients.insert(back.clone(), lab.cluster.call(&back));
    let places = lab.all_on_and(&[1, 3], |places| places.contains_key(&back));
    assert_eq!(places[&back].node, 3);
    assert_nothing_was_lost(undisturbed);
}

#[test]
fn a_resilient_group_of_next_hops_does_the_same() {
    let settings = [("MODE=nftables", "MODE=ecmp"), ("IDLE_S=120", "IDLE_S=2")];
    let Some(mut lab) = Started::new(&settings, &[21, 22, 23, 24, 25, 26]) else {
        return;
    };
    let before = lab.all_on(&NODES);
    lab.assert_addresses_are_one_pools(&before);
    lab.assert_both_protocols_stay_together(&before);
    // The kernel's hash has a seed of its own: whoever has clients may be the one that goes.
    let mut busy = NODES.into_iter().filter(|id| !on(&before, *id).is_empty());
    let drained = busy.next().expect("somebody is somewhere");
    let dead = busy.next().expect("not all at one node");
    let others: Vec<u8> = NODES.into_iter().filter(|id| *id != dead).collect();

    // The machine of a node is gone: nothing says goodbye, and its clients miss its echoes.
    let kept = before.iter().filter(|(_, place)| place.node != dead);
    let undisturbed = lab.pings(kept.map(|(user, _)| user.clone()));
    lab.cluster.ip(&format!("node{dead}"), "link set eth0 down");
    lab.servers.remove(&dead).expect("a node").signal(Signal::SIGKILL);
    lab.wait_for_node(dead, "down");
    let after = lab.all_on(&others);
    lab.assert_addresses_are_one_pools(&after);
    for user in undisturbed.keys() {
        assert_eq!(after[user], before[user]);
    }
    assert_nothing_was_lost(undisturbed);

    // A node drains: who is there stays, until he comes again.
    let last = *others.iter().find(|id| **id != drained).expect("a third");
    let moved = on(&after, drained)[0].clone();
    let undisturbed = lab.pings(after.keys().filter(|user| **user != moved).cloned());
    let _ = lab.cluster.operate(drained, "drain");
    lab.wait_for_node(drained, "draining");
    let terminate = format!("sessions terminate --user {moved}");
    let _ = lab.cluster.operate(drained, &terminate);
    let places = lab.all_on_and(&others, |places| places[&moved].node == last);
    lab.assert_addresses_are_one_pools(&places);
    assert_nothing_was_lost(undisturbed);
}
