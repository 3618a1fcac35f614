//! Numbers of a server's file that have bounds.

use serde::Deserialize;

/// A whole number within bounds, which the error names.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Within<const LOW: u32, const HIGH: u32>(pub(super) u32);

impl<const LOW: u32, const HIGH: u32> TryFrom<i64> for Within<LOW, HIGH> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        u32::try_from(number)
            .ok()
            .filter(|number| (LOW..=HIGH).contains(number))
            .map(Self)
            .ok_or_else(|| format!("{number} is not between {LOW} and {HIGH}"))
    }
}

impl<const LOW: u32, const HIGH: u32> Within<LOW, HIGH> {
    pub(super) fn u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }

    /// Of a number of seconds.
    pub(super) fn ms(self) -> u64 {
        u64::from(self.0) * 1000
    }

    /// Of a number of seconds, of which 0 stands for no limit.
    pub(super) fn limit_ms(self) -> Option<u64> {
        (self.0 > 0).then(|| self.ms())
    }
}

/// A time of at most a day that matters to the protocol.
pub(super) type Seconds = Within<1, 86_400>;
