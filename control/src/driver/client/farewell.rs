//! The end of a client: everything is let go, in order.

use std::time::Duration;

use super::super::admin::Answer;
use super::super::scripts::Script;
use super::{Client, ClientError};
use crate::proto::ending::Ending;
use crate::proto::{Action, Event};

/// For the last control messages after the call has ended.
const FAREWELL: Duration = Duration::from_secs(5);

impl Client<'_> {
    /// The last attempt is over; the control connection ends in order, and then everything is let
    /// go.
    pub(super) async fn leave(&mut self, outcome: &Result<Ending, ClientError>) {
        self.take_down_interface().await;
        let actions = self.engine.handle_event(Event::Shutdown);
        let farewell = tokio::time::timeout(FAREWELL, async {
            let mut actions = actions;
            loop {
                let idle = actions.iter().any(|action| matches!(action, Action::Idle));
                for action in actions {
                    self.engine.perform(action);
                }
                if idle {
                    return;
                }
                let input = self.engine.next().await;
                actions = self.engine.handle(input);
            }
        });
        let _ = farewell.await;
        self.start_script(Script::NetDown, None, None);
        self.engine.stop(FAREWELL).await;
        let limit = self.config.child_timeout_ms.map(Duration::from_millis);
        self.scripts.end(limit, &self.log).await;
        self.remove_pid_files();
        self.leave_kill_switch(outcome);
        for answer in self.waiting.drain(..) {
            let _ = answer.send(Answer::Ended);
        }
    }

    /// It goes when it was asked to, and when there never was a tunnel. One that was lost must not
    /// let out what it had carried.
    fn leave_kill_switch(&mut self, outcome: &Result<Ending, ClientError>) {
        if !self.is_leaving && self.has_stood && self.is_closed {
            let why = outcome
                .as_ref()
                .map_or_else(ToString::to_string, ToString::to_string);
            let name = &self.config.tunnel;
            self.log.line(&format!(
                "{why}. The kill switch stays: nothing leaves this host until pptp-fast up {name}, \
                 or pptp-fast down {name}"
            ));
            return;
        }
        if let Err(error) = self.record.open_kill_switch() {
            self.log
                .line(&format!("cannot remove the kill switch: {error}"));
        }
    }
}
