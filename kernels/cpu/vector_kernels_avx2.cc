#if defined(__x86_64__)
#include "kernels/cpu/vector_kernels_table-inl.h"
#endif
