#!/usr/bin/env bash
# Installs what building and running sep4d need and this machine lacks: a C linker, a Vulkan loader and, where no Vulkan
# driver is present, Mesa's software driver. With `--tests` also what the tests of the window need: an X server without a screen,
# and the libraries of a desktop. Does nothing where all of it is there already.
set -euo pipefail

say() { printf 'setup: %s\n' "$*"; }

[ "$(uname -s)" = Linux ] || exit 0

libraries=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p)
has() { grep -F "$1" <<<"$libraries" >/dev/null; }

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
has libvulkan.so.1 || missing+=(libvulkan1)
if [ "${1:-}" = --tests ]; then
    command -v Xvfb >/dev/null || missing+=(xvfb)
    has libX11-xcb.so.1 || missing+=(libx11-xcb1)
    has libXcursor.so.1 || missing+=(libxcursor1)
    has libXi.so.6 || missing+=(libxi6)
    has libxkbcommon-x11.so.0 || missing+=(libxkbcommon-x11-0)
fi
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
