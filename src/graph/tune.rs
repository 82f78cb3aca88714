//! Choice among the variants of a program.

use std::collections::{BTreeMap, BTreeSet};

use super::{Graph, KernelLimits, OpContext};

/// The chosen variant of each problem, by their names in [`Variants`]; the default runs where there is none.
pub type Tuning = BTreeMap<String, String>;

/// The programs among which a tuner may choose for one op, all of which compute the same up to rounding.
#[derive(Debug, Clone, PartialEq)]
pub struct Variants {
    /// What the best choice depends on: ops of equal problems share it.
    pub problem: String,
    /// Names of the variants, the default first; none, and no problem, where there is no choice.
    pub names: Vec<&'static str>,
}

impl Variants {
    /// The place of the variant that `tuning` names, or else the default.
    pub fn chosen(&self, tuning: &Tuning) -> usize {
        let name = tuning.get(&self.problem);
        self.names.iter().position(|other| name.is_some_and(|name| name == other)).unwrap_or(0)
    }
}

impl Graph {
    /// The variants of every op that has some under `limits`, in order of execution.
    pub fn variants(&self, limits: &KernelLimits) -> Vec<Variants> {
        let of = |node: &super::Node| {
            let (inputs, outputs) = (self.specs(&node.inputs), self.specs(&node.outputs));
            node.op.variants(&OpContext { inputs: &inputs, outputs: &outputs, limits })
        };
        self.nodes.iter().filter_map(of).collect()
    }

    /// For each name of a variant, the choice of it wherever there is one of that name: what tests run one by one.
    pub fn forced_tunings(&self, limits: &KernelLimits) -> Vec<Tuning> {
        let variants = self.variants(limits);
        let names: BTreeSet<&str> = variants.iter().flat_map(|variants| variants.names.iter().copied()).collect();
        let forced = |name: &&str| -> Tuning {
            let with_name = variants.iter().filter(|variants| variants.names.contains(name));
            with_name.map(|variants| (variants.problem.clone(), (*name).to_owned())).collect()
        };
        names.iter().map(forced).collect()
    }
}
