//! Debian's freeradius, run by a test in a namespace of its lab, with a configuration of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Running, Side, ready, skip};

/// Shared between freeradius and our server.
pub const SECRET: &str = "between-us";

/// Users that are known, in freeradius' own words.
const USERS: &str = r#"
mia Cleartext-Password := "mia123"
    Service-Type = Framed-User,
    Framed-Protocol = PPP,
    Framed-IP-Address = 192.168.254.240,
    Framed-Route = "172.16.5.0/24 0.0.0.0 1",
    Class = 0x676f6c64,
    Session-Timeout = 3600,
    Filter-Id = "gold",
    MS-Primary-DNS-Server = 192.0.2.53

tom Cleartext-Password := "tom123"
    Framed-IP-Address = 255.255.255.254,
    Reply-Message = "Welcome, Tom"

ron Cleartext-Password := "ron123"
    Framed-IP-Address = 10.50.0.4,
    Mikrotik-Rate-Limit = "512k/1M",
    Mikrotik-Total-Limit-Gigawords = 3

amy Cleartext-Password := "amy123"
    MS-MPPE-Encryption-Policy = Encryption-Allowed,
    MS-MPPE-Encryption-Types = 2

sid Cleartext-Password := "sid123"
    Framed-IP-Address = 10.50.0.5,
    Cisco-AVPair = "lcp:interface-config#1=rate-limit output access-group 101 8192000 4096 4096 conform-action transmit exceed-action drop",
    Cisco-AVPair += "lcp:interface-config#1=rate-limit input 2000000 8000 8000 conform-action transmit exceed-action drop"

eve Cleartext-Password := "eve123", Auth-Type := Reject
    Reply-Message = "Pay your bill first"
"#;

/// Whether freeradius can run here; see [`ready`].
///
/// # Panics
/// On CI, when it cannot.
#[must_use]
pub fn freeradius_ready() -> bool {
    if !ready() {
        return false;
    }
    let has = |program: &str, word: &str| Command::new(program).arg(word).output().is_ok();
    if has("freeradius", "-v") && has("radclient", "-v") {
        return true;
    }
    skip("freeradius or radclient is missing")
}

/// A freeradius on an address of 127.0.0.0/8 in the server's namespace.
#[derive(Debug)]
pub struct FreeRadius {
    /// The process.
    pub running: Running,
    detail: PathBuf,
}

impl FreeRadius {
    /// Starts it, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(lab: &Lab, address: &str) -> Self {
        let dir = lab.dir.path().join(format!("raddb-{address}"));
        let file = |name: &str| format!("raddb-{address}/{name}");
        let place = dir.display().to_string();
        lab.write(&file("dictionary"), "");
        lab.write(&file("users"), USERS);
        lab.write(&file("radiusd.conf"), &configuration(&place, address));
        let mut command = lab.command(Side::Server, "freeradius");
        let mut running = Running::start(command.args(["-X", "-d", &place]));
        running.wait_for("Ready to process requests", 10);
        Self {
            running,
            detail: dir.join("detail"),
        }
    }

    /// The accounting records so far, each as its lines `Name = value`.
    #[must_use]
    pub fn records(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.detail).unwrap_or_default();
        let records = text.split("\n\n").map(str::to_owned);
        records.filter(|record| !record.trim().is_empty()).collect()
    }

    /// The first record in which all of `words` occur.
    ///
    /// # Panics
    /// With all records, when none comes within `seconds`.
    #[must_use]
    pub fn record(&self, words: &[&str], seconds: u64) -> String {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let records = self.records();
            let has_all = |record: &&String| words.iter().all(|word| record.contains(word));
            if let Some(record) = records.iter().find(has_all) {
                return record.clone();
            }
            let all = records.join("\n\n");
            assert!(Instant::now() < deadline, "no record of {words:?}:\n{all}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The value of an attribute in a record of the detail file.
#[must_use]
pub fn value<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.lines().find_map(|line| {
        let (key, value) = line.trim().split_once(" = ")?;
        (key == name).then_some(value.trim_matches('"'))
    })
}

/// Sends a request by radclient to our server, from its own side: what radclient prints.
///
/// # Panics
/// When it does not run.
#[must_use]
pub fn radclient(lab: &Lab, kind: &str, attributes: &str) -> String {
    let request = lab.write("request", &format!("{attributes}\n"));
    let output = lab
        .command(Side::Server, "radclient")
        .args(["-x", "-r", "1", "-t", "3", "-f"])
        .arg(request)
        .args(["127.0.0.1:3799", kind, SECRET])
        .output()
        .expect("radclient starts");
    crate::tunnel::text(&output)
}

fn configuration(dir: &str, address: &str) -> String {
    CONFIGURATION
        .replace("@DIR@", dir)
        .replace("@ADDRESS@", address)
        .replace("@SECRET@", SECRET)
}

/// Releases before 3.2.5 put Message-Authenticator into replies only when told to.
const CONFIGURATION: &str = "
prefix = /usr
libdir = /usr/lib/freeradius
logdir = @DIR@
raddbdir = @DIR@
radacctdir = @DIR@
run_dir = @DIR@
max_requests = 4096
client lab {
    ipaddr = 127.0.0.0/8
    secret = @SECRET@
    require_message_authenticator = yes
}
modules {
    files {
        usersfile = @DIR@/users
    }
    pap {
    }
    chap {
    }
    mschap {
        use_mppe = yes
        require_encryption = yes
        require_strong = yes
    }
    eap {
        default_eap_type = mschapv2
        timer_expire = 60
        max_sessions = 1024
        md5 {
        }
        mschapv2 {
        }
    }
    detail {
        filename = @DIR@/detail
        permissions = 0600
    }
}
server lab {
    listen {
        type = auth
        ipaddr = @ADDRESS@
        port = 1812
    }
    listen {
        type = acct
        ipaddr = @ADDRESS@
        port = 1813
    }
    authorize {
        chap
        mschap
        eap {
            ok = return
        }
        files
        pap
    }
    authenticate {
        Auth-Type PAP {
            pap
        }
        Auth-Type CHAP {
            chap
        }
        Auth-Type MS-CHAP {
            mschap
        }
        eap
    }
    accounting {
        detail
    }
    post-auth {
        update reply {
            Message-Authenticator := 0x00
        }
        Post-Auth-Type REJECT {
            update reply {
                Message-Authenticator := 0x00
            }
        }
    }
}
";
