# CUDA is optional: sets ORRERY_HAVE_CUDA, which folders with CUDA sources ask, by what ORRERY_CUDA says.
#   AUTO  where a compiler and the toolkit are found (the default)
#   ON    an error where they are not
#   OFF   nothing is looked for

set(ORRERY_CUDA AUTO CACHE STRING "CUDA: AUTO, ON or OFF")
set_property(CACHE ORRERY_CUDA PROPERTY STRINGS AUTO ON OFF)
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
  if(CMAKE_CUDA_COMPILER AND CUDAToolkit_FOUND)
    set(ORRERY_HAVE_CUDA ON)
    message(STATUS "CUDA: toolkit ${CUDAToolkit_VERSION}, ${CMAKE_CUDA_COMPILER}")
  elseif(ORRERY_CUDA STREQUAL "ON")
    message(FATAL_ERROR "ORRERY_CUDA is ON, but there is no CUDA compiler with its toolkit: install them, set "
                        "CMAKE_CUDA_COMPILER or CUDAToolkit_ROOT, or leave ORRERY_CUDA at AUTO")
  else()
    message(STATUS "CUDA: no compiler with its toolkit, configured without")
  endif()
endif()
