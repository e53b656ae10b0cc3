# The few helpers every folder's CMakeLists.txt uses.

# Sanitizers by option, of every target.
add_library(orrery_sanitize INTERFACE)
if(ORRERY_SANITIZE)
  target_compile_options(orrery_sanitize INTERFACE -fsanitize=${ORRERY_SANITIZE} -fno-omit-frame-pointer -g1)
  target_link_options(orrery_sanitize INTERFACE -fsanitize=${ORRERY_SANITIZE})
  # Instrumented code confuses this analysis (g++ 12); the plain builds keep it.
  target_compile_options(orrery_sanitize INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  if(ORRERY_SANITIZE MATCHES "undefined")
    target_compile_options(orrery_sanitize INTERFACE -fno-sanitize-recover=undefined)
  endif()
  # Protobuf's headers add members to a map field where they see this macro. Debian's library was built without
  # them: the two would disagree on where everything lies.
  if(ORRERY_SANITIZE MATCHES "thread")
    target_compile_options(orrery_sanitize INTERFACE -U__SANITIZE_THREAD__)
  endif()
endif()

# libFuzzer looks for inputs that reach new code: all of it counts what it reaches.
if(ORRERY_BUILD_FUZZERS)
  target_compile_options(orrery_sanitize INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(orrery_sanitize INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Flags of every target whose source is ours: warnings are errors, but for compilers that nobody here has seen.
option(ORRERY_WERROR "Warnings are errors" ON)
add_library(orrery_flags INTERFACE)
target_compile_options(orrery_flags INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;$<$<BOOL:${ORRERY_WERROR}>:-Werror>>")
target_include_directories(orrery_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_link_libraries(orrery_flags INTERFACE orrery_sanitize)

# The decisions cross the borders of small libraries many times a step: optimised as one, a simulation takes a
# quarter less time. The objects hold machine code too, for tests, which would pay for it in every link.
set(ORRERY_LTO_COMPILE $<$<AND:$<CONFIG:Release>,$<CXX_COMPILER_ID:GNU>>:-flto=auto;-ffat-lto-objects>)
set(ORRERY_LTO_LINK $<$<AND:$<CONFIG:Release>,$<CXX_COMPILER_ID:GNU>>:-flto=auto>)
set(ORRERY_NO_LTO_LINK $<$<CXX_COMPILER_ID:GNU>:-fno-lto>)

# orrery_library(NAME [HOT] SOURCES a.cc b.cc DEPS orrery_x absl::status)
# A static library; DEPS is the list of arrows that scripts/check_deps.py also enforces on includes. HOT: its
# code is optimised together with that of the programs it is linked into.
function(orrery_library name)
  cmake_parse_arguments(ARG "HOT" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC orrery_flags ${ARG_DEPS})
  if(ARG_HOT)
    target_compile_options(${name} PRIVATE "${ORRERY_LTO_COMPILE}")
  endif()
endfunction()

# orrery_program(NAME SOURCES main.cc DEPS orrery_x): a program that users run.
function(orrery_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE orrery_flags ${ARG_DEPS})
  target_link_options(${name} PRIVATE "${ORRERY_LTO_LINK}")
endfunction()

# What scripts/test.sh builds under each sanitizer: the tests with that label.
add_custom_target(asan_tests)
add_custom_target(tsan_tests)

# orrery_test(NAME SOURCES a_test.cc DEPS orrery_x [LABELS unit])
# A GoogleTest executable; ctest knows every case by its own name. LABELS: unit (default; runs under
# address+undefined too), concurrency (also under thread), integration.
function(orrery_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE orrery_flags ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  # Compiling GoogleTest's headers with full optimisation costs minutes and makes no test faster.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release,RelWithDebInfo>:-O1>)
  target_link_options(${name} PRIVATE "${ORRERY_NO_LTO_LINK}")
  if("unit" IN_LIST ARG_LABELS)
    add_dependencies(asan_tests ${name})
  endif()
  if("concurrency" IN_LIST ARG_LABELS)
    add_dependencies(tsan_tests ${name})
  endif()
  # One ctest entry per executable: cheap to start, and skipped cases are listed by name in its output.
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
                       ENVIRONMENT "ORRERY_SOURCE_DIR=${PROJECT_SOURCE_DIR};ORRERY_BIN_DIR=${CMAKE_BINARY_DIR}/bin;TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp"
                       SKIP_RETURN_CODE 77)
endfunction()

# orrery_bench(NAME SOURCES x_bench.cc DEPS orrery_x): built with the rest, run by hand.
function(orrery_bench name)
  orrery_program(${name} ${ARGN})
endfunction()
