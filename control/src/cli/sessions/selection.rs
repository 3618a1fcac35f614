//! Which sessions a command is about.

use clap::Args;
use regex_lite::Regex;

use super::columns::{self, Column};
use crate::driver::admin::records::SessionRecord;

/// Conditions that all must hold.
#[derive(Debug, Default, Args)]
pub(super) struct Selection {
    /// Sessions of this user.
    #[arg(long)]
    user: Option<String>,
    /// The session with this address inside its tunnel.
    #[arg(long)]
    ip: Option<String>,
    /// Sessions from this outer address.
    #[arg(long)]
    peer: Option<String>,
    /// Sessions whose column has something that this regular expression matches; may be given
    /// several times.
    #[arg(
        long = "match",
        num_args = 2,
        value_names = ["COLUMN", "REGEX"],
        action = clap::ArgAction::Append
    )]
    matches: Vec<String>,
}

/// The same, understood.
pub(super) struct Conditions<'a> {
    selection: &'a Selection,
    matches: Vec<(Column, Regex)>,
}

impl Selection {
    /// There is no condition.
    pub(super) const fn is_empty(&self) -> bool {
        let named = self.user.is_some() || self.ip.is_some() || self.peer.is_some();
        !named && self.matches.is_empty()
    }

    /// Understands the regular expressions, or says what is wrong.
    pub(super) fn conditions(&self) -> Result<Conditions<'_>, String> {
        let pairs = self.matches.chunks_exact(2);
        let matches = pairs.map(|pair| {
            let regex = Regex::new(&pair[1]).map_err(|error| format!("'{}': {error}", pair[1]))?;
            Ok((columns::find(&pair[0])?, regex))
        });
        Ok(Conditions {
            selection: self,
            matches: matches.collect::<Result<_, String>>()?,
        })
    }
}

impl Conditions<'_> {
    /// Whether they hold.
    pub(super) fn hold(&self, session: &SessionRecord) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let mut matches = self.matches.iter();
        is(&self.selection.user, Some(&session.user))
            && is(&self.selection.ip, session.ip.as_deref())
            && is(&self.selection.peer, Some(&session.peer))
            && matches.all(|(column, regex)| regex.is_match(&(column.value)(session).to_string()))
    }
}

/// The one session that a person means: by its sid or call ID, the address inside, the interface of
/// its own, or the user's name.
pub(super) fn find<'a>(
    sessions: &'a [SessionRecord],
    name: &str,
) -> Result<&'a SessionRecord, String> {
    let by: [fn(&SessionRecord, &str) -> bool; 4] = [
        |it, name| it.sid == name,
        |it, name| it.call_id.to_string() == name,
        |it, name| it.ip.as_deref() == Some(name) || it.ip6.as_deref() == Some(name),
        |it, name| it.user == name || it.peer == name,
    ];
    for is_meant in by {
        let found: Vec<_> = sessions.iter().filter(|it| is_meant(it, name)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                let sids: Vec<_> = several.iter().take(8).map(|it| it.sid.as_str()).collect();
                return Err(format!(
                    "'{name}' are {} sessions: name one by its sid: {}",
                    several.len(),
                    sids.join(", ")
                ));
            }
        }
    }
    Err(format!(
        "there is no session '{name}': see pptp-fast sessions list"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(call_id: u16, user: &str) -> SessionRecord {
        SessionRecord {
            sid: format!("{call_id:016x}"),
            call_id,
            user: user.to_owned(),
            peer: "192.0.2.7".to_owned(),
            ip: Some(format!("10.0.0.{call_id}")),
            ..SessionRecord::default()
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let selection = Selection {
            peer: Some("192.0.2.7".to_owned()),
            matches: ["username", "^m", "ip", r"\.2$"]
                .map(str::to_owned)
                .to_vec(),
            ..Selection::default()
        };
        assert!(!selection.is_empty());
        let conditions = selection.conditions().unwrap();
        assert!(conditions.hold(&session(2, "mia")));
        assert!(!conditions.hold(&session(2, "ann")));
        assert!(!conditions.hold(&session(3, "mia")));
        let wrong = |column: &str, regex: &str| Selection {
            matches: vec![column.to_owned(), regex.to_owned()],
            ..Selection::default()
        };
        assert!(wrong("user", "x").conditions().is_err());
        assert!(wrong("username", "(").conditions().is_err());
    }

    #[test]
    fn a_name_means_one_session_or_none() {
        let sessions = [session(2, "mia"), session(3, "mia"), session(4, "ann")];
        let found = |name| find(&sessions, name).map(|it| it.call_id);
        assert_eq!(found("0000000000000003"), Ok(3));
        assert_eq!(found("2"), Ok(2));
        assert_eq!(found("10.0.0.4"), Ok(4));
        assert_eq!(found("ann"), Ok(4));
        assert!(found("mia").unwrap_err().contains("2 sessions"));
        assert!(found("bob").is_err());
    }
}
