//! Asks the kernel for the facts: rtnetlink, and whether nftables, iptables or IPsec are in use
//! (Linux `rtnetlink(7)`, `include/uapi/linux/netfilter/nfnetlink.h`, `linux/xfrm.h`).
//!
//! Netlink answers within the call that asks, so nothing here waits.

use std::io;
use std::net::Ipv4Addr;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::tc::{TcAttribute, TcMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};
use rtnetlink::sys::{Socket, SocketAddr};

use super::decision::{Finding, HostFacts, LinkFacts, NeighbourFacts, RouteFacts};
use super::ingress::is_own_table;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`, with an `nfgenmsg` of zeros: of any family.
const NFT_GET_TABLE: (u16, usize) = (10 << 8 | 1, 4);
/// `XFRM_MSG_GETPOLICY`, with an `xfrm_userpolicy_id` of zeros.
const XFRM_GET_POLICY: (u16, usize) = (0x15, 64);
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Length, type, flags, sequence, port.
const HEADER_LEN: usize = 16;
/// Names of the tables of iptables that have been used, a line each. Without iptables in the
/// kernel there is no such file.
const IPTABLES: &str = "/proc/self/net/ip_tables_names";

/// The rules of every host, by priority: local, main, default (Linux `ip-rule(8)`).
const PLAIN_RULES: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

/// A socket to ask with, in the network namespace of the thread that opened it.
pub(super) struct Kernel {
    socket: Socket,
    sequence: u32,
}

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// What holds for every packet of this host.
    pub(super) fn host(&mut self) -> HostFacts {
        let rules = match self.has_unusual_rule() {
            Ok(false) => Finding::Absent,
            Ok(true) => Finding::Present,
            Err(error) => Finding::Unknown(error.to_string()),
        };
        let firewall = match iptables() {
            Finding::Absent => nftables(),
            found => found,
        };
        HostFacts {
            rules,
            firewall,
            policies: ipsec(),
        }
    }

    fn has_unusual_rule(&mut self) -> io::Result<bool> {
        let mut question = RuleMessage::default();
        question.header.family = AddressFamily::Inet;
        let answers = self.ask(RouteNetlinkMessage::GetRule(question), NLM_F_DUMP)?;
        let is_unusual = |answer: &RouteNetlinkMessage| match answer {
            RouteNetlinkMessage::NewRule(rule) => !is_plain_rule(rule),
            _ => true,
        };
        Ok(answers.iter().any(is_unusual))
    }

    /// The way to `peer`, from `local` when it must be a particular address.
    pub(super) fn route(
        &mut self,
        peer: Ipv4Addr,
        local: Option<Ipv4Addr>,
    ) -> io::Result<RouteFacts> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet;
        question.header.destination_prefix_length = 32;
        let to = RouteAttribute::Destination(RouteAddress::Inet(peer));
        question.attributes.push(to);
        if let Some(local) = local {
            question.header.source_prefix_length = 32;
            let from = RouteAttribute::Source(RouteAddress::Inet(local));
            question.attributes.push(from);
        }
        let answers = self.ask(RouteNetlinkMessage::GetRoute(question), NLM_F_ACK)?;
        let route = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        route
            .and_then(|route| route_facts(&route, local))
            .ok_or_else(|| io::Error::other("the kernel's answer is not understood"))
    }

    /// An interface, with its queueing disciplines.
    pub(super) fn link(&mut self, index: u32) -> io::Result<LinkFacts> {
        let mut question = LinkMessage::default();
        question.header.index = index;
        let answers = self.ask(RouteNetlinkMessage::GetLink(question), NLM_F_ACK)?;
        let link = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        let link = link.ok_or_else(|| io::Error::other("the kernel does not answer"))?;
        let qdiscs = self.qdiscs(index)?;
        Ok(link_facts(&link, qdiscs))
    }

    fn qdiscs(&mut self, index: u32) -> io::Result<Vec<String>> {
        let question = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let answers = self.ask(question, NLM_F_DUMP)?;
        let kind = |answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc)
                if qdisc.header.index.cast_unsigned() == index =>
            {
                qdisc.attributes.into_iter().find_map(|it| match it {
                    TcAttribute::Kind(kind) => Some(kind),
                    _ => None,
                })
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(kind).collect())
    }

    /// The entry of the neighbour table for `address`; `None` when there is none.
    pub(super) fn neighbour(
        &mut self,
        interface: u32,
        address: Ipv4Addr,
    ) -> io::Result<Option<NeighbourFacts>> {
        let question = neighbour_message(interface, address);
        let answers = match self.ask(RouteNetlinkMessage::GetNeighbour(question), NLM_F_ACK) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        Ok(answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(neighbour) => Some(neighbour_facts(neighbour)),
            _ => None,
        }))
    }

    /// Tells the kernel that a neighbour is in use, as its own packets would: a stale entry is
    /// confirmed again. Makes no entry.
    pub(super) fn use_neighbour(&mut self, interface: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut order = neighbour_message(interface, address);
        order.header.flags = NeighbourFlags::Use;
        self.ask(RouteNetlinkMessage::NewNeighbour(order), NLM_F_ACK)?;
        Ok(())
    }

    /// All answers to a question.
    fn ask(
        &mut self,
        question: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let payload = NetlinkPayload::InnerMessage(question);
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut octets = vec![0; message.buffer_len()];
        message.serialize(&mut octets);
        self.socket.send_to(&octets, &SocketAddr::new(0, 0), 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram) {
                let message = message?;
                if message.header.sequence_number != self.sequence {
                    // What is left of a question that failed half-way.
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
            }
        }
    }
}

/// The rtnetlink messages of one datagram.
pub(super) fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
        let len = rest.first_chunk().map_or(0, |len| u32::from_ne_bytes(*len)) as usize;
        // The length counts the header, so each message is shorter than what was left before it.
        let next = len.max(HEADER_LEN).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
        Some(message.map_err(io::Error::other))
    })
}

/// Whether a rule is one of those that every host has.
fn is_plain_rule(rule: &RuleMessage) -> bool {
    let header = &rule.header;
    let (mut priority, mut table) = (0, u32::from(header.table));
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(it) => priority = *it,
            RuleAttribute::Table(it) => table = *it,
            RuleAttribute::Protocol(_) => {}
            // -1: nothing is suppressed.
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => return false,
        }
    }
    let is_for_all = header.dst_len == 0 && header.src_len == 0 && header.tos == 0;
    let is_to_table = header.action == RuleAction::ToTable;
    is_for_all && is_to_table && PLAIN_RULES.contains(&(priority, table))
}

fn route_facts(route: &RouteMessage, local: Option<Ipv4Addr>) -> Option<RouteFacts> {
    let (mut interface, mut gateway, mut source, mut mtu) = (None, None, local, None);
    let mut oddity = (route.header.kind != RouteType::Unicast).then_some("it is not unicast");
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => {
                source = source.or(Some(*address));
            }
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::Via(_) => oddity = Some("the router has no IPv4 address"),
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => {
                oddity = Some("packets are encapsulated");
            }
            _ => {}
        }
    }
    Some(RouteFacts {
        interface: interface?,
        gateway,
        source: source?,
        mtu,
        oddity,
    })
}

fn link_facts(link: &LinkMessage, qdiscs: Vec<String>) -> LinkFacts {
    let flags = link.header.flags;
    let mut facts = LinkFacts {
        name: String::new(),
        kind: None,
        is_ethernet: link.header.link_layer_type == LinkLayerType::Ether,
        is_running: flags.contains(LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp),
        resolves: !flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback),
        is_port: false,
        mtu: 0,
        mac: None,
        qdiscs,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => facts.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
            LinkAttribute::Address(mac) => facts.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Controller(_) => facts.is_port = true,
            LinkAttribute::LinkInfo(infos) => {
                facts.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    facts
}

fn neighbour_message(interface: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = interface;
    let address = NeighbourAddress::Inet(address);
    message
        .attributes
        .push(NeighbourAttribute::Destination(address));
    message
}

fn neighbour_facts(neighbour: &NeighbourMessage) -> NeighbourFacts {
    let mac = neighbour.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    });
    NeighbourFacts {
        state: neighbour.header.state,
        mac,
    }
}

/// Whether iptables has tables here. The file is empty as long as none has been used.
pub(super) fn iptables() -> Finding {
    match std::fs::read(IPTABLES) {
        Ok(names) if names.is_empty() => Finding::Absent,
        Ok(_) => Finding::Present,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::Absent,
        Err(error) => Finding::Unknown(error.to_string()),
    }
}

/// Whether nftables has tables here, other than ours.
fn nftables() -> Finding {
    has_any(NETLINK_NETFILTER, NFT_GET_TABLE, |entry| {
        !is_own_table(entry)
    })
}

/// Whether IPsec policies are in force.
fn ipsec() -> Finding {
    has_any(NETLINK_XFRM, XFRM_GET_POLICY, |_| true)
}

/// Whether a dump of this protocol has an entry that counts. Entries are without netlink header.
fn has_any(protocol: isize, question: (u16, usize), counts: impl Fn(&[u8]) -> bool) -> Finding {
    let found = dump(protocol, question, |datagram| judge(datagram, &counts));
    match found {
        // Without the protocol in the kernel there is nothing of it.
        Err(error) if error.raw_os_error() == Some(nix::libc::EPROTONOSUPPORT) => Finding::Absent,
        Err(error) => Finding::Unknown(error.to_string()),
        Ok(finding) => finding,
    }
}

/// Asks, and reads datagrams until `read` has found something.
fn dump(
    protocol: isize,
    question: (u16, usize),
    read: impl Fn(&[u8]) -> Option<Finding>,
) -> io::Result<Finding> {
    let (message_type, payload_len) = question;
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    let mut header = NetlinkHeader::default();
    header.length = (HEADER_LEN + payload_len) as u32;
    header.message_type = message_type;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut octets = vec![0; HEADER_LEN + payload_len];
    octets[0..4].copy_from_slice(&header.length.to_ne_bytes());
    octets[4..6].copy_from_slice(&header.message_type.to_ne_bytes());
    octets[6..8].copy_from_slice(&header.flags.to_ne_bytes());
    socket.send_to(&octets, &SocketAddr::new(0, 0), 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if let Some(finding) = read(&datagram) {
            return Ok(finding);
        }
    }
}

/// A dump is one entry after the other, and an end; or it is refused. `None` when it goes on.
fn judge(datagram: &[u8], counts: impl Fn(&[u8]) -> bool) -> Option<Finding> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Some(&[a, b, c, d, low, high]) = rest.first_chunk() else {
            let words = "the kernel's answer is cut short";
            return Some(Finding::Unknown(words.to_owned()));
        };
        let len = (u32::from_ne_bytes([a, b, c, d]) as usize).max(HEADER_LEN);
        let payload = rest.get(HEADER_LEN..len).unwrap_or_default();
        match u16::from_ne_bytes([low, high]) {
            NLMSG_DONE => return Some(Finding::Absent),
            NLMSG_ERROR => return Some(refusal(payload)),
            _ if counts(payload) => return Some(Finding::Present),
            _ => rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default(),
        }
    }
    None
}

fn refusal(payload: &[u8]) -> Finding {
    let code = payload
        .first_chunk()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    let error = io::Error::from_raw_os_error(code.saturating_neg());
    match error.raw_os_error() {
        // nfnetlink is there, and nftables is not.
        Some(nix::libc::EINVAL | nix::libc::EOPNOTSUPP) => Finding::Absent,
        _ => Finding::Unknown(error.to_string()),
    }
}
