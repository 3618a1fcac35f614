//! The manual page of a command (man-pages(7)): what clap knows of it, its examples set as such,
//! and the way to other pages.

use clap::Command;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

/// Where the examples in a command's help begin.
const EXAMPLES: &str = "Examples:";
/// Every page leads to these.
const SEE_ALSO: [(&str, &str); 5] = [
    ("pptp-fast", "1"),
    ("pptp-fast-up", "1"),
    ("pptp-fast-serve", "1"),
    ("pptp-fast-options", "5"),
    ("pptp-fast-server.toml", "5"),
];

/// `pptp-fast-secret-add`.
pub(super) fn name(command: &Command) -> String {
    let name = command.get_display_name();
    name.unwrap_or_else(|| command.get_name()).to_owned()
}

/// Commands of this one that a person may call.
pub(super) fn parts(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|part| !part.is_hide_set())
}

pub(super) fn render(command: &Command) -> String {
    let name = name(command);
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(concat!("pptp-fast ", env!("CARGO_PKG_VERSION")))
        .manual("pptp-fast");
    let mut page = Vec::new();
    let has_options = command.get_arguments().any(|it| !it.is_hide_set());
    let rendered = man
        .render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| match has_options {
            true => man.render_options_section(&mut page),
            false => Ok(()),
        })
        .and_then(|()| match parts(command).next() {
            Some(_) => man.render_subcommands_section(&mut page),
            None => Ok(()),
        });
    debug_assert!(rendered.is_ok(), "memory takes everything");
    let mut rest = Roff::new();
    if let Some(help) = command.get_after_help() {
        render_help(&mut rest, &help.to_string());
    }
    render_see_also(&mut rest, &name);
    String::from_utf8_lossy(&page).into_owned() + &rest.to_roff()
}

/// What stands below the options: examples, indented, and words.
fn render_help(roff: &mut Roff, help: &str) {
    let (mut examples, mut notes) = (Vec::new(), Vec::new());
    for line in help.lines().filter(|line| *line != EXAMPLES) {
        match line.strip_prefix("  ") {
            Some(example) => examples.push(example),
            None => notes.push(line),
        }
    }
    while notes.first().is_some_and(|line| line.is_empty()) {
        notes.remove(0);
    }
    if !notes.is_empty() {
        roff.control("SH", ["NOTES"]);
        for line in notes {
            match line {
                "" => roff.control("PP", []),
                line => roff.text([roman(line)]),
            };
        }
    }
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        verbatim(roff, examples.into_iter());
    }
}

/// Lines as they are, in the type of a terminal.
pub(super) fn verbatim<'a>(roff: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    roff.control("EX", []);
    for line in lines {
        roff.text([roman(line)]);
    }
    roff.control("EE", []);
}

/// All of the pages that matter, but for the page itself.
pub(super) fn render_see_also(roff: &mut Roff, own: &str) {
    roff.control("SH", ["SEE ALSO"]);
    let mut words = Vec::new();
    for (name, section) in SEE_ALSO.iter().filter(|(name, _)| *name != own) {
        words.extend([bold(*name), roman(format!("({section}), "))]);
    }
    words.extend([bold("pppd"), roman("(8)")]);
    roff.text(words);
}
