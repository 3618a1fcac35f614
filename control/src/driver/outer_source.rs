//! From which of our addresses GRE goes out: the one of the control connection (RFC 2637 4.1 has
//! data between the same two hosts). A host may be called at an address that its routes would not
//! choose for answers: one of several of an interface, or one on `lo` that several hosts share.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::RawFd;

use nix::sys::socket::{SockaddrIn, getsockname};

/// The address that has to be named for packets to go out from where `control`, a connection with
/// `peer`, ends here. `None` where the routes choose it anyway, which costs less for each packet.
pub(super) fn needed(control: RawFd, peer: Ipv4Addr) -> Option<Ipv4Addr> {
    let own = getsockname::<SockaddrIn>(control).ok()?.ip();
    (chosen_by_routes(peer) != Some(own)).then_some(own)
}

fn chosen_by_routes(peer: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent.
    socket.connect((peer, 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    /// Answers of a host to itself go out from the address that was called, so the routes choose
    /// right for 127.0.0.1 and wrong for another address of the loopback network.
    #[test]
    fn an_address_is_named_where_the_routes_would_choose_another() {
        for (called, due) in [
            (Ipv4Addr::LOCALHOST, None),
            (
                Ipv4Addr::new(127, 0, 0, 9),
                Some(Ipv4Addr::new(127, 0, 0, 9)),
            ),
        ] {
            let listener = TcpListener::bind((called, 0)).expect("a loopback address");
            let address = listener.local_addr().expect("an address");
            let client = TcpStream::connect(address).expect("it listens");
            let (accepted, _) = listener.accept().expect("a connection");
            let from = client.local_addr().expect("an address").ip();
            assert_eq!(from, Ipv4Addr::LOCALHOST);
            let source = needed(accepted.as_raw_fd(), Ipv4Addr::LOCALHOST);
            assert_eq!(source, due, "{called}");
        }
    }
}
