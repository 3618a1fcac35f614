//! Formats of what is seen for every packet: views that judge and locate, and never copy.

pub mod gre;
pub mod ipv4;
pub mod ipv6;
pub mod mppe;
pub mod ppp;

/// The `N` octets at `offset`, when they are there.
fn octets<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}
