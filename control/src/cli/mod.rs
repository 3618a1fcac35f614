//! The command line: one file a command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::prctl;

use crate::driver::log::{Priority, stderr_prefix};

mod bench;
mod capture;
mod check;
mod compat;
mod demo;
mod dialogue;
mod dns;
mod doctor;
mod down;
mod generate;
mod install_links;
mod operate;
mod operator;
mod password;
mod run_programs;
mod secret;
mod serve;
mod sessions;
mod status;
mod table;
mod top;
mod tunnel;
mod up;

/// PPTP in user space: client, concentrator and demonstration in one program.
///
/// PPTP's cryptography is broken: MS-CHAPv2 and RC4 do not keep a secret from a capable adversary.
/// Use it to reach what speaks nothing else.
#[derive(Debug, Parser)]
#[command(
    name = "pptp-fast",
    version,
    arg_required_else_help = true,
    propagate_version = true,
    after_help = "Examples:\n  pptp-fast demo\n  \
        pptp-fast up --server vpn.example.net --user mia --password-file mia.password\n  \
        pptp-fast doctor vpn.example.net\n  \
        pptp-fast setup\n  \
        pptp-fast serve --config /etc/pptp-fast/server.toml"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(Box<up::Up>),
    Down(down::Down),
    Status(status::Status),
    Setup(dialogue::setup::Setup),
    Tunnel(tunnel::TunnelCommand),
    Secret(secret::SecretCommand),
    Dns(dns::Dns),
    Check(check::Check),
    Doctor(doctor::Doctor),
    Serve(serve::Serve),
    Sessions(sessions::Sessions),
    Pool(operate::Pool),
    Reload(operate::Reload),
    Drain(operate::Drain),
    Top(top::Top),
    Capture(capture::Capture),
    Demo(demo::Demo),
    Bench(bench::Bench),
    InstallLinks(install_links::InstallLinks),
    Generate(generate::Generate),
}

/// Reads the arguments of the process, does what they say, and returns the exit status: pppd's
/// for `up`. Called by an old name, it does what that did.
#[must_use]
pub fn main() -> ExitCode {
    name_process();
    if let Some(status) = compat::main() {
        return status;
    }
    if let Some(status) = run_programs::main() {
        return status;
    }
    match Arguments::parse().command {
        Command::Up(up) => up.run(),
        Command::Down(down) => down.run(),
        Command::Status(status) => status.run(),
        Command::Setup(setup) => setup.run(),
        Command::Tunnel(tunnel) => tunnel.run(),
        Command::Secret(secret) => secret.run(),
        Command::Dns(dns) => dns.run(),
        Command::Check(check) => check.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Serve(serve) => serve.run(),
        Command::Sessions(sessions) => sessions.run(),
        Command::Pool(pool) => pool.run(),
        Command::Reload(reload) => reload.run(),
        Command::Drain(drain) => drain.run(),
        Command::Top(top) => top.run(),
        Command::Capture(capture) => capture.run(),
        Command::Demo(demo) => demo.run(),
        Command::Bench(bench) => bench.run(),
        Command::InstallLinks(links) => links.run(),
        Command::Generate(generate) => generate.run(),
    }
}

/// One that was started by `/proc/self/exe` is called `exe` in lists of processes, where people and
/// `pidof` look for it by its own name.
fn name_process() {
    if prctl::get_name().is_ok_and(|name| name.as_c_str() == c"exe") {
        let _ = prctl::set_name(c"pptp-fast");
    }
}

/// Runs this program again with these arguments, and gives its exit status: the old names and the
/// dialogue do with it what a person would type.
fn again(arguments: &[&str]) -> std::io::Result<ExitCode> {
    let status = std::process::Command::new("/proc/self/exe")
        .args(arguments)
        .status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Prints an error for a person and gives the exit status on.
fn fail(message: impl std::fmt::Display, status: u8) -> ExitCode {
    complain(Priority::Error, message);
    ExitCode::from(status)
}

/// Prints a line to standard output; a closed pipe is no error.
fn print_line(line: impl std::fmt::Display) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes());
}

/// Prints a message for a person, in one piece: the log may go to the same terminal. A closed
/// standard error must not hide the exit status behind a panic.
fn warn(message: impl std::fmt::Display) {
    complain(Priority::Warning, message);
}

fn complain(priority: Priority, message: impl std::fmt::Display) {
    let line = format!("{}pptp-fast: {message}\n", stderr_prefix(priority));
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// `PPPDIR`, as pptp-command had it, or /etc/ppp.
fn ppp_directory() -> PathBuf {
    std::env::var_os("PPPDIR").map_or_else(|| crate::config::PPP_DIR.into(), PathBuf::from)
}

/// The name of this host: our name towards a peer when no option gives another.
fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}
