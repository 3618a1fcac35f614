//! What pppd's `dump` option prints.

use super::{PppdOptions, Setting};
use crate::config::option_table::{self, OptionSpec, Takes, Value};

/// In the place of a password.
pub(super) const HIDDEN: &str = "??????";

impl PppdOptions {
    /// What pppd's `dump` prints: `pppd options in effect:`, then the option of each group that
    /// was set last, in the table's order.
    #[must_use]
    pub fn dump_text(&self) -> String {
        let mut text = String::from("pppd options in effect:\n");
        for group in option_table::rows().filter(|row| row.group == row.name) {
            let mut settings = self
                .settings
                .iter()
                .filter(|setting| setting.spec.group == group.name);
            let listed = matches!(group.name, "ms-dns" | "ms-wins" | "set" | "plugin");
            if listed {
                settings.for_each(|setting| push_line(&mut text, setting));
            } else if let Some(last) = settings.next_back() {
                push_line(&mut text, last);
            }
        }
        text
    }
}

fn push_line(text: &mut String, setting: &Setting) {
    let Setting { spec, shown, place } = setting;
    if !spec.wild {
        text.push_str(spec.name);
        text.push_str(if shown.is_empty() { "" } else { " " });
    }
    text.push_str(shown);
    text.push_str("\t\t# (from ");
    text.push_str(place.source());
    text.push_str(")\n");
}

/// The argument in the words of `dump`: `%q` escapes quotes and backslashes, numbers are decimal.
pub(super) fn shown(spec: &OptionSpec, value: &Value<'_>) -> String {
    match spec.takes {
        Takes::Nothing if spec.wild => value.text.to_owned(),
        Takes::Nothing => String::new(),
        Takes::Secret => HIDDEN.to_owned(),
        Takes::Number(..) => value.number.to_string(),
        Takes::Hex => format!("{:x}", value.number),
        Takes::Address => value.address.to_string(),
        Takes::Text => value
            .text
            .chars()
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                c if c.is_control() => c.escape_default().collect(),
                c => vec![c],
            })
            .collect(),
    }
}
