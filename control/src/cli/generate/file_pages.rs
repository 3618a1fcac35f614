//! Manual pages of the files: the server's TOML file, from the commented example that has every
//! key, and pppd's options, from the table that says what becomes of them.

use roff::{Roff, bold, italic, roman};

use super::command_page::{render_see_also, verbatim};
use crate::config::option_table::{self, OptionSpec, Takes, Treatment};
use crate::config::server_toml;

/// Name and page.
pub(super) fn all() -> [(&'static str, String); 2] {
    let (toml, options) = ("pptp-fast-server.toml", "pptp-fast-options");
    [(toml, server(toml)), (options, pppd_options(options))]
}

fn page(name: &str, about: &str, description: &[&str]) -> Roff {
    let mut roff = Roff::new();
    let title = name.to_uppercase();
    let source = concat!("pptp-fast ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [title.as_str(), "5", "", source, "pptp-fast"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {about}"))]);
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in description {
        roff.control("PP", []);
        roff.text([roman(*paragraph)]);
    }
    roff
}

fn server(name: &str) -> String {
    let mut roff = page(
        name,
        "configuration of pptp-fast serve",
        &[
            "The file is /etc/pptp-fast/server.toml unless pptp-fast serve --config names another. \
             It is TOML: tables of keys with values. A key that is not known is an error that names \
             the line.",
            "Below is every key there is. A line that is commented out shows the default.",
        ],
    );
    roff.control("SH", ["KEYS"]);
    verbatim(&mut roff, server_toml::EXAMPLE.lines());
    render_see_also(&mut roff, name);
    roff.to_roff()
}

fn pppd_options(name: &str) -> String {
    let mut roff = page(
        name,
        "pppd's options as pptp-fast takes them",
        &[
            "Files in /etc/ppp/peers, /etc/ppp/options and those that they include are read as \
             pppd(8) reads them. Options stand one or several in a line, with their arguments; a # \
             begins a comment, quotes keep words together.",
            "Every option of pppd is known. Those that are honoured do what pppd's manual says. \
             Those that are harmless are taken and change nothing. A configuration with one that is \
             refused does not start, since the tunnel would be another than the one that was asked \
             for. pptp-fast check shows the same of a file of yours.",
        ],
    );
    section(&mut roff, "HONOURED", |treatment| match treatment {
        Treatment::Honoured(_) => Some("As pppd."),
        _ => None,
    });
    section(&mut roff, "HARMLESS", |treatment| match treatment {
        Treatment::Harmless(reason) => Some(reason),
        _ => None,
    });
    section(&mut roff, "REFUSED", |treatment| match treatment {
        Treatment::Refused(reason) => Some(reason),
        _ => None,
    });
    render_see_also(&mut roff, name);
    roff.to_roff()
}

/// Options of one treatment; those that need no word of their own stand together.
fn section(roff: &mut Roff, title: &str, reason: fn(&Treatment) -> Option<&'static str>) {
    const PLAIN: &str = "As pppd.";
    roff.control("SH", [title]);
    let rows = option_table::rows().filter_map(|row| Some((row, reason(&row.treatment)?)));
    let (plain, explained): (Vec<_>, Vec<_>) = rows.partition(|(_, reason)| *reason == PLAIN);
    for (index, (row, _)) in plain.iter().enumerate() {
        if index > 0 {
            roff.control("br", []);
        }
        render_option(roff, row);
    }
    for (row, reason) in explained {
        roff.control("TP", []);
        render_option(roff, row);
        roff.text([roman(reason)]);
    }
}

fn render_option(roff: &mut Roff, row: &OptionSpec) {
    let argument = match row.takes {
        Takes::Nothing => "",
        Takes::Text => "WORD",
        Takes::Secret => "SECRET",
        Takes::Number(..) => "N",
        Takes::Hex => "HEX",
        Takes::Address => "ADDRESS",
    };
    let mut words = vec![bold(row.name)];
    if !argument.is_empty() {
        words.extend([roman(" "), italic(argument)]);
    }
    roff.text(words);
}
