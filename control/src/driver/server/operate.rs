//! What an operator asks of a running server: sessions, pools, their end, a capture.

use std::sync::Arc;

use dataplane::capture::Tap;
use dataplane::limits::TAPS_MAX;
use dataplane::program::{CallId, Command};
use nix::unistd::{Gid, Group};

use super::snapshot::{General, Snapshot, SnapshotPart};
use super::{Action, Event, Server, Session};
use crate::driver::admin::Answer;
use crate::driver::admin::records::{
    CaptureWish, Order, PAGE_SESSIONS, PoolRecord, Progress, SessionName, SessionPage,
    SessionRecord, TERMINATE_MAX,
};
use crate::driver::capture::Capture;
use crate::proto::endpoint::CallPhase;

/// Goes into the Terminate-Request of a session that is ended so.
const REASON: &str = "Terminated by the administrator";

/// What operators have set going.
#[derive(Default)]
pub(super) struct Operation {
    pub(super) is_draining: bool,
    captures: Vec<(CallId, Arc<Tap>)>,
}

impl Server {
    /// Does what an operator asks; what that sets off is to be carried out.
    pub(super) fn operate(&mut self, order: Order) -> (Answer, Vec<Action>) {
        let answer = match order {
            Order::Sessions { after } => Answer::Sessions(self.page(after)),
            Order::Terminate { sessions, hard } => return self.terminate(&sessions, hard),
            Order::Pools => Answer::Pools {
                pools: self.pool_records(),
            },
            // Answered when the files have been read.
            Order::Reload => Answer::Done,
            Order::Drain { cancel } => {
                self.operation.is_draining = !cancel;
                self.engine.set_accepting(cancel);
                Answer::Progress(self.progress())
            }
            Order::Progress => Answer::Progress(self.progress()),
        };
        (answer, Vec::new())
    }

    fn progress(&self) -> Progress {
        Progress {
            is_draining: self.operation.is_draining,
            sessions: self.sessions.len(),
        }
    }

    /// No calls are taken, and none are left.
    pub(super) fn is_drained(&self) -> bool {
        self.operation.is_draining && self.sessions.is_empty()
    }

    /// The next sessions by call ID. There may be ten thousand: only those of the page are looked
    /// at closely.
    fn page(&self, after: Option<u16>) -> SessionPage {
        let is_next = |call_id: &CallId| after.is_none_or(|after| call_id.0 > after);
        let mut call_ids: Vec<CallId> = self.sessions.keys().copied().filter(is_next).collect();
        let has_more = call_ids.len() > PAGE_SESSIONS;
        if has_more {
            call_ids.select_nth_unstable(PAGE_SESSIONS);
            call_ids.truncate(PAGE_SESSIONS);
        }
        call_ids.sort_unstable();
        let next = call_ids.last().filter(|_| has_more);
        SessionPage {
            next: next.map(|call_id| call_id.0),
            sessions: call_ids
                .iter()
                .filter_map(|call_id| self.record(*call_id, self.sessions.get(call_id)?))
                .collect(),
        }
    }

    fn record(&self, call_id: CallId, session: &Session) -> Option<SessionRecord> {
        let worker = call_id.receiver(self.engine.workers.count());
        let network = session.network.as_ref();
        let seen = self.observer.session(call_id);
        let mut record = SessionRecord {
            sid: self.observer.sid(call_id),
            call_id: call_id.0,
            worker,
            interface: self.device_name(call_id).to_owned(),
            user: session.attributes.user.clone(),
            peer: session.peer.clone(),
            called: seen
                .and_then(|seen| seen.called)
                .map_or_else(String::new, |called| called.to_string()),
            local_ip: network.map(|it| it.agreed.local.to_string()),
            ip: network.map(|it| it.agreed.remote.to_string()),
            ip6: network.and_then(|it| Some(it.ipv6?.remote.link_local().to_string())),
            state: session.state().to_owned(),
            uptime_s: session.since.map_or(0, |since| since.elapsed().as_secs()),
            cipher: network.map(|it| it.agreed.cipher.clone()),
            rate_limit: self.rate_limit(&session.attributes),
            setup: seen.map_or_else(Vec::new, |seen| seen.setup()),
            ..SessionRecord::default()
        };
        if let Some(call) = self.engine.call(call_id) {
            record.peer_call_id = call.peer_call_id;
            record.host_name = call.peer_host_name;
            if call.phase == CallPhase::Ending {
                "finish".clone_into(&mut record.state);
            }
        }
        if let Some(counters) = self.engine.counters(call_id) {
            record.count(counters);
        }
        Some(record)
    }

    /// Whether it is still the session that was meant.
    fn is_still(&self, name: &SessionName) -> bool {
        self.observer.sid(CallId(name.call_id)) == name.sid
            && self.sessions.contains_key(&CallId(name.call_id))
    }

    fn terminate(&mut self, sessions: &[SessionName], hard: bool) -> (Answer, Vec<Action>) {
        if sessions.len() > TERMINATE_MAX {
            let why = format!("more than {TERMINATE_MAX} sessions in one request");
            return (Answer::Refused { why }, Vec::new());
        }
        let (mut count, mut actions) = (0, Vec::new());
        for name in sessions {
            if !self.is_still(name) {
                continue;
            }
            count += 1;
            let (call_id, reason) = (CallId(name.call_id), REASON.to_owned());
            actions.extend(self.engine.handle_event(if hard {
                Event::Cut { call_id, reason }
            } else {
                Event::HangUp { call_id, reason }
            }));
        }
        (Answer::Terminated { count }, actions)
    }

    fn pool_records(&self) -> Vec<PoolRecord> {
        let usage = self.leases.usage().into_iter();
        let records = usage.map(|pool| PoolRecord {
            name: pool.name,
            ranges: pool.ranges.to_string(),
            size: pool.total,
            used: pool.total - pool.free,
            free: pool.free,
        });
        records.collect()
    }

    /// Copies the packets of one session from now on.
    pub(super) fn capture(&mut self, wish: CaptureWish) -> Answer {
        self.forget_captures();
        let refused = |why: String| Answer::Refused { why };
        let Some(name) = wish.session.as_ref().filter(|name| self.is_still(name)) else {
            return refused("this session has gone".to_owned());
        };
        if self.operation.captures.len() >= TAPS_MAX {
            return refused(format!("{TAPS_MAX} captures run already: end one of them"));
        }
        let call_id = CallId(name.call_id);
        let Some(session) = self.sessions.get(&call_id) else {
            return refused("this session has gone".to_owned());
        };
        let title = format!("{} at {}", session.attributes.user, session.peer);
        let tap = Tap::new();
        self.operation.captures.push((call_id, Arc::clone(&tap)));
        let capture = Command::Capture {
            call_id,
            tap: Arc::clone(&tap),
        };
        self.engine.command(call_id, capture);
        Answer::Capture(Capture { tap, title, wish })
    }

    /// Lets go of taps that nobody reads any more, or whose session has gone.
    pub(super) fn forget_captures(&mut self) {
        let captures = std::mem::take(&mut self.operation.captures);
        for (call_id, tap) in captures {
            if tap.is_closed() {
                self.engine
                    .command(call_id, Command::EndCapture { call_id });
            } else if !tap.has_ended() {
                self.operation.captures.push((call_id, tap));
            }
        }
    }

    /// A part of what metrics show.
    pub(super) fn snapshot(&self, part: SnapshotPart) -> Snapshot {
        match part {
            SnapshotPart::General => Snapshot::General(General {
                connections: self.engine.connection_count(),
                is_draining: self.operation.is_draining,
                control: self.engine.control_counters(),
                refused: self.refusal_counts(),
                pools: self.pool_records(),
            }),
            SnapshotPart::Share(share) => Snapshot::Share(self.share(share)),
        }
    }

    /// The group that may use the admin socket, where there is one.
    pub(super) fn admin_group(&self) -> Option<Gid> {
        admin_group(&self.config.operation.admin_group)
    }
}

/// The group of this name, where there is one.
#[must_use]
pub fn admin_group(name: &str) -> Option<Gid> {
    let group = Group::from_name(name).ok().flatten()?;
    Some(group.gid)
}
