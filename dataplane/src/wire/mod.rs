//! Formats of what is seen for every packet.
