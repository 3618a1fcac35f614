//! Arrow keys, a filter and completion, for people at a terminal. Colours go by `NO_COLOR`.

use inquire::{InquireError, Password, PasswordDisplayMode, Select, Text};

use super::{Ask, Question, Unanswered};
use crate::proto::auth::Secret;

/// Entries of a menu that are shown at once.
const PAGE_LINES: usize = 12;

/// Asks on the terminal.
pub(super) struct Terminal;

impl Ask for Terminal {
    fn choose(&mut self, prompt: &str, choices: &[String]) -> Result<usize, Unanswered> {
        // pptp-command's prompt for most of its menus says nothing.
        let prompt = if prompt == "?" { "What next?" } else { prompt };
        let choice = Select::new(prompt, choices.to_vec())
            .with_page_size(PAGE_LINES)
            .with_help_message("arrow keys to move, letters to filter, Enter to choose, Esc back")
            .raw_prompt()?;
        Ok(choice.index)
    }

    fn line(&mut self, question: &Question<'_>) -> Result<String, Unanswered> {
        let prompt = format!("{}:", question.prompt);
        let mut text = Text::new(&prompt);
        if let Some(default) = question.default {
            text = text.with_default(default);
        }
        if !question.help.is_empty() {
            text = text.with_help_message(question.help);
        }
        if !question.known.is_empty() {
            text = text.with_autocomplete(Known(question.known.clone()));
        }
        Ok(text.prompt()?.trim().to_owned())
    }

    fn name(&mut self, question: &Question<'_>) -> Result<String, Unanswered> {
        self.line(question)
    }

    fn password(&mut self, prompt: &str, new: bool) -> Result<Secret, Unanswered> {
        let prompt = format!("{prompt}:");
        let mut password = Password::new(&prompt).with_display_mode(PasswordDisplayMode::Masked);
        password = match new {
            true => password.with_custom_confirmation_message("The same again:"),
            false => password.without_confirmation(),
        };
        Ok(Secret::new(password.prompt()?.into_bytes()))
    }

    fn yes(&mut self, prompt: &str) -> Result<bool, Unanswered> {
        Ok(inquire::Confirm::new(prompt).with_default(true).prompt()?)
    }

    fn explain(&mut self, _text: &str) {}

    fn say(&mut self, text: &str) {
        crate::cli::print_line(text);
    }

    fn is_terminal(&self) -> bool {
        true
    }
}

impl From<InquireError> for Unanswered {
    fn from(error: InquireError) -> Self {
        match error {
            InquireError::OperationCanceled => Self::Cancelled,
            InquireError::OperationInterrupted => Self::Interrupted,
            error => Self::Terminal(error.to_string()),
        }
    }
}

/// Offers the words that contain what is typed; Tab takes the one that is marked, or the first.
#[derive(Clone)]
struct Known(Vec<String>);

impl Known {
    fn matching(&self, input: &str) -> impl Iterator<Item = &String> {
        let input = input.to_lowercase();
        self.0
            .iter()
            .filter(move |word| word.to_lowercase().contains(&input))
    }
}

impl inquire::Autocomplete for Known {
    fn get_suggestions(&mut self, input: &str) -> Result<Vec<String>, inquire::CustomUserError> {
        Ok(self.matching(input).cloned().collect())
    }

    fn get_completion(
        &mut self,
        input: &str,
        marked: Option<String>,
    ) -> Result<inquire::autocompletion::Replacement, inquire::CustomUserError> {
        Ok(marked.or_else(|| self.matching(input).next().cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquire::Autocomplete;

    #[test]
    fn tab_takes_what_is_marked_or_the_first_that_fits() {
        let mut known = Known(vec!["mia".to_owned(), "OFFICE\\mia".to_owned()]);
        assert_eq!(known.get_suggestions("off").unwrap(), ["OFFICE\\mia"]);
        assert_eq!(
            known.get_completion("m", None).unwrap().as_deref(),
            Some("mia")
        );
        assert_eq!(
            known
                .get_completion("m", Some("x".to_owned()))
                .unwrap()
                .as_deref(),
            Some("x")
        );
        assert_eq!(known.get_completion("zz", None).unwrap(), None);
    }
}
