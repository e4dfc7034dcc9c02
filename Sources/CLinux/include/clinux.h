// What Swift cannot say of the kernel's interface: variadic syscall(2), the CMSG_ macros.
// Every function returns >= 0, or -errno; none prints, allocates or exits.
#pragma once
#include "io.h"
#include "sandbox.h"
