#!/usr/bin/env bash
# Sets up, builds and runs all tests:
#   1. the release build with every test,
#   2. unit tests under AddressSanitizer and UndefinedBehaviorSanitizer,
#   3. server and scheduler concurrency tests under ThreadSanitizer.
# Ends with ctest's summary. `scripts/test.sh release` (or asan, tsan) runs one part alone.
set -euo pipefail
cd "$(dirname "$0")/.."
parts=("${@:-all}")
[ "${parts[0]}" = all ] && parts=(asan tsan release)

scripts/setup.sh --test
jobs=$(nproc)
# A compiler cache, where there is one, makes a second run cheap.
command -v ccache >/dev/null && export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_C_COMPILER_LAUNCHER=ccache
for part in "${parts[@]}"; do
  case "$part" in
    asan) select=(-L unit) ;;
    tsan) select=(-L concurrency) ;;
    release) select=() ;;
    *) echo "usage: scripts/test.sh [asan|tsan|release]..." >&2; exit 2 ;;
  esac
  build=build
  [ "$part" = release ] || build=build/$part
  echo "== $part: build" >&2
  # Sanitizers see nothing of what a CUDA compiler makes: it is spared there.
  cuda=AUTO
  [ "$part" = release ] || cuda=OFF
  cmake --preset "$part" -DORRERY_BUILD_TESTS=ON -DORRERY_BUILD_BENCH=ON -DORRERY_CUDA="$cuda" >/dev/null
  if [ "$part" = release ]; then
    cmake --build "$build" -j "$jobs"
  else
    cmake --build "$build" -j "$jobs" --target "${part}_tests"
  fi
  echo "== $part: test" >&2
  (cd "$build" && ctest -j "$jobs" --output-on-failure "${select[@]}")
done
