//! Signals as requests: INT and TERM end the tunnel or the server in order, HUP too for a client
//! that does not persist.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::admin::{Asked, Request};

/// Sends `Request::Down` for every INT, TERM and HUP until the task is dropped; the name of the
/// first goes to `first`.
pub(crate) async fn forward(
    requests: mpsc::Sender<Asked>,
    first: oneshot::Sender<i32>,
) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut first = Some(first);
    loop {
        let number = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        };
        if let Some(first) = first.take() {
            let _ = first.send(number.as_raw_value());
        }
        let (answer, _) = oneshot::channel();
        if requests.send((Request::Down, answer)).await.is_err() {
            return Ok(());
        }
    }
}
