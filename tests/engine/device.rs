//! The device: choosing an adapter that is not there, and errors that arrive outside of any call.

use sep4d::Error;
use sep4d::data::{Batch, synth};
use sep4d::gpu::{Context, DeviceChoice, adapters};
use sep4d::graph::Kernel;
use sep4d::models::BatchShape;
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::session::Session;

fn refusal(choice: &DeviceChoice) -> String {
    let error = Context::open(choice).unwrap_err();
    assert!(matches!(error, Error::Device(_)) && error.exit_code() == 4, "{error:?}");
    error.to_string()
}

#[test]
fn a_wrong_number_is_answered_with_the_adapters_there_are() {
    let adapters = adapters();
    let message = refusal(&DeviceChoice::Index(adapters.len()));
    let last = adapters.len() - 1;
    for part in [&format!("--device {}", adapters.len()), &format!("{last}: {}", adapters[last].name), "sep4d devices"]
    {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_wrong_name_is_answered_with_the_adapters_there_are() {
    let message = refusal(&DeviceChoice::Name("Voodoo".into()));
    for part in ["--device Voodoo", &adapters()[0].name, "sep4d devices"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn adapters_are_found_by_number_and_by_any_part_of_their_name() {
    let first = adapters().remove(0);
    let part: String = first.name.chars().take(4).collect();
    for choice in [DeviceChoice::Best, DeviceChoice::Index(0), DeviceChoice::Name(part.to_uppercase())] {
        assert_eq!(Context::open(&choice).unwrap().adapter.name, first.name, "{choice:?}");
    }
    assert_eq!("3".parse(), Ok(DeviceChoice::Index(3)));
    assert_eq!("best".parse(), Ok(DeviceChoice::Best));
    assert_eq!("llvmpipe".parse(), Ok(DeviceChoice::Name("llvmpipe".into())));
}

/// A buffer that no device may make: mappable for reading and writing at once.
fn make_an_impossible_buffer(context: &Context) -> wgpu::Buffer {
    context.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("impossible"),
        size: 16,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE,
        mapped_at_creation: false,
    })
}

#[test]
fn an_error_outside_of_any_scope_is_remembered() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    context.check().unwrap();
    let _invalid = make_an_impossible_buffer(&context);
    let error = context.check().unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Device(_)), "{error:?}");
    assert!(message.contains("impossible") && message.contains("--resume"), "{message}");
    // It stays: whoever looks first must not hide it from the others, and the first error is the cause.
    let _invalid = context.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("another"),
        size: 16,
        usage: wgpu::BufferUsages::empty(),
        mapped_at_creation: false,
    });
    assert_eq!(context.check().unwrap_err().to_string(), message);
    assert_eq!(context.wait().unwrap_err().to_string(), message);
}

#[test]
fn an_error_in_a_guarded_call_is_that_call_s_own() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let error = context.guarded("a buffer for the test", || make_an_impossible_buffer(&context)).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Device(_)), "{error:?}");
    assert!(
        message.contains("a buffer for the test failed on") && message.contains(&context.adapter.name),
        "{message}"
    );
    context.check().unwrap();
}

#[test]
fn a_kernel_that_does_not_exist_is_an_error_and_not_a_panic() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    for (kernel, part) in [
        (Kernel::new("missing.wgsl", "missing"), "missing.wgsl"),
        (Kernel::new("reduce.wgsl", "missing"), "kernel missing failed"),
        // Its template needs a define.
        (Kernel::new("label_table.wgsl", "label_table_forward"), "cannot be assembled"),
    ] {
        let error = context.pipeline(&kernel, 2).unwrap_err();
        assert!(matches!(error, Error::Device(_)) && error.to_string().contains(part), "{error}");
    }
    context.check().unwrap();
}

#[test]
fn planned_memory_is_what_the_adapter_gives_out() {
    let config = RunConfig::preset(Preset::Demo, None);
    let shape = BatchShape { batch: 1, frames: config.data.frames, size: [32, 32, 8] };
    let grid = synth::grid(shape.size, [0.4, 0.4, 0.375]).unwrap();
    let batch = Batch::from_clips(&[synth::clip(&grid, 0, shape.frames)], &grid).unwrap();
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let weights = vec![1.0; config.model.classes];
    let mut session = Session::new(&context, &config.model, &shape, &config.step(), &weights, 0).unwrap();
    session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
    // Then what the first upload was staged in is gone.
    session.report().unwrap();
    let planned = session.preflight().peak_bytes as f64;
    // Not every backend counts.
    if let Some(memory) = context.memory_use() {
        let ratio = memory.allocated_bytes as f64 / planned;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
    }
}
