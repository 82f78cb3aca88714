// Kernel of src/layers/unpack.rs; one invocation a word.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

struct Parameters {
    count: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "words", "u32") }}
{{ buffer(2, "bytes", "vec4<u32>") }}

{{ entry_point("unpack_bytes") }}
    let index = invocation_index(workgroup, grid, local);
    if index < p.count {
        store_bytes(index, (vec4(load_words(index)) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u));
    }
}
