//! `sep4d selftest`: every kernel against its f64 reference on this adapter.

use sep4d::gpu::Context;
use sep4d::{Error, Result, layers, selftest};

use super::output::say;

/// Check every kernel and gradient against an f64 reference on this adapter
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Adapter: its number or a part of its name (see `sep4d devices`)
    #[arg(long, default_value = "best")]
    device: String,
    /// Only the cases whose name contains this
    #[arg(long, default_value = "")]
    filter: String,
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
    let mut failed = Vec::new();
    for case in &cases {
        let verdict = match selftest::compare(&context, case) {
            Ok(agreement) => {
                let verdict = if agreement.acceptable() { "ok" } else { "FAILED" };
                say!("{:<width$}  {agreement}  {verdict}", case.name)?;
                agreement.acceptable()
            }
            Err(why) => {
                say!("{:<width$}  FAILED: {why}", case.name)?;
                false
            }
        };
        if !verdict {
            failed.push(case.name.as_str());
        }
    }
    if "segmentation_loss lovasz".contains(&args.filter) {
        let lovasz = selftest::compare_lovasz(&context)?;
        let verdict = if lovasz.acceptable() { "ok" } else { "FAILED" };
        println!(
            "binned Lovasz against the exact, sorted form: loss differs by {:.1e}, gradient cosine {:.6}  {verdict}",
            lovasz.loss_difference, lovasz.gradient_cosine
        );
        failed.extend((!lovasz.acceptable()).then_some("binned Lovasz"));
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
