//! The only clock, sockets, threads and child processes of the control plane.
//!
//! The runtime is tokio-uring: tokio's current-thread runtime on an io_uring. Nothing outside this
//! folder knows.

pub mod admin;
pub mod background;
pub mod capture;
pub mod client;
mod clock;
pub mod descriptors;
pub mod doctor;
pub mod drops;
mod engine;
mod fast_path;
pub mod host_error;
mod ipv6;
pub mod kernel_writer;
pub mod lease_file;
pub(crate) mod load;
pub mod log;
pub(crate) mod name_servers;
pub mod namespace;
pub mod netlink;
mod nftables;
mod placement;
pub mod privileges;
mod programs;
pub mod run_files;
pub mod runtime;
mod scripts;
pub mod server;
pub mod service;
pub(crate) mod signals;
pub mod terminal;
mod transport;
mod workers;
