//! /etc/resolv.conf where nobody looks after it. Several tunnels may have it at once: the file
//! names the servers of all, the latest tunnel's first; or it is a link to the version for tunnels
//! that a person has set up, when that is what the latest wants.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::config::edit::resolv_conf::{ResolvConf as Versions, same};

/// By this line a file of ours is known, and what a script of ip-up.d makes of one.
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

/// What came of the wish for the version that a person has set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    /// It is the active one.
    Done,
    /// Nobody has set one up.
    NotConfigured,
    /// What is active is not what it was set up beside: that stays.
    Foreign,
}

/// A tunnel that has to do with the file.
#[derive(Debug, Serialize, Deserialize)]
struct User {
    tunnel: String,
    servers: Vec<Ipv4Addr>,
    /// It wants the version for tunnels that a person has set up, and names no servers.
    #[serde(default)]
    wants_version: bool,
}

/// The files.
#[derive(Clone, Debug)]
pub(super) struct ResolvConf {
    /// The file itself; where it waits while a tunnel's is in its place, which must outlive a
    /// reboot; and what a person has set up.
    pub versions: Versions,
    /// Who has to do with the file, oldest first.
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
            wants_version: false,
        });
        self.write_users(&users)?;
        self.write(&users)
    }

    /// Makes the version for tunnels the active one, if a person has set one up and the active one
    /// is that for the rest of the time.
    pub(super) fn add_version(
        &self,
        tunnel: &str,
        runs: &dyn Fn(&str) -> bool,
    ) -> io::Result<Installed> {
        if !self.versions.is_configured() {
            return Ok(Installed::NotConfigured);
        }
        let _lock = self.lock()?;
        let mut users = self.living_users(tunnel, runs);
        let former = if users.is_empty() {
            self.put_back()?;
            &self.versions.active
        } else {
            &self.versions.saved
        };
        if !same(former, &self.versions.real) {
            self.write_users(&users)?;
            return Ok(Installed::Foreign);
        }
        if users.is_empty() {
            self.save()?;
        }
        users.push(User {
            tunnel: tunnel.to_owned(),
            servers: Vec::new(),
            wants_version: true,
        });
        self.write_users(&users)?;
        self.write(&users).map(|()| Installed::Done)
    }

    /// Puts the file of before back when no living tunnel has to do with it; whether there was one.
    pub(super) fn repair(&self, runs: &dyn Fn(&str) -> bool) -> io::Result<bool> {
        if fs::symlink_metadata(&self.versions.saved).is_err() {
            return Ok(false);
        }
        let _lock = self.lock()?;
        let users = self.living_users("", runs);
        if !users.is_empty() {
            return Ok(false);
        }
        self.write_users(&users)?;
        self.put_back().map(|restored| restored == Restored::Done)
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
        let parent = |path: &Path| path.parent().unwrap_or(path).to_owned();
        let directory = fs::File::open(parent(&self.users))
            .or_else(|_| fs::File::open(parent(&self.versions.active)))?;
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
        let text = fs::read_to_string(&self.versions.active);
        let is_marked = |text: String| text.lines().any(|line| line.starts_with(MARK));
        self.is_link_to_version() || text.is_ok_and(is_marked)
    }

    fn is_link_to_version(&self) -> bool {
        fs::read_link(&self.versions.active).is_ok_and(|target| target == self.versions.pptp)
    }

    /// Keeps the file as it is: link, owner, mode and all.
    fn save(&self) -> io::Result<()> {
        let meta = match fs::symlink_metadata(&self.versions.active) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            meta => meta?,
        };
        // A mount point, as in containers, cannot be linked to.
        fs::hard_link(&self.versions.active, &self.versions.saved).or_else(|_| {
            if meta.is_symlink() {
                symlink(fs::read_link(&self.versions.active)?, &self.versions.saved)
            } else {
                fs::copy(&self.versions.active, &self.versions.saved).map(drop)
            }
        })
    }

    /// Puts the file of before back, if ours is there.
    fn put_back(&self) -> io::Result<Restored> {
        let is_saved = fs::symlink_metadata(&self.versions.saved).is_ok();
        if !self.is_ours() {
            if is_saved {
                fs::remove_file(&self.versions.saved)?;
                return Ok(Restored::Foreign);
            }
            return Ok(Restored::Done);
        }
        if !is_saved && self.is_link_to_version() {
            // pptp-command itself has exchanged the versions, and was not asked to end its tunnel.
            return self.link_to(&self.versions.real).map(|()| Restored::Done);
        }
        if !is_saved {
            // There was none before.
            return fs::remove_file(&self.versions.active).map(|()| Restored::Done);
        }
        if fs::rename(&self.versions.saved, &self.versions.active).is_err() {
            let text = fs::read(&self.versions.saved)?;
            fs::write(&self.versions.active, text)?;
            fs::set_permissions(
                &self.versions.active,
                fs::metadata(&self.versions.saved)?.permissions(),
            )?;
            fs::remove_file(&self.versions.saved)?;
        }
        Ok(Restored::Done)
    }

    /// A file that is about to take the place of another.
    fn next(&self) -> PathBuf {
        let next = self.versions.saved.with_extension("pptp-fast-next");
        let _ = fs::remove_file(&next);
        next
    }

    fn link_to(&self, version: &Path) -> io::Result<()> {
        let next = self.next();
        symlink(version, &next)?;
        fs::rename(&next, &self.versions.active).inspect_err(|_| drop(fs::remove_file(&next)))
    }

    fn write(&self, users: &[User]) -> io::Result<()> {
        if users.last().is_some_and(|latest| latest.wants_version) {
            return self.link_to(&self.versions.pptp);
        }
        let text = self.text(users);
        let next = self.next();
        let mut options = OpenOptions::new();
        let mut file = options
            .create_new(true)
            .write(true)
            .mode(0o644)
            .open(&next)?;
        // Everyone resolves names, whatever the umask says.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        if fs::rename(&next, &self.versions.active).is_err() {
            fs::remove_file(&next)?;
            fs::write(&self.versions.active, text)?;
        }
        Ok(())
    }

    /// The tunnels' servers alone: what is asked of others is seen by others. Search lists stay.
    fn text(&self, users: &[User]) -> String {
        let mut text = format!("{MARK} {}\n", self.versions.saved.display());
        let former = fs::read_to_string(&self.versions.saved).unwrap_or_default();
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

    const FORMER: &str = "search example.net\nnameserver 192.0.2.53\n";
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);

    fn files(dir: &Path) -> ResolvConf {
        ResolvConf {
            versions: Versions::new(&dir.join("resolv.conf")),
            users: dir.join("name-servers"),
        }
    }

    /// What `dns set` does.
    fn set_up_versions(files: &ResolvConf) {
        let servers = ["10.0.0.1".to_owned()];
        files.versions.write_pptp(&[], &servers).unwrap();
        files.versions.keep_real().unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Debian's ip-up.d/0000usepeerdns puts servers in front of what stands in the file; its
    /// counterpart in ip-down.d is not run when a process is killed.
    #[test]
    fn a_script_that_merges_does_not_make_the_file_foreign() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(&files.versions.active, FORMER).unwrap();
        files.add("a", &[SERVER], &|_| true).unwrap();
        let ours = fs::read_to_string(&files.versions.active).unwrap();
        let rest = ours.lines().filter(|line| !line.starts_with("nameserver"));
        let merged = format!(
            "nameserver {SERVER}\n{}\n",
            rest.collect::<Vec<_>>().join("\n")
        );
        fs::remove_file(&files.versions.active).unwrap();
        fs::write(&files.versions.active, merged).unwrap();
        assert!(files.repair(&|_| false).unwrap());
        assert_eq!(fs::read_to_string(&files.versions.active).unwrap(), FORMER);
        assert_eq!(names(dir.path()), ["resolv.conf"]);
    }

    #[test]
    fn the_very_same_file_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(&files.versions.active, FORMER).unwrap();
        fs::set_permissions(&files.versions.active, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&files.versions.active).unwrap();
        files.add("a", &[SERVER], &|_| true).unwrap();
        let ours = fs::read_to_string(&files.versions.active).unwrap();
        assert!(
            ours.ends_with("search example.net\nnameserver 10.0.0.53\n"),
            "{ours}"
        );
        assert_eq!(
            fs::metadata(&files.versions.active).unwrap().mode() & 0o777,
            0o644
        );
        assert_eq!(files.remove("a", &|_| true).unwrap(), Restored::Done);
        let after = fs::metadata(&files.versions.active).unwrap();
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
        assert_eq!(fs::read_to_string(&files.versions.active).unwrap(), FORMER);
        assert_eq!(names(dir.path()), ["resolv.conf"]);
    }

    #[test]
    fn a_symbolic_link_comes_back_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(dir.path().join("real"), FORMER).unwrap();
        symlink("real", &files.versions.active).unwrap();
        files.add("a", &[SERVER], &|_| true).unwrap();
        assert!(
            !fs::symlink_metadata(&files.versions.active)
                .unwrap()
                .is_symlink()
        );
        files.remove("a", &|_| true).unwrap();
        assert_eq!(
            fs::read_link(&files.versions.active).unwrap(),
            Path::new("real")
        );
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
            fs::write(&files.versions.active, FORMER).unwrap();
            files.add("a", &[SERVER], &|_| true).unwrap();
            files.add("b", &[other], &|_| true).unwrap();
            let both = fs::read_to_string(&files.versions.active).unwrap();
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
            let one = fs::read_to_string(&files.versions.active).unwrap();
            assert!(
                one.ends_with(&format!("net\nnameserver {server}\n")),
                "{one}"
            );
            files.remove(left, &|_| true).unwrap();
            assert_eq!(fs::read_to_string(&files.versions.active).unwrap(), FORMER);
        }
    }

    #[test]
    fn what_a_killed_process_left_is_not_taken_for_the_file_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(&files.versions.active, FORMER).unwrap();
        files.add("killed", &[SERVER], &|_| true).unwrap();
        files.add("next", &[SERVER], &|_| false).unwrap();
        files.remove("next", &|_| false).unwrap();
        assert_eq!(fs::read_to_string(&files.versions.active).unwrap(), FORMER);
        assert_eq!(names(dir.path()), ["resolv.conf"]);
    }

    #[test]
    fn a_file_that_someone_else_has_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(&files.versions.active, FORMER).unwrap();
        files.add("a", &[SERVER], &|_| true).unwrap();
        fs::write(&files.versions.active, "nameserver 198.51.100.1\n").unwrap();
        assert_eq!(files.remove("a", &|_| true).unwrap(), Restored::Foreign);
        let theirs = fs::read_to_string(&files.versions.active).unwrap();
        assert_eq!(theirs, "nameserver 198.51.100.1\n");
        assert_eq!(names(dir.path()), ["resolv.conf"]);
    }

    /// The names that are there when both versions are.
    const CONFIGURED: [&str; 3] = ["resolv.conf", "resolv.conf.pptp", "resolv.conf.real"];

    #[test]
    fn a_persons_version_and_a_peers_servers_give_way_to_each_other_in_any_order() {
        let (version, peer) = ("version", "peer");
        for started in [[version, peer], [peer, version]] {
            for ended in [[version, peer], [peer, version]] {
                let dir = tempfile::tempdir().unwrap();
                let files = files(dir.path());
                fs::write(&files.versions.active, FORMER).unwrap();
                set_up_versions(&files);
                let before = fs::symlink_metadata(&files.versions.active).unwrap().ino();
                let shows = |tunnel: &str| {
                    let text = fs::read_to_string(&files.versions.active).unwrap();
                    let server = if tunnel == version {
                        "10.0.0.1"
                    } else {
                        "10.0.0.53"
                    };
                    assert!(text.ends_with(&format!("nameserver {server}\n")), "{text}");
                };
                for tunnel in started {
                    if tunnel == version {
                        let installed = files.add_version(tunnel, &|_| true).unwrap();
                        assert_eq!(installed, Installed::Done);
                    } else {
                        files.add(tunnel, &[SERVER], &|_| true).unwrap();
                    }
                    shows(tunnel);
                }
                assert_eq!(files.remove(ended[0], &|_| true).unwrap(), Restored::Done);
                shows(ended[1]);
                assert_eq!(files.remove(ended[1], &|_| true).unwrap(), Restored::Done);
                let after = fs::symlink_metadata(&files.versions.active).unwrap().ino();
                assert_eq!(after, before, "the very same link");
                assert_eq!(fs::read_to_string(&files.versions.active).unwrap(), FORMER);
                assert_eq!(names(dir.path()), CONFIGURED);
            }
        }
    }

    #[test]
    fn both_are_repaired_after_their_processes_were_killed() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(&files.versions.active, FORMER).unwrap();
        set_up_versions(&files);
        let before = fs::symlink_metadata(&files.versions.active).unwrap().ino();
        files.add("peer", &[SERVER], &|_| true).unwrap();
        files.add_version("version", &|_| true).unwrap();
        assert!(!files.repair(&|_| true).unwrap(), "they run");
        assert!(files.repair(&|_| false).unwrap());
        assert!(!files.repair(&|_| false).unwrap(), "once is enough");
        let after = fs::symlink_metadata(&files.versions.active).unwrap().ino();
        assert_eq!(after, before);
        assert_eq!(names(dir.path()), CONFIGURED);
        // After a reboot nothing is known of the tunnels.
        files.add("peer", &[SERVER], &|_| true).unwrap();
        fs::remove_file(&files.users).unwrap();
        assert!(files.repair(&|_| false).unwrap());
        assert_eq!(names(dir.path()), CONFIGURED);
    }

    #[test]
    fn a_version_is_not_installed_in_the_place_of_what_someone_else_has_written() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let add = || files.add_version("a", &|_| true).unwrap();
        assert_eq!(add(), Installed::NotConfigured);
        fs::write(&files.versions.active, FORMER).unwrap();
        set_up_versions(&files);
        fs::remove_file(&files.versions.active).unwrap();
        fs::write(&files.versions.active, "nameserver 198.51.100.1\n").unwrap();
        assert_eq!(add(), Installed::Foreign);
        let theirs = fs::read_to_string(&files.versions.active).unwrap();
        assert_eq!(theirs, "nameserver 198.51.100.1\n");
        assert_eq!(names(dir.path()), CONFIGURED);
    }

    #[test]
    fn a_version_that_pptp_command_itself_has_left_active_is_exchanged() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(&files.versions.active, FORMER).unwrap();
        set_up_versions(&files);
        files.versions.swap(true).unwrap();
        assert_eq!(files.add_version("a", &|_| true).unwrap(), Installed::Done);
        assert_eq!(files.remove("a", &|_| true).unwrap(), Restored::Done);
        assert_eq!(fs::read_to_string(&files.versions.active).unwrap(), FORMER);
    }
}
