//! Adding, deleting and choosing tunnels.

use super::drop_ins::{self, DropIns};
use super::{Ask, Question, Unanswered, owned};
use crate::cli::ppp_directory;
use crate::cli::secret::{DEFAULT_REMOTE, Kind};
use crate::config::edit::EditError;
use crate::config::edit::peer::{self, NewTunnel};
use crate::config::edit::secrets::{SecretLine, read_lines};
use crate::config::peers;

/// Names of all tunnels.
pub(in crate::cli) fn names() -> Result<Vec<String>, EditError> {
    let tunnels = peers::list(&ppp_directory())?;
    Ok(tunnels.into_iter().map(|peer| peer.name).collect())
}

pub(super) fn list(ask: &mut dyn Ask) -> Result<(), Unanswered> {
    let names = names()?;
    ask.say("Current Tunnels:");
    match names.is_empty() {
        true => ask.say("\tNone."),
        false => ask.say(&names.join("\n")),
    }
    Ok(())
}

/// Asks for one of the tunnels; `None` when there is none.
pub(in crate::cli) fn select(
    ask: &mut dyn Ask,
    prompt: &str,
) -> Result<Option<String>, Unanswered> {
    let names = names()?;
    if names.is_empty() {
        ask.say("no configured tunnels!");
        return Ok(None);
    }
    let choice = ask.choose(prompt, &names)?;
    Ok(names.get(choice).cloned())
}

pub(super) fn add(ask: &mut dyn Ask) -> Result<(), Unanswered> {
    ask.explain("\nAdd a NEW PPTP Tunnel.\n");
    let offered = DropIns::read(&drop_ins::directory()).tunnels;
    let mut choices: Vec<_> = offered.iter().map(|tunnel| tunnel.name.clone()).collect();
    choices.extend(owned(&["Other"]));
    let choice = match ask.is_terminal() && offered.is_empty() {
        true => 0,
        false => ask.choose("Which configuration would you like to use?", &choices)?,
    };
    let mut tunnel = match offered.into_iter().nth(choice) {
        Some(offered) => NewTunnel {
            name: offered.name,
            server: offered.server,
            routes: offered.routes,
            ..NewTunnel::default()
        },
        None => other(ask)?,
    };
    names_of_tunnel(ask, &mut tunnel)?;
    let NewTunnel {
        name,
        server,
        local_name,
        remote_name,
        ..
    } = &tunnel;
    ask.say(&format!(
        "Adding {name} - {server} - {local_name} - {remote_name}"
    ));
    let path = peers::path(&ppp_directory(), name);
    if path.exists() {
        ask.say(&format!("ERROR!  Peer {name} already exists!"));
        return Ok(());
    }
    let wrote_options = peer::add(&ppp_directory(), &tunnel)?;
    ask.say(&format!("Added tunnel {name}"));
    if wrote_options {
        let options = peer::options_file(&ppp_directory());
        ask.say(&format!(
            "Wrote {}: the options of all tunnels",
            options.display()
        ));
    }
    if ask.is_terminal() {
        offer_secret(ask, local_name, remote_name)?;
        ask.say(&format!("Start it with: pptp-fast up {name}"));
    }
    Ok(())
}

/// A tunnel that nobody offers: all of it is asked for.
fn other(ask: &mut dyn Ask) -> Result<NewTunnel, Unanswered> {
    let name = loop {
        let name = ask.line(&Question {
            prompt: "Tunnel Name",
            help: "letters, digits and - _ . @",
            ..Question::default()
        })?;
        if peers::check_name(&name).is_ok() {
            break name;
        }
        ask.say("Name contains special characters.");
        ask.say("Please use only alphanumerics, '-', '_', '.', and '@'.");
    };
    let server = ask.line(&Question {
        prompt: "Server IP",
        help: "address or name, such as vpn.example.org",
        ..Question::default()
    })?;
    ask.explain(
        "What route(s) would you like to add when the tunnel comes up?\n\
         One for each network behind the server, in the words of route(8), such as\n\
         \tadd -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV\n\
         TUNNEL_DEV stands for the tunnel's interface, DEF_GW for the default gateway.\n\
         Enter a blank line to stop.",
    );
    let mut routes = Vec::new();
    loop {
        let route = ask.line(&Question {
            prompt: "route",
            help: "add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV; nothing to stop",
            ..Question::default()
        })?;
        if route.is_empty() {
            return Ok(NewTunnel {
                name,
                server,
                routes,
                ..NewTunnel::default()
            });
        }
        match peer::check_route(&route) {
            Ok(()) => routes.push(route),
            Err(why) => ask.say(&format!("{route} is discarded: {why}")),
        }
    }
}

fn names_of_tunnel(ask: &mut dyn Ask, tunnel: &mut NewTunnel) -> Result<(), Unanswered> {
    ask.explain(
        "Local Name and Remote Name should match a configured CHAP or PAP secret.\n\
         Local Name is probably your NT domain\\\\username.\n\
         NOTE: Any backslashes (\\) must be doubled (\\\\).\n",
    );
    let known = match ask.is_terminal() {
        true => known_names(),
        false => Vec::new(),
    };
    tunnel.local_name = ask.name(&Question {
        prompt: "Local Name",
        help: "our name towards the server; Tab completes names that have a secret",
        known: known.clone(),
        ..Question::default()
    })?;
    tunnel.remote_name = ask.name(&Question {
        prompt: "Remote Name",
        default: Some(DEFAULT_REMOTE),
        help: "the server's name, as its secret has it",
        known,
    })?;
    Ok(())
}

/// Names that stand in chap-secrets.
fn known_names() -> Vec<String> {
    let lines = read_lines(&Kind::Chap.path()).unwrap_or_default();
    let both = lines.iter().flat_map(|line| [line.client(), line.server()]);
    let mut names: Vec<_> = both.filter(|name| name != "*").collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A tunnel without a secret cannot come up.
fn offer_secret(ask: &mut dyn Ask, local: &str, remote: &str) -> Result<(), Unanswered> {
    let lines = read_lines(&Kind::Chap.path())?;
    let fits = |name: &str, word: String| word == "*" || word == name;
    let found = |line: &SecretLine| fits(local, line.client()) && fits(remote, line.server());
    if !lines.iter().any(found)
        && ask.yes(&format!(
            "There is no CHAP secret for {local} and {remote}. Add it now?"
        ))?
    {
        super::secrets::add(ask, Kind::Chap, Some((local, remote)))?;
    }
    Ok(())
}

pub(super) fn delete(ask: &mut dyn Ask) -> Result<(), Unanswered> {
    if let Some(name) = select(ask, "Delete which tunnel?")? {
        peer::delete(&ppp_directory(), &name)?;
        ask.say(&format!("Removed tunnel {name}"));
    }
    Ok(())
}

pub(super) fn choose_default(ask: &mut dyn Ask) -> Result<(), Unanswered> {
    let directory = ppp_directory();
    if let Some(name) = peer::default(&directory) {
        let path = peers::path(&directory, &name);
        ask.say(&format!("The current default is {}", path.display()));
    }
    let names = names()?;
    let mut choices = names.clone();
    choices.extend(owned(&["cancel"]));
    let choice = ask.choose("Which tunnel do you want to be the default?", &choices)?;
    if let Some(name) = names.get(choice) {
        peer::set_default(&directory, Some(name))?;
    }
    Ok(())
}
