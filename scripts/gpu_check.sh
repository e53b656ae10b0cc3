#!/usr/bin/env bash
# Everything that only a machine with a GPU can show, in one command under nine minutes: builds, tests the kernels, runs
# them under compute-sanitizer, compares logits with transformers, measures the device's ceilings, the kernels, whole
# models and their peers, and ends with one table. A stage that fails does not hide the others.
#
#   scripts/gpu_check.sh [STAGE...]     all stages, or some: build ceilings kernels parity kernel-bench engine-bench
#                                       peers sanitizer
#   scripts/gpu_check.sh pack           on a machine with Debian's packages: puts the libraries that the build needs into
#                                       .gpu_deps, for a GPU machine that lacks them
#
# Needs CUDA's compiler, CMake, ninja, and Python with PyTorch and transformers; neither gRPC nor a network. Logs are in
# build/gpu/check. OUT: where the results file and the table go (tests/gpu/results).
set -uo pipefail
cd "$(dirname "$0")/.."
out=build/gpu/check
save=${OUT:-tests/gpu/results}
bin=build/gpu/bin
mkdir -p "$out"

pack() {
  local packages=(libabsl-dev nlohmann-json3-dev libgtest-dev libgmock-dev coinor-libclp-dev coinor-libcbc-dev
                  coinor-libcgl-dev coinor-libosi-dev coinor-libcoinutils-dev)
  rm -rf .gpu_deps && mkdir .gpu_deps
  dpkg -L "${packages[@]}" | grep -E '^/usr/(include|lib|share/cmake)/' | grep -vE '/lib(Cbc|Cgl|Clp|Osi|Coin)[^/]*\.a$' |
    sort -u | while read -r path; do
      while [ -L "$path" ]; do echo "$path"; path=$(cd "$(dirname "$path")" && realpath -s "$(readlink "$path")"); done
      [ -d "$path" ] || echo "$path"
    done |
    sort -u | tar -C / -cf - --files-from=- 2>/dev/null | tar -C .gpu_deps -xf -
  du -sh .gpu_deps
}

build() {
  local flags=()
  [ -d .gpu_deps ] && flags+=("-DCMAKE_PREFIX_PATH=$PWD/.gpu_deps/usr" "-DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu"
                              "-DCMAKE_BUILD_RPATH=$PWD/.gpu_deps/usr/lib/x86_64-linux-gnu")
  cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DORRERY_CUDA=ON -DORRERY_BUILD_SERVER=OFF \
    -DORRERY_BUILD_TESTS=ON -DORRERY_BUILD_BENCH=OFF -DORRERY_WERROR=OFF "-DORRERY_CUDA_ARCHITECTURES=${ARCHITECTURES:-90a-real}" \
    "${flags[@]}" &&
    cmake --build build/gpu --target gpu_check
}

# The engine loads CUDA's libraries by their names: what the build found is what it shall find.
libraries() {
  local found
  found=$(sed -n 's/^CUDA_cublasLt_LIBRARY:FILEPATH=//p' build/gpu/CMakeCache.txt 2>/dev/null)
  [ -z "$found" ] || export LD_LIBRARY_PATH="$(dirname "$found"):${LD_LIBRARY_PATH:-}"
}

ceilings() { timeout 60 "$bin/gpu_ceilings" >"$out/ceilings.json"; }

kernels() {
  local failed=0
  for test in gpu_attention_test gpu_row_kernels_test gpu_sample_test engine_backend_cuda_device_test; do
    ORRERY_SOURCE_DIR=$PWD timeout 90 "$bin/$test" | tee "$out/$test.log"
    [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
    # Nothing may be left out where there is a device.
    ! grep -q '  SKIPPED ' "$out/$test.log" || { echo "$test left cases out" >&2; failed=1; }
  done
  # Where nccl.h was found.
  [ ! -x "$bin/engine_nccl_test" ] || timeout 60 "$bin/engine_nccl_test" || failed=1
  return "$failed"
}

# Small cases alone: a checker is 10 to 50 times slower.
sanitizer() {
  local failed=0 tool
  for tool in memcheck racecheck synccheck; do
    timeout 40 compute-sanitizer --tool "$tool" --error-exitcode 9 "$bin/gpu_row_kernels_test" \
      --gtest_filter='*Gate:*GatherIsExact' || failed=1
    timeout 40 compute-sanitizer --tool "$tool" --error-exitcode 9 "$bin/gpu_attention_test" \
      --gtest_filter='*ChunksGiveTheSameBits*:*InvariantResults*' || failed=1
  done
  return "$failed"
}

parity() { timeout 150 python3 tests/gpu/parity.py --bin "$bin" >"$out/parity.json"; }

kernel-bench() { timeout 90 "$bin/gpu_kernel_bench" >"$out/kernel-bench.json"; }

engine-bench() {
  local failed=0 models=${TMPDIR:-/tmp}/orrery-models
  bench() {  # name, decode cases, prefill cases, more flags
    timeout 90 "$bin/gpu_engine_bench" "$models/${1%%_*}" --decode "$2" --prefill "$3" "${@:4}" >"$out/engine-$1.json" || failed=1
  }
  for model in qwen3-0.6b llama-3.2-1b llama-3-8b; do
    [ -f "$models/$model/config.json" ] || python3 tests/gpu/random_model.py "$model" "$models/$model" || failed=1
  done
  bench qwen3-0.6b 1x1024,64x1024,64x4096,256x1024 2048
  bench llama-3.2-1b 1x1024,64x1024,64x4096,256x1024,256x4096 2048
  bench llama-3-8b 1x1024,32x2048,64x1024,64x4096,256x1024 2048,8192
  bench llama-3-8b_kv-fp8 64x1024,64x4096 2048 --kv fp8
  bench llama-3-8b_batch-invariant 1x1024,64x1024 2048 --invariant on
  return "$failed"
}

peers() { timeout 120 python3 tests/gpu/peers.py >"$out/peers.json"; }

[ "${1:-}" = pack ] && { pack; exit; }
stages=("$@")
[ ${#stages[@]} -eq 0 ] && stages=(build ceilings kernels parity kernel-bench engine-bench peers sanitizer)
rm -f "$out"/*.status
[ $# -gt 0 ] || rm -f "$out"/*.json
for stage in "${stages[@]}"; do
  case "$stage" in
    build | ceilings | kernels | sanitizer | parity | kernel-bench | engine-bench | peers) ;;
    *) echo "gpu_check: no stage '$stage'" >&2; exit 2 ;;
  esac
  echo "== $stage" >&2
  libraries
  begin=$SECONDS
  "$stage" > >(tee "$out/$stage.log") 2>&1
  status=$?
  echo "$status $((SECONDS - begin))" >"$out/$stage.status"
  [ "$status" -eq 0 ] || { echo "== $stage failed ($status)" >&2; tail -n 30 "$out/$stage.log" >&2; }
done
mkdir -p "$save"
set -o pipefail
python3 tests/gpu/report.py "$out" --save "$save" | tee "$save/table.txt"
