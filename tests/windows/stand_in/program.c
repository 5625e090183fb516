/* NAME.exe: runs NAME.py, which lies beside it, under the rig's Python with the very same arguments. */
#include <windows.h>
#include <wchar.h>

#define PYTHON L"C:\\Python\\python.exe"

static wchar_t script[MAX_PATH], command[32768];

int wmain(void) {
    wchar_t *rest = GetCommandLineW();
    STARTUPINFOW startup = {sizeof startup};
    PROCESS_INFORMATION process;
    DWORD code;
    int quoted = 0;

    /* The words stay as they were quoted; only our own name goes. */
    for (; *rest && (quoted || (*rest != L' ' && *rest != L'\t')); rest++)
        if (*rest == L'"')
            quoted = !quoted;
    GetModuleFileNameW(NULL, script, MAX_PATH);
    *wcsrchr(script, L'.') = 0;
    _snwprintf(command, 32767, L"\"%ls\" -E -X utf8 \"%ls.py\"%ls", PYTHON, script, rest);
    GetStartupInfoW(&startup);
    if (!CreateProcessW(PYTHON, command, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &process))
        return 125;
    WaitForSingleObject(process.hProcess, INFINITE);
    GetExitCodeProcess(process.hProcess, &code);
    return code;
}
