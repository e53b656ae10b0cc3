#include "kernels/cpu/vector_kernels_table-inl.h"
