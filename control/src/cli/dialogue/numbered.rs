//! pptp-command's way to ask: a numbered list, a prompt, a line. Its texts and their order are what
//! scripts wait for.

use std::io::{BufRead, BufReader, IsTerminal, Read, Stdin, Stdout, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use zeroize::Zeroizing;

use super::{Ask, Question, Unanswered};
use crate::proto::auth::Secret;

/// Longest answer that is read.
const LINE_BYTES_MAX: u64 = 4096;

/// Asks on `output`, and reads answers from `input`.
pub(in crate::cli) struct Numbered<R, W> {
    input: R,
    output: W,
    /// The input is a terminal, which need not show a password.
    echoes: bool,
}

impl Numbered<BufReader<Stdin>, Stdout> {
    /// Over standard input and output.
    pub(in crate::cli) fn standard() -> Self {
        let input = std::io::stdin();
        let echoes = input.is_terminal();
        Self {
            input: BufReader::new(input),
            output: std::io::stdout(),
            echoes,
        }
    }
}

impl<R: BufRead, W: Write> Numbered<R, W> {
    #[cfg(test)]
    pub(in crate::cli) fn new(input: R, output: W) -> Self {
        Self {
            input,
            output,
            echoes: false,
        }
    }

    /// Asks, and reads a line without its newline.
    fn query(
        &mut self,
        prompt: &str,
        default: Option<&str>,
    ) -> Result<Zeroizing<String>, Unanswered> {
        let default_shown = default.map_or_else(String::new, |text| format!(" [{text}]"));
        self.put(&format!("{prompt}{default_shown}: "));
        let mut line = Zeroizing::new(Vec::with_capacity(256));
        let mut input = (&mut self.input).take(LINE_BYTES_MAX);
        let read = input.read_until(b'\n', &mut line);
        if read.map_err(|error| Unanswered::Terminal(error.to_string()))? == 0 {
            self.put("\n");
            return Err(Unanswered::End);
        }
        let line = Zeroizing::new(String::from_utf8_lossy(&line).into_owned());
        let line = line.trim_end_matches(['\n', '\r']);
        Ok(Zeroizing::new(match (line, default) {
            ("", Some(default)) => default.to_owned(),
            (line, _) => line.to_owned(),
        }))
    }

    /// A closed pipe is no error: who does not listen may still answer.
    fn put(&mut self, text: &str) {
        let _ = self.output.write_all(text.as_bytes());
        let _ = self.output.flush();
    }
}

impl<R: BufRead, W: Write> Ask for Numbered<R, W> {
    fn choose(&mut self, prompt: &str, choices: &[String]) -> Result<usize, Unanswered> {
        loop {
            for (number, choice) in (1..).zip(choices) {
                self.put(&format!("{number}.) {choice}\n"));
            }
            let reply = self.query(prompt, None)?;
            let reply = reply.trim();
            let number = reply
                .parse()
                .ok()
                .filter(|number| (1..=choices.len()).contains(number));
            if let Some(number) = number {
                return Ok(number - 1);
            }
            let quits = |last: &String| reply == "q" && last.eq_ignore_ascii_case("quit");
            if choices.last().is_some_and(quits) {
                return Ok(choices.len() - 1);
            }
            if let Some(index) = choices.iter().position(|choice| choice == reply) {
                return Ok(index);
            }
        }
    }

    fn line(&mut self, question: &Question<'_>) -> Result<String, Unanswered> {
        self.query(question.prompt, question.default)
            .map(|line| line.trim().to_owned())
    }

    fn name(&mut self, question: &Question<'_>) -> Result<String, Unanswered> {
        let line = self.query(question.prompt, question.default)?;
        Ok(as_in_file(line.trim()).to_string())
    }

    fn password(&mut self, prompt: &str, _new: bool) -> Result<Secret, Unanswered> {
        let stdin = std::io::stdin();
        let _hidden = self.echoes.then(|| Hidden::new(stdin.as_fd()));
        let line = self.query(prompt, None)?;
        Ok(Secret::new(as_in_file(&line).as_bytes().to_vec()))
    }

    fn yes(&mut self, prompt: &str) -> Result<bool, Unanswered> {
        loop {
            self.put("\n");
            let prompt = format!("{prompt} [Y/n]");
            let answer = self.query_without_space(&prompt)?;
            match answer.trim().chars().next() {
                None | Some('y' | 'Y') => return Ok(true),
                Some('n' | 'N') => return Ok(false),
                _ => self.put(&format!(
                    "\nI don't understand '{}', please try again...\n",
                    answer.trim()
                )),
            }
        }
    }

    fn explain(&mut self, text: &str) {
        self.put(&format!("{text}\n"));
    }

    fn say(&mut self, text: &str) {
        self.put(&format!("{text}\n"));
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

impl<R: BufRead, W: Write> Numbered<R, W> {
    /// `prompt:`, as pptp-command asks for yes or no.
    fn query_without_space(&mut self, prompt: &str) -> Result<Zeroizing<String>, Unanswered> {
        self.put(&format!("{prompt}:"));
        let mut line = String::new();
        let mut input = (&mut self.input).take(LINE_BYTES_MAX);
        match input.read_line(&mut line) {
            Ok(0) => Err(Unanswered::End),
            Ok(_) => Ok(Zeroizing::new(line)),
            Err(error) => Err(Unanswered::Terminal(error.to_string())),
        }
    }
}

/// What a word means that was typed for pptp-command, which put it into the file as it was: it asks
/// for doubled backslashes, and quotes around it were pppd's. A single backslash, which pppd would
/// have taken for an escape, is what a person means who does not know that.
fn as_in_file(typed: &str) -> Zeroizing<String> {
    let unquoted = ['"', '\''].iter().find_map(|&quote| {
        let inner = typed.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains(quote)).then_some(inner)
    });
    Zeroizing::new(unquoted.unwrap_or(typed).replace("\\\\", "\\"))
}

/// The terminal shows nothing of what is typed until this is dropped.
struct Hidden<'a> {
    terminal: BorrowedFd<'a>,
    before: Option<Termios>,
}

impl<'a> Hidden<'a> {
    fn new(terminal: BorrowedFd<'a>) -> Self {
        let before = termios::tcgetattr(terminal).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_flags.remove(LocalFlags::ECHO);
            let _ = termios::tcsetattr(terminal, SetArg::TCSAFLUSH, &silent);
        }
        Self { terminal, before }
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(self.terminal, SetArg::TCSADRAIN, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(input: &str, ask: impl FnOnce(&mut dyn Ask)) -> String {
        let mut output = Vec::new();
        ask(&mut Numbered::new(input.as_bytes(), &mut output));
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_menu_is_numbered_and_asked_again_until_the_answer_is_one_of_it() {
        let choices = ["start".to_owned(), "quit".to_owned()];
        let output = asked("7\n1\n", |ask| {
            assert_eq!(ask.choose("?", &choices).unwrap(), 0);
        });
        assert_eq!(output, "1.) start\n2.) quit\n?: 1.) start\n2.) quit\n?: ");
        for (reply, index) in [("2\n", 1), ("q\n", 1), ("start\n", 0)] {
            asked(reply, |ask| {
                assert_eq!(ask.choose("?", &choices).unwrap(), index)
            });
        }
    }

    #[test]
    fn the_end_of_the_input_ends_every_question() {
        asked("", |ask| {
            let end = |answer: Result<(), Unanswered>| matches!(answer, Err(Unanswered::End));
            assert!(end(ask.choose("?", &["x".to_owned()]).map(drop)));
            assert!(end(ask.line(&Question::default()).map(drop)));
            assert!(end(ask.yes("?").map(drop)));
            assert!(end(ask.password("?", true).map(drop)));
        });
    }

    #[test]
    fn an_empty_answer_is_the_default() {
        let question = Question {
            prompt: "Remote Name",
            default: Some("PPTP"),
            ..Question::default()
        };
        let output = asked("\n", |ask| assert_eq!(ask.name(&question).unwrap(), "PPTP"));
        assert_eq!(output, "Remote Name [PPTP]: ");
    }

    #[test]
    fn names_mean_what_they_meant_in_the_file() {
        for (typed, meant) in [
            ("mia", "mia"),
            ("OFFICE\\\\mia", "OFFICE\\mia"),
            ("OFFICE\\mia", "OFFICE\\mia"),
            ("\"my secret\"", "my secret"),
            ("it's", "it's"),
            ("'", "'"),
        ] {
            assert_eq!(as_in_file(typed).as_str(), meant, "{typed}");
        }
    }

    #[test]
    fn yes_is_what_is_not_no() {
        for (reply, yes) in [
            ("\n", true),
            ("Y\n", true),
            ("no\n", false),
            ("x\nn\n", false),
        ] {
            asked(reply, |ask| assert_eq!(ask.yes("Sure?").unwrap(), yes));
        }
    }
}
