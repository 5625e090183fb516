"""System containers: what the contract doesn't say of them, and what is left when something is killed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import testbed
from tests.testbed import places, until
from tests.testbed.places import LxcPlace

DEV = "dev"
SIZE = ("--memory", "512M", "--cpus", "1", "--disk", "2G")
CONTAINERS = Path("/run/machine-lxc")


@pytest.fixture(scope="module")
def place(images: Path, busybox_root: Path) -> Iterator[LxcPlace]:
    """With the machine dev, in whose Docker there is the image busybox."""
    with places.lxc(images) as place:
        testbed.say("creating a system container")
        place.create(DEV, *SIZE)
        archive = place.folder / "busybox.tar"
        testbed.execute(["tar", "-C", busybox_root, "-c", "-f", archive, "."], env=place.env)
        place.docker(DEV, "import", "--change", 'CMD ["sh"]', archive, "busybox")
        yield place
        place.close()


def uuid(place: LxcPlace) -> str:
    return str(json.loads((place.folder_of(DEV) / "machine.json").read_text())["uuid"])


def processes(*words: str) -> list[psutil.Process]:
    """Those with all the words in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if all(word in line for word in words):
            found.append(process)
    return found


def ready(place: LxcPlace) -> bool:
    return place.docker(DEV, "version", code=None).code == 0


def test_root_in_it_is_nobody_here(place: LxcPlace) -> None:
    inside, outside, count = place.machine("ssh", DEV, "cat /proc/self/uid_map").out.split()
    assert (inside, count) == ("0", "65536")
    assert int(outside) >= 0x70000000
    privileged = ("run", "--rm", "--privileged", "busybox")
    assert place.docker(DEV, *privileged, "cat", "/proc/self/uid_map").out.split()[1] == outside
    for command in ("echo 1 >/proc/sys/kernel/sysrq", "mknod /null c 1 3"):
        assert place.docker(DEV, *privileged, "sh", "-c", command, code=None).code != 0, command


def test_sizes_change_at_once(place: LxcPlace) -> None:
    place.machine("set", "--memory", "768M", "--cpus", "2", DEV)
    command = "cat /groups/memory.max /groups/memory/memory.limit_in_bytes 2>/dev/null"
    limit = place.docker(
        DEV, "run", "--rm", "-v", "/sys/fs/cgroup:/groups:ro", "busybox", "sh", "-c", command, code=None
    )
    assert limit.out.split() == [str(768 << 20)]
    place.machine("set", "--disk", "3G", DEV)
    place.machine("restart", DEV)  # as long as root may not enlarge what is mounted: without CAP_SYS_RESOURCE
    size_kib = int(place.machine("ssh", DEV, "df -k /mnt/data | tail -n 1").out.split()[1])
    assert 2.6 < size_kib / (1 << 20) < 3


def test_a_greedy_program_ends_and_docker_stays(place: LxcPlace) -> None:
    # A stream without an end, all of which its reader must keep.
    assert place.docker(DEV, "run", "--rm", "busybox", "tail", "/dev/zero", code=None).code == 137
    assert "its memory ran out: tail was killed" in place.machine("status", DEV).err
    assert ready(place)


def test_nobody_uncovers_what_is_hidden_in_a_folder(place: LxcPlace, tmp_path: Path) -> None:
    kept = tmp_path / "a b" / "keys"
    kept.mkdir(parents=True)
    (kept / "secret").write_text("secret\n")
    (tmp_path / "seen").write_text("seen\n")
    (place.folder / "config.toml").write_text(f"mount-hide = [{json.dumps(str(kept))}]\n")
    place.machine("mount", "add", DEV, f"{tmp_path}:/src", timeout=120)
    script = (
        "cat /src/seen; umount '/src/a b/keys'; umount -l '/src/a b/keys'; umount -l /mnt/host/*/'a b'/keys;"
        " mv '/src/a b/keys' /src/c; mv '/src/a b' /src/d; rmdir '/src/a b/keys';"
        " cat '/src/a b/keys/secret' /mnt/host/*/'a b'/keys/secret /src/*/secret"
    )
    seen = place.machine("ssh", DEV, "sudo", "unshare", "-m", "sh", "-c", f'"{script}"', code=None)
    assert seen.out == "seen\n", seen
    assert (kept / "secret").exists()
    place.machine("mount", "rm", DEV, "/src")
    assert place.machine("ssh", DEV, "ls /src; ls /mnt/host").out == ""


def test_it_moves_with_the_owners_of_its_files(place: LxcPlace, tmp_path: Path) -> None:
    """To other user ids: those that it had are taken by another machine meanwhile."""
    script = (
        "dd if=/dev/urandom of=/data/file bs=1M count=8; chown 1234:4321 /data/file; chmod 4750 /data/file;"
        " ln -s /etc/passwd /data/link; mkdir /data/folder; chmod 1777 /data/folder"
    )
    look = "cd /data; sha256sum file; stat -c '%n %u %g %a' file folder link"
    volume = ("run", "--rm", "-v", "moved:/data", "busybox", "sh", "-c")
    place.docker(DEV, *volume, script)
    before = place.docker(DEV, *volume, look).out
    place.machine("stop", DEV)
    place.machine("export", DEV, tmp_path / "file")
    refused = place.machine("import", "--name", "moved", spoilt(tmp_path / "file", tmp_path / "spoilt"), code=None)
    assert "can't be unpacked" in refused.err
    assert not place.folder_of("moved").exists()
    place.machine("start", DEV)
    place.machine("import", "--name", "moved", tmp_path / "file")
    place.uuids.add(json.loads((place.folder_of("moved") / "machine.json").read_text())["uuid"])
    place.machine("start", "moved")
    assert place.docker("moved", *volume, look).out == before
    first = [place.machine("ssh", name, "cat /proc/self/uid_map").out.split()[1] for name in (DEV, "moved")]
    assert first[0] != first[1]
    place.machine("rm", "-y", "moved")


def spoilt(file: Path, target: Path) -> Path:
    """The same archive, whose disk has a device file besides: this computer's memory."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as crafted:
        entry = tarfile.TarInfo("./memory")
        entry.type, entry.devmajor, entry.devminor = tarfile.CHRTYPE, 1, 1
        crafted.addfile(entry)
    with tarfile.open(file) as whole, tarfile.open(target, "w|") as changed:
        for member in whole:
            reader = whole.extractfile(member)
            content = reader.read() if reader else b""
            if member.name == "home/data.tar":
                content = data.getvalue()
            if member.name == "sums.json":
                content = json.dumps(
                    {**json.loads(content), "home/data.tar": hashlib.sha256(data.getvalue()).hexdigest()}
                ).encode()
            member.size = len(content)
            changed.addfile(member, io.BytesIO(content))
    return target


def test_it_restarts_from_inside(place: LxcPlace) -> None:
    web = ("--restart", "always", "--name", "web", "-p", "8080:80")
    place.docker(DEV, "run", "-d", *web, "busybox", "httpd", "-f", "-h", "/etc")
    [before] = processes("slirp4netns", uuid(place))
    url = f"http://{place.machine('ip', DEV).out.strip()}:8080/passwd"
    place.machine("ssh", DEV, "sudo reboot", code=None)
    until(lambda: not before.is_running(), "the first run to end", timeout=120)
    until(lambda: "root" in place.execute("curl", "-s", "-m", "5", url, code=None).out, "its port", timeout=120)
    place.docker(DEV, "rm", "-f", "web")


def test_start_clears_what_a_killed_lxc_leaves(place: LxcPlace) -> None:
    [monitor] = processes("[lxc monitor]", uuid(place))
    monitor.kill()
    until(lambda: place.machine("status", DEV, code=None).out.strip() == "Stopped", "LXC to have ended")
    place.machine("start", DEV)
    assert ready(place)
    assert len(processes("slirp4netns", uuid(place))) == 1


def test_the_next_command_clears_what_a_killed_create_leaves(place: LxcPlace) -> None:
    with place.begun("create", *SIZE, "killed") as create:
        create.says("waiting for Docker")
        killed = json.loads((place.folder_of("killed") / "creating.json").read_text())["uuid"]
        place.uuids.add(killed)
        create.process.kill()
        create.process.wait()
    assert place.machine("ls", "-q").lines == [DEV]
    assert not place.folder_of("killed").exists()
    assert not (CONTAINERS / killed).exists()
    assert not [text for text in place.left_outside() if killed in text or "killed" in text]


def test_doctor_ends_a_container_without_a_machine(place: LxcPlace) -> None:
    """Last, because it takes the machine's record away."""
    name = uuid(place)
    (place.folder_of(DEV) / "machine.json").unlink()
    assert f"the container {name}: no machine in the store uses it" in place.machine("doctor", code=None).out
    place.machine("doctor", "--repair", code=None)
    assert place.left_outside() == []
    assert not place.folder_of(DEV).exists()
