//! The program while files fail it: every operation on files of a cycle of synth, train, resume, eval, export and render is
//! refused, cut short or the moment of a kill, one at a time, or all from one on.
//!
//! `shim.c` stands between the program and libc. What is demanded of each trial: an ordinary end or one sentence with the exit
//! code 3; no panic, no hang; every checkpoint and every row that was there before is there still; and the same command, given
//! again without faults, ends with the very files that a run without faults has, and nothing beside them.
//!
//! The trainer's files are tried as [`cycle`] writes them, without a device, and the program as it is. The test suite tries a
//! share; `SEP4D_FAULTS=1000 cargo test --release --test faults` tries up to so many of each stage.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod cycle;
mod oracle;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use oracle::Contents;

/// Trials in the test suite: of a run's files, of the generator, and of each stage of the program that needs a device, which
/// takes seconds.
const MANY: usize = 200;
const SOME: usize = 30;
const FEW: usize = 2;
/// Trials side by side.
const WORKERS: usize = 2;
/// A trial takes seconds; one that takes so long hangs.
const HANG: Duration = Duration::from_secs(300);

/// Refused with these, by kind of operation: what disks, quotas and file servers answer.
const REFUSALS: [(&str, &[i32]); 13] = [
    ("create", &[ENOSPC, EACCES, EROFS, EMFILE, EIO, ESTALE, EDQUOT]),
    ("write", &[ENOSPC, EIO, EDQUOT, ESTALE, EFBIG]),
    ("sync", &[EIO, ENOSPC, EDQUOT, ESTALE]),
    ("sync-folder", &[EIO, EINVAL, EOPNOTSUPP]),
    ("rename", &[EIO, ENOSPC, EACCES, ESTALE, EROFS]),
    ("remove", &[EIO, EACCES, EROFS, ESTALE]),
    ("mkdir", &[ENOSPC, EACCES, EROFS, EIO, EDQUOT]),
    ("truncate", &[EIO, ENOSPC]),
    ("lock", &[ENOLCK, EOPNOTSUPP, EIO]),
    ("open", &[EIO, EACCES, ESTALE, EMFILE]),
    ("read", &[EIO, ESTALE]),
    ("stat", &[EIO, ESTALE, EACCES]),
    ("list", &[EIO, EACCES, ESTALE]),
];
const EINTR: i32 = 4;
const EIO: i32 = 5;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EMFILE: i32 = 24;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const ENOLCK: i32 = 37;
const EOPNOTSUPP: i32 = 95;
const ESTALE: i32 = 116;
const EDQUOT: i32 = 122;

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Refuse(i32),
    Short,
    Kill,
}

/// What goes wrong in a trial: the `number`-th operation of a kind, and with `sticky` all that follow.
#[derive(Debug, Clone)]
struct Fault {
    kind: String,
    number: usize,
    action: Action,
    sticky: bool,
    /// Of the file whose operation is the first to fail.
    path: String,
}

impl Fault {
    fn text(&self) -> String {
        let action = match self.action {
            Action::Refuse(errno) => errno.to_string(),
            Action::Short => "short".into(),
            Action::Kill => "kill".into(),
        };
        format!("{} {} {action} {}", self.kind, self.number, if self.sticky { "sticky" } else { "once" })
    }

    /// Whether nobody need notice: the call is repeated, or the file system only lacks what was asked of it.
    fn is_harmless(&self) -> bool {
        let unsupported = matches!(self.kind.as_str(), "sync-folder" | "lock");
        matches!(self.action, Action::Short | Action::Refuse(EINTR))
            || unsupported && matches!(self.action, Action::Refuse(EINVAL | EOPNOTSUPP | ENOLCK))
    }

    /// Whether it strikes a record of checked data, which has a second place, and without which the next start says that nothing
    /// was checked.
    fn is_of_record(&self) -> bool {
        self.path.contains(".sep4d-checked.json")
    }

    /// Whether going on without a word would promise what is not there.
    fn must_be_told(&self) -> bool {
        let stores = matches!(self.kind.as_str(), "write" | "sync" | "sync-folder" | "rename" | "create");
        stores && !self.is_harmless() && !self.is_of_record()
    }
}

/// What is run.
#[derive(Debug, Clone)]
enum Order {
    /// The program with these arguments.
    Program(Vec<String>),
    /// [`cycle`], in a process of its own.
    Cycle(String),
}

/// One command of the cycle; `@` in an order is the trial's folder.
struct Stage {
    name: &'static str,
    /// A folder to begin with.
    state: Option<PathBuf>,
    order: Order,
    /// What is given after a fault, if it is not the same again: a run goes on beyond its end, so that a save follows.
    beyond: Option<Order>,
    /// Below the trial's folder: what is watched, and fails.
    watched: &'static str,
}

impl Stage {
    fn new(name: &'static str) -> Stage {
        Stage { name, state: None, order: Order::Program(Vec::new()), beyond: None, watched: "" }
    }

    /// A cache only makes the next start slower: nothing may come of its faults.
    fn is_cache(&self) -> bool {
        self.watched.starts_with("cache")
    }
}

/// A stage when nothing fails.
struct Reference {
    /// Kind and path of every operation on files.
    operations: Vec<(String, String)>,
    /// What it comes to.
    end: Contents,
    /// And what it comes to after [`Stage::beyond`].
    later: Contents,
}

struct Rig {
    folder: tempfile::TempDir,
    shim: PathBuf,
}

/// How a command ended.
struct Outcome {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Rig {
    fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let shim = folder.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-o"]).args([&shim, &source]).arg("-ldl");
        assert!(compiler.status().expect("there is a C compiler").success());
        Rig { folder, shim }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program in the trial's folder `work`, below which `fault` strikes in `watched`.
    fn run(
        &self,
        order: &Order,
        work: &Path,
        watched: &str,
        fault: Option<&str>,
        log: Option<&Path>,
    ) -> Result<Outcome, String> {
        let place = |text: &str| text.replace('@', work.to_str().unwrap());
        let mut command = match order {
            Order::Program(args) => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
                command.args(args.iter().map(|arg| place(arg)));
                command
            }
            Order::Cycle(order) => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", "the_cycle_obeys", "--nocapture", "--quiet"]).env(cycle::ORDER, place(order));
                command
            }
        };
        command.env("LD_PRELOAD", &self.shim).env("FAULT_ROOT", work.join(watched));
        if watched.starts_with("cache") {
            // The driver's own cache stays where it is, so that kernels are not compiled anew.
            let home = std::env::var_os("HOME").unwrap_or_default();
            let shared = std::env::var_os("XDG_CACHE_HOME").map_or(Path::new(&home).join(".cache"), PathBuf::from);
            command.env("XDG_CACHE_HOME", work.join("cache")).env("MESA_SHADER_CACHE_DIR", shared);
        }
        command.env("SEP4D_AUTOTUNE", "0").env("RUST_BACKTRACE", "0");
        command.envs(fault.map(|fault| ("FAULT", fault))).envs(log.map(|log| ("FAULT_LOG", log)));
        let said = ["stdout", "stderr"].map(|name| work.with_extension(name));
        let [stdout, stderr] = said.each_ref().map(|path| Stdio::from(fs::File::create(path).unwrap()));
        let mut child = command.stdout(stdout).stderr(stderr).spawn().expect("the program starts");
        let began = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() > HANG => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    return Err("hangs".into());
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let [stdout, stderr] = said.map(|path| fs::read_to_string(path).unwrap());
        Ok(Outcome { status, stdout, stderr })
    }

    fn begin(&self, stage: &Stage, name: &str) -> PathBuf {
        let work = self.path(name);
        match &stage.state {
            Some(state) => copy(state, &work),
            None => fs::create_dir(&work).unwrap(),
        }
        work
    }

    fn reference(&self, stage: &Stage) -> Reference {
        let work = self.begin(stage, &format!("{}-reference", stage.name));
        let log = self.path(&format!("{}-log", stage.name));
        let run = |order: &Order, log: Option<&Path>| {
            let outcome = self.run(order, &work, stage.watched, None, log).unwrap();
            assert!(outcome.status.success(), "{}: {}", stage.name, outcome.stderr);
            oracle::contents(&work)
        };
        let end = run(&stage.order, Some(&log));
        let later = stage.beyond.as_ref().map_or_else(|| end.clone(), |beyond| run(beyond, None));
        let lines = fs::read_to_string(&log).unwrap();
        let operations = lines.lines().filter_map(|line| line.split_once(' '));
        Reference { operations: operations.map(|(kind, path)| (kind.into(), path.into())).collect(), end, later }
    }

    fn trial(&self, stage: &Stage, fault: &Fault, reference: &Reference, name: &str) -> Result<&'static str, String> {
        let work = self.begin(stage, name);
        let before = stage.state.as_ref().map(|state| state.join("run"));
        let outcome = self.run(&stage.order, &work, stage.watched, Some(&fault.text()), None)?;
        let code = outcome.status.code();
        let how = match (code, outcome.status.signal()) {
            (Some(0), _) => "went on",
            (Some(3), _) => "refused",
            (_, Some(9)) if fault.action == Action::Kill => "killed",
            other => return Err(format!("ended with {other:?}: {}", outcome.stderr)),
        };
        oracle::one_sentence(&outcome, how == "refused")?;
        if how == "refused" && fault.is_harmless() {
            return Err(format!("gave up though nothing was lost: {}", outcome.stderr));
        }
        if how == "refused" && stage.is_cache() {
            return Err(format!("gave up for a cache: {}", outcome.stderr));
        }
        if how == "went on" && fault.must_be_told() && !stage.is_cache() {
            return Err("went on without a word".into());
        }
        if let Some(before) = before {
            oracle::nothing_lost(&before, &work.join("run"))?;
        }
        oracle::announced(&outcome.stdout)?;
        // A disk that can only be read keeps the temporary file of a record too, until the next one is kept.
        if how == "went on" && !stage.is_cache() && !(fault.sticky && fault.is_of_record()) {
            return oracle::same(&oracle::contents(&work), &reference.end)
                .map(|()| how)
                .map_err(|why| format!("went on to another end: {why}"));
        }
        let outcome = self.run(stage.beyond.as_ref().unwrap_or(&stage.order), &work, stage.watched, None, None)?;
        if !outcome.status.success() {
            return Err(format!("{how}; given again: {}", outcome.stderr));
        }
        let contents = oracle::contents(&work);
        oracle::no_leftovers(&contents)?;
        // A row that could not be written is told and not measured again.
        if how != "refused" || !fault.path.contains("/metrics.") {
            oracle::same(&contents, &reference.later)
                .map_err(|why| format!("{how}; given again, it comes to another end: {why}"))?;
        }
        fs::remove_dir_all(&work).unwrap();
        Ok(how)
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Everything that may go wrong with `operations`, given by kind and path.
fn faults(operations: &[(String, String)]) -> Vec<Fault> {
    let mut all = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (before, (kind, path)) in operations.iter().enumerate() {
        let number = counts.entry(kind).or_default();
        *number += 1;
        let mut add = |kind: &str, number: usize, action: Action, sticky: bool| {
            all.push(Fault { kind: kind.into(), number, action, sticky, path: path.clone() });
        };
        if let Some((_, errors)) = REFUSALS.iter().find(|(name, _)| name == kind) {
            // Each error in turn, the next ones at the next operation.
            add(kind, *number, Action::Refuse(errors[*number % errors.len()]), false);
            add(kind, *number, Action::Refuse(errors[(*number + errors.len() / 2) % errors.len()]), false);
        }
        if matches!(kind.as_str(), "write" | "read") {
            add(kind, *number, Action::Short, false);
            add(kind, *number, Action::Refuse(EINTR), false);
        }
        if kind == "write" {
            add(kind, *number, Action::Refuse(ENOSPC), true);
        }
        if !matches!(kind.as_str(), "read" | "stat") {
            add("any", before + 1, Action::Kill, false);
            add("any", before + 1, Action::Refuse([EIO, ESTALE, EROFS][before % 3]), true);
        }
    }
    all
}

/// So many, spread over all of them, the same every time.
fn share(all: &[Fault], wanted: usize) -> Vec<Fault> {
    let wanted = wanted.min(all.len());
    (0..wanted).map(|i| all[i * all.len() / wanted].clone()).collect()
}

fn program(line: &str) -> Order {
    Order::Program(line.split_whitespace().map(str::to_owned).collect())
}

/// How many trials a stage has: `usually`, or what the user asks for.
fn wanted(usually: usize) -> usize {
    std::env::var("SEP4D_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(usually)
}

/// Tries `wanted` faults of a stage; adds what went wrong to `failures`.
fn campaign(rig: &Rig, stage: &Stage, wanted: usize, failures: &mut Vec<String>) {
    let reference = rig.reference(stage);
    let all = faults(&reference.operations);
    let chosen = share(&all, wanted);
    let (queue, counts, failed) = (Mutex::new(chosen.iter().enumerate()), Mutex::default(), Mutex::default());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some((i, fault)) = queue.lock().unwrap().next() else { break };
                    let how =
                        rig.trial(stage, fault, &reference, &format!("{}-{i}", stage.name)).unwrap_or_else(|why| {
                            let why = format!("{}, {} of {}: {why}", stage.name, fault.text(), fault.path);
                            println!("{why}");
                            let mut failed: MutexGuard<'_, Vec<String>> = failed.lock().unwrap();
                            failed.push(why);
                            "failed"
                        });
                    let mut counts: MutexGuard<'_, BTreeMap<&str, usize>> = counts.lock().unwrap();
                    *counts.entry(how).or_default() += 1;
                }
            });
        }
    });
    failures.append(&mut failed.into_inner().unwrap());
    let counts = counts.into_inner().unwrap();
    let (operations, tried, possible) = (reference.operations.len(), chosen.len(), all.len());
    println!("{}: {operations} operations, {tried} of {possible} faults tried: {counts:?}", stage.name);
}

fn judge(failures: &[String]) {
    assert!(failures.is_empty(), "{} trials failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_cycle_obeys() {
    cycle::obey();
}

const SYNTH: &str = "synth @/town --grid 8x8x4 --voxel-size 3.2x3.2x0.75 --towns 1 --val-towns 1 --test-towns 0 --frames 2 --scenes light";

#[test]
fn whatever_file_operation_of_a_run_fails_nothing_is_lost_and_one_sentence_says_so() {
    let rig = Rig::new();
    let cycle = |text: &str| Order::Cycle(text.to_owned());
    let trained = rig.path("trained");
    fs::create_dir(&trained).unwrap();
    assert!(rig.run(&cycle("@/run 4"), &trained, "nothing", None, None).unwrap().status.success());
    let stages = [
        Stage { order: cycle("@/run 4"), beyond: Some(cycle("@/run 6")), ..Stage::new("files-of-train") },
        Stage {
            state: Some(trained),
            order: cycle("@/run 7"),
            beyond: Some(cycle("@/run 9")),
            ..Stage::new("files-of-resume")
        },
    ];
    let mut failures = Vec::new();
    for stage in stages {
        campaign(&rig, &stage, wanted(MANY), &mut failures);
    }
    judge(&failures);
}

#[test]
fn whatever_file_operation_of_the_program_fails_nothing_is_lost_and_one_sentence_says_so() {
    let rig = Rig::new();
    let (state, trained) = (rig.path("state"), rig.path("trained"));
    fs::create_dir(&state).unwrap();
    fs::create_dir(&trained).unwrap();
    let run = |order: &Order, work: &Path| {
        let outcome = rig.run(order, work, "nothing", None, None).unwrap();
        assert!(outcome.status.success(), "{}", outcome.stderr);
    };
    run(&program(SYNTH), &state);
    // One learning rate and a validation each step, so that a step does not depend on how many are to follow.
    let train = format!(
        "--train --preset tiny --data {}/town --output @/run --resume-or-start --set data.validation_clips=1 \
         --set train.checkpoint_every=1 --set train.validate_every=1 --set train.log_every=1 --set train.milestones=[]",
        state.display()
    );
    let begin = program(&format!("{train} --set train.steps=3"));
    run(&begin, &trained);
    let steps = |steps: u32| program(&format!("{train} --set train.steps={steps}"));
    let on_trained = |name, order: Order| Stage { state: Some(trained.clone()), order, ..Stage::new(name) };
    let stages = [
        Stage { order: program(SYNTH), ..Stage::new("synth") },
        Stage { order: begin.clone(), beyond: Some(steps(5)), ..Stage::new("train") },
        Stage { beyond: Some(steps(7)), ..on_trained("resume", steps(5)) },
        on_trained("eval", program("eval @/run --json")),
        on_trained("export", program("export @/run @/out --clips 1")),
        on_trained("render", program("render @/run")),
        Stage { order: begin.clone(), beyond: Some(steps(5)), watched: "cache/sep4d", ..Stage::new("cache") },
    ];
    let mut failures = Vec::new();
    for stage in stages {
        let usually = if stage.name == "synth" { SOME } else { FEW };
        campaign(&rig, &stage, wanted(usually), &mut failures);
    }
    judge(&failures);
}
