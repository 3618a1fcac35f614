//! `usepeerdns`: the host asks a tunnel's name servers as long as the tunnel stands.
//!
//! systemd-resolved or resolvconf is told where one of them runs the host's resolver. Elsewhere
//! /etc/resolv.conf itself is replaced; the file of before, whatever it was, waits beside it and
//! is put back when the last tunnel with name servers has gone.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::log::Log;
use super::programs::Program;
use super::{admin, run_files, service};

mod resolv_conf;

use resolv_conf::{ResolvConf, Restored};

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

/// Makes `servers` those of the host, for the tunnel behind `interface`.
///
/// # Errors
/// When /etc/resolv.conf cannot be written.
pub(crate) async fn set(
    tunnel: &str,
    interface: &str,
    servers: &[Ipv4Addr],
    log: &Log,
) -> io::Result<()> {
    let manager = manager();
    let told = match manager {
        Manager::Resolved => tell_resolved(interface, servers).await,
        Manager::Resolvconf => tell_resolvconf(interface, servers).await,
        Manager::Nobody => return resolv_conf().add(tunnel, servers, &runs),
    };
    let Err(why) = told else { return Ok(()) };
    log.line(&format!("{why}; writing /etc/resolv.conf instead"));
    resolv_conf().add(tunnel, servers, &runs)
}

/// Undoes `set`; that nothing was set is no error.
pub(crate) async fn restore(tunnel: &str, interface: &str, log: &Log) {
    match manager() {
        Manager::Resolved => drop(call("resolvectl", &["revert", interface], "").await),
        Manager::Resolvconf => {
            drop(call("resolvconf", &["-d", &record(interface)], "").await);
        }
        Manager::Nobody => {}
    }
    match resolv_conf().remove(tunnel, &runs) {
        Ok(Restored::Done) => {}
        Ok(Restored::Foreign) => {
            log.line("/etc/resolv.conf is no longer ours; it stays as it is");
        }
        Err(error) => log.line(&format!("cannot restore /etc/resolv.conf: {error}")),
    }
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
    }
    .launch();
    match service::beat_during(running.wait()).await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(&status)),
        Err(error) => Err(failed(&error)),
    }
}

fn manager() -> Manager {
    let target = std::fs::read_link(resolv_conf::FILE)
        .map(|target| Path::new("/etc").join(target))
        .unwrap_or_default();
    let is_resolved = target.ends_with("resolve/stub-resolv.conf")
        || target.ends_with("resolve/resolv.conf")
        || target.starts_with(RESOLVED_DIR);
    if is_resolved && is_installed("resolvectl") {
        Manager::Resolved
    } else if is_installed("resolvconf") {
        Manager::Resolvconf
    } else {
        Manager::Nobody
    }
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
        file: PathBuf::from(resolv_conf::FILE),
        saved: PathBuf::from(resolv_conf::SAVED),
        users: run_files::run_dir().join("name-servers"),
    }
}
