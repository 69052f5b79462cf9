/* See lock.h. */
#include "lock.h"

#ifdef Py_GIL_DISABLED
_Thread_local struct bsa_held *bsa_innermost;
#endif
