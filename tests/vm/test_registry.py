"""A registry of the host's, which the machine was told of when it was made."""

from __future__ import annotations

from tests.vm.conftest import PASSWORD, USER, Vm


def test_login_push_and_pull(vm: Vm, registry: str) -> None:
    refused = vm.docker("login", "--username", USER, "--password-stdin", registry, input=b"wrong", code=1)
    assert "unauthorized" in refused.err.lower()
    vm.docker("tag", "busybox", f"{registry}/team/busybox:1")
    assert vm.docker("push", f"{registry}/team/busybox:1", code=1).code == 1
    login = vm.docker("login", "--username", USER, "--password-stdin", registry, input=PASSWORD.encode())
    assert "Login Succeeded" in login.out
    vm.docker("push", f"{registry}/team/busybox:1")
    before = vm.docker("image", "inspect", "--format", "{{.Id}}", "busybox").out
    vm.docker("rmi", f"{registry}/team/busybox:1")
    pulled = vm.docker("pull", f"{registry}/team/busybox:1")
    assert "Digest: sha256:" in pulled.out
    after = vm.docker("image", "inspect", "--format", "{{.Id}}", f"{registry}/team/busybox:1").out
    assert after == before
    vm.docker("logout", registry)
    assert vm.docker("pull", f"{registry}/team/busybox:1", code=1).code == 1
