//! The files of a training run without its training: what the trainer writes and reads, in its order, with a model of two
//! numbers. It takes milliseconds where the program, which builds its kernels first, takes seconds, so that every operation
//! can be tried. It runs as a process of its own, for the fault shim and for kills.

use std::path::{Path, PathBuf};

use sep4d::data::Cursor;
use sep4d::models::Terms;
use sep4d::train::checkpoint::{Best, Checkpoint, Index};
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::events::{StepMetrics, ValidationMetrics};
use sep4d::train::metrics::{Confusion, Tally};
use sep4d::train::run_folder::{Environment, Row, RunFolder, WriterLock};
use sep4d::train::session::{NamedTensor, TrainingState};
use sep4d::{Error, Result};

/// Names what the process is to do: "FOLDER STEPS" begins the run or goes on with it, to that many steps.
pub const ORDER: &str = "FAULT_CYCLE";

/// Does what [`ORDER`] says and ends the process as the program would; returns if there is no order.
pub fn obey() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = order.split(' ').collect();
    let [folder, steps] = words[..] else { panic!("{order} is no order") };
    let done = train(Path::new(folder), steps.parse().expect("a number"));
    if let Err(why) = &done {
        eprintln!("error: {why}");
    }
    std::process::exit(done.map_or_else(|why| why.exit_code(), |()| 0));
}

/// The run as the trainer keeps it.
struct Run {
    folder: RunFolder,
    config: RunConfig,
    index: Index,
    _lock: WriterLock,
}

fn train(path: &Path, steps: u32) -> Result<()> {
    let mut config = RunConfig::preset(Preset::Tiny, None);
    let begun = RunFolder::find(path)?;
    let resume = begun.is_some();
    let (folder, lock, found) = match begun {
        Some(folder) => {
            config = folder.config()?;
            let lock = WriterLock::take(path)?;
            folder.remove_leftovers();
            let newest = folder.checkpoints().latest()?;
            for why in newest.passed_over {
                eprintln!("warning: {why}");
            }
            (folder, lock, newest.found)
        }
        None => {
            let (folder, lock) = RunFolder::create(path, &config)?;
            (folder, lock, None)
        }
    };
    let begun = found.map_or(0, |(_, checkpoint)| checkpoint.state.steps);
    let begin = || {
        let index = if resume { folder.index_up_to(begun)? } else { Index::default() };
        if resume {
            folder.write_config(&config)?;
        }
        folder.add_environment(environment(begun))?;
        Ok((index, folder.open_metrics(begun)?))
    };
    let (index, mut log) = begin().inspect_err(|_: &Error| {
        if !resume {
            folder.discard();
        }
    })?;
    let mut run = Run { folder, config, index, _lock: lock };
    for step in begun + 1..=steps {
        let end = take_step(&mut run, step, &mut |row| log.append(&row));
        if let Err(why) = end {
            // As the trainer does: the steps so far are saved if that is possible, and the first error is told.
            let _ = save(&mut run, step);
            return Err(why);
        }
    }
    Ok(())
}

fn take_step(run: &mut Run, step: u32, append: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
    append(Row::Step(step_metrics(step)))?;
    if step.is_multiple_of(2) {
        // The second validation is the best.
        let miou = if step == 4 { 0.5 } else { 0.25 };
        let is_best = run.index.best.is_none_or(|best| miou > best.miou);
        if is_best {
            run.index.best = Some(Best { step, miou });
        }
        let mut evaluation = Tally::new(2, 2).evaluation();
        evaluation.total.miou = Some(miou);
        let confusion = Confusion::new(2);
        append(Row::Validation(ValidationMetrics {
            step,
            seconds: 0.5,
            is_best,
            evaluation,
            confusion,
            clips: vec![],
        }))?;
    }
    save(run, step)
}

fn save(run: &mut Run, step: u32) -> Result<()> {
    let tensors = |start: u32| {
        vec![NamedTensor { name: "weight".into(), shape: vec![2], values: vec![start as f32, (start * step) as f32] }]
    };
    let state = TrainingState {
        averages: None,
        parameters: tensors(1),
        first_moments: tensors(2),
        second_moments: tensors(3),
        steps: step,
        skipped: 0,
        loss_scale: None,
    };
    let cursor = Cursor { epoch: 0, position: step as usize };
    let checkpoint = Checkpoint { config: run.config.clone(), state, cursor };
    let checkpoints = run.folder.checkpoints();
    let path: PathBuf = checkpoints.save(&checkpoint, &run.index)?;
    checkpoints.prune(step, &run.index, run.config.train.keep_last)?;
    println!("saved {}", path.display());
    Ok(())
}

fn step_metrics(step: u32) -> StepMetrics {
    StepMetrics {
        step,
        elapsed_secs: f64::from(step),
        steps_per_sec: 1.0,
        learning_rate: 1e-3,
        loss: 1.0 / step as f32,
        cross_entropy: 0.5,
        lovasz: 0.75,
        terms: Terms::of([("kl", 0.1)]),
        gradient_norm: 3.0,
        loss_scale: 1.0,
        skipped: 0,
    }
}

fn environment(from_step: u32) -> Environment {
    Environment {
        version: "0".into(),
        system: "linux".into(),
        cores: 1,
        adapter: "a".into(),
        backend: "b".into(),
        driver: "c".into(),
        tuning: Default::default(),
        command_line: vec!["sep4d".into()],
        started_unix_secs: 0,
        from_step,
        scored_on: None,
    }
}
