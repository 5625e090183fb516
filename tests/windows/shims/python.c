/* python.exe: all of Python is in its DLL, whose name install.py gives. */
#include <windows.h>
#include <wchar.h>
#include <stdio.h>
#include <stdlib.h>

typedef int (*Main)(int, wchar_t **);

int wmain(int argc, wchar_t **argv) {
    HMODULE dll = LoadLibraryW(PYTHON_DLL);
    Main run = dll ? (Main)(void *)GetProcAddress(dll, "Py_Main") : NULL;
    if (!run) {
        fwprintf(stderr, L"python*.dll: error %lu\n", GetLastError());
        return 120;
    }
    return run(argc, argv);
}
