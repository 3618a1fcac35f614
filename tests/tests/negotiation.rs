//! Whole negotiations over a simulated network, from seeds.
//!
//! `SIM_SEED=n cargo test -p pptp-fast-tests --test negotiation` replays one and prints both logs;
//! `SIM_SEEDS=100000 cargo test ...` runs so many instead of the usual few hundred.

use std::sync::Arc;

use control::proto::ending::Ending;
use sim::scenario::{Blocked, Expectation, Farewell, Faults, Scenario};
use sim::world::{CLIENT, SERVER, World};

/// Seeds of one ordinary test run.
const SEEDS: u64 = 500;
/// Faults that end so early use up no timer and no count of retransmissions.
const PATIENCE_MS: u64 = 8_000;
/// No negotiation takes longer, whatever fails: the sum of the timers of both sides.
const OUTCOME_MS_MAX: u64 = 240_000;
/// No end takes longer: Terminate-Requests, Call-Clear-Request, Stop-Control-Connection-Request,
/// and a minute until an idle control connection is stopped or a dead one found.
const END_MS_MAX: u64 = 240_000;

#[test]
fn every_seed_ends_in_a_tunnel_that_both_sides_want_or_in_a_named_ending() {
    let replayed = number_from_environment("SIM_SEED");
    let count = number_from_environment("SIM_SEEDS").unwrap_or(SEEDS);
    let seeds = replayed.map_or(0..count, |seed| seed..seed + 1);
    let mut up = 0;
    for seed in seeds {
        let scenario = Scenario::draw(seed);
        let mut world = World::new(&scenario);
        let run = std::panic::AssertUnwindSafe(|| run(&scenario, &mut world));
        let outcome = std::panic::catch_unwind(run);
        if outcome.is_err() || replayed.is_some() {
            print_run(&scenario, &world);
        }
        match outcome {
            Ok(came_up) => up += u64::from(came_up),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    // A simulator in which nothing ever works proves nothing.
    assert!(replayed.is_some() || up > count / 4, "only {up} came up");
}

#[test]
fn hundreds_of_clients_come_up_at_one_server_and_leave_nothing_behind() {
    const CLIENTS: usize = 300;
    // A seed whose tunnel comes up with MPPE required.
    let wanted = Expectation::Up { encrypted: true };
    let scenario = (0..).map(Scenario::draw);
    let scenario = scenario.into_iter().find(|it| it.expectation() == wanted);
    let scenario = scenario.expect("some seed comes up");
    let mut world = World::with_clients(1, Arc::clone(&scenario.server), CLIENTS, [2, 1]);
    for client in 1..=CLIENTS {
        world.dial(client, Arc::clone(&scenario.client));
    }
    let ups = |world: &World, node: usize| {
        let node = &world.nodes[node];
        let records = node.live_calls().filter_map(|call| node.live_record(call));
        records.filter(|record| record.network.is_some()).count()
    };
    assert!(
        world.run_until(60_000, |world| ups(world, SERVER) == CLIENTS),
        "only {} came up",
        ups(&world, SERVER)
    );
    world.run_for(1_000);
    world.send_probes();
    world.run_for(1_000);
    assert_eq!(world.probes_delivered[SERVER], CLIENTS as u64);
    for client in 1..=CLIENTS {
        assert_eq!(world.probes_delivered[client], 1, "client {client}");
    }
    world.shut_down(SERVER);
    world.run_for(END_MS_MAX);
    world.assert_empty();
    assert_eq!(world.nodes[SERVER].idle, 1);
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
    )
}

fn print_run(scenario: &Scenario, world: &World) {
    println!("SIM_SEED={}", scenario.seed);
    println!("{scenario:#?}");
    for (node, name) in [(CLIENT, "client"), (SERVER, "server")] {
        println!("{name}:");
        for line in &world.nodes[node].log {
            println!("  {line}");
        }
    }
}

/// One run; whether the tunnel came up.
fn run(scenario: &Scenario, world: &mut World) -> bool {
    let start = world.now;
    world.dial(CLIENT, Arc::clone(&scenario.client));
    let mut broken = false;
    for ms in (0..scenario.faults.lasts_ms.max(12_000)).step_by(250) {
        if ms >= scenario.faults.lasts_ms {
            world.faults = Faults::NONE;
        }
        if scenario.breaks_at_ms.is_some_and(|at| at < ms) && !broken {
            broken = true;
            world.break_connections();
        }
        world.run_for(250);
        world.send_probes();
        check_demands(scenario, world);
    }
    world.faults = Faults::NONE;
    let has_outcome = world.run_until(OUTCOME_MS_MAX, |world| is_up(world) || is_over(world));
    assert!(
        has_outcome,
        "neither up nor over after {:?} to {:?}",
        start, world.now
    );
    check_demands(scenario, world);

    let came_up = is_up(world);
    let must_come_up = matches!(scenario.expectation(), Expectation::Up { .. })
        && scenario.blocked == Blocked::Neither
        && scenario.faults.lasts_ms <= PATIENCE_MS
        && !broken;
    assert!(
        came_up || !must_come_up,
        "did not come up: {:?}",
        endings(world)
    );
    if came_up {
        check_tunnel(scenario, world);
    } else {
        check_failure(scenario, world, broken);
    }
    say_farewell(scenario.farewell, world);
    let ended = world.run_until(END_MS_MAX, is_over);
    assert!(ended, "the farewell was not heard");
    world.run_for(END_MS_MAX);
    world.assert_empty();
    check_endings(world);
    came_up
}

fn is_up(world: &World) -> bool {
    [CLIENT, SERVER].iter().all(|node| {
        let node = &world.nodes[*node];
        let mut calls = node.live_calls().filter_map(|call| node.live_record(call));
        calls.any(|record| record.network.is_some())
    })
}

/// The client has learnt of the end, and the server holds nothing any more.
fn is_over(world: &World) -> bool {
    let client = &world.nodes[CLIENT];
    let dialled = client.dials_failed.len() + client.calls.len();
    let live = |node: usize| world.nodes[node].live_calls().count();
    dialled == 1 && live(CLIENT) == 0 && live(SERVER) == 0
}

fn endings(world: &World) -> Vec<&Ending> {
    let calls = world.nodes.iter().flat_map(|node| &node.calls);
    let ended = calls.filter_map(|(_, record)| record.ending.as_ref());
    ended.chain(&world.nodes[CLIENT].dials_failed).collect()
}

/// Nothing comes up, not even on one side, against either side's demands.
fn check_demands(scenario: &Scenario, world: &World) {
    let calls = world.nodes.iter().flat_map(|node| &node.calls);
    for network in calls.filter_map(|(_, record)| record.network.as_ref()) {
        match scenario.expectation() {
            Expectation::Fails => panic!("it came up: {network:?}"),
            Expectation::Up { encrypted: false } => {}
            Expectation::Up { encrypted: true } => {
                assert_ne!(network.cipher, "none", "not encrypted");
            }
        }
    }
}

fn check_tunnel(scenario: &Scenario, world: &mut World) {
    // Retransmissions of what is already agreed die away.
    world.run_for(10_000);
    let network = |node: usize| {
        let node = &world.nodes[node];
        let call = node.live_calls().next()?;
        node.live_record(call)?.network.clone()
    };
    let (client, server) = (network(CLIENT), network(SERVER));
    let is_patient = scenario.faults.lasts_ms <= PATIENCE_MS;
    let (Some(client), Some(server)) = (client, server) else {
        // Echo was lost for too long.
        assert!(!is_patient, "it did not stay up: {:?}", endings(world));
        return;
    };
    assert_eq!((client.local, client.remote), (server.remote, server.local));
    assert_eq!(mirrored(&client.cipher), server.cipher);
    if client.cipher != "none" {
        let strongest = scenario.strongest_common();
        let bits = strongest.expect("a cipher that both allow");
        let words = format!("MPPE {bits}-bit");
        let directions = client.cipher.split(" / ");
        for direction in directions {
            assert!(direction.starts_with(&words), "{direction}, not {words}");
        }
    }
    assert!(client.mtu <= scenario.server.lcp.mru && client.mtu <= scenario.client.lcp.mtu);
    assert!(server.mtu <= scenario.client.lcp.mru && server.mtu <= scenario.server.lcp.mtu);
    let takes = |lcp: &control::proto::link::LcpConfig| (lcp.pfc, lcp.acfc);
    let (pfc, acfc) = takes(&scenario.server.lcp);
    assert!(pfc || !client.compress_protocol);
    assert!(acfc || !client.compress_address_control);

    // A stateful decryptor that lost its place finds it again.
    for _ in 0..20 {
        world.send_probes();
        world.run_for(200);
    }
    let before = world.probes_delivered.clone();
    let before_ipv6 = world.ipv6_probes_delivered.clone();
    for _ in 0..20 {
        world.send_probes();
        world.run_for(50);
    }
    for node in [CLIENT, SERVER] {
        let delivered = world.probes_delivered[node] - before[node];
        assert_eq!(delivered, 20, "IP did not reach node {node}");
        let delivered = world.ipv6_probes_delivered[node] - before_ipv6[node];
        if let Some(expected) = scenario.expects_ipv6().filter(|_| is_patient) {
            let due = if expected { 20 } else { 0 };
            assert_eq!(delivered, due, "IPv6 did not reach node {node}");
        }
    }
}

/// What the other end calls a cipher: `received / sent` when they differ, else one for both.
fn mirrored(cipher: &str) -> String {
    let mut directions: Vec<&str> = cipher.split(" / ").collect();
    directions.reverse();
    directions.join(" / ")
}

/// It did not come up: both sides say why, and do not blame what is innocent.
fn check_failure(scenario: &Scenario, world: &World, broken: bool) {
    let client = &world.nodes[CLIENT];
    assert_eq!(client.dials_failed.len() + client.calls.len(), 1);
    let silent = scenario.blocked != Blocked::Neither && !broken;
    if silent {
        let of_client = client.calls.first().and_then(|(_, it)| it.ending.as_ref());
        assert!(
            matches!(of_client, Some(Ending::GreSilent { .. })),
            "nothing came over GRE, and the client says {of_client:?}"
        );
    }
}

fn say_farewell(farewell: Farewell, world: &mut World) {
    match farewell {
        Farewell::ClientHangsUp => world.hang_up(CLIENT),
        Farewell::ServerHangsUp => world.hang_up(SERVER),
        Farewell::ClientShutsDown => world.shut_down(CLIENT),
        Farewell::ServerShutsDown => world.shut_down(SERVER),
        Farewell::ConnectionBreaks => world.break_connections(),
    }
}

/// Every call has exactly one ending; `Node` has seen to it that there are not two.
fn check_endings(world: &World) {
    let calls: usize = world.nodes.iter().map(|node| node.calls.len()).sum();
    let dials_failed = world.nodes[CLIENT].dials_failed.len();
    assert_eq!(endings(world).len(), calls + dials_failed);
    assert!(world.nodes.iter().all(|node| node.idle <= 1));
}
