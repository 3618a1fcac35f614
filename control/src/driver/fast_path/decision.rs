//! Whether a session's packets may leave past the host's IP output, and arrive through the packet
//! ring: a judgement of facts, which reads nothing itself.
//!
//! Packet and AF_XDP sockets pass the host's IP output and input by. So they may be used only where
//! the IP stack would do nothing but send the packet on, or give it to us: no firewall, no IPsec,
//! no policy routing, no shaping, no filters.

use std::net::Ipv4Addr;

use dataplane::program::NextHop;
use dataplane::sys::packet_ring::Place;
use rtnetlink::packet_route::neighbour::NeighbourState;
use thiserror::Error;

/// Interfaces that carry plain Ethernet frames to a neighbour, by the kernel's name of their kind.
/// Hardware has none.
const PLAIN_KINDS: [&str; 6] = ["bond", "bridge", "macvlan", "team", "veth", "vlan"];

/// Those whose drivers take a frame as it is: others read what only IP output notes beside it.
const FRAME_KINDS: [&str; 1] = ["veth"];

/// Queueing disciplines that Linux sets by itself: they shape nothing and look at nothing.
const PLAIN_QDISCS: [&str; 5] = ["noqueue", "pfifo_fast", "fq", "fq_codel", "mq"];

/// Whether there is something on this host that would see or change packets in IP output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// There is nothing.
    Absent,
    /// There is something.
    Present,
    /// The kernel did not say: its words.
    Unknown(String),
}

/// What holds for every packet of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// Routing rules beside the three that every host has.
    pub(super) rules: Finding,
    /// Tables of nftables or iptables.
    pub(super) firewall: Finding,
    /// IPsec policies.
    pub(super) policies: Finding,
}

/// What the kernel answers when it is asked for the route to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteFacts {
    /// Index of the output interface.
    pub(super) interface: u32,
    /// The router; the peer itself is the next hop when there is none.
    pub(super) gateway: Option<Ipv4Addr>,
    /// Source address that goes with it.
    pub(super) source: Ipv4Addr,
    /// Path MTU, when one is set or has been learned.
    pub(super) mtu: Option<u32>,
    /// What is special about it, in words.
    pub(super) oddity: Option<&'static str>,
}

/// An output interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkFacts {
    pub(super) name: String,
    /// The kernel's name of its kind; hardware has none.
    pub(super) kind: Option<String>,
    pub(super) is_ethernet: bool,
    pub(super) is_running: bool,
    pub(super) resolves: bool,
    /// It belongs to a bridge, a bond or a VRF.
    pub(super) is_port: bool,
    pub(super) mtu: u32,
    /// Its Ethernet address.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) qdiscs: Vec<String>,
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeighbourFacts {
    pub(super) state: NeighbourState,
    pub(super) mac: Option<[u8; 6]>,
}

/// Everything that is known of the way to one peer; errors in the kernel's words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) host: &'a HostFacts,
    pub(super) peer: Ipv4Addr,
    pub(super) route: &'a Result<RouteFacts, String>,
    pub(super) link: &'a Result<LinkFacts, String>,
    pub(super) neighbour: &'a Result<Option<NeighbourFacts>, String>,
}

/// How a session's packets leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Straight to the next hop.
    Use(NextHop),
    /// Through the raw socket.
    Raw(Reason),
}

/// Why the raw socket is used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Reason {
    /// A packet socket would not be seen by it.
    #[error("a firewall is loaded, which a packet socket would pass by (nft list tables)")]
    Firewall,
    /// Packets would leave in the clear.
    #[error("IPsec policies are in force, which a packet socket would pass by (ip xfrm policy)")]
    Ipsec,
    /// The way may depend on more than the destination.
    #[error("routing rules are in force (ip rule)")]
    Rules,
    /// The kernel does not say whether there is a firewall, IPsec or a rule.
    #[error("it cannot be told whether there are {what}: {cause}")]
    Unknown {
        /// Which of them.
        what: &'static str,
        /// The kernel's words.
        cause: String,
    },
    /// No way, or none that can be told.
    #[error("no route: {0}")]
    NoRoute(String),
    /// Not simply to a neighbour.
    #[error("the route is special: {0}")]
    Route(&'static str),
    /// The interface cannot be asked.
    #[error("the output interface cannot be looked at: {0}")]
    NoLink(String),
    /// The interface is unfit.
    #[error("the output interface {name} {fault}")]
    Link {
        /// Which.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Shaping, or filters.
    #[error("the output interface {name} has the queueing discipline {kind}")]
    Queueing {
        /// Which interface.
        name: String,
        /// Which discipline.
        kind: String,
    },
    /// The next hop cannot be asked.
    #[error("the next hop cannot be looked at: {0}")]
    NoNeighbour(String),
    /// Its hardware address is not known.
    #[error("the next hop {0} is not resolved now")]
    Unresolved(Ipv4Addr),
}

impl RouteFacts {
    /// Whom frames on the way to `peer` are addressed to.
    pub(super) fn hop(&self, peer: Ipv4Addr) -> Ipv4Addr {
        self.gateway.unwrap_or(peer)
    }
}

/// Judges. Anything that is unusual or not known means the raw socket.
pub(super) fn decide(facts: Facts<'_>) -> Decision {
    match next_hop(facts) {
        Ok(next_hop) => Decision::Use(next_hop),
        Err(reason) => Decision::Raw(reason),
    }
}

/// Where packets of the peer may be taken in before the IP stack has seen them, with the name of
/// the interface: the one that packets leave through, and their source address. What forbids to
/// pass IP output by forbids to pass IP input by as well; the next hop does not matter. Packets
/// that come another way come through the raw socket.
pub(super) fn place(facts: Facts<'_>) -> Result<(Place, String), Reason> {
    let (route, link) = way(facts)?;
    let place = Place {
        interface: route.interface,
        address: route.source,
    };
    Ok((place, link.name.clone()))
}

/// Route and interface, when neither they nor the host are unusual.
fn way(facts: Facts<'_>) -> Result<(&RouteFacts, &LinkFacts), Reason> {
    check_host(facts.host)?;
    let route = facts.route.as_ref();
    let route = route.map_err(|e| Reason::NoRoute(e.clone()))?;
    if let Some(oddity) = route.oddity {
        return Err(Reason::Route(oddity));
    }
    let link = facts.link.as_ref().map_err(|e| Reason::NoLink(e.clone()))?;
    check_link(link)?;
    Ok((route, link))
}

fn next_hop(facts: Facts<'_>) -> Result<NextHop, Reason> {
    let (route, link) = way(facts)?;
    let neighbour = facts.neighbour.as_ref();
    let neighbour = neighbour.map_err(|e| Reason::NoNeighbour(e.clone()))?;
    let unresolved = Reason::Unresolved(route.hop(facts.peer));
    let mac = neighbour.as_ref().and_then(usable_mac).ok_or(unresolved)?;
    let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
    Ok(NextHop {
        interface: route.interface,
        mac,
        local_mac: link.mac.filter(|_| takes_frames(link)),
        source: route.source,
        packet_len_max: u16::try_from(mtu).unwrap_or(u16::MAX),
    })
}

fn check_host(host: &HostFacts) -> Result<(), Reason> {
    let findings = [
        (&host.firewall, Reason::Firewall, "firewall tables"),
        (&host.policies, Reason::Ipsec, "IPsec policies"),
        (&host.rules, Reason::Rules, "routing rules"),
    ];
    for (finding, reason, what) in findings {
        match finding {
            Finding::Absent => {}
            Finding::Present => return Err(reason),
            Finding::Unknown(cause) => {
                let cause = cause.clone();
                return Err(Reason::Unknown { what, cause });
            }
        }
    }
    Ok(())
}

fn check_link(link: &LinkFacts) -> Result<(), Reason> {
    let is_plain = |kind: &String| PLAIN_KINDS.contains(&kind.as_str());
    let fault = if !link.is_ethernet {
        Some("does not carry Ethernet frames")
    } else if !link.kind.as_ref().is_none_or(is_plain) {
        Some("is a tunnel, or of another kind that does not just carry frames")
    } else if !link.is_running {
        Some("is down")
    } else if !link.resolves {
        Some("does not resolve addresses")
    } else if link.is_port {
        Some("is a part of another interface")
    } else {
        None
    };
    let name = || link.name.clone();
    if let Some(fault) = fault {
        return Err(Reason::Link {
            name: name(),
            fault,
        });
    }
    let mut qdiscs = link.qdiscs.iter();
    match qdiscs.find(|kind| !PLAIN_QDISCS.contains(&kind.as_str())) {
        Some(kind) => Err(Reason::Queueing {
            name: name(),
            kind: kind.clone(),
        }),
        None => Ok(()),
    }
}

/// Whether whole frames may be given to the interface: by AF_XDP.
fn takes_frames(link: &LinkFacts) -> bool {
    let is_one = |kind: &String| FRAME_KINDS.contains(&kind.as_str());
    link.kind.as_ref().is_none_or(is_one)
}

/// The address that the kernel itself would send to in this state.
fn usable_mac(neighbour: &NeighbourFacts) -> Option<[u8; 6]> {
    let is_valid = matches!(
        neighbour.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    // Neither a group address nor none at all.
    let is_one = |mac: &[u8; 6]| mac[0] & 1 == 0 && *mac != [0; 6];
    neighbour.mac.filter(is_one).filter(|_| is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const LOCAL_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    struct Bench {
        host: HostFacts,
        route: Result<RouteFacts, String>,
        link: Result<LinkFacts, String>,
        neighbour: Result<Option<NeighbourFacts>, String>,
    }

    impl Bench {
        /// A host on which nothing is unusual.
        fn plain() -> Self {
            Self {
                host: HostFacts {
                    rules: Finding::Absent,
                    firewall: Finding::Absent,
                    policies: Finding::Absent,
                },
                route: Ok(RouteFacts {
                    interface: 3,
                    gateway: None,
                    source: Ipv4Addr::new(192, 0, 2, 1),
                    mtu: None,
                    oddity: None,
                }),
                link: Ok(LinkFacts {
                    name: "eth0".to_owned(),
                    kind: None,
                    is_ethernet: true,
                    is_running: true,
                    resolves: true,
                    is_port: false,
                    mtu: 1500,
                    mac: Some(LOCAL_MAC),
                    qdiscs: vec!["mq".to_owned(), "fq_codel".to_owned()],
                }),
                neighbour: Ok(Some(NeighbourFacts {
                    state: NeighbourState::Reachable,
                    mac: Some(MAC),
                })),
            }
        }

        fn facts(&self) -> Facts<'_> {
            Facts {
                host: &self.host,
                peer: PEER,
                route: &self.route,
                link: &self.link,
                neighbour: &self.neighbour,
            }
        }

        fn decide(&self) -> Decision {
            decide(self.facts())
        }

        #[track_caller]
        fn assert_raw(&self, expected: &str) {
            match self.decide() {
                Decision::Raw(reason) => {
                    let words = reason.to_string();
                    assert!(words.contains(expected), "{words}");
                }
                Decision::Use(next_hop) => panic!("{next_hop:?}"),
            }
        }

        fn with_link(change: impl FnOnce(&mut LinkFacts)) -> Self {
            let mut bench = Self::plain();
            bench.link.as_mut().map(change).expect("there is one");
            bench
        }

        fn with_route(change: impl FnOnce(&mut RouteFacts)) -> Self {
            let mut bench = Self::plain();
            bench.route.as_mut().map(change).expect("there is one");
            bench
        }
    }

    #[test]
    fn a_plain_host_uses_the_packet_socket_with_the_smaller_mtu() {
        let next_hop = NextHop {
            interface: 3,
            mac: MAC,
            local_mac: Some(LOCAL_MAC),
            source: Ipv4Addr::new(192, 0, 2, 1),
            packet_len_max: 1500,
        };
        assert_eq!(Bench::plain().decide(), Decision::Use(next_hop));
        let packet_len_max = 1400;
        let narrow = Bench::with_route(|route| route.mtu = Some(1400));
        assert_eq!(
            narrow.decide(),
            Decision::Use(NextHop {
                packet_len_max,
                ..next_hop
            })
        );
    }

    #[test]
    fn whatever_ip_output_would_do_forbids_it() {
        let mut bench = Bench::plain();
        bench.host.rules = Finding::Present;
        bench.assert_raw("routing rules");
        bench.host.policies = Finding::Present;
        bench.assert_raw("IPsec");
        bench.host.firewall = Finding::Present;
        bench.assert_raw("firewall");
        bench.host.firewall = Finding::Unknown("no such family".to_owned());
        bench.assert_raw("firewall tables: no such family");
        for kind in ["tbf", "htb", "clsact", "cake", "ingress"] {
            Bench::with_link(|link| link.qdiscs.push(kind.to_owned())).assert_raw(kind);
        }
    }

    #[test]
    fn a_way_that_is_not_plain_ethernet_to_a_neighbour_forbids_it() {
        let mut bench = Bench::plain();
        bench.route = Err("Network is unreachable".to_owned());
        bench.assert_raw("no route: Network is unreachable");
        Bench::with_route(|route| route.oddity = Some("encapsulation")).assert_raw("encapsulation");
        Bench::with_link(|link| link.is_ethernet = false).assert_raw("Ethernet");
        Bench::with_link(|link| link.is_running = false).assert_raw("eth0 is down");
        Bench::with_link(|link| link.resolves = false).assert_raw("resolve");
        Bench::with_link(|link| link.is_port = true).assert_raw("part of another");
        for kind in [
            "tun",
            "gretap",
            "vxlan",
            "wireguard",
            "ipvlan",
            "something new",
        ] {
            Bench::with_link(|link| link.kind = Some(kind.to_owned())).assert_raw("kind");
        }
        let veth = Bench::with_link(|link| link.kind = Some("veth".to_owned()));
        assert!(matches!(veth.decide(), Decision::Use(_)));
    }

    #[test]
    fn packets_are_taken_in_where_they_would_leave_whoever_the_next_hop_is() {
        let here = Place {
            interface: 3,
            address: Ipv4Addr::new(192, 0, 2, 1),
        };
        let mut bench = Bench::plain();
        bench.neighbour = Ok(None);
        bench.assert_raw("not resolved");
        assert_eq!(place(bench.facts()), Ok((here, "eth0".to_owned())));
        let shaped = Bench::with_link(|link| link.qdiscs.push("clsact".to_owned()));
        assert!(place(shaped.facts()).is_err());
        bench.host.firewall = Finding::Present;
        assert_eq!(place(bench.facts()), Err(Reason::Firewall));
    }

    #[test]
    fn frames_are_given_only_to_drivers_that_take_them_as_they_are() {
        let local_mac = |kind: Option<&str>| {
            let bench = Bench::with_link(|link| link.kind = kind.map(str::to_owned));
            match bench.decide() {
                Decision::Use(next_hop) => next_hop.local_mac,
                Decision::Raw(reason) => panic!("{reason}"),
            }
        };
        assert_eq!(local_mac(None), Some(LOCAL_MAC));
        assert_eq!(local_mac(Some("veth")), Some(LOCAL_MAC));
        for kind in ["bond", "bridge", "macvlan", "team", "vlan"] {
            assert_eq!(local_mac(Some(kind)), None, "{kind}");
        }
    }

    #[test]
    fn only_an_address_that_the_kernel_would_use_is_used() {
        use NeighbourState::{
            Delay, Failed, Incomplete, Noarp, None as New, Permanent, Probe, Reachable, Stale,
        };
        let with = |state, mac| {
            let mut bench = Bench::plain();
            bench.neighbour = Ok(Some(NeighbourFacts { state, mac }));
            bench
        };
        for state in [Reachable, Stale, Delay, Probe, Permanent] {
            assert!(matches!(with(state, Some(MAC)).decide(), Decision::Use(_)));
            with(state, None).assert_raw("192.0.2.9 is not resolved");
            with(state, Some([0; 6])).assert_raw("not resolved");
            with(state, Some([0xFF; 6])).assert_raw("not resolved");
        }
        for state in [New, Incomplete, Failed, Noarp] {
            with(state, Some(MAC)).assert_raw("not resolved");
        }
        let mut bench = Bench::with_route(|route| route.gateway = Some([192, 0, 2, 254].into()));
        bench.neighbour = Ok(None);
        bench.assert_raw("192.0.2.254 is not resolved");
    }
}
