//! Questions to a person, or to a script that types for one: pptp-command's dialogue.
//!
//! ```text
//! numbered   pptp-command's numbered menus, for scripts and for its old name
//! terminal   arrow keys and completion, for people
//! setup      the menu, and what belongs to it: secrets, tunnels, resolver, drop_ins
//! ```

pub(super) mod drop_ins;
pub(super) mod numbered;
mod resolver;
mod secrets;
pub(super) mod setup;
mod terminal;
pub(super) mod tunnels;

use std::io::IsTerminal;

use crate::config::edit::EditError;
use crate::proto::auth::Secret;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Standard input has ended.
    #[error("the input ended")]
    End,
    /// The person does not want to answer this one: back to the menu.
    #[error("cancelled")]
    Cancelled,
    /// The person wants to leave.
    #[error("interrupted")]
    Interrupted,
    /// The terminal does not work.
    #[error("the terminal cannot be used: {0}")]
    Terminal(String),
    /// A step could not be done; the menu goes on.
    #[error(transparent)]
    Failed(#[from] EditError),
}

/// A question that a line of text answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Question<'a> {
    /// As pptp-command asks it.
    pub prompt: &'a str,
    /// Taken for an empty answer.
    pub default: Option<&'a str>,
    /// A line of help, shown on a terminal.
    pub help: &'a str,
    /// Offered while typing on a terminal.
    pub known: Vec<String>,
}

/// How questions are put.
pub(super) trait Ask {
    /// One of several, by its index. `q` is the last one when that is called Quit.
    fn choose(&mut self, prompt: &str, choices: &[String]) -> Result<usize, Unanswered>;

    /// A line, as it was typed.
    fn line(&mut self, question: &Question<'_>) -> Result<String, Unanswered>;

    /// A name that will stand in a secrets file.
    fn name(&mut self, question: &Question<'_>) -> Result<String, Unanswered>;

    /// A password, which is not shown. A new one may be asked for twice.
    fn password(&mut self, prompt: &str, new: bool) -> Result<Secret, Unanswered>;

    /// Yes or no; an empty answer is yes.
    fn yes(&mut self, prompt: &str) -> Result<bool, Unanswered>;

    /// Explains what follows, where people cannot be helped at the question itself.
    fn explain(&mut self, text: &str);

    /// Says what was done.
    fn say(&mut self, text: &str);

    /// A person sits at a terminal: more may be offered than pptp-command asked for.
    fn is_terminal(&self) -> bool;
}

/// Standard input, output and error are a terminal.
pub(super) fn on_terminal() -> bool {
    std::io::stdin().is_terminal()
        && std::io::stdout().is_terminal()
        && std::io::stderr().is_terminal()
}

fn owned(choices: &[&str]) -> Vec<String> {
    choices.iter().map(|choice| (*choice).to_owned()).collect()
}
