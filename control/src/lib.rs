//! The control plane: everything that is seen only while a tunnel is negotiated, kept or ended.
//!
//! ```text
//! wire/    bytes of PPTP control messages and PPP negotiation packets, and pppd's log grammar
//! crypto/  password hashes, challenge responses, key derivation (RFC 1994, 2433, 2759, 3079)
//! proto/   the state machines: events in, actions out, no I/O, clock or randomness of their own
//! config/  pppd options, peers, secrets, pptpd.conf, server TOML: text -> validated types
//! driver/  the only clock, sockets, threads and child processes
//! cli/     one file a command
//! ```
//!
//! # Life of a session
//!
//! ```text
//! TCP, GRE, timers -> driver (engine) -> Event -> proto::Endpoint
//!     connection   Start-Control-Connection, echoes      (RFC 2637 3.1)
//!       call       Outgoing-Call, Call-Clear             (RFC 2637 3.2)
//!         link     LCP -> PAP, CHAP, EAP -> CCP -> IPCP, IPV6CP
//! proto::Endpoint -> Action -> driver -> TCP, commands to workers, interfaces, routes, scripts
//! ```
//!
//! 1. A call gets a Call ID of ours, and its worker learns of it (`Install`) before the peer does:
//!    GRE that comes early is received, and whatever is not IP is punted to here.
//! 2. PPP frames of the negotiation come and go as `Punt` and `Inject`; the numbers of GRE are the
//!    worker's for as long as the session lives.
//! 3. Who has proved who it is holds the keys. The worker gets each by value: `SetReceiveKey`
//!    before the Configure-Ack that lets the peer use it, `SetSendKey` when CCP is up.
//! 4. Before IPCP's last Configure-Ack goes out the driver sets up interface, addresses and
//!    routes, and has the worker let IP through (`OpenNetwork`): the peer's first packet finds its
//!    way. From here on this half of the program sees echoes, and what goes wrong.
//! 5. However a session ends, `proto::ending` says why and who is to blame; the worker is told
//!    `Remove`, and the driver takes back what it has changed on the host.
//!
//! What `client` and `server` of the driver decide is kept apart from what is the same for both:
//! that is `engine`, and every command that makes tunnels runs on it.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod crypto;
pub mod driver;
pub mod proto;
pub mod wire;
