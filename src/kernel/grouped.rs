//! Several launches of one kernel in one dispatch: the kernel's text for that, and the table that it finds them by.
//!
//! Each workgroup looks up the launch that it belongs to, and reads that one's parameters, grid and places in memory from the
//! table, which takes the place of the parameter block. The buffers are bound once for all of them.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Kernel, WORD_BYTES};

/// Launches that share a dispatch, at most.
pub const MOST_MEMBERS: usize = 16;

/// A launch's row of the table: parameters, where its operands begin, its grid and its first workgroup.
const MEMBER_WORDS: usize = 48;
const MOST_OPERANDS: usize = 8;
const MOST_PARAMETERS: usize = MEMBER_WORDS - MOST_OPERANDS - 4;
const TABLE_WORDS: usize = MOST_MEMBERS * MEMBER_WORDS;
/// Bytes of the table.
pub const TABLE_BYTES: usize = TABLE_WORDS * WORD_BYTES;

/// One launch of a dispatch.
#[derive(Debug, Clone)]
pub struct Member {
    /// Words of its parameter block.
    pub parameters: Vec<u32>,
    /// Where its operands begin in what is bound, in bytes.
    pub offsets: Vec<usize>,
    /// Its workgroups.
    pub workgroups: [u32; 3],
}

/// Whether launches of `kernel` with so many parameter words and operands can share a dispatch. Those that multiply by matrix
/// units do not: a driver that cannot compile one is lost with its device, so they run only as a tuner has tried them.
pub fn fits(kernel: &Kernel, parameters: usize, operands: usize) -> bool {
    parameters <= MOST_PARAMETERS && operands <= MOST_OPERANDS && !kernel.on_matrix_units()
}

/// The words of the table of at most [`MOST_MEMBERS`] launches. A workgroup belongs to the last one whose first workgroup does
/// not come after it.
pub fn table(members: &[Member]) -> Vec<u32> {
    let mut words = Vec::with_capacity(TABLE_WORDS);
    let mut first = 0;
    for member in members {
        words.extend(&member.parameters);
        words.resize(words.len().next_multiple_of(MEMBER_WORDS) - MOST_OPERANDS - 4, 0);
        words.extend(member.offsets.iter().map(|&bytes| bytes as u32));
        words.resize(words.len().next_multiple_of(MEMBER_WORDS) - 4, 0);
        words.extend(member.workgroups);
        words.push(first);
        first += member.workgroups.iter().product::<u32>();
    }
    // Nothing belongs to the others.
    words.resize(TABLE_WORDS, u32::MAX);
    words
}

/// The text of a kernel of the same entry point for several launches, from that for one.
///
/// `source` declares its uniform and storage variables in lines of their own. Its buffers are arrays that it only indexes, its
/// images those of `shaders/common/image.wgsl`. The entry point itself uses its uniform if there are several, and calls its
/// workgroup's number `workgroup` and their extent `grid`. None of the names is used for anything else.
///
/// # Errors
/// A sentence if `source` is not of that form.
pub fn grouped_source(source: &str, entry: &str) -> Result<String, String> {
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let Declared { uniforms, buffers, text } = declared(&code)?;
    let text = rebased(&text, &buffers)?;

    let signature = format!("fn {entry}(");
    let (before, rest) = text.split_once(&signature).ok_or_else(|| format!("has no `{signature}`"))?;
    let (parameters, body) = rest.split_once('{').ok_or("has an entry point without a body")?;
    let end = body.find("\n}").ok_or("has an entry point without an end")?;
    let uses = |name: &str| words(&body[..end]).any(|word| word == name);
    let [uniform] = uniforms.iter().filter(|name| uniforms.len() == 1 || uses(name)).collect::<Vec<_>>()[..] else {
        return Err(format!("{entry} must use one of several uniforms itself, and no other"));
    };
    let mut renamed = parameters.to_owned();
    for (builtin, name) in [("workgroup_id", "workgroup"), ("num_workgroups", "grid")] {
        let (from, to) = (format!("@builtin({builtin}) {name}:"), format!("@builtin({builtin}) group_{name}:"));
        if renamed.contains(&from) {
            renamed = renamed.replace(&from, &to);
        } else if renamed.contains(builtin) {
            return Err(format!("{entry} does not call its {builtin} `{name}`"));
        } else {
            renamed = format!("{to} vec3<u32>, {renamed}");
        }
    }
    Ok(format!("{before}{signature}{renamed}{{{}{body}", prologue(uniform, &buffers)))
}

/// Binding and bytes of an element of each buffer.
type Buffers<'a> = BTreeMap<&'a str, (usize, usize)>;

/// What a kernel declares.
struct Declared<'a> {
    uniforms: Vec<&'a str>,
    buffers: Buffers<'a>,
    /// Its text, with tables and private variables in place of uniforms.
    text: String,
}

fn declared(code: &str) -> Result<Declared<'_>, String> {
    // What a name stands for: the type of an alias, or those of a structure's members.
    let mut types: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut structure = None;
    let mut found = Declared { uniforms: Vec::new(), buffers: Buffers::new(), text: String::new() };
    for line in code.lines() {
        let declared = line.trim().trim_end_matches(';');
        if let Some((name, of)) = declared.strip_prefix("alias ").and_then(|alias| alias.split_once(" = ")) {
            types.insert(name, vec![of]);
        } else if let Some(name) = declared.strip_prefix("struct ").and_then(|rest| rest.strip_suffix(" {")) {
            types.insert(name, Vec::new());
            structure = Some(name);
        } else if let (Some(name), Some((_, of))) = (structure, declared.trim_end_matches(',').split_once(": ")) {
            types.entry(name).or_default().push(of);
        } else if declared == "}" {
            structure = None;
        } else if let Some((_, variable)) =
            declared.split_once("var<storage, read_write> ").or_else(|| declared.split_once(") var "))
        {
            let (name, of) = variable.split_once(": ").ok_or_else(|| format!("cannot read `{line}`"))?;
            let element = match of.starts_with("texture_storage_2d_array<rgba32float, ") {
                true => Some("vec4<f32>"),
                false => of.strip_prefix("array<").and_then(|of| of.strip_suffix('>')),
            };
            let binding = declared.split("@binding(").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
            let (Some(element), Some(binding)) = (element, binding) else {
                return Err(format!("cannot read `{line}`"));
            };
            let bytes = bytes_of(element, &types).ok_or_else(|| format!("cannot tell the size of `{element}`"))?;
            found.buffers.insert(name, (binding, bytes));
        } else if declared.starts_with("const base_") {
            // Where an image's vectors begin for one launch.
            continue;
        } else if let Some((_, variable)) = declared.split_once("var<uniform> ") {
            let (name, of) = variable.split_once(": ").ok_or_else(|| format!("cannot read `{line}`"))?;
            found.uniforms.push(name);
            let _ = writeln!(
                found.text,
                "struct Group_{name} {{ @size({}) parameters: {of}, offsets: array<vec4<u32>, 2>, grid: vec3<u32>, first: u32 }}
                 @group(0) @binding(0) var<uniform> group_{name}: array<Group_{name}, {MOST_MEMBERS}>;
                 var<private> {name}: {of};",
                MOST_PARAMETERS * WORD_BYTES
            );
            continue;
        }
        found.text += line;
        found.text.push('\n');
    }
    for name in found.buffers.keys() {
        let _ = writeln!(found.text, "var<private> base_{name}: u32;");
    }
    Ok(found)
}

/// What an entry point begins with: it looks up its launch.
fn prologue(uniform: &str, buffers: &Buffers) -> String {
    let mut text = format!(
        "
    var group_member = 0u;
    while group_member < {last}u && group_workgroup.x >= group_{uniform}[group_member + 1u].first {{
        group_member += 1u;
    }}
    {uniform} = group_{uniform}[group_member].parameters;
    let grid = group_{uniform}[group_member].grid;
    let group_within = group_workgroup.x - group_{uniform}[group_member].first;
    let workgroup = vec3(group_within % grid.x, group_within / grid.x % grid.y, group_within / (grid.x * grid.y));
",
        last = MOST_MEMBERS - 1
    );
    for (name, (binding, bytes)) in buffers {
        let (vector, component) = ((binding - 1) / 4, ["x", "y", "z", "w"][(binding - 1) % 4]);
        let _ =
            writeln!(text, "    base_{name} = group_{uniform}[group_member].offsets[{vector}].{component} / {bytes}u;");
    }
    text
}

/// The identifiers and numbers of `text`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Bytes of an element of type `of`, which has no gaps.
fn bytes_of(of: &str, types: &BTreeMap<&str, Vec<&str>>) -> Option<usize> {
    if let Some(parts) = types.get(of) {
        return parts.iter().map(|part| bytes_of(part, types)).sum();
    }
    let (outer, inner) = of.strip_suffix('>').and_then(|of| of.split_once('<')).unwrap_or((of, ""));
    match outer {
        "f16" => Some(2),
        "f32" | "u32" | "i32" => Some(4),
        "atomic" => bytes_of(inner, types),
        "vec2" => Some(2 * bytes_of(inner, types)?),
        "vec4" => Some(4 * bytes_of(inner, types)?),
        _ => None,
    }
}

/// `text` with the launch's first element added to each index of `buffers`.
fn rebased(text: &str, buffers: &Buffers) -> Result<String, String> {
    let mut result = String::with_capacity(2 * text.len());
    // What ends at each bracket that is open.
    let mut open = Vec::new();
    let mut word = String::new();
    let mut is_member = false;
    for c in text.chars() {
        if c.is_alphanumeric() || c == '_' {
            if word.is_empty() {
                is_member = result.ends_with('.');
            }
            word.push(c);
            result.push(c);
            continue;
        }
        let name = std::mem::take(&mut word);
        match c {
            '[' if !is_member && buffers.contains_key(name.as_str()) => {
                let _ = write!(result, "[base_{name} + u32(");
                open.push(")]");
            }
            '[' => {
                result.push('[');
                open.push("]");
            }
            ']' => result += open.pop().ok_or("has a bracket that nothing opened")?,
            _ => result.push(c),
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOUBLING: &str = "
struct Parameters {
    count: u32, // [of elements
}
struct Eight {
    low: vec4<f16>,
    high: vec4<f16>,
}
alias Value = Eight;
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(0) var<uniform> q: Parameters;
@group(0) @binding(1) var<storage, read_write> from: array<u32>;
@group(0) @binding(2) var<storage, read_write> x: array<Value>;
@group(0) @binding(3) var image: texture_storage_2d_array<rgba32float, write>;
const base_image = 0u;
@compute @workgroup_size(64)
fn doubling(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if local < p.count {
        x[from[local]].low *= 2.0;
    }
}
";

    #[test]
    fn a_kernel_finds_the_launch_of_its_workgroup() {
        let grouped = grouped_source(DOUBLING, "doubling").unwrap();
        assert!(grouped.contains("x[base_x + u32(from[base_from + u32(local)])].low *= 2.0;"), "{grouped}");
        assert!(grouped.contains("base_x = group_p[group_member].offsets[0].y / 16u;"), "{grouped}");
        assert!(grouped.contains("base_image = group_p[group_member].offsets[0].z / 16u;"), "{grouped}");
        assert!(!grouped.contains("const base_image"), "{grouped}");
        assert!(grouped.contains("base_from = group_p[group_member].offsets[0].x / 4u;"), "{grouped}");
    }

    #[test]
    fn what_cannot_be_grouped_is_named() {
        for (from, to, named) in [
            ("array<Value>", "array<vec3<f32>>", "cannot tell the size of `vec3<f32>`"),
            ("p.count", "p.count + q.count", "must use one of several uniforms"),
            ("workgroup: vec3", "number: vec3", "call its workgroup_id `workgroup`"),
            ("fn doubling", "fn halving", "has no `fn doubling(`"),
        ] {
            let why = grouped_source(&DOUBLING.replace(from, to), "doubling").unwrap_err();
            assert!(why.contains(named), "{why}");
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_launch() {
        let member = |parameters, offsets, workgroups| Member { parameters, offsets, workgroups };
        let words = table(&[member(vec![7, 8], vec![256], [2, 3, 1]), member(vec![9], vec![0, 512], [5, 1, 1])]);
        assert_eq!(words.len(), TABLE_WORDS);
        let row = |number: usize| &words[number * MEMBER_WORDS..][..MEMBER_WORDS];
        assert_eq!((&row(0)[..3], &row(0)[36..38], &row(0)[44..]), (&[7, 8, 0][..], &[256, 0][..], &[2, 3, 1, 0][..]));
        assert_eq!((&row(1)[..2], &row(1)[36..39], &row(1)[44..]), (&[9, 0][..], &[0, 512, 0][..], &[5, 1, 1, 6][..]));
        assert_eq!(row(2)[47], u32::MAX);
    }
}
