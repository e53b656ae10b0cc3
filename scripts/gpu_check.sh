#!/usr/bin/env bash
# Everything that only a machine with a GPU can show: builds, compares logits with transformers, tests the kernels,
# measures the device's ceilings, the kernels, whole models and their peers, runs kernels under compute-sanitizer, and
# ends with one table. A stage that fails does not hide the others, and what a stage measured is saved when it ends.
#
#   scripts/gpu_check.sh [STAGE...]     all stages, or some: build ceilings kernels parity kernel-bench engine-bench
#                                       peers sanitizer
#   scripts/gpu_check.sh pack           on a machine with Debian's packages: puts the libraries that the build needs into
#                                       .gpu_deps, for a GPU machine that lacks them
#
# A call ends within LIMIT seconds (530): what is left then is cut off. Two calls that fit, the second adding to the
# table of the first:
#
#   scripts/gpu_check.sh build ceilings kernels parity
#   scripts/gpu_check.sh kernel-bench engine-bench peers sanitizer
#
# Needs CUDA's compiler, CMake, ninja, and Python with PyTorch and transformers; neither gRPC nor a network. Logs are in
# build/gpu/check. OUT: where the day's results file and table go (tests/gpu/results); where it is set, the logs' ends
# and stages.tar.gz go there, too: the stages of several machines, unpacked into one build/gpu/check, make one table.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
out=build/gpu/check
save=${OUT:-tests/gpu/results}
bin=build/gpu/bin
day=$(date -u +%F)
export ORRERY_SOURCE_DIR=$PWD PATH=$PATH:/usr/local/cuda/bin

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

# Of all stages that the folder has results of.
report() {
  local status
  mkdir -p "$save"
  python3 tests/gpu/report.py "$out" --save "$save/$day.json" >"$save/$day.txt"
  status=$?
  if [ -n "${OUT:-}" ]; then
    tail -vc 512K "$out"/*.log >"$save/logs.txt" 2>/dev/null
    (cd "$out" && tar -czf - --exclude='*.log' --exclude='*.txt' .) >"$save/stages.tar.gz"
  fi
  return "$status"
}

# Runs a command for so many seconds at most, and never beyond the whole call's LIMIT. 124 or 137: it was cut off.
limit() {
  local seconds=$1 left=$((${LIMIT:-530} - SECONDS)) status
  [ "$left" -ge "$seconds" ] || seconds=$left
  [ "$seconds" -gt 0 ] || { echo "no time is left" >&2; return 124; }
  timeout -k 5 "$seconds" "${@:2}"
  status=$?
  report
  return "$status"
}

# Where the toolkit lacks them: cuBLASLt, and NCCL, of the packages that come with PyTorch. Prints CMake's flags. Only
# cuBLAS's own headers are taken: the others shall be the compiler's.
wheels() {
  local at header library folder=$PWD/build/gpu/wheels
  mapfile -t at < <(python3 -c 'import nvidia; print(*nvidia.__path__, sep="\n")')
  [ ${#at[@]} -gt 0 ] || return 1
  header=$(find -L "${at[@]}" -path '*/include/cublasLt.h' -print -quit)
  [ -n "$header" ] || return 1
  library=$(find -L "${header%/include/*}/lib" -name 'libcublasLt.so.*' -print -quit)
  [ -n "$library" ] || return 1
  mkdir -p "$folder" && ln -sf "${header%/*}"/cublas*.h "$folder"
  printf '%s\n' "-DORRERY_CUBLASLT_INCLUDE_DIR:PATH=$folder" "-DCUDA_cublasLt_LIBRARY:FILEPATH=$library"
  header=$(find -L "${at[@]}" -path '*/include/nccl.h' -print -quit)
  [ -z "$header" ] || printf '%s\n' "-DORRERY_NCCL_INCLUDE_DIR:PATH=${header%/*}" \
    "-DCMAKE_BUILD_RPATH=$PWD/.gpu_deps/usr/lib/x86_64-linux-gnu;${header%/include/*}/lib"
}

configure() {
  limit 120 cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DORRERY_CUDA=ON -DORRERY_BUILD_SERVER=OFF \
    -DORRERY_BUILD_TESTS=ON -DORRERY_BUILD_BENCH=OFF -DORRERY_WERROR=OFF "-DORRERY_CUDA_ARCHITECTURES=${ARCHITECTURES:-90a-real}" \
    "$@"
}

build() {
  local flags=() found=()
  [ -d .gpu_deps ] && flags+=("-DCMAKE_PREFIX_PATH=$PWD/.gpu_deps/usr" "-DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu"
                              "-DCMAKE_BUILD_RPATH=$PWD/.gpu_deps/usr/lib/x86_64-linux-gnu")
  if ! configure "${flags[@]}"; then
    mapfile -t found < <(wheels)
    [ ${#found[@]} -gt 0 ] || { echo "no cuBLASLt among Python's packages either" >&2; return 1; }
    echo "== again, with what Python's packages have: ${found[*]}"
    configure "${flags[@]}" "${found[@]}" || return
  fi
  limit 420 cmake --build build/gpu --target gpu_check
}

ceilings() { limit 90 "$bin/gpu_ceilings" >"$out/ceilings.json"; }

kernels() {
  local failed=0 status test
  for test in gpu_attention_test gpu_row_kernels_test gpu_sample_test engine_backend_cuda_device_test; do
    limit 90 "$bin/$test" | tee "$out/kernels.$test.txt"
    status=${PIPESTATUS[0]}
    [ "$status" -eq 0 ] || { failed=$status; echo "$test: exit $status"; }
    # Nothing may be left out where there is a device.
    ! grep -q '  SKIPPED ' "$out/kernels.$test.txt" || { failed=1; echo "$test left cases out"; }
  done
  # Where nccl.h was found.
  [ ! -x "$bin/engine_nccl_test" ] || limit 60 "$bin/engine_nccl_test" || failed=$?
  return "$failed"
}

parity() { limit 240 python3 tests/gpu/parity.py --bin "$bin" >"$out/parity.json"; }

kernel-bench() { limit 90 "$bin/gpu_kernel_bench" >"$out/kernel-bench.json"; }

engine-bench() {
  local failed=0 model models=${TMPDIR:-/tmp}/orrery-models
  bench() {  # name, decode cases, prefill cases, more flags
    limit 90 "$bin/gpu_engine_bench" "$models/${1%%_*}" --decode "$2" --prefill "$3" "${@:4}" \
      >"$out/engine-bench.$1.json" || failed=$?
  }
  for model in qwen3-0.6b llama-3.2-1b llama-3-8b; do
    [ -f "$models/$model/config.json" ] ||
      limit 120 python3 tests/gpu/random_model.py "$model" "$models/$model" || failed=$?
  done
  bench qwen3-0.6b 1x1024,64x1024,64x4096,256x1024 2048
  bench llama-3.2-1b 1x1024,64x1024,64x4096,256x1024,256x4096 2048
  bench llama-3-8b 1x1024,32x2048,64x1024,64x4096,256x1024 2048,8192
  bench llama-3-8b_kv-fp8 64x1024,64x4096 2048 --kv fp8
  bench llama-3-8b_batch-invariant 1x1024,64x1024 2048 --invariant on
  return "$failed"
}

peers() { limit 120 python3 tests/gpu/peers.py >"$out/peers.json"; }

# Small cases alone: a checker is 10 to 50 times slower. Exit code 9: one found something.
sanitizer() {
  local failed=0 tool
  # Allocations of their own: the checker sees where each ends.
  export ORRERY_TEST_POOLED_BYTES=1024
  check() {  # program, cases
    local status what
    limit 90 compute-sanitizer --tool "$tool" --error-exitcode 9 "$bin/$1" "--gtest_filter=$2"
    status=$?
    case "$status" in
      0) what="finds nothing" ;;
      9) what="FINDS SOMETHING" ;;
      124 | 137) what="cut off" ;;
      *) what="the program or the checker fails ($status)" ;;
    esac
    echo "== $tool, $1: $what"
    [ "$status" -eq 0 ] || [ "$failed" -eq 9 ] || failed=$status
  }
  for tool in memcheck racecheck synccheck; do
    check gpu_row_kernels_test '*Gate:*GatherIsExact:*PageTableTakesRuns'
    check gpu_sample_test '*WeightsAddUp*:*KnownTokensAreScored'
    check gpu_attention_test '*ChunksGiveTheSameBits*:*InvariantResults*'
  done
  return "$failed"
}

[ "${1:-}" = pack ] && { pack; exit; }
stages=("$@")
[ ${#stages[@]} -eq 0 ] && stages=(build ceilings kernels parity kernel-bench engine-bench peers sanitizer)
[ -x "$bin/gpu_engine_bench" ] || [ "${stages[0]}" = build ] || stages=(build "${stages[@]}")
mkdir -p "$out"
for stage in "${stages[@]}"; do
  case "$stage" in
    build | ceilings | kernels | parity | kernel-bench | engine-bench | peers | sanitizer) rm -f "$out/$stage".* ;;
    *) echo "gpu_check: no stage '$stage'" >&2; exit 2 ;;
  esac
done
for stage in "${stages[@]}"; do
  echo "== $stage" >&2
  begin=$SECONDS
  echo "-1 0" >"$out/$stage.status"  # until it ends
  report
  "$stage" 2>&1 | tee "$out/$stage.log"
  status=${PIPESTATUS[0]}
  echo "$status $((SECONDS - begin))" >"$out/$stage.status"
  [ "$status" -eq 0 ] || echo "== $stage failed ($status)" >&2
done
report
status=$?
cat "$save/$day.txt"
exit "$status"
