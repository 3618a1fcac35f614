//! The TCP side of control connections (RFC 2637 1.3): connect, accept, read, write.
//!
//! Each connection has a task that reads, and speaks to the control loop through a bounded queue.
//! What is to be written goes into the socket's buffer at once: messages are short and rare. A
//! connection whose peer does not read gets a task that writes, and a bounded queue to it, so that
//! a slow or hostile peer costs a fixed amount of memory, and a usual one next to none.
//!
//! A task waits until the socket is ready, and only then reads or writes, in one call that does not
//! wait. So it can be stopped where it waits, and no octet is lost, when the sockets go over to
//! another process. (A read that the ring has in flight could still take octets after that.)

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

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
    outgoing: Rc<Outgoing>,
    writer: JoinHandle<()>,
}

/// What waits to be written.
#[derive(Default)]
struct Outgoing {
    queue: RefCell<VecDeque<Bytes>>,
    news: Notify,
    /// Nothing follows what is queued.
    is_last: Cell<bool>,
}

/// All control connections of this process.
pub(crate) struct Transport {
    config: TransportConfig,
    connections: HashMap<ConnectionId, Connection>,
    connecting: HashMap<ConnectionId, JoinHandle<()>>,
    /// Writers of closed connections that may still have something to write.
    closing: Vec<JoinHandle<()>>,
    inputs: mpsc::Sender<TransportInput>,
    listeners: Vec<(SocketAddrV4, Rc<TcpListener>, JoinHandle<()>)>,
    is_paused: watch::Sender<bool>,
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
            is_paused: watch::Sender::new(false),
        };
        (transport, receiver)
    }

    /// Accepts connections on `address` until the transport is dropped.
    pub(crate) fn listen(&mut self, address: SocketAddrV4) -> std::io::Result<()> {
        self.listen_with(address, bind(address)?)
    }

    /// Accepts connections through a socket that listens on `address` already.
    pub(crate) fn listen_with(
        &mut self,
        address: SocketAddrV4,
        listener: std::net::TcpListener,
    ) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = Rc::new(TcpListener::from_std(listener)?);
        let task = self.spawn_accept(&listener);
        self.listeners.push((address, listener, task));
        Ok(())
    }

    fn spawn_accept(&self, listener: &Rc<TcpListener>) -> JoinHandle<()> {
        let (inputs, is_paused) = (self.inputs.clone(), self.is_paused.subscribe());
        tokio_uring::spawn(accept(Rc::clone(listener), inputs, is_paused))
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

    /// Starts to read from and write to `stream` under the name `connection`; first `unsent`.
    pub(crate) fn adopt(&mut self, connection: ConnectionId, stream: TcpStream, unsent: Bytes) {
        self.connecting.remove(&connection);
        let stream = Rc::new(stream);
        let mut known = Connection {
            reader: self.spawn_read(connection, &stream),
            stream,
            backlog: None,
        };
        if !unsent.is_empty() {
            self.queue(&mut known, unsent);
        }
        self.connections.insert(connection, known);
    }

    fn spawn_read(&self, connection: ConnectionId, stream: &Rc<TcpStream>) -> JoinHandle<()> {
        let (inputs, is_paused) = (self.inputs.clone(), self.is_paused.subscribe());
        tokio_uring::spawn(read(Rc::clone(stream), connection, inputs, is_paused))
    }

    fn spawn_write(&self, stream: &Rc<TcpStream>, outgoing: &Rc<Outgoing>) -> JoinHandle<()> {
        let is_paused = self.is_paused.subscribe();
        let writing = write(Rc::clone(stream), Rc::clone(outgoing), is_paused);
        tokio_uring::spawn(writing)
    }

    /// Sends or queues `bytes`; false when the peer has not read for so long that the queue is
    /// full.
    pub(crate) fn send(&mut self, connection: ConnectionId, bytes: Bytes) -> bool {
        let Some(mut known) = self.connections.remove(&connection) else {
            return true;
        };
        let is_taken = match &known.backlog {
            Some(_) => self.queue(&mut known, bytes),
            None => match send_now(&known.stream, bytes) {
                Some(rest) => self.queue(&mut known, rest),
                None => true,
            },
        };
        self.connections.insert(connection, known);
        is_taken
    }

    fn queue(&self, known: &mut Connection, bytes: Bytes) -> bool {
        let backlog = known.backlog.get_or_insert_with(|| {
            let outgoing = Rc::default();
            let writer = self.spawn_write(&known.stream, &outgoing);
            Backlog { outgoing, writer }
        });
        let mut queue = backlog.outgoing.queue.borrow_mut();
        let has_room = queue.len() < WRITES_MAX;
        if has_room {
            queue.push_back(bytes);
            backlog.outgoing.news.notify_one();
        }
        has_room
    }

    /// Stops to accept, read and write; returns when that is so. Whoever waits for it takes what
    /// has been read until then out of the other end of the queue meanwhile.
    pub(crate) fn pause(&mut self) -> impl Future<Output = ()> + use<> {
        self.is_paused.send_replace(true);
        let mut tasks = Vec::new();
        for known in self.connections.values_mut() {
            tasks.push(std::mem::replace(&mut known.reader, nothing()));
            if let Some(backlog) = &mut known.backlog {
                tasks.push(std::mem::replace(&mut backlog.writer, nothing()));
            }
        }
        for (_, _, task) in &mut self.listeners {
            tasks.push(std::mem::replace(task, nothing()));
        }
        async move {
            futures::future::join_all(tasks).await;
        }
    }

    /// Goes on after `pause`.
    pub(crate) fn resume(&mut self) {
        self.is_paused.send_replace(false);
        let mut connections = std::mem::take(&mut self.connections);
        for (connection, known) in &mut connections {
            known.reader = self.spawn_read(*connection, &known.stream);
            if let Some(backlog) = &mut known.backlog {
                backlog.writer = self.spawn_write(&known.stream, &backlog.outgoing);
            }
        }
        self.connections = connections;
        let mut listeners = std::mem::take(&mut self.listeners);
        for (_, listener, task) in &mut listeners {
            *task = self.spawn_accept(listener);
        }
        self.listeners = listeners;
    }

    /// Forgets these connections, and the sockets that listen, without a word to anybody: they are
    /// another process's. Only while paused.
    pub(crate) fn let_go(&mut self, connections: impl Iterator<Item = ConnectionId>) {
        self.listeners.clear();
        for connection in connections {
            self.connections.remove(&connection);
        }
    }

    /// The sockets that listen.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (SocketAddrV4, RawFd)> {
        let listeners = self.listeners.iter();
        listeners.map(|(address, listener, _)| (*address, listener.as_raw_fd()))
    }

    /// A connection's socket, and what has not been written to it.
    pub(crate) fn connection(&self, connection: ConnectionId) -> Option<(RawFd, Vec<u8>)> {
        let known = self.connections.get(&connection)?;
        let unsent = known.backlog.as_ref().map_or_else(Vec::new, |backlog| {
            let queue = backlog.outgoing.queue.borrow();
            let octets: Vec<&[u8]> = queue.iter().map(|bytes| &bytes[..]).collect();
            octets.concat()
        });
        Some((known.stream.as_raw_fd(), unsent))
    }

    /// Ends a connection after what has been queued. Nothing more is heard of it.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        if let Some(task) = self.connecting.remove(&connection) {
            task.abort();
        }
        if let Some(known) = self.connections.remove(&connection) {
            known.reader.abort();
            let Some(backlog) = known.backlog else {
                let _ = SockRef::from(&*known.stream).shutdown(Shutdown::Both);
                return;
            };
            backlog.outgoing.is_last.set(true);
            backlog.outgoing.news.notify_one();
            self.closing.retain(|writer| !writer.is_finished());
            self.closing
                .push(tokio_uring::spawn(part(known.stream, backlog.writer)));
        }
    }

    /// Whether `connection` is still ours: late news of a closed one is not passed on.
    pub(crate) fn knows(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection) || self.connecting.contains_key(&connection)
    }

    /// Our end of a connection: the address that the peer of an accepted one has called.
    pub(crate) fn local_address(&self, connection: ConnectionId) -> Option<Ipv4Addr> {
        let known = self.connections.get(&connection)?;
        match known.stream.local_addr().ok()? {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        }
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
        let listeners = self.listeners.iter().map(|(_, _, task)| task);
        for task in listeners.chain(self.connecting.values()) {
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

/// Puts what there is room for into the socket's buffer at once; the rest comes back.
fn send_now(stream: &TcpStream, bytes: Bytes) -> Option<Bytes> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match send(stream.as_raw_fd(), &bytes, flags) {
        Ok(sent) => Some(bytes.slice(sent..)).filter(|rest| !rest.is_empty()),
        Err(Errno::EAGAIN | Errno::EINTR) => Some(bytes),
        Err(_) => {
            // Who reads will say so.
            let _ = SockRef::from(stream).shutdown(Shutdown::Both);
            None
        }
    }
}

/// A task that is over.
fn nothing() -> JoinHandle<()> {
    tokio_uring::spawn(async {})
}

async fn accept(
    listener: Rc<TcpListener>,
    inputs: mpsc::Sender<TransportInput>,
    mut is_paused: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = is_paused.wait_for(|is_paused| *is_paused) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
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
        SockRef::from(&socket).set_mark(mark)?;
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
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn read(
    stream: Rc<TcpStream>,
    connection: ConnectionId,
    inputs: mpsc::Sender<TransportInput>,
    mut is_paused: watch::Receiver<bool>,
) {
    loop {
        let ready = tokio::select! {
            biased;
            _ = is_paused.wait_for(|is_paused| *is_paused) => return,
            ready = stream.readable() => ready,
        };
        let mut buffer = [0; READ_BYTES];
        let input = match ready.and_then(|()| stream.try_read(&mut buffer)) {
            Ok(0) => TransportInput::Disconnected {
                connection,
                error: None,
            },
            Ok(length) => {
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                TransportInput::Bytes { connection, bytes }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
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
async fn part(stream: Rc<TcpStream>, writer: JoinHandle<()>) {
    if tokio::time::timeout(CLOSE_PATIENCE, writer).await.is_err() {
        let _ = SockRef::from(&*stream).shutdown(Shutdown::Both);
    }
}

async fn write(
    stream: Rc<TcpStream>,
    outgoing: Rc<Outgoing>,
    mut is_paused: watch::Receiver<bool>,
) {
    loop {
        let first = outgoing.queue.borrow().front().cloned();
        let Some(bytes) = first else {
            if outgoing.is_last.get() {
                break;
            }
            tokio::select! {
                biased;
                _ = is_paused.wait_for(|is_paused| *is_paused) => return,
                () = outgoing.news.notified() => continue,
            }
        };
        let ready = tokio::select! {
            biased;
            // The last words of a connection that is closed are nobody else's.
            _ = is_paused.wait_for(|is_paused| *is_paused), if !outgoing.is_last.get() => return,
            ready = stream.writable() => ready,
        };
        match ready.and_then(|()| stream.try_write(&bytes)) {
            Ok(length) => outgoing.written(length),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let _ = SockRef::from(&*stream).shutdown(Shutdown::Both);
}

impl Outgoing {
    /// Forgets so many octets of the first in the queue.
    fn written(&self, length: usize) {
        let mut queue = self.queue.borrow_mut();
        if let Some(mut first) = queue.pop_front()
            && length < first.len()
        {
            first.advance(length);
            queue.push_front(first);
        }
    }
}
