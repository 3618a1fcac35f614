//! `pptpsetup`: a tunnel and its secret in one command (pptpsetup(8)).

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::dialogue::numbered::Numbered;
use crate::cli::dialogue::{Ask, Unanswered};
use crate::cli::secret::Kind;
use crate::cli::{again, fail, ppp_directory};
use crate::config::edit::EditError;
use crate::config::edit::peer::{self, SetupTunnel};
use crate::config::edit::secrets::{NewSecret, SecretsFile};
use crate::config::peers;
use crate::proto::auth::Secret;

/// Point-to-Point Tunneling Protocol setup.
#[derive(Debug, Parser)]
#[command(
    name = "pptpsetup",
    version,
    infer_long_args = true,
    override_usage = "pptpsetup --create <TUNNEL> --server <SERVER> [--domain <DOMAIN>]\n          \
        --username <USERNAME> [--password <PASSWORD>]\n          [--encrypt] [--start]\n       \
        pptpsetup --delete <TUNNEL>"
)]
struct Arguments {
    /// The name you wish to use to refer to the tunnel (you choose it).
    #[arg(long, short, value_name = "TUNNEL")]
    create: Option<String>,
    /// Delete the tunnel's file, and its lines in chap-secrets.
    #[arg(long, value_name = "TUNNEL", conflicts_with = "create")]
    delete: Option<String>,
    /// The IP address or host name of the server.
    #[arg(long, short)]
    server: Option<String>,
    /// The authentication domain name.
    #[arg(long, short)]
    domain: Option<String>,
    /// The username you are to use.
    #[arg(long, short)]
    username: Option<String>,
    /// The password; others can read it in the list of processes. Without it you are asked.
    #[arg(long, short)]
    password: Option<String>,
    /// Whether encryption is required.
    #[arg(long, short)]
    encrypt: bool,
    /// Whether to start the connection after configuration.
    #[arg(long)]
    start: bool,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}\nTry 'pptpsetup --help' for more information.")]
    Usage(&'static str),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error("no password: {0}")]
    Unanswered(#[from] Unanswered),
    #[error("can't start the tunnel: {0}")]
    Start(#[from] std::io::Error),
}

pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    let words = std::iter::once(OsString::from("pptpsetup")).chain(arguments);
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return if asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
    };
    let done = match (&arguments.create, &arguments.delete) {
        (Some(tunnel), _) => create(tunnel, &arguments),
        (None, Some(tunnel)) => delete(tunnel).map(|()| ExitCode::SUCCESS),
        (None, None) => Err(Failure::Usage("too few arguments.")),
    };
    done.unwrap_or_else(|error| fail(error, 1))
}

fn create(tunnel: &str, arguments: &Arguments) -> Result<ExitCode, Failure> {
    check_name(tunnel)?;
    let given = |word: &Option<String>| word.clone().filter(|word| !word.is_empty());
    let server = given(&arguments.server).ok_or(Failure::Usage("invalid server."))?;
    let user = given(&arguments.username).ok_or(Failure::Usage("invalid username."))?;
    let user = match given(&arguments.domain) {
        Some(domain) => format!("{domain}\\{user}"),
        None => user,
    };
    let password = match given(&arguments.password) {
        Some(password) => Secret::new(password.into_bytes()),
        None => Numbered::standard().password("Password", true)?,
    };
    let new = SetupTunnel {
        name: tunnel.to_owned(),
        server,
        user,
        encrypt: arguments.encrypt,
    };
    peer::set_up(&ppp_directory(), &new)?;
    let addresses = ["*".to_owned()];
    let secret = NewSecret {
        client: &new.user,
        server: tunnel,
        secret: &password,
        addresses: &addresses,
    };
    let mut file = SecretsFile::open(&Kind::Chap.path())?;
    // Made again, the tunnel has one secret: the new one.
    file.remove(Some(&note(tunnel)), |line| line.is_for(&new.user, tunnel))?;
    file.append_noted(&note(tunnel), &secret)?;
    file.write()?;
    match arguments.start {
        true => Ok(again(&["up", tunnel, "--", "updetach"])?),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn delete(tunnel: &str) -> Result<(), Failure> {
    check_name(tunnel)?;
    peer::delete(&ppp_directory(), tunnel)?;
    let mut file = SecretsFile::open(&Kind::Chap.path())?;
    file.back_up()?;
    let mine = |client: String, server: String| client == tunnel || server == tunnel;
    if file.remove(Some(&note(tunnel)), |line| {
        mine(line.client(), line.server())
    })? > 0
    {
        file.write()?;
    }
    Ok(())
}

fn note(tunnel: &str) -> String {
    format!("added by pptpsetup for {tunnel}")
}

fn check_name(tunnel: &str) -> Result<(), Failure> {
    peers::check_name(tunnel).map_err(|_| Failure::Usage("invalid tunnel name."))
}
