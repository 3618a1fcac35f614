//! `pptp-fast top`: sessions of the server and tunnels of clients as a table that is alive.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::rows::{Arrangement, Before, Row};
use super::fail;
use super::operator::Server;
use crate::driver::admin::records::Order;
use crate::driver::admin::{self, Answer, Request};
use crate::driver::run_files;

mod rows;
mod view;

/// How long a client's tunnel may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// How soon a signal is heard.
const TICK: Duration = Duration::from_millis(100);

/// Watch sessions and tunnels: rates, loss, drops. Keys: arrows sort and scroll, r reverses,
/// / filters, q quits.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast top\n  pptp-fast top --interval 0.5")]
pub(super) struct Top {
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0, value_parser = interval, allow_negative_numbers = true)]
    interval: f64,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.2..=3600.0).contains(&seconds) {
        return Ok(seconds);
    }
    Err("between 0.2 and 3600 seconds".to_owned())
}

/// What there is to see.
#[derive(Debug, Default)]
struct World {
    rows: Vec<Row>,
    /// The server in words, when there is one.
    server: Option<String>,
    tunnels: usize,
    /// Why something is not to be seen.
    trouble: Option<String>,
}

/// How it is looked at.
#[derive(Debug, Default)]
struct State {
    arrangement: Arrangement,
    /// First row on the screen.
    first: usize,
    is_typing: bool,
}

impl Top {
    pub(super) fn run(&self) -> ExitCode {
        if !std::io::stdout().is_terminal() {
            let message = "top needs a terminal: see pptp-fast status --json, or sessions list";
            return fail(message, 2);
        }
        let is_over = end_on_signals();
        let mut terminal = match ratatui::try_init() {
            Ok(terminal) => terminal,
            Err(error) => return fail(format_args!("cannot use this terminal: {error}"), 1),
        };
        let watched = watch(
            &mut terminal,
            Duration::from_secs_f64(self.interval),
            &is_over,
        );
        ratatui::restore();
        watched.map_or_else(|error| fail(error, 1), |()| ExitCode::SUCCESS)
    }
}

/// TERM and HUP end it in order, so that the terminal is as it was.
fn end_on_signals() -> Arc<AtomicBool> {
    let is_over = Arc::new(AtomicBool::new(false));
    let signals = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT];
    let signals: SigSet = signals.into_iter().collect();
    if signals.thread_block().is_ok() {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            let _ = signals.wait();
            is_over.store(true, Ordering::Relaxed);
        });
    }
    is_over
}

fn watch(
    terminal: &mut DefaultTerminal,
    interval: Duration,
    is_over: &AtomicBool,
) -> std::io::Result<()> {
    let (mut before, mut state) = (Before::default(), State::default());
    loop {
        let started = Instant::now();
        let mut world = look();
        before.rate(&mut world.rows, Instant::now());
        loop {
            let mut height = 0;
            terminal.draw(|frame| height = view::draw(frame, &world, &state))?;
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            let left = interval.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            if event::poll(left.min(TICK))?
                && let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && !state.obey(key, height, world.rows.len())
            {
                return Ok(());
            }
        }
    }
}

impl State {
    /// Does what a key stands for; false to quit.
    fn obey(&mut self, key: KeyEvent, height: usize, count: usize) -> bool {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if is_control => return false,
            code if self.is_typing => self.type_key(code),
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Left | KeyCode::Char('<') => self.arrangement.move_sort(-1),
            KeyCode::Right | KeyCode::Char('>') => self.arrangement.move_sort(1),
            KeyCode::Char('r') => self.arrangement.is_reversed ^= true,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Up | KeyCode::Char('k') => self.first = self.first.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.first += 1,
            KeyCode::PageUp => self.first = self.first.saturating_sub(height),
            KeyCode::PageDown => self.first += height,
            KeyCode::Home => self.first = 0,
            KeyCode::End => self.first = count,
            _ => {}
        }
        self.first = self.first.min(count.saturating_sub(height));
        true
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.arrangement.filter.clear();
            }
            KeyCode::Backspace => drop(self.arrangement.filter.pop()),
            KeyCode::Char(letter) => self.arrangement.filter.push(letter),
            _ => {}
        }
    }
}

/// Asks everybody.
fn look() -> World {
    let mut world = World::default();
    for name in run_files::tunnels() {
        let socket = run_files::tunnel_socket(&name);
        if let Ok(Answer::Tunnel(status)) = admin::ask(&socket, &Request::Status, ANSWER_LIMIT) {
            world.rows.push((*status).into());
            world.tunnels += 1;
        }
    }
    if !run_files::server_socket().exists() {
        return world;
    }
    match look_at_server() {
        Ok((server, rows)) => {
            world.server = Some(server);
            world.rows.extend(rows);
        }
        Err(why) => world.trouble = Some(why),
    }
    world
}

fn look_at_server() -> Result<(String, Vec<Row>), String> {
    let mut server = Server::reach()?;
    let Answer::Progress(progress) = server.order(Order::Progress)? else {
        return Err(super::operator::unexpected());
    };
    let rows: Vec<Row> = server.sessions()?.into_iter().map(Row::from).collect();
    let draining = if progress.is_draining {
        ", draining"
    } else {
        ""
    };
    Ok((format!("{} sessions{draining}", rows.len()), rows))
}

#[cfg(test)]
mod tests {
    use self::rows::Key;
    use super::*;

    fn press(state: &mut State, codes: &[KeyCode]) -> bool {
        let mut goes_on = true;
        for code in codes {
            goes_on = state.obey(KeyEvent::from(*code), 10, 25);
        }
        goes_on
    }

    #[test]
    fn keys_sort_scroll_filter_and_quit() {
        let mut state = State::default();
        assert!(press(&mut state, &[KeyCode::Right, KeyCode::Char('r')]));
        assert_eq!(state.arrangement.sort, Key::SendRate);
        assert!(state.arrangement.is_reversed);
        assert!(press(&mut state, &[KeyCode::PageDown, KeyCode::Down]));
        assert_eq!(state.first, 11);
        assert!(press(&mut state, &[KeyCode::End]));
        assert_eq!(state.first, 15, "the last row is at the bottom");
        let typed = [KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Char('x')];
        assert!(
            press(&mut state, &typed),
            "a letter of the filter quits nothing"
        );
        assert!(press(&mut state, &[KeyCode::Backspace, KeyCode::Enter]));
        assert_eq!(state.arrangement.filter, "q");
        assert!(!state.is_typing);
        assert!(!press(&mut state, &[KeyCode::Char('q')]));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(!state.obey(interrupt, 10, 25));
    }
}
