//! What all of the operator's commands need: to reach the server, and to say why it is not reached.

use std::io::ErrorKind;
use std::time::Duration;

use crate::driver::admin::records::{Order, SessionRecord};
use crate::driver::admin::{Answer, Conversation, Request};
use crate::driver::run_files;

/// How long an answer is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The server of this machine.
pub(super) struct Server(Conversation);

impl Server {
    /// Reaches it, or says for a person why not.
    pub(super) fn reach() -> Result<Self, String> {
        let socket = run_files::server_socket();
        let conversation = Conversation::open(&socket, ANSWER_LIMIT);
        conversation.map(Self).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => {
                "not allowed: run this with sudo, or join the admin group (admin_group in the \
                 server's configuration, pptp-fast unless it says otherwise)"
                    .to_owned()
            }
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                "no server is running: start one with: pptp-fast serve".to_owned()
            }
            _ => format!("cannot reach the server at {}: {error}", socket.display()),
        })
    }

    /// Asks; a refusal is an error.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Answer, String> {
        match self.0.ask(request) {
            Ok(Answer::Refused { why }) => Err(why),
            Ok(answer) => Ok(answer),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err("the server has ended".to_owned())
            }
            Err(error) => Err(format!("the server does not answer: {error}")),
        }
    }

    /// The same for an order.
    pub(super) fn order(&mut self, order: Order) -> Result<Answer, String> {
        self.ask(&Request::Operate(order))
    }

    /// All sessions, by call ID, page by page.
    pub(super) fn sessions(&mut self) -> Result<Vec<SessionRecord>, String> {
        let (mut sessions, mut after) = (Vec::new(), None);
        loop {
            let Answer::Sessions(page) = self.order(Order::Sessions { after })? else {
                return Err(unexpected());
            };
            sessions.extend(page.sessions);
            after = page.next;
            if after.is_none() {
                return Ok(sessions);
            }
        }
    }

    /// What follows the answer to a capture.
    pub(super) fn into_conversation(self) -> Conversation {
        self.0
    }
}

/// The server said something else.
pub(super) fn unexpected() -> String {
    "the server answers something else: are both of the same version?".to_owned()
}
