//! Tables of figures, as Markdown, CSV and JSON.

use serde::Serialize;

/// Mean and sample deviation of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// How far they lie from it, where there are two or more.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of these numbers; `None` if there are none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let numbers: Vec<f64> = numbers.into_iter().collect();
        let count = numbers.len() as f64;
        let mean = (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / count)?;
        let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
        Some(Spread { mean, deviation: (numbers.len() > 1).then(|| (squares / (count - 1.0)).sqrt()) })
    }
}

/// What stands in a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Words, or a number that is written as it is.
    Text(String),
    /// A number of several runs, with so many decimals.
    Spread(Spread, usize),
    /// Nothing was measured, or published.
    None,
}

impl Cell {
    /// A mean with its deviation.
    pub fn spread(spread: Option<Spread>, decimals: usize) -> Cell {
        spread.map_or(Cell::None, |spread| Cell::Spread(spread, decimals))
    }

    /// One number.
    pub fn number(number: Option<f64>, decimals: usize) -> Cell {
        number.map_or(Cell::None, |number| Cell::Text(format!("{number:.decimals$}")))
    }

    /// For people.
    pub fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            &Cell::Spread(Spread { mean, deviation: Some(deviation) }, decimals) => {
                format!("{mean:.decimals$} ± {deviation:.decimals$}")
            }
            &Cell::Spread(Spread { mean, .. }, decimals) => format!("{mean:.decimals$}"),
            Cell::None => "-".into(),
        }
    }

    /// For programs: the number, and its deviation.
    fn values(&self) -> [String; 2] {
        match self {
            Cell::Text(text) => [quoted(text), String::new()],
            Cell::Spread(Spread { mean, deviation }, _) => {
                [mean.to_string(), deviation.map_or(String::new(), |deviation| deviation.to_string())]
            }
            Cell::None => Default::default(),
        }
    }
}

/// A table with what must be said about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// The stem of its file.
    pub name: String,
    /// Above it.
    pub title: String,
    /// Headings.
    pub columns: Vec<String>,
    /// As many cells a row as there are columns.
    pub rows: Vec<Vec<Cell>>,
    /// Below it, a sentence or more each.
    pub notes: Vec<String>,
}

impl Table {
    /// An empty one.
    pub fn new(name: &str, title: &str, columns: &[&str]) -> Table {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Table { name: name.into(), title: title.into(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// With a heading above and the notes below.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let rule = self.columns.iter().enumerate().map(|(i, _)| if i == 0 { "---" } else { "--:" }.into());
        let rows = self.rows.iter().map(|row| line(row.iter().map(Cell::text).collect()));
        let notes: String = self.notes.iter().map(|note| format!("- {note}\n")).collect();
        let head = format!("## {}\n\n{}{}", self.title, line(self.columns.clone()), line(rule.collect()));
        format!("{head}{}\n{notes}{}", rows.collect::<String>(), if notes.is_empty() { "" } else { "\n" })
    }

    /// A column for each mean and, where there are several runs, one for its deviation.
    pub fn csv(&self) -> String {
        let spreads = |i: usize| self.rows.iter().any(|row| matches!(row.get(i), Some(Cell::Spread(..))));
        let line = |cell: &dyn Fn(usize) -> [String; 2]| {
            let parts = (0..self.columns.len()).flat_map(|i| {
                let [value, deviation] = cell(i);
                [Some(value), spreads(i).then_some(deviation)].into_iter().flatten()
            });
            parts.collect::<Vec<_>>().join(",") + "\n"
        };
        let head = line(&|i| [quoted(&self.columns[i]), quoted(&format!("{} deviation", self.columns[i]))]);
        let rows = self.rows.iter().map(|row| line(&|i| row[i].values()));
        head + &rows.collect::<String>()
    }
}

/// A field of a CSV file (RFC 4180).
fn quoted(text: &str) -> String {
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_mean_and_the_sample_deviation() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([2.0]), Some(Spread { mean: 2.0, deviation: None }));
        assert_eq!(Spread::of([1.0, 3.0, 5.0]), Some(Spread { mean: 3.0, deviation: Some(2.0) }));
    }

    #[test]
    fn a_table_is_written_for_people_and_for_programs() {
        let mut table = Table::new("t", "A table", &["model", "mIoU, %", "published"]);
        table.rows.push(vec![
            Cell::Text("a, b".into()),
            Cell::spread(Spread::of([1.0, 2.0]), 1),
            Cell::number(Some(3.25), 2),
        ]);
        table.rows.push(vec![Cell::Text("c".into()), Cell::None, Cell::None]);
        table.notes.push("A note.".into());
        let expected = "## A table\n\n| model | mIoU, % | published |\n| --- | --: | --: |\n| a, b | 1.5 ± 0.7 | 3.25 |\n\
                        | c | - | - |\n\n- A note.\n\n";
        assert_eq!(table.markdown(), expected);
        let deviation = 0.5f64.sqrt();
        assert_eq!(
            table.csv(),
            format!("model,\"mIoU, %\",\"mIoU, % deviation\",published\n\"a, b\",1.5,{deviation},3.25\nc,,,\n")
        );
    }
}
