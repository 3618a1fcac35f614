//! The configuration and the secrets, read again while tunnels stand. What a session is negotiated
//! by counts from the next call on; who has a session keeps it. A file with a mistake changes
//! nothing.
//!
//! Files are read by another thread, since they may be large and a disk slow.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Server;
use crate::config::error::ConfigError;
use crate::config::server::ServerConfig;
use crate::config::traffic::TrafficConfig;
use crate::driver::admin::Answer;
use crate::driver::admin::records::Reloaded;

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
    /// Reads everything again; `answer` hears what came of it.
    pub(super) fn reload(&mut self, answer: oneshot::Sender<Answer>) {
        if self.reloading.task.is_some() {
            self.reloading.again = true;
            self.reloading.waiting.push(answer);
            return;
        }
        let Some(source) = self.config.operation.source.clone() else {
            let why = "this server has no configuration file to read again".to_owned();
            let _ = answer.send(Answer::Refused { why });
            return;
        };
        self.reloading.waiting.push(answer);
        self.reloading.again = false;
        let read = move || ServerConfig::read(&source.path, &source.dir, &source.host_name);
        self.reloading.task = Some(tokio::task::spawn_blocking(read));
    }

    /// The files have been read.
    pub(super) fn reloaded(&mut self, read: Result<ServerConfig, String>) {
        if self.reloading.again
            && let Some(last) = self.reloading.waiting.pop()
        {
            return self.reload(last);
        }
        let is_sound = |config: &ServerConfig| {
            let objection = config.secrets.objection_after(&self.config.secrets);
            objection.map_or(Ok(()), Err)
        };
        let read = read.and_then(|config| is_sound(&config).map(|()| config));
        let waiting = std::mem::take(&mut self.reloading.waiting);
        for waiting in waiting.into_iter().zip(self.answers(read)) {
            let (waiting, answer) = waiting;
            let _ = waiting.send(answer);
        }
    }

    /// Adopts what has been read, or says why not: the same to all who ask.
    fn answers(
        &mut self,
        read: Result<ServerConfig, String>,
    ) -> impl Iterator<Item = Answer> + use<> {
        let result = match read {
            Ok(config) => {
                let reloaded = self.adopt(config);
                let (secrets, pools) = (reloaded.secrets, self.config.pools.len());
                self.log.line(&format!(
                    "The configuration has been read again: {secrets} secrets, {pools} pools"
                ));
                for warning in &reloaded.warnings {
                    self.log.line(warning);
                }
                for setting in &reloaded.needs_restart {
                    self.log
                        .line(&format!("{setting} has changed and needs a restart"));
                }
                Ok(reloaded)
            }
            Err(why) => {
                self.log
                    .line(&format!("The configuration stays as it was: {why}"));
                Err(format!("{why}. Everything stays as it was"))
            }
        };
        std::iter::repeat_with(move || match &result {
            Ok(reloaded) => Answer::Reloaded(reloaded.clone()),
            Err(why) => Answer::Refused { why: why.clone() },
        })
    }

    fn adopt(&mut self, new: ServerConfig) -> Reloaded {
        let needs_restart = differences(&self.config, &new);
        self.reconfigure_admission(&new);
        let old = &mut self.config;
        let mut link = new.link;
        // The devices have it since the start.
        link.lcp.mtu = old.link.lcp.mtu;
        link.ipv6 = link.ipv6.and(old.link.ipv6);
        old.link = link.clone();
        old.secrets = new.secrets;
        old.pools = new.pools;
        old.delegate = new.delegate;
        let host = old.traffic.host.clone();
        old.traffic = TrafficConfig {
            host,
            ..new.traffic
        };
        old.timeouts.idle_ms = new.timeouts.idle_ms;
        old.timeouts.session_ms = new.timeouts.session_ms;
        old.timeouts.shutdown_ms = new.timeouts.shutdown_ms;
        old.single_session = new.single_session;
        old.ipparam = new.ipparam;
        old.welcome = new.welcome;
        self.debug.set(new.log.debug);
        self.leases.reconfigure(&self.config);
        self.engine.set_link(Arc::new(link));
        Reloaded {
            secrets: self.config.secrets.count(),
            needs_restart,
            warnings: new.warnings,
        }
    }
}

/// Settings that count from the start of the process only.
fn differences(old: &ServerConfig, new: &ServerConfig) -> Vec<String> {
    let settings = [
        ("the addresses to listen on", old.listen != new.listen),
        ("the server's own addresses", old.local != new.local),
        (
            "where tunnels end",
            (old.interface_per_session, &old.interface_vrf, &old.netns)
                != (new.interface_per_session, &new.interface_vrf, &new.netns),
        ),
        ("the file of leases", old.leases != new.leases),
        ("the number of workers", old.workers != new.workers),
        (
            "how packets are carried",
            (old.split_directions, old.look_ahead) != (new.split_directions, new.look_ahead)
                || old.fast_path != new.fast_path,
        ),
        (
            "how many sessions there may be, or which addresses count as one",
            (old.limits.sessions_max, old.limits.peer_prefix_len)
                != (new.limits.sessions_max, new.limits.peer_prefix_len),
        ),
        (
            "client_to_client, forwarding, nat or proxy_arp",
            (&old.traffic.host, old.proxy_arp) != (&new.traffic.host, new.proxy_arp),
        ),
        // Who runs scripts has been told where they are before the rest was given up.
        ("the folder of scripts", old.scripts_dir != new.scripts_dir),
        ("the MTU", old.link.lcp.mtu != new.link.lcp.mtu),
        ("the log file", old.log.file != new.log.file),
        (
            "the admin group, metrics, or the format of the log",
            (&old.operation.admin_group, &old.operation.metrics)
                != (&new.operation.admin_group, &new.operation.metrics)
                || old.operation.log_format != new.operation.log_format,
        ),
    ];
    let changed = settings.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(name, _)| name.to_owned()).collect()
}
