#!/usr/bin/env bash
# What only a real GPU can answer, in one run of less than eight minutes once everything is built, the most valuable first:
#
#   scripts/gpu.sh [--tiny] [FOLDER]      results go to FOLDER, or runs/gpu
#
# Each part has a time limit of its own, its output lies in FOLDER as it comes, and FOLDER/summary.md is whole after each part.
# --tiny tries every part at a size that software Vulkan manages. SEP4D names a program to use instead of building one, PYTHON a
# Python that has PyTorch; without PyTorch that part is skipped.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; }

tiny=
folder=
for argument in "$@"; do
    case $argument in
    --tiny) tiny=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    -*)
        printf 'gpu.sh: no such option: %s\n\n' "$argument" >&2
        usage >&2
        exit 2
        ;;
    *) folder=$argument ;;
    esac
done
folder=${folder:-runs/gpu}
python=${PYTHON:-python3}
sep4d=${SEP4D:-target/release/sep4d}
mkdir -p "$folder" || exit 3
rm -rf "${folder:?}"/{*.txt,summary.md,rows.md,town,run}

# Preset and grid of the timed steps and of the training, what the towns are made with, and the limits of the longer parts.
if [ -n "$tiny" ]; then
    preset=tiny grid=16x16x4 trained=tiny
    town=(--grid 16x16x4 --voxel-size 1.6x1.6x0.75 --towns 1 --frames 8)
    selftest_secs=300 tuned_secs=90 bench_secs=60 torch_secs=90 train_secs=20 look_secs=60
else
    preset=paper grid=128x128x8 trained=base
    town=(--grid 128x128x8 --towns 2 --frames 20)
    selftest_secs=45 tuned_secs=85 bench_secs=25 torch_secs=60 train_secs=60 look_secs=20
fi

summarise() {
    {
        printf '# sep4d on a GPU\n\n'
        printf '%s, %s, %s cores\n\n' "$(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')" \
            "$(date -u '+%Y-%m-%d %H:%M UTC')" "$(nproc)"
        printf '| part | outcome | seconds | figure |\n|---|---|---|---|\n'
        cat "$folder/rows.md"
    } >"$folder/summary.md.new"
    mv "$folder/summary.md.new" "$folder/summary.md"
}

# row NAME OUTCOME SECONDS FIGURE
row() {
    printf '| %s | %s | %s | %s |\n' "$1" "$2" "$3" "${4//|/\\|}" >>"$folder/rows.md"
    summarise
    printf '%-16s %-28s %4s s  %s\n' "$@"
}

# part NAME LIMIT FIGURE COMMAND...: the figure is the last line of the output that matches.
part() {
    local name=$1 limit=$2 figure=$3 code start outcome
    shift 3
    start=$SECONDS
    # A training saves at the first signal; the second is for what hangs.
    timeout --signal=TERM --kill-after=15 "$limit" "$@" >"$folder/$name.txt" 2>&1
    code=$?
    case $code in
    0) outcome='done' ;;
    124) outcome="stopped after its $limit s" ;;
    137) outcome="killed after its $limit s" ;;
    *) outcome="failed with code $code" ;;
    esac
    row "$name" "$outcome" $((SECONDS - start)) "$(grep -E "$figure" "$folder/$name.txt" | tail -1)"
    return "$code"
}

if [ -z "${SEP4D:-}" ]; then
    part build 900 'Finished|^error' cargo build --release --no-default-features || exit
fi
if "$python" -c 'import torch' 2>/dev/null; then
    has_torch=1
    part build-peers 900 'Finished|^error' \
        cargo build --release --manifest-path benches/peers/Cargo.toml --bin ours
else
    has_torch=
fi
built=$SECONDS
part devices 10 '^ *0' "$sep4d" devices || exit

part selftest "$selftest_secs" 'cases|^error' "$sep4d" selftest
for frames in 16 4 64; do
    limit=$bench_secs
    # The first step of a kind is preceded by a choice among the kernels.
    [ "$frames" = 16 ] && limit=$tuned_secs
    for precision in f32 f16; do
        part "bench-T$frames-$precision" "$limit" '^step|^error' "$sep4d" bench --preset "$preset" --grid "$grid" \
            --frames "$frames" --set "train.precision=$precision"
    done
done
if [ -n "$has_torch" ]; then
    part torch "$torch_secs" '^step:.*16:' "$python" benches/peers/compare.py --python "$python" --rounds 5 \
        --case "step:$preset:16:$grid" --peer torch-f32 --case "step:$preset:16:$grid:f16" --peer torch-amp
else
    row torch skipped 0 "$python has no PyTorch; PYTHON=... names one that has"
fi
for model in dynamic_city occ_sora; do
    part "bench-$model" "$bench_secs" '^step|^error' "$sep4d" bench --preset "$preset" --grid "$grid" --frames 16 \
        --set "model.architecture=$model"
done
part synth "$look_secs" 'frames' "$sep4d" synth "$folder/town" "${town[@]}"
part train "$train_secs" '^step|^error: [^s]' "$sep4d" --train --preset "$trained" --data "$folder/town" --output "$folder/run" \
    --set data.frames=4 --set train.steps=1000000 --set train.validate_every=0 --set train.checkpoint_every=0
part eval "$look_secs" '^mIoU|^error' "$sep4d" eval "$folder/run"
part render "$look_secs" '\.(png|gif)|^error' "$sep4d" render "$folder/run"
printf 'gpu.sh: %s s after what was built; see %s\n' $((SECONDS - built)) "$folder/summary.md"
rm -f "$folder/rows.md"
