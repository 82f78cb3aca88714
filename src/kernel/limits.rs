//! What kernels must keep to on an adapter, and which of them run there.

use std::collections::BTreeMap;

use super::program::{Kernel, LAYER_BYTES};

/// The chosen variant of each problem, by their names in `graph::Variants`; the default runs where there is none.
pub type Tuning = BTreeMap<String, String>;

/// What an adapter can, as far as kernels care, and which of the kernels run that it can run.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelLimits {
    /// Largest range of a buffer that one storage binding may cover, in bytes.
    pub max_storage_binding_bytes: usize,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: usize,
    /// Largest storage image, in bytes.
    pub max_image_bytes: usize,
    /// Alignment of a binding's start, in bytes.
    pub offset_alignment_bytes: usize,
    /// Largest number of workgroups along one dimension.
    pub max_workgroups_per_dimension: usize,
    /// Workgroup memory, in bytes.
    pub max_workgroup_bytes: usize,
    /// Fewest lanes that a subgroup may have; 0 where kernels must do without subgroup operations.
    pub min_subgroup_lanes: usize,
    /// Kernels may use 16-bit floats.
    pub has_f16: bool,
    /// It has the units of [`MatrixUnits::Present`].
    pub has_matrix_units: bool,
    /// No two bindings of a dispatch may overlap, as WebGPU has it for what kernels may write to.
    pub forbids_aliasing: bool,
    /// It is a CPU (software Vulkan), which does the work of kernels in the host's time.
    pub is_software: bool,
    /// Which kernels run.
    pub policy: Policy,
}

/// Which of the kernels run that an adapter can run: what is chosen, by the kind of the adapter, by measuring, or by a test.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Those for CPU adapters, of which an invocation does much (register-blocked), instead of those for GPUs (tiled).
    pub for_cpu: bool,
    /// Kernels for matrix units run without them, too ([`MatrixUnits::Emulated`]).
    pub emulates_matrix_units: bool,
    /// Which variants of programs run; none are chosen for CPU adapters.
    pub tuning: Tuning,
    /// Which launches share a dispatch.
    pub grouping: Grouping,
}

/// What a tuning says of a kernel whose launches may share a dispatch ([`Kernel::sharing`]).
pub const SHARED: &str = "shared";
/// What it says of one whose launches may not.
pub const ALONE: &str = "alone";

/// Which launches of one kernel share a dispatch, so that a step has fewer of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// None.
    Off,
    /// Small ones that do not depend on each other.
    Small,
    /// Of the small ones those of kernels for which the tuning says so.
    Tried,
    /// Each is made as if it shared one, even if there is no other: for tests of the kernels.
    Every,
}

/// What multiplies 16 x 16 matrices of f16 and sums in f32, together in a subgroup of 32 lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixUnits {
    /// Nothing: kernels multiply numbers.
    None,
    /// The adapter's units.
    Present,
    /// The lanes by themselves, in the same kernels: for tests where there are no units.
    Emulated,
}

impl KernelLimits {
    /// What WebGPU guarantees everywhere, with the kernels for GPUs.
    pub fn portable() -> Self {
        KernelLimits {
            max_storage_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            max_image_bytes: 256 * LAYER_BYTES,
            offset_alignment_bytes: 256,
            max_workgroups_per_dimension: 65_535,
            max_workgroup_bytes: 16 << 10,
            min_subgroup_lanes: 0,
            has_f16: false,
            has_matrix_units: false,
            forbids_aliasing: false,
            is_software: false,
            policy: Policy {
                for_cpu: false,
                emulates_matrix_units: false,
                tuning: Tuning::new(),
                grouping: Grouping::Small,
            },
        }
    }

    /// The same with the kernels for CPU adapters, or with those for GPUs.
    #[must_use]
    pub fn for_cpu(&self, for_cpu: bool) -> Self {
        self.under(Policy { for_cpu, ..self.policy.clone() })
    }

    /// The same with other choices of variants.
    #[must_use]
    pub fn tuned(&self, tuning: Tuning) -> Self {
        self.under(Policy { tuning, ..self.policy.clone() })
    }

    /// The same with other launches that share dispatches.
    #[must_use]
    pub fn grouped(&self, grouping: Grouping) -> Self {
        self.under(Policy { grouping, ..self.policy.clone() })
    }

    /// The same adapter under another policy.
    #[must_use]
    pub fn under(&self, policy: Policy) -> Self {
        KernelLimits { policy, ..self.clone() }
    }

    /// What multiplies matrices.
    pub fn matrix_units(&self) -> MatrixUnits {
        match (self.policy.emulates_matrix_units, self.has_matrix_units) {
            (true, _) => MatrixUnits::Emulated,
            (false, true) => MatrixUnits::Present,
            (false, false) => MatrixUnits::None,
        }
    }
}

impl Policy {
    /// Whether small launches of `kernel` share dispatches.
    pub fn shares(&self, kernel: &Kernel) -> bool {
        match self.grouping {
            Grouping::Off | Grouping::Every => false,
            Grouping::Small => true,
            Grouping::Tried => self.tuning.get(&kernel.sharing()).is_some_and(|choice| choice == SHARED),
        }
    }
}
