//! New secrets and pools for a server that runs, on HUP: sessions keep what they have.
//!
//! Files are read by another thread, since a file may be large and a disk slow. Whatever is wrong
//! with them, the server goes on with what it had, and says where the mistake is.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Server;
use crate::config::error::ConfigError;
use crate::config::server::ServerConfig;
use crate::driver::admin::Answer;

/// Files that are being read, and who waits for them.
#[derive(Default)]
pub(super) struct Reloading {
    task: Option<JoinHandle<Result<ServerConfig, ConfigError>>>,
    waiting: Vec<oneshot::Sender<Answer>>,
    /// Asked for while files were being read, which may have been too early.
    again: bool,
}

impl Reloading {
    /// What has been read, or the words of what is wrong.
    pub(super) async fn next(&mut self) -> Result<ServerConfig, String> {
        let Some(task) = &mut self.task else {
            return std::future::pending().await;
        };
        let read = task.await;
        self.task = None;
        match read {
            Ok(Ok(config)) => Ok(config),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Server {
    /// Reads the files again; `answer` hears what came of it.
    pub(super) fn reload(&mut self, answer: oneshot::Sender<Answer>) {
        if self.reloading.task.is_some() {
            self.reloading.again = true;
            self.reloading.waiting.push(answer);
            return;
        }
        let Some(origin) = self.config.origin.clone() else {
            let text = "this server was not started from a file".to_owned();
            let _ = answer.send(Answer::Refused(text));
            return;
        };
        self.reloading.waiting.push(answer);
        self.reloading.again = false;
        self.reloading.task = Some(tokio::task::spawn_blocking(move || origin.read()));
    }

    /// The files have been read.
    pub(super) fn reloaded(&mut self, read: Result<ServerConfig, String>) {
        if self.reloading.again
            && let Some(last) = self.reloading.waiting.pop()
        {
            return self.reload(last);
        }
        let taken = read.and_then(|config| self.take(config));
        let answer = match taken {
            Ok(()) => {
                let (secrets, pools) = (self.config.secrets.count(), self.config.pools.len());
                let text = format!("Reloaded: {secrets} secrets, {pools} address pools");
                self.log.line(&text);
                Answer::Done
            }
            Err(why) => {
                let text = format!("Not reloaded, everything stays as it was: {why}");
                self.log.line(&text);
                Answer::Refused(text)
            }
        };
        for waiting in self.reloading.waiting.drain(..) {
            let _ = waiting.send(answer.clone());
        }
    }

    /// Takes over what can change while sessions live.
    fn take(&mut self, new: ServerConfig) -> Result<(), String> {
        if let Some(objection) = new.secrets.objection_after(&self.config.secrets) {
            return Err(objection);
        }
        for warning in &new.warnings {
            self.log.line(warning);
        }
        let config = &mut self.config;
        config.secrets = new.secrets;
        // A TUN device has the server's own address from the start.
        if new.local != config.local {
            let text = "the server's own inner addresses change with the next start";
            self.log.line(text);
        }
        config.pools = new.pools;
        config.delegate = new.delegate;
        config.single_session = new.single_session;
        config.welcome = new.welcome;
        config.timeouts.idle_ms = new.timeouts.idle_ms;
        config.timeouts.session_ms = new.timeouts.session_ms;
        self.leases.reconfigure(&self.config);
        Ok(())
    }
}
