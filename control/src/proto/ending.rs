//! Why a tunnel ended, grouped by who is to blame, and pppd's exit status for it.

use thiserror::Error;

/// Why a call, or the attempt at one, is over. `Display` tells a person what happened and, where
/// there is one, the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Ending {
    /// This side asked for it: `down`, a signal, a shutdown.
    #[error("{0}")]
    LocalRequest(String),
    /// The peer sent a Terminate-Request, a Call-Clear-Request or a Call-Disconnect-Notify.
    #[error("the peer ended the tunnel{}", reason(.0))]
    PeerRequest(String),
    /// No TCP connection to port 1723.
    #[error(
        "cannot reach the PPTP server at {server}: {cause}. Check the address, that TCP port 1723 \
         is open, and that a PPTP server listens there"
    )]
    Unreachable {
        /// Address and port.
        server: String,
        /// Operating system's words.
        cause: String,
    },
    /// The control connection broke off or was closed while it was needed.
    #[error("the control connection to the server was lost: {0}")]
    ControlLost(String),
    /// The other end refused the control connection or the call (result and error code in words).
    #[error("the server refused {what}: {why}")]
    Refused {
        /// "the control connection" or "the call".
        what: &'static str,
        /// RFC 2637's words for the result code and error code.
        why: String,
    },
    /// The other end broke RFC 2637 on the control connection.
    #[error("the other end does not speak PPTP: {0}")]
    NotPptp(String),
    /// No answer on the control connection in time.
    #[error("the server does not answer {0} on the control connection")]
    ControlTimeout(&'static str),
    /// TCP is up, the call is established, but no GRE packet has come.
    #[error(
        "the call is up over TCP, but nothing came back over GRE (IP protocol 47): a firewall or \
         NAT between here and {server} most likely drops it. Let protocol 47 through both ways, \
         or load the NAT's PPTP helper (nf_conntrack_pptp)"
    )]
    GreSilent {
        /// Address.
        server: String,
    },
    /// The peer stopped answering negotiation packets.
    #[error("negotiation failed: {0} got no agreement")]
    NegotiationFailed(&'static str),
    /// We demanded something that the peer does not do.
    #[error("{0}")]
    PeerIncompatible(String),
    /// MPPE was demanded and not agreed.
    #[error("no encryption, so no tunnel: {ours}; {theirs}")]
    MppeRefused {
        /// What this side wanted, in words.
        ours: String,
        /// What the other side wanted or said, in words.
        theirs: String,
    },
    /// The peer did not prove who it is.
    #[error("the peer failed to authenticate itself to us{}", reason(.0))]
    PeerAuthFailed(String),
    /// The peer did not accept who we are: wrong name or password.
    #[error("the server did not accept our name and password{}", reason(.0))]
    AuthFailed(String),
    /// The password was right once, and the server wants another.
    #[error(
        "the password of {client} has expired{}: give a new one with --new-password-file FILE, or run `up -f` on a terminal to be asked for it", reason(.why)
    )]
    PasswordExpired {
        /// Our name.
        client: String,
        /// The server's words.
        why: String,
    },
    /// The password has expired, and could not be replaced by the new one that was given.
    #[error("the password has expired and was not changed: {0}")]
    PasswordNotChanged(String),
    /// There is no secret to answer the challenge with.
    #[error(
        "no secret for client \"{client}\" and server \"{server}\" in {file}: add a line \
         `{client} {server} PASSWORD *` there"
    )]
    NoSecret {
        /// Our name.
        client: String,
        /// The other's name.
        server: String,
        /// The file that was searched.
        file: String,
    },
    /// LCP echoes, or control connection echoes, were not answered.
    #[error("no answer to {0} in a row: the peer is gone or the path is dead")]
    PeerDead(&'static str),
    /// `idle`: nothing went through the tunnel for so long.
    #[error("Terminating connection due to lack of activity.")]
    IdleTimeout,
    /// `maxconnect`: the tunnel has stood for so long.
    #[error("Connect time expired")]
    ConnectTimeout,
    /// `maxoctets`, or a quota of RADIUS: the tunnel has carried all that it may.
    #[error("Traffic limit has been reached")]
    TrafficLimit,
    /// LCP hears itself (RFC 1661 6.4).
    #[error("the link is looped back: our own packets come back to us")]
    LoopedBack,
    /// IPCP could not agree on addresses.
    #[error("no IP addresses agreed: {0}")]
    NoAddresses(String),
}

fn reason(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

impl Ending {
    /// pppd's exit status (pppd(8), EXIT STATUS).
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::LocalRequest(_) => 5,
            Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::ControlTimeout(_)
            | Self::PeerRequest(_)
            | Self::ControlLost(_)
            | Self::NotPptp(_) => 16,
            Self::GreSilent { .. }
            | Self::NegotiationFailed(_)
            | Self::PeerIncompatible(_)
            | Self::MppeRefused { .. }
            | Self::NoAddresses(_) => 10,
            Self::PeerAuthFailed(_) => 11,
            Self::IdleTimeout => 12,
            Self::ConnectTimeout => 13,
            Self::PeerDead(_) => 15,
            Self::LoopedBack => 17,
            Self::AuthFailed(_)
            | Self::PasswordExpired { .. }
            | Self::PasswordNotChanged(_)
            | Self::NoSecret { .. } => 19,
            Self::TrafficLimit => 20,
        }
    }
}
