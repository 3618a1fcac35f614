//! The simulator: a seeded network that joins the control planes and data planes of one server and
//! its clients, in virtual time and one thread.
//!
//! ```text
//! Scenario   everything drawn from one seed: what both sides demand, what the network does
//! World      the clock, TCP streams and GRE packets in flight, and every checker
//! Node       one host: an Endpoint, a Plane, and a Ledger that holds the endpoint to its promises
//! Plane      the data plane
//! ```
//!
//! [`capture`] reads what real peers sent, for the tests that hold our octets against theirs.
//!
//! [`lab`] runs the program itself in network namespaces, for the end-to-end tests.
//!
//! What runs is the same code as outside; only clock, sockets and randomness are the simulator's.

pub mod capture;
pub mod cluster;
pub mod freeradius;
pub mod lab;
pub mod node;
pub mod plane;
pub mod scenario;
pub mod tunnel;
pub mod world;
