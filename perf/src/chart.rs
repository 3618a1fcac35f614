//! Horizontal bars as SVG. The background is drawn, so that the colours read on light and dark
//! pages alike.

use std::fmt::Write as _;

use crate::report::rounded;

/// One bar, with a thin line from `min` to `max`.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) ours: bool,
}

const WIDTH: f64 = 760.0;
const LABELS: f64 = 180.0;
/// Room for the number behind the longest bar.
const NUMBERS: f64 = 90.0;
const TITLE: f64 = 48.0;
const ROW: f64 = 34.0;
const BAR: f64 = 20.0;
const OURS: &str = "#d1495b";
const OTHERS: &str = "#8d99ae";
const INK: &str = "#1f2933";

/// A chart with a bar for each system, in the order given.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    let height = TITLE + ROW * bars.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, 'DejaVu Sans', Arial, sans-serif\" font-size=\"14\">\n\
         <title>{0}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"16\" font-weight=\"bold\" fill=\"{INK}\">{0}</text>\n",
        escape(title)
    );
    let largest = bars
        .iter()
        .map(|bar| bar.max)
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - NUMBERS) / largest;
    for (index, bar) in bars.iter().enumerate() {
        row(&mut svg, bar, TITLE + ROW * index as f64, scale);
    }
    svg.push_str("</svg>\n");
    svg
}

fn row(svg: &mut String, bar: &Bar, top: f64, scale: f64) {
    let middle = top + BAR / 2.0;
    let text = middle + 5.0;
    let (colour, weight) = if bar.ours {
        (OURS, "bold")
    } else {
        (OTHERS, "normal")
    };
    let (min, max) = (LABELS + bar.min * scale, LABELS + bar.max * scale);
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\" font-weight=\"{weight}\" \
         fill=\"{INK}\">{}</text>\n\
         <rect x=\"{LABELS}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\" \
         fill=\"{colour}\"/>\n\
         <path d=\"M{min:.1} {middle:.1}H{max:.1}M{min:.1} {:.1}v8M{max:.1} {:.1}v8\" \
         stroke=\"{INK}\" fill=\"none\"/>\n\
         <text x=\"{:.1}\" y=\"{text:.1}\" font-weight=\"{weight}\" fill=\"{INK}\">{}</text>\n",
        LABELS - 10.0,
        escape(&bar.label),
        bar.value * scale,
        middle - 4.0,
        middle - 4.0,
        max + 8.0,
        rounded(bar.value),
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_line_and_its_number_fit_into_the_chart() {
        let bar = Bar {
            label: "a<b".to_owned(),
            value: 90.0,
            min: 1.0,
            max: 123_456.0,
            ours: true,
        };
        let svg = bars("t & u", &[bar]);
        let right_end = WIDTH - NUMBERS;
        assert!(svg.contains(&format!("H{right_end:.1}M")));
        assert!(svg.contains("a&lt;b") && svg.contains("t &amp; u"));
    }
}
