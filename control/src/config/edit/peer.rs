//! Tunnels as files: `peers/NAME` as pptp-command and as pptpsetup write it, the link
//! `peers/__default`, and the `options.pptp` that they include.

use std::fs;
use std::path::{Path, PathBuf};

use super::EditError;
use super::atomic::{Edit, Folder, Readers};
use crate::config::peers::{self, DEFAULT, Peer, ROUTES_MAX};
use crate::config::route::Route;
use crate::config::words::quoted;

/// The options of every tunnel, for a host that has none: the how-to's, with a word on each.
const OPTIONS_PPTP: &str = "\
# Options of all PPTP tunnels of this host; a tunnel's own file may say otherwise.

# Only one process may have a tunnel up.
lock

# The server need not prove who it is: few can.
noauth

# We prove who we are with MS-CHAPv2 only. The others give the password away, or no keys for MPPE.
refuse-pap
refuse-chap
refuse-mschap

# No tunnel without 128-bit encryption. For a server that has none: nomppe
require-mppe-128

# Nothing of this is of use in a tunnel.
novj
novjccomp
nopcomp
noaccomp
nobsdcomp
nodeflate

# Show the options and the negotiation.
dump
logfd 2
debug
#logfile /var/log/ppp.log
";

/// A tunnel in pptp-command's words.
#[derive(Clone, Debug, Default)]
pub struct NewTunnel {
    /// What it is to be called.
    pub name: String,
    /// Address or name of the server.
    pub server: String,
    /// `name`: ours, as it stands in the secrets file.
    pub local_name: String,
    /// `remotename`: the server's, as it stands in the secrets file.
    pub remote_name: String,
    /// Arguments of route(8).
    pub routes: Vec<String>,
}

impl NewTunnel {
    /// The text of the file: the same as pptp-command's.
    fn text(&self, dir: &Path) -> Result<Vec<u8>, EditError> {
        let Self { name, server, .. } = self;
        let mut text =
            format!("#\n# PPTP Tunnel configuration for tunnel {name}\n# Server IP: {server}\n")
                .into_bytes();
        for route in &self.routes {
            text.extend_from_slice(format!("# Route: {route}\n").as_bytes());
        }
        text.extend_from_slice(b"#\n\n#\n# Tags for CHAP secret selection\n#\n");
        push_option(&mut text, "name", &self.local_name)?;
        push_option(&mut text, "remotename", &self.remote_name)?;
        text.extend_from_slice(b"\n#\n# Sixth argument of ip-up and ip-down\n#\n");
        push_option(&mut text, "ipparam", name)?;
        text.extend_from_slice(b"\n#\n# Include the main PPTP configuration file\n#\n");
        push_option(&mut text, "file", &options_file(dir).to_string_lossy())?;
        text.push(b'\n');
        Ok(text)
    }

    fn check(&self) -> Result<(), EditError> {
        peers::check_name(&self.name)?;
        check_new_name(&self.name)?;
        check_server(&self.server)?;
        check_names(&[&self.local_name, &self.remote_name])?;
        if self.routes.len() > ROUTES_MAX {
            let why = format!("a tunnel has at most {ROUTES_MAX} routes");
            return Err(EditError::BadValue(why));
        }
        for route in &self.routes {
            check_route(route)?;
        }
        Ok(())
    }
}

/// A tunnel in pptpsetup's words.
#[derive(Clone, Debug, Default)]
pub struct SetupTunnel {
    /// What it is to be called, and the server's name in chap-secrets.
    pub name: String,
    /// Address or name of the server.
    pub server: String,
    /// `DOMAIN\user`, or `user`.
    pub user: String,
    /// `require-mppe-128`.
    pub encrypt: bool,
}

/// The first line of a file that pptpsetup has written.
const SETUP_MARK: &str = "# written by pptpsetup\n";

impl SetupTunnel {
    fn text(&self) -> Result<Vec<u8>, EditError> {
        let pty = format!("pty \"/usr/sbin/pptp {} --nolaunchpppd\"\n", self.server);
        let mut text =
            format!("{SETUP_MARK}{pty}lock\nnoauth\nnobsdcomp\nnodeflate\n").into_bytes();
        push_option(&mut text, "name", &self.user)?;
        push_option(&mut text, "remotename", &self.name)?;
        push_option(&mut text, "ipparam", &self.name)?;
        if self.encrypt {
            text.extend_from_slice(b"require-mppe-128\n");
        }
        Ok(text)
    }
}

/// Writes `dir`/peers/`name`, and `dir`/options.pptp if it is not there. Says whether it wrote the
/// latter.
///
/// # Errors
/// A tunnel, or another file, of that name is there; or a value that cannot be written.
pub fn add(dir: &Path, tunnel: &NewTunnel) -> Result<bool, EditError> {
    tunnel.check()?;
    let text = tunnel.text(dir)?;
    let edit = Edit::open(&peers::path(dir, &tunnel.name))?;
    if edit.octets().is_some() {
        return Err(exists(&edit, &tunnel.name));
    }
    edit.write(&text, Readers::Owner)?;
    let options = Edit::open(&options_file(dir))?;
    let missing = options.octets().is_none();
    if missing {
        options.write(OPTIONS_PPTP.as_bytes(), Readers::Owner)?;
    }
    Ok(missing)
}

/// A tunnel of another program's, in pppd's words.
#[derive(Clone, Debug, Default)]
pub struct ImportedTunnel {
    /// What it is to be called, and the server's name in chap-secrets.
    pub name: String,
    /// Whose it was, for a comment.
    pub origin: String,
    /// Address or name of the server.
    pub server: String,
    /// `DOMAIN\user`, or `user`.
    pub user: String,
    /// pppd's options, each with its argument.
    pub options: Vec<(String, Option<String>)>,
    /// Arguments of route(8).
    pub routes: Vec<String>,
}

/// Writes `dir`/peers/`name` with these options and no others.
///
/// # Errors
/// As [`add`].
pub fn import(dir: &Path, tunnel: &ImportedTunnel) -> Result<(), EditError> {
    let ImportedTunnel { name, server, .. } = tunnel;
    let checked = NewTunnel {
        name: name.clone(),
        server: server.clone(),
        local_name: tunnel.user.clone(),
        remote_name: name.clone(),
        routes: tunnel.routes.clone(),
    };
    checked.check()?;
    let origin: String = tunnel
        .origin
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    let mut text =
        format!("#\n# PPTP Tunnel configuration for tunnel {name}\n# Server IP: {server}\n")
            .into_bytes();
    for route in &tunnel.routes {
        text.extend_from_slice(format!("# Route: {route}\n").as_bytes());
    }
    text.extend_from_slice(format!("# It was {origin}\n#\n\n").as_bytes());
    push_option(&mut text, "name", &tunnel.user)?;
    push_option(&mut text, "remotename", name)?;
    push_option(&mut text, "ipparam", name)?;
    for (option, argument) in &tunnel.options {
        match argument {
            Some(argument) => push_option(&mut text, option, argument)?,
            None => text.extend_from_slice(format!("{option}\n").as_bytes()),
        }
    }
    let edit = Edit::open(&peers::path(dir, name))?;
    if edit.octets().is_some() {
        return Err(exists(&edit, name));
    }
    edit.write(&text, Readers::Owner)
}

/// Writes `dir`/peers/`name` as pptpsetup does, over a file that it has written before.
///
/// # Errors
/// As [`add`].
pub fn set_up(dir: &Path, tunnel: &SetupTunnel) -> Result<(), EditError> {
    peers::check_name(&tunnel.name)?;
    check_new_name(&tunnel.name)?;
    check_server(&tunnel.server)?;
    check_names(&[&tunnel.user])?;
    let text = tunnel.text()?;
    let edit = Edit::open(&peers::path(dir, &tunnel.name))?;
    if edit
        .octets()
        .is_some_and(|old| !old.starts_with(SETUP_MARK.as_bytes()))
    {
        return Err(exists(&edit, &tunnel.name));
    }
    edit.write(&text, Readers::Owner)
}

/// Removes `dir`/peers/`name`, and the link to it if it is the default tunnel.
///
/// # Errors
/// No such tunnel; or a file that is no PPTP tunnel, which may be somebody's way to the network.
pub fn delete(dir: &Path, name: &str) -> Result<(), EditError> {
    // For the message that tells what there is.
    Peer::read(dir, name)?;
    if !peers::list(dir)?.iter().any(|peer| peer.name == name) {
        let why = "it is no PPTP tunnel. If it is not needed, remove it with rm";
        return Err(EditError::not_understood(&peers::path(dir, name), why));
    }
    let folder = Folder::lock(&dir.join("peers"))?;
    folder.remove(name)?;
    if default(dir).as_deref() == Some(name) {
        folder.remove(DEFAULT)?;
    }
    Ok(())
}

/// The tunnel that `peers/__default` leads to.
#[must_use]
pub fn default(dir: &Path) -> Option<String> {
    let target = fs::read_link(peers::path(dir, DEFAULT)).ok()?;
    let name = target.file_name()?.to_str()?.to_owned();
    peers::check_name(&name).ok().map(|()| name)
}

/// Makes `name` the default tunnel, or none.
///
/// # Errors
/// No such tunnel; or `__default` is a file and not a symbolic link.
pub fn set_default(dir: &Path, name: Option<&str>) -> Result<(), EditError> {
    let path = peers::path(dir, DEFAULT);
    if path.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
        let why = "it is a regular file, not a symbolic link. Move it away";
        return Err(EditError::not_understood(&path, why));
    }
    let Some(name) = name else {
        return match path.symlink_metadata() {
            Ok(_) => Folder::lock(&dir.join("peers"))?.remove(DEFAULT),
            Err(_) => Ok(()),
        };
    };
    Peer::read(dir, name)?;
    Folder::lock(&dir.join("peers"))?.link(DEFAULT, &peers::path(dir, name))
}

/// `dir`/options.pptp.
#[must_use]
pub fn options_file(dir: &Path) -> PathBuf {
    dir.join("options.pptp")
}

/// A route as a line of route(8), with what the file's reader understands.
///
/// # Errors
/// Words for a person.
pub fn check_route(route: &str) -> Result<(), EditError> {
    Route::parse(route)
        .map(drop)
        .map_err(|why| EditError::BadValue(format!("this is no route: {why}")))
}

fn check_new_name(name: &str) -> Result<(), EditError> {
    // pptp-command's own link; and pppd's files of another kind must not be shadowed.
    if name == DEFAULT || name.starts_with('.') {
        let why = format!("'{name}' cannot be a tunnel's name: take one that starts with a letter");
        return Err(EditError::BadValue(why));
    }
    Ok(())
}

fn check_server(server: &str) -> Result<(), EditError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let whole = !server.is_empty() && server.len() <= 253 && !server.starts_with('-');
    if whole && server.chars().all(fits) {
        return Ok(());
    }
    let shown: String = server
        .chars()
        .filter(|c| !c.is_control())
        .take(80)
        .collect();
    let why = format!("'{shown}' is not a server such as vpn.example.org or 192.0.2.1");
    Err(EditError::BadValue(why))
}

fn check_names(names: &[&str]) -> Result<(), EditError> {
    match names
        .iter()
        .any(|name| name.is_empty() || name.chars().any(char::is_control))
    {
        false => Ok(()),
        true => Err(EditError::BadValue(
            "a name must not be empty, nor have control characters".to_owned(),
        )),
    }
}

fn push_option(text: &mut Vec<u8>, option: &str, word: &str) -> Result<(), EditError> {
    let word = quoted(word.as_bytes())
        .map_err(|why| EditError::BadValue(format!("this {option} cannot be written: {why}")))?;
    text.extend_from_slice(option.as_bytes());
    text.push(b' ');
    text.extend_from_slice(&word);
    text.push(b'\n');
    Ok(())
}

fn exists(edit: &Edit, name: &str) -> EditError {
    EditError::NotUnderstood {
        path: edit.path().to_owned(),
        why: format!("Peer {name} already exists! Delete it first: pptp-fast tunnel delete {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClientConfig, Flags, PppdOptions};
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn how_to() -> NewTunnel {
        NewTunnel {
            name: "test2".to_owned(),
            server: "zidler.ece.uic.edu".to_owned(),
            local_name: "mia".to_owned(),
            remote_name: "zidler".to_owned(),
            routes: vec!["add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV".to_owned()],
        }
    }

    #[test]
    fn a_tunnel_is_written_in_the_form_of_pptp_command_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(add(dir.path(), &how_to()).unwrap());
        let path = peers::path(dir.path(), "test2");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(
            "#\n# PPTP Tunnel configuration for tunnel test2\n# Server IP: zidler.ece.uic.edu\n\
             # Route: add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV\n#\n\n"
        ));
        let options: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .collect();
        let file = format!("file {}", dir.path().join("options.pptp").display());
        assert_eq!(
            options,
            ["name mia", "remotename zidler", "ipparam test2", &file]
        );
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let flags = Flags::default();
        let config = ClientConfig::from_peer(dir.path(), "test2", &flags, "host").unwrap();
        assert_eq!(config.server, "zidler.ece.uic.edu");
        assert_eq!(config.routes.len(), 1);
        assert_eq!(config.link.name, "mia");
        assert!(config.link.mppe.unwrap().require);
        assert!(config.lock && config.log.debug);
    }

    #[test]
    fn what_is_there_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let options = dir.path().join("options.pptp");
        fs::write(&options, "lock\n").unwrap();
        assert!(!add(dir.path(), &how_to()).unwrap());
        assert_eq!(fs::read_to_string(&options).unwrap(), "lock\n");
        let error = add(dir.path(), &how_to()).unwrap_err().to_string();
        assert!(error.contains("Peer test2 already exists!"), "{error}");
    }

    #[test]
    fn odd_values_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let changed = |change: fn(&mut NewTunnel)| {
            let mut tunnel = how_to();
            change(&mut tunnel);
            add(dir.path(), &tunnel).unwrap_err().to_string()
        };
        for (error, words) in [
            (
                changed(|t| t.name = "../options".to_owned()),
                "no tunnel name",
            ),
            (
                changed(|t| t.name = "__default".to_owned()),
                "cannot be a tunnel's name",
            ),
            (
                changed(|t| t.server = "a\nroot".to_owned()),
                "is not a server",
            ),
            (
                changed(|t| t.local_name = String::new()),
                "must not be empty",
            ),
            (
                changed(|t| t.routes = vec!["add x; reboot".to_owned()]),
                "no route",
            ),
        ] {
            assert!(error.contains(words), "{error}");
        }
        assert!(!dir.path().join("peers").exists());
    }

    #[test]
    fn pptpsetup_writes_over_its_own_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut tunnel = SetupTunnel {
            name: "work".to_owned(),
            server: "vpn.example.net".to_owned(),
            user: "OFFICE\\mia".to_owned(),
            encrypt: false,
        };
        set_up(dir.path(), &tunnel).unwrap();
        tunnel.encrypt = true;
        set_up(dir.path(), &tunnel).unwrap();
        let path = peers::path(dir.path(), "work");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "# written by pptpsetup\npty \"/usr/sbin/pptp vpn.example.net --nolaunchpppd\"\nlock\n\
             noauth\nnobsdcomp\nnodeflate\nname OFFICE\\\\mia\nremotename work\nipparam work\n\
             require-mppe-128\n"
        );
        fs::write(&path, "/dev/ttyS0\n").unwrap();
        assert!(set_up(dir.path(), &tunnel).is_err());
        let error = delete(dir.path(), "work").unwrap_err().to_string();
        assert!(error.contains("no PPTP tunnel"), "{error}");
    }

    #[test]
    fn the_default_tunnel_is_a_link_and_goes_with_its_tunnel() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = how_to();
        other.name = "other".to_owned();
        add(dir.path(), &how_to()).unwrap();
        add(dir.path(), &other).unwrap();
        assert_eq!(default(dir.path()), None);
        set_default(dir.path(), Some("test2")).unwrap();
        set_default(dir.path(), Some("other")).unwrap();
        assert_eq!(default(dir.path()).as_deref(), Some("other"));
        assert!(set_default(dir.path(), Some("none")).is_err());
        delete(dir.path(), "test2").unwrap();
        assert_eq!(default(dir.path()).as_deref(), Some("other"));
        delete(dir.path(), "other").unwrap();
        assert_eq!(default(dir.path()), None);
        assert!(peers::path(dir.path(), DEFAULT).symlink_metadata().is_err());
        set_default(dir.path(), None).unwrap();
    }

    proptest! {
        #[test]
        fn any_names_are_read_back(local in "[^\\p{Cc}]{1,30}", remote in "[^\\p{Cc}]{1,30}") {
            let dir = tempfile::tempdir().unwrap();
            let tunnel =
                NewTunnel { local_name: local.clone(), remote_name: remote.clone(), ..how_to() };
            add(dir.path(), &tunnel).unwrap();
            let mut options = PppdOptions::default();
            options.read_peer(dir.path(), "test2").unwrap();
            prop_assert_eq!(options.name, Some(local));
            prop_assert_eq!(options.remote_name, Some(remote));
        }
    }
}
