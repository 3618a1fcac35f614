//! Which session has which inner address, and that it is on record before its client is told.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dataplane::program::CallId;

use super::attributes::{AddressChoice, SessionAttributes};
use super::{Server, ServerError};
use crate::config::server::ServerConfig;
use crate::driver::lease_file::{Kept, LeaseFile, LeaseFileError};
use crate::driver::log::Log;
use crate::proto::pools::{PoolUse, Pools};
use crate::proto::{Action, Time};

/// For another process to let go of the file.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// How often it is looked whether it has.
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// Addresses of all sessions, and the file that outlives them.
pub(super) struct Leases {
    pools: Pools,
    file: Option<LeaseFile>,
    /// Their clock.
    since: Instant,
}

impl Leases {
    /// Pools as configured, with what the file says of them.
    pub(super) fn open(config: &ServerConfig, log: &Log) -> Result<Self, ServerError> {
        match Self::read(config) {
            Err(error) if config.leases.is_required => Err(ServerError::Leases(error)),
            Err(error) => {
                log.line(&format!("{error}; clients may get others after a restart"));
                Ok(Self::unknown(config))
            }
            Ok(leases) => Ok(leases),
        }
    }

    /// Pools as configured, of which nothing is known, and nothing kept.
    pub(super) fn unknown(config: &ServerConfig) -> Self {
        Self {
            pools: config.address_pools(),
            file: None,
            since: Instant::now(),
        }
    }

    fn read(config: &ServerConfig) -> Result<Self, LeaseFileError> {
        let mut leases = Self::unknown(config);
        if let Some(path) = &config.leases.file {
            let (file, records) = LeaseFile::open(path)?;
            let until = Time(0).after_ms(config.leases.rest_ms);
            leases.pools.restore(records, until);
            leases.file = Some(file);
        }
        Ok(leases)
    }

    /// How full each pool is.
    pub(super) fn usage(&self) -> Vec<PoolUse> {
        self.pools.usage()
    }

    /// What the file's thread says next.
    pub(super) async fn next(&mut self) -> Kept {
        match &mut self.file {
            Some(file) => file.next().await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn finish(&mut self, limit: Duration) {
        if let Some(file) = &mut self.file {
            file.finish(limit).await;
        }
    }

    /// Other ranges, and other addresses of users.
    pub(super) fn reconfigure(&mut self, config: &ServerConfig) {
        let (own, fixed) = (config.own_addresses(), config.fixed_addresses());
        self.pools.reconfigure(config.pool_specs(), &own, fixed);
        self.keep(None);
    }

    fn now(&self) -> Time {
        let elapsed = self.since.elapsed().as_millis();
        Time(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Hands what has changed to the file; whether `for_session` is to wait for it.
    fn keep(&mut self, for_session: Option<CallId>) -> bool {
        let records = self.pools.take_records();
        match &self.file {
            Some(file) if !records.is_empty() => {
                file.keep(&records, for_session);
                for_session.is_some()
            }
            _ => false,
        }
    }
}

impl Server {
    /// Keeps the file after another process, with the addresses of the sessions that it had.
    pub(super) async fn succeed_to_leases(&mut self) {
        let began = Instant::now();
        self.leases = loop {
            match Leases::read(&self.config) {
                Ok(leases) => break leases,
                Err(LeaseFileError::InUse(_)) if began.elapsed() < LOCK_LIMIT => {
                    tokio::time::sleep(LOCK_LOOK).await;
                }
                Err(error) => {
                    self.log
                        .line(&format!("{error}; clients may get others after a restart"));
                    break Leases::unknown(&self.config);
                }
            }
        };
        let now = self.leases.now();
        for session in self.sessions.values() {
            let Some(address) = session.address else {
                continue;
            };
            let user = lease_holder(&session.attributes.user, &session.peer);
            if !self.leases.pools.allocate_fixed(now, &user, address) {
                self.log.line(&format!(
                    "{address} is said to be somebody else's than {user}'s"
                ));
            }
        }
        self.leases.keep(None);
    }

    /// The inner address for a client; `Some(None)` lets it bring its own. A peer that proves
    /// itself again keeps what it has.
    pub(super) fn choose_address(
        &mut self,
        call_id: CallId,
        attributes: &SessionAttributes,
    ) -> Option<Option<Ipv4Addr>> {
        let session = self.sessions.get(&call_id)?;
        if let Some(held) = session.address {
            return Some(Some(held));
        }
        let user = lease_holder(&attributes.user, &session.peer);
        let (pools, now) = (&mut self.leases.pools, self.leases.since.elapsed());
        let now = Time(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let address = match attributes.address {
            AddressChoice::Fixed(fixed) => {
                pools.allocate_fixed(now, &user, fixed).then_some(fixed)?
            }
            AddressChoice::Client => return Some(None),
            // pptpd's `delegate`: the client brings its own.
            AddressChoice::Pool if self.config.delegate => return Some(None),
            AddressChoice::Pool => {
                let pool = attributes.pool.as_deref();
                pools.allocate(now, &user, pool, rand::random())?
            }
        };
        self.note_address(call_id, address);
        Some(Some(address))
    }

    /// Takes the address that a client has brought, unless somebody else has it.
    pub(super) fn claim_address(&mut self, call_id: CallId, address: Ipv4Addr) -> bool {
        let Some(session) = self.sessions.get(&call_id) else {
            return false;
        };
        match session.address {
            Some(held) if held == address => return true,
            Some(held) => self.release_address(held),
            None => {}
        }
        let user = self
            .sessions
            .get(&call_id)
            .map(|session| lease_holder(&session.attributes.user, &session.peer));
        let now = self.leases.now();
        let user = user.unwrap_or_default();
        let is_ours = self.leases.pools.allocate_fixed(now, &user, address);
        if is_ours {
            self.note_address(call_id, address);
        } else if let Some(session) = self.sessions.get_mut(&call_id) {
            session.address = None;
        }
        is_ours
    }

    fn note_address(&mut self, call_id: CallId, address: Ipv4Addr) {
        let waits = self.leases.keep(Some(call_id));
        if let Some(session) = self.sessions.get_mut(&call_id) {
            session.address = Some(address);
            session.awaits_record = waits;
        }
    }

    pub(super) fn release_address(&mut self, address: Ipv4Addr) {
        self.leases.pools.release(address);
        self.leases.keep(None);
    }

    /// The lease file has something to say.
    pub(super) fn lease_kept(&mut self, kept: Kept) -> Vec<Action> {
        match kept {
            Kept::Trouble(text) => {
                self.log.line(&text);
                Vec::new()
            }
            Kept::Settled(call_id) => {
                if let Some(session) = self.sessions.get_mut(&call_id) {
                    session.awaits_record = false;
                }
                self.go_on_when_ready(call_id)
            }
        }
    }
}

/// Who an address is remembered for: the user, or where nobody has to say who it is, the host.
fn lease_holder(user: &str, peer: &str) -> String {
    if user.is_empty() {
        format!("@{peer}")
    } else {
        user.to_owned()
    }
}
