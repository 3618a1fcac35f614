//! Password hashes, challenge responses and key derivation.

pub mod key_derivation;
