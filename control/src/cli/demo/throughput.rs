//! TCP through the tunnel, one stream, one way at a time. The receiving end counts, so that what
//! lies in the sender's buffers is not taken for delivered.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Port of the counterpart, inside the tunnel.
pub(in crate::cli) const PORT: u16 = 5001;
const BLOCK: usize = 128 * 1024;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A stalled tunnel must not stall the demonstration.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// Asks the counterpart to receive and count.
const RECEIVE: u8 = b'R';
/// Asks the counterpart to send.
const SEND: u8 = b'S';

/// Answers every connection to `listener`, until the process ends.
pub(in crate::cli) fn serve(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        std::thread::spawn(move || {
            // A broken connection is the other end's to report.
            let _ = answer(stream);
        });
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(STALL_LIMIT))?;
    stream.set_write_timeout(Some(STALL_LIMIT))?;
    let mut request = [0; 5];
    stream.read_exact(&mut request)?;
    let [kind, millis @ ..] = request;
    let span = Duration::from_millis(u64::from(u32::from_be_bytes(millis)));
    if kind == SEND {
        return send(&mut stream, span);
    }
    let (bytes, elapsed) = receive(&mut stream)?;
    stream.write_all(&bytes.to_be_bytes())?;
    stream.write_all(&(elapsed.as_nanos() as u64).to_be_bytes())
}

/// Sends for `span`; Mbit/s as the counterpart counted them.
pub(in crate::cli) fn measure_up(peer: Ipv4Addr, span: Duration) -> std::io::Result<f64> {
    let mut stream = connect(peer, RECEIVE, span)?;
    send(&mut stream, span)?;
    let mut report = [0; 16];
    stream.read_exact(&mut report)?;
    let (bytes, nanos) = report.split_at(8);
    let number = |octets: &[u8]| u64::from_be_bytes(octets.try_into().unwrap_or_default());
    Ok(mbps(number(bytes), Duration::from_nanos(number(nanos))))
}

/// Receives for `span`; Mbit/s.
pub(in crate::cli) fn measure_down(peer: Ipv4Addr, span: Duration) -> std::io::Result<f64> {
    let mut stream = connect(peer, SEND, span)?;
    let (bytes, elapsed) = receive(&mut stream)?;
    Ok(mbps(bytes, elapsed))
}

/// Mbit/s to or from a peer for a time.
pub(in crate::cli) type Measurement = fn(Ipv4Addr, Duration) -> std::io::Result<f64>;

/// Runs every measurement of `all` at the same time; the sum of their figures.
pub(in crate::cli) fn measure_together(
    peer: Ipv4Addr,
    span: Duration,
    all: &[Measurement],
) -> std::io::Result<f64> {
    std::thread::scope(|scope| {
        let running: Vec<_> = all
            .iter()
            .map(|measure| scope.spawn(move || measure(peer, span)))
            .collect();
        let broken = |_| std::io::Error::other("a measuring thread ended early");
        running
            .into_iter()
            .map(|thread| thread.join().map_err(broken)?)
            .sum()
    })
}

fn connect(peer: Ipv4Addr, kind: u8, span: Duration) -> std::io::Result<TcpStream> {
    let address = SocketAddrV4::new(peer, PORT).into();
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
    stream.set_read_timeout(Some(STALL_LIMIT))?;
    stream.set_write_timeout(Some(STALL_LIMIT))?;
    let millis = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    let mut request = [kind, 0, 0, 0, 0];
    request[1..].copy_from_slice(&millis.to_be_bytes());
    stream.write_all(&request)?;
    Ok(stream)
}

fn send(stream: &mut TcpStream, span: Duration) -> std::io::Result<()> {
    let block = vec![0x5a; BLOCK];
    let start = Instant::now();
    while start.elapsed() < span {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// Octets until the other end has finished, and the time from the first of them to the last.
fn receive(stream: &mut TcpStream) -> std::io::Result<(u64, Duration)> {
    let mut block = vec![0; BLOCK];
    let mut bytes = 0;
    let mut start = None;
    loop {
        let length = stream.read(&mut block)?;
        let start = *start.get_or_insert_with(Instant::now);
        if length == 0 {
            return Ok((bytes, start.elapsed()));
        }
        bytes += length as u64;
    }
}

fn mbps(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 * 8.0 / 1e6 / elapsed.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_measured_over_loopback() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
        std::thread::spawn(move || serve(&listener));
        let span = Duration::from_millis(50);
        assert!(measure_up(Ipv4Addr::LOCALHOST, span).unwrap() > 0.0);
        assert!(measure_down(Ipv4Addr::LOCALHOST, span).unwrap() > 0.0);
    }
}
