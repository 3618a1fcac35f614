//! `pon [provider [arguments]]`: pppd's way to bring up a tunnel.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};

use crate::cli::{again, fail, ppp_directory, print_line};
use crate::config::edit::peer;
use crate::config::peers;

const USAGE: &str = "
Usage: pon [provider] [arguments]

Brings up the tunnel of /etc/ppp/peers/provider; further arguments are options in
pppd's words. Without a provider, /etc/ppp/ppp_on_boot is run if it is executable,
else the tunnel called `provider` comes up, else the default tunnel.
";

pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = super::texts(arguments);
    let directory = ppp_directory();
    let (name, options) = match arguments.split_first() {
        Some((first, _)) if first.starts_with('-') => {
            print_line(USAGE);
            return ExitCode::SUCCESS;
        }
        Some((name, options)) if !name.is_empty() => (name.clone(), options),
        _ => {
            let on_boot = directory.join("ppp_on_boot");
            let mode = on_boot
                .metadata()
                .map_or(0, |meta| meta.permissions().mode());
            if mode & 0o111 != 0 {
                let error = std::os::unix::process::CommandExt::exec(&mut Command::new(&on_boot));
                return fail(format_args!("cannot run {}: {error}", on_boot.display()), 1);
            }
            let provider = peers::path(&directory, "provider").is_file();
            match provider
                .then(|| "provider".to_owned())
                .or_else(|| peer::default(&directory))
            {
                Some(name) => (name, &[][..]),
                None => {
                    print_line(format_args!(
                        "\nPlease configure {0}/provider or use a command line argument to\n\
                         use another file in {0}/ directory.\n",
                        directory.join("peers").display()
                    ));
                    return ExitCode::FAILURE;
                }
            }
        }
    };
    let file = peers::path(&directory, &name);
    if peers::check_name(&name).is_err() || !file.is_file() {
        print_line(format_args!(
            "\nThe file {} does not exist.\n",
            file.display()
        ));
        return ExitCode::FAILURE;
    }
    let mut words = vec!["up", &name, "--"];
    words.extend(options.iter().map(String::as_str));
    again(&words).unwrap_or_else(|error| fail(error, 1))
}
