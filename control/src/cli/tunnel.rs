//! `pptp-fast tunnel`: peers files, as pptp-command writes them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::secret::Kind;
use super::{fail, ppp_directory, print_line, secret, table, warn};
use crate::config::check::Verdict;
use crate::config::edit::EditError;
use crate::config::edit::peer::{self, ImportedTunnel, NewTunnel};
use crate::config::network_manager;
use crate::config::peers::{self, Peer};
use crate::config::{ConfigError, PppdOptions};

/// Add, list, show or delete tunnels, and choose the default one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    pptp-fast tunnel add test2 --server vpn.example.org --user mia --remotename zidler\n  \
    pptp-fast tunnel add lab --server 192.0.2.1 --user mia \\\n      \
    --route 'add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV'\n  \
    pptp-fast tunnel import /etc/NetworkManager/system-connections/Office.nmconnection\n  \
    pptp-fast tunnel list --json\n  pptp-fast tunnel default test2")]
pub(super) struct TunnelCommand {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Add(Add),
    Import(Import),
    List(List),
    Show(Show),
    Delete(Delete),
    Default(Default),
}

/// Write a file for a tunnel into /etc/ppp/peers (or $PPPDIR/peers).
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    pptp-fast tunnel add test2 --server vpn.example.org --user mia --remotename zidler\n  \
    pptp-fast tunnel add lab --server 192.0.2.1 --user mia --default \\\n      \
    --route 'add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV'")]
struct Add {
    /// What it is to be called: letters, digits and - _ . @
    name: String,
    /// Address or name of the server.
    #[arg(long)]
    server: String,
    /// Our name, as it stands in chap-secrets.
    #[arg(long)]
    user: String,
    /// The server's name, as it stands in chap-secrets.
    #[arg(long, default_value = secret::DEFAULT_REMOTE)]
    remotename: String,
    /// A route in the words of route(8); may be given several times.
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<String>,
    /// Make it the default tunnel, too.
    #[arg(long)]
    default: bool,
}

/// Write a file for a connection of NetworkManager's PPTP plugin, which stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    pptp-fast tunnel import /etc/NetworkManager/system-connections/Office.nmconnection\n  \
    pptp-fast tunnel import Office.nmconnection --name office --default")]
struct Import {
    /// A file of /etc/NetworkManager/system-connections.
    file: PathBuf,
    /// What it is to be called; without it, what NetworkManager calls it.
    #[arg(long)]
    name: Option<String>,
    /// Make it the default tunnel, too.
    #[arg(long)]
    default: bool,
}

/// List all tunnels.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast tunnel list\n  pptp-fast tunnel list --json")]
struct List {
    /// One JSON array.
    #[arg(long)]
    json: bool,
}

/// Show one tunnel.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast tunnel show test2")]
struct Show {
    /// The tunnel.
    name: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Delete a tunnel's file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast tunnel delete test2")]
struct Delete {
    /// The tunnel.
    name: String,
}

/// Show the default tunnel, or choose it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast tunnel default\n  pptp-fast tunnel default test2\n  \
    pptp-fast tunnel default --none"
)]
struct Default {
    /// The tunnel that is to be the default.
    name: Option<String>,
    /// There is to be no default.
    #[arg(long, conflicts_with = "name")]
    none: bool,
}

impl TunnelCommand {
    pub(super) fn run(&self) -> ExitCode {
        let done = match &self.step {
            Step::Add(add) => add.run(),
            Step::Import(import) => import.run(),
            Step::List(list) => list.run().map_err(Into::into),
            Step::Show(show) => show.run().map_err(Into::into),
            Step::Delete(delete) => delete.run(),
            Step::Default(default) => default.run(),
        };
        done.map_or_else(|error| fail(error, 1), |()| ExitCode::SUCCESS)
    }
}

impl Add {
    fn run(&self) -> Result<(), EditError> {
        let directory = ppp_directory();
        let Self {
            name,
            user,
            remotename,
            ..
        } = self;
        let tunnel = NewTunnel {
            name: name.clone(),
            server: self.server.clone(),
            local_name: user.clone(),
            remote_name: remotename.clone(),
            routes: self.routes.clone(),
        };
        let wrote_options = peer::add(&directory, &tunnel)?;
        print_line(format_args!("Added tunnel {name}"));
        if wrote_options {
            let options = peer::options_file(&directory);
            print_line(format_args!(
                "Wrote {}: the options of all tunnels",
                options.display()
            ));
        }
        if self.default {
            peer::set_default(&directory, Some(name))?;
        }
        print_line(format_args!(
            "Its password: pptp-fast secret add '{user}' '{remotename}'; then: pptp-fast up {name}"
        ));
        Ok(())
    }
}

impl Import {
    fn run(&self) -> Result<(), EditError> {
        let directory = ppp_directory();
        let connection = network_manager::read(&self.file)?;
        let name = self.name.clone().unwrap_or_else(|| connection.name.clone());
        let tunnel = ImportedTunnel {
            name: name.clone(),
            origin: format!("NetworkManager's {}", self.file.display()),
            server: connection.server.clone(),
            user: connection.user.clone(),
            options: connection.options.clone(),
            routes: connection.routes.clone(),
        };
        peer::import(&directory, &tunnel)?;
        print_line(format_args!("Added tunnel {name}"));
        for finding in &connection.findings {
            if finding.verdict == Verdict::Refused {
                let (option, reason) = (&finding.option, &finding.reason);
                warn(format_args!("{}{option}: {reason}", finding.place));
            }
        }
        if self.default {
            peer::set_default(&directory, Some(&name))?;
        }
        let user = &connection.user;
        let Some(password) = &connection.password else {
            print_line(format_args!(
                "Its password is not in that file: pptp-fast secret add '{user}' '{name}'; then: \
                 pptp-fast up {name}"
            ));
            return Ok(());
        };
        let mut kinds = vec![Kind::Chap];
        kinds.extend(connection.may_use_pap().then_some(Kind::Pap));
        for kind in kinds {
            secret::add_line(kind, user, &name, password, &[])?;
        }
        print_line(format_args!("Start it with: pptp-fast up {name}"));
        Ok(())
    }
}

impl List {
    fn run(&self) -> Result<(), ConfigError> {
        let directory = ppp_directory();
        let default = peer::default(&directory);
        let tunnels = peers::list(&directory)?;
        let is_default = |peer: &Peer| default.as_deref() == Some(&peer.name);
        if self.json {
            let tunnels = tunnels.iter().map(|peer| json(peer, is_default(peer)));
            print_line(serde_json::Value::from_iter(tunnels));
            return Ok(());
        }
        if tunnels.is_empty() {
            print_line(
                "no configured tunnels! Add one with: \
                 pptp-fast tunnel add NAME --server HOST --user NAME",
            );
            return Ok(());
        }
        let row = |peer: &Peer| {
            let server = peer.server.clone().unwrap_or_else(|| "-".to_owned());
            let default = if is_default(peer) { "default" } else { "" };
            vec![
                peer.name.clone(),
                server,
                peer.routes.len().to_string(),
                default.to_owned(),
            ]
        };
        let rows: Vec<_> = tunnels.iter().map(row).collect();
        table::print(&["TUNNEL", "SERVER", "ROUTES", ""], &rows);
        Ok(())
    }
}

fn json(peer: &Peer, default: bool) -> serde_json::Value {
    let routes: Vec<_> = peer.routes.iter().map(|route| &route.text).collect();
    serde_json::json!({
        "name": peer.name,
        "server": peer.server,
        "routes": routes,
        "default": default,
    })
}

impl Show {
    fn run(&self) -> Result<(), ConfigError> {
        let directory = ppp_directory();
        let name = &self.name;
        let mut peer = Peer::read(&directory, name)?;
        let mut options = PppdOptions::default();
        options.read_peer(&directory, name)?;
        if peer.server.is_none() {
            peer.server.clone_from(&options.server);
        }
        let default = peer::default(&directory).as_ref() == Some(name);
        let file = peers::path(&directory, name);
        if self.json {
            let mut shown = json(&peer, default);
            shown["file"] = file.display().to_string().into();
            shown["local_name"] = options.name.into();
            shown["remote_name"] = options.remote_name.into();
            shown["warnings"] = peer.warnings.into();
            print_line(shown);
            return Ok(());
        }
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let fields = [
            (
                "Tunnel",
                format!("{name}{}", if default { " (default)" } else { "" }),
            ),
            ("File", file.display().to_string()),
            ("Server", or_dash(peer.server)),
            ("Local name", or_dash(options.name)),
            ("Remote name", or_dash(options.remote_name)),
        ];
        let routes = peer.routes.into_iter().map(|route| ("Route", route.text));
        let warnings = peer
            .warnings
            .into_iter()
            .map(|warning| ("Warning", warning));
        for (field, text) in fields.into_iter().chain(routes).chain(warnings) {
            print_line(format_args!("{field:<12} {text}"));
        }
        print_line(format_args!(
            "Its options, one by one: pptp-fast check {name}"
        ));
        Ok(())
    }
}

impl Delete {
    fn run(&self) -> Result<(), EditError> {
        peer::delete(&ppp_directory(), &self.name)?;
        print_line(format_args!("Removed tunnel {}", self.name));
        Ok(())
    }
}

impl Default {
    fn run(&self) -> Result<(), EditError> {
        let directory = ppp_directory();
        if self.name.is_some() || self.none {
            peer::set_default(&directory, self.name.as_deref())?;
        }
        match peer::default(&directory) {
            Some(name) => print_line(format_args!("The default tunnel is {name}")),
            None => print_line(
                "There is no default tunnel. Choose one with: pptp-fast tunnel default NAME",
            ),
        }
        Ok(())
    }
}
