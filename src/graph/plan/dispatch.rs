//! Dispatches, of one launch or several that share it.

use super::schedule::SMALL_WORKGROUPS_CPU;
use super::{BufferId, Member, Placement, Step};
use crate::graph::program::{Grouping, Slot};
use crate::graph::{Kernel, KernelLimits};
use crate::kernel::grouped;

/// A launch with its places.
pub(super) struct Resolved {
    pub node: usize,
    pub parameters: Vec<u32>,
    pub operands: Vec<(Slot, Placement)>,
    pub workgroups: [u32; 3],
}

impl Resolved {
    fn places(&self) -> impl Iterator<Item = &Placement> {
        self.operands.iter().map(|(_, place)| place)
    }
}

/// Launches of one dispatch.
pub(super) struct Shared {
    pub kernel: Kernel,
    pub launches: Vec<Resolved>,
}

impl Shared {
    /// Whether a dispatch can bind what both touch.
    pub fn takes(&self, launch: &Resolved, limits: &KernelLimits) -> bool {
        let buffers = |launch: &Resolved| launch.places().map(|place| place.buffer).collect::<Vec<_>>();
        let bound = self.bound(Some(launch), limits);
        buffers(&self.launches[0]) == buffers(launch)
            && bound.iter().all(|place| place.bytes <= limits.max_storage_binding_bytes)
            && !(limits.forbids_aliasing && (1..bound.len()).any(|i| meets_another(&bound, i)))
    }

    /// The least ranges that all launches, and perhaps another, lie in.
    fn bound(&self, another: Option<&Resolved>, limits: &KernelLimits) -> Vec<Placement> {
        let mut bound: Vec<Placement> = self.launches[0].places().copied().collect();
        for launch in self.launches.iter().chain(another) {
            for (bound, place) in bound.iter_mut().zip(launch.places()) {
                let end = (bound.offset + bound.bytes).max(place.offset + place.bytes);
                bound.offset = bound.offset.min(place.offset);
                let wide = limits.policy.grouping == Grouping::Every && !limits.forbids_aliasing;
                if wide && end <= limits.max_storage_binding_bytes {
                    // So that launches begin at other elements than the first.
                    bound.offset = 0;
                }
                bound.bytes = end - bound.offset;
            }
        }
        bound
    }

    /// The dispatch, with what must come before and after it.
    pub fn steps(self, limits: &KernelLimits) -> Vec<Step> {
        let step = self.step(limits);
        if limits.forbids_aliasing { with_detours(step) } else { vec![step] }
    }

    fn step(self, limits: &KernelLimits) -> Step {
        let count = |launch: &Resolved| launch.workgroups.iter().product();
        let first = &self.launches[0];
        let can_be_grouped = grouped::fits(&self.kernel, first.parameters.len(), first.operands.len());
        let alone_too = limits.policy.grouping == Grouping::Every
            || limits.policy.for_cpu
                && limits.policy.grouping == Grouping::Small
                && count(first) as usize <= SMALL_WORKGROUPS_CPU;
        let is_grouped = self.launches.len() > 1 || alone_too && can_be_grouped;
        let (mut parameters, mut bindings, mut workgroups) =
            (first.parameters.clone(), first.places().copied().collect(), first.workgroups);
        if is_grouped {
            bindings = self.bound(None, limits);
            let row = |launch: &Resolved| grouped::Member {
                parameters: launch.parameters.clone(),
                offsets: launch.places().zip(&bindings).map(|(place, bound)| place.offset - bound.offset).collect(),
                workgroups: launch.workgroups,
            };
            parameters = grouped::table(&self.launches.iter().map(row).collect::<Vec<_>>());
            workgroups = [self.launches.iter().map(count).sum(), 1, 1];
        }
        let member =
            |launch: Resolved| Member { node: launch.node, workgroups: count(&launch), operands: launch.operands };
        let members = self.launches.into_iter().map(member).collect();
        Step::Dispatch { kernel: Kernel { is_grouped, ..self.kernel }, members, parameters, bindings, workgroups }
    }
}

/// Whether a binding overlaps one before it.
fn meets_another(bindings: &[Placement], i: usize) -> bool {
    bindings[..i].iter().any(|other| other.overlaps(&bindings[i]))
}

/// `step` with another place for every binding that overlaps one before it, as of an operand that is read twice or of a result
/// that overwrites what it is made of. What is bound is copied there before, and, unless it is only read, back after.
fn with_detours(mut step: Step) -> Vec<Step> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    if let Step::Dispatch { members, bindings, .. } = &mut step {
        for i in 1..bindings.len() {
            if !meets_another(bindings, i) {
                continue;
            }
            let own = bindings[i];
            let detour = Placement { buffer: BufferId::Detour(before.len()), offset: 0, bytes: own.bytes };
            before.push(Step::Copy { from: own, to: detour });
            bindings[i] = detour;
            let is_read = |member: &Member| matches!(member.operands[i].0, Slot::Input(_));
            if !members.iter().all(is_read) {
                after.push(Step::Copy { from: detour, to: own });
            }
            for (_, place) in members.iter_mut().map(|member| &mut member.operands[i]) {
                *place = Placement { buffer: detour.buffer, offset: place.offset - own.offset, ..*place };
            }
        }
    }
    before.push(step);
    before.extend(after);
    before
}
