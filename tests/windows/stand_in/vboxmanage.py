r"""A stand-in for VirtualBox 7.2's VBoxManage.exe, for tests of programs that call it: no VirtualBox is behind it.

What it imitates. Lines end with CRLF, as the real one's on Windows do. Virtual machines, their settings, media and
NAT rules are kept from call to call in state.json in the folder VBOX_USER_HOME (as with the real one;
%USERPROFILE%\.VirtualBox without it), beside calls.log, which has each call as a line of JSON. Answers, error messages
and exit codes are those that a real 7.2 gave to recorded calls, with the names of today put in; so its oddities are
there: an error with exit code 0, progress on stderr, a machine locked while it runs. A machine that is started gets a
guest, a process on the Linux side (guest.py): it answers at the forwarded ports, and reads keys and certificates from
the seed ISO in the drives. The power button is obeyed after a second. A guest that is killed leaves "aborted".

Verbs: --version; list (vms, runningvms, hdds, dvds; the rest as recorded); createvm, registervm, unregistervm; modifyvm
(what showvminfo shows, natpf1, uart1); showvminfo --machinereadable; storagectl; storageattach; createmedium,
closemedium; startvm; controlvm (pause, resume, reset, poweroff, acpipowerbutton, savestate, natpf1); discardstate;
snapshot (take, restore, restorecurrent, delete, list); sharedfolder; setextradata, getextradata;
guestproperty (nothing is ever set). Anything else: the recorded answer to the same words, else an error.

What it doesn't. No session or COM server is kept: nothing is "busy for a moment". Disks are empty files, snapshots
have no content, saved states no memory. Values aren't checked (memory, OS types, names); media aren't locked. Words in
state.json are all it knows of hardware. showvminfo without --machinereadable, clonevm, and host-only or bridged
networks are as recorded or refused. Its speed is Wine's: 0.5 to 2 s a call.

VBOX_STANDIN_VTX=no makes `list hostinfo` say that there is no hardware virtualization. VBOX_STANDIN_ENCODING=cp1252
answers in that code page instead of UTF-8. VBOX_STANDIN_BOOT is the seconds that a guest takes to boot (1).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import uuid
from pathlib import Path
from typing import Any, NoReturn

import recorded
from recorded import Done, as_recorded, fail, say
from vm_state import FOLDER, ON, Vm, alone, guest_runs, load, save, start_guest
from vm_texts import is_uuid, long_entry, machinereadable, medium_entry, now, snapshot_fields, uuid5, write_settings

ENCODING = os.environ.get("VBOX_STANDIN_ENCODING", "utf-8")
# Seconds from the power button to "powered off".
SHUTDOWN = 1.0
PROGRESS = "".join(f"{percent}%..." for percent in range(0, 100, 10)) + "100%\n"
# What modifyvm calls otherwise than showvminfo.
FIELDS = {
    "audio-driver": "audio",
    "biosbootmenu": "bootmenu",
    "clipboard-mode": "clipboard",
    "nat-pf1": "natpf1",
    "usbehci": "ehci",
    "usbohci": "usb",
    "usbxhci": "xhci",
}


class Words(list[str]):
    def value(self, *options: str, default: str = "") -> str:
        """What follows the first of these options that is there."""
        for at, word in enumerate(self[:-1]):
            if word in options:
                return self[at + 1]
        return default


class Standin:
    def __init__(self, words: list[str]) -> None:
        self.words = Words(words)
        self.state = load()
        self.vms: dict[str, Vm] = self.state["vms"]
        self.disks: dict[str, str] = self.state["disks"]

    # The machines

    def vm(self, name: str) -> Vm:
        for key, vm in self.vms.items():
            if name.strip("{}") == key or name == vm["name"]:
                return vm
        # The recorded ones were asked for by name.
        text = f"with UUID {{{name}}}" if is_uuid(name) else f"named '{name}'"
        raise Done(recorded.answer("main-showvminfo-unknown").with_(("named 'nosuch'", text)))

    def off(self, vm: Vm) -> None:
        if vm["state"] in ON:
            as_recorded("running-modifyvm-running", ("'dev'", f"'{vm['name']}'"))

    def on(self, vm: Vm) -> None:
        if vm["state"] not in ON:
            as_recorded("storage-controlvm-poweroff-off", ("'dev'", f"'{vm['name']}'"))

    def settle(self) -> None:
        """What has happened since the last call."""
        for vm in self.vms.values():
            if vm["state"] in ON and vm["off_at"] and time.time() > vm["off_at"]:
                self.switch_off(vm, "poweroff")
            elif vm["state"] in ON and vm["guest"] and not guest_runs(vm["guest"]):
                self.switch_off(vm, "aborted")

    def switch_off(self, vm: Vm, state: str) -> None:
        vm.update(state=state, guest=0, off_at=0)

    def switch_on(self, vm: Vm) -> None:
        vm.update(state="running", off_at=0, guest=0)
        # The guest reads state.json, where it has to find itself running.
        save(self.state)
        vm["guest"] = start_guest(vm)

    def disk_uuid(self, path: str) -> str:
        return self.disks.setdefault(path, str(uuid.uuid4()))

    # The verbs

    def do_createvm(self) -> None:
        name, folder = self.words.value("--name"), self.words.value("--basefolder")
        if not name or not folder:
            as_recorded("main-createvm-noname")
        config = rf"{folder}\{name}\{name}.vbox"
        if Path(config).exists():
            as_recorded("main-createvm-exists", ("/srv/m1/dev/dev/dev.vbox", config))
        key = self.words.value("--uuid", default=str(uuid.uuid4()))
        Path(config).parent.mkdir(parents=True, exist_ok=True)
        self.vms[key] = vm = {
            **{"uuid": key, "name": name, "config": config, "state": "poweroff", "off_at": 0, "guest": 0},
            **{"fields": {}, "media": {}, "nat": {}, "controllers": [], "shares": {}, "extra": {}, "console": ""},
            **{"snapshots": [], "current": ""},
        }
        write_settings(vm)
        as_recorded(
            "main-createvm",
            ("'dev'", f"'{name}'"),
            ("1963a9a7-6a48-4092-a22b-cedb3acf2998", key),
            ("/srv/m1/dev/dev/dev.vbox", config),
        )

    def do_registervm(self) -> None:
        fail("a settings file that isn't registered isn't understood by this stand-in")

    def do_unregistervm(self) -> None:
        vm = self.vm(self.words[1])
        if vm["state"] in ON:
            as_recorded("running-unregistervm-running", ("'dev'", f"'{vm['name']}'"))
        if "--delete" in self.words:
            for path in vm["media"].values():
                if path in self.disks:
                    Path(path).unlink(missing_ok=True)
                    self.disks.pop(path)
            shutil.rmtree(Path(vm["config"]).parent, ignore_errors=True)
        del self.vms[vm["uuid"]]
        say(error=PROGRESS if "--delete" in self.words else "")

    def do_modifyvm(self) -> None:
        vm = self.vm(self.words[1])
        self.off(vm)
        at = 2
        while at < len(self.words):
            option = self.words[at].removeprefix("--")
            option = FIELDS.get(option, option)
            taken = 1
            value = self.words[at + 1] if at + 1 < len(self.words) else ""
            if option == "natpf1":
                taken += self.natpf(vm, value, self.words[at + 2 : at + 3], "main-modifyvm-natpf1-dup")
            elif option == "uart1" and value != "off":
                vm["fields"]["uart1"] = f"{value},{self.words[at + 2]}"
                taken = 2
            elif option == "uartmode1" and value in {"file", "server", "client", "tcpserver", "tcpclient"}:
                vm["console"] = self.words[at + 2] if value == "file" else ""
                vm["fields"]["uartmode1"] = f"{value},{self.words[at + 2]}"
                taken = 2
            else:
                vm["fields"][option] = value
            at += 1 + taken
        write_settings(vm)

    def natpf(self, vm: Vm, rule: str, following: list[str], duplicate: str) -> int:
        """Add or delete a rule; returns how many words more than one it took."""
        if rule == "delete":
            if vm["nat"].pop(following[0], None) is None:
                fail(f"NAT rule '{following[0]}' doesn't exist", "NS_ERROR_INVALID_ARG", "0x80070057")
            return 1
        name = rule.partition(",")[0]
        if name in vm["nat"]:
            as_recorded(duplicate)
        vm["nat"][name] = rule
        return 0

    def do_showvminfo(self) -> None:
        vm = self.vm(self.words[1])
        if not Path(vm["config"]).exists():
            fail(
                f"Runtime error opening '{vm['config']}' for reading VERR_FILE_NOT_FOUND",
                "E_ACCESSDENIED",
                "0x80070005",
            )
        if "--machinereadable" not in self.words:
            fail("only --machinereadable is imitated")
        say(machinereadable(vm, self.disks))

    def do_list(self) -> None:
        what = next((word for word in self.words[1:] if not word.startswith("-")), "")
        long = "--long" in self.words or "-l" in self.words
        vms = [vm for vm in self.vms.values() if what == "vms" or vm["state"] in ON]
        match what:
            case "vms" | "runningvms" if long:
                say("\n".join(map(long_entry, vms)) + "\n" if vms else "")
            case "vms" | "runningvms":
                say("".join(f'"{vm["name"]}" {{{vm["uuid"]}}}\n' for vm in vms))
            case "hdds":
                say("".join(medium_entry(path, key, "disk") for path, key in self.disks.items()))
            case "dvds":
                say("".join(medium_entry(path, uuid5(path), "dvd") for path in self.dvds()))
            case "hostinfo":
                offers = os.environ.get("VBOX_STANDIN_VTX", "yes")
                as_recorded("main-list-hostinfo", ("HW virtualization: no", f"HW virtualization: {offers}"))
            case _:
                self.otherwise()

    def dvds(self) -> list[str]:
        return sorted({path for vm in self.vms.values() for path in vm["media"].values() if path not in self.disks})

    def do_storagectl(self) -> None:
        vm = self.vm(self.words[1])
        self.off(vm)
        name = self.words.value("--name")
        if "--remove" in self.words:
            vm["controllers"] = [entry for entry in vm["controllers"] if entry[0] != name]
        else:
            vm["controllers"].append([name, int(self.words.value("--portcount", default="30"))])

    def do_storageattach(self) -> None:
        vm = self.vm(self.words[1])
        name, medium = self.words.value("--storagectl"), self.words.value("--medium")
        if name not in [entry[0] for entry in vm["controllers"]]:
            as_recorded("storage-storageattach-no-controller", ("'NOPE'", f"'{name}'"))
        drive = f"{name}-{self.words.value('--port')}-{self.words.value('--device')}"
        if medium in {"none", "emptydrive"}:
            vm["media"].pop(drive, None)
            return
        if not Path(medium).exists():
            as_recorded("storage-storageattach-missing-medium", ("/srv/m2/missing.vmdk", medium))
        vm["media"][drive] = medium
        if self.words.value("--type") == "hdd":
            self.disk_uuid(medium)

    def do_createmedium(self) -> None:
        path = self.words.value("--filename")
        if Path(path).exists():
            as_recorded("storage-createmedium-exists", ("/srv/m2/data.vdi", path))
        Path(path).write_bytes(b"")
        old = "0907f4ab-f11b-4605-88e7-eb36b26ac70b"
        as_recorded("storage-createmedium-vdi", (old, self.disk_uuid(path)))

    def do_closemedium(self) -> None:
        medium = self.words[2]
        path = next((path for path, key in self.disks.items() if medium in (path, key)), "")
        if not path and medium not in self.dvds() and medium not in map(uuid5, self.dvds()):
            as_recorded("storage-closemedium-missing", ("/srv/m2/missing.vdi", medium))
        users = sum(path in vm["media"].values() for vm in self.vms.values())
        if users:
            pairs = ("/srv/m2/dev/disk.vmdk", path), ("attached to 2", f"attached to {users}")
            as_recorded("storage-closemedium-attached", *pairs)
        self.disks.pop(path, None)
        if "--delete" in self.words:
            Path(path).unlink(missing_ok=True)
            say(error=PROGRESS)

    def do_startvm(self) -> None:
        vm = self.vm(self.words[1])
        if self.words.value("--type") == "emergencystop":
            self.switch_off(vm, "aborted")
            return
        if vm["state"] in ON:
            as_recorded("running-startvm-already", ("'dev'", f"'{vm['name']}'"))
        for path in vm["media"].values():
            if not Path(path).exists():
                as_recorded("running-startvm-missing-iso", ("/srv/m5/boot.iso", path), ('"dev"', f'"{self.words[1]}"'))
        self.switch_on(vm)
        as_recorded("running-startvm", ('"dev"', f'"{self.words[1]}"'))

    def do_controlvm(self) -> None:
        vm = self.vm(self.words[1])
        self.on(vm)
        match self.words[2:]:
            case ["poweroff"]:
                self.switch_off(vm, "poweroff")
                say(error=PROGRESS)
            case ["acpipowerbutton"]:
                vm["off_at"] = time.time() + SHUTDOWN
            case ["savestate"]:
                self.switch_off(vm, "saved")
                say(error=PROGRESS)
            case ["pause"]:
                vm["state"] = "paused"
            case ["resume"] if vm["state"] == "running":
                as_recorded("running-controlvm-resume-again")
            case ["resume"]:
                vm["state"] = "running"
            case ["reset"]:
                pass
            case ["natpf1", rule, *following]:
                self.natpf(vm, rule, following, "running-controlvm-natpf1-dup")
            case [word, *_]:
                fail(f"Invalid parameter '{word}'")
            case _:
                fail("Not enough parameters")

    def do_discardstate(self) -> None:
        vm = self.vm(self.words[1])
        if vm["state"] != "saved":
            as_recorded("storage-discardstate-off")
        vm["state"] = "poweroff"

    def do_snapshot(self) -> None:
        vm = self.vm(self.words[1])
        names = {entry["name"]: entry for entry in vm["snapshots"]} | {
            entry["uuid"]: entry for entry in vm["snapshots"]
        }
        match self.words[2:]:
            case ["take", name, *_]:
                entry = {"name": name, "uuid": str(uuid.uuid4()), "time": now(), "running": vm["state"] in ON}
                vm["snapshots"].append(entry)
                vm["current"] = entry["uuid"]
                write_settings(vm)
                say(f"Snapshot taken. UUID: {entry['uuid']}\n", PROGRESS)
            case ["list", *_] if not vm["snapshots"]:
                as_recorded("storage-snapshot-list-none")
            case ["list", *_]:
                say("\n".join(snapshot_fields(vm)) + "\n")
            case ["restorecurrent"]:
                self.restore(vm, names[vm["current"]])
            case ["restore" | "delete", name] if name not in names:
                as_recorded("storage-snapshot-restore-missing", ("'nope'", f"'{name}'"))
            case ["restore", name]:
                self.restore(vm, names[name])
            case ["delete", name]:
                vm["snapshots"].remove(names[name])
                write_settings(vm)
                say(f"Deleting snapshot '{names[name]['name']}' ({names[name]['uuid']})\n", PROGRESS)
            case _:
                self.otherwise()

    def restore(self, vm: Vm, entry: dict[str, Any]) -> NoReturn:
        self.off(vm)
        vm.update(state="saved" if entry["running"] else "poweroff", current=entry["uuid"])
        say(f"Restoring snapshot '{entry['name']}' ({entry['uuid']})\n", PROGRESS)

    def do_sharedfolder(self) -> None:
        vm = self.vm(self.words[2])
        name, path = self.words.value("--name"), self.words.value("--hostpath")
        if self.words[1] == "remove":
            if vm["shares"].pop(name, None) is None:
                as_recorded("storage-sharedfolder-remove-missing", ("'ro'", f"'{name}'"))
            return
        if name in vm["shares"]:
            as_recorded("storage-sharedfolder-add-dup", ("'hosthome'", f"'{name}'"))
        if not Path(path).is_dir():
            as_recorded("storage-sharedfolder-add-missing-path", ("/srv/m2/nosuchdir", path))
        vm["shares"][name] = path

    def do_setextradata(self) -> None:
        if self.words[1] != "global":
            self.vm(self.words[1])["extra"][self.words[2]] = "".join(self.words[3:4])

    def do_getextradata(self) -> None:
        extra = {} if self.words[1] == "global" else self.vm(self.words[1])["extra"]
        if self.words[2] == "enumerate":
            say("".join(f"Key: {key}, Value: {value}\n" for key, value in extra.items()))
        value = extra.get(self.words[2])
        say(f"Value: {value}\n" if value else "No value set!\n")

    def do_guestproperty(self) -> None:
        self.vm(self.words[2])
        say("No value set!\n" if self.words[1] == "get" else "No properties found.\n")

    def otherwise(self) -> None:
        if answer := recorded.same_words(self.words):
            raise Done(answer)
        say(error=f"VBoxManage.exe: error: Invalid command '{self.words[0]}'.\n", code=2)


def main(words: list[str]) -> recorded.Answer:
    if not words:
        return recorded.Answer(0, "Usage: VBoxManage [<general option>] <command>\n", "")
    if words == ["--version"]:
        return recorded.answer("main-version")
    with alone():
        with (FOLDER / "calls.log").open("a", encoding="utf-8") as log:
            log.write(json.dumps(words, ensure_ascii=False) + "\n")
        standin = Standin(words)
        standin.settle()
        try:
            getattr(standin, f"do_{words[0]}", standin.otherwise)()
            return recorded.Answer(0, "", "")
        except Done as done:
            return done.answer
        except IndexError:
            return recorded.Answer(2, "", "VBoxManage.exe: error: Not enough parameters\n")
        finally:
            save(standin.state)


if __name__ == "__main__":
    said = main(sys.argv[1:])
    for stream, text in ((sys.stdout, said.out), (sys.stderr, said.error)):
        stream.buffer.write(text.replace("\n", "\r\n").encode(ENCODING, "replace"))
        stream.flush()
    sys.exit(said.code)
