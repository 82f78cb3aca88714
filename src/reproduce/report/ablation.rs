//! What width and alignment are worth: at equal latent floats, steps and time, beside frames that are coded one by one.

use super::super::plan::{ALIGNED, Scale, Study, Variant};
use super::super::table::{Cell, Spread, Table};
use super::{Findings, MEASURED, Measured};

/// The 97.5 % quantile of Student's t distribution for 1, 2, ... degrees of freedom.
const STUDENT: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/// Distances from the middle frame that have a column of their own; the last one stands for all beyond it.
const DISTANCES: [usize; 5] = [0, 1, 2, 4, 8];

impl Findings<'_> {
    /// Its tables.
    pub(super) fn ablation(&self) -> Vec<Table> {
        let equal_time = self.equal_time(Study::Ablation, "ablation-equal-time");
        [vec![self.at_equal_steps(), equal_time, self.by_distance()], self.ablation_by_class()].concat()
    }

    fn at_equal_steps(&self) -> Table {
        let mut table = Table::new(
            "ablation",
            "Ablation: equal latent floats, equal steps",
            &[&["model", "T"], &MEASURED[..]].concat(),
        );
        let (variants, lengths) = Study::Ablation.compares(&Scale::FRAMES);
        for &frames in &lengths {
            for variant in &variants {
                let head = [Cell::Text(variant.title.into()), Cell::Text(frames.to_string())];
                let costs = self.costs(variant, frames);
                table.rows.push(head.into_iter().chain(costs).chain(self.scores(variant, frames)).collect());
            }
            let others = variants.iter().filter(|variant| **variant != &ALIGNED);
            table.notes.extend(others.filter_map(|other| self.note_of_lead(&ALIGNED, other, frames)));
        }
        table.notes.push(
            "A latent of planes has as many floats with any width of features; the controls have at most as many, and at least one channel. \
             The motion of aligned frames counts as six floats a frame."
                .into(),
        );
        table
    }

    fn note_of_lead(&self, variant: &Variant, over: &Variant, frames: usize) -> Option<String> {
        let (Spread { mean, deviation }, seeds) = self.lead(variant, over, frames)?;
        let sure = match deviation {
            Some(deviation) => {
                let limit =
                    STUDENT.get(seeds.saturating_sub(2)).copied().unwrap_or(1.96) * deviation / (seeds as f64).sqrt();
                let verdict = if mean.abs() > limit { "beyond chance" } else { "may be chance" };
                format!(" ± {deviation:.2}, {seeds} seeds, paired; {verdict} (t test, 5 %)")
            }
            None => " (one seed: no ranking)".into(),
        };
        Some(format!("T = {frames}, mIoU of \"{}\" less that of \"{}\": {mean:+.2}{sure}.", variant.title, over.title))
    }

    /// mIoU of frames by how far they are from the middle one.
    fn by_distance(&self) -> Table {
        let mut table =
            Table::new("ablation-by-frame", "Ablation: mIoU by distance from the middle frame, %", &["model", "T"]);
        table.columns.extend(DISTANCES.windows(2).map(|pair| match pair[1] - pair[0] {
            1 => pair[0].to_string(),
            _ => format!("{} to {}", pair[0], pair[1] - 1),
        }));
        let farthest = DISTANCES[DISTANCES.len() - 1];
        table.columns.push(format!("{farthest} and more"));
        let (variants, lengths) = Study::Ablation.compares(&Scale::FRAMES);
        for (&frames, variant) in lengths.iter().flat_map(|t| variants.iter().map(move |variant| (t, variant))) {
            let at = |i: usize| {
                let (low, high) = (DISTANCES[i], DISTANCES.get(i + 1).copied().unwrap_or(usize::MAX));
                let miou = |m: &Measured| {
                    let per_frame = m.outcome.evaluation.per_frame.iter().enumerate();
                    let near = per_frame.filter(|(t, _)| (low..high).contains(&t.abs_diff(frames / 2)));
                    Spread::of(near.filter_map(|(_, scores)| Some(100.0 * scores.miou?))).map(|spread| spread.mean)
                };
                Cell::spread(self.spread(variant, frames, miou), 2)
            };
            let head = [Cell::Text(variant.title.into()), Cell::Text(frames.to_string())];
            table.rows.push(head.into_iter().chain((0..DISTANCES.len()).map(at)).collect());
        }
        table
    }

    /// IoU by class and the mean over those that move; one table for each length.
    fn ablation_by_class(&self) -> Vec<Table> {
        let (variants, lengths) = Study::Ablation.compares(&Scale::FRAMES);
        let Some(first) = self.measured.first() else { return Vec::new() };
        let classes = &first.outcome.classes;
        // Earlier outcomes do not say.
        let movers = self.measured.iter().map(|m| &m.outcome.movers).find(|movers| !movers.is_empty());
        let moves = |class: &usize| movers.is_some_and(|movers| movers.contains(class));
        let of_length = |&frames: &usize| {
            let title = format!("Ablation: IoU by class, T = {frames}, %");
            let mut table = Table::new(&format!("ablation-classes-t{frames}"), &title, &["model", "moving", "still"]);
            table.columns.extend(classes.iter().skip(1).cloned());
            for variant in &variants {
                let iou = |m: &Measured, c: usize| {
                    m.outcome.evaluation.total.per_class.get(c).copied().flatten().map(|iou| 100.0 * iou)
                };
                let mean = |moving: bool| {
                    let of = |m: &Measured| {
                        let chosen = (1..classes.len()).filter(|class| moves(class) == moving);
                        Spread::of(chosen.filter_map(|c| iou(m, c))).map(|spread| spread.mean)
                    };
                    Cell::spread(self.spread(variant, frames, of), 2)
                };
                let each = (1..classes.len()).map(|c| Cell::spread(self.spread(variant, frames, |m| iou(m, c)), 2));
                let head = [Cell::Text(variant.title.into()), mean(true), mean(false)];
                table.rows.push(head.into_iter().chain(each).collect());
            }
            table
        };
        lengths.iter().map(of_length).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;
    use crate::data::synth::GRID;
    use crate::reproduce::Outcome;
    use crate::reproduce::plan::{Run, runs};
    use crate::train::metrics::{Evaluation, Scores};
    use crate::train::run_folder::{History, ScoredOn};

    /// Three classes, of which the last one moves: its IoU is half of the others', and frames get worse by 0.01 from the middle on.
    fn measured(run: &Run, iou: f64) -> Measured {
        let scores = |iou: f64| Scores {
            iou: Some(iou),
            miou: Some(iou),
            per_class: vec![Some(1.0), Some(iou), Some(iou / 2.0)],
        };
        let distance = |t: usize| t.abs_diff(run.frames / 2) as f64;
        let evaluation = Evaluation {
            clips: 1,
            total: scores(iou),
            per_frame: (0..run.frames).map(|t| scores(iou - 0.01 * distance(t))).collect(),
            codes: Vec::new(),
        };
        let outcome = Outcome {
            steps: 1,
            seconds: 1.0,
            adapter: String::new(),
            version: String::new(),
            parameters: 1,
            planned_bytes: 1,
            latent_floats: 1,
            code_bits: 0.0,
            compression_ratio: 1.0,
            data: ScoredOn { grid: GRID, split: Split::Test, clips: 1, sequences: Vec::new() },
            classes: ["Free", "Road", "Vehicle"].map(str::to_owned).to_vec(),
            movers: vec![2],
            evaluation,
        };
        Measured { run: run.clone(), outcome, history: History::default() }
    }

    #[test]
    fn leads_are_paired_and_say_whether_they_may_be_chance() {
        let of = |run: &Run| match (run.variant.name, run.seed) {
            ("sep4d-aligned", seed) => 0.80 + 0.01 * seed as f64,
            // Always 0.1 behind, but for a hair.
            ("sep4d-narrow", seed) => 0.70 + 0.01 * seed as f64 + 0.001 * (seed % 2) as f64,
            // Ahead and behind.
            (_, seed) => 0.76 + 0.06 * seed as f64,
        };
        let measured: Vec<Measured> =
            runs(&[Study::Ablation], Scale::Small, None).iter().map(|run| measured(run, of(run))).collect();
        assert_eq!(measured.len(), 6 * 3 * 3);
        let tables = Findings { scale: Scale::Small, measured: &measured }.ablation();
        let notes = tables[0].notes.join("\n");
        let to_narrow = "T = 8, mIoU of \"SEP-4D, frames aligned by pose\" less that of \"SEP-4D, features as narrow as the latent\"";
        assert!(
            notes.contains(&format!("{to_narrow}: +9.97 ± 0.06, 3 seeds, paired; beyond chance (t test, 5 %).")),
            "{notes}"
        );
        assert!(notes.contains("(control)\": -1.00 ± 5.00, 3 seeds, paired; may be chance"), "{notes}");

        let cell = |table: &Table, name: &str, column: usize| {
            let row = table.rows.iter().rfind(|row| row[0] == Cell::Text(name.into())).unwrap();
            row[column].text()
        };
        let by_frame = tables.iter().find(|table| table.name == "ablation-by-frame").unwrap();
        assert_eq!(by_frame.columns[2..], ["0", "1", "2 to 3", "4 to 7", "8 and more"]);
        let aligned = |column| cell(by_frame, "SEP-4D, frames aligned by pose", column);
        // At T = 16, the last rows.
        assert_eq!([2, 3, 4, 6].map(aligned), ["81.00 ± 1.00", "80.00 ± 1.00", "78.50 ± 1.00", "73.00 ± 1.00"]);
        let by_class = tables.iter().find(|table| table.name == "ablation-classes-t16").unwrap();
        assert_eq!(by_class.columns, ["model", "moving", "still", "Road", "Vehicle"]);
        let aligned = |column| cell(by_class, "SEP-4D, frames aligned by pose", column);
        assert_eq!([1, 2].map(aligned), ["40.50 ± 0.50", "81.00 ± 1.00"]);
    }
}
