#!/usr/bin/env bash
# Installs what a bare Debian 12 needs to build, run and test Orrery. Safe to run again; does nothing when all is there.
#   scripts/setup.sh          build and run
#   scripts/setup.sh --test   and what the tests need beside it
set -euo pipefail

packages=(
  g++ cmake ninja-build git ca-certificates
  libgrpc++-dev libgrpc-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libabsl-dev libspdlog-dev prometheus-cpp-dev libcivetweb-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev
  libutf8proc-dev libxxhash-dev liblzma-dev zlib1g-dev curl
  coinor-libclp-dev coinor-libcbc-dev
)
if [ "${1:-}" = "--test" ]; then
  packages+=(libgtest-dev libgmock-dev libbenchmark-dev python3)
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: not root and no sudo; install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
