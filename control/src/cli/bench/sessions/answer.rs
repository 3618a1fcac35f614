//! The counterpart of `bench sessions --traffic`, at the server's side: echoes UDP, takes and makes
//! TCP. One thread for any number of streams, so that it takes no more from the machine than it
//! must.

use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// UDP and TCP.
pub(super) const PORT: u16 = 5001;
/// Asks the counterpart to receive and count; milliseconds follow, four octets.
pub(super) const RECEIVE: u8 = b'R';
/// Asks it to send, likewise.
pub(super) const SEND: u8 = b'S';
const BLOCK: usize = 64 * 1024;
/// Linux's own default. With BBR, which some machines have in its place, a thousand streams pace two
/// segments each, and what is measured is its timers.
const CONGESTION_CONTROL: &[u8] = b"cubic";
const DATAGRAM_BYTES_MAX: usize = 2048;
/// For who asks.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Answers until the process ends.
pub(super) fn answer() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        // Streams have it from the listener.
        set_congestion_control(&listener);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20)?;
        tokio::spawn(echo(socket));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // A broken stream is the other end's to report.
            tokio::spawn(async move { serve(stream).await.ok() });
        }
    })
}

/// Both ends do this, so that figures of different machines compare; before there is a connection,
/// since who has begun to pace goes on. A kernel without it keeps what it has.
pub(super) fn set_congestion_control(socket: &impl AsFd) {
    let _ = socket2::SockRef::from(socket).set_tcp_congestion(CONGESTION_CONTROL);
}

async fn echo(socket: UdpSocket) {
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(&datagram[..length], from).await;
        }
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; 5];
    tokio::time::timeout(REQUEST_LIMIT, stream.read_exact(&mut request)).await??;
    let [kind, millis @ ..] = request;
    let span = Duration::from_millis(u64::from(u32::from_be_bytes(millis)));
    if kind == SEND {
        return send_for(&stream, span).await;
    }
    let bytes = receive_for(&stream, span).await?;
    stream.write_all(&bytes.to_be_bytes()).await?;
    // Unread octets would turn the end into a reset that overtakes the report.
    receive_for(&stream, REQUEST_LIMIT).await?;
    Ok(())
}

/// Sends as much as goes, for `span`.
pub(super) async fn send_for(stream: &TcpStream, span: Duration) -> io::Result<()> {
    static OCTETS: [u8; BLOCK] = [0x5a; BLOCK];
    let began_at = Instant::now();
    let sending = async {
        while began_at.elapsed() < span {
            stream.writable().await?;
            match stream.try_write(&OCTETS) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Ok(())
    };
    // A stream that stands still ends, too.
    tokio::time::timeout(span, sending).await.unwrap_or(Ok(()))
}

/// Octets that came within `span`, or until the other end had finished.
pub(super) async fn receive_for(stream: &TcpStream, span: Duration) -> io::Result<u64> {
    let mut total = 0;
    let receiving = async {
        loop {
            stream.readable().await?;
            match read_block(stream) {
                Ok(0) => return Ok(()),
                Ok(length) => total += length as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(span, receiving).await {
        Ok(Err(error)) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(total),
    }
}

/// A block of its own for each stream would be most of the memory of a thousand.
fn read_block(stream: &TcpStream) -> io::Result<usize> {
    thread_local! {
        static OCTETS: RefCell<Vec<u8>> = RefCell::new(vec![0; BLOCK]);
    }
    OCTETS.with_borrow_mut(|block| stream.try_read(block))
}
