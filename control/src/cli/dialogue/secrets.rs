//! The menu of CHAP secrets, and that of PAP secrets.

use super::{Ask, Question, Unanswered, owned};
use crate::cli::secret::{self, Kind};
use crate::config::edit::secrets::{SecretLine, SecretsFile, read_lines};

/// Runs until the person quits.
pub(super) fn manage(ask: &mut dyn Ask, kind: Kind) -> Result<(), Unanswered> {
    let choices = [
        format!("List {kind} secrets"),
        format!("Add a New {kind} secret"),
        format!("Delete a {kind} secret"),
        "Quit".to_owned(),
    ];
    loop {
        let step = match ask.choose("?", &choices)? {
            0 => list(ask, kind),
            1 => add(ask, kind, None),
            2 => delete(ask, kind),
            _ => return Ok(()),
        };
        super::setup::go_on(ask, step)?;
    }
}

fn list(ask: &mut dyn Ask, kind: Kind) -> Result<(), Unanswered> {
    let lines = read_lines(&kind.path())?;
    ask.say(&format!("Current {kind} secrets:"));
    for line in hidden(&lines) {
        ask.say(&line);
    }
    if lines.is_empty() {
        ask.say("\tNone.");
    }
    Ok(())
}

/// Each line with its secret hidden.
fn hidden(lines: &[SecretLine]) -> Vec<String> {
    let shown = |line: &SecretLine| {
        let mut text = format!("{}\t{}\t*****", line.client(), line.server());
        for address in &line.addresses {
            text.push('\t');
            text.push_str(address);
        }
        text
    };
    lines.iter().map(shown).collect()
}

/// Asks for a secret and adds it. `names` are ours and the server's, when they are known.
pub(super) fn add(
    ask: &mut dyn Ask,
    kind: Kind,
    names: Option<(&str, &str)>,
) -> Result<(), Unanswered> {
    let (local, remote) = match names {
        Some((local, remote)) => (local.to_owned(), remote.to_owned()),
        None => names_of_secret(ask, kind)?,
    };
    ask.explain(&format!(
        "\nPassword:\n\nThe {kind} secret of {local}. It is not shown.\n"
    ));
    let password = ask.password("Password", true)?;
    ask.say(&format!("\nAdding secret {local} {remote} *****\n"));
    if secret::add_pair(kind, &local, &remote, &password)? {
        ask.say("There was a secret for these names: it is replaced.");
    }
    Ok(())
}

fn names_of_secret(ask: &mut dyn Ask, kind: Kind) -> Result<(String, String), Unanswered> {
    ask.explain(&format!(
        "Add a NEW {kind} secret.\n\n\
         NOTE: Any backslashes (\\) must be doubled (\\\\).\n\n\
         Local Name:\n\nOur own name towards the server. For a Windows server it is the user\n\
         name with its domain in front, such as\n\n\tdomain\\\\username\n"
    ));
    let local = ask.name(&Question {
        prompt: "Local Name",
        help: "our name towards the server; for a Windows server: domain\\username",
        ..Question::default()
    })?;
    ask.explain(
        "\nRemote Name:\n\nThe server's name. It tells secrets with the same Local Name apart;\n\
         ENTER takes the default, which will do for one server.\n",
    );
    let remote = ask.name(&Question {
        prompt: "Remote Name",
        default: Some(secret::DEFAULT_REMOTE),
        help: "the server's name; it tells secrets with the same local name apart",
        ..Question::default()
    })?;
    Ok((local, remote))
}

fn delete(ask: &mut dyn Ask, kind: Kind) -> Result<(), Unanswered> {
    // Without a lock: whoever else wants to change the file need not wait for a person.
    let lines = read_lines(&kind.path())?;
    let mut choices = hidden(&lines);
    choices.extend(owned(&["None"]));
    ask.explain(
        "Select one of the pair of lines that you want removed.\n\
         Both matching lines will be deleted.",
    );
    let choice = ask.choose(&format!("Remove which {kind} secret?"), &choices)?;
    let Some(line) = lines.get(choice) else {
        ask.say(&format!("Aborted Deleting a {kind} secret"));
        return Ok(());
    };
    let prompt = format!("Enter the password for this {kind} secret");
    let password = ask.password(&prompt, false)?;
    let mut file = SecretsFile::open(&kind.path())?;
    let (local, remote) = (line.client(), line.server());
    let count = file.remove(None, |line| {
        line.is_between(&local, &remote) && line.has_secret(&password)
    })?;
    let hint = if count == 0 {
        " Perhaps you mistyped the password?"
    } else {
        ""
    };
    if count > 0 {
        file.write()?;
    }
    ask.say(&format!("\nDeleted {count} entries.{hint}"));
    Ok(())
}
