//! `pptp-fast secret`: chap-secrets and pap-secrets, line by line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{fail, password, ppp_directory, print_line, table};
use crate::config::edit::EditError;
use crate::config::edit::secrets::{NewSecret, SecretLine, SecretsFile, read_lines};
use crate::proto::auth::Secret;

/// The server's name where nobody gives another, as in pptp-command.
pub(super) const DEFAULT_REMOTE: &str = "PPTP";

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chap,
    Pap,
}

impl Kind {
    const fn new(pap: bool) -> Self {
        if pap { Self::Pap } else { Self::Chap }
    }

    /// The file.
    pub(super) fn path(self) -> PathBuf {
        ppp_directory().join(match self {
            Self::Chap => "chap-secrets",
            Self::Pap => "pap-secrets",
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Chap => "CHAP",
            Self::Pap => "PAP",
        })
    }
}

/// Add, list or delete secrets: chap-secrets, or pap-secrets with --pap.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast secret add mia zidler\n  \
    pptp-fast secret add 'OFFICE\\mia' --password-file - < mia.password\n  \
    pptp-fast secret list --json\n  pptp-fast secret delete mia zidler\n\n\
    Lines that others wrote stay as they are. A password is never shown.")]
pub(super) struct SecretCommand {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Add(Add),
    List(List),
    Delete(Delete),
}

/// Add a secret for both directions, or give the one that is there another password.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast secret add mia zidler\n  \
    pptp-fast secret add 'OFFICE\\mia' --password-file - < mia.password\n  \
    pptp-fast secret add guest zidler --one-way --address 10.0.0.7")]
struct Add {
    /// Our name towards the server; for a Windows server: DOMAIN\user.
    local: String,
    /// The server's name; it tells secrets with the same local name apart.
    #[arg(default_value = DEFAULT_REMOTE)]
    remote: String,
    /// File whose first line is the password, - for standard input; without it you are asked.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// Only the line LOCAL REMOTE, as a server needs it for its users.
    #[arg(long)]
    one_way: bool,
    /// Address that the client may have, * for any; may be given several times.
    #[arg(long = "address", requires = "one_way")]
    addresses: Vec<String>,
    /// pap-secrets instead of chap-secrets.
    #[arg(long)]
    pap: bool,
}

/// List whose secrets there are.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast secret list\n  pptp-fast secret list --pap --json")]
struct List {
    /// pap-secrets instead of chap-secrets.
    #[arg(long)]
    pap: bool,
    /// One JSON array.
    #[arg(long)]
    json: bool,
}

/// Delete the lines of a pair of names, in both directions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast secret delete mia zidler")]
struct Delete {
    /// Our name towards the server.
    local: String,
    /// The server's name.
    #[arg(default_value = DEFAULT_REMOTE)]
    remote: String,
    /// pap-secrets instead of chap-secrets.
    #[arg(long)]
    pap: bool,
}

impl SecretCommand {
    pub(super) fn run(&self) -> ExitCode {
        let done = match &self.step {
            Step::Add(add) => add.run(),
            Step::List(list) => list.run().map_err(|error| error.to_string()),
            Step::Delete(delete) => delete.run(),
        };
        done.map_or_else(|error| fail(error, 1), |()| ExitCode::SUCCESS)
    }
}

impl Add {
    fn run(&self) -> Result<(), String> {
        let Self { local, remote, .. } = self;
        let prompt = format!("Password of {local}:");
        let secret = password::from_file_or_terminal(self.password_file.as_deref(), &prompt)?;
        let kind = Kind::new(self.pap);
        let replaced = match self.one_way {
            true => add_line(kind, local, remote, &secret, &self.addresses),
            false => add_pair(kind, local, remote, &secret),
        };
        let replaced = replaced.map_err(|error| error.to_string())?;
        let verb = if replaced { "Replaced" } else { "Added" };
        print_line(format_args!(
            "{verb} the {kind} secret of {local} and {remote}"
        ));
        Ok(())
    }
}

impl List {
    fn run(&self) -> Result<(), EditError> {
        let kind = Kind::new(self.pap);
        let lines = read_lines(&kind.path())?;
        if self.json {
            let entry = |line: &SecretLine| {
                serde_json::json!({
                    "client": line.client(),
                    "server": line.server(),
                    "addresses": line.addresses,
                    "line": line.line,
                })
            };
            print_line(serde_json::Value::from_iter(lines.iter().map(entry)));
            return Ok(());
        }
        if lines.is_empty() {
            let next = "Add one with: pptp-fast secret add NAME SERVER";
            print_line(format_args!("There are no {kind} secrets. {next}"));
            return Ok(());
        }
        let row = |line: &SecretLine| {
            let addresses = line.addresses.join(" ");
            vec![line.client(), line.server(), "*****".to_owned(), addresses]
        };
        let rows: Vec<_> = lines.iter().map(row).collect();
        table::print(&["CLIENT", "SERVER", "SECRET", "ADDRESSES"], &rows);
        Ok(())
    }
}

impl Delete {
    fn run(&self) -> Result<(), String> {
        let Self { local, remote, pap } = self;
        let kind = Kind::new(*pap);
        let delete = || {
            let mut file = SecretsFile::open(&kind.path())?;
            let count = file.remove(None, |line| line.is_between(local, remote))?;
            if count > 0 {
                file.write()?;
            }
            Ok(count)
        };
        match delete().map_err(|error: EditError| error.to_string())? {
            0 => Err(format!(
                "there is no {kind} secret of {local} and {remote}. What there is: \
                 pptp-fast secret list{}",
                if *pap { " --pap" } else { "" }
            )),
            count => {
                print_line(format_args!("Deleted {count} entries."));
                Ok(())
            }
        }
    }
}

/// Writes the two lines that pptp-command writes; says whether there was one already.
pub(super) fn add_pair(
    kind: Kind,
    local: &str,
    remote: &str,
    secret: &Secret,
) -> Result<bool, EditError> {
    let mut file = SecretsFile::open(&kind.path())?;
    let mut there = false;
    for (client, server) in [(local, remote), (remote, local)] {
        there |= file.set(&NewSecret {
            client,
            server,
            secret,
            addresses: &[],
        })?;
        if local == remote {
            break;
        }
    }
    file.write().map(|()| there)
}

pub(super) fn add_line(
    kind: Kind,
    client: &str,
    server: &str,
    secret: &Secret,
    addresses: &[String],
) -> Result<bool, EditError> {
    let mut file = SecretsFile::open(&kind.path())?;
    let there = file.set(&NewSecret {
        client,
        server,
        secret,
        addresses,
    })?;
    file.write().map(|()| there)
}
