//! The configuration and the secrets, read again while tunnels stand. What a session is negotiated
//! by counts from the next call on; who has a session keeps it. A file with a mistake changes
//! nothing.

use std::sync::Arc;

use super::Server;
use crate::config::server::ServerConfig;
use crate::driver::admin::Answer;
use crate::driver::admin::records::Reloaded;

impl Server {
    /// Reads everything again, and says what became of it.
    pub(super) fn reload(&mut self) -> Answer {
        let Some(source) = &self.config.operation.source else {
            return Answer::Refused {
                why: "this server has no configuration file to read again".to_owned(),
            };
        };
        let read = ServerConfig::read(&source.path, &source.dir, &source.host_name);
        match read {
            Ok(config) => {
                let reloaded = self.adopt(config);
                self.log.line("The configuration has been read again");
                for setting in &reloaded.needs_restart {
                    self.log
                        .line(&format!("{setting} has changed and needs a restart"));
                }
                Answer::Reloaded(reloaded)
            }
            Err(error) => {
                self.log
                    .line(&format!("The configuration stays as it was: {error}"));
                Answer::Refused {
                    why: format!("{error}. Everything stays as it was"),
                }
            }
        }
    }

    fn adopt(&mut self, new: ServerConfig) -> Reloaded {
        let needs_restart = differences(&self.config, &new);
        let old = &mut self.config;
        let mut link = new.link;
        // The devices have it since the start.
        link.lcp.mtu = old.link.lcp.mtu;
        link.ipv6 = link.ipv6.and(old.link.ipv6);
        old.link = link.clone();
        old.secrets = new.secrets;
        old.timeouts.idle_ms = new.timeouts.idle_ms;
        old.timeouts.session_ms = new.timeouts.session_ms;
        old.timeouts.shutdown_ms = new.timeouts.shutdown_ms;
        old.single_session = new.single_session;
        old.ipparam = new.ipparam;
        old.scripts_dir = new.scripts_dir;
        old.welcome = new.welcome;
        self.debug.set(new.log.debug);
        self.engine.set_link(Arc::new(link));
        let tables = [false, true].map(|pap| self.config.secrets.table(pap));
        Reloaded {
            secrets: tables.iter().map(|table| table.entries().len()).sum(),
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
        ("the address pool", old.pool != new.pool),
        ("the number of workers", old.workers != new.workers),
        (
            "how packets are carried",
            (old.split_directions, old.look_ahead) != (new.split_directions, new.look_ahead)
                || old.fast_path != new.fast_path,
        ),
        ("limits", old.limits != new.limits),
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
