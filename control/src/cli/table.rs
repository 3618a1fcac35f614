//! Aligned columns for a terminal, and numbers as people write them.

use std::io::IsTerminal;

/// Prints `rows` under `head`, each column as wide as its longest cell.
pub(super) fn print(head: &[&str], rows: &[Vec<String>]) {
    print_painted(head, rows, |_| None);
}

/// The same, with colours (SGR codes, such as `31` for red) on a terminal: `paint` says which one
/// the first cell of a row has.
pub(super) fn print_painted(
    head: &[&str],
    rows: &[Vec<String>],
    paint: impl Fn(usize) -> Option<&'static str>,
) {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        super::print_line(padded.join("  ").trim_end());
    };
    line(&mut head.iter().copied());
    let has_colours = has_colours();
    for (index, row) in rows.iter().enumerate() {
        let Some(code) = paint(index).filter(|_| has_colours) else {
            line(&mut row.iter().map(String::as_str));
            continue;
        };
        let mut painted = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let (begin, end) = match column {
                0 => (format!("\x1b[{code}m"), "\x1b[0m  "),
                _ => (String::new(), "  "),
            };
            painted.push_str(&format!("{begin}{cell:<width$}{end}"));
        }
        super::print_line(painted.trim_end());
    }
}

/// Colours are for terminals, and for those who want them (`NO_COLOR`, `TERM=dumb`).
fn has_colours() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && !is_set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `12.3 MB`, in powers of 1000.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// `1h02m03s`, the largest unit that is not zero first.
pub(super) fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes:02}m{seconds:02}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_writes_them() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500), "1.5 kB");
        assert_eq!(bytes(5_000_000_000_000), "5.0 TB");
        assert_eq!(duration(59), "59s");
        assert_eq!(duration(3_723), "1h02m03s");
    }
}
