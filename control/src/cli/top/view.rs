//! How `top` looks.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table};

use super::rows::{Key, Row};
use super::{State, World};
use crate::cli::table::{bytes, duration};

/// Columns between two columns.
const GAP: u16 = 1;

impl Key {
    const fn title(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::State => "STATE",
            Self::Peer => "PEER",
            Self::Ip => "IP",
            Self::ReceiveRate => "RX BIT/S",
            Self::SendRate => "TX BIT/S",
            Self::PacketRate => "PKT/S",
            Self::Uptime => "UP",
            Self::Received => "RX",
            Self::Sent => "TX",
            Self::Lost => "LOST",
            Self::Reordered => "REORD",
            Self::Dropped => "DROP",
            Self::Interface => "IFNAME",
            Self::Cipher => "CIPHER",
        }
    }

    const fn width(self) -> u16 {
        match self {
            Self::Name => 12,
            Self::State => 7,
            Self::Peer | Self::Ip => 15,
            Self::ReceiveRate | Self::SendRate => 9,
            Self::PacketRate | Self::Interface => 7,
            Self::Uptime => 10,
            Self::Received | Self::Sent => 9,
            Self::Lost | Self::Reordered | Self::Dropped => 6,
            Self::Cipher => 22,
        }
    }

    const fn is_number(self) -> bool {
        self.is_descending()
    }

    fn text(self, row: &Row) -> String {
        match self {
            Self::Name => row.name.clone(),
            Self::State => row.state.clone(),
            Self::Peer => row.peer.clone(),
            Self::Ip => row.ip.clone(),
            Self::ReceiveRate => rate(row.receive_rate),
            Self::SendRate => rate(row.send_rate),
            Self::PacketRate => rate(row.packet_rate),
            Self::Uptime => duration(row.uptime_s),
            Self::Received => bytes(row.received),
            Self::Sent => bytes(row.sent),
            Self::Lost => row.lost.to_string(),
            Self::Reordered => row.reordered.to_string(),
            Self::Dropped => row.dropped.to_string(),
            Self::Interface => row.interface.clone(),
            Self::Cipher => row.cipher.clone(),
        }
    }
}

/// `12.3M`, in powers of 1000.
pub(super) fn rate(mut value: f64) -> String {
    for unit in ["", "k", "M", "G"] {
        if value < 999.95 {
            return if unit.is_empty() {
                format!("{value:.0}")
            } else {
                format!("{value:.1}{unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1}T")
}

/// Draws everything; returns how many rows fit.
pub(super) fn draw(frame: &mut Frame<'_>, world: &World, state: &State) -> usize {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(summary(world)), head);
    draw_table(frame, body, world, state);
    frame.render_widget(Paragraph::new(help(state)), foot);
    usize::from(body.height.saturating_sub(1))
}

fn summary(world: &World) -> Vec<Line<'_>> {
    let sum = |of: fn(&Row) -> f64| rate(world.rows.iter().map(of).sum());
    let server = match &world.server {
        Some(server) => format!("server: {server}"),
        None => "no server".to_owned(),
    };
    let tunnels = world.tunnels;
    vec![
        Line::from(format!("pptp-fast top   {server}   tunnels: {tunnels}")),
        Line::from(format!(
            "received {} bit/s   sent {} bit/s   {} packets/s   {}",
            sum(|row| row.receive_rate),
            sum(|row| row.send_rate),
            sum(|row| row.packet_rate),
            world.trouble.as_deref().unwrap_or_default(),
        )),
    ]
}

/// As many columns as fit, and always the one that is sorted by.
fn columns(width: u16, sort: Key) -> Vec<Key> {
    let mut left = width.saturating_sub(sort.width());
    let fits = |key: &Key| {
        let cost = if *key == sort { GAP } else { key.width() + GAP };
        let fits = cost <= left;
        left = if fits { left - cost } else { 0 };
        fits || *key == sort
    };
    Key::ALL.into_iter().filter(fits).collect()
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, world: &World, state: &State) {
    let shown = state.arrangement.apply(&world.rows);
    let keys = columns(area.width, state.arrangement.sort);
    let align = |key: Key| {
        if key.is_number() {
            Alignment::Right
        } else {
            Alignment::Left
        }
    };
    let head = keys.iter().map(|&key| {
        let title = Line::from(key.title()).alignment(align(key));
        let is_sort = key == state.arrangement.sort;
        let style = if is_sort {
            Modifier::BOLD | Modifier::UNDERLINED
        } else {
            Modifier::empty()
        };
        Cell::from(title).style(Style::new().add_modifier(style))
    });
    let head = TableRow::new(head).style(Style::new().add_modifier(Modifier::REVERSED));
    let height = usize::from(area.height.saturating_sub(1));
    let rows = shown.iter().skip(state.first).take(height).map(|row| {
        let cells = keys
            .iter()
            .map(|&key| Cell::from(Line::from(key.text(row)).alignment(align(key))));
        TableRow::new(cells)
    });
    let widths = keys.iter().map(|key| Constraint::Length(key.width()));
    let table = Table::new(rows, widths).header(head).column_spacing(GAP);
    frame.render_widget(table, area);
}

fn help(state: &State) -> Line<'_> {
    if state.is_typing {
        return Line::from(format!("filter: {}_", state.arrangement.filter));
    }
    let mut spans = Vec::new();
    for (key, what) in [
        ("←→", "sort by"),
        ("r", "reverse"),
        ("/", "filter"),
        ("↑↓", "scroll"),
        ("q", "quit"),
    ] {
        spans.push(Span::styled(key, Style::new().add_modifier(Modifier::BOLD)));
        spans.push(Span::raw(format!(" {what}  ")));
    }
    if !state.arrangement.filter.is_empty() {
        spans.push(Span::raw(format!("filter: {}", state.arrangement.filter)));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn world() -> World {
        let row = |name: &str, received: u64| Row {
            key: name.to_owned(),
            name: name.to_owned(),
            state: "active".to_owned(),
            interface: "pptp0".to_owned(),
            peer: "192.0.2.7".to_owned(),
            ip: "10.100.200.100".to_owned(),
            cipher: "MPPE 128-bit stateless".to_owned(),
            uptime_s: 3_723,
            received,
            receive_rate: received as f64,
            ..Row::default()
        };
        World {
            rows: vec![row("ann", 12_300_000), row("mia", 980_000_000)],
            server: Some("pid 7, 2 sessions".to_owned()),
            ..World::default()
        }
    }

    fn screen(width: u16, state: &State) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, 8)).unwrap();
        let world = world();
        terminal
            .draw(|frame| {
                draw(frame, &world, state);
            })
            .unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        };
        (0..8).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_narrow_screen_has_what_matters_and_a_wide_one_all() {
        let narrow = screen(80, &State::default());
        assert_eq!(
            narrow[2],
            "NAME         STATE   PEER            IP               RX BIT/S  TX BIT/S"
        );
        assert_eq!(
            narrow[3],
            "mia          active  192.0.2.7       10.100.200.100     980.0M         0"
        );
        assert!(narrow[4].starts_with("ann "), "{narrow:?}");
        let wide = screen(170, &State::default());
        assert!(wide[2].ends_with("CIPHER"), "{}", wide[2]);
        assert!(wide[3].ends_with("MPPE 128-bit stateless"), "{}", wide[3]);
    }

    #[test]
    fn the_column_that_is_sorted_by_is_always_there() {
        let mut state = State::default();
        state.arrangement.sort = Key::Dropped;
        assert!(screen(80, &state)[2].ends_with("DROP"));
    }

    #[test]
    fn rates_are_short() {
        let texts = [0.0, 999.0, 1_000.0, 999_990.0, 2.5e9, 3e12].map(rate);
        assert_eq!(texts, ["0", "999", "1.0k", "1.0M", "2.5G", "3.0T"]);
    }
}
