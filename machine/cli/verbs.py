"""The verbs, in the groups and the order that `machine --help` shows."""

from __future__ import annotations

import sys

# Set by the script of `machine completion` when it wants to know what may come next.
COMPLETING = "_MACHINE_COMPLETE"

# Group -> verb -> its module in machine.cli and its line. The function has the verb's name, with an underscore for each
# dash, and one more where it is a word of Python.
GROUPS = {
    "Make and remove": {
        "create": ("create", "Make a machine and start it."),
        "rm": ("life", "Remove machines and all that belongs to them."),
        "import": ("archive", "Make a machine from a file that export wrote."),
        "export": ("archive", "Write a machine into a file, with its disk and keys."),
        "import-docker-machine": ("docker_machine", "Take over the machines of docker-machine."),
    },
    "Projects": {
        "init": ("project", "Write a machine.yaml for the project in this folder."),
        "plan": ("project", "Print what `up` would do."),
        "up": ("project", "Make, change and start the machines of machine.yaml."),
        "down": ("project", "Shut the machines of machine.yaml down, or remove them."),
        "schema": ("project", "Print the JSON schema of machine.yaml."),
    },
    "Use": {
        "ls": ("ls", "List the machines."),
        "status": ("show", "Print a machine's state and warnings."),
        "env": ("env", "Print the commands that set up a shell for the docker client."),
        "active": ("env", "Print the machine that the docker client is set to."),
        "docker-context": ("docker_context", "Make docker contexts for machines."),
        "ssh": ("ssh", "Log in to a machine, or run a command on it."),
        "scp": ("copy", "Copy files from or to a machine."),
        "mount": ("mount", "Show folders of this host in a machine, or a machine's folder here."),
        "ssh-config": ("ssh_config", "Make machines known to ssh and tools that use it."),
        "ip": ("show", "Print a machine's address."),
        "url": ("show", "Print the address of a machine's Docker daemon."),
        "config": ("env", "Print the options for a docker client."),
        "inspect": ("show", "Print all that is known of a machine, as JSON."),
        "logs": ("logs", "Print a machine's serial console."),
    },
    "Life": {
        "start": ("life", "Start machines."),
        "stop": ("life", "Shut machines down."),
        "restart": ("life", "Stop machines and start them again."),
        "kill": ("life", "Switch machines off at once."),
        "suspend": ("suspend", "Write the memory of machines to disk and switch them off."),
        "resume": ("suspend", "Continue suspended machines."),
        "autostart": ("autostart", "Start a machine when the host boots, or not."),
    },
    "Maintain": {
        "set": ("set", "Change a machine's sizes and settings."),
        "provision": ("provision", "Apply the settings of machines again."),
        "upgrade": ("provision", "Upgrade machines to the newest system."),
        "regenerate-certs": ("certs", "Make new TLS certificates for machines."),
        "snapshot": ("snapshot", "Save a machine's state under a name, and restore it."),
    },
    "Several machines": {
        "cluster": ("cluster", "Make several machines one Docker: a swarm."),
        "network": ("network", "Manage the networks on which machines reach each other."),
    },
    "Images and templates": {
        "image": ("image", "Manage the cache of images."),
        "iso": ("iso", "Build and manage the machines' operating system."),
        "template": ("template", "Manage the booted machines that new ones are cloned from."),
    },
    "Host": {
        "setup": ("setup", "Look what this host lacks for machines, and install it."),
        "doctor": ("doctor", "Find problems, and print how to fix them."),
        "completion": ("completion", "Print the script that completes words in a shell."),
        "help": ("help", "Print what a verb does, with examples."),
        "version": ("show", "Print the version of machine, or of a machine's Docker."),
    },
}
VERBS = {verb: about for group in GROUPS.values() for verb, about in group.items()}
# What prompts and shells' profiles call, which prompt.py answers: so many names does each take.
PROMPTS = {"active": 0, "env": 1, "ip": sys.maxsize, "url": 1}
# Bare `machine` prints these.
FIRST: tuple[tuple[str, str], ...] = (
    ("machine create", "Make the machine `default` and start it."),
    ('eval "$(machine env)"', "Point the docker client of this shell at it."),
    ("docker run --rm hello-world", "Run a container on it."),
    ("machine stop", "Shut it down; `machine start` starts it again."),
    ("machine rm", "Remove it and all that belongs to it."),
)
# There PowerShell is the usual shell.
FIRST_ON_WINDOWS = (FIRST[0], ("machine env | Invoke-Expression", FIRST[1][1]), *FIRST[2:])
