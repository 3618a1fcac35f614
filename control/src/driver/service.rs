//! What systemd is told of the process that it has started (sd_notify(3)): that it is ready, how it
//! is in a line, that it is alive, that it is about to end.
//!
//! The sign of life comes from the loop that does the work, at half the interval that systemd asks
//! for (`WATCHDOG_USEC`): a loop that hangs gives none, and is ended and started again.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

static SERVICE: OnceLock<Service> = OnceLock::new();

#[derive(Debug)]
struct Service {
    manager: UnixDatagram,
    /// Between two signs of life; `None` when nobody waits for them.
    interval: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the next sign of life is due; `None` is now.
    due: Option<Instant>,
    status: String,
}

/// Makes this process the service that its environment speaks of. Whoever does not call this tells
/// systemd nothing: children inherit the environment.
pub fn adopt() {
    let name = std::env::var_os("NOTIFY_SOCKET");
    let Some(Ok(manager)) = name.map(connect) else {
        return;
    };
    let interval = sd_notify::watchdog_enabled().map(|interval| interval / 2);
    let _ = SERVICE.set(Service {
        manager,
        interval: interval.filter(|interval| !interval.is_zero()),
        state: Mutex::default(),
    });
}

/// The socket is a file, or, behind `@`, a name without one, which the crate's own sending does not
/// know.
fn connect(name: OsString) -> io::Result<UnixDatagram> {
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
    let mut state = service.state.lock().unwrap_or_else(PoisonError::into_inner);
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
    let Some((service, interval)) = SERVICE.get().and_then(|it| Some((it, it.interval?))) else {
        return std::future::pending().await;
    };
    let state = || service.state.lock().unwrap_or_else(PoisonError::into_inner);
    let due = state().due;
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
    service.say(&NotifyState::Watchdog);
    state().due = Some(Instant::now() + interval);
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
    /// A service manager that does not listen must not end a tunnel.
    fn say(&self, state: &NotifyState<'_>) {
        drop(self.manager.send(format!("{state}\n").as_bytes()));
    }
}
