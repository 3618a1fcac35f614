//! chap-secrets and pap-secrets, changed line by line: comments, order, odd lines and the spelling
//! of every other line stay octet for octet.

use std::ops::Range;
use std::path::Path;

use zeroize::Zeroizing;

use super::EditError;
use super::atomic::{Edit, Readers};
use crate::config::source;
use crate::config::words::{Word, Words, quoted};
use crate::proto::auth::Secret;

/// One line of three words or more: `client server secret [addresses]`.
#[derive(Clone, Debug)]
pub struct SecretLine {
    client: Word,
    server: Word,
    secret: Word,
    /// What follows the secret, as it reads.
    pub addresses: Vec<String>,
    /// Line, counted from 1.
    pub line: u32,
    /// Of the whole line, with its newline.
    span: Range<usize>,
}

impl SecretLine {
    /// Who is authenticated.
    #[must_use]
    pub fn client(&self) -> String {
        self.client.to_text()
    }

    /// To whom.
    #[must_use]
    pub fn server(&self) -> String {
        self.server.to_text()
    }

    /// `secret` stands on this line.
    #[must_use]
    pub fn has_secret(&self, secret: &Secret) -> bool {
        self.secret.as_bytes() == secret.as_bytes()
    }

    /// The line is for this client and this server.
    #[must_use]
    pub fn is_for(&self, client: &str, server: &str) -> bool {
        self.client.as_bytes() == client.as_bytes() && self.server.as_bytes() == server.as_bytes()
    }

    /// The line is for these two, whoever is the client.
    #[must_use]
    pub fn is_between(&self, one: &str, other: &str) -> bool {
        self.is_for(one, other) || self.is_for(other, one)
    }

    fn words(&self) -> (&[u8], &[u8], &[u8], &[String]) {
        let (client, server) = (self.client.as_bytes(), self.server.as_bytes());
        (client, server, self.secret.as_bytes(), &self.addresses)
    }
}

/// A line to be written.
#[derive(Clone, Debug)]
pub struct NewSecret<'a> {
    /// Who is authenticated.
    pub client: &'a str,
    /// To whom.
    pub server: &'a str,
    /// What proves it.
    pub secret: &'a Secret,
    /// Which addresses the client may have; `*`, or none.
    pub addresses: &'a [String],
}

/// The lines of a secrets file, without a lock: for lists.
///
/// # Errors
/// The file cannot be read, or has a word that never ends.
pub fn read_lines(path: &Path) -> Result<Vec<SecretLine>, EditError> {
    let text = source::read_if_exists("secret file", path)?.unwrap_or_default();
    parse(path, &text)
}

/// A secrets file that is open for a change.
#[derive(Debug)]
pub struct SecretsFile {
    edit: Edit,
    text: Zeroizing<Vec<u8>>,
    lines: Vec<SecretLine>,
}

impl SecretsFile {
    /// Locks and reads it; a file that is not there is empty.
    ///
    /// # Errors
    /// A file that is not understood: nothing in it is changed.
    pub fn open(path: &Path) -> Result<Self, EditError> {
        let edit = Edit::open(path)?;
        let text = Zeroizing::new(edit.octets().unwrap_or_default().to_vec());
        let lines = parse(edit.path(), &text)?;
        Ok(Self { edit, text, lines })
    }

    /// Its lines, in order, without those that are not understood.
    #[must_use]
    pub fn lines(&self) -> &[SecretLine] {
        &self.lines
    }

    /// Writes a secret: into the lines of this pair, where there are any, since pppd takes the
    /// first that it finds; else as a new line at the end. Says whether a line was there.
    ///
    /// # Errors
    /// A word that cannot be written.
    pub fn set(&mut self, new: &NewSecret<'_>) -> Result<bool, EditError> {
        check(new)?;
        let spans: Vec<_> = self
            .lines
            .iter()
            .filter(|line| line.is_for(new.client, new.server))
            .map(|line| line.secret.span.clone())
            .collect();
        if spans.is_empty() {
            self.append(new)?;
            return Ok(false);
        }
        let word = quoted(new.secret.as_bytes()).map_err(bad("password"))?;
        // From the end, so that the places in front stay right.
        for span in spans.into_iter().rev() {
            self.splice(span, &word);
        }
        self.lines = parse(self.edit.path(), &self.text)?;
        Ok(true)
    }

    /// Appends a line, below the comment `# note` when there is one.
    fn append(&mut self, new: &NewSecret<'_>) -> Result<(), EditError> {
        let end = self.text.len();
        let line = line_text(new, b"\t")?;
        self.append_text(&line, end, new)
    }

    /// As pptpsetup writes a secret: a note whom it is for, then `client tunnel "secret" *`.
    ///
    /// # Errors
    /// A word that cannot be written.
    pub fn append_noted(&mut self, note: &str, new: &NewSecret<'_>) -> Result<(), EditError> {
        check(new)?;
        let end = self.text.len();
        let blank = if end == 0 { "" } else { "\n" };
        let mut text = Zeroizing::new(format!("{blank}# {note}\n").into_bytes());
        text.extend_from_slice(&line_text(new, b" ")?);
        self.append_text(&text, end, new)
    }

    fn append_text(
        &mut self,
        text: &[u8],
        end: usize,
        new: &NewSecret<'_>,
    ) -> Result<(), EditError> {
        let count = self.lines.len();
        if self.text.last().is_some_and(|&last| last != b'\n') {
            self.splice(end..end, b"\n");
        }
        let end = self.text.len();
        self.splice(end..end, text);
        self.lines = parse(self.edit.path(), &self.text)?;
        // A backslash at the end of the last line would have drawn the new one into it.
        let added = self.lines.get(count).filter(|it| it.span.start >= end);
        let added = added.map(SecretLine::words);
        let expected = (
            new.client.as_bytes(),
            new.server.as_bytes(),
            new.secret.as_bytes(),
            new.addresses,
        );
        if self.lines.len() != count + 1 || added != Some(expected) {
            let why = "its last line does not end where it seems to: is there a backslash? \
                       Put an empty line behind it";
            return Err(EditError::not_understood(self.edit.path(), why));
        }
        Ok(())
    }

    /// Removes the lines for which `unwanted` is true, and `# note` directly above one of them.
    /// Says how many.
    ///
    /// # Errors
    /// The rest does not read as it did.
    pub fn remove(
        &mut self,
        note: Option<&str>,
        unwanted: impl Fn(&SecretLine) -> bool,
    ) -> Result<usize, EditError> {
        let spans: Vec<_> = self
            .lines
            .iter()
            .filter(|line| unwanted(line))
            .map(|line| line.span.clone())
            .collect();
        for span in spans.iter().rev() {
            let start = note.map_or(span.start, |note| self.note_start(span.start, note));
            self.splice(start..span.end, b"");
        }
        let kept: Vec<_> = self
            .lines
            .iter()
            .filter(|line| !unwanted(line))
            .cloned()
            .collect();
        self.lines = parse(self.edit.path(), &self.text)?;
        let (now, before) = (self.lines.iter(), kept.iter());
        if !now.map(SecretLine::words).eq(before.map(SecretLine::words)) {
            let why = "lines in it run into each other; remove the secret with an editor";
            return Err(EditError::not_understood(self.edit.path(), why));
        }
        Ok(spans.len())
    }

    /// Where the comment `# note` starts, with the empty line above it, if it stands right in
    /// front of `start`.
    fn note_start(&self, start: usize, note: &str) -> usize {
        let before = self.text.get(..start).unwrap_or_default();
        let comment = format!("# {note}\n");
        match before.strip_suffix(comment.as_bytes()) {
            Some(rest) if rest.ends_with(b"\n\n") => rest.len() - 1,
            Some(rest) if rest.is_empty() || rest.ends_with(b"\n") => rest.len(),
            _ => start,
        }
    }

    /// Replaces a part of the text in a new buffer; the old one is forgotten.
    fn splice(&mut self, span: Range<usize>, with: &[u8]) {
        let front = self.text.get(..span.start).unwrap_or_default();
        let back = self.text.get(span.end..).unwrap_or_default();
        let mut text = Vec::with_capacity(front.len() + with.len() + back.len());
        for part in [front, with, back] {
            text.extend_from_slice(part);
        }
        self.text = Zeroizing::new(text);
    }

    /// Writes the file, readable by its owner alone.
    ///
    /// # Errors
    /// As [`Edit::write`].
    pub fn write(self) -> Result<(), EditError> {
        self.edit.write(&self.text, Readers::Owner)
    }

    /// Leaves what was there in `name.bkp` beside it, as pptpsetup does.
    ///
    /// # Errors
    /// As [`Edit::write`].
    pub fn back_up(&self) -> Result<(), EditError> {
        let Some(octets) = self.edit.octets() else {
            return Ok(());
        };
        self.edit.write_beside(".bkp", octets)
    }
}

/// `client server secret addresses` with `gap` between them, and a newline.
fn line_text(new: &NewSecret<'_>, gap: &[u8]) -> Result<Zeroizing<Vec<u8>>, EditError> {
    let client = quoted(new.client.as_bytes()).map_err(bad("name"))?;
    let server = quoted(new.server.as_bytes()).map_err(bad("name"))?;
    let secret = quoted(new.secret.as_bytes()).map_err(bad("password"))?;
    let addresses: usize = new.addresses.iter().map(|address| address.len() + 1).sum();
    let len = client.len() + server.len() + secret.len() + addresses + 3;
    let mut text = Zeroizing::new(Vec::with_capacity(len));
    text.extend_from_slice(&client);
    for word in [&server, &secret] {
        text.extend_from_slice(gap);
        text.extend_from_slice(word);
    }
    for address in new.addresses {
        text.extend_from_slice(gap);
        text.extend_from_slice(address.as_bytes());
    }
    text.push(b'\n');
    Ok(text)
}

fn bad(what: &'static str) -> impl FnOnce(&'static str) -> EditError {
    move |why| EditError::BadValue(format!("this {what} cannot be written: {why}"))
}

/// What pppd would read as something else than it is meant for.
fn check(new: &NewSecret<'_>) -> Result<(), EditError> {
    for name in [new.client, new.server] {
        if name.is_empty() || name.chars().any(char::is_control) {
            let why = "a name must not be empty, nor have control characters";
            return Err(EditError::BadValue(why.to_owned()));
        }
    }
    if new.secret.as_bytes().starts_with(b"@/") {
        let why = "a password that starts with @/ means a file to pppd: write it into a file of \
                   its own, and give the name of that file behind the @";
        return Err(EditError::BadValue(why.to_owned()));
    }
    let address = |c: char| c.is_ascii_alphanumeric() || "!./*-+:".contains(c);
    if let Some(word) = new
        .addresses
        .iter()
        .find(|word| word.is_empty() || word.starts_with("--") || !word.chars().all(address))
    {
        let why = format!(
            "'{}' is not an address such as 10.0.0.5, 10.0.0.0/24 or *",
            word.escape_debug()
        );
        return Err(EditError::BadValue(why));
    }
    Ok(())
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<SecretLine>, EditError> {
    let mut words = Words::new(&path.to_string_lossy(), text);
    let mut lines = Vec::new();
    let mut line: Vec<Word> = Vec::new();
    loop {
        let word = words.next_word()?;
        if word.as_ref().is_none_or(|word| word.starts_line) {
            lines.extend(secret_line(text, std::mem::take(&mut line)));
        }
        let Some(word) = word else { return Ok(lines) };
        line.push(word);
    }
}

fn secret_line(text: &[u8], words: Vec<Word>) -> Option<SecretLine> {
    let first = words.first()?.span.start;
    let last = words.last()?.span.end;
    let newline = |c: &u8| *c == b'\n';
    let start = text
        .get(..first)?
        .iter()
        .rposition(newline)
        .map_or(0, |at| at + 1);
    let end = text.get(last..)?.iter().position(newline);
    let end = end.map_or(text.len(), |at| last + at + 1);
    let mut words = words.into_iter();
    let (client, server, secret) = (words.next()?, words.next()?, words.next()?);
    Some(SecretLine {
        line: client.line,
        client,
        server,
        secret,
        addresses: words.map(|word| word.to_text()).collect(),
        span: start..end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FileSecrets;
    use crate::proto::auth::Secrets;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const HAND_WRITTEN: &[u8] = b"# Secrets of caf\xE9\r\n\
        mia\tzidler\told # the how-to's\n\
        two words\n\
        \n\
        \"zidler\" 'mia' old 10.0.0.5\n\
        # added by pptpsetup for work\n\
        OFFICE\\\\mia work \"my secret #1\" *\n\
        bob \\\n  zidler x";

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn file(text: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap-secrets");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn set(path: &Path, client: &str, server: &str, password: &str) -> Result<bool, EditError> {
        let mut file = SecretsFile::open(path)?;
        let new = NewSecret {
            client,
            server,
            secret: &secret(password),
            addresses: &[],
        };
        let was_there = file.set(&new)?;
        file.write().map(|()| was_there)
    }

    #[test]
    fn a_new_file_has_the_lines_of_the_how_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap-secrets");
        assert!(!set(&path, "mia", "zidler", "mia123").unwrap());
        assert!(!set(&path, "zidler", "mia", "mia123").unwrap());
        let text = fs::read(&path).unwrap();
        assert_eq!(text, b"mia\tzidler\tmia123\nzidler\tmia\tmia123\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_secret_is_replaced_where_it_stands_and_nothing_else_changes() {
        let (_dir, path) = file(HAND_WRITTEN);
        assert!(set(&path, "mia", "zidler", "a b").unwrap());
        let expected = String::from_utf8_lossy(HAND_WRITTEN).replacen("old", "\"a b\"", 1);
        let text = fs::read(&path).unwrap();
        assert_eq!(String::from_utf8_lossy(&text), expected);
        assert!(text.starts_with(b"# Secrets of caf\xE9\r\n"));
    }

    #[test]
    fn a_line_is_added_behind_a_last_line_without_a_newline() {
        let (_dir, path) = file(HAND_WRITTEN);
        set(&path, "DOM\\eve", "zidler", "it's #1").unwrap();
        let text = fs::read(&path).unwrap();
        let added = text.strip_prefix(HAND_WRITTEN).unwrap();
        assert_eq!(added, b"\nDOM\\\\eve\tzidler\t\"it's #1\"\n");
    }

    #[test]
    fn both_lines_of_a_pair_go_and_the_others_stay() {
        let (_dir, path) = file(HAND_WRITTEN);
        let mut file = SecretsFile::open(&path).unwrap();
        let count = file
            .remove(None, |line| line.is_between("zidler", "mia"))
            .unwrap();
        assert_eq!(count, 2);
        file.write().unwrap();
        let expected: Vec<u8> = HAND_WRITTEN
            .split_inclusive(|&c| c == b'\n')
            .filter(|line| !line.ends_with(b"how-to's\n") && !line.starts_with(b"\"zidler\""))
            .flatten()
            .copied()
            .collect();
        assert_eq!(fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn a_line_goes_with_the_note_above_it() {
        let (_dir, path) = file(HAND_WRITTEN);
        let mut file = SecretsFile::open(&path).unwrap();
        let note = Some("added by pptpsetup for work");
        assert_eq!(
            file.remove(note, |line| line.server() == "work").unwrap(),
            1
        );
        file.write().unwrap();
        let text = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(
            !text.contains("work") && !text.contains("pptpsetup"),
            "{text}"
        );
        assert!(text.contains("10.0.0.5\nbob \\\n"), "{text}");
    }

    #[test]
    fn a_line_over_two_lines_goes_whole() {
        let (_dir, path) = file(HAND_WRITTEN);
        let mut file = SecretsFile::open(&path).unwrap();
        file.remove(None, |line| line.client() == "bob").unwrap();
        file.write().unwrap();
        let text = fs::read(&path).unwrap();
        assert_eq!(
            Some(text.as_slice()),
            HAND_WRITTEN.strip_suffix(b"bob \\\n  zidler x")
        );
    }

    #[test]
    fn a_note_is_written_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap-secrets");
        let before = b"# mine\nbob z x\n";
        fs::write(&path, before).unwrap();
        let mut file = SecretsFile::open(&path).unwrap();
        let addresses = ["*".to_owned()];
        let new = NewSecret {
            client: "OFFICE\\mia",
            server: "work",
            secret: &secret("p w"),
            addresses: &addresses,
        };
        file.append_noted("added by pptpsetup for work", &new)
            .unwrap();
        file.write().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# mine\nbob z x\n\n# added by pptpsetup for work\nOFFICE\\\\mia work \"p w\" *\n"
        );
        let mut file = SecretsFile::open(&path).unwrap();
        file.back_up().unwrap();
        file.remove(Some("added by pptpsetup for work"), |line| {
            line.server() == "work"
        })
        .unwrap();
        file.write().unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
        let backup = dir.path().join("chap-secrets.bkp");
        assert_eq!(fs::read_to_string(&backup).unwrap(), text);
        assert_eq!(
            backup.metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn what_is_not_understood_is_not_touched() {
        for text in [&b"mia z \"open\n"[..], b"mia z x\0\n", b"mia z x \\\n"] {
            let (_dir, path) = file(text);
            let error = set(&path, "bob", "z", "topsecret").unwrap_err().to_string();
            assert!(error.contains("chap-secrets"), "{error}");
            assert!(
                !error.contains("topsecret") && !error.contains("open\n"),
                "{error}"
            );
            assert_eq!(fs::read(&path).unwrap(), text);
        }
    }

    #[test]
    fn what_pppd_would_misread_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap-secrets");
        for (client, password) in [("", "s3cret"), ("m\nia", "s3cret"), ("mia", "@/s3cret")] {
            let error = set(&path, client, "z", password).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_line_that_would_join_the_one_before_is_not_written() {
        // An empty word that goes on in the next line.
        let (_dir, path) = file(b"''\\");
        let error = set(&path, "mia", "z", "x").unwrap_err().to_string();
        assert!(error.contains("backslash"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"''\\");
    }

    proptest! {
        /// What is written is found by the reader; what stood there before reads as before.
        #[test]
        fn a_secret_is_read_back_and_the_rest_stays(
            before in vec("[ab\\t #\"'\\\\\\\\\n]{0,12}", 0..8),
            client in "[^\\p{Cc}]{1,20}",
            password in vec(1_u8..=255, 0..40),
        ) {
            let before = before.join("\n").into_bytes();
            let (dir, path) = file(&before);
            prop_assume!(!password.starts_with(b"@/"));
            let Ok(mut file) = SecretsFile::open(&path) else { return Ok(()) };
            let old = file.lines().to_vec();
            let new = NewSecret {
                client: &client,
                server: "zidler",
                secret: &Secret::new(password.clone()),
                addresses: &[],
            };
            if file.set(&new).is_err() {
                return Ok(());
            }
            file.write().unwrap();
            let text = fs::read(&path).unwrap();
            prop_assert!(text.starts_with(&before));
            let secrets = FileSecrets::read(dir.path()).unwrap();
            prop_assert_eq!(
                secrets.find(&client, "zidler", false).map(|found| found.as_bytes().to_vec()),
                Some(password)
            );
            let mut file = SecretsFile::open(&path).unwrap();
            prop_assert_eq!(file.lines().len(), old.len() + 1);
            file.remove(None, |line| line.is_for(&client, "zidler")).unwrap();
            file.write().unwrap();
            prop_assert!(fs::read(&path).unwrap().starts_with(&before));
        }
    }
}
