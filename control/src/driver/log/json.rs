//! The log as one JSON object a line: who, when, and which event, for machines that collect logs.
//!
//! | key | what |
//! | --- | --- |
//! | `time` | RFC 3339, UTC |
//! | `event` | `log`: a line of the process; `line`, `packet`: of a session, in pppd's words |
//! | | `call`, `authenticated`, `up`, `down`, `ended`: what has happened to a session |
//! | `session`, `call_id`, `peer`, `user`, `address` | of the session, as far as known |
//! | `message` | the words |

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value};

/// What is known of a session.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    pub session: String,
    pub call_id: u16,
    pub peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// The sessions that lines may be about, by Call ID.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) facts: HashMap<u16, Facts>,
}

#[derive(Serialize)]
struct Entry<'a> {
    time: String,
    event: &'a str,
    #[serde(flatten)]
    facts: Option<&'a Facts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(flatten)]
    details: Map<String, Value>,
}

impl Sessions {
    /// One object, without the end of the line.
    pub(super) fn entry(
        &self,
        call_id: Option<u16>,
        event: &str,
        message: Option<&str>,
        details: Map<String, Value>,
    ) -> String {
        let entry = Entry {
            time: rfc3339(SystemTime::now()),
            event,
            facts: call_id.and_then(|call_id| self.facts.get(&call_id)),
            message,
            details,
        };
        serde_json::to_string(&entry).unwrap_or_default()
    }
}

/// `2026-11-22T20:15:07.123Z`.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO);
    let (seconds, ms) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The date of a day since 1970-01-01, in years that begin with March, so that the leap day is
/// their last.
const fn civil(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    let month = if is_next_year { month - 9 } else { month + 3 };
    (era * 400 + year + is_next_year as u64, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date() {
        // date -u -d @N +%FT%TZ
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_704_067_199, "2023-12-31T23:59:59.007Z"),
            (1_795_378_507, "2026-11-22T20:15:07.007Z"),
        ] {
            let at = SystemTime::UNIX_EPOCH + Duration::new(seconds, 7_000_000);
            assert_eq!(rfc3339(at), text);
        }
    }

    #[test]
    fn an_entry_has_the_facts_of_its_session() {
        let mut sessions = Sessions::default();
        let facts = Facts {
            session: "00ff".to_owned(),
            call_id: 7,
            peer: "192.0.2.7".to_owned(),
            user: Some("m\"ia".to_owned()),
            address: None,
        };
        sessions.facts.insert(7, facts);
        let entry = sessions.entry(Some(7), "line", Some("two\nlines"), Map::new());
        assert!(!entry.contains('\n'));
        let entry: Value = serde_json::from_str(&entry).unwrap();
        assert_eq!(entry["user"], "m\"ia");
        assert_eq!(entry["message"], "two\nlines");
        assert_eq!(entry["event"], "line");
        assert!(entry.get("address").is_none());
        let entry = sessions.entry(Some(8), "line", None, Map::new());
        assert!(!entry.contains("session"), "{entry}");
    }
}
