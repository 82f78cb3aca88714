//! Every kernel against its f64 twin, and every twin against central differences.

use sep4d::gpu::{Context, DeviceChoice};
use sep4d::layers;
use sep4d::selftest::{self, Scope};

#[test]
fn kernels_agree_with_their_twins() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let mut failures = Vec::new();
    let compared = |case: &layers::case::Case, agreement: sep4d::Result<selftest::Agreement>| {
        let agreement = agreement?;
        println!("{:40} {agreement}", case.name);
        if !agreement.acceptable() {
            failures.push(format!("{}: {agreement:?}", case.name));
        }
        Ok(())
    };
    selftest::compare_all(&context, &layers::cases(), Scope::Any, |_| {}, compared).unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn twins_agree_with_central_differences() {
    for case in layers::cases() {
        if let Some(deviation) = selftest::check_twin(&case, 1e-6).unwrap() {
            println!("{:40} {deviation:9.1e}", case.name);
            assert!(deviation < 1e-6, "{}: {deviation}", case.name);
        }
    }
}

#[test]
fn binned_lovasz_on_the_device_is_close_to_the_exact_one() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let lovasz = selftest::compare_lovasz(&context).unwrap();
    println!("{lovasz:?}");
    assert!(lovasz.acceptable(), "{lovasz:?}");
}
