//! RADIUS as a client of several servers (RFC 2865 2.4 to 2.6, RFC 2866, RFC 5080 2.2), and as who
//! is told to change or end sessions (RFC 5176). Sans I/O, as everything here: datagrams and the
//! time come in, [`Output`]s go out.
//!
//! The servers of a [`Client`] stand in the order in which they are asked. One that lets a request
//! pass without a word, however often it was repeated, is dead for a while; what waits for it goes
//! to the next, at once. When the while is over, one request tries it again, and the others follow
//! when it has answered.

mod accounting;
mod client;
mod dynamic;
mod health;
mod quota;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use bytes::Bytes;

use super::auth::Secret;
use crate::wire::radius::{AttributeList, Forged, MessageAuthenticator};

pub use accounting::{Accounting, AccountingConfig, AccountingOutput, Record, RecordKind};
pub use client::{Client, Counters};
pub use dynamic::{
    Change, DynamicClient, DynamicServer, Identity, Order, Received, SessionKey, change_of,
};

/// Requests that may wait for a free identifier. Beyond them the servers are too slow for what
/// comes in, and a user who waits longer gives up.
pub const WAITING_MAX: usize = 4_096;
/// Identifiers that one socket has towards one server (RFC 2865 3).
pub const IDS: u32 = 256;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Where it listens.
    pub address: SocketAddr,
    /// Shared with it.
    pub secret: Secret,
    /// Whether its replies count without Message-Authenticator.
    pub message_authenticator: MessageAuthenticator,
}

/// How a client behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// In the order in which they are asked.
    pub servers: Vec<ServerSpec>,
    /// From sending a request to sending it again; up to a tenth more or less, by chance.
    pub timeout_ms: u64,
    /// How often one server gets the same request.
    pub tries: u32,
    /// How long a dead server is left alone.
    pub dead_ms: u64,
    /// Sockets to send from; each has 256 requests under way to each server.
    pub sockets: u16,
    /// Ask dead servers when no other is left. Who has secrets of his own to fall back to does
    /// not.
    pub ask_the_dead: bool,
}

/// Names a request between who asks and the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A question to whichever server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Access-Request.
    Access {
        /// All but User-Password and Message-Authenticator.
        attributes: AttributeList,
        /// For User-Password, at most 128 octets.
        password: Option<Secret>,
    },
    /// Accounting-Request.
    Accounting {
        /// All but Acct-Delay-Time.
        attributes: AttributeList,
        /// When it happened, for Acct-Delay-Time.
        at: super::Time,
    },
}

/// What a client wants done, or has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Transmit {
        /// From this socket: less than `ClientConfig::sockets`.
        socket: u16,
        /// To this server.
        to: SocketAddr,
        /// What.
        bytes: Bytes,
    },
    /// A server answered.
    Answered {
        /// Which request.
        token: Token,
        /// A proved packet.
        reply: Bytes,
        /// Of the request: what is hidden in the reply is hidden with it.
        authenticator: [u8; 16],
        /// Shared with the server that answered.
        secret: Secret,
    },
    /// No server answered, or there are too many requests.
    Failed {
        /// Which request.
        token: Token,
    },
    /// Something came from a server's address that it did not make, or made with another secret.
    Forged {
        /// Whose address.
        server: SocketAddr,
        /// Why it does not count.
        forged: Forged,
    },
    /// A server is dead from now on.
    Dead {
        /// Which.
        server: SocketAddr,
    },
    /// It answers again.
    Alive {
        /// Which.
        server: SocketAddr,
    },
}
