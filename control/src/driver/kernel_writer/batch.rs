//! Many netlink requests in one send, and the acknowledgment of each (netlink(7)).
//!
//! The kernel carries requests out while they are being sent, one after the other, and goes on
//! after one that it refuses. When `send` returns, every answer is there to be read.

use std::io;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::changes::Change;

/// Requests of one send: their acknowledgments, each of which the kernel counts as 768 octets,
/// must fit into the receive buffer of a socket (208 KiB unless the administrator has changed it).
pub(super) const REQUESTS_MAX: usize = 128;

/// Messages are padded to this.
const ALIGNMENT: usize = 4;
/// `nlmsghdr`: length, type, flags, sequence number, port.
const HEADER_LEN: usize = 16;
/// `NLMSG_ERROR`: also an acknowledgment, with the code 0.
const TYPE_ERROR: u16 = 2;
/// Octets of one answer that are looked at.
const ANSWER_BYTES: usize = 8_192;

/// A socket in the network namespace of the thread that opened it.
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
    /// Messages to be sent, and how many.
    buffer: Vec<u8>,
    count: u32,
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Acknowledgments need not carry back what was asked. Old kernels do it all the same.
        let _ = socket.set_cap_ack(true);
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::new(),
            count: 0,
        })
    }

    /// Has the kernel make these changes in this order, and says of each what came of it. Those
    /// behind a refused one are made all the same.
    pub(super) fn make(&mut self, changes: &[Change], table: u32) -> Vec<io::Result<()>> {
        let mut results = Vec::with_capacity(changes.len());
        for some in changes.chunks(REQUESTS_MAX) {
            for change in some {
                let (message, flags) = change.message(table);
                self.append(message, flags | NLM_F_ACK);
            }
            results.extend(self.exchange());
        }
        results
    }

    /// What the kernel says of one interface.
    pub(super) fn link(&mut self, question: LinkMessage) -> io::Result<LinkMessage> {
        self.append(RouteNetlinkMessage::GetLink(question), 0);
        self.count = 0;
        let request = std::mem::take(&mut self.buffer);
        self.socket.send(&request, 0)?;
        let mut answer = Vec::with_capacity(ANSWER_BYTES);
        self.socket
            .recv(&mut answer, MsgFlags::MSG_DONTWAIT.bits())?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|error| io::Error::other(error.to_string()))?;
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
            NetlinkPayload::Error(refusal) => Err(refusal.to_io()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn append(&mut self, message: RouteNetlinkMessage, flags: u16) {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence.wrapping_add(self.count);
        request.finalize();
        let start = self.buffer.len();
        let end = start + request.buffer_len().next_multiple_of(ALIGNMENT);
        self.buffer.resize(end, 0);
        request.serialize(&mut self.buffer[start..]);
        self.count += 1;
    }

    /// Sends what was appended; the answers are in its order.
    fn exchange(&mut self) -> Vec<io::Result<()>> {
        let (first, count) = (self.sequence, std::mem::take(&mut self.count));
        self.sequence = first.wrapping_add(count);
        let request = std::mem::take(&mut self.buffer);
        let lost = || Err(io::Error::other("the kernel did not answer"));
        let mut results: Vec<io::Result<()>> = (0..count).map(|_| lost()).collect();
        if let Err(error) = self.socket.send(&request, 0) {
            let refused = |_| Err(io::Error::from(error.kind()));
            return (0..count).map(refused).collect();
        }
        let mut answered = 0;
        let mut answers = Vec::with_capacity(ANSWER_BYTES);
        while answered < count {
            answers.clear();
            match self
                .socket
                .recv(&mut answers, MsgFlags::MSG_DONTWAIT.bits())
            {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => continue,
                Err(_) => break,
            }
            for (sequence, code) in acknowledgments(&answers) {
                let position = sequence.wrapping_sub(first) as usize;
                if let Some(result) = results.get_mut(position) {
                    answered += 1;
                    *result = match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                    };
                }
            }
        }
        results
    }
}

/// Sequence numbers and error codes, 0 or negative, in octets from the kernel.
fn acknowledgments(mut octets: &[u8]) -> impl Iterator<Item = (u32, i32)> + '_ {
    std::iter::from_fn(move || {
        loop {
            let field = |at: usize| octets.get(at..at + 4)?.try_into().ok();
            let len = field(0).map(u32::from_ne_bytes)? as usize;
            let kind = u16::from_ne_bytes(octets.get(4..6)?.try_into().ok()?);
            let sequence = field(8).map(u32::from_ne_bytes)?;
            let code = field(HEADER_LEN).map(i32::from_ne_bytes);
            let next = len.max(HEADER_LEN).next_multiple_of(ALIGNMENT);
            octets = octets.get(next..).unwrap_or_default();
            if kind == TYPE_ERROR {
                return Some((sequence, code?));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use crate::driver::kernel_writer::changes::RouteVia;
    use rtnetlink::packet_route::route::RouteHeader;

    #[test]
    fn acknowledgments_are_read_from_anything() {
        let one = |sequence: u32, code: i32| {
            let mut octets = 20_u32.to_ne_bytes().to_vec();
            octets.extend(TYPE_ERROR.to_ne_bytes());
            octets.extend([0, 0]);
            octets.extend(sequence.to_ne_bytes());
            octets.extend([0; 4]);
            octets.extend(code.to_ne_bytes());
            octets
        };
        let both = [one(7, 0), one(8, -17)].concat();
        let read: Vec<_> = acknowledgments(&both).collect();
        assert_eq!(read, [(7, 0), (8, -17)]);
        for cut in 0..both.len() {
            assert!(acknowledgments(&both[..cut]).count() <= 1, "cut at {cut}");
        }
        assert_eq!(acknowledgments(&[0; 64]).count(), 0);
    }

    /// In a network namespace of its own, which only root can make.
    #[test]
    fn hundreds_of_routes_go_in_a_few_sends_and_each_has_its_own_answer() {
        const LOOPBACK: u32 = 1;
        if !nix::unistd::Uid::effective().is_root() {
            println!("skipped: not root");
            return;
        }
        let results = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let mut requests = Requests::open().unwrap();
            let route = |index: u32, n: u32| {
                Change::AddRoute(RouteVia {
                    index,
                    destination: Ipv4Addr::from(0x0A00_0000 + n),
                    prefix_len: 32,
                    source: None,
                    mtu: Some(1400),
                    metric: None,
                })
            };
            let mut changes = vec![Change::SetUp {
                index: LOOPBACK,
                mtu: None,
            }];
            changes.extend((0..1_000).map(|n| {
                // There is no such device.
                route(if n % 100 == 50 { 9_999 } else { LOOPBACK }, n)
            }));
            requests.make(&changes, u32::from(RouteHeader::RT_TABLE_MAIN))
        });
        let results = results.join().unwrap();
        assert_eq!(results.len(), 1_001);
        for (n, result) in results.iter().skip(1).enumerate() {
            assert_eq!(result.is_err(), n % 100 == 50, "{n}: {result:?}");
        }
    }
}
