//! What a person, or a signal, asks of a running client.

use std::sync::Arc;

use dataplane::capture::Tap;
use tokio::sync::oneshot;

use super::super::admin::records::CaptureWish;
use super::super::admin::{Answer, Request};
use super::super::capture::Capture;
use super::{Client, USER_REQUEST};
use crate::proto::ending::Ending;
use crate::proto::{Action, Event};
use dataplane::program::{CallId, Command};

impl Client<'_> {
    pub(super) fn serve(
        &mut self,
        request: Request,
        answer: oneshot::Sender<Answer>,
    ) -> Vec<Action> {
        let (reply, actions) = match request {
            Request::Down => {
                self.waiting.push(answer);
                self.is_leaving = true;
                return self.end(USER_REQUEST);
            }
            Request::Status => (Answer::Tunnel(Box::new(self.status())), Vec::new()),
            Request::Capture(wish) => (self.capture(wish), Vec::new()),
            Request::HangUp => (Answer::Done, self.hang_up_for_now()),
            Request::ToggleDebug => {
                self.debug.set(!self.debug.get());
                (Answer::Done, Vec::new())
            }
            Request::Operate(_) | Request::Snapshot(_) => {
                let why = "this is a client's tunnel, not a server".to_owned();
                (Answer::Refused { why }, Vec::new())
            }
            Request::RenegotiateCompression => {
                let call_id = self.call.as_ref().map(|(call_id, _)| *call_id);
                // Keys that are negotiated again would be the same keys, and with them the key
                // stream: what is wanted is that both ends start afresh.
                let event = |call_id| Event::ResetNeeded { call_id };
                let actions = call_id.map(|call_id| self.engine.handle_event(event(call_id)));
                (Answer::Done, actions.unwrap_or_default())
            }
        };
        let _ = answer.send(reply);
        actions
    }

    /// Copies the packets of the present call from now on. A capture ends with the call.
    fn capture(&mut self, wish: CaptureWish) -> Answer {
        let Some((call_id, _)) = self.call else {
            let why = "the tunnel is not up at this moment".to_owned();
            return Answer::Refused { why };
        };
        // Taps whose reader has gone make room.
        self.engine
            .command(call_id, Command::EndCapture { call_id });
        let tap = Tap::new();
        let capture = Command::Capture {
            call_id,
            tap: Arc::clone(&tap),
        };
        self.engine.command(call_id, capture);
        let title = self.config.tunnel.clone();
        Answer::Capture(Capture { tap, title, wish })
    }

    /// HUP: the pause before an attempt is over at once; a link ends, and where the tunnel persists
    /// another follows.
    fn hang_up_for_now(&mut self) -> Vec<Action> {
        const HANGUP: &str = "Hangup (SIGHUP)";
        self.log.line(HANGUP);
        if self.redial_at.is_some() {
            self.redial_at = Some(tokio::time::Instant::now());
            return Vec::new();
        }
        if !self.config.persist.wanted {
            self.is_leaving = true;
        } else if self.call.is_none() {
            return Vec::new();
        }
        self.end(HANGUP)
    }

    fn end(&mut self, reason: &str) -> Vec<Action> {
        let ending = Ending::LocalRequest(reason.to_owned());
        match &self.call {
            Some((call_id, _)) => {
                let call_id = *call_id;
                self.hang_up(call_id, ending, USER_REQUEST.to_owned())
            }
            None => {
                self.ending = Some(ending);
                self.engine.handle_event(Event::Shutdown)
            }
        }
    }

    /// Asks the call to end in order; nothing when that has been asked for already.
    pub(super) fn hang_up(
        &mut self,
        call_id: CallId,
        ending: Ending,
        reason: String,
    ) -> Vec<Action> {
        if self.ending.replace(ending).is_some() {
            return Vec::new();
        }
        self.engine.handle_event(Event::HangUp { call_id, reason })
    }
}
