//! pppd's word grammar, shared by options files and secrets files (pppd(8), OPTIONS FILES).
//!
//! Words are parted by white space. Single and double quotes keep white space and `#` inside a
//! word; `#` outside of quotes starts a comment; a backslash gives the next character its C meaning
//! (`\n`, `\t`, `\s` for a space, `\ooo`, `\xhh`) or takes its special meaning away; a backslash
//! before a newline is ignored with the newline.

use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::{ConfigError, Place};

/// pppd's `MAXWORDLEN`: a longer word is an error here, where pppd cuts it and warns.
pub const WORD_BYTES_MAX: usize = 1023;

/// Editors of another system put it in front of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One word, with its escapes resolved. It may be a password: forgotten on drop, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Word {
    octets: Zeroizing<Vec<u8>>,
    /// Line of its first character, counted from 1.
    pub line: u32,
    /// It is the first word on its line.
    pub starts_line: bool,
    /// Where it stands in the text, with its quotes, in octets.
    pub span: Range<usize>,
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Word(<hidden>, line {})", self.line)
    }
}

impl Word {
    /// What stands there, in whatever encoding the file has.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// The same, moved out.
    #[must_use]
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.octets
    }

    /// The same for people: what is not UTF-8 is replaced.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.octets).into_owned()
    }
}

/// The words of one file.
#[derive(Debug)]
pub struct Words<'a> {
    file: Arc<str>,
    rest: &'a [u8],
    /// Of the whole text.
    len: usize,
    line: u32,
    /// A newline, or the file's start, lies between the last word and here.
    at_line_start: bool,
}

impl<'a> Words<'a> {
    /// Starts on `text`, called `file` in errors. A byte order mark in front is passed over.
    #[must_use]
    pub fn new(file: &str, text: &'a [u8]) -> Self {
        Self {
            file: file.into(),
            rest: text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text),
            len: text.len(),
            line: 1,
            at_line_start: true,
        }
    }

    /// The place of a word of this file.
    #[must_use]
    pub fn place(&self, line: u32) -> Place {
        Place {
            file: Some(Arc::clone(&self.file)),
            line,
        }
    }

    /// The next word, or `None` at the end.
    ///
    /// # Errors
    /// A quote that is never closed, or a word of more than [`WORD_BYTES_MAX`] octets.
    pub fn next_word(&mut self) -> Result<Option<Word>, ConfigError> {
        self.skip_to_word();
        if self.rest.is_empty() {
            return Ok(None);
        }
        let line = self.line;
        let starts_line = std::mem::replace(&mut self.at_line_start, false);
        let start = self.len - self.rest.len();
        let octets = self.take_word(line)?;
        Ok(Some(Word {
            octets,
            line,
            starts_line,
            span: start..self.len - self.rest.len(),
        }))
    }

    fn bump(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        if first == b'\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(first)
    }

    /// Stands on a word's first character afterwards, or at the end.
    fn skip_to_word(&mut self) {
        let mut in_comment = false;
        loop {
            match self.rest {
                [b'\n', ..] => {
                    in_comment = false;
                    self.at_line_start = true;
                }
                [b'\\', b'\n', ..] if !in_comment => {
                    self.bump();
                }
                [b'\\', b'\r', b'\n', ..] if !in_comment => {
                    self.bump();
                    self.bump();
                }
                [b'#', ..] => in_comment = true,
                [first, ..] if in_comment || is_space(*first) => {}
                _ => return,
            }
            self.bump();
        }
    }

    fn take_word(&mut self, line: u32) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
        // Room from the start, so that no half-grown copy of a secret stays behind in the heap.
        let mut octets = Zeroizing::new(Vec::with_capacity(64));
        let mut quote = None;
        loop {
            match self.rest.first().copied() {
                None if quote.is_some() => {
                    return Err(ConfigError::BadValue {
                        place: self.place(line),
                        why: "a quoted word runs to the end of the file: the closing quote is \
                              missing"
                            .to_owned(),
                    });
                }
                None => return Ok(octets),
                Some(b'\\') => {
                    self.bump();
                    if let Some(octet) = self.escaped() {
                        octets.push(octet);
                    }
                }
                Some(c) if quote == Some(c) => {
                    self.bump();
                    quote = None;
                }
                Some(c @ (b'"' | b'\'')) if quote.is_none() => {
                    self.bump();
                    quote = Some(c);
                }
                Some(c) if quote.is_none() && (is_space(c) || c == b'#') => return Ok(octets),
                Some(c) => {
                    self.bump();
                    octets.push(c);
                }
            }
            if octets.len() > WORD_BYTES_MAX {
                return Err(ConfigError::BadValue {
                    place: self.place(line),
                    why: format!("a word is longer than {WORD_BYTES_MAX} octets"),
                });
            }
        }
    }

    /// The octet that stands for what follows a backslash; none for an escaped newline or the end.
    fn escaped(&mut self) -> Option<u8> {
        if self.rest.starts_with(b"\r\n") {
            self.bump();
        }
        let c = self.bump()?;
        Some(match c {
            b'\n' => return None,
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b's' => b' ',
            b't' => b'\t',
            b'0'..=b'7' => self.digits(c - b'0', 2, 8),
            b'x' => self.digits(0, 2, 16),
            other => other,
        })
    }

    /// Goes on with a number in base 8 or 16 of at most `count` more digits, modulo 256.
    fn digits(&mut self, start: u8, count: usize, base: u8) -> u8 {
        let mut value = start;
        for _ in 0..count {
            let Some(digit) = self
                .rest
                .first()
                .and_then(|&c| char::from(c).to_digit(u32::from(base)))
                .and_then(|digit| u8::try_from(digit).ok())
            else {
                break;
            };
            self.bump();
            value = value.wrapping_mul(base).wrapping_add(digit);
        }
        value
    }
}

/// `word` as it must be written for pppd, and for [`Words`], to read it back: bare where it can
/// stand so, because older tools know nothing of quotes, and in double quotes where it cannot.
///
/// # Errors
/// Words for a person: pppd's grammar has no way to write it.
pub fn quoted(word: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    if word.len() > WORD_BYTES_MAX {
        return Err("it is longer than the 1023 octets that pppd reads");
    }
    if word.contains(&0) {
        return Err("it contains a NUL, which ends a word for pppd");
    }
    let bare = |c: &u8| !is_space(*c) && !matches!(c, b'"' | b'\'' | b'#') && !c.is_ascii_control();
    let quote = word.is_empty() || word.starts_with(BYTE_ORDER_MARK) || !word.iter().all(bare);
    // Room for every octet as `\ooo`: no half-grown copy of a secret stays behind in the heap.
    let mut text = Zeroizing::new(Vec::with_capacity(2 + 4 * word.len()));
    if quote {
        text.push(b'"');
    }
    for &c in word {
        match c {
            b'\\' | b'"' => text.extend([b'\\', c]),
            b'\t' => text.push(c),
            c if c.is_ascii_control() => {
                text.push(b'\\');
                text.extend([6, 3, 0].map(|shift| b'0' + (c >> shift & 7)));
            }
            c => text.push(c),
        }
    }
    if quote {
        text.push(b'"');
    }
    Ok(text)
}

/// C's `isspace`: with it a carriage return before the newline is white space.
const fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn words(text: &[u8]) -> Vec<(Vec<u8>, u32, bool)> {
        let mut words = Words::new("f", text);
        let mut all = Vec::new();
        while let Some(word) = words.next_word().unwrap() {
            all.push((word.as_bytes().to_vec(), word.line, word.starts_line));
        }
        all
    }

    fn texts(text: &[u8]) -> Vec<String> {
        words(text)
            .into_iter()
            .map(|(octets, ..)| String::from_utf8_lossy(&octets).into_owned())
            .collect()
    }

    #[test]
    fn comments_and_white_space_part_words_and_lines_are_counted() {
        let all = words(b"# head\nname\tmia # who\n\n  lock#x\r\ndump");
        assert_eq!(
            all,
            vec![
                (b"name".to_vec(), 2, true),
                (b"mia".to_vec(), 2, false),
                (b"lock".to_vec(), 4, true),
                (b"dump".to_vec(), 5, true),
            ]
        );
    }

    #[test]
    fn quotes_keep_spaces_and_hashes_and_may_stand_inside_a_word() {
        assert_eq!(
            texts(b"\"a b\" 'c # d' e'f g'h \"\" '\"'"),
            ["a b", "c # d", "ef gh", "", "\""]
        );
    }

    #[test]
    fn backslashes_have_their_c_meaning() {
        assert_eq!(
            texts(br"DOM\\mia a\ b a\sb \x41\102\060 \#x"),
            ["DOM\\mia", "a b", "a b", "AB0", "#x"]
        );
        assert_eq!(
            texts(b"one\\\ntwo \\\n three\\\r\nfour"),
            ["onetwo", "threefour"]
        );
    }

    #[test]
    fn a_backslash_in_quotes_escapes_too() {
        assert_eq!(texts(br#""a\"b""#), ["a\"b"]);
    }

    #[test]
    fn byte_order_mark_and_missing_final_newline_are_harmless() {
        assert_eq!(texts(b"\xEF\xBB\xBFname mia"), ["name", "mia"]);
    }

    #[test]
    fn octets_that_are_not_utf8_are_kept() {
        assert_eq!(words(b"caf\xE9")[0].0, b"caf\xE9");
    }

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        for (word, text) in [
            (&b"mia123"[..], &b"mia123"[..]),
            (b"DOMAIN\\mia", b"DOMAIN\\\\mia"),
            (b"", b"\"\""),
            (b"a b", b"\"a b\""),
            (b"a#b", b"\"a#b\""),
            (b"say \"hi\"", b"\"say \\\"hi\\\"\""),
            (b"it's", b"\"it's\""),
            (b"a\nb", b"\"a\\012b\""),
            (b"caf\xE9", b"caf\xE9"),
        ] {
            assert_eq!(quoted(word).unwrap().as_slice(), text);
        }
        assert!(quoted(b"a\0b").is_err());
        assert!(quoted(&[b'x'; WORD_BYTES_MAX + 1]).is_err());
        assert!(quoted(&[b' '; WORD_BYTES_MAX]).is_ok());
    }

    #[test]
    fn a_word_knows_where_it_stands() {
        let text = b"\xEF\xBB\xBF# x\nmia \"a b\"#c";
        let mut words = Words::new("f", text);
        let mut stands = || words.next_word().unwrap().map(|word| &text[word.span]);
        assert_eq!(stands(), Some(&b"mia"[..]));
        assert_eq!(stands(), Some(&b"\"a b\""[..]));
        assert_eq!(stands(), None);
    }

    #[test]
    fn an_open_quote_is_named_with_its_line() {
        let mut words = Words::new("/etc/ppp/chap-secrets", b"a\n b \"secret");
        words.next_word().unwrap();
        words.next_word().unwrap();
        let error = words.next_word().unwrap_err().to_string();
        assert!(
            error.starts_with("In file /etc/ppp/chap-secrets, line 2: "),
            "{error}"
        );
        assert!(!error.contains("secret "), "{error}");
    }

    #[test]
    fn a_word_is_bounded() {
        let long = vec![b'x'; WORD_BYTES_MAX];
        assert_eq!(words(&long)[0].0.len(), WORD_BYTES_MAX);
        let longer = vec![b'x'; WORD_BYTES_MAX + 1];
        assert!(Words::new("f", &longer).next_word().is_err());
    }

    proptest! {
        #[test]
        fn any_octets_end_in_words_or_an_error(text in vec(any::<u8>(), 0..400)) {
            let mut words = Words::new("f", &text);
            let mut count = 0;
            while let Ok(Some(_)) = words.next_word() {
                count += 1;
                prop_assert!(count <= text.len());
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            written in vec(vec(1_u8..=255, 0..40), 1..6),
            hard in vec("[ \t\n#\"'\\\\0-7xna]{0,20}", 0..4),
        ) {
            let mut expected = written;
            expected.extend(hard.into_iter().map(String::into_bytes));
            let mut text = Vec::new();
            for word in &expected {
                text.extend_from_slice(&quoted(word).unwrap());
                text.push(b' ');
            }
            let read: Vec<_> = words(&text).into_iter().map(|(octets, ..)| octets).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn a_quoted_word_comes_back_as_it_went_in(word in "[^\\\\\"\n]{0,60}") {
            let text = format!("\"{word}\"");
            prop_assert_eq!(texts(text.as_bytes()), vec![word]);
        }
    }
}
