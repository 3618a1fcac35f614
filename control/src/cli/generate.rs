//! `pptp-fast generate`: manual pages and shell completions, from the definitions of the commands
//! and of the files themselves.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, Subcommand, ValueEnum};
use clap_complete::shells;

use super::{Arguments, fail, print_line};

mod command_page;
mod file_pages;

/// Print shell completions, or write the manual pages.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast generate man /usr/local/share/man\n  \
    pptp-fast generate completions bash > /etc/bash_completion.d/pptp-fast"
)]
pub(super) struct Generate {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write manual pages into DIR/man1 and DIR/man5: one for each command, and for the files.
    #[command(after_help = "Examples:\n  pptp-fast generate man /usr/local/share/man")]
    Man {
        /// Such as /usr/local/share/man; it is made when it is not there.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print what a shell needs to complete commands and options.
    #[command(after_help = "Examples:\n  pptp-fast generate completions bash > \
        /etc/bash_completion.d/pptp-fast")]
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

impl Generate {
    pub(super) fn run(&self) -> ExitCode {
        match &self.what {
            What::Man { directory } => write_pages(directory),
            What::Completions { shell } => print_completions(*shell),
        }
    }
}

fn write_pages(directory: &Path) -> ExitCode {
    for (path, page) in pages() {
        let path = directory.join(path);
        let folder = path.parent().unwrap_or(directory);
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, page));
        if let Err(error) = written {
            return fail(format_args!("cannot write {}: {error}", path.display()), 1);
        }
        print_line(path.display());
    }
    ExitCode::SUCCESS
}

/// Every page, with its place below a folder for manual pages.
fn pages() -> Vec<(PathBuf, String)> {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    push_command(&program, &mut pages);
    for (name, page) in file_pages::all() {
        pages.push((PathBuf::from(format!("man5/{name}.5")), page));
    }
    pages
}

fn push_command(command: &Command, pages: &mut Vec<(PathBuf, String)>) {
    let name = command_page::name(command);
    let path = PathBuf::from(format!("man1/{name}.1"));
    pages.push((path, command_page::render(command)));
    for part in command_page::parts(command) {
        push_command(part, pages);
    }
}

fn print_completions(shell: Shell) -> ExitCode {
    match io::stdout().write_all(completions(shell).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(format_args!("cannot print: {error}"), 1),
    }
}

fn completions(shell: Shell) -> String {
    let mut command = Arguments::command();
    let mut script = Vec::new();
    let name = "pptp-fast";
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, name, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, &mut script),
    }
    let script = String::from_utf8_lossy(&script);
    // clap_complete 4.6 writes the hyphen of the program's name in two ways in what it makes for
    // bash, and then finds no subcommand (clap-rs/clap#6421).
    script.replace("pptp__subcmd__fast", "pptp__fast")
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn commands(command: &Command, names: &mut Vec<String>) {
        names.push(command_page::name(command));
        for part in command_page::parts(command) {
            commands(part, names);
        }
    }

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let mut program = Arguments::command().disable_help_subcommand(true);
        program.build();
        let mut names = Vec::new();
        commands(&program, &mut names);
        for name in ["pptp-fast", "pptp-fast-up", "pptp-fast-secret-add"] {
            assert!(names.iter().any(|it| it == name), "{name} in {names:?}");
        }
        let pages = pages();
        for name in names {
            let path = PathBuf::from(format!("man1/{name}.1"));
            assert!(pages.iter().any(|it| it.0 == path), "{name} has no page");
        }
        let up = pages.iter().find(|it| it.0.ends_with("pptp-fast-up.1"));
        let up = &up.unwrap().1;
        for words in ["\\-\\-kill\\-switch", "EXAMPLES", "pptp\\-fast up office"] {
            assert!(up.contains(words), "{words} is not in:\n{up}");
        }
    }

    /// The command lines of a command's examples, without what only a shell or a person reads.
    fn examples(command: &Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default().replace("\\\n", " ");
        let lines = help.lines().filter(|line| line.starts_with("  pptp-fast "));
        let typed = lines.map(|line| line.split(['|', '<', '>', '(']).next().unwrap_or(""));
        typed.map(str::to_owned).collect()
    }

    fn words(line: &str) -> Vec<String> {
        let mut words = crate::config::words::Words::new("an example", line.as_bytes());
        std::iter::from_fn(|| words.next_word().unwrap())
            .map(|word| word.to_text())
            .collect()
    }

    fn assert_examples(command: &Command, path: &str) {
        let examples = examples(command);
        assert!(!examples.is_empty(), "{path} --help has no example");
        for example in examples {
            assert!(example.trim().starts_with(path), "{example} of {path}");
            let parsed = Arguments::command().try_get_matches_from(words(&example));
            assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        }
        for part in command_page::parts(command) {
            assert_examples(part, &format!("{path} {}", part.get_name()));
        }
    }

    #[test]
    fn help_of_every_command_has_examples_that_it_takes() {
        let mut program = Arguments::command().disable_help_subcommand(true);
        program.build();
        assert_examples(&program, "pptp-fast");
    }

    #[test]
    fn groff_has_nothing_to_say_about_any_page() {
        if std::process::Command::new("groff")
            .arg("-v")
            .output()
            .is_err()
        {
            assert!(std::env::var_os("CI").is_none(), "groff is missing");
            println!("skipped: groff is missing");
            return;
        }
        for (path, page) in pages() {
            let mut groff = std::process::Command::new("groff")
                .args(["-man", "-ww", "-b", "-z", "-Kutf8", "-Tutf8", "-rLL=80n"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = groff.stdin.take().unwrap();
            input.write_all(page.as_bytes()).unwrap();
            drop(input);
            let output = groff.wait_with_output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            let is_silent = words.trim().is_empty() && output.status.success();
            assert!(is_silent, "{}: {words}", path.display());
        }
    }

    #[test]
    fn bash_completes_options_of_subcommands() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, completions(Shell::Bash)).unwrap();
        for (words, expected) in [
            ("up --kill", "--kill-switch\n"),
            ("install-links --fo", "--force\n"),
            ("secret add --pas", "--password-file\n"),
            ("run", ""),
        ] {
            let ask = "source \"$0\"; set -- pptp-fast $1; COMP_WORDS=(\"$@\"); \
                COMP_CWORD=$(($# - 1)); _pptp__fast \"$1\" \"${!#}\" x; printf '%s\\n' $COMPREPLY";
            let bash = std::process::Command::new("bash")
                .args(["-c", ask])
                .arg(&script)
                .arg(words)
                .output()
                .unwrap();
            let reply = String::from_utf8_lossy(&bash.stdout);
            assert_eq!(reply.trim(), expected.trim(), "{words}");
        }
    }
}
