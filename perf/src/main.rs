//! Whole-system measurements of pptp-fast against the systems it competes with, all through the
//! same two network namespaces, in turn. `perf/run` installs the peers and starts this.
#![deny(unsafe_code)]

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::figure::{Figure, Sample, Series};
use crate::machine::Machine;
use crate::measure::{Amount, Measurement};
use crate::namespaces::Namespaces;
use crate::process::Process;
use crate::report::{LeftOut, Measured, Results};
use crate::systems::{Place, System};

mod chart;
mod figure;
mod flood;
mod iperf;
mod kernel_pptp;
mod machine;
mod measure;
mod namespaces;
mod process;
mod receive;
mod report;
mod sockets;
mod systems;

/// Measures pptp-fast and its peers between two network namespaces of this machine.
#[derive(Debug, Parser)]
#[command(name = "perf/run")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// One round of 2 s each, to see that everything works; results go to target/perf/quick.
    #[arg(long)]
    quick: bool,
    /// Length of a throughput measurement.
    #[arg(long, default_value_t = 6)]
    seconds: u32,
    /// Rate of the steady flow of UDP packets, of 1400 octets each.
    #[arg(long, default_value_t = 500)]
    udp_mbit: u32,
    /// How often each system is measured, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Only these systems, by name, separated by commas; see --list.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Print the systems and whether they can be measured here.
    #[arg(long)]
    list: bool,
    /// Folder for the results.
    #[arg(long)]
    output: Option<PathBuf>,
    /// A sentence for the report, such as what was special about this run.
    #[arg(long)]
    note: Option<String>,
    /// The pptp-fast to measure.
    #[arg(long, default_value = "target/release/pptp-fast")]
    binary: PathBuf,
    /// Folder of programs installed for this comparison alone.
    #[arg(long, default_value = "target/perf-tools/bin")]
    tools: PathBuf,
}

/// What is measured apart from the comparison, and what the program starts of itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// Measure the receiving half alone, beside a loop that takes one packet at a time.
    Receive {
        /// Bursts of 512 packets for each, in turn.
        #[arg(long, default_value_t = 201)]
        rounds: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Folder for receive.json.
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Send UDP packets, as fast as possible or at a steady rate.
    #[command(hide = true)]
    Flood {
        to: SocketAddrV4,
        #[command(flatten)]
        flow: flood::Flow,
    },
    /// Set up the kernel's own PPTP between the network namespaces of two processes.
    #[command(hide = true)]
    KeepKernelPptp { server: u32, client: u32 },
    /// Keep the port of the flood open.
    #[command(hide = true)]
    Sink,
    /// What one packet costs to send, by the kind of socket.
    Sockets,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.part {
        Some(Part::Flood { to, flow }) => flood::send(to, flow),
        Some(Part::Receive {
            rounds,
            json,
            ref output,
        }) => receive::run(rounds, json, output.as_deref()),
        Some(Part::KeepKernelPptp { server, client }) => kernel_pptp::keep(server, client),
        Some(Part::Sink) => flood::keep_port_open(),
        Some(Part::Sockets) => compare_sockets(),
        None => compare(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare_sockets() -> Result<()> {
    let work = absolute("target/perf".as_ref())?;
    std::fs::create_dir_all(&work).context("cannot make target/perf")?;
    sockets::compare(&work)
}

fn compare(arguments: &Arguments) -> Result<()> {
    let (rounds, seconds) = if arguments.quick {
        (1, 2)
    } else {
        (arguments.rounds, arguments.seconds)
    };
    if rounds == 0 || seconds == 0 {
        bail!("at least one round of at least one second");
    }
    let place = Place {
        tools: absolute(&arguments.tools)?,
        pptp_fast: absolute(&arguments.binary)?,
        work: absolute("target/perf".as_ref())?,
    };
    std::fs::create_dir_all(&place.work).context("cannot make target/perf")?;
    let (systems, left_out) = choose(arguments, &place)?;
    if arguments.list {
        return Ok(());
    }
    let mut results = Results {
        date: machine::date(),
        commit: machine::commit(),
        note: arguments.note.clone(),
        machine: Machine::read(),
        rounds,
        seconds,
        systems: systems
            .iter()
            .map(|(system, version)| Measured::new(&**system, version))
            .collect(),
        left_out,
        troubles: Vec::new(),
    };
    let systems: Vec<_> = systems.into_iter().map(|(system, _)| system).collect();
    let amount = Amount {
        seconds,
        udp_mbit: arguments.udp_mbit,
    };
    say_how_long(rounds, amount, systems.len());
    measure_in_turn(&systems, &place, amount, &mut results)?;

    let folder = match &arguments.output {
        Some(folder) => folder.clone(),
        None if arguments.quick => place.work.join("quick"),
        None => "perf/results".into(),
    };
    report::write(&results, &folder)?;
    println!("{}", report::summary(&results));
    println!("Written: {}", folder.join("README.md").display());
    if results
        .systems
        .iter()
        .all(|measured| measured.figures.is_empty())
    {
        bail!("nothing could be measured");
    }
    Ok(())
}

fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("no path {}", path.display()))
}

type Chosen = Vec<(Box<dyn System>, String)>;

/// The systems that were asked for and can be measured here, each with its version.
fn choose(arguments: &Arguments, place: &Place) -> Result<(Chosen, Vec<LeftOut>)> {
    let all = systems::all();
    if let Some(unknown) = arguments
        .only
        .iter()
        .find(|name| all.iter().all(|system| system.name() != **name))
    {
        let names: Vec<_> = all.iter().map(|system| system.name()).collect();
        bail!(
            "no system is called {unknown}; there are: {}",
            names.join(" ")
        );
    }
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for system in all {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == system.name()) {
            continue;
        }
        match system.version(place) {
            Ok(version) => {
                eprintln!("perf: {}: {version}", system.name());
                chosen.push((system, version));
            }
            Err(error) => {
                eprintln!("perf: {} is left out: {error:#}", system.name());
                let name = system.name();
                left_out.push(LeftOut {
                    name,
                    reason: format!("{error:#}"),
                });
            }
        }
    }
    Ok((chosen, left_out))
}

fn say_how_long(rounds: u32, amount: Amount, systems: usize) {
    let turn: Duration = Measurement::ALL
        .iter()
        .map(|measurement| measurement.duration(amount))
        .sum();
    // Starting and ending a tunnel and its programs takes a few seconds more.
    let all = (turn + Duration::from_secs(5)) * rounds * u32::try_from(systems).unwrap_or(1);
    eprintln!(
        "perf: {rounds} rounds of {systems} systems: about {} minutes",
        all.as_secs().div_ceil(60)
    );
}

/// A B C, A B C, ...: what disturbs the machine for a while disturbs them all.
fn measure_in_turn(
    systems: &[Box<dyn System>],
    place: &Place,
    amount: Amount,
    results: &mut Results,
) -> Result<()> {
    for round in 1..=results.rounds {
        for (index, system) in systems.iter().enumerate() {
            let namespaces = Namespaces::new(&place.work)?;
            let turn = Turn {
                round,
                system: &**system,
                namespaces: &namespaces,
                place,
                amount,
            };
            if let Err(error) = turn.run(index, results) {
                turn.note(&format!("{error:#}"), results);
            }
        }
    }
    Ok(())
}

/// One system's turn in one round.
struct Turn<'a> {
    round: u32,
    system: &'a dyn System,
    namespaces: &'a Namespaces,
    place: &'a Place,
    amount: Amount,
}

impl Turn<'_> {
    fn run(&self, index: usize, results: &mut Results) -> Result<()> {
        let mut tunnel = self
            .system
            .start(self.namespaces, self.place)
            .context("no tunnel")?;
        results.systems[index].commands.clone_from(&tunnel.commands);
        systems::wait_for_ping(&self.namespaces.client, tunnel.server)?;
        let _receivers = self.start_receivers()?;
        let (rounds, amount) = (results.rounds, self.amount);
        let load_log = self.place.log("stream-beside-pings");
        for measurement in Measurement::ALL {
            eprint!(
                "[{}/{rounds}] {}: {} ({} s): ",
                self.round,
                self.system.name(),
                measurement.title(),
                measurement.duration(amount).as_secs()
            );
            let started = Instant::now();
            match measurement.run(self.namespaces, tunnel.server, amount, &load_log) {
                Ok(samples) => {
                    eprintln!("{}", in_words(&samples));
                    let command = measurement.command(tunnel.server, amount);
                    record(&mut results.systems[index].figures, &command, &samples);
                }
                Err(error) => {
                    eprintln!("failed after {:.1} s", started.elapsed().as_secs_f64());
                    self.note(&format!("{}: {error:#}", measurement.title()), results);
                }
            }
            tunnel.check_running().context("its program")?;
        }
        Ok(())
    }

    /// The programs at the server that iperf3 and the flood talk to.
    fn start_receivers(&self) -> Result<[Process; 2]> {
        let server = &self.namespaces.server;
        let log = self.place.log("iperf3-server");
        let mut iperf =
            Process::start(server.command("iperf3").args(["-s", "--forceflush"]), &log)?;
        iperf.wait_for("Server listening", Duration::from_secs(10))?;
        let mut command = server.command(std::env::current_exe()?);
        let mut sink = Process::start(command.arg("sink"), &self.place.log("sink"))?;
        sink.wait_for("open", Duration::from_secs(10))?;
        Ok([iperf, sink])
    }

    fn note(&self, trouble: &str, results: &mut Results) {
        eprintln!("  trouble: {trouble}");
        results.troubles.push(process::from_here(&format!(
            "round {}, {}: {trouble}",
            self.round,
            self.system.name()
        )));
    }
}

fn record(figures: &mut BTreeMap<Figure, Series>, command: &str, samples: &[Sample]) {
    for Sample(figure, value) in samples {
        figures
            .entry(*figure)
            .or_insert_with(|| Series::new(*figure, command.to_owned()))
            .push(*value);
    }
}

fn in_words(samples: &[Sample]) -> String {
    let words = samples.iter().map(|Sample(figure, value)| {
        let short = figure.title().rsplit(": ").next().unwrap_or_default();
        format!("{short} {} {}", report::rounded(*value), figure.unit())
    });
    words.collect::<Vec<_>>().join(", ")
}
