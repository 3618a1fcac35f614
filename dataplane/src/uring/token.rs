//! What an operation was, carried through the kernel in its 64 bits of user data.

use crate::frame::Slot;

/// One operation in flight. `device` is an index into the table of TUN devices, `record` one into
/// the records of joined writes, and stands where a slot does.
///
/// ```text
///  63       56 55      32 31      16 15       0
/// +-----------+----------+----------+----------+
/// |   kind    |    0     |  device  |   slot   |
/// +-----------+----------+----------+----------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Multishot receive on the GRE socket.
    Receive,
    /// Receive of what is there on the GRE socket.
    Sweep,
    /// Poll of the command queue's eventfd.
    Wake,
    /// Poll of the packet ring.
    Tap,
    /// Cancellation of other operations.
    Cancel,
    /// Read from a TUN device.
    Read { device: u16 },
    /// Write to a TUN device.
    Write { device: u16, slot: Slot },
    /// Write of several packets together to a TUN device.
    WriteRun { device: u16, record: u16 },
    /// Send on the GRE socket.
    Send { slot: Slot },
}

impl Token {
    /// As user data.
    pub(super) const fn to_bits(self) -> u64 {
        let (kind, device, slot) = match self {
            Self::Receive => (1, 0, Slot(0)),
            Self::Wake => (2, 0, Slot(0)),
            Self::Cancel => (3, 0, Slot(0)),
            Self::Read { device } => (4, device, Slot(0)),
            Self::Write { device, slot } => (5, device, slot),
            Self::Send { slot } => (6, 0, slot),
            Self::WriteRun { device, record } => (7, device, Slot(record)),
            Self::Sweep => (8, 0, Slot(0)),
            Self::Tap => (9, 0, Slot(0)),
        };
        (kind << 56) | ((device as u64) << 16) | slot.0 as u64
    }

    /// From user data; `None` when `to_bits` never made it.
    pub(super) const fn from_bits(bits: u64) -> Option<Self> {
        let device = (bits >> 16) as u16;
        let slot = Slot(bits as u16);
        Some(match bits >> 56 {
            1 => Self::Receive,
            2 => Self::Wake,
            3 => Self::Cancel,
            4 => Self::Read { device },
            5 => Self::Write { device, slot },
            6 => Self::Send { slot },
            7 => Self::WriteRun {
                device,
                record: slot.0,
            },
            8 => Self::Sweep,
            9 => Self::Tap,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_survives_the_kernel() {
        let (low, high) = (Slot(0), Slot(u16::MAX));
        let tokens = [
            Token::Receive,
            Token::Wake,
            Token::Cancel,
            Token::Tap,
            Token::Read { device: 0 },
            Token::Read { device: u16::MAX },
            Token::Write {
                device: 0,
                slot: high,
            },
            Token::Write {
                device: u16::MAX,
                slot: low,
            },
            Token::WriteRun {
                device: 1,
                record: 2,
            },
            Token::Send { slot: low },
            Token::Send { slot: high },
            Token::Sweep,
        ];
        for (index, token) in tokens.iter().enumerate() {
            assert_eq!(Token::from_bits(token.to_bits()), Some(*token));
            let others = &tokens[index + 1..];
            assert!(
                others
                    .iter()
                    .all(|other| other.to_bits() != token.to_bits())
            );
        }
    }

    #[test]
    fn foreign_user_data_is_no_token() {
        for bits in [0, 10 << 56, u64::MAX] {
            assert_eq!(Token::from_bits(bits), None);
        }
    }
}
