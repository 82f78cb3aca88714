//! Reverse-mode differentiation: appends the backward ops of a graph to the graph itself.

use std::collections::{HashMap, HashSet};

use super::{Add, Graph, ParameterKind, Storage, Tensor, TensorId};
use crate::{Error, Result};

/// The gradients that [`Graph::backward`] built, by tensor.
#[derive(Debug, Default)]
pub struct Gradients {
    by_root: HashMap<TensorId, TensorId>,
}

impl Gradients {
    /// The gradient of `id`, shaped as the tensor that owns its memory; `None` if nothing depends on it.
    pub fn of(&self, graph: &Graph, id: TensorId) -> Option<TensorId> {
        self.by_root.get(&graph.root(id)).copied()
    }
}

impl Graph {
    /// Appends the backward ops of every node so far that leads from a parameter, or from `wrt`, to a seeded tensor.
    ///
    /// `seeds` pairs each differentiated tensor with its incoming gradient. The gradients of parameters are placed in the
    /// flat gradient block.
    ///
    /// # Errors
    /// [`Error::Shape`] if an op on the way has no derivative, or a parameter has no path to a seed.
    pub fn backward(&mut self, seeds: &[(TensorId, TensorId)], wrt: &[TensorId]) -> Result<Gradients> {
        let mut needs = vec![false; self.tensors.len()];
        for (i, tensor) in self.tensors.iter().enumerate() {
            needs[i] = self.trained(tensor).is_some() && tensor.root.0 == i;
        }
        for &id in wrt {
            needs[self.root(id).0] = true;
        }
        for node in &self.nodes {
            let needed = node.inputs.iter().any(|&i| needs[self.root(i).0]);
            for &output in &node.outputs {
                needs[self.root(output).0] |= needed;
            }
        }

        let mut gradients = Gradients::default();
        for &(tensor, seed) in seeds {
            self.accumulate(&mut gradients, tensor, seed)?;
        }
        for index in (0..self.nodes.len()).rev() {
            let node = self.nodes[index].clone();
            let d_outputs: Vec<Option<TensorId>> = node.outputs.iter().map(|&o| gradients.of(self, o)).collect();
            let input_needs: Vec<bool> = node.inputs.iter().map(|&i| needs[self.root(i).0]).collect();
            if d_outputs.iter().all(Option::is_none) || !input_needs.contains(&true) {
                continue;
            }
            // A gradient has its root's shape; the op expects its output's.
            let mut shaped = Vec::with_capacity(d_outputs.len());
            for (d_output, &output) in d_outputs.into_iter().zip(&node.outputs) {
                let shape = self.shape(output).to_vec();
                shaped.push(d_output.map(|d| self.reshape(d, &shape)).transpose()?);
            }
            let outer = std::mem::replace(&mut self.scope, vec![node.scope.clone()]);
            let d_inputs = node.op.backward(self, &node, &shaped, &input_needs);
            self.scope = outer;
            for ((&input, d_input), needed) in node.inputs.iter().zip(d_inputs?).zip(input_needs) {
                if let (Some(d_input), true) = (d_input, needed) {
                    self.accumulate(&mut gradients, input, d_input)?;
                }
            }
        }
        self.place_parameter_gradients(&gradients)?;
        let asked = wrt.iter().filter_map(|&id| gradients.of(self, id)).map(|id| self.root(id)).collect();
        self.absorb_masks(&asked);
        Ok(gradients)
    }

    /// The number of a parameter that is trained.
    fn trained(&self, tensor: &Tensor) -> Option<usize> {
        match tensor.storage {
            Storage::Parameter(i) if self.parameters[i].kind == ParameterKind::Trained => Some(i),
            _ => None,
        }
    }

    fn accumulate(&mut self, gradients: &mut Gradients, tensor: TensorId, d_tensor: TensorId) -> Result<()> {
        let root = self.root(tensor);
        let shape = self.shape(root).to_vec();
        let d_tensor = self.reshape(d_tensor, &shape)?;
        let total = match gradients.by_root.get(&root) {
            Some(&before) => self.push_one(Add, &[before, d_tensor])?,
            None => d_tensor,
        };
        gradients.by_root.insert(root, total);
        Ok(())
    }

    /// Lets an op that can multiply its result by the derivative of leaky ReLU do so, where a node of its own would read that
    /// result for nothing else. Gradients that were `asked` for stay what they are.
    fn absorb_masks(&mut self, asked: &HashSet<TensorId>) {
        let mut readers: HashMap<TensorId, usize> = HashMap::new();
        for &input in self.nodes.iter().flat_map(|node| &node.inputs) {
            *readers.entry(self.root(input)).or_default() += 1;
        }
        let mut absorbed = HashSet::new();
        for index in 0..self.nodes.len() {
            if !self.nodes[index].op.is_mask() {
                continue;
            }
            let (d_y, y, d_x) =
                (self.nodes[index].inputs[0], self.nodes[index].inputs[1], self.nodes[index].outputs[0]);
            let root = self.root(d_y);
            let transient = |id: TensorId| self.tensors[id.0].storage == Storage::Transient;
            if readers[&root] > 1 || asked.contains(&root) || !transient(root) || !transient(d_x) {
                continue;
            }
            let Some(producer) = self.nodes[..index].iter_mut().find(|node| node.outputs == [root]) else { continue };
            let Some(masked) = producer.op.masked() else { continue };
            producer.op = masked;
            producer.inputs.push(y);
            absorbed.insert(index);
            for tensor in &mut self.tensors {
                if tensor.root == d_x {
                    tensor.root = root;
                }
            }
        }
        let mut index = 0;
        self.nodes.retain(|_| {
            index += 1;
            !absorbed.contains(&(index - 1))
        });
    }

    fn place_parameter_gradients(&mut self, gradients: &Gradients) -> Result<()> {
        let parameters: Vec<(TensorId, usize)> = (0..self.tensors.len())
            .filter(|&i| self.tensors[i].root.0 == i)
            .filter_map(|i| Some((TensorId(i), self.trained(&self.tensors[i])?)))
            .collect();
        for (parameter, index) in parameters {
            let Some(gradient) = gradients.of(self, parameter) else {
                let name = &self.tensors[parameter.0].name;
                return Err(Error::Shape(format!("parameter {name} has no influence on the loss")));
            };
            let root = self.root(gradient);
            if self.tensors[root.0].storage != Storage::Transient {
                let name = &self.tensors[parameter.0].name;
                return Err(Error::Shape(format!("the gradient of {name} is also another tensor's")));
            }
            for tensor in &mut self.tensors {
                if tensor.root == root {
                    tensor.storage = Storage::Gradient(index);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Init, TensorSpec};
    use super::*;
    use crate::layers::linear::linear;

    /// Two linear layers with leaky ReLU between them, differentiated; also the result between them if it is `asked` for.
    fn backward_nodes(asked: bool) -> Vec<&'static str> {
        let mut graph = Graph::new();
        let x = graph.input("x", TensorSpec::f32(&[6, 4]));
        let [first, second] =
            ["first", "second"].map(|name| graph.parameter(name, &[4, 4], Init::Constant(1.0)).unwrap());
        let hidden = linear(&mut graph, x, first, None, true).unwrap();
        let y = linear(&mut graph, hidden, second, None, false).unwrap();
        let seed = graph.input("seed", TensorSpec::f32(&[6, 4]));
        let forward = graph.nodes().len();
        let wrt: &[TensorId] = if asked { &[hidden] } else { &[] };
        let gradients = graph.backward(&[(y, seed)], wrt).unwrap();
        assert!(!asked || gradients.of(&graph, hidden).is_some());
        graph.nodes()[forward..].iter().map(|node| node.op.name()).collect()
    }

    #[test]
    fn an_activation_s_derivative_costs_no_node_unless_the_gradient_before_it_is_asked_for() {
        let mut fused = vec!["linear_backward_data", "linear_backward_weight", "linear_backward_weight"];
        assert_eq!(backward_nodes(false), fused);
        fused.insert(2, "lrelu_backward");
        assert_eq!(backward_nodes(true), fused);
    }
}
