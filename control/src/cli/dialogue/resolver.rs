//! Whether programs ask other name servers while a tunnel is up.

use super::drop_ins::{self, DropIns};
use super::{Ask, Question, Unanswered, owned};
use crate::cli::dns;
use crate::config::edit::resolv_conf::{ResolvConf, same};

pub(super) fn configure(ask: &mut dyn Ask) -> Result<(), Unanswered> {
    let files = dns::files();
    if ask.yes("Use a PPTP-specific resolv.conf during tunnel connections?")? {
        use_one(ask, &files)
    } else {
        use_none(ask, &files)
    }
}

fn use_one(ask: &mut dyn Ask, files: &ResolvConf) -> Result<(), Unanswered> {
    let pptp = files.pptp.display();
    let mut keep = false;
    if files.pptp.is_file() {
        ask.say(&format!("{pptp} exists."));
        keep = ask.yes(&format!("Do you want to use the existing {pptp}?"))?;
        if !keep {
            ask.say(&format!("Renaming {pptp} --> {pptp}.orig..."));
            files.set_pptp_aside()?;
        }
    }
    if !keep {
        let (search, servers) = servers(ask)?;
        files.write_pptp(&search, &servers)?;
    }
    let (active, real) = (files.active.display(), files.real.display());
    ask.say(&format!("Copying {active} to {real}..."));
    files.keep_real()?;
    ask.say(&format!("Creating link from {real} to {active}"));
    Ok(())
}

/// Domains to search, and name servers.
fn servers(ask: &mut dyn Ask) -> Result<(Vec<String>, Vec<String>), Unanswered> {
    let offered = DropIns::read(&drop_ins::directory()).resolvers;
    let mut choices: Vec<_> = offered
        .iter()
        .map(|resolver| resolver.name.clone())
        .collect();
    choices.extend(owned(&["Other"]));
    let choice = match ask.is_terminal() && offered.is_empty() {
        true => 0,
        false => ask.choose("Which configuration do you want to use?", &choices)?,
    };
    if let Some(resolver) = offered.into_iter().nth(choice) {
        return Ok((resolver.search, resolver.servers));
    }
    ask.explain(
        "Which domains are searched for names without a dot?\n\
         Enter all of them on one line, with spaces between them.",
    );
    let search = ask.line(&Question {
        prompt: "Domain Names",
        help: "domains that are searched for names without a dot, with spaces between them",
        ..Question::default()
    })?;
    ask.explain("Enter the addresses of the name servers.\nEnter a blank IP address to stop.");
    let mut servers = Vec::new();
    loop {
        let address = ask.line(&Question {
            prompt: "Nameserver IP Address",
            help: "such as 10.0.0.1; nothing to stop",
            ..Question::default()
        })?;
        if address.is_empty() {
            let search = search.split_whitespace().map(ToOwned::to_owned).collect();
            return Ok((search, servers));
        }
        servers.push(address);
    }
}

fn use_none(ask: &mut dyn Ask, files: &ResolvConf) -> Result<(), Unanswered> {
    let (active, pptp, real) = (
        files.active.display(),
        files.pptp.display(),
        files.real.display(),
    );
    if files.tunnel_is_active() {
        // Its tunnel finds another file, and leaves that alone.
        files.swap(false)?;
    }
    if let Some(target) = files.break_link()? {
        ask.say(&format!(
            "Breaking symlink {active} -> {}",
            target.display()
        ));
    }
    if files.pptp.is_file() {
        ask.say(&format!("{pptp} exists"));
        if ask.yes(&format!("Do you want to delete {pptp}?"))? {
            files.remove_pptp()?;
            ask.say(&format!("{pptp} deleted."));
        } else {
            ask.say(&format!(
                "** {pptp} is kept, and may still be used when a tunnel comes up.\n\
                 ** Rename or remove it if you do not want that."
            ));
        }
    }
    if files.real.is_file() {
        if same(&files.active, &files.real) {
            ask.say(&format!("{active} is identical to {real}"));
            if ask.yes(&format!("Do you want to delete {real}?"))? {
                files.remove_real()?;
                ask.say(&format!("{real} deleted"));
            }
        } else {
            ask.say(&format!(
                "** {active} and {real} both exist\n** but are not the same. Decide which one is \
                 right, and give it the name\n** {active}"
            ));
        }
    }
    Ok(())
}
