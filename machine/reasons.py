"""Errors of the system, of sockets, TLS and HTTP in plain words. Python's own texts ("_ssl.c:989: The handshake
operation timed out", "[Errno 111] Connection refused") are for programmers.
"""

from __future__ import annotations

import errno

# The meaning of error numbers for a user who waits for an answer; for all others the system's own words are good.
_NUMBERS = {
    errno.ECONNREFUSED: "nothing listens there",
    errno.ECONNRESET: "the connection was closed",
    errno.ECONNABORTED: "the connection was closed",
    errno.EPIPE: "the connection was closed",
    errno.ENOTCONN: "the connection was closed",
    errno.ETIMEDOUT: "no answer in time",
    errno.EHOSTUNREACH: "no network route leads there",
    errno.ENETUNREACH: "no network route leads there",
    errno.ENETDOWN: "the network is down",
    errno.EADDRINUSE: "the port is taken",
    errno.EADDRNOTAVAIL: "the address isn't one of this computer's",
}
# OpenSSL's errors for a server that doesn't speak TLS.
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
# TLS alerts of a server that refuses us.
_REFUSED = (
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV1_ALERT_DECRYPT_ERROR",
    "TLSV1_ALERT_UNKNOWN_CA",
)
_TLS = {
    **dict.fromkeys(NO_TLS, "it doesn't speak TLS"),
    "UNEXPECTED_EOF_WHILE_READING": "the connection was closed",
    "NO_CERTIFICATE_OR_CRL_FOUND": "there is no certificate in the file",
    "NO_START_LINE": "there is no certificate in the file",
    **dict.fromkeys(_REFUSED, "it doesn't accept our certificate"),
    "KEY_VALUES_MISMATCH": "the key belongs to another certificate",
}


def reason(error: BaseException) -> str:
    """Why, as the end of a sentence: f"nothing answers on {url}: {reason(error)}"."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):  # urllib's URLError wraps what happened
        return reason(inner)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return _of_system(error)
    return _of_data(error) or _of_http(error) or str(error) or _name(error)


def _of_system(error: OSError) -> str:
    kinds = _kinds(error)
    if "SSLError" in kinds:
        return _of_tls(error)
    if "gaierror" in kinds:
        return "there is no such host, or no name server answers"
    if code := getattr(error, "code", None):  # urllib's HTTPError
        return f"the server answers {code} ({getattr(error, 'msg', '')})"
    number = error.errno or 0
    if number in _NUMBERS:
        return _NUMBERS[number]
    return error.strerror or _of_http(error) or str(getattr(error, "reason", "") or error) or _name(error)


def _of_tls(error: OSError) -> str:
    if message := getattr(error, "verify_message", ""):
        return f"its certificate isn't accepted: {message}"
    code = str(getattr(error, "reason", "") or "")
    if code in _TLS:
        return _TLS[code]
    if type(error).__name__ in {"SSLEOFError", "SSLZeroReturnError"}:
        return "the connection was closed"
    return f"TLS failed: {code.replace('_', ' ').lower()}" if code else "TLS failed"


def _of_data(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it isn't UTF-8 text"
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}" if error.args else "something is missing in it"
    line, column = getattr(error, "lineno", None), getattr(error, "colno", None)
    message = getattr(error, "msg", "")
    return f"line {line}, column {column}: {message}" if line and column and message else ""


def _of_http(error: BaseException) -> str:
    kinds = _kinds(error)
    if kinds & {"RemoteDisconnected", "IncompleteRead", "EOFError"}:
        return "the connection was closed"
    return "it doesn't speak HTTP as it should" if "HTTPException" in kinds else ""


def _kinds(error: BaseException) -> set[str]:
    """The names of its classes: ssl, socket and http.client take long to import, and another thread may be at it."""
    return {kind.__name__ for kind in type(error).__mro__}


def _name(error: BaseException) -> str:
    """A class's name in words: InvalidHostKey -> invalid host key."""
    letters = type(error).__name__.removesuffix("Error")
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in letters).strip() or "a fault"
