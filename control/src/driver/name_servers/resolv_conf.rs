//! /etc/resolv.conf where nobody looks after it. Several tunnels may have it at once: the file
//! names the servers of all, the latest tunnel's first.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// The file.
pub(super) const FILE: &str = "/etc/resolv.conf";
/// Where it waits while a tunnel's is in its place: it must outlive a reboot.
pub(super) const SAVED: &str = "/etc/resolv.conf.pptp-fast";
/// By this line a file of ours is known.
const MARK: &str = "# Written by pptp-fast for a tunnel; the file of before is";
/// More are not asked (resolv.conf(5), MAXNS).
const SERVERS_MAX: usize = 3;

/// What became of the file of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restored {
    /// It is back, or another tunnel still needs ours.
    Done,
    /// Someone has put another file in the place of ours: theirs stays.
    Foreign,
}

/// A tunnel whose servers stand in the file.
#[derive(Debug, Serialize, Deserialize)]
struct User {
    tunnel: String,
    servers: Vec<Ipv4Addr>,
}

/// The three files.
#[derive(Clone, Debug)]
pub(super) struct ResolvConf {
    pub file: PathBuf,
    pub saved: PathBuf,
    /// Who has servers in the file, oldest first.
    pub users: PathBuf,
}

impl ResolvConf {
    /// Puts a tunnel's servers in front; `runs` tells of other tunnels whether they still do.
    pub(super) fn add(
        &self,
        tunnel: &str,
        servers: &[Ipv4Addr],
        runs: &dyn Fn(&str) -> bool,
    ) -> io::Result<()> {
        let _lock = self.lock()?;
        let mut users = self.living_users(tunnel, runs);
        if users.is_empty() {
            // What a killed process has left is not the file of before.
            self.put_back()?;
            self.save()?;
        }
        users.push(User {
            tunnel: tunnel.to_owned(),
            servers: servers.to_vec(),
        });
        self.write_users(&users)?;
        self.write(&users)
    }

    /// Takes a tunnel's servers out.
    pub(super) fn remove(&self, tunnel: &str, runs: &dyn Fn(&str) -> bool) -> io::Result<Restored> {
        let _lock = self.lock()?;
        let users = self.living_users(tunnel, runs);
        self.write_users(&users)?;
        if users.is_empty() {
            self.put_back()
        } else if self.is_ours() {
            self.write(&users).map(|()| Restored::Done)
        } else {
            Ok(Restored::Foreign)
        }
    }

    /// One process at a time; the directory is there as long as anything runs.
    fn lock(&self) -> io::Result<Flock<fs::File>> {
        let directory = self.users.parent().unwrap_or(&self.users);
        let directory = fs::File::open(directory)?;
        Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    fn living_users(&self, but: &str, runs: &dyn Fn(&str) -> bool) -> Vec<User> {
        let users = fs::read(&self.users).ok();
        let users: Vec<User> = users
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        users
            .into_iter()
            .filter(|user| user.tunnel != but && runs(&user.tunnel))
            .collect()
    }

    fn write_users(&self, users: &[User]) -> io::Result<()> {
        if users.is_empty() {
            return match fs::remove_file(&self.users) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        fs::write(&self.users, serde_json::to_vec(users)?)
    }

    fn is_ours(&self) -> bool {
        fs::read(&self.file).is_ok_and(|text| text.starts_with(MARK.as_bytes()))
    }

    /// Keeps the file as it is: link, owner, mode and all.
    fn save(&self) -> io::Result<()> {
        let meta = match fs::symlink_metadata(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            meta => meta?,
        };
        // A mount point, as in containers, cannot be linked to.
        fs::hard_link(&self.file, &self.saved).or_else(|_| {
            if meta.is_symlink() {
                symlink(fs::read_link(&self.file)?, &self.saved)
            } else {
                fs::copy(&self.file, &self.saved).map(drop)
            }
        })
    }

    /// Puts the file of before back, if ours is there.
    fn put_back(&self) -> io::Result<Restored> {
        let is_saved = fs::symlink_metadata(&self.saved).is_ok();
        if !self.is_ours() {
            if is_saved {
                fs::remove_file(&self.saved)?;
                return Ok(Restored::Foreign);
            }
            return Ok(Restored::Done);
        }
        if !is_saved {
            // There was none before.
            return fs::remove_file(&self.file).map(|()| Restored::Done);
        }
        if fs::rename(&self.saved, &self.file).is_err() {
            let text = fs::read(&self.saved)?;
            fs::write(&self.file, text)?;
            fs::set_permissions(&self.file, fs::metadata(&self.saved)?.permissions())?;
            fs::remove_file(&self.saved)?;
        }
        Ok(Restored::Done)
    }

    fn write(&self, users: &[User]) -> io::Result<()> {
        let text = self.text(users);
        let next = self.saved.with_extension("pptp-fast-next");
        let _ = fs::remove_file(&next);
        let mut options = OpenOptions::new();
        let mut file = options
            .create_new(true)
            .write(true)
            .mode(0o644)
            .open(&next)?;
        // Everyone resolves names, whatever the umask says.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        if fs::rename(&next, &self.file).is_err() {
            fs::remove_file(&next)?;
            fs::write(&self.file, text)?;
        }
        Ok(())
    }

    /// The tunnels' servers alone: what is asked of others is seen by others. Search lists stay.
    fn text(&self, users: &[User]) -> String {
        let mut text = format!("{MARK} {}\n", self.saved.display());
        let former = fs::read_to_string(&self.saved).unwrap_or_default();
        for line in former.lines() {
            let word = line.split_ascii_whitespace().next();
            if matches!(word, Some("search" | "domain" | "options")) {
                text.push_str(line);
                text.push('\n');
            }
        }
        let mut servers: Vec<Ipv4Addr> = Vec::new();
        for server in users.iter().rev().flat_map(|user| &user.servers) {
            if servers.len() < SERVERS_MAX && !servers.contains(server) {
                servers.push(*server);
            }
        }
        text + &super::lines_of(&servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    const FORMER: &str = "search example.net\nnameserver 192.0.2.53\n";
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);

    fn files(dir: &Path) -> ResolvConf {
        ResolvConf {
            file: dir.join("resolv.conf"),
            saved: dir.join("resolv.conf.pptp-fast"),
            users: dir.join("name-servers"),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_very_same_file_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(&files.file, FORMER).unwrap();
        fs::set_permissions(&files.file, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&files.file).unwrap();
        files.add("a", &[SERVER], &|_| true).unwrap();
        let ours = fs::read_to_string(&files.file).unwrap();
        assert!(
            ours.ends_with("search example.net\nnameserver 10.0.0.53\n"),
            "{ours}"
        );
        assert_eq!(fs::metadata(&files.file).unwrap().mode() & 0o777, 0o644);
        assert_eq!(files.remove("a", &|_| true).unwrap(), Restored::Done);
        let after = fs::metadata(&files.file).unwrap();
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
        assert_eq!(fs::read_to_string(&files.file).unwrap(), FORMER);
        assert_eq!(names(dir.path()), ["resolv.conf"]);
    }

    #[test]
    fn a_symbolic_link_comes_back_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(dir.path().join("real"), FORMER).unwrap();
        symlink("real", &files.file).unwrap();
        files.add("a", &[SERVER], &|_| true).unwrap();
        assert!(!fs::symlink_metadata(&files.file).unwrap().is_symlink());
        files.remove("a", &|_| true).unwrap();
        assert_eq!(fs::read_link(&files.file).unwrap(), Path::new("real"));
        assert_eq!(fs::read_to_string(dir.path().join("real")).unwrap(), FORMER);
    }

    #[test]
    fn where_there_was_none_there_is_none_again() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        files.add("a", &[SERVER], &|_| true).unwrap();
        assert!(files.is_ours());
        files.remove("a", &|_| true).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn of_two_tunnels_either_may_go_first() {
        let other = Ipv4Addr::new(10, 9, 9, 9);
        for first in ["a", "b"] {
            let dir = tempfile::tempdir().unwrap();
            let files = files(dir.path());
            fs::write(&files.file, FORMER).unwrap();
            files.add("a", &[SERVER], &|_| true).unwrap();
            files.add("b", &[other], &|_| true).unwrap();
            let both = fs::read_to_string(&files.file).unwrap();
            assert!(
                both.ends_with("nameserver 10.9.9.9\nnameserver 10.0.0.53\n"),
                "{both}"
            );
            files.remove(first, &|_| true).unwrap();
            let (left, server) = if first == "a" {
                ("b", other)
            } else {
                ("a", SERVER)
            };
            let one = fs::read_to_string(&files.file).unwrap();
            assert!(
                one.ends_with(&format!("net\nnameserver {server}\n")),
                "{one}"
            );
            files.remove(left, &|_| true).unwrap();
            assert_eq!(fs::read_to_string(&files.file).unwrap(), FORMER);
        }
    }

    #[test]
    fn what_a_killed_process_left_is_not_taken_for_the_file_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(&files.file, FORMER).unwrap();
        files.add("killed", &[SERVER], &|_| true).unwrap();
        files.add("next", &[SERVER], &|_| false).unwrap();
        files.remove("next", &|_| false).unwrap();
        assert_eq!(fs::read_to_string(&files.file).unwrap(), FORMER);
        assert_eq!(names(dir.path()), ["resolv.conf"]);
    }

    #[test]
    fn a_file_that_someone_else_has_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(&files.file, FORMER).unwrap();
        files.add("a", &[SERVER], &|_| true).unwrap();
        fs::write(&files.file, "nameserver 198.51.100.1\n").unwrap();
        assert_eq!(files.remove("a", &|_| true).unwrap(), Restored::Foreign);
        let theirs = fs::read_to_string(&files.file).unwrap();
        assert_eq!(theirs, "nameserver 198.51.100.1\n");
        assert_eq!(names(dir.path()), ["resolv.conf"]);
    }
}
