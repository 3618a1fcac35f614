//! The simulator: a seeded network that joins two control planes and two data planes.

pub mod capture;
