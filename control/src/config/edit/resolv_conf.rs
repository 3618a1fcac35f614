//! Two versions of resolv.conf, as pptp-command keeps them: `resolv.conf.real` without a tunnel,
//! `resolv.conf.pptp` with one, and `resolv.conf` a symbolic link to either.
//!
//! A person sets them up, and takes them away. Which one is active while tunnels come and go is for
//! `driver::name_servers` to say, which keeps the file of before as `resolv.conf.pptp-fast`.

use std::fs;
use std::path::{Path, PathBuf};

use super::EditError;
use super::atomic::{Edit, Folder, Readers};

/// Name servers that the C library reads (`MAXNS`).
pub const NAME_SERVERS_MAX: usize = 3;

/// `PPTP_FAST_RESOLV_CONF`, or /etc/resolv.conf.
#[must_use]
pub fn active() -> PathBuf {
    std::env::var_os("PPTP_FAST_RESOLV_CONF")
        .map_or_else(|| "/etc/resolv.conf".into(), PathBuf::from)
}

/// The files.
#[derive(Clone, Debug)]
pub struct ResolvConf {
    /// What programs read: `/etc/resolv.conf`.
    pub active: PathBuf,
    /// For the time that a tunnel is up.
    pub pptp: PathBuf,
    /// For the rest of the time.
    pub real: PathBuf,
    /// Where the active version of before waits as long as tunnels have another in its place.
    pub saved: PathBuf,
}

/// What came of changing from one version to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The two versions are not both there: nothing is to be done.
    NotConfigured,
    /// The wanted version is the active one already.
    Already,
    /// The wanted version is the active one now.
    Done,
    /// The active one is neither: somebody has changed it, and it stays.
    Foreign,
}

impl ResolvConf {
    /// The versions of `active`.
    #[must_use]
    pub fn new(active: &Path) -> Self {
        let beside = |suffix: &str| {
            let mut name = active.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            active: active.to_owned(),
            pptp: beside(".pptp"),
            real: beside(".real"),
            saved: beside(".pptp-fast"),
        }
    }

    /// Both versions are there.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.pptp.is_file() && self.real.is_file()
    }

    /// The tunnel's version is the active one.
    #[must_use]
    pub fn tunnel_is_active(&self) -> bool {
        self.is_configured() && same(&self.active, &self.pptp) && !same(&self.active, &self.real)
    }

    /// Writes the version for tunnels.
    ///
    /// # Errors
    /// No name server, or words that cannot stand in it.
    pub fn write_pptp(&self, search: &[String], servers: &[String]) -> Result<(), EditError> {
        let text = text(search, servers)?;
        Edit::open(&self.pptp)?.write(text.as_bytes(), Readers::Everyone)
    }

    /// Keeps the active version as the real one, and makes the active one a link to it. Another
    /// program's link (systemd-resolved's) is kept as a link, so that it goes on being updated.
    ///
    /// # Errors
    /// The operating system's.
    pub fn keep_real(&self) -> Result<(), EditError> {
        let link = fs::read_link(&self.active).ok();
        // What is real was kept when it became a link to either.
        if link.as_ref().is_some_and(|target| self.is_version(target)) {
            return Ok(());
        }
        if self.saved.symlink_metadata().is_ok() {
            let why = "a tunnel has its name servers in it: end that first, with pptp-fast down";
            return Err(EditError::not_understood(&self.active, why));
        }
        let folder = Folder::lock(self.folder())?;
        let real = name(&self.real);
        if self.real.symlink_metadata().is_ok() && !same(&self.active, &self.real) {
            folder.rename(&real, &format!("{real}.orig"))?;
        }
        if let Some(target) = link {
            folder.link_over(&real, &target)?;
            return folder.link_over(&name(&self.active), &self.real);
        }
        // The very same file, so that putting it back leaves no difference. What is real already
        // has the same text, or none.
        let is_linked = self.active.is_file()
            && (!self.real.exists() || folder.remove(&real).is_ok())
            && fs::hard_link(&self.active, &self.real).is_ok();
        if is_linked {
            return folder.link_over(&name(&self.active), &self.real);
        }
        drop(folder);
        let text = match fs::read(&self.active) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(EditError::io("read", &self.active)(error));
            }
            text => text.unwrap_or_default(),
        };
        Edit::open(&self.real)?.write(&text, Readers::Everyone)?;
        Folder::lock(self.folder())?.link_over(&name(&self.active), &self.real)
    }

    fn is_version(&self, path: &Path) -> bool {
        path == self.real || path == self.pptp
    }

    /// Makes the tunnel's version the active one, or the real one.
    ///
    /// # Errors
    /// The operating system's.
    pub fn swap(&self, tunnel: bool) -> Result<Swap, EditError> {
        let (new, old) = match tunnel {
            true => (&self.pptp, &self.real),
            false => (&self.real, &self.pptp),
        };
        if !self.is_configured() {
            return Ok(Swap::NotConfigured);
        }
        if same(&self.active, new) {
            return Ok(Swap::Already);
        }
        if !same(&self.active, old) {
            return Ok(Swap::Foreign);
        }
        Folder::lock(self.folder())?.link_over(&name(&self.active), new)?;
        Ok(Swap::Done)
    }

    /// Puts everything back as it was before `keep_real` and `write_pptp`. Says whether there was
    /// anything to put back.
    ///
    /// # Errors
    /// [`EditError::NotUnderstood`] when the active version is neither of the two.
    pub fn restore(&self) -> Result<bool, EditError> {
        let linked = fs::read_link(&self.active).ok();
        let ours = linked.is_some_and(|target| self.is_version(&target));
        if ours && self.real.symlink_metadata().is_ok() {
            Folder::lock(self.folder())?.rename(&name(&self.real), &name(&self.active))?;
        } else if self.real.is_file() && !same(&self.active, &self.real) {
            let why = format!(
                "it is not what was written for a tunnel. If {} is the right one, copy it there",
                self.real.display()
            );
            return Err(EditError::not_understood(&self.active, why));
        }
        let had_pptp = self.remove_pptp()?;
        Ok(ours || had_pptp)
    }

    /// Removes the version for tunnels, if it is there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove_pptp(&self) -> Result<bool, EditError> {
        self.remove(&self.pptp)
    }

    /// Removes the version without tunnels, if it is there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove_real(&self) -> Result<bool, EditError> {
        self.remove(&self.real)
    }

    /// Renames the version for tunnels to `.pptp.orig`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_pptp_aside(&self) -> Result<(), EditError> {
        let pptp = name(&self.pptp);
        Folder::lock(self.folder())?.rename(&pptp, &format!("{pptp}.orig"))
    }

    fn remove(&self, path: &Path) -> Result<bool, EditError> {
        if path.symlink_metadata().is_err() {
            return Ok(false);
        }
        Folder::lock(self.folder())?
            .remove(&name(path))
            .map(|()| true)
    }

    /// Makes the active version a file again, with the text that its link leads to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn break_link(&self) -> Result<Option<PathBuf>, EditError> {
        let Ok(target) = fs::read_link(&self.active) else {
            return Ok(None);
        };
        if !self.is_version(&target) {
            // Another program's: it would no longer be updated.
            return Ok(None);
        }
        let text = fs::read(&self.active).map_err(EditError::io("read", &self.active))?;
        let folder = Folder::lock(self.folder())?;
        folder.remove(&name(&self.active))?;
        drop(folder);
        Edit::open(&self.active)?.write(&text, Readers::Everyone)?;
        Ok(Some(target))
    }

    fn folder(&self) -> &Path {
        self.active.parent().unwrap_or_else(|| Path::new("/"))
    }
}

/// Both can be read, and read the same.
#[must_use]
pub fn same(one: &Path, other: &Path) -> bool {
    let read = |path: &Path| fs::read(path).ok();
    read(one).is_some_and(|text| Some(text) == read(other))
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn text(search: &[String], servers: &[String]) -> Result<String, EditError> {
    let bad = |why: String| Err(EditError::BadValue(why));
    let domain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if let Some(word) = search
        .iter()
        .find(|word| word.is_empty() || !word.chars().all(domain))
    {
        return bad(format!(
            "'{}' is not a domain such as example.org",
            word.escape_debug()
        ));
    }
    if let Some(word) = servers
        .iter()
        .find(|word| word.parse::<std::net::IpAddr>().is_err())
    {
        return bad(format!(
            "'{}' is not a name server's address, such as 10.0.0.1",
            word.escape_debug()
        ));
    }
    if servers.is_empty() {
        return bad("no name server is named: give its address, such as 10.0.0.1".to_owned());
    }
    if servers.len() > NAME_SERVERS_MAX {
        return bad(format!(
            "programs ask only the first {NAME_SERVERS_MAX} name servers"
        ));
    }
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn files() -> (tempfile::TempDir, ResolvConf) {
        let dir = tempfile::tempdir().unwrap();
        let active = dir.path().join("resolv.conf");
        fs::write(&active, "nameserver 192.0.2.1\n").unwrap();
        (dir, ResolvConf::new(&active))
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn set(files: &ResolvConf) {
        files
            .write_pptp(&words(&["corp.example"]), &words(&["10.0.0.1"]))
            .unwrap();
        files.keep_real().unwrap();
    }

    #[test]
    fn a_tunnel_has_its_own_version_and_afterwards_all_is_as_before() {
        let (_dir, files) = files();
        assert_eq!(files.swap(true).unwrap(), Swap::NotConfigured);
        set(&files);
        set(&files);
        assert_eq!(fs::read_link(&files.active).unwrap(), files.real);
        assert_eq!(files.swap(true).unwrap(), Swap::Done);
        assert_eq!(files.swap(true).unwrap(), Swap::Already);
        assert!(files.tunnel_is_active());
        let text = fs::read_to_string(&files.active).unwrap();
        assert_eq!(text, "search corp.example\nnameserver 10.0.0.1\n");
        let mode = files.active.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "every program reads it");
        assert_eq!(files.swap(false).unwrap(), Swap::Done);
        assert_eq!(
            fs::read_to_string(&files.active).unwrap(),
            "nameserver 192.0.2.1\n"
        );
        assert!(files.restore().unwrap());
        assert!(!files.restore().unwrap());
        assert!(files.active.symlink_metadata().unwrap().is_file());
        assert!(!files.pptp.exists() && !files.real.exists());
    }

    #[test]
    fn it_is_put_back_when_a_tunnel_was_never_ended() {
        let (_dir, files) = files();
        set(&files);
        files.swap(true).unwrap();
        assert!(files.restore().unwrap());
        assert_eq!(
            fs::read_to_string(&files.active).unwrap(),
            "nameserver 192.0.2.1\n"
        );
    }

    #[test]
    fn setting_it_while_a_tunnel_is_up_does_not_lose_the_real_one() {
        let (_dir, files) = files();
        set(&files);
        files.swap(true).unwrap();
        files.write_pptp(&[], &words(&["10.0.0.2"])).unwrap();
        files.keep_real().unwrap();
        assert_eq!(
            fs::read_to_string(&files.active).unwrap(),
            "nameserver 10.0.0.2\n"
        );
        assert_eq!(files.swap(false).unwrap(), Swap::Done);
        assert_eq!(
            fs::read_to_string(&files.active).unwrap(),
            "nameserver 192.0.2.1\n"
        );
    }

    #[test]
    fn what_somebody_else_has_written_meanwhile_stays() {
        let (_dir, files) = files();
        set(&files);
        files.swap(true).unwrap();
        fs::remove_file(&files.active).unwrap();
        fs::write(&files.active, "nameserver 198.51.100.1\n").unwrap();
        assert_eq!(files.swap(false).unwrap(), Swap::Foreign);
        let error = files.restore().unwrap_err().to_string();
        assert!(error.contains("copy it there"), "{error}");
        assert_eq!(
            fs::read_to_string(&files.active).unwrap(),
            "nameserver 198.51.100.1\n"
        );
    }

    #[test]
    fn another_programs_link_stays_a_link() {
        let (dir, files) = files();
        fs::rename(&files.active, dir.path().join("stub.conf")).unwrap();
        symlink("stub.conf", &files.active).unwrap();
        set(&files);
        files.swap(true).unwrap();
        files.swap(false).unwrap();
        fs::write(dir.path().join("stub.conf"), "nameserver 192.0.2.9\n").unwrap();
        assert_eq!(
            fs::read_to_string(&files.active).unwrap(),
            "nameserver 192.0.2.9\n"
        );
        assert!(files.restore().unwrap());
        assert_eq!(
            fs::read_link(&files.active).unwrap(),
            Path::new("stub.conf")
        );
    }

    #[test]
    fn a_tunnels_own_file_is_not_taken_for_the_real_one() {
        let (_dir, files) = files();
        fs::rename(&files.active, &files.saved).unwrap();
        fs::write(&files.active, "nameserver 10.0.0.53\n").unwrap();
        let error = files.keep_real().unwrap_err().to_string();
        assert!(error.contains("pptp-fast down"), "{error}");
        assert!(!files.real.exists());
    }

    #[test]
    fn words_that_cannot_stand_in_it_are_refused() {
        let (_dir, files) = files();
        let write = |search: &[&str], servers: &[&str]| {
            files
                .write_pptp(&words(search), &words(servers))
                .unwrap_err()
                .to_string()
        };
        assert!(write(&["a b"], &["10.0.0.1"]).contains("not a domain"));
        assert!(write(&[], &["10.0.0.x"]).contains("not a name server"));
        assert!(write(&[], &[]).contains("no name server"));
        assert!(write(&[], &["::1", "::2", "::3", "::4"]).contains("first 3"));
        assert!(!files.pptp.exists());
    }
}
