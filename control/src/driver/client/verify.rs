//! A server that has to prove who it is, too (`auth`, `require-*`): what it presents is held
//! against the secrets of this end, as pppd does it.

use dataplane::program::CallId;

use super::Client;
use crate::proto::auth::{self, AuthMethod, AuthRequest, Verdict};
use crate::proto::link::MppeLimit;
use crate::proto::{Action, Event};

/// Microsoft's error code (RFC 2759 6) for who has a wrong name or password.
const WRONG_NAME_OR_PASSWORD: u32 = 691;

impl Client<'_> {
    /// Answers what the server presented; what the answer sets off is to be carried out.
    pub(super) fn verify(
        &mut self,
        call_id: CallId,
        request_id: u32,
        request: &AuthRequest,
    ) -> Vec<Action> {
        let link = &self.config.link;
        let pap = request.method == AuthMethod::Pap;
        let (peer, own) = (&request.peer_name, &request.our_name);
        // Who calls itself by our own name may be sending back what we have answered.
        let is_other = peer != own;
        let secret = is_other
            .then(|| link.secrets.find(peer, own, pap))
            .flatten();
        let verdict = match auth::verify(request, secret.as_ref()) {
            Ok(proof) => Verdict::Accept {
                proof,
                message: "Access granted".to_owned(),
                addresses: link.addresses.clone(),
                mppe: MppeLimit::default(),
            },
            Err(_) => Verdict::Reject {
                code: WRONG_NAME_OR_PASSWORD,
                message: "Access denied".to_owned(),
            },
        };
        self.engine.handle_event(Event::Verdict {
            call_id,
            request_id,
            verdict,
        })
    }
}
