//! `pptp-fast dns`: the name servers for the time that a tunnel is up.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{fail, print_line};
use crate::config::edit::EditError;
use crate::config::edit::resolv_conf::{self, ResolvConf};
use crate::driver::name_servers;

/// Show, set or put back the resolv.conf for the time that a tunnel is up.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast dns show\n  \
    pptp-fast dns set --search corp.example --nameserver 10.0.0.1\n  \
    pptp-fast dns restore      (also after a crash: resolv.conf is as before)")]
pub(super) struct Dns {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Show(Show),
    Set(Set),
    Restore(Restore),
}

/// Show which name servers are asked, with and without a tunnel.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast dns show\n  pptp-fast dns show --json")]
struct Show {
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Ask these name servers while a tunnel is up.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast dns set --nameserver 10.0.0.1\n  \
    pptp-fast dns set --search corp.example --nameserver 10.0.0.1 --nameserver 10.0.0.2"
)]
struct Set {
    /// Domain that is searched for names without a dot; may be given several times.
    #[arg(long, value_name = "DOMAIN")]
    search: Vec<String>,
    /// Address of a name server; may be given up to three times.
    #[arg(long, value_name = "ADDRESS", required = true)]
    nameserver: Vec<String>,
}

/// Put resolv.conf back as it was before `dns set`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast dns restore")]
struct Restore {}

/// The files of this host.
pub(super) fn files() -> ResolvConf {
    ResolvConf::new(&resolv_conf::active())
}

impl Dns {
    pub(super) fn run(&self) -> ExitCode {
        let files = files();
        let done = match &self.step {
            Step::Show(show) => {
                show.run(&files);
                Ok(())
            }
            Step::Set(set) => set.run(&files),
            Step::Restore(Restore {}) => restore(&files),
        };
        done.map_or_else(|error| fail(error, 1), |()| ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(&self, files: &ResolvConf) {
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let tunnel = files.pptp.is_file().then(|| words(&read(&files.pptp)));
        let now = words(&read(&files.active));
        if self.json {
            let list = |(search, servers): &(Vec<String>, Vec<String>)| serde_json::json!({ "search": search, "nameservers": servers });
            print_line(serde_json::json!({
                "file": files.active.display().to_string(),
                "active": list(&now),
                "with_tunnel": tunnel.as_ref().map(list),
                "tunnel_is_active": files.tunnel_is_active(),
            }));
            return;
        }
        let line = |(search, servers): &(Vec<String>, Vec<String>)| {
            let or_none = |words: &[String]| match words {
                [] => "-".to_owned(),
                words => words.join(" "),
            };
            format!("{} (search {})", or_none(servers), or_none(search))
        };
        print_line(format_args!("Now            {}", line(&now)));
        match &tunnel {
            Some(tunnel) => print_line(format_args!("With a tunnel  {}", line(tunnel))),
            None => print_line(
                "With a tunnel  the same. Set others with: pptp-fast dns set --nameserver ADDRESS",
            ),
        }
    }
}

/// `search` and `nameserver` lines.
fn words(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut search, mut servers) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace().map(ToOwned::to_owned);
        match words.next().as_deref() {
            Some("search") => search = words.collect(),
            Some("nameserver") => servers.extend(words.next()),
            _ => {}
        }
    }
    (search, servers)
}

impl Set {
    fn run(&self, files: &ResolvConf) -> Result<(), EditError> {
        files.write_pptp(&self.search, &self.nameserver)?;
        files.keep_real()?;
        print_line(format_args!(
            "While a tunnel is up, {} is asked. Put it back with: pptp-fast dns restore",
            self.nameserver.join(", ")
        ));
        Ok(())
    }
}

fn restore(files: &ResolvConf) -> Result<(), EditError> {
    let active = files.active.display();
    let repaired = name_servers::repair().unwrap_or(false);
    match files.restore()? || repaired {
        true => print_line(format_args!("{active} is as it was before")),
        false => print_line(format_args!("There is nothing to put back in {active}")),
    }
    Ok(())
}

/// After a tunnel has come up: whether the version for tunnels is the active one, in pptp-command's
/// words.
pub(super) fn tell_after_start() {
    let files = files();
    let (active, pptp) = (files.active.display(), files.pptp.display());
    if files.tunnel_is_active() {
        print_line(format_args!("Installed {pptp} as {active}"));
    } else if files.is_configured() {
        print_line(format_args!(
            "WARNING: {pptp} not installed\n\t{active} does not match {}",
            files.real.display()
        ));
    }
}

/// After the last tunnel has ended.
pub(super) fn tell_after_stop(was_active: bool) {
    let files = files();
    if was_active && !files.tunnel_is_active() {
        print_line(format_args!(
            "Installed {} as {}",
            files.real.display(),
            files.active.display()
        ));
    }
}
