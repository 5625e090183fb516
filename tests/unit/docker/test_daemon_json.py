import dataclasses
import json

import pytest

from machine.docker import daemon_json
from machine.errors import Usage
from machine.spec import Engine, Machine


def machine(**asked: tuple[str, ...]) -> Machine:
    return Machine("dev", "qemu", "uuid", "mac", "", 1024, 2, 8192, engine=Engine(**asked))


def daemon(*options: str, **asked: tuple[str, ...]) -> dict[str, object]:
    config = json.loads(daemon_json.content(machine(options=options, **asked)))
    assert isinstance(config, dict)
    return config


def test_dockers_defaults_stay() -> None:
    assert daemon() == {"host-gateway-ip": "10.0.2.2", "labels": ["provider=qemu"]}


def test_host_gateway_is_the_host_where_the_network_has_it() -> None:
    """Its address is known with user-mode networks only; the user's own choice wins."""
    asked = Machine("dev", "virtualbox", "uuid", "mac", "", 1024, 2, 8192)
    assert json.loads(daemon_json.content(asked))["host-gateway-ip"] == "10.0.2.2"
    for driver in ("libvirt", "generic"):
        assert "host-gateway-ip" not in json.loads(daemon_json.content(dataclasses.replace(asked, driver=driver)))
    assert daemon("host-gateway-ip=192.0.2.1")["host-gateway-ip"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("option", "key", "value"),
    [
        ("log-driver=local", "log-driver", "local"),
        ("--log-driver=local", "log-driver", "local"),
        ("-D", "debug", True),
        ("-s vfs", "storage-driver", "vfs"),
        ("--log-driver local", "log-driver", "local"),
        ("experimental", "experimental", True),
        ("ip6tables=false", "ip6tables", False),
        ("mtu=1400", "mtu", 1400),
        ("oom-score-adjust=-500", "oom-score-adjust", -500),
        ("bip=10.0.0.1/24", "bip", "10.0.0.1/24"),
        ("userns-remap=1000", "userns-remap", "1000"),
        ("default-shm-size=67108864", "default-shm-size", "67108864"),
        ("log-opt max-file=3", "log-opts", {"max-file": "3"}),
        ("log-opt=max-size=10m", "log-opts", {"max-size": "10m"}),
        ("feature=containerd-snapshotter=true", "features", {"containerd-snapshotter": True}),
        ("storage-opt=dm.basesize=20G", "storage-opts", ["dm.basesize=20G"]),
        ("dns=10.0.0.1", "dns", ["10.0.0.1"]),
        ("http-proxy=http://p:1", "proxies", {"http-proxy": "http://p:1"}),
        ("debug=1", "debug", True),
        ("userland-proxy=F", "userland-proxy", False),
        ("feature=buildkit=1", "features", {"buildkit": True}),
        ("cgroup-parent=1", "cgroup-parent", "1"),
        ("allow-nondistributable-artifacts=r:1", "allow-nondistributable-artifacts", ["r:1"]),
        ("add-runtime=crun=/usr/bin/crun", "runtimes", {"crun": {"path": "/usr/bin/crun"}}),
        ("default-ulimit=nofile=1:2", "default-ulimits", {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}),
        ("default-ulimit=core=-1", "default-ulimits", {"core": {"Name": "core", "Soft": -1, "Hard": -1}}),
        ("default-address-pool=base=10.0.0.0/8,size=24", "default-address-pools", [{"base": "10.0.0.0/8", "size": 24}]),
        ("default-network-opt=bridge=a.b=c=d", "default-network-opts", {"bridge": {"a.b": "c=d"}}),
        ('runtimes={"crun": {"path": "/usr/bin/crun"}}', "runtimes", {"crun": {"path": "/usr/bin/crun"}}),
        ('default-address-pools=[{"base": "10.0.0.0/8", "size": 24}]', "default-address-pools",
         [{"base": "10.0.0.0/8", "size": 24}]),
    ],
)  # fmt: skip
def test_an_option_becomes_a_key(option: str, key: str, value: object) -> None:
    assert daemon(option)[key] == value
    assert type(daemon(option)[key]) is type(value)


def test_repeated_options() -> None:
    config = daemon("dns=1.1.1.1", "dns=9.9.9.9", "dns=1.1.1.1", "log-opt=a=1", "log-opt=b=2", "mtu=1", "mtu=2")
    assert config["dns"] == ["1.1.1.1", "9.9.9.9"]
    assert config["log-opts"] == {"a": "1", "b": "2"}
    assert config["mtu"] == 2


def test_options_of_their_own_join_the_flags() -> None:
    config = daemon(
        "registry-mirror=https://a",
        "label=x=1",
        labels=("stage=test", "empty="),
        registry_mirrors=("https://b",),
        insecure_registries=("10.0.0.0/8",),
    )
    assert config["registry-mirrors"] == ["https://a", "https://b"]
    assert config["insecure-registries"] == ["10.0.0.0/8"]
    assert config["labels"] == ["x=1", "provider=qemu", "stage=test", "empty="]


@pytest.mark.parametrize(
    "option",
    ["host=tcp://0.0.0.0:1", "-H tcp://0.0.0.0:1", "hosts=[]", "tls=false", "--tlsverify=false", "tlscacert=/x",
     "containerd=/x", "data-root=/x", "graph=/x", "-g=/x", "pidfile=/x", "-p /x", "config-file=/x", "rootless",
     "validate", "cri-containerd"],
)  # fmt: skip
def test_what_the_machine_owns_is_refused(option: str) -> None:
    with pytest.raises(Usage, match=r"can't be set: .+"):
        daemon(option)


@pytest.mark.parametrize(
    "option",
    ["", "=x", "---x=1", "log-opt", "log-opt=x", "dns", "dns=", 'runtimes={"a"', "labels=1",
     'dns={"a": 1}', "default-ulimit=nofile", "default-ulimit=nofile=many", "default-address-pool=10.0.0.0/8",
     "default-address-pool=base=10.0.0.0/8", "default-network-opt=bridge", "add-runtime=crun", 'ulimits={"a"',
     "log-opt=[1]", "{{ 7*7 }}=1"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(option: str) -> None:
    with pytest.raises(Usage):
        daemon(option)


@pytest.mark.parametrize("label", ["plain", "=x", "a b=\n", "a\nb=c", "provider=mine"])
def test_bad_labels(label: str) -> None:
    with pytest.raises(Usage):
        daemon(labels=(label,))


NASTY = [
    '"',
    "'",
    "\\",
    '", "hosts": ["tcp://0.0.0.0:1"], "x": "',
    "{{ 7 * 7 }}",
    "{{.Name}} {% raw %}",
    "</script>&",
    "ü\u2028x",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_values_stay_values(nasty: str) -> None:
    config = daemon(f"cgroup-parent={nasty}", f"log-opt=tag={nasty}", f"dns-search={nasty}", registry_mirrors=(nasty,))
    assert config == {
        "cgroup-parent": nasty,
        "log-opts": {"tag": nasty},
        "dns-search": [nasty],
        "host-gateway-ip": "10.0.2.2",
        "labels": ["provider=qemu"],
        "registry-mirrors": [nasty],
    }


def test_docker_env() -> None:
    asked = machine(environment=("HTTP_PROXY=http://own:1", "A=b=c d'\"$(x)", "EMPTY="))
    text = daemon_json.docker_env(asked, {"HTTP_PROXY": "http://hosts:1", "no_proxy": "x"})
    assert text == "HTTP_PROXY=http://own:1\nno_proxy=x\nA=b=c d'\"$(x)\nEMPTY=\n"


@pytest.mark.parametrize("item", ["", "A", "=x", "1A=x", "A B=x", "A=x\nLD_PRELOAD=/x", "A=\0", "A\n=x", "A=\x1b[2J"])
def test_bad_variables(item: str) -> None:
    with pytest.raises(Usage):
        daemon_json.docker_env(machine(environment=(item,)), {})


def test_a_proxy_with_two_lines_is_refused() -> None:
    with pytest.raises(Usage, match="http_proxy"):
        daemon_json.environment({"http_proxy": "http://x\ny"})


@pytest.mark.parametrize(
    ("hosts", "guests"),
    [
        ("http://127.0.0.1:3128", "http://10.0.2.2:3128"),
        ("http://localhost:3128/", "http://10.0.2.2:3128/"),
        ("HTTP://LOCALHOST", "HTTP://10.0.2.2"),
        ("http://me:pass@127.1.2.3:1", "http://me:pass@10.0.2.2:1"),
        ("socks5h://[::1]:1080", "socks5h://10.0.2.2:1080"),
        ("localhost:3128", "10.0.2.2:3128"),
        ("http://localhost.corp:3128", "http://localhost.corp:3128"),
        ("http://proxy/localhost", "http://proxy/localhost"),
        ("http://10.127.0.0.1:1", "http://10.127.0.0.1:1"),
    ],
)
def test_a_proxy_on_the_host_is_rewritten(hosts: str, guests: str) -> None:
    assert daemon_json.proxies({"https_proxy": hosts}) == {"https_proxy": guests, "HTTPS_PROXY": guests}


def test_proxies() -> None:
    environ = {
        "HTTP_PROXY": "http://up",
        "http_proxy": "http://low",
        "NO_PROXY": "localhost,127.0.0.1",
        "https_proxy": "",
    }
    assert daemon_json.proxies(environ) == {
        "http_proxy": "http://low",
        "HTTP_PROXY": "http://low",
        "no_proxy": "localhost,127.0.0.1",
        "NO_PROXY": "localhost,127.0.0.1",
    }
    assert daemon_json.proxies({"PATH": "/bin"}) == {}
