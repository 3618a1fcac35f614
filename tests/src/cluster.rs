//! Several of our servers behind one address, as packaging/cluster describes it and with its files:
//! a namespace for the balancer, each node, FreeRADIUS with its database, and each client.
//!
//! ```text
//! client 198.51.100.N ... ─┐                        ┌─ node 192.0.2.11 (203.0.113.10 on lo)
//!                          ├ .1 balancer 192.0.2.1 ─┼─ node 192.0.2.12 (203.0.113.10 on lo)
//! client 198.51.100.M ... ─┘                        ├─ node 192.0.2.13 (203.0.113.10 on lo)
//!                                                   └─ radius 192.0.2.5
//! ```

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::freeradius::freeradius_ready;
use crate::lab::{Running, binary, skip};
use crate::tunnel::text;

/// What clients call.
pub const SERVICE: &str = "203.0.113.10";
/// Every node's end of every tunnel.
pub const INNER: &str = "10.64.0.1";
/// The pool: less than one node could give twice without being noticed.
pub const POOL: [&str; 2] = ["10.64.0.2", "10.64.0.40"];
/// Between the nodes and FreeRADIUS.
const SECRET: &str = "between-us";
/// How long the balancer remembers a silent client, in place of two minutes.
pub const PIN_S: u64 = 4;

/// FreeRADIUS' own frame around the recipe's files: Debian's radiusd.conf in short.
const RADIUSD: &str = "
prefix = /usr
libdir = /usr/lib/freeradius
logdir = @DIR@
raddbdir = @DIR@
radacctdir = @DIR@
run_dir = @DIR@
confdir = @DIR@
modconfdir = @DIR@/mods-config
$INCLUDE clients.conf
modules {
    files {
        usersfile = @DIR@/users
    }
    mschap {
        use_mppe = yes
        require_encryption = yes
        require_strong = yes
    }
    always ok {
        rcode = ok
    }
    always reject {
        rcode = reject
    }
    $INCLUDE mods-enabled/
}
$INCLUDE sites-enabled/
";

/// Where a user's tunnel ends, as a node tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: u8,
    /// The client's outer address.
    pub calling: String,
    /// The client's inner address.
    pub ip: String,
}

/// Whether all programs are there.
///
/// # Panics
/// On CI, when one is missing.
#[must_use]
pub fn cluster_ready() -> bool {
    let is_missing = |program: &&str| Command::new(program).arg("--version").output().is_err();
    let missing: Vec<_> = ["nft", "sqlite3", "curl"]
        .into_iter()
        .filter(is_missing)
        .collect();
    if missing.is_empty() {
        return freeradius_ready();
    }
    skip(&format!("{missing:?} are missing"))
}

/// The networks, and a directory for everybody's files.
#[derive(Debug)]
pub struct Cluster {
    prefix: String,
    namespaces: Vec<String>,
    dir: TempDir,
}

impl Cluster {
    /// Makes the balancer with a network on each side, and `nodes` nodes and the place for
    /// FreeRADIUS on the inner one.
    ///
    /// # Panics
    /// When the system refuses.
    #[must_use]
    pub fn new(nodes: u8) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut cluster = Self {
            prefix: format!("pc-{}-{number}", std::process::id()),
            namespaces: Vec::new(),
            dir: TempDir::new().expect("a temporary directory"),
        };
        cluster.add_namespace("balancer");
        for (bridge, address) in [("outside", "198.51.100.1"), ("inside", "192.0.2.1")] {
            cluster.ip("balancer", &format!("link add {bridge} type bridge"));
            cluster.ip(
                "balancer",
                &format!("address add {address}/24 dev {bridge}"),
            );
            cluster.ip("balancer", &format!("link set {bridge} up"));
        }
        cluster.obey_sysctls("balancer", "balancer/sysctl.conf");
        cluster.add_host("radius", "inside", "192.0.2.5", "192.0.2.1");
        for id in 1..=nodes {
            let node = node(id);
            cluster.add_host(&node, "inside", &format!("192.0.2.1{id}"), "192.0.2.1");
            cluster.obey_sysctls(&node, "node/sysctl.conf");
            cluster.ip(&node, &format!("address add {SERVICE}/32 dev lo"));
            cluster.note_sources(&node);
        }
        cluster.write("ppp/radius-secret", &format!("{SECRET}\n"));
        cluster
    }

    /// A file of the recipe.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn recipe(path: &str) -> String {
        let file = recipe_file(path);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// Starts FreeRADIUS with a full pool.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_radius(&self) -> Running {
        let raddb = self.dir.path().join("raddb");
        let database = self.database().display().to_string();
        let place = raddb.display().to_string();
        self.write("raddb/radiusd.conf", &RADIUSD.replace("@DIR@", &place));
        self.write("raddb/dictionary", "");
        self.write(
            "raddb/users",
            "DEFAULT Cleartext-Password := \"secret\"\n\tService-Type = Framed-User\n",
        );
        for (file, to) in [
            ("clients.conf", "clients.conf"),
            ("mods-available/pptp_sql", "mods-enabled/pptp_sql"),
            ("mods-available/pptp_ippool", "mods-enabled/pptp_ippool"),
            (
                "mods-config/pptp_pool/queries.conf",
                "mods-config/pptp_pool/queries.conf",
            ),
            ("sites-available/pptp", "sites-enabled/pptp"),
        ] {
            let file = Self::recipe(&format!("radius/{file}"));
            let file = file.replace("/var/lib/freeradius/pptp.db", &database);
            self.write(&format!("raddb/{to}"), &file);
        }
        let _ = self.sql(&Self::recipe("radius/mods-config/pptp_pool/schema.sql"));
        let filling = Command::new(recipe_file("radius/fill-pool"))
            .arg("pptp")
            .args(POOL)
            .output()
            .expect("fill-pool starts");
        let _ = self.sql(&text(&filling));
        let mut command = self.command("radius", "freeradius");
        let mut radius = Running::start(command.args(["-X", "-d", &place]));
        radius.wait_for("Ready to process requests", 10);
        radius
    }

    /// Asks the database.
    ///
    /// # Panics
    /// When it refuses.
    #[must_use]
    pub fn sql(&self, statement: &str) -> Vec<String> {
        let output = Command::new("sqlite3")
            .args(["-cmd", ".timeout 5000"])
            .arg(self.database())
            // A comment at the start would be an option.
            .arg(format!(" {statement}"))
            .output()
            .expect("sqlite3 starts");
        let printed = text(&output);
        assert!(output.status.success(), "{statement}: {printed}");
        printed.lines().map(str::to_owned).collect()
    }

    /// Starts the server of a node.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    pub fn start_node(&self, id: u8) -> Running {
        let config = Self::recipe("node/server.toml")
            .replace("192.0.2.11", &format!("192.0.2.1{id}"))
            .replace("node-1", &format!("node-{id}"));
        let config = self.write(&format!("server-{id}.toml"), &config);
        let mut command = self.command(&node(id), binary());
        let mut server = Running::start(command.arg("serve").arg("--config").arg(config));
        server.wait_for("Listening for PPTP", 10);
        server
    }

    /// Starts the balancer in a mode; `settings` are replaced in its configuration.
    ///
    /// # Panics
    /// When it does not see all nodes up.
    #[must_use]
    pub fn start_balancer(&self, settings: &[(&str, &str)]) -> Running {
        let rules = Self::recipe("balancer/nftables.conf");
        let rules = rules.replace("timeout 2m", &format!("timeout {PIN_S}s"));
        let rules = self.write("nftables.conf", &rules);
        let mut conf = Self::recipe("balancer/balancer.conf").replace(
            "/etc/pptp-balance/nftables.conf",
            &rules.display().to_string(),
        );
        for (from, to) in settings {
            assert!(conf.contains(from), "{from} is not in balancer.conf");
            conf = conf.replace(from, to);
        }
        let conf = self.write("balancer.conf", &conf);
        let mut command = self.command("balancer", recipe_file("balancer/pptp-balance"));
        let mut balancer = Running::start(command.arg("run").arg(conf));
        for id in 1..=3 {
            balancer.wait_for(&format!("node {id} (192.0.2.1{id}) is up"), 5);
        }
        balancer
    }

    /// Adds a client with this last octet of its address.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn add_client(&mut self, octet: u8) {
        let user = user(octet);
        let address = format!("198.51.100.{octet}");
        self.add_host(&user, "outside", &address, "198.51.100.1");
        let options = format!(
            "name {user}\nnoauth\nrequire-mppe-128\nnoipv6\nnodefaultroute\n\
             persist\nmaxfail 0\nholdoff 1\nlcp-echo-interval 1\nlcp-echo-failure 4\n"
        );
        let options = self.write(&format!("ppp/options.{user}"), &options);
        let peer = format!(
            "# Server IP: {SERVICE}\nremotename vpn\nfile {}\n",
            options.display()
        );
        self.write(&format!("ppp/peers/{user}"), &peer);
        self.write("ppp/chap-secrets", "* vpn secret *\n");
    }

    /// Lets a client call until it gets through, and again when it is cut off.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn call(&self, user: &str) -> Running {
        let mut command = self.command(user, binary());
        Running::start(command.args(["up", "-f", user]))
    }

    /// Users with an open tunnel on the given nodes, by name.
    ///
    /// # Panics
    /// When one of the nodes cannot be asked.
    #[must_use]
    pub fn places(&self, nodes: &[u8]) -> BTreeMap<String, Place> {
        let mut places = BTreeMap::new();
        for &node in nodes {
            let listed = self.operate(node, "sessions list --json --match state active");
            let listed: Value = serde_json::from_str(&listed).expect("JSON");
            let word = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
            for row in listed["sessions"].as_array().into_iter().flatten() {
                let place = Place {
                    node,
                    calling: word(row, "calling-sid"),
                    ip: word(row, "ip"),
                };
                let other = places.insert(word(row, "username"), place);
                assert_eq!(other, None, "{row} is at two nodes");
            }
        }
        places
    }

    /// What an operator's command says on a node.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn operate(&self, id: u8, words: &str) -> String {
        let mut command = self.command(&node(id), binary());
        let output = command.args(words.split(' ')).output().expect("it starts");
        assert!(output.status.success(), "{words}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Addresses from which a node has been sent control messages (`tcp`) or data (`gre`).
    ///
    /// # Panics
    /// When nft fails.
    #[must_use]
    pub fn sources(&self, id: u8, protocol: &str) -> Vec<String> {
        let set = format!("from_{protocol}");
        let words = ["-j", "list", "set", "ip", "seen", &set];
        let mut command = self.command(&node(id), "nft");
        let output = command.args(words).output().expect("nft starts");
        let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let set = listed["nftables"].as_array().into_iter().flatten();
        let elements = set.filter_map(|it| it["set"]["elem"].as_array()).flatten();
        let mut sources: Vec<_> = elements
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect();
        sources.sort_unstable();
        sources
    }

    /// Pings the node through a client's tunnel, twenty times a second, until it is ended.
    ///
    /// # Panics
    /// When ping does not start.
    #[must_use]
    pub fn start_pings(&self, user: &str) -> Running {
        let mut command = self.command(user, "ping");
        Running::start(command.args(["-i", "0.05", INNER]))
    }

    /// Runs `ip` in a namespace.
    ///
    /// # Panics
    /// When `ip` refuses.
    pub fn ip(&self, host: &str, words: &str) {
        let namespace = self.namespace(host);
        let mut command = Command::new("ip");
        let command = command.args(["-n", &namespace]).args(words.split(' '));
        assert_ran(words, &command.output().expect("ip starts"));
    }

    /// A program in a host's namespace, with files of its own.
    #[must_use]
    pub fn command(&self, host: &str, program: impl AsRef<Path>) -> Command {
        let namespace = self.namespace(host);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace]);
        command.arg(program.as_ref());
        let own = |kind: &str| self.dir.path().join(format!("{kind}-{host}"));
        command.env("PPTP_FAST_RUN_DIR", own("run"));
        command.env("PPTP_FAST_STATE_DIR", own("state"));
        command.env("PPPDIR", self.dir.path().join("ppp"));
        command.env("RUN_DIR", own("run"));
        command.env_remove("PPTP_FAST_BACKGROUND");
        command
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("pptp.db")
    }

    fn add_namespace(&mut self, host: &str) {
        let namespace = self.namespace(host);
        let output = Command::new("ip")
            .args(["netns", "add", &namespace])
            .output();
        assert_ran("netns add", &output.expect("ip starts"));
        self.namespaces.push(namespace);
        self.ip(host, "link set lo up");
    }

    /// A host on one of the balancer's networks.
    fn add_host(&mut self, host: &str, bridge: &str, address: &str, gateway: &str) {
        self.add_namespace(host);
        let balancer = self.namespace("balancer");
        self.ip(
            host,
            &format!("link add eth0 type veth peer name {host} netns {balancer}"),
        );
        self.ip("balancer", &format!("link set {host} master {bridge}"));
        self.ip("balancer", &format!("link set {host} up"));
        self.ip(host, &format!("address add {address}/24 dev eth0"));
        self.ip(host, "link set eth0 up");
        self.ip(host, &format!("route add default via {gateway}"));
    }

    fn obey_sysctls(&self, host: &str, file: &str) {
        let mut command = self.command(host, "sysctl");
        let output = command.arg("-qep").arg(recipe_file(file)).output();
        assert_ran(file, &output.expect("sysctl starts"));
    }

    /// Lets a node write down who sends to it.
    fn note_sources(&self, node: &str) {
        let rules = self.write(
            "seen.nft",
            "table ip seen {\n\
             set from_tcp { type ipv4_addr; size 256; flags dynamic; }\n\
             set from_gre { type ipv4_addr; size 256; flags dynamic; }\n\
             chain input {\n\
             type filter hook input priority 0\n\
             ip daddr 203.0.113.10 tcp dport 1723 add @from_tcp { ip saddr }\n\
             ip daddr 203.0.113.10 ip protocol gre add @from_gre { ip saddr }\n\
             }\n}\n",
        );
        let mut command = self.command(node, "nft");
        let output = command.arg("-f").arg(rules).output();
        assert_ran("nft", &output.expect("nft starts"));
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

/// The name of the user who calls from this address.
#[must_use]
pub fn user(octet: u8) -> String {
    format!("u{octet}")
}

fn node(id: u8) -> String {
    format!("node{id}")
}

fn recipe_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging/cluster")
        .join(path)
}

#[track_caller]
fn assert_ran(what: &str, output: &Output) {
    assert!(output.status.success(), "{what}: {}", text(output));
}
