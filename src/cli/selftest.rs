//! `sep4d selftest`: every kernel against its f64 reference on this adapter.

use sep4d::gpu::{BuildProgress, Context};
use sep4d::selftest::{self, Scope};
use sep4d::{Error, Result, layers};

use super::console::Console;
use super::output::{say, tell};

/// Check every kernel and gradient against an f64 reference on this adapter
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Adapter: its number or a part of its name (see `sep4d devices`)
    #[arg(long, default_value = "best")]
    device: String,
    /// Only the cases whose name contains this
    #[arg(long, default_value = "")]
    filter: String,
    /// Also the kernels that only other kinds of adapters run, where this one can run them
    #[arg(long)]
    all_kernels: bool,
}

/// Prints a row a case as it is done.
///
/// # Errors
/// [`Error::Device`] if a kernel does not run or is not accurate enough, [`Error::Usage`] if no case has that name.
pub fn run(args: Args) -> Result<()> {
    let Ok(choice) = args.device.parse();
    let cases: Vec<_> = layers::cases().into_iter().filter(|case| case.name.contains(&args.filter)).collect();
    if cases.is_empty() {
        return Err(Error::Usage(format!(
            "no case has {:?} in its name; run `sep4d selftest` to see them",
            args.filter
        )));
    }
    let context = Context::open(&choice)?;
    let width = cases.iter().map(|case| case.name.chars().count()).max().unwrap_or(0);
    say!("relative errors against f64 on {} ({})", context.adapter.name, context.adapter.driver.trim())?;
    say!("{:<width$}  {:>9}  {:>9}  {:>9}  {:>9}", "op", "forward", "backward", "f16 fwd", "f16 bwd")?;
    let (console, mut foretold) = (Console::new(0, "kernels"), false);
    let building = |BuildProgress { done, all, left }: BuildProgress| {
        if done == 0 {
            console.begin(0, all as u64);
        }
        console.advance(done as u64, String::new());
        if let (Some(left), false, false) = (left, foretold, console.has_bar()) {
            foretold = true;
            tell(&format!("building {all} kernels, about {:.0} s left", left.as_secs_f64().ceil()));
        }
        if done == all {
            console.end();
        }
    };
    let mut failed = Vec::new();
    let scope = if args.all_kernels { Scope::Any } else { Scope::Adapter };
    selftest::compare_all(&context, &cases, scope, building, |case, agreement| {
        let (verdict, is_well) = match agreement {
            Ok(agreement) if agreement.acceptable() => (format!("{agreement}  ok"), true),
            Ok(agreement) => (format!("{agreement}  FAILED"), false),
            Err(why) => (format!("FAILED: {why}"), false),
        };
        failed.extend((!is_well).then(|| case.name.clone()));
        say!("{:<width$}  {verdict}", case.name)
    })?;
    if "segmentation_loss lovasz".contains(&args.filter) {
        let lovasz = selftest::compare_lovasz(&context)?;
        let verdict = if lovasz.acceptable() { "ok" } else { "FAILED" };
        println!(
            "binned Lovasz against the exact, sorted form: loss differs by {:.1e}, gradient cosine {:.6}  {verdict}",
            lovasz.loss_difference, lovasz.gradient_cosine
        );
        failed.extend((!lovasz.acceptable()).then(|| "binned Lovasz".to_owned()));
    }
    context.save_pipeline_cache();
    if failed.is_empty() {
        say!("all {} cases agree", cases.len())?;
        return Ok(());
    }
    Err(Error::Device(format!(
        "{} of {} cases failed on {} ({}); update its driver or choose another --device",
        failed.len(),
        cases.len(),
        context.adapter.name,
        failed.join(", ")
    )))
}
