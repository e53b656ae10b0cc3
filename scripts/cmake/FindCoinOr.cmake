# COIN-OR's LP and MIP solvers (Debian: coinor-libclp-dev, coinor-libcbc-dev): target CoinOr::CoinOr.
find_path(CoinOr_INCLUDE_DIR coin/ClpSimplex.hpp)
set(_coin_or_libraries)
foreach(_name Cbc Cgl OsiClp Clp Osi CoinUtils)
  find_library(CoinOr_${_name}_LIBRARY ${_name})
  list(APPEND _coin_or_libraries CoinOr_${_name}_LIBRARY)
endforeach()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CoinOr REQUIRED_VARS CoinOr_INCLUDE_DIR ${_coin_or_libraries})
if(CoinOr_FOUND AND NOT TARGET CoinOr::CoinOr)
  add_library(CoinOr::CoinOr INTERFACE IMPORTED)
  # The headers include each other without the folder's name.
  set_target_properties(CoinOr::CoinOr PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${CoinOr_INCLUDE_DIR};${CoinOr_INCLUDE_DIR}/coin")
  foreach(_variable ${_coin_or_libraries})
    target_link_libraries(CoinOr::CoinOr INTERFACE ${${_variable}})
  endforeach()
endif()
