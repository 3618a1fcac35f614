//! The host's name servers as long as a tunnel stands: those that a person has set up for that time
//! (`resolv.conf.pptp`, as pptp-command has it), else those that the peer names (`usepeerdns`).
//!
//! A person's are a file, which takes the place of /etc/resolv.conf. Of the peer's,
//! systemd-resolved or resolvconf is told where one of them runs the host's resolver; elsewhere
//! /etc/resolv.conf itself is replaced. Whatever was there before waits beside it, and is put back
//! when the last tunnel that has to do with it has gone. Nobody else writes there.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::log::Log;
use super::programs::Program;
use super::{admin, run_files, service};

mod resolv_conf;

use resolv_conf::{Installed, ResolvConf, Restored};

use crate::config::edit::resolv_conf as versions;

/// Where systemd-resolved keeps the files that /etc/resolv.conf then points to.
const RESOLVED_DIR: &str = "/run/systemd/resolve";
/// Where programs are looked for when the environment names no place.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Who looks after the host's name servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Resolved,
    Resolvconf,
    Nobody,
}

/// A person has set up name servers for the time that a tunnel is up.
pub(crate) fn are_set_up() -> bool {
    resolv_conf().versions.is_configured()
}

/// Makes those that a person has set up, else `servers`, those of the host, for the tunnel behind
/// `interface`.
///
/// # Errors
/// When /etc/resolv.conf cannot be written.
pub(crate) async fn set(
    tunnel: &str,
    interface: &str,
    servers: &[Ipv4Addr],
    log: &Log,
) -> io::Result<()> {
    let files = resolv_conf();
    let (active, pptp) = (
        files.versions.active.display(),
        files.versions.pptp.display(),
    );
    match files.add_version(tunnel, &runs)? {
        Installed::NotConfigured => {}
        Installed::Done => {
            log.line(&format!("Installed {pptp} as {active}"));
            return Ok(());
        }
        Installed::Foreign => log.line(&format!(
            "WARNING: {pptp} not installed: {active} does not match {}",
            files.versions.real.display()
        )),
    }
    if servers.is_empty() {
        return Ok(());
    }
    let manager = manager(&files.versions.active);
    let told = match manager {
        Manager::Resolved => tell_resolved(interface, servers).await,
        Manager::Resolvconf => tell_resolvconf(interface, servers).await,
        Manager::Nobody => return files.add(tunnel, servers, &runs),
    };
    let Err(why) = told else { return Ok(()) };
    log.line(&format!("{why}; writing {active} instead"));
    files.add(tunnel, servers, &runs)
}

/// Undoes `set`; that nothing was set is no error.
pub(crate) async fn restore(tunnel: &str, interface: &str, log: &Log) {
    let files = resolv_conf();
    match files.remove(tunnel, &runs) {
        Ok(Restored::Done) => {}
        Ok(Restored::Foreign) => {
            log.line("/etc/resolv.conf is no longer ours; it stays as it is");
        }
        Err(error) => log.line(&format!("cannot restore /etc/resolv.conf: {error}")),
    }
    // What it is now says who looks after it.
    match manager(&files.versions.active) {
        Manager::Resolved => drop(call("resolvectl", &["revert", interface], "").await),
        Manager::Resolvconf => {
            drop(call("resolvconf", &["-d", &record(interface)], "").await);
        }
        Manager::Nobody => {}
    }
}

/// Puts back what tunnels have left that no longer run, and of which nothing else is known, as
/// after a reboot; whether there was anything.
///
/// # Errors
/// When /etc/resolv.conf cannot be written.
pub(crate) fn repair() -> io::Result<bool> {
    resolv_conf().repair(&runs)
}

async fn tell_resolved(interface: &str, servers: &[Ipv4Addr]) -> Result<(), String> {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let mut arguments = vec!["dns", interface];
    arguments.extend(servers.iter().map(String::as_str));
    call("resolvectl", &arguments, "").await?;
    // All names, in preference to the other interfaces' servers.
    call("resolvectl", &["domain", interface, "~."], "").await
}

async fn tell_resolvconf(interface: &str, servers: &[Ipv4Addr]) -> Result<(), String> {
    call(
        "resolvconf",
        &["-a", &record(interface)],
        &lines_of(servers),
    )
    .await
}

/// As pppd's scripts call it, so that resolvconf's interface-order knows it.
fn record(interface: &str) -> String {
    format!("{interface}.pptp-fast")
}

/// `nameserver` lines.
pub(crate) fn lines_of(servers: &[Ipv4Addr]) -> String {
    servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect()
}

async fn call(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| format!("{program} {}: {why}", arguments.join(" "));
    let running = Program {
        path: program.into(),
        arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
        environment: None,
        input: Some(input.to_owned()),
        namespace: None,
        is_private: false,
    }
    .launch();
    match service::beat_during(running.wait()).await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(&status)),
        Err(error) => Err(failed(&error)),
    }
}

fn manager(resolv_conf: &Path) -> Manager {
    let is_resolved = |target: &PathBuf| {
        target.ends_with("resolve/stub-resolv.conf")
            || target.ends_with("resolve/resolv.conf")
            || target.starts_with(RESOLVED_DIR)
    };
    // The version without a tunnel is a link to what was the active one.
    let first = target(resolv_conf);
    let second = first.as_deref().and_then(target);
    if first.iter().chain(&second).any(is_resolved) && is_installed("resolvectl") {
        Manager::Resolved
    } else if is_installed("resolvconf") {
        Manager::Resolvconf
    } else {
        Manager::Nobody
    }
}

fn target(link: &Path) -> Option<PathBuf> {
    let directory = link.parent().unwrap_or(link);
    std::fs::read_link(link)
        .ok()
        .map(|target| directory.join(target))
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned());
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether a tunnel's process answers.
fn runs(tunnel: &str) -> bool {
    admin::answers(&run_files::tunnel_socket(tunnel))
}

fn resolv_conf() -> ResolvConf {
    ResolvConf {
        versions: versions::ResolvConf::new(&versions::active()),
        users: run_files::run_dir().join("name-servers"),
    }
}
