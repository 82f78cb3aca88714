//! PyTorch's figures, and the comparison of a graph with them: what its f64 twin and the device compute, forward and backward.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use safetensors::SafeTensors;
use sep4d::data::batch::to_blocked;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::interpret::{self, Values};
use sep4d::graph::plan::Plan;
use sep4d::graph::{DType, Graph, TensorId, TensorSpec};
use sep4d::selftest::relative_error;

/// A tensor of the fixture.
#[derive(Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    /// The tensor with its axes in another order: axis `i` of the result is axis `axes[i]` of this one.
    pub fn permuted(&self, axes: &[usize]) -> Array {
        let shape: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        let values = (0..self.values.len())
            .map(|mut rest| {
                let mut from = 0;
                for (&axis, &extent) in axes.iter().zip(&shape).rev() {
                    from += rest % extent * self.shape[axis + 1..].iter().product::<usize>();
                    rest /= extent;
                }
                self.values[from]
            })
            .collect();
        Array { shape, values }
    }

    /// PyTorch's `[N, C, ..]` as our `[N, .., C]`.
    pub fn channels_last(&self) -> Array {
        let axes: Vec<usize> = std::iter::once(0).chain(2..self.shape.len()).chain([1]).collect();
        self.permuted(&axes)
    }

    /// A plane `[N, A, B, C]` as a volume `[N, 1, A, B, C]`.
    pub fn into_volume(mut self) -> Array {
        self.shape.insert(1, 1);
        self
    }

    /// `[N, X, Y, Z, C]` in blocked order, `[N, X/2, Y/2, Z/2, 8, C]`.
    pub fn blocked(&self) -> Array {
        let &[n, x, y, z, c] = &self.shape[..] else { panic!("{:?} is no volume", self.shape) };
        let rows: Vec<usize> = (0..n * x * y * z).collect();
        let order = rows.chunks(x * y * z).flat_map(|frame| to_blocked(frame, [x, y, z]));
        let values = order.flat_map(|row| self.values[row * c..(row + 1) * c].to_vec()).collect();
        Array { shape: vec![n, x / 2, y / 2, z / 2, 8, c], values }
    }
}

/// One of the files beside this one.
pub struct Fixture {
    pub tensors: SafeTensors<'static>,
    /// What [`Fixture::no_effect`] gives, of all models.
    no_effect: String,
}

impl Fixture {
    /// The fixture of that name. It is read once and stays: its header takes longer than most tests that need a figure of it.
    pub fn named(name: &str) -> &'static Fixture {
        static READ: Mutex<BTreeMap<String, &'static Fixture>> = Mutex::new(BTreeMap::new());
        READ.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_insert_with(|| {
            let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
            let bytes: &'static [u8] = std::fs::read(path).unwrap().leak();
            let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
            let no_effect = header.metadata().as_ref().and_then(|metadata| metadata.get("no_effect").cloned());
            let tensors = SafeTensors::deserialize(bytes).unwrap();
            Box::leak(Box::new(Fixture { tensors, no_effect: no_effect.unwrap_or_default() }))
        })
    }

    /// Parameters of the model with this prefix whose gradient is rounding noise, because they have no effect.
    pub fn no_effect(&self, prefix: &str) -> Vec<&str> {
        self.no_effect.split(' ').filter_map(|name| name.strip_prefix(prefix)).collect()
    }
}

/// The tensor of that name in one of the fixtures.
pub fn figures(fixture: &str, name: &str) -> Array {
    let tensor = Fixture::named(fixture).tensors.tensor(name).unwrap_or_else(|why| panic!("{name}: {why}"));
    let values = match tensor.dtype() {
        safetensors::Dtype::U8 => tensor.data().iter().map(|&v| f64::from(v)).collect(),
        _ => tensor.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
    };
    Array { shape: tensor.shape().to_vec(), values }
}

/// A graph, what goes in, and what PyTorch says must come out.
#[derive(Default)]
pub struct Check {
    pub graph: Graph,
    inputs: Vec<(TensorId, Vec<f64>)>,
    forward: Vec<(TensorId, Vec<f64>)>,
    backward: Vec<(TensorId, Vec<f64>)>,
    seeds: Vec<(TensorId, TensorId)>,
}

impl Check {
    pub fn input(&mut self, value: &Array) -> TensorId {
        self.values(&value.shape, value.values.clone())
    }

    pub fn values(&mut self, shape: &[usize], values: Vec<f64>) -> TensorId {
        let id = self.graph.input("input", TensorSpec::f32(shape));
        self.inputs.push((id, values));
        id
    }

    pub fn words(&mut self, shape: &[usize], values: impl IntoIterator<Item = u32>) -> TensorId {
        let id = self.graph.input("words", TensorSpec::u32(shape));
        self.inputs.push((id, values.into_iter().map(f64::from).collect()));
        id
    }

    /// `y` must be `expected`.
    pub fn expect(&mut self, y: TensorId, expected: &Array) {
        self.graph.keep(y);
        self.forward.push((y, expected.values.clone()));
    }

    /// `y` must be `expected`, and has the gradient `d_y`.
    pub fn expect_seeded(&mut self, y: TensorId, expected: &Array, d_y: &Array) {
        self.expect(y, expected);
        let shape = self.graph.shape(y).to_vec();
        let seed = self.values(&shape, d_y.values.clone());
        self.seeds.push((y, seed));
    }

    /// The gradients of these inputs must be these; appends the backward pass.
    pub fn expect_gradients(&mut self, gradients: &[(TensorId, Array)]) {
        let wrt: Vec<TensorId> = gradients.iter().map(|(id, _)| *id).collect();
        let found = self.graph.backward(&self.seeds, &wrt).unwrap();
        for (id, expected) in gradients {
            let gradient = found.of(&self.graph, *id).unwrap();
            self.graph.keep(gradient);
            self.backward.push((gradient, expected.values.clone()));
        }
    }

    /// Computes everything: the twin must be within 1e-6 of PyTorch, the device within 1e-5, and 1e-4 backward.
    pub fn run(self, name: &str) {
        let mut values = Values::default();
        self.inputs.iter().for_each(|(id, data)| values.set(&self.graph, *id, data.clone()));
        interpret::run(&self.graph, &mut values).unwrap();
        let context = Context::open(&DeviceChoice::Best).unwrap();
        let plan = Plan::new(&self.graph, context.limits()).unwrap();
        let memory = Memory::new(&context, &[&plan]).unwrap();
        let executor = Executor::new(&context, self.graph.clone(), plan, &memory).unwrap();
        for (id, data) in self.inputs.iter().filter(|(id, _)| executor.uses(*id)) {
            match self.graph.tensor(*id).spec.dtype {
                DType::F32 | DType::F16 => {
                    executor.write(*id, &data.iter().map(|&v| v as f32).collect::<Vec<_>>()).unwrap()
                }
                DType::U32 => executor.write(*id, &data.iter().map(|&v| v as u32).collect::<Vec<_>>()).unwrap(),
            }
        }
        executor.run().unwrap();
        for (outputs, tolerance) in [(&self.forward, 1e-5), (&self.backward, 1e-4)] {
            for (id, expected) in outputs {
                let device: Vec<f64> = executor.read::<f32>(*id).unwrap().into_iter().map(f64::from).collect();
                let twin = relative_error(values.get(&self.graph, *id).unwrap(), expected);
                let device = relative_error(&device, expected);
                println!("{name} {}: twin {twin:.1e}, device {device:.1e}", self.graph.describe(*id));
                assert!(twin <= 1e-6, "{name}: the twin's {} deviates by {twin}", self.graph.describe(*id));
                assert!(device <= tolerance, "{name}: {} deviates by {device}", self.graph.describe(*id));
            }
        }
    }
}
