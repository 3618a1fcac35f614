//! One file, changed as a whole or not at all.
//!
//! The new text goes into a file beside the old one, readable by its owner alone from its first
//! octet, is synced, and takes the old one's name. Its folder is locked (`flock`) from before the
//! old text is read, so that of two programs that add a line neither loses the other's.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use zeroize::Zeroizing;

use super::EditError;
use crate::config::source;

/// Symbolic links that lead to one file.
const LINKS_MAX: usize = 8;
/// Tries to get the lock, and the time between them: five seconds together.
const LOCK_TRIES: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Who may read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner.
    Owner,
    /// Everyone, as every program reads resolv.conf.
    Everyone,
}

/// The lock on a folder; it ends when dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: Flock<File>,
}

impl Folder {
    /// Locks `path`, which is made if it is not there, for at most five seconds of waiting.
    ///
    /// # Errors
    /// [`EditError::Busy`]; or the folder cannot be made or opened.
    pub fn lock(path: &Path) -> Result<Self, EditError> {
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(EditError::io("make the folder", path))?;
        let mut file = File::open(path).map_err(EditError::io("open the folder", path))?;
        for _ in 0..LOCK_TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    let path = path.to_owned();
                    return Ok(Self { path, lock });
                }
                Err((unlocked, nix::errno::Errno::EWOULDBLOCK | nix::errno::Errno::EINTR)) => {
                    file = unlocked;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err((_, errno)) => return Err(EditError::io("lock", path)(errno.into())),
            }
        }
        Err(EditError::Busy(path.to_owned()))
    }

    /// Makes the names in the folder as durable as the files.
    fn sync(&self) -> Result<(), EditError> {
        self.lock
            .sync_all()
            .map_err(EditError::io("sync", &self.path))
    }

    /// Makes `name` a symbolic link to `target`, in one step. A link that is there is replaced; a
    /// file is not.
    ///
    /// # Errors
    /// [`EditError::NotUnderstood`] when `name` is no symbolic link.
    pub fn link(&self, name: &str, target: &Path) -> Result<(), EditError> {
        let path = self.path.join(name);
        if path.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
            return Err(EditError::not_understood(
                &path,
                "it is not a symbolic link",
            ));
        }
        self.link_over(name, target)
    }

    /// As [`link`](Self::link), but a file gives way, too.
    ///
    /// # Errors
    /// The operating system's.
    pub fn link_over(&self, name: &str, target: &Path) -> Result<(), EditError> {
        let path = self.path.join(name);
        let temporary = Temporary(temporary_path(&path));
        // Left behind by a process that was killed while it held the lock.
        let _ = fs::remove_file(&temporary.0);
        std::os::unix::fs::symlink(target, &temporary.0)
            .map_err(EditError::io("make a symbolic link beside", &path))?;
        temporary.take_name(&path)?;
        self.sync()
    }

    /// Renames `from` to `to` within the folder.
    ///
    /// # Errors
    /// The operating system's.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), EditError> {
        let from = self.path.join(from);
        fs::rename(&from, self.path.join(to)).map_err(EditError::io("rename", &from))?;
        self.sync()
    }

    /// Removes a file, or a symbolic link and not what it leads to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove(&self, name: &str) -> Result<(), EditError> {
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(EditError::io("remove", &path))?;
        self.sync()
    }

    /// Reads a file of the folder for a change.
    fn edit(self, path: PathBuf) -> Result<Edit, EditError> {
        let before = match path.symlink_metadata() {
            Ok(metadata) if metadata.is_file() => {
                let octets = source::read_if_exists("file", &path)?.unwrap_or_default();
                if octets.contains(&0) {
                    return Err(EditError::not_understood(&path, "it is not a text file"));
                }
                Some(Before { metadata, octets })
            }
            Ok(_) => return Err(EditError::not_understood(&path, "it is not a regular file")),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(EditError::io("look at", &path)(error)),
        };
        Ok(Edit {
            folder: self,
            path,
            before,
        })
    }
}

#[derive(Debug)]
struct Before {
    metadata: Metadata,
    octets: Zeroizing<Vec<u8>>,
}

/// A file that is about to be changed; its folder is locked.
pub struct Edit {
    folder: Folder,
    /// Symbolic links are resolved: they stay, and what they lead to is changed.
    path: PathBuf,
    before: Option<Before>,
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Edit({})", self.path.display())
    }
}

impl Edit {
    /// Locks the folder of `path` and reads the file, if it is there.
    ///
    /// # Errors
    /// [`EditError::NotUnderstood`] when it is not a regular text file; [`EditError::Busy`].
    pub fn open(path: &Path) -> Result<Self, EditError> {
        let path = resolve(path)?;
        Folder::lock(folder_of(&path))?.edit(path)
    }

    /// What stands in it; `None` when there is no such file.
    #[must_use]
    pub fn octets(&self) -> Option<&[u8]> {
        self.before.as_ref().map(|before| before.octets.as_slice())
    }

    /// The file that is changed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `octets` into a file beside this one, whose name is this one's and `suffix`.
    /// It is its owner's alone; what has that name gives way.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write_beside(&self, suffix: &str, octets: &[u8]) -> Result<(), EditError> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        let path = self.path.with_file_name(name);
        write_over(&path, octets, Readers::Owner, self.before.as_ref(), || {
            Ok(())
        })?;
        self.folder.sync()
    }

    /// Gives the file a new text. Its owner and group stay.
    ///
    /// # Errors
    /// [`EditError::Changed`] when it is no longer what was read; the operating system's.
    pub fn write(self, octets: &[u8], readers: Readers) -> Result<(), EditError> {
        let check = || match self.is_as_before() {
            true => Ok(()),
            false => Err(EditError::Changed(self.path.clone())),
        };
        write_over(&self.path, octets, readers, self.before.as_ref(), check)?;
        self.folder.sync()
    }

    fn is_as_before(&self) -> bool {
        let now = self.path.symlink_metadata().ok();
        let mark = |meta: &Metadata| {
            (
                meta.dev(),
                meta.ino(),
                meta.size(),
                meta.mtime(),
                meta.mtime_nsec(),
            )
        };
        now.as_ref().map(mark) == self.before.as_ref().map(|before| mark(&before.metadata))
    }
}

/// Writes a file beside `path` and, if `check` lets it, gives it that name.
fn write_over(
    path: &Path,
    octets: &[u8],
    readers: Readers,
    before: Option<&Before>,
    check: impl FnOnce() -> Result<(), EditError>,
) -> Result<(), EditError> {
    let temporary = Temporary(temporary_path(path));
    // Left behind by a process that was killed while it held the lock.
    let _ = fs::remove_file(&temporary.0);
    let failed = |what| EditError::io(what, path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options
        .open(&temporary.0)
        .map_err(failed("write a new version of"))?;
    if let Some(before) = before {
        keep_owner(&file, &before.metadata).map_err(failed("keep the owner of"))?;
    }
    file.write_all(octets).map_err(failed("write"))?;
    if readers == Readers::Everyone {
        let mode = Permissions::from_mode(0o644);
        file.set_permissions(mode)
            .map_err(failed("make readable"))?;
    }
    file.sync_all().map_err(failed("sync"))?;
    check()?;
    temporary.take_name(path)
}

fn keep_owner(file: &File, before: &Metadata) -> std::io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) == (before.uid(), before.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(before.uid()), Some(before.gid()))
}

/// Removed on drop, unless it has taken its name.
struct Temporary(PathBuf);

impl Temporary {
    fn take_name(self, path: &Path) -> Result<(), EditError> {
        fs::rename(&self.0, path).map_err(EditError::io("replace", path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A name beside `path` that is no tunnel's name: a tilde cannot stand in one.
fn temporary_path(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}~", std::process::id()));
    path.with_file_name(name)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Follows symbolic links by hand, since the file at their end need not be there yet.
fn resolve(path: &Path) -> Result<PathBuf, EditError> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(EditError::not_understood(
        &path,
        "symbolic links lead to it in a circle",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().permissions().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ppp/chap-secrets");
        let edit = Edit::open(&path).unwrap();
        assert_eq!(edit.octets(), None);
        edit.write(b"mia zidler mia123\n", Readers::Owner).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"mia zidler mia123\n");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(path.parent().unwrap()), ["chap-secrets"]);
    }

    #[test]
    fn a_file_that_others_could_read_is_closed_and_keeps_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap-secrets");
        fs::write(&path, "old\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let root = nix::unistd::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
        }
        let edit = Edit::open(&path).unwrap();
        assert_eq!(edit.octets(), Some(&b"old\n"[..]));
        edit.write(b"new\n", Readers::Owner).unwrap();
        let meta = path.metadata().unwrap();
        assert_eq!(mode(&path), 0o600);
        if root {
            assert_eq!((meta.uid(), meta.gid()), (1234, 4321));
        }
        Edit::open(&path)
            .unwrap()
            .write(b"x", Readers::Everyone)
            .unwrap();
        assert_eq!(mode(&path), 0o644);
    }

    #[test]
    fn a_symbolic_link_stays_and_its_end_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        let link = dir.path().join("chap-secrets");
        symlink("real/secrets", &link).unwrap();
        Edit::open(&link)
            .unwrap()
            .write(b"one\n", Readers::Owner)
            .unwrap();
        Edit::open(&link)
            .unwrap()
            .write(b"two\n", Readers::Owner)
            .unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("real/secrets"));
        assert_eq!(fs::read(dir.path().join("real/secrets")).unwrap(), b"two\n");
        let circle = dir.path().join("circle");
        symlink("circle", &circle).unwrap();
        let error = Edit::open(&circle).unwrap_err().to_string();
        assert!(error.contains("in a circle"), "{error}");
    }

    #[test]
    fn what_is_no_text_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("database");
        fs::write(&path, b"SQLite\0").unwrap();
        for path in [&path, dir.path()] {
            let error = Edit::open(path).unwrap_err();
            assert!(matches!(error, EditError::NotUnderstood { .. }), "{error}");
        }
    }

    #[test]
    fn a_change_by_somebody_without_a_lock_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap-secrets");
        fs::write(&path, "one\n").unwrap();
        let edit = Edit::open(&path).unwrap();
        fs::write(&path, "by an editor\n").unwrap();
        let error = edit.write(b"two\n", Readers::Owner).unwrap_err();
        assert!(matches!(error, EditError::Changed(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"by an editor\n");
        assert_eq!(names(dir.path()), ["chap-secrets"]);
    }

    #[test]
    fn of_many_writers_none_loses_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap-secrets");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for line in 0..5 {
                        let edit = Edit::open(path).unwrap();
                        let mut text = edit.octets().unwrap_or_default().to_vec();
                        text.extend_from_slice(format!("{writer} {line}\n").as_bytes());
                        edit.write(&text, Readers::Owner).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 40);
    }

    #[test]
    fn a_link_replaces_a_link_and_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::lock(dir.path()).unwrap();
        folder.link("__default", Path::new("a")).unwrap();
        folder.link("__default", Path::new("b")).unwrap();
        assert_eq!(
            fs::read_link(dir.path().join("__default")).unwrap(),
            Path::new("b")
        );
        fs::write(dir.path().join("file"), "x").unwrap();
        assert!(folder.link("file", Path::new("a")).is_err());
        assert_eq!(names(dir.path()), ["__default", "file"]);
    }
}
