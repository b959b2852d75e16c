/* What a C library would bring: building one for Windows takes a minute, and of it we need only this. */
#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <stddef.h>
#include <windows.h>

int _fltused; /* the linker wants to know that there are floats */

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return result;
}

void *memset(void *to, int value, size_t n)
{
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
    return result;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return (unsigned char)*a - (unsigned char)*b;
}

/* Good until the next call; an empty variable is none. */
char *getenv(const char *name)
{
    static char value[64];
    DWORD n = GetEnvironmentVariableA(name, value, sizeof value);
    return n > 0 && n < sizeof value ? value : NULL;
}

/* Touches every page of a frame of rax bytes before it is used, since the system grows a stack by one page at a time.
 * The compiler calls this for frames larger than a page, and expects every register as it was. */
__attribute__((naked)) void ___chkstk_ms(void)
{
    __asm__("pushq %rcx\n"
            "pushq %rax\n"
            "leaq 24(%rsp), %rcx\n" /* the stack pointer of the caller */
            "1: subq $4096, %rax\n"
            "jbe 2f\n"
            "subq $4096, %rcx\n"
            "orb $0, (%rcx)\n"
            "jmp 1b\n"
            "2: popq %rax\n"
            "popq %rcx\n"
            "ret\n");
}

extern void (*__CTOR_LIST__[])(void); /* made by the linker: -1, the constructors, 0 */

BOOL WINAPI DllMainCRTStartup(HINSTANCE library, DWORD reason, LPVOID reserved)
{
    (void)library, (void)reserved;
    if (reason == DLL_PROCESS_ATTACH)
        for (int i = 1; __CTOR_LIST__[i]; i++) __CTOR_LIST__[i]();
    return TRUE;
}
#else
typedef int no_file_is_empty;
#endif
