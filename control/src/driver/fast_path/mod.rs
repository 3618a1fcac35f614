//! The fast path: GRE packets leave through a packet socket while the next hop is known for
//! certain, and through the raw socket, where the kernel finds the way, otherwise. They arrive
//! through a packet ring while nothing on this host has to see them before, and through the raw
//! socket otherwise.
//!
//! ```text
//! kernel: routes, links, neighbours, rules, firewall  --events-->  which sessions does it touch?
//!     --questions--> facts --decide--> Use(next hop) | Raw(reason) --order--> worker
//!                          --place---> gates of the packet rings, rule at the ingress (receive)
//! ```
//!
//! Whenever something changes, the facts are asked for again; an event only says what to look at.
//! What no event tells, iptables and what was missed, is looked at from time to time.

mod decision;
mod events;
mod ingress;
mod kernel;
mod receive;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use dataplane::program::{CallId, NextHop};
use dataplane::sys::packet_ring::Gate;
use rtnetlink::packet_route::neighbour::NeighbourState;
use tokio::time::{Interval, MissedTickBehavior};

pub(crate) use self::decision::{Decision, Reason};
use self::decision::{
    Facts, Finding, HostFacts, LinkFacts, NeighbourFacts, RouteFacts, decide, place,
};
use self::events::{Event, Events};
use self::ingress::Call;
use self::kernel::Kernel;
use self::receive::{NamedPlace, Receive};

/// Through which socket packets leave, as `status` says it.
pub(crate) const RAW_SOCKET: &str = "raw socket";
const PACKET_SOCKET: &str = "packet socket";
/// Through what they arrive.
const PACKET_RING: &str = "packet ring";

/// How often is looked for what no event tells: tables of iptables.
const LOOK: Duration = Duration::from_secs(1);
/// After so many looks everything is asked for again: a path MTU learned, an event missed.
const LOOKS_UNTIL_ALL: u32 = 15;

/// A worker is to send a session's packets to this next hop from now on.
pub(crate) type Order = (CallId, Option<NextHop>);

/// Watches the ways to the peers of all sessions.
pub(crate) struct FastPath {
    kernel: Kernel,
    events: Events,
    looks: Interval,
    looks_left: u32,
    host: HostFacts,
    /// At the last look.
    iptables: Finding,
    sessions: HashMap<CallId, Watched>,
    orders: VecDeque<Order>,
    receive: Receive,
}

/// One session.
struct Watched {
    peer: Ipv4Addr,
    local: Option<Ipv4Addr>,
    route: Result<RouteFacts, String>,
    decision: Decision,
    place: Result<NamedPlace, Reason>,
}

/// Links and neighbours that have been asked for: many sessions share them.
#[derive(Default)]
struct Survey {
    links: HashMap<u32, Result<LinkFacts, String>>,
    neighbours: HashMap<(u32, Ipv4Addr), Result<Option<NeighbourFacts>, String>>,
}

impl FastPath {
    /// Begins to watch the network namespace of the calling thread. `gates` are those of the packet
    /// rings of all workers; or why they have none.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub(crate) fn open(gates: Result<Vec<Gate>, String>) -> std::io::Result<Self> {
        // Events first: what changes after a question has been answered is not missed.
        let events = Events::open()?;
        let mut kernel = Kernel::open()?;
        let host = kernel.host();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            kernel,
            events,
            looks,
            looks_left: LOOKS_UNTIL_ALL,
            host,
            iptables: kernel::iptables(),
            sessions: HashMap::new(),
            orders: VecDeque::new(),
            receive: Receive::new(gates),
        })
    }

    /// Watches the way to `peer`, from `local` when that is a particular address.
    pub(crate) fn watch(&mut self, call_id: CallId, peer: Ipv4Addr, local: Option<Ipv4Addr>) {
        let watched = Watched {
            peer,
            local,
            route: Err(String::new()),
            decision: Decision::Raw(Reason::Unresolved(peer)),
            place: Err(Reason::Unresolved(peer)),
        };
        self.sessions.insert(call_id, watched);
        self.reconsider(|id, _| id == call_id, true);
    }

    /// The session has ended.
    pub(crate) fn forget(&mut self, call_id: CallId) {
        self.sessions.remove(&call_id);
        self.arrange_receive(false);
    }

    /// How the packets of a session leave, and why.
    pub(crate) fn decision(&self, call_id: CallId) -> Option<&Decision> {
        self.sessions.get(&call_id).map(|watched| &watched.decision)
    }

    /// Through what the packets of a session arrive, and why.
    pub(crate) fn describe_receive(&self, call_id: CallId) -> Option<(&'static str, String)> {
        let watched = self.sessions.get(&call_id)?;
        Some(match &watched.place {
            Err(reason) => (RAW_SOCKET, reason.to_string()),
            Ok((place, name)) => match self.receive.obstacle(*place) {
                Some(obstacle) => (RAW_SOCKET, obstacle),
                None => (PACKET_RING, format!("for {} from {name}", place.address)),
            },
        })
    }

    /// What a worker is to be told next.
    pub(crate) fn next_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Waits until something has happened, and does what it calls for; afterwards there may be
    /// orders. Nothing is lost when the future is dropped.
    pub(crate) async fn changed(&mut self) {
        let happened = tokio::select! {
            events = self.events.next() => events,
            _ = self.looks.tick() => {
                self.look();
                return;
            }
        };
        for event in happened {
            self.hear(event);
        }
    }

    fn look(&mut self) {
        self.looks_left -= 1;
        let is_all = self.looks_left == 0;
        if is_all {
            self.looks_left = LOOKS_UNTIL_ALL;
        }
        let iptables = kernel::iptables();
        if is_all || iptables != self.iptables {
            self.iptables = iptables;
            self.host = self.kernel.host();
            self.reconsider(|_, _| true, is_all);
        }
        if is_all {
            self.arrange_receive(true);
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Anything => {
                self.host = self.kernel.host();
                self.reconsider(|_, _| true, true);
            }
            Event::Host => {
                // It may have been our own rule.
                let before = std::mem::replace(&mut self.host, self.kernel.host());
                if before != self.host {
                    self.reconsider(|_, _| true, false);
                }
            }
            Event::Link(index) => self.reconsider(|_, it| it.leaves_through(index), true),
            Event::Queueing(index) => self.reconsider(|_, it| it.leaves_through(index), false),
            Event::Route(prefix) => self.reconsider(|_, it| prefix.contains(it.peer), true),
            Event::Neighbour(index, address) => {
                self.reconsider(|_, it| it.has_hop(index, address), false);
            }
        }
    }

    /// Decides anew for the sessions that `which` picks; with `is_route_in_doubt`, asks for the
    /// route first.
    fn reconsider(&mut self, which: impl Fn(CallId, &Watched) -> bool, is_route_in_doubt: bool) {
        let mut survey = Survey::default();
        let mut has_moved = false;
        for (call_id, watched) in &mut self.sessions {
            if !which(*call_id, watched) {
                continue;
            }
            if is_route_in_doubt {
                let route = self.kernel.route(watched.peer, watched.local);
                watched.route = route.map_err(|error| error.to_string());
            }
            let (decision, place) = survey.decide(&mut self.kernel, &self.host, watched);
            has_moved |= place != watched.place;
            watched.place = place;
            let (before, after) = (watched.decision.next_hop(), decision.next_hop());
            watched.decision = decision;
            if before != after {
                self.orders.push_back((*call_id, after));
            }
        }
        survey.keep_alive(&mut self.kernel);
        if has_moved {
            self.arrange_receive(false);
        }
    }

    /// Receives every session through the packet rings that may be.
    fn arrange_receive(&mut self, is_retry: bool) {
        let (mut places, mut calls) = (Vec::new(), HashSet::new());
        for (&call_id, watched) in &self.sessions {
            if let Ok(place) = &watched.place {
                places.push(place.clone());
                let peer = watched.peer;
                calls.insert(Call { peer, call_id });
            }
        }
        self.receive.arrange(places, calls, is_retry);
    }
}

impl Watched {
    /// A session without a route may get one through any interface.
    fn leaves_through(&self, interface: u32) -> bool {
        let route = self.route.as_ref();
        route.map_or(true, |route| route.interface == interface)
    }

    fn has_hop(&self, interface: u32, address: Ipv4Addr) -> bool {
        let is_it =
            |route: &RouteFacts| route.interface == interface && route.hop(self.peer) == address;
        self.route.as_ref().is_ok_and(is_it)
    }
}

impl Survey {
    fn decide(
        &mut self,
        kernel: &mut Kernel,
        host: &HostFacts,
        watched: &Watched,
    ) -> (Decision, Result<NamedPlace, Reason>) {
        let no_way = || (Err(String::new()), Err(String::new()));
        let (mut link, mut neighbour) = no_way();
        if let Ok(route) = &watched.route {
            let index = route.interface;
            let of_link = || kernel.link(index).map_err(|error| error.to_string());
            link = self.links.entry(index).or_insert_with(of_link).clone();
            let hop = (index, route.hop(watched.peer));
            let of_hop = || kernel.neighbour(hop.0, hop.1).map_err(|e| e.to_string());
            neighbour = self.neighbours.entry(hop).or_insert_with(of_hop).clone();
        }
        let facts = Facts {
            host,
            peer: watched.peer,
            route: &watched.route,
            link: &link,
            neighbour: &neighbour,
        };
        (decide(facts), place(facts))
    }

    /// The kernel confirms an entry that its own packets use. Ours do not pass it, so it is told.
    fn keep_alive(&self, kernel: &mut Kernel) {
        for ((interface, address), neighbour) in &self.neighbours {
            let is_stale = |it: &NeighbourFacts| it.state == NeighbourState::Stale;
            if matches!(neighbour, Ok(Some(it)) if is_stale(it)) {
                // Should it fail, the entry fails in its time, and the raw socket resolves anew.
                let _ = kernel.use_neighbour(*interface, *address);
            }
        }
    }
}

impl Decision {
    /// Which socket, and why.
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Use(next_hop) => {
                let octets = next_hop.mac.map(|octet| format!("{octet:02x}"));
                let (mac, index) = (octets.join(":"), next_hop.interface);
                let way = format!("the next hop is {mac} on interface {index}");
                (PACKET_SOCKET, way)
            }
            Self::Raw(reason) => (RAW_SOCKET, reason.to_string()),
        }
    }

    const fn next_hop(&self) -> Option<NextHop> {
        match self {
            Self::Use(next_hop) => Some(*next_hop),
            Self::Raw(_) => None,
        }
    }
}
