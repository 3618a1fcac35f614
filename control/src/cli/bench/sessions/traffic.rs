//! What flows through the tunnels: packets that come back, counted and timed, or TCP.
//!
//! All of it takes the way of any program's packets: the IP stack of this network namespace, the
//! one TUN device, the data plane, and the same at the server.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Barrier;

use super::answer;
use super::report::Percentiles;

/// What flows while the tunnels are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Pattern {
    /// Nothing but the protocols' own echoes.
    #[default]
    Idle,
    /// ICMP echoes to the server, --packets-per-s over all tunnels.
    Ping,
    /// UDP to the counterpart, which echoes it.
    Udp,
    /// One TCP stream through each tunnel, to the counterpart.
    Tcp,
    /// Likewise, from the counterpart.
    TcpDown,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount {
    pub span: Duration,
    /// Over all tunnels.
    pub packets_per_s: f64,
    /// Behind the ICMP or UDP header.
    pub payload_bytes: usize,
    /// TCP streams through each tunnel.
    pub streams_each: usize,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Packets {
        pattern: Pattern,
        sent: u64,
        came_back: u64,
        lost: u64,
        round_trip_ms: Percentiles,
    },
    Streams {
        pattern: Pattern,
        streams: usize,
        failed: usize,
        mbps: f64,
        /// Of the slowest stream.
        mbps_min: f64,
        /// Of the fastest.
        mbps_max: f64,
    },
}

/// Our and the server's address inside one tunnel.
pub(super) type Ends = (Ipv4Addr, Ipv4Addr);

/// Sends what `pattern` says through all tunnels and counts what arrives. `None` when idle.
pub(super) fn run(pattern: Pattern, ends: &[Ends], amount: Amount) -> io::Result<Option<Outcome>> {
    if ends.is_empty() {
        return Ok(None);
    }
    match pattern {
        Pattern::Idle => Ok(None),
        Pattern::Ping | Pattern::Udp => packets(pattern, ends, amount).map(Some),
        Pattern::Tcp | Pattern::TcpDown => streams(pattern, ends, amount).map(Some),
    }
}

const IPV4_HEADER_LEN: usize = 20;
/// ICMP's and UDP's are as long.
const HEADER_LEN: usize = 8;
/// Marks our packets among others'.
const MARK: [u8; 8] = *b"pptpload";
/// UDP source port.
const SOURCE_PORT: u16 = 5002;
/// For the last packets to come back.
const TAIL: Duration = Duration::from_millis(500);
const PACKET_BYTES_MAX: usize = 2048;

fn packets(pattern: Pattern, ends: &[Ends], amount: Amount) -> io::Result<Outcome> {
    let began_at = Instant::now();
    let is_over = Arc::new(AtomicBool::new(false));
    let receiver = open_receiver(pattern)?;
    let stop = Arc::clone(&is_over);
    let header_len = match pattern {
        Pattern::Ping => IPV4_HEADER_LEN + HEADER_LEN,
        _ => 0,
    };
    let receiving =
        std::thread::spawn(move || receive_packets(&receiver, header_len, began_at, &stop));
    let sent = send_packets(pattern, ends, amount, began_at);
    std::thread::sleep(TAIL);
    is_over.store(true, Ordering::Relaxed);
    let received = receiving.join();
    let round_trips =
        received.map_err(|_| io::Error::other("the receiving thread ended early"))??;
    let (sent, came_back) = (sent?, round_trips.len());
    Ok(Outcome::Packets {
        pattern,
        sent,
        came_back,
        lost: sent.saturating_sub(came_back),
        round_trip_ms: Percentiles::of(&round_trips),
    })
}

fn open_receiver(pattern: Pattern) -> io::Result<Socket> {
    let socket = match pattern {
        Pattern::Ping => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?,
        _ => Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?,
    };
    if pattern == Pattern::Udp {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SOURCE_PORT);
        socket.bind(&any.into())?;
    }
    socket.set_recv_buffer_size(8 << 20)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

/// Round trips in microseconds. `header_len` octets precede what we sent.
fn receive_packets(
    mut socket: &Socket,
    header_len: usize,
    began_at: Instant,
    is_over: &AtomicBool,
) -> io::Result<Histogram<u64>> {
    let mut round_trips = Histogram::new(3).map_err(io::Error::other)?;
    round_trips.auto(true);
    let mut packet = [0; PACKET_BYTES_MAX];
    while !is_over.load(Ordering::Relaxed) {
        let length = match io::Read::read(&mut socket, &mut packet) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        // The kernel echoes what others send to us as well.
        let is_request = header_len > 0 && packet[IPV4_HEADER_LEN] != 0;
        let payload = packet[..length].get(header_len..).unwrap_or_default();
        let Some(rest) = payload.strip_prefix(&MARK).filter(|_| !is_request) else {
            continue;
        };
        if let Some(sent_at) = rest.first_chunk().map(|it| u64::from_be_bytes(*it)) {
            let now = began_at.elapsed().as_micros() as u64;
            // It fails only beyond centuries.
            let _ = round_trips.record(now.saturating_sub(sent_at));
        }
    }
    Ok(round_trips)
}

fn send_packets(
    pattern: Pattern,
    ends: &[Ends],
    amount: Amount,
    began_at: Instant,
) -> io::Result<u64> {
    // With IPPROTO_RAW, packets have their IP header, and so any source.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    let mut sent = 0;
    while began_at.elapsed() < amount.span {
        let due = (began_at.elapsed().as_secs_f64() * amount.packets_per_s) as u64;
        while sent < due {
            let (local, remote) = ends[sent as usize % ends.len()];
            let packet = packet(pattern, (local, remote), amount.payload_bytes, began_at);
            // What the kernel refuses has been lost like any other.
            let _ = socket.send_to(&packet, &SocketAddrV4::new(remote, 0).into());
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

fn packet(
    pattern: Pattern,
    (local, remote): Ends,
    payload_bytes: usize,
    began_at: Instant,
) -> Vec<u8> {
    let length = IPV4_HEADER_LEN + HEADER_LEN + payload_bytes;
    let mut packet = vec![0; length];
    packet[0] = 0x45;
    // Length and checksum are the kernel's to fill in.
    packet[8] = 64;
    packet[12..16].copy_from_slice(&local.octets());
    packet[16..20].copy_from_slice(&remote.octets());
    let payload = IPV4_HEADER_LEN + HEADER_LEN;
    packet[payload..payload + 8].copy_from_slice(&MARK);
    let now = began_at.elapsed().as_micros() as u64;
    packet[payload + 8..payload + 16].copy_from_slice(&now.to_be_bytes());
    let transport = &mut packet[IPV4_HEADER_LEN..];
    if pattern == Pattern::Ping {
        transport[0] = 8;
        let checksum = crate::cli::demo::ping::checksum(transport);
        transport[2..4].copy_from_slice(&checksum.to_be_bytes());
        packet[9] = 1;
    } else {
        let udp_len = transport.len() as u16;
        transport[..2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
        transport[2..4].copy_from_slice(&answer::PORT.to_be_bytes());
        transport[4..6].copy_from_slice(&udp_len.to_be_bytes());
        packet[9] = 17;
    }
    packet
}

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// For the counterpart's report, after the span.
const REPORT_LIMIT: Duration = Duration::from_secs(20);

fn streams(pattern: Pattern, tunnels: &[Ends], amount: Amount) -> io::Result<Outcome> {
    let span = amount.span;
    let each = |ends: &Ends| std::iter::repeat_n(*ends, amount.streams_each);
    let ends: Vec<Ends> = tunnels.iter().flat_map(each).collect();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    let results = runtime.block_on(async {
        let barrier = Arc::new(Barrier::new(ends.len()));
        let tasks: Vec<_> = ends
            .iter()
            .map(|&ends| tokio::spawn(stream(pattern, ends, span, Arc::clone(&barrier))))
            .collect();
        futures::future::join_all(tasks).await
    });
    let seconds = span.as_secs_f64();
    let mbps: Vec<f64> = results
        .into_iter()
        .filter_map(|result| Some(result.ok()?.ok()? as f64 * 8.0 / 1e6 / seconds))
        .collect();
    Ok(Outcome::Streams {
        pattern,
        streams: ends.len(),
        failed: ends.len() - mbps.len(),
        mbps: mbps.iter().sum(),
        mbps_min: mbps.iter().copied().min_by(f64::total_cmp).unwrap_or(0.0),
        mbps_max: mbps.iter().copied().max_by(f64::total_cmp).unwrap_or(0.0),
    })
}

/// Octets that arrived within `span`, as who received them counted.
async fn stream(
    pattern: Pattern,
    (local, remote): Ends,
    span: Duration,
    barrier: Arc<Barrier>,
) -> io::Result<u64> {
    let connected = tokio::time::timeout(CONNECT_LIMIT, connect(local, remote)).await;
    // All streams start together, with those that could not connect.
    barrier.wait().await;
    let mut stream = connected??;
    let kind = match pattern {
        Pattern::TcpDown => answer::SEND,
        _ => answer::RECEIVE,
    };
    let millis = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    let mut request = [kind, 0, 0, 0, 0];
    request[1..].copy_from_slice(&millis.to_be_bytes());
    stream.write_all(&request).await?;
    if pattern == Pattern::TcpDown {
        return answer::receive_for(&stream, span).await;
    }
    answer::send_for(&stream, span).await?;
    let mut report = [0; 8];
    tokio::time::timeout(REPORT_LIMIT, stream.read_exact(&mut report)).await??;
    Ok(u64::from_be_bytes(report))
}

async fn connect(local: Ipv4Addr, remote: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    answer::set_congestion_control(&socket);
    socket.bind(SocketAddrV4::new(local, 0).into())?;
    let server = SocketAddrV4::new(remote, answer::PORT).into();
    let stream = socket.connect(server).await?;
    // What is left unsent at the end is not waited for.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_what_they_say() {
        let ends = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1));
        let echo = packet(Pattern::Ping, ends, 56, Instant::now());
        assert_eq!((echo.len(), echo[9], echo[20]), (84, 1, 8));
        assert_eq!(echo[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(crate::cli::demo::ping::checksum(&echo[20..]), 0);
        let datagram = packet(Pattern::Udp, ends, 100, Instant::now());
        assert_eq!((datagram[9], &datagram[24..26]), (17, &[0, 108][..]));
    }

    #[test]
    fn without_tunnels_there_is_no_traffic() {
        let amount = Amount {
            span: Duration::from_secs(1),
            packets_per_s: 1.0,
            payload_bytes: 56,
            streams_each: 1,
        };
        assert!(run(Pattern::Tcp, &[], amount).unwrap().is_none());
    }
}
