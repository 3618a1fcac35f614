//! The data plane: every byte that is seen for every packet.
//!
//! It knows nothing of negotiation; control programs it through [`program`].
//!
//! ```text
//! out  TUN read -> AddressTable / TUN -> encap batch [ppp | keys in series | rc4 | gre] -> GRE send
//! in   GRE receive -> SessionTable[call ID] -> decap batch [sequence | keys | rc4 | ppp] -> TUN write
//!                                                                      \-> not IP: punt to control
//! ```
//!
//! Threading rule: a worker owns its ring, arena, GRE socket, TUN queue and sessions; nothing is
//! shared but the two bounded queues of [`program`] and the counters, which only the worker writes.
//!
//! Memory rule: everything is allocated before the first packet, and never after; the bounds are
//! in [`limits`].

mod address_table;
pub mod counters;
pub mod decap;
pub mod encap;
pub mod frame;
pub mod handle;
pub mod io;
pub mod limits;
pub mod mailbox;
pub mod mppe;
pub mod program;
mod sequence;
pub mod session;
pub mod sim_io;
pub mod sys;
pub mod uring;
pub mod wire;
pub mod worker;
