//! Datagrams in and out. Sending never waits: what finds no room is lost, and is sent again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::RadiusEvent;
use crate::proto::radius::Output;
use crate::wire::radius::PACKET_BYTES_MAX;

/// Datagrams that wait to be looked at; beyond that, they wait in the kernel.
const DATAGRAMS_MAX: usize = 256;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Authentication: which of the sockets.
    Auth(u16),
    /// Accounting: which of the sockets.
    Accounting(u16),
    /// Orders.
    Dynamic,
}

/// What came.
pub(in super::super) struct Datagram {
    pub(super) purpose: Purpose,
    pub(super) from: SocketAddr,
    pub(super) bytes: Bytes,
}

/// All sockets of one server.
pub(super) struct Sockets {
    auth: Vec<UdpSocket>,
    accounting: Vec<UdpSocket>,
    dynamic: Option<UdpSocket>,
    datagrams: mpsc::Receiver<Datagram>,
    sender: mpsc::Sender<Datagram>,
    readers: Vec<JoinHandle<()>>,
    orders_reader: Option<JoinHandle<()>>,
}

impl Sockets {
    pub(super) fn open(bind: Ipv4Addr, count: u16, has_accounting: bool) -> std::io::Result<Self> {
        let (sender, datagrams) = mpsc::channel(DATAGRAMS_MAX);
        let mut readers = Vec::new();
        let mut open = |address: SocketAddr, purpose| {
            let socket = UdpSocket::bind(address)?;
            readers.push(listen(&socket, purpose, &sender)?);
            Ok(socket)
        };
        let any = SocketAddr::new(IpAddr::V4(bind), 0);
        let mut many = |purpose: fn(u16) -> Purpose| {
            let all = (0..count).map(|socket| open(any, purpose(socket)));
            all.collect::<std::io::Result<Vec<_>>>()
        };
        let auth = many(Purpose::Auth)?;
        let accounting = if has_accounting {
            many(Purpose::Accounting)?
        } else {
            Vec::new()
        };
        Ok(Self {
            auth,
            accounting,
            dynamic: None,
            datagrams,
            sender,
            readers,
            orders_reader: None,
        })
    }

    /// Orders come to this socket.
    pub(super) fn hear_orders(&mut self, socket: UdpSocket) -> std::io::Result<()> {
        let reader = listen(&socket, Purpose::Dynamic, &self.sender)?;
        self.orders_reader = Some(reader);
        self.dynamic = Some(socket);
        Ok(())
    }

    /// Orders come to another process.
    pub(super) fn ignore_orders(&mut self) {
        if let Some(reader) = self.orders_reader.take() {
            reader.abort();
        }
        self.dynamic = None;
    }

    /// The socket that orders come to.
    pub(super) const fn dynamic(&self) -> Option<&UdpSocket> {
        self.dynamic.as_ref()
    }

    /// The next datagram. Nothing is lost when the future is dropped.
    pub(super) async fn receive(&mut self) -> Datagram {
        match self.datagrams.recv().await {
            Some(datagram) => datagram,
            // This has the other end as well.
            None => std::future::pending().await,
        }
    }

    /// Sends what a client wants sent, or says what it says.
    pub(super) fn carry_out(
        &self,
        output: &Output,
        purpose: fn(u16) -> Purpose,
    ) -> Option<RadiusEvent> {
        let (sockets, what) = match purpose(0) {
            Purpose::Auth(_) => (&self.auth, "authentication"),
            Purpose::Accounting(_) | Purpose::Dynamic => (&self.accounting, "accounting"),
        };
        let text = match output {
            Output::Transmit { socket, to, bytes } => {
                if let Some(socket) = sockets.get(usize::from(*socket)) {
                    let _ = socket.send_to(bytes, *to);
                }
                return None;
            }
            Output::Answered { .. } | Output::Failed { .. } => return None,
            Output::Forged { server, forged } => {
                format!("RADIUS: something from {server} does not count: {forged}")
            }
            Output::Dead { server } => {
                format!("RADIUS: {server} does not answer, it is left alone for {what}")
            }
            Output::Alive { server } => format!("RADIUS: {server} answers again ({what})"),
        };
        Some(RadiusEvent::Say(text))
    }

    /// Answers an order.
    pub(super) fn answer(&self, to: SocketAddr, bytes: &[u8]) {
        if let Some(socket) = &self.dynamic {
            let _ = socket.send_to(bytes, to);
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for reader in self.readers.iter().chain(&self.orders_reader) {
            reader.abort();
        }
    }
}

fn listen(
    socket: &UdpSocket,
    purpose: Purpose,
    sender: &mpsc::Sender<Datagram>,
) -> std::io::Result<JoinHandle<()>> {
    socket.set_nonblocking(true)?;
    // The runtime's half would not send before it has heard that it may.
    let reader = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
    Ok(tokio_uring::spawn(read(reader, purpose, sender.clone())))
}

async fn read(socket: tokio::net::UdpSocket, purpose: Purpose, datagrams: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        // An error is news of a datagram that was not delivered (ICMP): the socket lives on.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        let datagram = Datagram {
            purpose,
            from,
            bytes,
        };
        if datagrams.send(datagram).await.is_err() {
            return;
        }
    }
}
