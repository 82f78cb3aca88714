//! Runs a graph through the f64 CPU twins of its ops: the oracle of the tests and of `sep4d selftest`. What the graph stores
//! in f16 is rounded to that.

use std::collections::HashMap;

use half::f16;

use super::{CpuTensor, DType, Graph, Storage, TensorId};
use crate::{Error, Result};

/// Values of tensors, keyed by the tensor that owns the memory.
#[derive(Debug, Default)]
pub struct Values {
    by_root: HashMap<TensorId, Vec<f64>>,
}

impl Values {
    /// Sets a tensor before [`run`]: inputs and parameters.
    pub fn set(&mut self, graph: &Graph, id: TensorId, values: Vec<f64>) {
        self.by_root.insert(graph.root(id), values);
    }

    /// The values of a tensor after [`run`].
    pub fn get(&self, graph: &Graph, id: TensorId) -> Option<&[f64]> {
        self.by_root.get(&graph.root(id)).map(Vec::as_slice)
    }
}

/// Runs every node in order on `values`, which must hold every input and parameter.
///
/// # Errors
/// [`Error::Shape`] naming the tensor if one has no value or one of a wrong length.
pub fn run(graph: &Graph, values: &mut Values) -> Result<()> {
    for (i, tensor) in graph.tensors.iter().enumerate() {
        if let Storage::Constant(constant) = &tensor.storage {
            values.by_root.entry(TensorId(i)).or_insert_with(|| constant.iter().map(|&v| f64::from(v)).collect());
        }
    }
    for node in &graph.nodes {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for &input in &node.inputs {
            let spec = &graph.tensor(input).spec;
            match values.get(graph, input) {
                Some(data) if data.len() == spec.elements() => inputs.push(CpuTensor { shape: &spec.shape, data }),
                Some(data) => {
                    return Err(Error::Shape(format!("{} was given {} values", graph.describe(input), data.len())));
                }
                None => return Err(Error::Shape(format!("{} has no value", graph.describe(input)))),
            }
        }
        let results = node.op.cpu(&inputs, &graph.specs(&node.outputs));
        for (&output, mut result) in node.outputs.iter().zip(results) {
            if graph.tensor(output).spec.dtype == DType::F16 {
                result.iter_mut().for_each(|value| *value = f16::from_f32(*value as f32).to_f64());
            }
            if result.len() != graph.tensor(output).spec.elements() {
                return Err(Error::Shape(format!(
                    "the CPU twin of {} gave {} values for {}",
                    node.op.name(),
                    result.len(),
                    graph.describe(output)
                )));
            }
            values.set(graph, output, result);
        }
    }
    Ok(())
}
