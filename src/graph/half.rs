//! Mixed precision: which tensors of a finished graph are stored in f16.

use super::{DType, Graph, Slot, Storage, TensorId};

impl Graph {
    /// Stores in f16 every transient f32 tensor of at least `smallest` elements that its producer and all its consumers take
    /// so ([`super::Op::takes_half`]); returns how many these are. The last thing to be done to a graph, after
    /// [`Graph::backward`].
    ///
    /// Parameters, their gradients, constants and what the host reads stay f32.
    pub fn halve(&mut self, smallest: usize) -> usize {
        let mut fits: Vec<bool> = self
            .tensors
            .iter()
            .map(|tensor| {
                let Storage::Transient = tensor.storage else { return false };
                tensor.spec.dtype == DType::F32 && tensor.spec.elements() >= smallest && !tensor.kept
            })
            .collect();
        for node in &self.nodes {
            let inputs = node.inputs.iter().enumerate().map(|(i, id)| (Slot::Input(i), id));
            let outputs = node.outputs.iter().enumerate().map(|(i, id)| (Slot::Output(i), id));
            for (slot, &id) in inputs.chain(outputs) {
                fits[self.root(id).0] &= node.op.takes_half(slot);
            }
        }
        let mut halved = 0;
        for i in 0..self.tensors.len() {
            if fits[self.root(TensorId(i)).0] {
                self.tensors[i].spec.dtype = DType::F16;
                halved += usize::from(self.root(TensorId(i)).0 == i);
            }
        }
        halved
    }
}
