//! The socket between the two processes of a take-over: messages, and descriptors with them.
//!
//! ```text
//! octets of the message (u32) | descriptors with this header (u32) | message
//! ```
//!
//! Numbers are in the host's byte order: it is one host. More descriptors than go with one header
//! come before, with headers of messages without octets. A message is JSON; it may hold keys, and is
//! wiped when it has been read or sent.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use dataplane::sys::fd_passing::{self, DESCRIPTORS_MAX, Peer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// Both numbers of a header.
const HEADER_LEN: usize = 8;
/// A message is no longer: some ten times that of 65,535 sessions.
const MESSAGE_LEN_MAX: usize = 1 << 30;
/// How much of it is allocated before it has come.
const CHUNK_LEN: usize = 1 << 20;

/// One end.
#[derive(Debug)]
pub(in crate::driver::server) struct Channel {
    stream: UnixStream,
    peer: Peer,
}

impl Channel {
    /// The end of the new process.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` when nobody listens there.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let stream = StdUnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Self::new(UnixStream::from_std(stream)?)
    }

    /// An end that has been accepted, or connected.
    ///
    /// # Errors
    /// `PermissionDenied` when the other end is not root's.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let peer = fd_passing::peer(stream.as_fd())?;
        if peer.uid != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self { stream, peer })
    }

    /// The process at the other end.
    pub(super) const fn peer(&self) -> Peer {
        self.peer
    }

    /// Sends a message, and copies of these descriptors before it.
    ///
    /// # Errors
    /// The other end is gone.
    pub(super) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[RawFd],
    ) -> io::Result<()> {
        let text = Zeroizing::new(serde_json::to_vec(message)?);
        let mut rest = descriptors;
        while rest.len() > DESCRIPTORS_MAX {
            let (some, others) = rest.split_at(DESCRIPTORS_MAX);
            self.send_frame(&[], some).await?;
            rest = others;
        }
        self.send_frame(&text, rest).await
    }

    async fn send_frame(&self, text: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
        let too_long = |_| io::Error::other("too long a message");
        let len = u32::try_from(text.len()).map_err(too_long)?;
        let count = u32::try_from(descriptors.len()).map_err(too_long)?;
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&len.to_ne_bytes());
        header[4..].copy_from_slice(&count.to_ne_bytes());
        self.send_all(&header, descriptors).await?;
        self.send_all(text, &[]).await
    }

    async fn send_all(&self, mut octets: &[u8], mut descriptors: &[RawFd]) -> io::Result<()> {
        while !octets.is_empty() {
            let sending = || fd_passing::send(self.stream.as_fd(), octets, descriptors);
            let sent = self.stream.async_io(Interest::WRITABLE, sending).await?;
            octets = octets.get(sent..).unwrap_or_default();
            descriptors = &[];
        }
        Ok(())
    }

    /// The next message, and the descriptors that came with it.
    ///
    /// # Errors
    /// `TimedOut` after `limit`; `UnexpectedEof` when the other end is gone; `InvalidData` when the
    /// message makes no sense to this version.
    pub(super) async fn receive<M: DeserializeOwned>(
        &self,
        limit: Duration,
    ) -> io::Result<(M, Vec<OwnedFd>)> {
        let received = tokio::time::timeout(limit, self.receive_frames()).await;
        let (text, descriptors) = received.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok((serde_json::from_slice(&text)?, descriptors))
    }

    async fn receive_frames(&self) -> io::Result<(Zeroizing<Vec<u8>>, Vec<OwnedFd>)> {
        let mut descriptors = Vec::new();
        loop {
            let mut header = [0; HEADER_LEN];
            self.receive_exactly(&mut header, &mut descriptors).await?;
            let [a, b, c, d, ..] = header;
            let len = u32::from_ne_bytes([a, b, c, d]) as usize;
            if len > MESSAGE_LEN_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if len > 0 {
                let mut text = Zeroizing::new(Vec::new());
                while text.len() < len {
                    let begin = text.len();
                    text.resize(len.min(begin + CHUNK_LEN), 0);
                    self.receive_exactly(&mut text[begin..], &mut descriptors)
                        .await?;
                }
                return Ok((text, descriptors));
            }
        }
    }

    async fn receive_exactly(
        &self,
        mut buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> io::Result<()> {
        while !buffer.is_empty() {
            let receiving = || fd_passing::receive(self.stream.as_fd(), buffer, descriptors);
            let len = self.stream.async_io(Interest::READABLE, receiving).await?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer = buffer.get_mut(len..).unwrap_or_default();
        }
        Ok(())
    }

    /// Waits until the other end is closed, or `limit` has passed.
    pub(super) async fn closed(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.receive_frames()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (a, b) = UnixStream::pair().expect("a pair");
        let peer = Peer { pid: 1, uid: 0 };
        (Channel { stream: a, peer }, Channel { stream: b, peer })
    }

    #[test]
    fn a_long_message_comes_with_all_its_descriptors_in_their_order() {
        crate::driver::runtime::block_on(async {
            let (ours, theirs) = pair();
            let long = "x".repeat(3 * CHUNK_LEN);
            let files: Vec<_> = (0..3 * DESCRIPTORS_MAX + 1)
                .map(|_| nix::unistd::dup(io::stderr()).expect("a descriptor"))
                .collect();
            let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
            let limit = Duration::from_secs(10);
            let (sent, received) =
                tokio::join!(ours.send(&long, &numbers), theirs.receive::<String>(limit));
            sent.expect("it is sent");
            let (text, descriptors) = received.expect("it comes");
            assert_eq!(text, long);
            assert_eq!(descriptors.len(), files.len());
        })
        .expect("a runtime");
    }

    #[test]
    fn the_end_of_the_other_process_is_no_message() {
        crate::driver::runtime::block_on(async {
            let (ours, theirs) = pair();
            drop(ours);
            let received = theirs.receive::<String>(Duration::from_secs(10)).await;
            let error = received.expect_err("nobody is there");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        })
        .expect("a runtime");
    }

    #[test]
    fn half_a_message_is_none() {
        crate::driver::runtime::block_on(async {
            let (ours, theirs) = pair();
            ours.send_all(&[9, 0, 0, 0, 0, 0, 0, 0, b'"'], &[])
                .await
                .expect("it is sent");
            drop(ours);
            let received = theirs.receive::<String>(Duration::from_secs(10)).await;
            let error = received.expect_err("the rest is missing");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        })
        .expect("a runtime");
    }
}
