//! The Option Negotiation Automaton of RFC 1661 4: its table, as one pure function.
//!
//! [`transition`] is the table of section 4.1 and nothing else; who sends, counts and keeps time
//! by it is `negotiation`. The test at the bottom holds every cell against the table as the RFC
//! prints it.

use serde::{Deserialize, Serialize};

/// The states of RFC 1661 4.2, numbered as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// 0: the lower layer is down, and no Open has occurred.
    Initial,
    /// 1: the lower layer is down, and an Open has occurred.
    Starting,
    /// 2: the lower layer is up, and no Open has occurred.
    Closed,
    /// 3: the lower layer is up, an Open has occurred, and negotiation is over for now.
    Stopped,
    /// 4: a Terminate-Request has gone out after a Close.
    Closing,
    /// 5: a Terminate-Request has gone out, and the link may be opened again.
    Stopping,
    /// 6: a Configure-Request has gone out.
    ReqSent,
    /// 7: a Configure-Request has gone out and was acknowledged.
    AckRcvd,
    /// 8: a Configure-Request and a Configure-Ack have gone out.
    AckSent,
    /// 9: a Configure-Ack has been both sent and received.
    Opened,
}

impl State {
    /// Whether the restart timer runs in this state: those that have TO events (RFC 1661 4.1).
    #[must_use]
    pub const fn is_timed(self) -> bool {
        matches!(
            self,
            Self::Closing | Self::Stopping | Self::ReqSent | Self::AckRcvd | Self::AckSent
        )
    }
}

/// The events of RFC 1661 4.3, in the order of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The lower layer is ready to carry packets.
    Up,
    /// The lower layer is no longer ready to carry packets.
    Down,
    /// The link is administratively available for traffic.
    Open,
    /// The link is not available for traffic.
    Close,
    /// TO+: the restart timer ran out with the counter above zero.
    TimeoutRetry,
    /// TO-: the restart timer ran out with the counter at zero.
    TimeoutFinal,
    /// RCR+: an acceptable Configure-Request.
    RcrGood,
    /// RCR-: an unacceptable Configure-Request.
    RcrBad,
    /// RCA: a Configure-Ack.
    Rca,
    /// RCN: a Configure-Nak or a Configure-Reject.
    Rcn,
    /// RTR: a Terminate-Request.
    Rtr,
    /// RTA: a Terminate-Ack.
    Rta,
    /// RUC: a packet of unknown code.
    Ruc,
    /// RXJ+: a Code-Reject or Protocol-Reject that can be lived with.
    RxjGood,
    /// RXJ-: a catastrophic Code-Reject or Protocol-Reject.
    RxjBad,
    /// RXR: an Echo-Request, Echo-Reply or Discard-Request.
    Rxr,
}

/// The actions of RFC 1661 4.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// This-Layer-Up.
    Tlu,
    /// This-Layer-Down.
    Tld,
    /// This-Layer-Started.
    Tls,
    /// This-Layer-Finished.
    Tlf,
    /// Initialize-Restart-Count.
    Irc,
    /// Zero-Restart-Count.
    Zrc,
    /// Send-Configure-Request.
    Scr,
    /// Send-Configure-Ack.
    Sca,
    /// Send-Configure-Nak (or -Reject).
    Scn,
    /// Send-Terminate-Request.
    Str,
    /// Send-Terminate-Ack.
    Sta,
    /// Send-Code-Reject.
    Scj,
    /// Send-Echo-Reply.
    Ser,
}

/// What the table says to an event in a state: actions in the RFC's order, and the next state.
/// `None` is the dash, an event that cannot happen there: nothing is done (RFC 1661 4.4).
#[must_use]
pub const fn transition(state: State, event: Event) -> Option<(&'static [Action], State)> {
    use Action::{Irc, Scj, Scr, Ser, Sta, Str, Tld, Tlf, Tls, Zrc};
    use State::{
        AckRcvd, AckSent, Closed, Closing, Initial, Opened, ReqSent, Starting, Stopped, Stopping,
    };

    const NONE: &[Action] = &[];
    Some(match (event, state) {
        (Event::Up, Initial) => (NONE, Closed),
        (Event::Up, Starting) => (&[Irc, Scr], ReqSent),
        (Event::Up, _) => return None,

        (Event::Down, Initial | Starting) => return None,
        (Event::Down, Closed | Closing) => (NONE, Initial),
        (Event::Down, Stopped) => (&[Tls], Starting),
        (Event::Down, Stopping | ReqSent | AckRcvd | AckSent) => (NONE, Starting),
        (Event::Down, Opened) => (&[Tld], Starting),

        (Event::Open, Initial) => (&[Tls], Starting),
        (Event::Open, Closed) => (&[Irc, Scr], ReqSent),
        (Event::Open, Closing) => (NONE, Stopping),
        (Event::Open, same) => (NONE, same),

        (Event::Close, Starting) => (&[Tlf], Initial),
        (Event::Close, Stopped) => (NONE, Closed),
        (Event::Close, Stopping) => (NONE, Closing),
        (Event::Close, ReqSent | AckRcvd | AckSent) => (&[Irc, Str], Closing),
        (Event::Close, Opened) => (&[Tld, Irc, Str], Closing),
        (Event::Close, same) => (NONE, same),

        (Event::TimeoutRetry, Closing | Stopping) => (&[Str], state),
        (Event::TimeoutRetry, ReqSent | AckRcvd) => (&[Scr], ReqSent),
        (Event::TimeoutRetry, AckSent) => (&[Scr], AckSent),
        (Event::TimeoutFinal, Closing) => (&[Tlf], Closed),
        (Event::TimeoutFinal, Stopping | ReqSent | AckRcvd | AckSent) => (&[Tlf], Stopped),
        (Event::TimeoutRetry | Event::TimeoutFinal, _) => return None,

        // A packet cannot come while the lower layer is down.
        (_, Initial | Starting) => return None,

        (Event::RcrGood | Event::RcrBad, _) => return Some(on_request(state, event)),
        (Event::Rca | Event::Rcn, _) => return Some(on_answer(state, event)),

        (Event::Rtr, Opened) => (&[Tld, Zrc, Sta], Stopping),
        (Event::Rtr, AckRcvd | AckSent) => (&[Sta], ReqSent),
        (Event::Rtr, same) => (&[Sta], same),
        (Event::Rta, Closing) => (&[Tlf], Closed),
        (Event::Rta, Stopping) => (&[Tlf], Stopped),
        (Event::Rta, AckRcvd) => (NONE, ReqSent),
        (Event::Rta, Opened) => (&[Tld, Scr], ReqSent),
        (Event::Rta, same) => (NONE, same),

        (Event::Ruc, same) => (&[Scj], same),
        (Event::RxjGood, AckRcvd) => (NONE, ReqSent),
        (Event::RxjGood, same) => (NONE, same),
        (Event::RxjBad, Closed | Closing) => (&[Tlf], Closed),
        (Event::RxjBad, Opened) => (&[Tld, Irc, Str], Stopping),
        (Event::RxjBad, _) => (&[Tlf], Stopped),

        (Event::Rxr, Opened) => (&[Ser], Opened),
        (Event::Rxr, same) => (NONE, same),
    })
}

/// The rows RCR+ and RCR-.
const fn on_request(state: State, event: Event) -> (&'static [Action], State) {
    use Action::{Irc, Sca, Scn, Scr, Sta, Tld, Tlu};
    use State::{AckRcvd, AckSent, Closed, Opened, ReqSent, Stopped};

    match (event, state) {
        (_, Closed) => (&[Sta], Closed),
        (Event::RcrGood, Stopped) => (&[Irc, Scr, Sca], AckSent),
        (Event::RcrGood, ReqSent | AckSent) => (&[Sca], AckSent),
        (Event::RcrGood, AckRcvd) => (&[Sca, Tlu], Opened),
        (Event::RcrGood, Opened) => (&[Tld, Scr, Sca], AckSent),
        (_, Stopped) => (&[Irc, Scr, Scn], ReqSent),
        (_, ReqSent | AckSent) => (&[Scn], ReqSent),
        (_, AckRcvd) => (&[Scn], AckRcvd),
        (_, Opened) => (&[Tld, Scr, Scn], ReqSent),
        (_, same) => (&[], same),
    }
}

/// The rows RCA and RCN.
const fn on_answer(state: State, event: Event) -> (&'static [Action], State) {
    use Action::{Irc, Scr, Sta, Tld, Tlu};
    use State::{AckRcvd, AckSent, Closed, Opened, ReqSent, Stopped};

    match (event, state) {
        (_, Closed | Stopped) => (&[Sta], state),
        (Event::Rca, ReqSent) => (&[Irc], AckRcvd),
        (Event::Rca, AckSent) => (&[Irc, Tlu], Opened),
        (_, ReqSent | AckSent) => (&[Irc, Scr], state),
        // Crossed connection: see the RCA event in RFC 1661 4.3.
        (_, AckRcvd) => (&[Scr], ReqSent),
        (_, Opened) => (&[Tld, Scr], ReqSent),
        (_, same) => (&[], same),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 10] = [
        State::Initial,
        State::Starting,
        State::Closed,
        State::Stopped,
        State::Closing,
        State::Stopping,
        State::ReqSent,
        State::AckRcvd,
        State::AckSent,
        State::Opened,
    ];

    /// RFC 1661 4.1, as printed, but for the blank rows.
    const TABLE_LOW: &str = "
 Up   |    2     irc,scr/6     -         -         -         -
 Down |    -         -         0       tls/1       0         1
 Open |  tls/1       1     irc,scr/6     3r        5r        5r
 Close|    0       tlf/0       2         2         4         4
  TO+ |    -         -         -         -       str/4     str/5
  TO- |    -         -         -         -       tlf/2     tlf/3
 RCR+ |    -         -       sta/2 irc,scr,sca/8   4         5
 RCR- |    -         -       sta/2 irc,scr,scn/6   4         5
 RCA  |    -         -       sta/2     sta/3       4         5
 RCN  |    -         -       sta/2     sta/3       4         5
 RTR  |    -         -       sta/2     sta/3     sta/4     sta/5
 RTA  |    -         -         2         3       tlf/2     tlf/3
 RUC  |    -         -       scj/2     scj/3     scj/4     scj/5
 RXJ+ |    -         -         2         3         4         5
 RXJ- |    -         -       tlf/2     tlf/3     tlf/2     tlf/3
 RXR  |    -         -         2         3         4         5
";
    const TABLE_HIGH: &str = "
 Up   |    -         -         -           -
 Down |    1         1         1         tld/1
 Open |    6         7         8           9r
 Close|irc,str/4 irc,str/4 irc,str/4 tld,irc,str/4
  TO+ |  scr/6     scr/6     scr/8         -
  TO- |  tlf/3p    tlf/3p    tlf/3p        -
 RCR+ |  sca/8   sca,tlu/9   sca/8   tld,scr,sca/8
 RCR- |  scn/6     scn/7     scn/6   tld,scr,scn/6
 RCA  |  irc/7     scr/6x  irc,tlu/9   tld,scr/6x
 RCN  |irc,scr/6   scr/6x  irc,scr/8   tld,scr/6x
 RTR  |  sta/6     sta/6     sta/6   tld,zrc,sta/5
 RTA  |    6         6         8       tld,scr/6
 RUC  |  scj/6     scj/7     scj/8       scj/9
 RXJ+ |    6         6         8           9
 RXJ- |  tlf/3     tlf/3     tlf/3   tld,irc,str/5
 RXR  |    6         7         8         ser/9
";

    fn event(word: &str) -> Event {
        match word {
            "Up" => Event::Up,
            "Down" => Event::Down,
            "Open" => Event::Open,
            "Close" => Event::Close,
            "TO+" => Event::TimeoutRetry,
            "TO-" => Event::TimeoutFinal,
            "RCR+" => Event::RcrGood,
            "RCR-" => Event::RcrBad,
            "RCA" => Event::Rca,
            "RCN" => Event::Rcn,
            "RTR" => Event::Rtr,
            "RTA" => Event::Rta,
            "RUC" => Event::Ruc,
            "RXJ+" => Event::RxjGood,
            "RXJ-" => Event::RxjBad,
            "RXR" => Event::Rxr,
            _ => panic!("{word} is no event"),
        }
    }

    fn action(word: &str) -> Action {
        match word {
            "tlu" => Action::Tlu,
            "tld" => Action::Tld,
            "tls" => Action::Tls,
            "tlf" => Action::Tlf,
            "irc" => Action::Irc,
            "zrc" => Action::Zrc,
            "scr" => Action::Scr,
            "sca" => Action::Sca,
            "scn" => Action::Scn,
            "str" => Action::Str,
            "sta" => Action::Sta,
            "scj" => Action::Scj,
            "ser" => Action::Ser,
            _ => panic!("{word} is no action"),
        }
    }

    /// `tld,scr/6x` as actions and next state; `-` as `None`.
    fn cell(text: &str) -> Option<(Vec<Action>, State)> {
        if text == "-" {
            return None;
        }
        let (actions, next) = match text.split_once('/') {
            Some((actions, next)) => (actions.split(',').map(action).collect(), next),
            None => (Vec::new(), text),
        };
        let digit = next.trim_end_matches(['p', 'r', 'x']);
        Some((actions, STATES[digit.parse::<usize>().unwrap()]))
    }

    #[test]
    fn every_cell_is_that_of_the_rfc() {
        let mut cells = 0;
        for (table, first_state) in [(TABLE_LOW, 0), (TABLE_HIGH, 6)] {
            for line in table.lines().filter(|line| !line.is_empty()) {
                let (event_word, row) = line.split_once('|').unwrap();
                for (column, text) in row.split_whitespace().enumerate() {
                    let state = STATES[first_state + column];
                    let ours = transition(state, event(event_word.trim()))
                        .map(|(actions, next)| (actions.to_vec(), next));
                    assert_eq!(ours, cell(text), "{event_word} in {state:?}");
                    cells += 1;
                }
            }
        }
        assert_eq!(cells, 16 * 10);
    }

    #[test]
    fn the_timer_runs_just_where_the_table_has_timeouts() {
        for state in STATES {
            let timed = transition(state, Event::TimeoutRetry).is_some();
            assert_eq!(state.is_timed(), timed, "{state:?}");
        }
    }
}
