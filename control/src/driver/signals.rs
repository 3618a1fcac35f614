//! Signals as requests, as pppd takes them: INT and TERM end the tunnel or the server in order, HUP
//! ends the link, USR1 turns the log of packets on and off, USR2 negotiates compression again.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::admin::{Asked, Request};

/// Sends a request for every signal until the task is dropped; the number of the first INT or TERM
/// goes to `first`.
pub(crate) async fn forward(
    requests: mpsc::Sender<Asked>,
    first: oneshot::Sender<i32>,
) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    let mut first = Some(first);
    loop {
        let (number, request) = tokio::select! {
            _ = interrupt.recv() => (SignalKind::interrupt(), Request::Down),
            _ = terminate.recv() => (SignalKind::terminate(), Request::Down),
            _ = hangup.recv() => (SignalKind::hangup(), Request::HangUp),
            _ = user1.recv() => (SignalKind::user_defined1(), Request::ToggleDebug),
            _ = user2.recv() => (SignalKind::user_defined2(), Request::RenegotiateCompression),
        };
        if request == Request::Down
            && let Some(first) = first.take()
        {
            let _ = first.send(number.as_raw_value());
        }
        let (answer, _) = oneshot::channel();
        if requests.send((request, answer)).await.is_err() {
            return Ok(());
        }
    }
}
