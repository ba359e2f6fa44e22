//! One table for each kind of work.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::stats::{median, median_of};
use crate::turns::{Row, Work};

/// Returns the tables as Markdown; ratios are those of the same turn, to the first of the gateways.
pub(crate) fn table(rows: &[Row], names: &[&str]) -> String {
    let mut text = String::new();
    for (work, title) in [
        (Work::Closed, "closed loop, 64 connections: CPU for a request, in microseconds"),
        (Work::Large, "answers of 1 MiB, 8 connections: CPU for each, in microseconds"),
        (Work::Fixed, "a fixed rate, 64 connections: CPU for a request, in microseconds"),
    ] {
        let of_work: Vec<&Row> = rows.iter().filter(|row| row.work == work).collect();
        if !of_work.is_empty() {
            // Writing into a text does not fail.
            let _ = writeln!(text, "\n{title}\n");
            one(&mut text, &of_work, names);
        }
    }
    text
}

fn one(text: &mut String, rows: &[&Row], names: &[&str]) {
    let first = names.first().copied().unwrap_or_default();
    let _ = writeln!(
        text,
        "| | CPU | user | system | to {first} | 95 % of that | requests/s | p50 | p99 | turns |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
    let of = |name: &str| -> BTreeMap<usize, &Row> {
        let own = rows.iter().filter(|row| row.gateway == name);
        own.map(|row| (row.turn, *row)).collect()
    };
    let base = of(first);
    for name in names {
        let own = of(name);
        let all =
            |value: &dyn Fn(&Row) -> f64| own.values().map(|row| value(row)).collect::<Vec<_>>();
        let middle = |value: &dyn Fn(&Row) -> f64| median(&all(value));
        let mean = |value: &dyn Fn(&Row) -> f64| {
            let all = all(value);
            all.iter().sum::<f64>() / all.len() as f64
        };
        let ratios = own.iter().filter_map(|(turn, row)| Some(row.cpu / base.get(turn)?.cpu));
        let ratio = median_of(&ratios.collect::<Vec<_>>());
        let _ = writeln!(
            text,
            "| {name} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} to {:.2} | {:.0} | {:.0} | {:.0} | {} |",
            middle(&|row| row.cpu),
            mean(&|row| row.user),
            mean(&|row| row.system),
            ratio.value,
            ratio.low,
            ratio.high,
            middle(&|row| row.outcome.answered as f64 / row.outcome.seconds),
            middle(&|row| row.outcome.p50),
            middle(&|row| row.outcome.p99),
            own.len(),
        );
    }
}
