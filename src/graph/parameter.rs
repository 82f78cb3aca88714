//! Parameters: names, shapes, initial values, and their places in the flat blocks.

use super::{Block, Graph, Storage, TensorId, TensorSpec};
use crate::rng::Rng;
use crate::{Error, Result};

/// Elements to which a parameter's place in a flat block is aligned: 256 bytes, the strictest binding alignment.
pub const PARAMETER_ALIGNMENT: usize = 64;

/// How a parameter starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// All elements equal.
    Constant(f32),
    /// Uniform in `[-bound, bound]`, as PyTorch's convolutions and linear layers with `bound = 1/sqrt(fan_in)`.
    Uniform(f64),
    /// Standard normal, as PyTorch's embeddings.
    Normal,
    /// Consecutive runs of elements, each with its own rule.
    Runs(Vec<(usize, Init)>),
}

impl Init {
    /// Fills `values` from `rng`.
    pub fn fill(&self, rng: &mut Rng, values: &mut [f32]) {
        match self {
            Init::Constant(value) => values.fill(*value),
            Init::Uniform(bound) => values.iter_mut().for_each(|v| *v = rng.uniform(-bound, *bound) as f32),
            Init::Normal => values.iter_mut().for_each(|v| *v = rng.normal() as f32),
            Init::Runs(runs) => {
                let mut rest = values;
                for (length, init) in runs {
                    let (head, tail) = rest.split_at_mut(*length);
                    init.fill(rng, head);
                    rest = tail;
                }
            }
        }
    }
}

/// A parameter as the checkpoint knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// Dotted PyTorch-like path.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// Initial values.
    pub init: Init,
    /// First element in the flat blocks.
    pub offset: usize,
}

impl ParameterSpec {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Graph {
    /// Declares a parameter below the present scope, in PyTorch's layout.
    ///
    /// # Errors
    /// [`Error::Shape`] if the name is taken.
    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Result<TensorId> {
        let name = self.path(name);
        if self.parameters.iter().any(|p| p.name == name) {
            return Err(Error::Shape(format!("parameter {name} is declared twice")));
        }
        let offset = self.block_elements();
        let index = self.parameters.len();
        self.parameters.push(ParameterSpec { name: name.clone(), shape: shape.to_vec(), init, offset });
        Ok(self.add_tensor(name, TensorSpec::f32(shape), Storage::Parameter(index)))
    }

    /// The tensor of parameter number `index`, and of its gradient once [`Graph::backward`] has run.
    pub fn parameter_tensors(&self, index: usize) -> (Option<TensorId>, Option<TensorId>) {
        let find = |storage| self.tensors.iter().position(|t| t.storage == storage).map(|i| self.tensors[i].root);
        (find(Storage::Parameter(index)), find(Storage::Gradient(index)))
    }

    /// Number of parameter values (without the padding between parameters).
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(ParameterSpec::elements).sum()
    }

    /// Elements of one flat block, padding included.
    pub fn block_elements(&self) -> usize {
        self.parameters.last().map_or(0, |p| p.offset + p.elements().next_multiple_of(PARAMETER_ALIGNMENT))
    }

    /// The flat parameter block as it starts under `seed`; each parameter draws from a stream of its own, so that adding
    /// one does not change the others.
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.block_elements()];
        for (index, parameter) in self.parameters.iter().enumerate() {
            let mut rng = Rng::new(seed, 0x5eed_0000_0000 + index as u64);
            let range = parameter.offset..parameter.offset + parameter.elements();
            parameter.init.fill(&mut rng, &mut values[range]);
        }
        values
    }

    /// Block and element range of a tensor that lives in a flat block.
    pub(crate) fn block_range(&self, storage: &Storage) -> Option<(Block, std::ops::Range<usize>)> {
        let range = |i: usize| self.parameters[i].offset..self.parameters[i].offset + self.parameters[i].elements();
        match storage {
            Storage::Parameter(i) => Some((Block::Parameters, range(*i))),
            Storage::Gradient(i) => Some((Block::Gradients, range(*i))),
            Storage::Block(Block::Moments) => Some((Block::Moments, 0..2 * self.block_elements())),
            Storage::Block(block) => Some((*block, 0..self.block_elements())),
            Storage::Transient | Storage::Input | Storage::Constant(_) => None,
        }
    }
}
