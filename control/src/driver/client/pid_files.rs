//! `/var/run/ppp0.pid` and `/var/run/ppp-LINKNAME.pid`, as pppd writes them.

use std::path::PathBuf;

use super::super::run_files;
use super::Client;

impl Client<'_> {
    /// The second line of a link's own file names its interface, as pppd writes it.
    pub(super) fn write_pid_files(&mut self) {
        if !self.config.pid_files {
            return;
        }
        let pid = std::process::id();
        let mut files = vec![(self.interface.clone(), format!("{pid}\n"))];
        if let Some(name) = &self.config.link_name {
            let name = format!("ppp-{name}");
            files.push((name, format!("{pid}\n{}\n", self.interface)));
        }
        for (name, text) in files {
            let Some(path) = path(&name) else { continue };
            let noted = self.record.note(|left| left.files.push(path.clone()));
            if let Err(error) = noted.and_then(|()| std::fs::write(&path, text)) {
                self.log
                    .line(&format!("cannot write {}: {error}", path.display()));
            }
        }
    }

    pub(super) fn remove_pid_files(&mut self) {
        let _ = self.record.note(|left| {
            for file in left.files.drain(..) {
                let _ = std::fs::remove_file(file);
            }
        });
    }
}

/// None for a name that is no file's.
fn path(name: &str) -> Option<PathBuf> {
    (!name.contains('/')).then(|| run_files::pid_dir().join(format!("{name}.pid")))
}
