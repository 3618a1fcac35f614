//! What the TOML parser says of a value of the wrong kind, in the words of a person who writes the
//! file: with the name of the key, and without types of Rust.

/// `message` of a parser for the value that begins at octet `at` of `text`, with the key of its
/// line. What is not about the kind of a value stays as it is.
pub(super) fn plain(message: &str, text: &str, at: usize) -> String {
    let Some((is, wanted)) = kinds(message) else {
        return message.to_owned();
    };
    match key(text, at) {
        Some(key) => format!("{key}: {is} is not {wanted}"),
        None => format!("{is} is not {wanted}"),
    }
}

/// What a value is, and what it should be.
fn kinds(message: &str) -> Option<(String, &str)> {
    if message == "wanted string or table" {
        return Some(("this".to_owned(), TEXT));
    }
    let about = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix))?;
    let (is, expected) = about.rsplit_once(", expected ")?;
    Some((found(is), wanted(expected)))
}

const TEXT: &str = "text in quotes";

fn found(is: &str) -> String {
    match is {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        _ => {
            let value = ["string ", "integer ", "floating point ", "boolean "]
                .iter()
                .find_map(|kind| is.strip_prefix(kind));
            value.unwrap_or(is).trim_matches('`').to_owned()
        }
    }
}

fn wanted(expected: &str) -> &str {
    match expected {
        "i64" | "f64" => "a number",
        "u64" | "u32" | "u16" | "u8" | "usize" => "a number from 0 on",
        "a boolean" => "true or false",
        "a string" => TEXT,
        "path string" => "a path in quotes",
        "a sequence" => "a list, such as [\"a\", \"b\"]",
        "IPv4 address" => "an IPv4 address in quotes",
        _ => expected,
    }
}

/// `name` of `name = ...` in the line that octet `at` is in.
fn key(text: &str, at: usize) -> Option<&str> {
    let before = text.get(..at)?;
    let line = before.rsplit('\n').next()?;
    let (name, _) = line.split_once('=')?;
    let name = name.trim();
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!name.is_empty() && name.chars().all(is_bare)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_its_key_and_what_is_due() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only the errors count")]
        struct File {
            number: Option<i64>,
            count: Option<u32>,
            list: Option<Vec<String>>,
            flag: Option<bool>,
            path: Option<std::path::PathBuf>,
            address: Option<std::net::Ipv4Addr>,
            choice: Option<Choice>,
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Choice {
            One,
        }
        for (text, due) in [
            (
                "number = \"x, expected y\"",
                "number: \"x, expected y\" is not a number",
            ),
            ("  number=[1]", "number: a list is not a number"),
            ("count = -5", "count: -5 is not a number from 0 on"),
            ("count = 1.5", "count: 1.5 is not a number from 0 on"),
            (
                "list = true",
                "list: true is not a list, such as [\"a\", \"b\"]",
            ),
            ("list = [\"a\", 7]", "list: 7 is not text in quotes"),
            ("list = [\n  7]", "7 is not text in quotes"),
            ("flag = \"no\"", "flag: \"no\" is not true or false"),
            ("path = {a = 1}", "path: a table is not a path in quotes"),
            ("address = 1", "address: 1 is not an IPv4 address in quotes"),
            ("choice = 1", "choice: this is not text in quotes"),
            ("choice = \"two\"", "unknown variant `two`, expected `one`"),
        ] {
            let text = format!("# = first\n{text}\n");
            let error = toml::from_str::<File>(&text).unwrap_err();
            let at = error.span().unwrap().start;
            assert_eq!(plain(error.message(), &text, at), due);
        }
    }
}
