//! Parameters: names, shapes, initial values, and their places in the flat blocks.

use std::ops::Range;

use super::{Block, Graph, Storage, Tensor, TensorId, TensorSpec};
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
    /// Normal with mean 0 and this standard deviation.
    Gaussian(f64),
    /// Consecutive runs of elements, each with its own rule.
    Runs(Vec<(usize, Init)>),
}

impl Init {
    /// Fills `values` from `rng`.
    pub fn fill(&self, rng: &mut Rng, values: &mut [f32]) {
        match self {
            Init::Constant(value) => values.fill(*value),
            Init::Uniform(bound) => values.iter_mut().for_each(|v| *v = rng.uniform(-bound, *bound) as f32),
            Init::Normal => Init::Gaussian(1.0).fill(rng, values),
            Init::Gaussian(deviation) => values.iter_mut().for_each(|v| *v = (deviation * rng.normal()) as f32),
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

/// What becomes of a parameter while its model is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// The optimiser changes it.
    Trained,
    /// It is as it began, or as the model itself overwrites it ([`Graph::push_into`]): torch's `register_buffer`. It is saved
    /// like the others.
    Buffer,
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
    /// What becomes of it.
    pub kind: ParameterKind,
    /// First element in its flat block, and in those of its gradient and moments.
    pub offset: usize,
}

impl ParameterSpec {
    /// The flat block that it is in.
    pub fn block(&self) -> Block {
        match self.kind {
            ParameterKind::Trained => Block::Parameters,
            ParameterKind::Buffer => Block::Buffers,
        }
    }

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
        self.declare(name, shape, init, ParameterKind::Trained)
    }

    /// Declares a parameter that no gradient reaches, as [`Graph::parameter`] does one that is trained.
    ///
    /// # Errors
    /// [`Error::Shape`] if the name is taken.
    pub fn buffer(&mut self, name: &str, shape: &[usize], init: Init) -> Result<TensorId> {
        self.declare(name, shape, init, ParameterKind::Buffer)
    }

    fn declare(&mut self, name: &str, shape: &[usize], init: Init, kind: ParameterKind) -> Result<TensorId> {
        let name = self.path(name);
        if self.parameters.iter().any(|p| p.name == name) {
            return Err(Error::Shape(format!("parameter {name} is declared twice")));
        }
        let mut spec = ParameterSpec { name: name.clone(), shape: shape.to_vec(), init, kind, offset: 0 };
        spec.offset = self.block_elements(spec.block());
        let index = self.parameters.len();
        self.parameters.push(spec);
        Ok(self.add_tensor(name, TensorSpec::f32(shape), Storage::Parameter(index)))
    }

    /// The tensor of parameter number `index`, and of its gradient once [`Graph::backward`] has run.
    pub fn parameter_tensors(&self, index: usize) -> (Option<TensorId>, Option<TensorId>) {
        let find = |storage| self.tensors.iter().position(|t| t.storage == storage).map(|i| self.tensors[i].root);
        (find(Storage::Parameter(index)), find(Storage::Gradient(index)))
    }

    /// Number of values that are trained (without the padding between parameters).
    pub fn parameter_count(&self) -> usize {
        let trained = self.parameters.iter().filter(|parameter| parameter.kind == ParameterKind::Trained);
        trained.map(ParameterSpec::elements).sum()
    }

    /// Elements of a flat block, padding included.
    pub fn block_elements(&self, block: Block) -> usize {
        let of_parameters = |block: Block| {
            let last = self.parameters.iter().rfind(|p| p.block() == block);
            last.map_or(0, |p| p.offset + p.elements().next_multiple_of(PARAMETER_ALIGNMENT))
        };
        match block {
            Block::Parameters | Block::Gradients | Block::GradientSums | Block::Averages => {
                of_parameters(Block::Parameters)
            }
            Block::Moments => 2 * of_parameters(Block::Parameters),
            Block::Buffers => of_parameters(Block::Buffers),
            Block::Losses | Block::LossSums | Block::LossScale => PARAMETER_ALIGNMENT,
        }
    }

    /// A graph without nodes that has the parameters of this one, at the same places.
    pub fn with_the_same_parameters(&self) -> Graph {
        Graph { parameters: self.parameters.clone(), ..Graph::default() }
    }

    /// Reads the moving averages of the parameters in place of the parameters.
    pub fn use_averages(&mut self) {
        self.averaged = true;
    }

    /// Whether it does.
    pub fn is_averaged(&self) -> bool {
        self.averaged
    }

    /// A flat block of parameters as it starts under `seed`; each parameter draws from a stream of its own, so that adding
    /// one does not change the others.
    pub fn initial_values(&self, block: Block, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.block_elements(block)];
        let of_block = if block == Block::Averages { Block::Parameters } else { block };
        for (index, parameter) in self.parameters.iter().enumerate().filter(|(_, p)| p.block() == of_block) {
            let mut rng = Rng::new(seed, 0x5eed_0000_0000 + index as u64);
            let range = parameter.offset..parameter.offset + parameter.elements();
            parameter.init.fill(&mut rng, &mut values[range]);
        }
        values
    }

    /// The flat block that a tensor is in; `None` if it is in none.
    pub(crate) fn block_of(&self, storage: &Storage) -> Option<Block> {
        match storage {
            Storage::Parameter(i) => match self.parameters[*i].block() {
                Block::Parameters if self.averaged => Some(Block::Averages),
                block => Some(block),
            },
            Storage::Gradient(_) => Some(Block::Gradients),
            Storage::Block(block) => Some(*block),
            Storage::Transient | Storage::Input | Storage::Constant(_) => None,
        }
    }

    /// The same with the range of its elements.
    pub(crate) fn block_range(&self, tensor: &Tensor) -> Option<(Block, Range<usize>)> {
        let first = match tensor.storage {
            Storage::Parameter(i) | Storage::Gradient(i) => self.parameters[i].offset,
            _ => 0,
        };
        Some((self.block_of(&tensor.storage)?, first..first + tensor.spec.elements()))
    }
}
