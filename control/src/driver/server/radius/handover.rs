//! RADIUS on its way to another process: sessions keep their accounting, as if the server had not
//! changed. The servers hear neither that it has stopped nor that it has started.
//!
//! Questions that are out are not carried: their clients are still negotiating.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use dataplane::program::CallId;
use serde::{Deserialize, Serialize};

use super::{Call, Radius};
use crate::config::radius::RadiusConfig;
use crate::driver::clock::Clock;
use crate::proto::Time;
use crate::proto::radius::{Accounting, Record};

/// What concerns no session in particular.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::driver::server) struct RadiusState {
    /// The time that all times are of.
    now: Time,
    /// What no server has taken yet.
    records: Vec<Record>,
}

/// What is remembered of one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::driver::server) struct AccountState {
    acct_session_id: String,
    called: Option<Ipv4Addr>,
    by_secrets: bool,
    framed: Option<Ipv4Addr>,
    /// When accounting began.
    started: Option<Time>,
    /// The next interim update.
    interim_due: Option<Time>,
}

impl Radius {
    /// What another process needs beside the sessions.
    pub(in crate::driver::server) fn told(&self) -> RadiusState {
        let accounting = self.accounting.iter();
        RadiusState {
            now: self.clock.now(),
            records: accounting.flat_map(Accounting::kept).cloned().collect(),
        }
    }

    /// What another process needs to go on with a session.
    pub(in crate::driver::server) fn account_told(&self, call_id: CallId) -> Option<AccountState> {
        let call = self.calls.get(&call_id)?;
        let accounting = self.accounting.as_ref();
        Some(AccountState {
            acct_session_id: call.acct_session_id.clone(),
            called: call.called,
            by_secrets: call.by_secrets,
            framed: call.framed,
            started: call.started,
            interim_due: accounting.and_then(|accounting| accounting.interim_due(call_id)),
        })
    }

    /// The socket that orders come to.
    pub(in crate::driver::server) fn order_socket(&self) -> Option<RawFd> {
        self.sockets.dynamic().map(AsRawFd::as_raw_fd)
    }

    /// Hears orders where the configuration says: through the old socket, if it is bound there.
    ///
    /// # Errors
    /// The operating system's.
    pub(in crate::driver::server) fn hear_orders(
        &mut self,
        config: &RadiusConfig,
        old: Option<OwnedFd>,
    ) -> std::io::Result<()> {
        let Some(dynamic) = &config.dynamic else {
            return Ok(());
        };
        let is_there = |it: &UdpSocket| it.local_addr().is_ok_and(|at| at == dynamic.listen);
        let socket = match old.map(UdpSocket::from).filter(is_there) {
            Some(socket) => socket,
            None => UdpSocket::bind(dynamic.listen)?,
        };
        self.sockets.hear_orders(socket)
    }

    /// Goes on at the time of the other process, and sends what it could not. Nothing may have
    /// happened here before.
    pub(in crate::driver::server) fn assume(&mut self, state: RadiusState) {
        self.clock = Clock::at(state.now);
        let now = self.clock.now();
        if let Some(accounting) = &mut self.accounting {
            for record in state.records {
                accounting.record(now, record);
            }
        }
        self.settle(&mut Vec::new());
    }

    /// Goes on with a session. `interval_ms` is its own for interim updates.
    pub(in crate::driver::server) fn assume_account(
        &mut self,
        call_id: CallId,
        state: AccountState,
        interval_ms: Option<u64>,
    ) {
        let call = Call {
            acct_session_id: state.acct_session_id,
            called: state.called,
            by_secrets: state.by_secrets,
            framed: state.framed,
            started: state.started,
            ..Call::default()
        };
        self.calls.insert(call_id, call);
        let interval_ms = interval_ms.or(self.interim_ms).filter(|ms| *ms < u64::MAX);
        if let (Some(accounting), Some(interval_ms)) = (&mut self.accounting, interval_ms)
            && state.started.is_some()
        {
            let now = self.clock.now();
            accounting.go_on_with_interims(now, call_id, interval_ms, state.interim_due);
        }
    }

    /// Sessions and records are another process's from now on.
    pub(in crate::driver::server) fn let_go(&mut self, taken: impl Iterator<Item = CallId>) {
        if let Some(accounting) = &mut self.accounting {
            accounting.let_go();
        }
        self.sockets.ignore_orders();
        for call_id in taken {
            self.calls.remove(&call_id);
        }
    }
}
