//! Before the first packet: the server's address, and how packets get there.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use super::firewall::Obstacle;
use super::report::{Finding, Phase, Status};
use crate::config::client::ClientConfig;
use crate::driver::netlink::Netlink;

/// A way that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Ours on it.
    pub(super) local: Ipv4Addr,
    /// No router is between.
    pub(super) is_neighbour: bool,
    pub(super) interface: String,
    /// Octets.
    pub(super) mtu: u32,
}

/// Looks the server up; its first address.
pub(super) async fn name(config: &ClientConfig, timeout: Duration) -> (Finding, Option<Ipv4Addr>) {
    let name = &config.server;
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        let finding = Finding::new(Phase::Name, Status::Ok, "given as an address")
            .figure("addresses", vec![address.to_string()]);
        return (finding, Some(address));
    }
    let asked = Instant::now();
    let lookup = tokio::net::lookup_host((name.as_str(), config.port));
    let found = tokio::time::timeout(timeout, lookup).await;
    let ms = asked.elapsed().as_secs_f64() * 1000.0;
    let failed = |summary: &str| {
        Finding::new(Phase::Name, Status::Failed, summary).sent(format!("the addresses of {name}?"))
    };
    let all: Vec<SocketAddr> = match found {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) if is_temporary(&error) => {
            return (nobody_answers(failed, &error.to_string()), None);
        }
        Ok(Err(error)) => {
            let finding = failed("no such name")
                .received(error.to_string())
                .because(format!(
                    "{name} has no address: it is misspelt, or only a name server inside the \
                     other network knows it"
                ))
                .command(format!("getent ahostsv4 {name}"))
                .command("cat /etc/resolv.conf; ping -c 1 1.1.1.1")
                .advise("or give the server's address in numbers");
            return (finding, None);
        }
        Err(_) => return (nobody_answers(failed, "nothing"), None),
    };
    let of_version_4 = all.iter().filter_map(|address| match address {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    });
    let mut addresses: Vec<Ipv4Addr> = of_version_4.collect();
    addresses.dedup();
    let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let Some(first) = addresses.first().copied() else {
        let finding = failed("it has IPv6 addresses only")
            .because("PPTP needs an IPv4 address, and this name has none")
            .command(format!("getent ahosts {name}"));
        return (finding, None);
    };
    let more = match words.len() {
        1 => String::new(),
        _ => format!(", and {}; the first is examined", words[1..].join(", ")),
    };
    let finding = Finding::new(
        Phase::Name,
        Status::Ok,
        format!("{first}{more}, {ms:.1} ms"),
    )
    .sent(format!("the addresses of {name}?"))
    .received(words.join(", "))
    .figure("addresses", words);
    (finding, Some(first))
}

fn nobody_answers(failed: impl Fn(&str) -> Finding, came: &str) -> Finding {
    failed("no answer from the name servers")
        .received(came)
        .because("no name server of this host answers, so no name has an address")
        .command("cat /etc/resolv.conf; ping -c 1 1.1.1.1")
        .advise("or give the server's address in numbers")
}

/// EAI_AGAIN, of which only the words come this far (gai_strerror(3)).
fn is_temporary(error: &std::io::Error) -> bool {
    error.to_string().contains("Temporary failure")
}

/// The way to it, our address on it, and what this host's firewall has against it.
pub(super) async fn route(
    config: &ClientConfig,
    netlink: &Netlink,
    address: Ipv4Addr,
    obstacles: Option<&[Obstacle]>,
) -> (Finding, Option<Found>) {
    let found = netlink.way_to(address, config.pptp.mark).await;
    let bind = config.pptp.local_bind.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let source = source_towards(bind, SocketAddrV4::new(address, config.port));
    let (way, local) = match (found, source) {
        (Ok(way), Ok(local)) => (way, local),
        (Err(error), _) => return (no_route(address, &error.to_string()), None),
        (_, Err(error)) if config.pptp.local_bind.is_some() => {
            let finding = Finding::new(Phase::Route, Status::Failed, "not our address")
                .received(error.to_string())
                .because(format!(
                    "{bind}, which packets are to come from, is not this host's"
                ))
                .command("ip -4 address");
            return (finding, None);
        }
        (_, Err(error)) => return (no_route(address, &error.to_string()), None),
    };
    let interface = netlink.name_of(way.interface).await;
    let interface = interface.unwrap_or_else(|_| way.interface.to_string());
    let next = way
        .gateway
        .map_or_else(|| "directly".to_owned(), |gateway| format!("by {gateway}"));
    let mut summary = format!(
        "{local} to {address}, {next} over {interface}, MTU {}",
        way.mtu
    );
    let suspects = obstacles.map_or(0, <[Obstacle]>::len);
    match suspects {
        0 => {}
        1 => summary.push_str("; one firewall rule may be in the way"),
        several => summary.push_str(&format!("; {several} firewall rules may be in the way")),
    }
    let mut finding = Finding::new(Phase::Route, Status::Ok, summary)
        .figure("source", local.to_string())
        .figure("interface", interface.clone())
        .figure("gateway", way.gateway.map(|gateway| gateway.to_string()))
        .figure("mtu", way.mtu)
        .figure("firewall_readable", obstacles.is_some());
    for obstacle in obstacles.unwrap_or(&[]) {
        finding = finding.received(format!("{}: {}", obstacle.words(), obstacle.rule));
    }
    let found = Found {
        local,
        is_neighbour: way.gateway.is_none(),
        interface,
        mtu: way.mtu,
    };
    (finding, Some(found))
}

fn no_route(address: Ipv4Addr, words: &str) -> Finding {
    Finding::new(Phase::Route, Status::Failed, "no way to the server")
        .received(words)
        .because(format!(
            "this host has no route to {address}: it is not connected, or has no default route"
        ))
        .command(format!("ip -4 route get {address}"))
        .command("ip link; ip -4 route  (is the interface up? is there a default route?)")
        .command("ip route add default via ROUTER")
}

/// The address that the kernel would send from; nothing is sent.
fn source_towards(bind: Ipv4Addr, server: SocketAddrV4) -> std::io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((bind, 0))?;
    socket.connect(server)?;
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(_) => Ok(Ipv4Addr::UNSPECIFIED),
    }
}
