//! The data plane: every byte that is seen for every packet.
//!
//! It knows nothing of negotiation; control programs it through [`program`]. One worker a core:
//! [`handle::spawn`] starts it, and `worker::Worker` is its loop.
//!
//! # Life of a packet
//!
//! ```text
//! out  TUN read (uring) -> cut into packets (offload)
//!        -> session of the device, or by inner destination (session)
//!        -> encap batch [ppp | keys in series | rc4 n abreast | gre] -> GRE send (uring):
//!           raw socket, or AF_XDP or packet socket where control has named the next hop
//!
//! in   GRE receive (uring) -> session by call ID (session)
//!        -> decap batch [sequence | keys in series | rc4 n abreast | ppp]
//!        -> joined (offload) -> TUN write (uring)
//!        \-> not IP: punt to control
//!
//! ctl  Command -> mailbox -> worker        worker -> mailbox -> Notice
//! ```
//!
//! A packet stays in the arena slot that the kernel received it into. Headers are stripped and
//! pushed by moving the offsets of its [`frame::Frame`], and it is deciphered in place; the kernel
//! copies it out when it is written or sent, and then the slot goes back to where it came from.
//!
//! # Rules
//!
//! *Threads*: a worker owns its ring, arena, GRE socket, TUN queues and sessions; nothing is shared
//! but the two bounded queues of [`mailbox`], the counters, which only the worker writes, and,
//! where it is asked for, the queues of key streams that a thread of idle time prepares
//! ([`mppe::look_ahead`]). No thread ever waits for another one's data. A session may be split by
//! direction ([`program::Role`]): then two workers have a half each, and the halves share no more
//! than two workers do.
//!
//! *Memory*: everything is allocated before the first packet, and nothing for one; the bounds are
//! in [`limits`].
//!
//! *Purity*: `decap`, `encap`, `offload`, `sequence`, `mppe` and `wire` read no clock and do no
//! input or output. What does stands behind [`io::Io`]: `uring` in earnest, [`sim_io`] in the
//! simulator.
//!
//! *Unsafe code* is in `uring`, `sys` and `mppe::rc4` alone.

mod address_table;
pub mod capture;
pub mod counters;
pub mod decap;
pub mod encap;
pub mod frame;
pub mod handle;
pub mod impairment;
pub mod io;
pub mod limits;
pub mod mailbox;
pub mod mppe;
pub mod offload;
pub mod prefix;
mod prefix_table;
pub mod program;
mod punt_budget;
pub mod rate_limit;
mod sequence;
pub mod session;
pub mod sim_io;
pub mod snapshot;
pub mod sys;
pub mod uring;
pub mod wire;
pub mod worker;
