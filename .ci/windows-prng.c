/* bcryptprimitives.dll for a Wine that has none. Rust's standard library takes its random numbers
   from ProcessPrng in this library; here it passes on those of RtlGenRandom, which is
   SystemFunction036 to the linker. */

#include <windows.h>

BOOLEAN NTAPI SystemFunction036(void *bytes, ULONG count);

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *bytes, SIZE_T count)
{
    while (count > 0) {
        ULONG part = count < 0x100000 ? (ULONG)count : 0x100000;
        if (!SystemFunction036(bytes, part))
            return FALSE;
        bytes += part;
        count -= part;
    }
    return TRUE;
}
