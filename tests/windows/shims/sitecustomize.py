"""What Wine 8 lacks and Windows has, so that Python's own library and psutil work. None of it is the product's."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

LIMITED_INFORMATION = 0x1000  # PROCESS_QUERY_LIMITED_INFORMATION

if sys.platform == "win32":
    import _winapi
    import ctypes
    from ctypes import wintypes

    if hasattr(_winapi, "CopyFile2"):
        del _winapi.CopyFile2  # shutil then copies by itself

    class PsutilFinder(importlib.abc.MetaPathFinder):
        """psutil's name() and exe() ask for SystemProcessIdInformation: once imported, they ask the ordinary way."""

        def find_spec(
            self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            if name != "psutil":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec("psutil")
            if spec is None or spec.loader is None:
                return None
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                replace_proc_exe()

            spec.loader.exec_module = exec_module
            return spec

    def replace_proc_exe() -> None:
        from psutil import _pswindows

        real = _pswindows.cext

        class Extension:
            proc_exe = staticmethod(proc_exe)

            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

        _pswindows.cext = Extension()

    def proc_exe(pid: int) -> str:
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel32.OpenProcess.restype = wintypes.HANDLE
        kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
        pointer = ctypes.POINTER(wintypes.DWORD)
        kernel32.QueryFullProcessImageNameW.argtypes = [wintypes.HANDLE, wintypes.DWORD, wintypes.LPWSTR, pointer]
        process = kernel32.OpenProcess(LIMITED_INFORMATION, False, pid)
        if not process:
            raise ctypes.WinError(ctypes.get_last_error())
        buffer = ctypes.create_unicode_buffer(1024)
        length = wintypes.DWORD(len(buffer))
        found = kernel32.QueryFullProcessImageNameW(process, 0, buffer, ctypes.byref(length))
        code = ctypes.get_last_error()
        kernel32.CloseHandle(process)
        if not found:
            raise ctypes.WinError(code)
        return buffer.value

    sys.meta_path.insert(0, PsutilFinder())
