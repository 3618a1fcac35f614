//! The TCP side of control connections (RFC 2637 1.3): connect, accept, read, write.
//!
//! Each connection has a task that reads, and speaks to the control loop through a bounded queue.
//! What is to be written goes into the socket's buffer at once: messages are short and rare. A
//! connection whose peer does not read gets a task that writes, and a bounded queue to it, so that
//! a slow or hostile peer costs a fixed amount of memory, and a usual one next to none.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_uring::net::{TcpListener, TcpStream};

use super::outer_source;
use crate::proto::ConnectionId;

/// Octets read at a time: twice the longest control message (220 octets) and change.
const READ_BYTES: usize = 512;
/// Writes that may wait for a peer that does not read.
const WRITES_MAX: usize = 64;
/// Happenings that may wait for the control loop.
const INPUTS_MAX: usize = 1024;
/// How long a peer may take to read what was queued when its connection was closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// For the three-way handshake of TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What happened on the TCP side.
pub(crate) enum TransportInput {
    Accepted {
        stream: TcpStream,
        peer: SocketAddrV4,
    },
    Connected {
        connection: ConnectionId,
        stream: TcpStream,
    },
    Bytes {
        connection: ConnectionId,
        bytes: Bytes,
    },
    Disconnected {
        connection: ConnectionId,
        error: Option<String>,
    },
}

/// How to make connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TransportConfig {
    /// Source address; `None` lets the routes choose.
    pub local: Option<Ipv4Addr>,
    /// Firewall mark of connections that are made.
    pub mark: Option<u32>,
}

struct Connection {
    stream: Rc<TcpStream>,
    reader: JoinHandle<()>,
    /// What the socket did not take.
    backlog: Option<Backlog>,
}

struct Backlog {
    writes: mpsc::Sender<Bytes>,
    writer: JoinHandle<()>,
}

/// All control connections of this process.
pub(crate) struct Transport {
    config: TransportConfig,
    connections: HashMap<ConnectionId, Connection>,
    connecting: HashMap<ConnectionId, JoinHandle<()>>,
    /// Writers of closed connections that may still have something to write.
    closing: Vec<JoinHandle<()>>,
    inputs: mpsc::Sender<TransportInput>,
    listeners: Vec<JoinHandle<()>>,
}

impl Transport {
    pub(crate) fn new(config: TransportConfig) -> (Self, mpsc::Receiver<TransportInput>) {
        let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
        let transport = Self {
            config,
            connections: HashMap::new(),
            connecting: HashMap::new(),
            closing: Vec::new(),
            inputs,
            listeners: Vec::new(),
        };
        (transport, receiver)
    }

    /// Accepts connections on `address` until the transport is dropped.
    pub(crate) fn listen(&mut self, address: SocketAddrV4) -> std::io::Result<()> {
        let listener = TcpListener::from_std(bind(address)?);
        let inputs = self.inputs.clone();
        self.listeners
            .push(tokio_uring::spawn(accept(listener, inputs)));
        Ok(())
    }

    /// Starts to connect; `Connected` or `Disconnected` follows.
    pub(crate) fn connect(&mut self, connection: ConnectionId, server: SocketAddrV4) {
        self.connect_from(connection, server, self.config.local);
    }

    /// Starts to connect from this source address.
    pub(crate) fn connect_from(
        &mut self,
        connection: ConnectionId,
        server: SocketAddrV4,
        local: Option<Ipv4Addr>,
    ) {
        let inputs = self.inputs.clone();
        let config = TransportConfig {
            local,
            ..self.config
        };
        let task = tokio_uring::spawn(async move {
            let input = match connect(server, config).await {
                Ok(stream) => TransportInput::Connected { connection, stream },
                Err(error) => TransportInput::Disconnected {
                    connection,
                    error: Some(error.to_string()),
                },
            };
            let _ = inputs.send(input).await;
        });
        self.connecting.insert(connection, task);
    }

    /// Starts to read from and write to `stream` under the name `connection`.
    pub(crate) fn adopt(&mut self, connection: ConnectionId, stream: TcpStream) {
        self.connecting.remove(&connection);
        let stream = Rc::new(stream);
        let reader = tokio_uring::spawn(read(Rc::clone(&stream), connection, self.inputs.clone()));
        let backlog = None;
        self.connections.insert(
            connection,
            Connection {
                stream,
                reader,
                backlog,
            },
        );
    }

    /// Sends or queues `bytes`; false when the peer has not read for so long that the queue is
    /// full.
    pub(crate) fn send(&mut self, connection: ConnectionId, bytes: Bytes) -> bool {
        let Some(known) = self.connections.get_mut(&connection) else {
            return true;
        };
        if let Some(backlog) = &known.backlog {
            return backlog.writes.try_send(bytes).is_ok();
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let rest = match send(known.stream.as_raw_fd(), &bytes, flags) {
            Ok(sent) if sent == bytes.len() => return true,
            Ok(sent) => bytes.slice(sent..),
            Err(Errno::EAGAIN | Errno::EINTR) => bytes,
            Err(_) => {
                // Who reads will say so.
                let _ = known.stream.shutdown(Shutdown::Both);
                return true;
            }
        };
        let (writes, queue) = mpsc::channel(WRITES_MAX);
        let writer = tokio_uring::spawn(write(Rc::clone(&known.stream), queue));
        let is_queued = writes.try_send(rest).is_ok();
        known.backlog = Some(Backlog { writes, writer });
        is_queued
    }

    /// Ends a connection after what has been queued. Nothing more is heard of it.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        if let Some(task) = self.connecting.remove(&connection) {
            task.abort();
        }
        if let Some(known) = self.connections.remove(&connection) {
            known.reader.abort();
            let Some(backlog) = known.backlog else {
                let _ = known.stream.shutdown(Shutdown::Both);
                return;
            };
            self.closing.retain(|writer| !writer.is_finished());
            self.closing
                .push(tokio_uring::spawn(part(known.stream, backlog)));
        }
    }

    /// Whether `connection` is still ours: late news of a closed one is not passed on.
    pub(crate) fn knows(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection) || self.connecting.contains_key(&connection)
    }

    /// From where GRE to the peer of a connection has to go out, unless the routes choose it.
    pub(crate) fn outer_source(
        &self,
        connection: ConnectionId,
        peer: Ipv4Addr,
    ) -> Option<Ipv4Addr> {
        let known = self.connections.get(&connection)?;
        outer_source::needed(known.stream.as_raw_fd(), peer)
    }

    /// Waits until what was queued on closed connections has gone out, or `limit` has passed.
    pub(crate) async fn flush(&mut self, limit: Duration) {
        let writers = std::mem::take(&mut self.closing);
        let _ = tokio::time::timeout(limit, futures::future::join_all(writers)).await;
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        for task in self.listeners.iter().chain(self.connecting.values()) {
            task.abort();
        }
    }
}

fn bind(address: SocketAddrV4) -> std::io::Result<std::net::TcpListener> {
    let kind = socket2::Type::STREAM;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::V4(address).into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener, inputs: mpsc::Sender<TransportInput>) {
    loop {
        match listener.accept().await {
            Ok((stream, SocketAddr::V4(peer))) => {
                let accepted = TransportInput::Accepted { stream, peer };
                if inputs.send(accepted).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            // Out of descriptors, or the connection died while it waited: neither ends listening.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connect(server: SocketAddrV4, config: TransportConfig) -> std::io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    if let Some(mark) = config.mark {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    if let Some(local) = config.local {
        socket.bind(SocketAddr::V4(SocketAddrV4::new(local, 0)))?;
    }
    let connecting = socket.connect(SocketAddr::V4(server));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| {
            std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 20 seconds")
        })??;
    // io_uring waits by itself only on blocking sockets.
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    Ok(TcpStream::from_std(stream))
}

async fn read(
    stream: Rc<TcpStream>,
    connection: ConnectionId,
    inputs: mpsc::Sender<TransportInput>,
) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let (result, returned) = stream.read(buffer).await;
        buffer = returned;
        let input = match result {
            Ok(0) => TransportInput::Disconnected {
                connection,
                error: None,
            },
            Ok(length) => {
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                TransportInput::Bytes { connection, bytes }
            }
            Err(error) => TransportInput::Disconnected {
                connection,
                error: Some(error.to_string()),
            },
        };
        let last = matches!(input, TransportInput::Disconnected { .. });
        if inputs.send(input).await.is_err() || last {
            return;
        }
    }
}

/// Ends a connection whose peer has not read for a while: what is queued may still go out, but a
/// peer that never reads does not keep it for ever.
async fn part(stream: Rc<TcpStream>, backlog: Backlog) {
    let Backlog { writes, writer } = backlog;
    drop(writes);
    if tokio::time::timeout(CLOSE_PATIENCE, writer).await.is_err() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

async fn write(stream: Rc<TcpStream>, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = queue.recv().await {
        if stream.write_all(bytes).await.0.is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}
