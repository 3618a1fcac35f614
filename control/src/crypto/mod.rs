//! Password hashes, challenge responses and key derivation: pure functions under the names that
//! their RFCs give them. Passwords are octets as a file holds them; what comes in between is
//! forgotten on the way out, and secrets are compared in constant time.

pub mod challenge_response;
pub mod change_password;
pub mod key_derivation;
pub mod nt_hash;
