//! What systemd is told of the process that it has started (sd_notify(3)): that it is ready, how it
//! is in a line, that it is alive, that it is about to end.
//!
//! The sign of life comes from the loop that does the work, at half the interval that systemd asks
//! for (`WATCHDOG_USEC`): a loop that hangs gives none, and is ended and started again.

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

static SERVICE: OnceLock<Service> = OnceLock::new();

#[derive(Debug)]
struct Service {
    manager: UnixDatagram,
    /// Where it is.
    name: OsString,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Between two signs of life; `None` when nobody waits for them.
    interval: Option<Duration>,
    /// When the next sign of life is due; `None` is now.
    due: Option<Instant>,
    status: String,
}

/// Makes this process the service that its environment speaks of. Whoever does not call this tells
/// systemd nothing: children inherit the environment.
pub fn adopt() {
    if let Some(name) = std::env::var_os("NOTIFY_SOCKET") {
        let interval = sd_notify::watchdog_enabled().map(|interval| interval / 2);
        begin(name, interval.filter(|interval| !interval.is_zero()));
    }
}

fn begin(name: OsString, interval: Option<Duration>) {
    let Ok(manager) = connect(&name) else {
        return;
    };
    let state = State {
        interval,
        ..State::default()
    };
    let _ = SERVICE.set(Service {
        manager,
        name,
        state: Mutex::new(state),
    });
}

/// What another process must know to go on with the service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Supervisor {
    /// Octets of `NOTIFY_SOCKET`.
    socket: Vec<u8>,
    /// Between two signs of life.
    interval_ms: Option<u64>,
}

/// Of this process.
pub(crate) fn supervisor() -> Option<Supervisor> {
    let service = SERVICE.get()?;
    let interval = service.state().interval;
    Some(Supervisor {
        socket: service.name.as_bytes().to_vec(),
        interval_ms: interval.and_then(|interval| u64::try_from(interval.as_millis()).ok()),
    })
}

/// Makes this process the service that another one was: systemd gives the signs of life that it
/// waits for to the first process only.
pub(crate) fn succeed(old: &Supervisor) {
    if SERVICE.get().is_none() {
        begin(OsString::from_vec(old.socket.clone()), None);
    }
    if let Some(service) = SERVICE.get() {
        service.state().interval = old.interval_ms.map(Duration::from_millis);
    }
}

/// The service has another main process now. systemd believes that of the main process, which this
/// one still is.
pub(crate) fn hand_over(pid: i32) {
    if let (Some(service), Ok(pid)) = (SERVICE.get(), u32::try_from(pid)) {
        service.say(&NotifyState::MainPid(pid));
    }
}

/// The socket is a file, or, behind `@`, a name without one, which the crate's own sending does not
/// know.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let manager = UnixDatagram::unbound()?;
    manager.connect_addr(&address)?;
    // A manager that does not read must not hang the tunnel.
    manager.set_nonblocking(true)?;
    Ok(manager)
}

/// It is up.
pub(crate) fn ready(status: &str) {
    if let Some(service) = SERVICE.get() {
        service.say(&NotifyState::Ready);
        self::status(status);
    }
}

/// How it is, for `systemctl status`; said only when it is something else than before.
pub(crate) fn status(status: &str) {
    let Some(service) = SERVICE.get() else { return };
    let mut state = service.state();
    if state.status != status {
        status.clone_into(&mut state.status);
        // A line of it must not be read as another message.
        let line = status.replace(['\n', '\r'], " ");
        service.say(&NotifyState::Status(&line));
    }
}

/// It is about to end.
pub(crate) fn stopping() {
    if let Some(service) = SERVICE.get() {
        service.say(&NotifyState::Stopping);
    }
}

/// Gives a sign of life when it is time, and returns; never where none is waited for. Nothing is
/// lost when the future is dropped.
pub(crate) async fn beat() {
    let service = SERVICE.get();
    let Some((service, interval)) = service.and_then(|it| Some((it, it.state().interval?))) else {
        return std::future::pending().await;
    };
    let due = service.state().due;
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
    service.say(&NotifyState::Watchdog);
    service.state().due = Some(Instant::now() + interval);
}

/// Waits for what the loop has to wait for, such as a script, giving signs of life.
pub(crate) async fn beat_during<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = beat() => {}
        }
    }
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A service manager that does not listen must not end a tunnel.
    fn say(&self, state: &NotifyState<'_>) {
        drop(self.manager.send(format!("{state}\n").as_bytes()));
    }
}
