//! Named tensors in the flat blocks of a model, and back.

use super::NamedTensor;
use crate::graph::execute::Memory;
use crate::graph::{Block, Graph, ParameterKind, ParameterSpec};
use crate::{Error, Result};

/// Where the parameters of a model are.
#[derive(Debug)]
pub(in crate::train) struct Layout {
    parameters: Vec<ParameterSpec>,
    /// Elements of a block of those that are trained, and of one of the others.
    elements: [usize; 2],
    /// The block of what is looked at: the parameters, or their moving averages.
    pub looked_at: Block,
}

impl Layout {
    /// That of the parameters of `graph`, which looks at a model.
    pub fn of(graph: &Graph) -> Layout {
        Layout {
            parameters: graph.parameters().to_vec(),
            elements: [Block::Parameters, Block::Buffers].map(|block| graph.block_elements(block)),
            looked_at: if graph.is_averaged() { Block::Averages } else { Block::Parameters },
        }
    }

    fn kind(&self, kind: ParameterKind) -> impl Iterator<Item = &ParameterSpec> {
        self.parameters.iter().filter(move |parameter| parameter.kind == kind)
    }

    /// The whole model, with what is trained of it from `block`.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn read(&self, memory: &Memory, block: Block) -> Result<Vec<NamedTensor>> {
        let mut tensors = self.named(ParameterKind::Trained, &memory.read_block(block)?);
        if self.kind(ParameterKind::Buffer).next().is_some() {
            tensors.extend(self.named(ParameterKind::Buffer, &memory.read_block(Block::Buffers)?));
        }
        Ok(tensors)
    }

    /// Overwrites the whole model, and what is trained of it in `block`.
    ///
    /// # Errors
    /// [`Error::Data`] naming the parameter that is missing or has another shape.
    pub fn write(&self, memory: &Memory, block: Block, tensors: &[NamedTensor]) -> Result<()> {
        let trained = self.flat(ParameterKind::Trained, tensors)?;
        let buffers = self.flat(ParameterKind::Buffer, tensors)?;
        if let Some(extra) = tensors.iter().find(|t| self.parameters.iter().all(|p| p.name != t.name)) {
            return Err(Error::Data(format!("the checkpoint's tensor {} is not in this model", extra.name)));
        }
        memory.write_block(block, &trained)?;
        if buffers.is_empty() { Ok(()) } else { memory.write_block(Block::Buffers, &buffers) }
    }

    /// The tensors of a flat block.
    pub fn named(&self, kind: ParameterKind, block: &[f32]) -> Vec<NamedTensor> {
        let tensor = |p: &ParameterSpec| NamedTensor {
            name: p.name.clone(),
            shape: p.shape.clone(),
            values: block[p.offset..p.offset + p.elements()].to_vec(),
        };
        self.kind(kind).map(tensor).collect()
    }

    /// The flat block of the tensors of one kind, which are among `tensors`.
    ///
    /// # Errors
    /// [`Error::Data`] naming the one that is missing or has another shape.
    pub fn flat(&self, kind: ParameterKind, tensors: &[NamedTensor]) -> Result<Vec<f32>> {
        let mut block = vec![0.0; self.elements[usize::from(kind == ParameterKind::Buffer)]];
        for p in self.kind(kind) {
            let tensor = tensors.iter().find(|t| t.name == p.name).ok_or_else(|| {
                Error::Data(format!("the checkpoint has no tensor {}; it belongs to another model", p.name))
            })?;
            if tensor.shape != p.shape || tensor.values.len() != p.elements() {
                return Err(Error::Data(format!(
                    "{} is {:?} in the checkpoint but {:?} in the model; use the model configuration of its run",
                    p.name, tensor.shape, p.shape
                )));
            }
            block[p.offset..p.offset + p.elements()].copy_from_slice(&tensor.values);
        }
        Ok(block)
    }
}
