//! `pptp-fast check`: what becomes of every option of a configuration.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::{fail, host_name, ppp_directory, print_line, table, warn};
use crate::config::check::{Finding, Report, Verdict};

/// Show every option of a configuration: honoured, harmless here, or refused, and why.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast check test2\n  \
    pptp-fast check /etc/ppp/options.pptp --json\n\n\
    The exit status is 0, or 1 when something is refused, or 2 when there is no such file.")]
pub(super) struct Check {
    /// A tunnel of /etc/ppp/peers; or a file (with a / in its name, or ending in .nmconnection):
    /// options of pppd, or a connection of NetworkManager.
    configuration: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Only what is refused.
    #[arg(long)]
    refused: bool,
}

impl Check {
    pub(super) fn run(&self) -> ExitCode {
        let directory = ppp_directory();
        let name = &self.configuration;
        let is_file = name.contains('/') || name.ends_with(".nmconnection");
        let report = match is_file {
            true => Report::of_file(&directory, Path::new(name)),
            false => Report::of_peer(&directory, name, &host_name()),
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => return fail(error, 2),
        };
        match self.json {
            true => print_json(&report),
            false => self.print(&report),
        }
        ExitCode::from(u8::from(report.refuses()))
    }

    fn print(&self, report: &Report) {
        let row = |finding: &Finding| {
            let place = match (&finding.place.file, finding.place.line) {
                (Some(file), 0) => file.to_string(),
                (Some(file), line) => format!("{file}:{line}"),
                (None, _) => String::new(),
            };
            let option = format!("{} {}", finding.option, finding.value);
            let verdict = finding.verdict.word().to_owned();
            vec![
                verdict,
                option.trim().to_owned(),
                place,
                finding.reason.clone(),
            ]
        };
        let wanted = |finding: &&Finding| !self.refused || finding.verdict == Verdict::Refused;
        let shown: Vec<_> = report.findings.iter().filter(wanted).collect();
        let rows: Vec<_> = shown.iter().map(|finding| row(finding)).collect();
        let colour = |index: usize| match shown.get(index)?.verdict {
            Verdict::Honoured => Some("32"),
            Verdict::Harmless => Some("33"),
            Verdict::Refused => Some("1;31"),
        };
        if !rows.is_empty() {
            table::print_painted(&["VERDICT", "OPTION", "PLACE", "REASON"], &rows, colour);
        }
        for warning in &report.warnings {
            warn(warning);
        }
        let count = |verdict| {
            report
                .findings
                .iter()
                .filter(|f| f.verdict == verdict)
                .count()
        };
        print_line(format_args!(
            "{} honoured, {} harmless, {} refused",
            count(Verdict::Honoured),
            count(Verdict::Harmless),
            count(Verdict::Refused)
        ));
    }
}

fn print_json(report: &Report) {
    let finding = |finding: &Finding| {
        serde_json::json!({
            "option": finding.option,
            "value": finding.value,
            "verdict": finding.verdict.word(),
            "reason": finding.reason,
            "file": finding.place.file.as_deref(),
            "line": finding.place.line,
        })
    };
    let findings: Vec<_> = report.findings.iter().map(finding).collect();
    print_line(serde_json::json!({
        "options": findings,
        "warnings": report.warnings,
        "refused": report.refuses(),
    }));
}
