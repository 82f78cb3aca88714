//! The plan: what it computes, that no two living tensors meet in memory, how much memory it takes, and what it refuses.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sep4d::Error;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::interpret::{self, Values};
use sep4d::graph::plan::{BufferId, Member, Placement, Plan, Step};
use sep4d::graph::program::LAYER_BYTES;
use sep4d::graph::recompute::plan_within;
use sep4d::graph::{Add, Graph, Grouping, Init, KernelLimits, OpContext, Slot, Storage, TensorId, TensorSpec};
use sep4d::layers::concat::{concat, slice};
use sep4d::layers::conv3d::conv3d;
use sep4d::layers::linear::linear;
use sep4d::layers::pointwise::Pointwise;
use sep4d::rng::Rng;
use sep4d::selftest::relative_error;

const ROWS: usize = 768;

/// So little that a graph of a dozen tensors needs several arenas, and most tensors several windows.
fn small_limits(of: &KernelLimits) -> KernelLimits {
    KernelLimits { max_buffer_bytes: 100 << 10, max_storage_binding_bytes: 20 << 10, ..of.clone() }
}

/// A graph of cheap ops with several consumers of most tensors, views, kept tensors in the middle, and, for every other
/// seed, a backward pass.
struct RandomGraph {
    graph: Graph,
    inputs: Vec<(TensorId, Vec<f64>)>,
    kept: Vec<TensorId>,
}

fn random_graph(seed: u64) -> RandomGraph {
    let mut rng = Rng::new(seed, 0);
    let mut graph = Graph::new();
    let mut inputs = Vec::new();
    let mut input = |graph: &mut Graph, rng: &mut Rng, shape: &[usize]| {
        let id = graph.input("input", TensorSpec::f32(shape));
        let values = (0..shape.iter().product()).map(|_| f64::from((0.5 * rng.normal()) as f32)).collect();
        inputs.push((id, values));
        id
    };
    let mut tensors = vec![input(&mut graph, &mut rng, &[ROWS, 4]), input(&mut graph, &mut rng, &[ROWS, 8])];
    let sources = tensors.clone();
    let weights: Vec<(TensorId, TensorId)> = [(4, 8), (8, 4), (8, 8)]
        .iter()
        .map(|&(i, o)| (input(&mut graph, &mut rng, &[o, i]), input(&mut graph, &mut rng, &[o])))
        .collect();
    let mut kept = Vec::new();
    for _ in 0..rng.below(14) + 6 {
        // Recent tensors more often, so that chains arise whose links die at once.
        let pick = |rng: &mut Rng, tensors: &[TensorId]| {
            let recent = if rng.chance(0.6) { tensors.len().min(2) } else { tensors.len() };
            tensors[tensors.len() - 1 - rng.below(recent)]
        };
        let x = pick(&mut rng, &tensors);
        let channels = graph.tensor(x).spec.channels();
        let y = match rng.below(8) {
            0 => graph.push_one(Pointwise::Lrelu, &[x]).unwrap(),
            1 => graph.push_one(Pointwise::Sigmoid { scale: 2.0 }, &[x]).unwrap(),
            2 => graph.push_one(Pointwise::Scale { factor: -1.5 }, &[x]).unwrap(),
            3 => {
                let alike: Vec<TensorId> =
                    tensors.iter().copied().filter(|&other| graph.shape(other) == graph.shape(x)).collect();
                graph.push_one(Add, &[x, alike[rng.below(alike.len())]]).unwrap()
            }
            4 if channels <= 8 => {
                let other = pick(&mut rng, &tensors);
                let other = if graph.tensor(other).spec.channels() <= 8 { other } else { x };
                concat(&mut graph, &[x, other]).unwrap()
            }
            5 if channels > 4 => slice(&mut graph, x, rng.below(2) * 4, 4).unwrap(),
            6 => {
                // A view with another row length goes through one op and comes back.
                let view = graph.reshape(x, &[ROWS / 2, 2, channels]).unwrap();
                let y = graph.push_one(Pointwise::Sigmoid { scale: 1.0 }, &[view]).unwrap();
                graph.reshape(y, &[ROWS, channels]).unwrap()
            }
            _ => {
                let fitting: Vec<_> = weights.iter().filter(|(w, _)| graph.shape(*w)[1] == channels).collect();
                match fitting.len() {
                    0 => graph.push_one(Pointwise::Lrelu, &[x]).unwrap(),
                    n => {
                        let (weight, bias) = *fitting[rng.below(n)];
                        linear(&mut graph, x, weight, Some(bias), true).unwrap()
                    }
                }
            }
        };
        if rng.chance(0.25) {
            kept.push(y);
        }
        tensors.push(y);
    }
    kept.push(*tensors.last().unwrap());
    if seed.is_multiple_of(2) {
        let last = *tensors.last().unwrap();
        let shape = graph.shape(last).to_vec();
        let d_last = input(&mut graph, &mut rng, &shape);
        let wrt: Vec<TensorId> = sources.into_iter().chain(weights.iter().flat_map(|(w, b)| [*w, *b])).collect();
        let gradients = graph.backward(&[(last, d_last)], &wrt).unwrap();
        // A gradient that is the seed itself is an input, and stays where it is.
        kept.extend(wrt.iter().filter_map(|&id| gradients.of(&graph, id)));
    }
    kept.iter().for_each(|&id| graph.keep(id));
    RandomGraph { graph, inputs, kept }
}

/// The tensors of a launch, by root; scratch is none.
fn operands(graph: &Graph, member: &Member) -> HashSet<TensorId> {
    let node = &graph.nodes()[member.node];
    let tensors = member.operands.iter().filter_map(|(slot, _)| match slot {
        Slot::Input(i) => Some(node.inputs[*i]),
        Slot::Output(i) => Some(node.outputs[*i]),
        Slot::Scratch(_) => None,
    });
    tensors.map(|id| graph.root(id)).collect()
}

fn lies_in(range: &Placement, place: &Placement) -> bool {
    range.overlaps(place) && range.offset >= place.offset && range.offset + range.bytes <= place.offset + place.bytes
}

/// First and last step that touches a transient tensor, by root; kept ones live to the end.
fn lifetimes(graph: &Graph, plan: &Plan) -> HashMap<TensorId, (usize, usize)> {
    let mut lives = HashMap::new();
    for (time, step) in plan.steps.iter().enumerate() {
        let Step::Dispatch { members, .. } = step else { continue };
        for root in members.iter().flat_map(|member| operands(graph, member)) {
            if graph.tensor(root).storage == Storage::Transient {
                let end = if graph.tensor(root).kept { usize::MAX } else { time };
                let life = lives.entry(root).or_insert((time, end));
                life.1 = end.max(life.1);
            }
        }
    }
    lives
}

/// Checks every pair of living tensors, and every range that a kernel gets; returns how many tensors are made in place.
fn check_memory(graph: &Graph, plan: &Plan) -> usize {
    let lives = lifetimes(graph, plan);
    let mut in_place = 0;
    for (a, life_a) in &lives {
        let place_a = plan.places[a];
        assert!(place_a.offset.is_multiple_of(256) && matches!(place_a.buffer, BufferId::Arena(_)));
        for (b, life_b) in lives.iter().filter(|(b, _)| *b > a) {
            let (first, second) = if life_a.0 <= life_b.0 { (a, b) } else { (b, a) };
            let (early, late) = (lives[first], lives[second]);
            if late.0 > early.1 || !place_a.overlaps(&plan.places[b]) {
                continue;
            }
            // They meet in time and in memory: the one must be made of the other, in its last use.
            let makes = |member: &Member| {
                let node = &graph.nodes()[member.node];
                node.op.in_place().is_some_and(|(output, input)| {
                    graph.root(node.outputs[output]) == *second && graph.root(node.inputs[input]) == *first
                })
            };
            // An op may take several launches, but meanwhile nobody else may read what it overwrites.
            let shares = plan.steps[late.0..=early.1].iter().all(|step| {
                let Step::Dispatch { members, .. } = step else { return true };
                members.iter().all(|member| makes(member) || !operands(graph, member).contains(first))
            });
            assert!(
                shares && place_a == plan.places[b],
                "{} {early:?} and {} {late:?} overlap",
                graph.describe(*first),
                graph.describe(*second)
            );
            in_place += 1;
        }
    }
    for (time, step) in plan.steps.iter().enumerate() {
        let Step::Dispatch { members, bindings, .. } = step else { continue };
        for (number, member) in members.iter().enumerate() {
            let own = operands(graph, member);
            for ((slot, range), bound) in member.operands.iter().zip(bindings) {
                assert!(lies_in(range, bound), "step {time} binds {bound:?} for {range:?}");
                let others = lives.iter().filter(|(id, life)| life.0 <= time && time <= life.1 && !own.contains(id));
                for (id, life) in others {
                    assert!(
                        !range.overlaps(&plan.places[id]),
                        "{} {life:?} is touched by step {time}",
                        graph.describe(*id)
                    );
                }
                // Scratch must touch neither the launch's own tensors nor another launch's ranges.
                if let Slot::Scratch(_) = slot {
                    assert!(
                        !own.iter().any(|id| range.overlaps(&plan.places[id])),
                        "scratch of step {time} meets an operand"
                    );
                    let rest = members.iter().enumerate().filter(|(other, _)| *other != number);
                    let mut ranges = rest.flat_map(|(_, other)| &other.operands);
                    assert!(!ranges.any(|(_, other)| range.overlaps(other)), "launches of step {time} share scratch");
                }
            }
        }
    }
    in_place
}

/// What the arenas would need if nothing were ever shared.
fn unshared_bytes(graph: &Graph, plan: &Plan, limits: &KernelLimits) -> usize {
    let aligned = |bytes: usize| bytes.next_multiple_of(limits.offset_alignment_bytes);
    let tensors: usize = lifetimes(graph, plan).keys().map(|&id| aligned(graph.tensor(id).spec.bytes())).sum();
    let scratch = |node: &sep4d::graph::Node| -> usize {
        let (inputs, outputs) = (graph.specs(&node.inputs), graph.specs(&node.outputs));
        let program = node.op.program(&OpContext { inputs: &inputs, outputs: &outputs, limits }).unwrap();
        program.scratch.iter().map(|scratch| aligned(scratch.bytes())).sum()
    };
    tensors + graph.nodes().iter().map(scratch).sum::<usize>()
}

#[test]
fn no_two_living_tensors_overlap() {
    let limits = small_limits(&KernelLimits::portable().for_cpu(true));
    let (mut in_place, mut several_arenas) = (0, 0);
    for seed in 0..200 {
        let RandomGraph { mut graph, .. } = random_graph(seed);
        // Every third one with whatever may be in f16.
        let has_f16 = seed % 3 == 0 && graph.halve(0) > 0;
        for limits in [limits.clone(), KernelLimits::portable()] {
            let limits = &KernelLimits { has_f16, ..limits };
            let plan = Plan::new(&graph, limits).unwrap();
            in_place += check_memory(&graph, &plan);
            several_arenas += usize::from(plan.arenas.len() > 1);
            assert!(plan.arenas.iter().all(|&bytes| bytes <= limits.max_buffer_bytes));
            assert!(plan.largest_binding <= limits.max_storage_binding_bytes);
            let (used, most) = (plan.arenas.iter().sum::<usize>(), unshared_bytes(&graph, &plan, limits));
            assert!(used <= most, "seed {seed}: {used} bytes, {most} without sharing");
        }
    }
    println!("{in_place} tensors in place, {several_arenas} plans with several arenas");
    assert!(in_place > 100 && several_arenas > 100, "the graphs are too simple to show anything");
}

#[test]
fn random_graphs_give_what_the_interpreter_gives() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    for seed in 0..60 {
        let RandomGraph { mut graph, inputs, kept } = random_graph(seed);
        let is_half = seed % 3 == 0 && context.limits().has_f16 && graph.halve(0) > 0;
        // Results an f32 apart may be rounded to f16 numbers apart, and lie on either side of an activation's kink.
        let tolerance = if is_half { 1e-3 } else { 1e-5 };
        let mut values = Values::default();
        inputs.iter().for_each(|(id, data)| values.set(&graph, *id, data.clone()));
        interpret::run(&graph, &mut values).unwrap();
        let own = context.limits();
        let other_family = own.for_cpu(!own.policy.for_cpu);
        for limits in [own.clone(), small_limits(own), other_family] {
            let executor = run(&context, &graph, &limits, &inputs);
            for &id in &kept {
                let found: Vec<f64> = executor.read::<f32>(id).unwrap().into_iter().map(f64::from).collect();
                let error = relative_error(&found, values.get(&graph, id).unwrap());
                assert!(error < tolerance, "seed {seed}: {} deviates by {error}", graph.describe(id));
            }
        }
    }
}

#[test]
fn a_graph_has_one_plan() {
    let mut graph = Graph::new();
    let x = graph.input("x", TensorSpec::f32(&[1, 4, 4, 4, 8]));
    // Layers whose temporaries are equally large and needed at the same time.
    for _ in 0..6 {
        let [weight, bias] = [&[8, 8, 3, 3, 3][..], &[8]].map(|shape| graph.input("", TensorSpec::f32(shape)));
        let y = conv3d(&mut graph, x, weight, bias, [3, 3, 3]).unwrap();
        graph.keep(y);
    }
    let graph = &graph;
    for for_cpu in [true, false] {
        let limits = KernelLimits::portable().for_cpu(for_cpu);
        let plans = [(); 2].map(|()| format!("{:?}", Plan::new(graph, &limits).unwrap().steps));
        assert_eq!(plans[0], plans[1]);
    }
}

#[test]
fn temporaries_find_room_in_several_images() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let mut rng = Rng::new(3, 0);
    let mut graph = Graph::new();
    let mut inputs = Vec::new();
    let mut input = |graph: &mut Graph, shape: &[usize]| {
        let id = graph.input("input", TensorSpec::f32(shape));
        inputs.push((id, (0..shape.iter().product()).map(|_| f64::from(rng.normal() as f32)).collect::<Vec<f64>>()));
        id
    };
    // The weights of all layers are rearranged in one dispatch, as far as they fit one image.
    let x = input(&mut graph, &[1, 4, 4, 4, 8]);
    let outputs: Vec<TensorId> = (0..6)
        .map(|_| {
            let (weight, bias) = (input(&mut graph, &[8, 8, 3, 3, 3]), input(&mut graph, &[8]));
            conv3d(&mut graph, x, weight, bias, [3, 3, 3]).unwrap()
        })
        .collect();
    outputs.iter().for_each(|&id| graph.keep(id));
    let mut values = Values::default();
    inputs.iter().for_each(|(id, data)| values.set(&graph, *id, data.clone()));
    interpret::run(&graph, &mut values).unwrap();
    let max_image_bytes = 4 * LAYER_BYTES;
    let limits = KernelLimits { max_image_bytes, ..context.limits().for_cpu(true).grouped(Grouping::Small) };
    assert_eq!(Plan::new(&graph, &limits).unwrap().images, [4 * LAYER_BYTES, 2 * LAYER_BYTES]);
    let executor = run(&context, &graph, &limits, &inputs);
    for id in outputs {
        let found: Vec<f64> = executor.read::<f32>(id).unwrap().into_iter().map(f64::from).collect();
        assert!(relative_error(&found, values.get(&graph, id).unwrap()) < 1e-5);
    }
}

fn run(context: &Arc<Context>, graph: &Graph, limits: &KernelLimits, inputs: &[(TensorId, Vec<f64>)]) -> Executor {
    let plan = Plan::new(graph, limits).unwrap();
    let memory = Memory::new(context, &[&plan]).unwrap();
    let executor = Executor::new(context, graph.clone(), plan, &memory).unwrap();
    for (id, data) in inputs.iter().filter(|(id, _)| executor.uses(*id)) {
        executor.write(*id, &data.iter().map(|&v| v as f32).collect::<Vec<_>>()).unwrap();
    }
    executor.run().unwrap();
    executor
}

/// Bytes of the arenas beyond `budget`.
fn excess(budget: usize) -> impl Fn(&Plan) -> usize {
    move |plan| plan.arenas.iter().sum::<usize>().saturating_sub(budget)
}

#[test]
fn what_is_recomputed_is_the_same_to_the_bit_in_less_memory() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let mut lowered = 0;
    for seed in (0..60).step_by(2) {
        let RandomGraph { graph, inputs, kept } = random_graph(seed);
        let limits = context.limits();
        let plan = Plan::new(&graph, limits).unwrap();
        let before: usize = plan.arenas.iter().sum();
        // An impossible budget: as little as can be.
        let (smaller, small_plan) = plan_within(graph.clone(), limits, excess(0)).unwrap();
        check_memory(&smaller, &small_plan);
        let least: usize = small_plan.arenas.iter().sum();
        assert!(least <= before, "seed {seed}: {least} bytes instead of {before}");
        lowered += usize::from(least < before);
        // A possible one is kept; one that nothing exceeds changes nothing.
        let (_, fitting) = plan_within(graph.clone(), limits, excess(least)).unwrap();
        assert_eq!(excess(least)(&fitting), 0, "seed {seed}");
        let (same, _) = plan_within(graph.clone(), limits, excess(before)).unwrap();
        assert_eq!(same.nodes().len(), graph.nodes().len(), "seed {seed}");

        let [kept_whole, recomputed] = [&graph, &smaller].map(|graph| run(&context, graph, limits, &inputs));
        for &id in &kept {
            let [a, b] = [&kept_whole, &recomputed].map(|executor| executor.read::<u32>(id).unwrap());
            assert_eq!(a, b, "seed {seed}: {}", graph.describe(id));
        }
    }
    assert!(lowered > 8, "{lowered} graphs got smaller, too few to show anything");
}

#[test]
fn the_cheapest_are_recomputed_first() {
    let mut g = Graph::new();
    let start = g.input("x", TensorSpec::f32(&[ROWS, 16]));
    let mut x = start;
    let weight = g.input("weight", TensorSpec::f32(&[16, 16]));
    let bias = g.input("bias", TensorSpec::f32(&[16]));
    // Every sigmoid and every product is saved for the backward pass.
    for _ in 0..4 {
        let y = linear(&mut g, x, weight, Some(bias), false).unwrap();
        let y = g.push_one(Pointwise::Sigmoid { scale: 2.0 }, &[y]).unwrap();
        x = g.push_one(Add, &[x, y]).unwrap();
    }
    let d_x = g.input("d_x", TensorSpec::f32(&[ROWS, 16]));
    // So that every node has a purpose.
    g.keep(x);
    let gradients = g.backward(&[(x, d_x)], &[weight, start, bias]).unwrap();
    for id in [weight, start, bias] {
        let gradient = gradients.of(&g, id).unwrap();
        g.keep(gradient);
    }
    let limits = KernelLimits::portable();
    let plan = Plan::new(&g, &limits).unwrap();
    let budget = plan.arenas[0] - ROWS * 16 * 4;
    let (smaller, plan) = plan_within(g.clone(), &limits, excess(budget)).unwrap();
    assert!(plan.arenas[0] <= budget);
    let names = |graph: &Graph, name: &str| graph.nodes().iter().filter(|node| node.op.name() == name).count();
    let recomputed: Vec<&str> = ["add", "sigmoid_forward", "linear_forward"]
        .into_iter()
        .flat_map(|name| std::iter::repeat_n(name, names(&smaller, name) - names(&g, name)))
        .collect();
    assert_eq!(recomputed, ["add"], "sums cost least");
}

#[test]
fn what_has_read_a_buffer_is_not_computed_again_once_that_is_overwritten() {
    for overwritten in [false, true] {
        let mut g = Graph::new();
        let x = g.input("x", TensorSpec::f32(&[ROWS, 16]));
        let buffer = g.buffer("buffer", &[ROWS, 16], Init::Constant(1.0)).unwrap();
        let early = g.push_one(Add, &[x, buffer]).unwrap();
        if overwritten {
            g.push_into(Add, &[buffer, x], &[buffer]).unwrap();
        }
        let mut y = early;
        for _ in 0..4 {
            y = slice(&mut g, y, 0, 16).unwrap();
        }
        let sum = g.push_one(Add, &[y, early]).unwrap();
        g.keep(sum);
        let (smaller, _) = plan_within(g.clone(), &KernelLimits::portable(), excess(0)).unwrap();
        assert_eq!(smaller.nodes().len() - g.nodes().len(), usize::from(!overwritten));
    }
}

#[test]
fn a_chain_needs_the_memory_of_two_tensors_or_of_one_in_place() {
    let bytes = 1024 * 4 * 4;
    for length in [3, 40] {
        let (mut copies, mut in_place) = (Graph::new(), Graph::new());
        let mut x = copies.input("x", TensorSpec::f32(&[1024, 4]));
        let mut y = in_place.input("x", TensorSpec::f32(&[1024, 4]));
        for _ in 0..length {
            x = slice(&mut copies, x, 0, 4).unwrap();
            y = in_place.push_one(Pointwise::Scale { factor: 2.0 }, &[y]).unwrap();
        }
        copies.keep(x);
        in_place.keep(y);
        assert_eq!(Plan::new(&copies, &KernelLimits::portable()).unwrap().arenas, [2 * bytes]);
        assert_eq!(Plan::new(&in_place, &KernelLimits::portable()).unwrap().arenas, [bytes]);
    }
}

#[test]
fn nothing_is_overwritten_that_is_kept_or_read_later() {
    for (keeps, reads_later) in [(false, false), (true, false), (false, true)] {
        let mut g = Graph::new();
        let input = g.input("input", TensorSpec::f32(&[64, 4]));
        let x = g.push_one(Pointwise::Lrelu, &[input]).unwrap();
        // Through a view, which shares the memory of x.
        let view = g.reshape(x, &[256]).unwrap();
        let y = g.push_one(Pointwise::Scale { factor: 3.0 }, &[view]).unwrap();
        if keeps {
            g.keep(view);
        }
        if reads_later {
            let y = g.reshape(y, &[64, 4]).unwrap();
            let sum = g.push_one(Add, &[y, x]).unwrap();
            g.keep(sum);
        }
        g.keep(y);
        let plan = Plan::new(&g, &KernelLimits::portable()).unwrap();
        assert_eq!(plan.places[&x] == plan.places[&y], !keeps && !reads_later);
        assert_ne!(plan.places[&x].buffer, plan.places[&input].buffer, "inputs keep their values");
    }
    // Both operands are the same tensor: the sum reads what it would have overwritten.
    let mut g = Graph::new();
    let input = g.input("input", TensorSpec::f32(&[64, 4]));
    let x = g.push_one(Pointwise::Lrelu, &[input]).unwrap();
    let y = g.push_one(Add, &[x, x]).unwrap();
    g.keep(y);
    let plan = Plan::new(&g, &KernelLimits::portable()).unwrap();
    assert!(!plan.places[&x].overlaps(&plan.places[&y]));
}

fn refusal(graph: &Graph, limits: &KernelLimits) -> Error {
    Plan::new(graph, limits).unwrap_err()
}

#[test]
fn a_tensor_above_the_largest_buffer_is_named() {
    let mut g = Graph::new();
    let small = g.input("small", TensorSpec::f32(&[64, 4]));
    let wide = g.scope("decoder", |g| concat(g, &[small; 6])).unwrap();
    g.keep(wide);
    let limits = KernelLimits { max_buffer_bytes: 4096, ..KernelLimits::portable() };
    let error = refusal(&g, &limits);
    let message = error.to_string();
    assert!(matches!(error, Error::Memory(_)), "{message}");
    for part in ["decoder.concat_forward [64, 24]", "6144 bytes", "4096", "data.crop"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_frame_above_the_binding_limit_says_what_to_do() {
    let mut g = Graph::new();
    let x = g.input("x", TensorSpec::f32(&[2, 16, 16, 4, 4]));
    let weight = g.parameter("weight", &[4, 4, 3, 3, 3], Init::Constant(0.0)).unwrap();
    let bias = g.parameter("bias", &[4], Init::Constant(0.0)).unwrap();
    let y = conv3d(&mut g, x, weight, bias, [3, 3, 3]).unwrap();
    g.keep(y);
    let error = refusal(&g, &KernelLimits { max_storage_binding_bytes: 8 << 10, ..KernelLimits::portable() });
    let message = error.to_string();
    assert!(matches!(error, Error::Device(_)), "{message}");
    for part in ["8192 bytes", "16384 bytes", "data.crop", "--device"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_operand_that_only_fits_whole_is_named_with_its_size_and_the_limit() {
    let mut g = Graph::new();
    let x = g.input("x", TensorSpec::f32(&[1, 64]));
    let weight = g.parameter("head.weight", &[64, 64], Init::Constant(0.0)).unwrap();
    let y = g.scope("head", |g| linear(g, x, weight, None, false)).unwrap();
    g.keep(y);
    let error = refusal(&g, &KernelLimits { max_storage_binding_bytes: 8 << 10, ..KernelLimits::portable() });
    let message = error.to_string();
    assert!(matches!(error, Error::Device(_)), "{message}");
    for part in ["in 'head'", "head.weight [64, 64]", "16384 bytes", "8192 bytes", "data.crop", "preset", "--device"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn inputs_without_influence_take_no_memory_unless_they_are_kept() {
    let mut graph = Graph::new();
    let used = graph.input("used", TensorSpec::f32(&[64, 4]));
    let (idle, kept) = (graph.input("idle", TensorSpec::f32(&[4096])), graph.input("kept", TensorSpec::f32(&[128])));
    let constant = graph.constant("constant", &[512], vec![0.0; 512]).unwrap();
    let result = graph.push_one(Pointwise::Lrelu, &[used]).unwrap();
    graph.push_one(Pointwise::Lrelu, &[idle]).unwrap();
    graph.keep(result);
    graph.keep(kept);
    let plan = Plan::new(&graph, &KernelLimits::portable()).unwrap();
    assert_eq!(plan.persistent, [(64 * 4 + 128) * 4]);
    let placed = [used, idle, kept, constant].map(|id| plan.places.contains_key(&id));
    assert_eq!(placed, [true, false, true, false]);
}

/// Six equal branches of two layers from one tensor, of which one branch's hidden tensor is read by all others' second layers.
fn branches() -> (Graph, Vec<(TensorId, Vec<f64>)>) {
    let mut graph = Graph::new();
    let mut rng = Rng::new(11, 0);
    let mut inputs = Vec::new();
    let mut input = |graph: &mut Graph, shape: &[usize]| {
        let id = graph.input("given", TensorSpec::f32(shape));
        inputs.push((id, (0..shape.iter().product()).map(|_| f64::from(rng.normal() as f32)).collect()));
        id
    };
    let x = input(&mut graph, &[50, 8]);
    let mut hidden = Vec::new();
    for _ in 0..6 {
        let (weight, bias) = (input(&mut graph, &[8, 8]), input(&mut graph, &[8]));
        hidden.push(linear(&mut graph, x, weight, Some(bias), true).unwrap());
    }
    for &id in &hidden[1..] {
        let sum = graph.push_one(Add, &[id, hidden[0]]).unwrap();
        graph.keep(sum);
    }
    (graph, inputs)
}

#[test]
fn equal_branches_share_their_dispatches_and_give_the_same_bits() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let (graph, inputs) = branches();
    let [together, apart] = [Grouping::Small, Grouping::Off].map(|grouping| {
        let limits = context.limits().grouped(grouping);
        run(&context, &graph, &limits, &inputs)
    });
    let launches = |executor: &Executor| {
        let members = executor.plan().steps.iter().map(|step| match step {
            Step::Dispatch { members, .. } => members.len(),
            Step::Clear { .. } | Step::Copy { .. } => 0,
        });
        members.collect::<Vec<_>>()
    };
    let (shared, alone) = (launches(&together), launches(&apart));
    assert!(shared.ends_with(&[6, 5]), "{shared:?}");
    assert!(alone.iter().all(|&members| members == 1) && alone.len() == shared.iter().sum::<usize>(), "{alone:?}");
    for id in graph.nodes().iter().flat_map(|node| node.outputs.clone()).filter(|&id| graph.tensor(id).kept) {
        assert_eq!(together.read::<u32>(id).unwrap(), apart.read::<u32>(id).unwrap());
    }
}
