# CUDA is optional: sets ORRERY_HAVE_CUDA, which folders with CUDA sources ask, by what ORRERY_CUDA says.
# Machine code is made for ORRERY_CUDA_ARCHITECTURES, as CMAKE_CUDA_ARCHITECTURES has them.
#   AUTO  where a compiler and the toolkit are found (the default)
#   ON    an error where they are not
#   OFF   nothing is looked for

set(ORRERY_CUDA AUTO CACHE STRING "CUDA: AUTO, ON or OFF")
set_property(CACHE ORRERY_CUDA PROPERTY STRINGS AUTO ON OFF)
# Ampere to Ada (and, through PTX, what comes later) and Hopper.
set(ORRERY_CUDA_ARCHITECTURES "80;90a-real" CACHE STRING "Architectures of the CUDA kernels")
if(NOT ORRERY_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "ORRERY_CUDA is '${ORRERY_CUDA}', not AUTO, ON or OFF")
endif()

set(ORRERY_HAVE_CUDA OFF)
if(ORRERY_CUDA MATCHES "AUTO|ON")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    find_package(CUDAToolkit)
  endif()
  if(CUDAToolkit_FOUND)
    # Compiled against, loaded when it is needed.
    find_path(ORRERY_CUBLASLT_INCLUDE_DIR cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    # Optional: ranks on several devices need it.
    find_path(ORRERY_NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  endif()
  if(CMAKE_CUDA_COMPILER AND CUDAToolkit_FOUND AND ORRERY_CUBLASLT_INCLUDE_DIR)
    set(ORRERY_HAVE_CUDA ON)
    set(CMAKE_CUDA_ARCHITECTURES ${ORRERY_CUDA_ARCHITECTURES})
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    enable_language(CUDA)
    # CUDA sources follow CMAKE_CXX_STANDARD, whose flag CMake 3.25 does not know for this compiler.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    message(STATUS "CUDA: toolkit ${CUDAToolkit_VERSION}, ${CMAKE_CUDA_COMPILER}")
    if(NOT ORRERY_NCCL_INCLUDE_DIR)
      message(STATUS "NCCL: no nccl.h, configured without")
    endif()
  elseif(ORRERY_CUDA STREQUAL "ON")
    message(FATAL_ERROR "ORRERY_CUDA is ON, but there is no CUDA compiler with its toolkit and cublasLt.h: install them, set "
                        "CMAKE_CUDA_COMPILER or CUDAToolkit_ROOT, or leave ORRERY_CUDA at AUTO")
  else()
    message(STATUS "CUDA: no compiler with its toolkit, configured without")
  endif()
endif()
