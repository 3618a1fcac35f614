//! Entries of the kernel's table of neighbours for which this host answers ARP (`NTF_PROXY` of
//! rtnetlink(7)): ours have a number of their own, as routes of routing programs have.

use std::io;
use std::net::Ipv4Addr;

use nix::sys::socket::MsgFlags;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Who made an entry (`rtm_protocol`): none of those that `linux/rtnetlink.h` and
/// `/etc/iproute2/rt_protos` name. It is the octet `p`.
const OURS: RouteProtocol = RouteProtocol::Other(0x70);
/// Octets of one datagram of a dump.
const DUMP_BYTES: usize = 32 * 1024;

/// An entry for `address` on the interface `index`.
pub(super) fn message(index: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::Protocol(OURS),
    ];
    message
}

/// All entries of ours, with their interfaces, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel's.
pub(crate) fn ours() -> io::Result<Vec<(u32, Ipv4Addr)>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut question = NeighbourMessage::default();
    question.header.family = AddressFamily::Inet;
    question.header.flags = NeighbourFlags::Proxy;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(question));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut octets = vec![0; request.buffer_len()];
    request.serialize(&mut octets);
    socket.send(&octets, 0)?;
    let mut found = Vec::new();
    let mut datagram = Vec::with_capacity(DUMP_BYTES);
    loop {
        datagram.clear();
        socket.recv(&mut datagram, MsgFlags::MSG_DONTWAIT.bits())?;
        if read(&datagram, &mut found)? {
            return Ok(found);
        }
    }
}

/// Takes our entries out of one datagram of a dump; true at its end.
fn read(datagram: &[u8], found: &mut Vec<(u32, Ipv4Addr)>) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let len = (message.header.length as usize).next_multiple_of(4);
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(refusal) => return Err(refusal.to_io()),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => {
                found.extend(address_of(&entry).map(|address| (entry.header.ifindex, address)));
            }
            _ => {}
        }
        rest = rest.get(len.max(1)..).unwrap_or_default();
    }
    Ok(false)
}

fn address_of(entry: &NeighbourMessage) -> Option<Ipv4Addr> {
    let has = |wanted: &NeighbourAttribute| entry.attributes.contains(wanted);
    if !has(&NeighbourAttribute::Protocol(OURS)) {
        return None;
    }
    entry.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_of_ours_are_found_in_a_dump() {
        let address = Ipv4Addr::new(10, 5, 6, 7);
        let mut others = message(3, address);
        others.attributes.pop();
        let mut dump = Vec::new();
        for entry in [others, message(4, address)] {
            let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(entry));
            message.finalize();
            let start = dump.len();
            dump.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut dump[start..]);
        }
        let mut found = Vec::new();
        assert!(!read(&dump, &mut found).unwrap());
        assert_eq!(found, [(4, address)]);
        for cut in 0..dump.len() {
            let _ = read(&dump[..cut], &mut Vec::new());
        }
    }
}
