#!/usr/bin/env bash
# Installs what building and running sep4d need and this machine lacks: a C linker, a Vulkan loader and, where no Vulkan
# driver is present, Mesa's software driver. Does nothing where all of it is there already.
set -euo pipefail

say() { printf 'setup: %s\n' "$*"; }

[ "$(uname -s)" = Linux ] || exit 0

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep 'libvulkan\.so\.1' >/dev/null || missing+=(libvulkan1)
shopt -s nullglob
drivers=(/usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json "${XDG_DATA_HOME:-$HOME/.local/share}"/vulkan/icd.d/*.json)
if [ ${#drivers[@]} -eq 0 ] && [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; then
    say "no Vulkan driver found; sep4d will run on Mesa's software driver (lavapipe)"
    missing+=(mesa-vulkan-drivers)
fi
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        say "please install: ${missing[*]} (names of Debian packages), then try again" >&2
        exit 1
    fi
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! command -v cargo >/dev/null; then
    say "Rust is missing; install it from https://rustup.rs and try again" >&2
    exit 1
fi
