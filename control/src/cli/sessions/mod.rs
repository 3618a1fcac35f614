//! `pptp-fast sessions`: the operator's view of a running server.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::columns::{Cell, Column};
use self::selection::Selection;
use super::operator::{Server, unexpected};
use super::{capture, fail, print_line, table};
use crate::driver::admin::Answer;
use crate::driver::admin::records::{CaptureWish, Order, SessionRecord, TERMINATE_MAX};

pub(super) mod columns;
mod selection;

/// List, show and end the sessions of the server on this machine, and look into one.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast sessions list\n  pptp-fast sessions show mia\n  \
    pptp-fast sessions terminate --user mia"
)]
pub(super) struct Sessions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Terminate(Terminate),
    Capture(Capture),
}

/// List sessions.
#[derive(Debug, Args)]
#[command(
    after_help = format!(
        "Columns:\n{}\nExamples:\n  \
         pptp-fast sessions list --order -rx-bytes --columns username,ip,rx-bytes\n  \
         pptp-fast sessions list --match username '^guest' --json",
        columns::list()
    )
)]
struct List {
    /// Which columns, with commas between them.
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Sort by this column; with `-` in front of it, the largest first.
    #[arg(long, allow_hyphen_values = true)]
    order: Option<String>,
    /// One JSON object with all columns, or those that are named; sizes in octets, times in
    /// seconds.
    #[arg(long)]
    json: bool,
}

/// Show everything about one session.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast sessions show mia\n  \
    pptp-fast sessions show 10.0.0.7 --json")]
struct Show {
    /// Its sid or call ID, the address inside its tunnel, or the user.
    id: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// End sessions: in order, with Terminate-Request and Call-Disconnect-Notify.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast sessions terminate --user mia\n  \
    pptp-fast sessions terminate --match calling-sid '^192\\.0\\.2\\.' --hard"
)]
struct Terminate {
    /// By sid or call ID, the address inside the tunnel, or the user.
    ids: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// All of them.
    #[arg(long)]
    all: bool,
    /// At once: the client is told on the control connection, and not waited for.
    #[arg(long)]
    hard: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Copy the decrypted packets of one session as pcapng; as root. What the reader is too slow for is
/// missing, and counted in the statistics at the end.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast sessions capture mia | tcpdump -nr -\n  \
    pptp-fast sessions capture 10.0.0.7 | wireshark -k -i -\n  \
    pptp-fast sessions capture mia -w mia.pcapng --duration 60"
)]
struct Capture {
    /// Its sid or call ID, the address inside its tunnel, or the user.
    id: String,
    #[command(flatten)]
    output: capture::Output,
}

impl Sessions {
    pub(super) fn run(&self) -> ExitCode {
        let done = match &self.command {
            Command::List(list) => list.run(),
            Command::Show(show) => show.run(),
            Command::Terminate(terminate) => terminate.run(),
            Command::Capture(capture) => capture.run(),
        };
        done.unwrap_or_else(|message| fail(message, 1))
    }
}

impl List {
    fn run(&self) -> Result<ExitCode, String> {
        let conditions = self.selection.conditions()?;
        let named: Vec<&str> = match (self.columns.is_empty(), self.json) {
            (false, _) => self.columns.iter().map(String::as_str).collect(),
            (true, true) => columns::ALL.iter().map(|column| column.name).collect(),
            (true, false) => columns::DEFAULT.to_vec(),
        };
        let named = named.into_iter().map(columns::find);
        let shown: Vec<Column> = named.collect::<Result<_, _>>()?;
        let order = self.order.as_deref().map(|name| {
            let (name, is_reverse) = name
                .strip_prefix('-')
                .map_or((name, false), |it| (it, true));
            columns::find(name).map(|column| (column, is_reverse))
        });
        let order = order.transpose()?;
        let mut sessions = Server::reach()?.sessions()?;
        sessions.retain(|session| conditions.hold(session));
        if let Some((column, is_reverse)) = order {
            sessions.sort_by(|one, two| {
                let order = (column.value)(one).order(&(column.value)(two));
                if is_reverse { order.reverse() } else { order }
            });
        }
        if self.json {
            let rows: Vec<_> = sessions.iter().map(|it| object(it, &shown)).collect();
            print_line(serde_json::json!({ "count": rows.len(), "sessions": rows }));
        } else {
            let head: Vec<&str> = shown.iter().map(|column| column.name).collect();
            let cells = |it: &SessionRecord| -> Vec<String> {
                shown
                    .iter()
                    .map(|column| (column.value)(it).to_string())
                    .collect()
            };
            let rows: Vec<_> = sessions.iter().map(cells).collect();
            table::print(&head, &rows);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn object(session: &SessionRecord, shown: &[Column]) -> serde_json::Value {
    let pairs = shown.iter().map(|column| {
        let value: serde_json::Value = (column.value)(session).into();
        (column.name.to_owned(), value)
    });
    serde_json::Value::Object(pairs.collect())
}

impl Show {
    fn run(&self) -> Result<ExitCode, String> {
        let sessions = Server::reach()?.sessions()?;
        let session = selection::find(&sessions, &self.id)?;
        if self.json {
            let mut shown = object(session, &columns::ALL);
            let setup = session.setup.iter().map(|it| {
                let seconds = it.took_us as f64 / 1e6;
                (it.phase.clone(), seconds.into())
            });
            shown["setup_s"] = serde_json::Value::Object(setup.collect());
            print_line(shown);
            return Ok(ExitCode::SUCCESS);
        }
        for column in &columns::ALL {
            let value = (column.value)(session);
            if value != Cell::Absent {
                print_line(format_args!("{:<13} {value}", column.name));
            }
        }
        for phase in &session.setup {
            let ms = phase.took_us as f64 / 1e3;
            print_line(format_args!(
                "{:<13} {ms:.1} ms",
                format!("setup-{}", phase.phase)
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Terminate {
    fn run(&self) -> Result<ExitCode, String> {
        if self.ids.is_empty() && self.selection.is_empty() && !self.all {
            return Err("which sessions? Name them, or give --user, --match or --all".to_owned());
        }
        let conditions = self.selection.conditions()?;
        let mut server = Server::reach()?;
        let sessions = server.sessions()?;
        let chosen: Vec<&SessionRecord> = if self.ids.is_empty() {
            sessions.iter().filter(|it| conditions.hold(it)).collect()
        } else {
            let found = self.ids.iter().map(|id| selection::find(&sessions, id));
            let found: Vec<_> = found.collect::<Result<_, _>>()?;
            found.into_iter().filter(|it| conditions.hold(it)).collect()
        };
        let mut total = 0;
        for some in chosen.chunks(TERMINATE_MAX) {
            let order = Order::Terminate {
                sessions: some.iter().map(|it| it.name()).collect(),
                hard: self.hard,
            };
            let Answer::Terminated { count } = server.order(order)? else {
                return Err(unexpected());
            };
            total += count;
        }
        if self.json {
            print_line(serde_json::json!({ "terminated": total }));
        } else {
            let how = if self.hard { "ended" } else { "told to end" };
            let plural = if total == 1 { "" } else { "s" };
            print_line(format_args!("{total} session{plural} {how}."));
        }
        Ok(if total == 0 {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        })
    }
}

impl Capture {
    fn run(&self) -> Result<ExitCode, String> {
        self.output.check()?;
        let mut server = Server::reach()?;
        let sessions = server.sessions()?;
        let session = selection::find(&sessions, &self.id)?;
        let wish = CaptureWish {
            session: Some(session.name()),
            ..self.output.wish()
        };
        server.ask(&crate::driver::admin::Request::Capture(wish))?;
        self.output.receive(server.into_conversation())
    }
}
