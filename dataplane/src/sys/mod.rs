//! What the kernel gives beside the ring: devices, sockets, processors, wake-ups.

pub mod affinity;
pub mod capabilities;
pub mod fd_passing;
pub mod gre_socket;
pub mod packet_ring;
pub mod packet_socket;
pub mod pidfd;
pub mod priority;
pub mod probe;
pub(crate) mod resident;
pub mod tun;
pub mod wake;
pub mod xdp_socket;
