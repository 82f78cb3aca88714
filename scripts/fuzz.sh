#!/usr/bin/env bash
# Fuzzes every reader, one after the other: at least SECS seconds (600) and RUNS inputs (1000000) each, the given targets or
# all. Needs cargo-fuzz (`cargo install cargo-fuzz`); the compiler's unstable flags are unlocked, so any toolchain does.
# What is found lies in fuzz/artifacts; the corpus grows in CORPUS (fuzz/grown), and `scripts/fuzz.sh keep` takes over into
# fuzz/corpus the smallest part of it that reaches as much.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1
secs=${SECS:-600} runs=${RUNS:-1000000} grown=${CORPUS:-fuzz/grown}
all=(labels masks params poses times npy npz voxels annotations calibration config model optimiser run_folder metrics)
build=(--sanitizer none --target "$(rustc -vV | sed -n 's/^host: //p')")
limits=(-max_len=4096 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64 -use_value_profile=1 -print_final_stats=1)

fuzz() { # TARGET SECONDS INPUTS, of which -1 is no limit
    cargo fuzz run "${build[@]}" "$1" "$grown/$1" "fuzz/corpus/$1" -- "${limits[@]}" -max_total_time="$2" -runs="$3" 2>&1 |
        tee "$grown/$1.log"
}

if [ "${1:-}" = keep ]; then
    for target in "${all[@]}"; do
        cargo fuzz cmin "${build[@]}" "$target" "$grown/$target"
        mkdir -p "fuzz/corpus/$target"
        find "$grown/$target" -type f -size -3k | sort | head -n "${KEEP:-40}" | xargs -I {} cp {} "fuzz/corpus/$target/"
    done
    exit
fi
targets=("$@")
[ $# -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    mkdir -p "$grown/$target"
    fuzz "$target" "$secs" -1 >/dev/null
    done=$(sed -n 's/^stat::number_of_executed_units: *//p' "$grown/$target.log")
    if [ "$done" -lt "$runs" ]; then
        fuzz "$target" 0 $((runs - done)) >/dev/null
        done="$done + $(sed -n 's/^stat::number_of_executed_units: *//p' "$grown/$target.log")"
    fi
    printf '%s: %s inputs, peak %s MB, %s in the corpus\n' "$target" "$done" \
        "$(sed -n 's/^stat::peak_rss_mb: *//p' "$grown/$target.log")" "$(find "$grown/$target" -type f | wc -l)"
done
rm -rf /dev/shm/sep4d-fuzz-*
