//! The fast path: GRE packets leave through an AF_XDP socket, or else a packet socket, while the
//! next hop is known for certain, and through the raw socket, where the kernel finds the way,
//! otherwise. They arrive through a packet ring while nothing on this host has to see them before,
//! and through the raw socket otherwise.
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
mod xdp;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use dataplane::program::{CallId, Command, NextHop};
use dataplane::sys::packet_ring::Gate;
use dataplane::sys::xdp_socket;
use rtnetlink::packet_route::neighbour::NeighbourState;
use tokio::time::{Interval, MissedTickBehavior};

use self::decision::{
    Decision, Facts, Finding, HostFacts, LinkFacts, NeighbourFacts, Reason, RouteFacts, decide,
    place,
};
use self::events::{Event, Events};
use self::ingress::Call;
use self::kernel::Kernel;
use self::receive::{NamedPlace, Receive};
use self::xdp::{Seat, XdpSockets};

/// Through which socket packets leave, as `status` says it.
pub(crate) const RAW_SOCKET: &str = "raw socket";
const PACKET_SOCKET: &str = "packet socket";
/// Through what they arrive.
const PACKET_RING: &str = "packet ring";
const XDP_SOCKET: &str = "AF_XDP socket";

/// How often is looked for what no event tells: tables of iptables.
const LOOK: Duration = Duration::from_secs(1);
/// After so many looks everything is asked for again: a path MTU learned, an event missed.
const LOOKS_UNTIL_ALL: u32 = 15;

/// What a worker is to do.
pub(crate) type Order = (u16, Command);

/// Which worker sends the data of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Senders {
    /// How many workers there are, 1 or more.
    pub(crate) workers: u16,
    /// The directions of a call are parted.
    pub(crate) is_split: bool,
}

impl Senders {
    const fn worker(self, call_id: CallId) -> u16 {
        if self.is_split {
            call_id.sender(self.workers)
        } else {
            call_id.receiver(self.workers)
        }
    }
}

/// Watches the ways to the peers of all sessions.
pub(crate) struct FastPath {
    kernel: Kernel,
    events: Events,
    looks: Interval,
    looks_left: u32,
    senders: Senders,
    xdp: XdpSockets,
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
    /// rings of all workers, or why they have none.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub(crate) fn open(
        senders: Senders,
        gates: Result<Vec<Gate>, String>,
    ) -> std::io::Result<Self> {
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
            senders,
            xdp: XdpSockets::default(),
            host,
            iptables: kernel::iptables(),
            sessions: HashMap::new(),
            orders: VecDeque::new(),
            receive: Receive::new(gates),
        })
    }

    /// Watches the way to `peer`, from `local` when that is a particular address.
    pub(crate) fn watch(&mut self, call_id: CallId, peer: Ipv4Addr, local: Option<Ipv4Addr>) {
        self.forget(call_id);
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
        let watched = self.sessions.remove(&call_id);
        let is_of_it = |command: &Command| matches!(command, Command::SetNextHop { call_id: id, .. } if *id == call_id);
        self.orders.retain(|(_, command)| !is_of_it(command));
        if let Some(watched) = watched
            && let Ok(place) = &watched.place
        {
            self.receive.leave(place, watched.call(call_id));
            self.receive.arrange(false);
        }
    }

    /// A worker has said what has become of its AF_XDP socket.
    pub(crate) fn hear_of_xdp(&mut self, worker: u16, interface: u32, state: Result<(), String>) {
        self.xdp.answer((worker, interface), state);
    }

    /// Receives nothing through the packet rings for a while: until [`Self::go_on`].
    pub(crate) fn rest(&mut self) {
        self.receive.rest();
    }

    /// Receives through the packet rings again what may be.
    pub(crate) fn go_on(&mut self) {
        self.receive.go_on();
    }

    /// Through which socket the packets of a session leave, and why.
    pub(crate) fn describe(&self, call_id: CallId) -> Option<(&'static str, String)> {
        let next_hop = match &self.sessions.get(&call_id)?.decision {
            Decision::Use(next_hop) => next_hop,
            Decision::Raw(reason) => return Some((RAW_SOCKET, reason.to_string())),
        };
        let octets = next_hop.mac.map(|octet| format!("{octet:02x}"));
        let (mac, index) = (octets.join(":"), next_hop.interface);
        let way = format!("the next hop is {mac} on interface {index}");
        let xdp = match next_hop.local_mac {
            Some(_) => self.xdp.state((self.senders.worker(call_id), index)),
            None => Err("interfaces of this kind have none"),
        };
        Some(match xdp {
            Ok(()) => (XDP_SOCKET, way),
            Err(reason) => (PACKET_SOCKET, format!("{way}; no AF_XDP socket: {reason}")),
        })
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
            self.receive.arrange(true);
            self.xdp.hope(|_| true);
            self.close_unused_sockets();
        }
        if self.xdp.look() || is_all {
            let places: HashSet<_> = self.sockets_of_use().collect();
            self.open_sockets(places);
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
            Event::Link(index) => {
                self.xdp.hope(|interface| interface == index);
                self.reconsider(|_, it| it.leaves_through(index), true);
                self.close_unused_sockets();
            }
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
        let mut places = HashSet::new();
        for (call_id, watched) in &mut self.sessions {
            if !which(*call_id, watched) {
                continue;
            }
            if is_route_in_doubt {
                let route = self.kernel.route(watched.peer, watched.local);
                watched.route = route.map_err(|error| error.to_string());
            }
            let (decision, place) = survey.decide(&mut self.kernel, &self.host, watched);
            if place != watched.place {
                has_moved = true;
                let call = watched.call(*call_id);
                if let Ok(place) = &watched.place {
                    self.receive.leave(place, call);
                }
                if let Ok(place) = &place {
                    self.receive.enter(place, call);
                }
                watched.place = place;
            }
            let (before, after) = (watched.decision.next_hop(), decision.next_hop());
            watched.decision = decision;
            let worker = self.senders.worker(*call_id);
            places.extend(watched.decision.socket_of_use(worker));
            if before != after {
                let (call_id, next_hop) = (*call_id, after);
                let command = Command::SetNextHop { call_id, next_hop };
                self.orders.push_back((worker, command));
            }
        }
        survey.keep_alive(&mut self.kernel);
        self.open_sockets(places);
        if has_moved {
            self.receive.arrange(false);
        }
    }

    fn sockets_of_use(&self) -> impl Iterator<Item = Seat> {
        let sessions = self.sessions.iter();
        sessions
            .filter_map(|(call_id, it)| it.decision.socket_of_use(self.senders.worker(*call_id)))
    }

    fn open_sockets(&mut self, places: HashSet<Seat>) {
        for (worker, interface) in places {
            if !self.xdp.ask((worker, interface)) {
                continue;
            }
            match xdp_socket::open() {
                Ok(fd) => {
                    let command = Command::AttachXdpSocket { fd, interface };
                    self.orders.push_back((worker, command));
                }
                Err(error) => self.xdp.answer((worker, interface), Err(error.to_string())),
            }
        }
    }

    fn close_unused_sockets(&mut self) {
        let used = self.sockets_of_use().collect();
        for (worker, interface) in self.xdp.keep(&used) {
            let command = Command::DetachXdpSocket { interface };
            self.orders.push_back((worker, command));
        }
    }
}

impl Watched {
    /// As the rule at the ingress tells it.
    const fn call(&self, call_id: CallId) -> Call {
        let peer = self.peer;
        Call { peer, call_id }
    }

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
    const fn next_hop(&self) -> Option<NextHop> {
        match self {
            Self::Use(next_hop) => Some(*next_hop),
            Self::Raw(_) => None,
        }
    }

    /// The AF_XDP socket of this worker that the packets could leave through.
    fn socket_of_use(&self, worker: u16) -> Option<Seat> {
        let next_hop = self.next_hop()?;
        next_hop.local_mac.map(|_| (worker, next_hop.interface))
    }
}
