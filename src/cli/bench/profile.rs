//! Where the time of a step goes: a row for each kernel, op or part of the model.

use serde::Serialize;

use sep4d::Result;
use sep4d::graph::execute::OpProfile;
use sep4d::roofline::Ceilings;
use sep4d::train::session::Session;

use super::super::table::table;

/// A step is profiled so often; each launch counts with its median.
const PROFILES: usize = 5;

/// Rows with a smaller share of the step are printed as one.
const LEAST_SHARE: f64 = 0.01;

/// What a row of the table stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// An entry point of a shader
    Kernel,
    /// An operation of the graph, which may launch several kernels
    Op,
    /// A part of the model, forward and backward
    Part,
}

/// All launches that have a name in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Of the kernel, op or part.
    pub name: String,
    /// Dispatches in a step; one that launches of several rows share counts in parts.
    pub launches: f64,
    /// Seconds in a step.
    pub secs: f64,
    /// Operations. Those of an op count where its longest kernel does.
    pub flops: u64,
    /// Bytes of operands and results, attributed likewise.
    pub bytes: u64,
    /// Fewest seconds that the adapter's ceilings allow for them.
    pub least_secs: f64,
    /// Of these, what computing sets rather than moving bytes.
    pub computing_secs: f64,
}

/// Profiles a step; the rows come longest first.
///
/// # Errors
/// As [`Session::profile`].
pub fn profile(session: &mut Session, ceilings: &Ceilings, by: By) -> Result<Vec<Row>> {
    let profiles = (0..PROFILES).map(|_| session.profile()).collect::<Result<Vec<_>>>()?;
    Ok(rows(&median(profiles), ceilings, by))
}

/// Median of `values`; 0 if there is none.
pub fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// One profile with the median time of each launch; all have the same launches.
fn median(profiles: Vec<Vec<OpProfile>>) -> Vec<OpProfile> {
    let mut result = profiles.first().cloned().unwrap_or_default();
    for (i, op) in result.iter_mut().enumerate() {
        for (j, launch) in op.launches.iter_mut().enumerate() {
            launch.secs = median_of(profiles.iter().map(|profile| profile[i].launches[j].secs).collect());
        }
    }
    result
}

fn rows(ops: &[OpProfile], ceilings: &Ceilings, by: By) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for op in ops {
        let longest = (0..op.launches.len()).max_by(|&a, &b| op.launches[a].secs.total_cmp(&op.launches[b].secs));
        for (i, launch) in op.launches.iter().enumerate() {
            let name = match by {
                By::Kernel => launch.kernel.to_owned(),
                By::Op => op.op.to_owned(),
                // Gradients of a tensor with several uses are added up outside any part.
                By::Part if op.scope.is_empty() => "no part".to_owned(),
                By::Part => op.scope.split('.').take(2).collect::<Vec<_>>().join("."),
            };
            let (flops, bytes) = if Some(i) == longest { (op.flops, op.bytes) } else { (0, 0) };
            let (least_secs, computes) = ceilings.least_secs(flops, launch.on_matrix_units, bytes);
            let computing_secs = if computes { least_secs } else { 0.0 };
            let launch =
                Row { name, launches: launch.share, secs: launch.secs, flops, bytes, least_secs, computing_secs };
            match rows.iter_mut().find(|row| row.name == launch.name) {
                Some(row) => row.add(&launch),
                None => rows.push(launch),
            }
        }
    }
    // Parts of a dispatch add up to it but for rounding.
    rows.iter_mut().for_each(|row| row.launches = (row.launches * 1e3).round() * 1e-3);
    rows.sort_by(|a, b| b.secs.total_cmp(&a.secs));
    rows
}

impl Row {
    fn add(&mut self, other: &Row) {
        self.launches += other.launches;
        self.secs += other.secs;
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.least_secs += other.least_secs;
        self.computing_secs += other.computing_secs;
    }

    /// `rows` in one, named `name`.
    fn sum(name: String, rows: &[Row]) -> Row {
        let mut sum = Row { name, launches: 0.0, secs: 0.0, flops: 0, bytes: 0, least_secs: 0.0, computing_secs: 0.0 };
        rows.iter().for_each(|row| sum.add(row));
        sum
    }
}

/// The rows as people read them, small ones in one, with their sum below.
pub fn render(rows: &[Row], by: By) -> String {
    let total = Row::sum("all".into(), rows);
    let (large, small) = rows.split_at(rows.partition_point(|row| row.secs >= LEAST_SHARE * total.secs));
    let cells = |row: &Row| {
        let rate = |amount: u64| if row.secs > 0.0 { amount as f64 * 1e-9 / row.secs } else { 0.0 };
        let percent =
            |part: f64, whole: f64| if whole > 0.0 { format!("{:.1}", 100.0 * part / whole) } else { "-".into() };
        vec![
            row.name.clone(),
            format!("{:.0}", row.launches),
            format!("{:.2}", row.secs * 1e3),
            percent(row.secs, total.secs),
            format!("{:.2}", row.flops as f64 * 1e-9),
            format!("{:.1}", row.bytes as f64 / f64::from(1 << 20)),
            format!("{:.1}", rate(row.flops)),
            format!("{:.1}", rate(row.bytes)),
            percent(row.least_secs, row.secs),
            if 2.0 * row.computing_secs > row.least_secs { "compute" } else { "memory" }.into(),
        ]
    };
    let mut lines: Vec<Vec<String>> = large.iter().map(cells).collect();
    // A sum has no bound of its own.
    let sums = [Row::sum(format!("{} others", small.len()), small), Row::sum("all".into(), rows)];
    for sum in sums.iter().filter(|sum| sum.launches > 0.0) {
        let mut line = cells(sum);
        line.pop();
        lines.push(line);
    }
    let name = match by {
        By::Kernel => "kernel",
        By::Op => "op",
        By::Part => "part",
    };
    let mut text =
        table(&[name, "dispatches", "ms", "%", "GFLOP", "MiB", "GFLOP/s", "GB/s", "% of roof", "roof"], &lines);
    if rows.iter().any(|row| row.least_secs > row.secs) {
        text += "Above 100 % of the roof: operands stayed in a cache, or Winograd's algorithm multiplied less than is counted.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use sep4d::graph::execute::LaunchProfile;

    use super::*;

    const CEILINGS: Ceilings =
        Ceilings { flops_per_sec: 100.0, matrix_flops_per_sec: Some(400.0), bytes_per_sec: 10.0 };

    fn op(scope: &str, flops: u64, bytes: u64, launches: &[(&'static str, f64)]) -> OpProfile {
        let launch =
            |&(kernel, secs)| LaunchProfile { kernel, on_matrix_units: kernel == "matrices", share: 1.0, secs };
        OpProfile { op: "conv", scope: scope.into(), flops, bytes, launches: launches.iter().map(launch).collect() }
    }

    #[test]
    fn work_counts_once_where_the_longest_kernel_does() {
        let ops =
            [op("decoder.res3.a", 200, 5, &[("pack", 1.0), ("multiply", 4.0)]), op("loss", 0, 10, &[("pack", 2.0)])];
        let found = rows(&ops, &CEILINGS, By::Kernel);
        let row = |name: &str, secs, flops, bytes, least_secs, computing_secs| Row {
            name: name.into(),
            launches: if name == "pack" { 2.0 } else { 1.0 },
            secs,
            flops,
            bytes,
            least_secs,
            computing_secs,
        };
        assert_eq!(found, [row("multiply", 4.0, 200, 5, 2.0, 2.0), row("pack", 3.0, 0, 10, 1.0, 0.0)]);
        let names = |by| rows(&ops, &CEILINGS, by).into_iter().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(By::Op), ["conv"]);
        assert_eq!(names(By::Part), ["decoder.res3", "loss"]);
    }

    #[test]
    fn matrix_units_have_a_ceiling_of_their_own() {
        let found = rows(&[op("a", 200, 1, &[("matrices", 4.0)])], &CEILINGS, By::Kernel);
        assert_eq!((found[0].least_secs, found[0].computing_secs), (0.5, 0.5));
    }

    #[test]
    fn small_rows_are_printed_as_one() {
        let ops = [op("a", 200, 5, &[("a", 200.0)]), op("b", 0, 1, &[("b", 1.0)]), op("c", 0, 1, &[("c", 1.0)])];
        let text = render(&rows(&ops, &CEILINGS, By::Kernel), By::Kernel);
        let first: Vec<_> = text.lines().map(|line| line.split("  ").next().unwrap_or_default()).collect();
        assert_eq!(first, ["kernel", "a", "2 others", "all"]);
    }

    #[test]
    fn rates_above_the_roof_are_explained() {
        let explained = |secs| {
            let text = render(&rows(&[op("a", 200, 1, &[("a", secs)])], &CEILINGS, By::Kernel), By::Kernel);
            text.ends_with("counted.\n")
        };
        assert!(explained(1.9) && !explained(2.1));
    }

    #[test]
    fn each_launch_counts_with_its_median() {
        let profile = |secs| vec![op("a", 1, 1, &[("k", secs)])];
        assert_eq!(median(vec![profile(5.0), profile(1.0), profile(2.0)]), profile(2.0));
    }
}
