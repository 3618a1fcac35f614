//! `pptp-fast install-links`: the old names, as links to this program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{compat, fail, print_line};

/// Make links for the old names: pptp-command, pptpsetup, pon, poff, plog.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast install-links /usr/local/sbin\n\n\
    A file of such a name that is not a link to this program stays, unless --force is given."
)]
pub(super) struct InstallLinks {
    /// Folder for the links, such as /usr/local/sbin.
    directory: PathBuf,
    /// Put links in the place of other programs' files, too.
    #[arg(long)]
    force: bool,
}

/// What became of one name.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Made,
    There,
    Replaced,
    /// Another program's.
    Foreign,
}

impl InstallLinks {
    pub(super) fn run(&self) -> ExitCode {
        let program = match std::env::current_exe() {
            Ok(program) => program,
            Err(error) => return fail(format_args!("cannot find this program: {error}"), 1),
        };
        if !self.directory.is_dir() {
            let folder = self.directory.display();
            let next = format_args!("make it first: mkdir -p {folder}");
            return fail(format_args!("there is no folder {folder}: {next}"), 1);
        }
        let mut worst = ExitCode::SUCCESS;
        for name in compat::names() {
            let path = self.directory.join(name);
            let shown = path.display();
            match link(&path, &program, self.force) {
                Ok(Outcome::Made) => {
                    print_line(format_args!("{shown} -> {}", program.display()));
                }
                Ok(Outcome::There) => print_line(format_args!("{shown} is there already")),
                Ok(Outcome::Replaced) => print_line(format_args!(
                    "{shown} -> {} (in the place of another program's)",
                    program.display()
                )),
                Ok(Outcome::Foreign) => {
                    let next = "remove it, choose another folder, or give --force";
                    worst = fail(format_args!("{shown} is another program's: {next}"), 1);
                }
                Err(error) => {
                    worst = fail(format_args!("cannot make {shown}: {error}"), 1);
                }
            }
        }
        worst
    }
}

fn link(path: &Path, program: &Path, force: bool) -> std::io::Result<Outcome> {
    let there = match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return symlink(program, path).map(|()| Outcome::Made);
        }
        Err(error) => return Err(error),
        Ok(there) => there,
    };
    let target = fs::canonicalize(path).ok();
    if there.is_symlink() && target.is_some() && target == fs::canonicalize(program).ok() {
        return Ok(Outcome::There);
    }
    if !force || there.is_dir() {
        return Ok(Outcome::Foreign);
    }
    // Beside it first, so that there is never no program of that name.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}~", std::process::id()));
    symlink(program, &temporary)?;
    fs::rename(&temporary, path).map(|()| Outcome::Replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_file_stays_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pon");
        let program = dir.path().join("pptp-fast");
        fs::write(&program, "").unwrap();
        assert_eq!(link(&path, &program, false).unwrap(), Outcome::Made);
        assert_eq!(link(&path, &program, false).unwrap(), Outcome::There);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "#!/bin/sh\n").unwrap();
        assert_eq!(link(&path, &program, false).unwrap(), Outcome::Foreign);
        assert_eq!(fs::read(&path).unwrap(), b"#!/bin/sh\n");
        assert_eq!(link(&path, &program, true).unwrap(), Outcome::Replaced);
        assert_eq!(fs::read_link(&path).unwrap(), program);
        assert!(link(&dir.path().join("none/pon"), &program, true).is_err());
    }
}
